"""What a forward asked in Python: which answers a replay can follow, and which have to stay as they were.

`then` is a tensor as recorded, `now` the same one in the replay.
"""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.record import Kind, Layer, Look, OpSpec, Profile
from cspprof.replay.values import UnknownError, Value

TYPES = frozenset({"dtype", "is_floating_point", "element_size", "itemsize", "aten.to", "aten._to_copy"})
"""Asks for the dtype and nothing else."""
LAYOUT = frozenset({"aten.contiguous", "contiguous", "is_contiguous"})

LOST = "and what it does with the answer is not on record"


def named(profile: Profile, layer: int) -> str:
    """`layer 'neck.cem' (ContextEnhancement)`."""
    path, name = profile.layers[layer].path, profile.layers[layer].class_name.rpartition(".")[2]
    return f"layer {path!r} ({name})" if path else f"the forward of {name}"


def on_look(look: Look, then: Value, now: Value, profile: Profile) -> None:
    """Raises UnknownError unless the forward goes on as it did with what it heard."""
    who = named(profile, look.layer)
    if look.what == "aten.flatten" and len(look.spec.shape) == 2:
        return
    if look.what in TYPES:
        kept, why = then.dtype == now.dtype, f"asks for the dtype of {look.spec} ({look.what}), {LOST}"
    elif look.what in LAYOUT and not look.args:
        known = None not in (then.strides, now.strides) and (then.strides == ()) == (now.strides == ())
        kept, why = known or then == now, f"depends on how {look.spec} lies in memory ({look.what})"
    elif look.what == "aten.chunk":
        dim = dict(look.args).get("dim", 0)
        kept, why = then.shape[dim] == now.shape[dim], f"divides the dimension {dim} of {look.spec} into equal parts"
    elif look.what.startswith("aten."):
        kept = then[:2] == now[:2]
        why = f"does {look.what} on {look.spec}, and what that does at another size is not on record"
    elif look.what == "size" and (dim := dict(look.args).get("dim")) is not None:
        kept, why = then.shape[dim] == now.shape[dim], f"asks for the size({dim}) of {look.spec}, {LOST}"
    else:
        kept = then.shape == now.shape and (look.what != "nbytes" or then.dtype == now.dtype)
        why = f"asks for the {look.what} of {look.spec}, {LOST}"
    if not kept:
        raise UnknownError(f"{who} {why}")


def following(spec: OpSpec, layer: int, looks: Sequence[tuple[Look, Value]]) -> tuple[int, ...] | None:
    """A resize to the height and width that its own layer has just asked another map for follows that map: the size
    that it gives.

    None where any answer is left that this does not explain.
    """
    size = spec.attrs.get("output_size")
    if spec.kind is not Kind.RESIZE or size is None or not looks:
        return None
    found: dict[int, Value] = {}
    for look, value in looks:
        shape = look.spec.shape
        dim = dict(look.args).get("dim")
        if look.what not in ("shape", "size") or look.layer != layer or len(shape) != len(size) + 2:
            return None
        for d in range(2, len(shape)) if dim is None else [dim % len(shape)]:
            if d < 2 or size[d - 2] != shape[d] or found.setdefault(d, value) is not value:
                return None
    return tuple([found[d].shape[d] if d in found else n for d, n in enumerate(size, 2)])


def loose(layer: Layer) -> bool:
    """Whether its forward is the user's, so that a size it has at hand may be an argument of whatever it does."""
    return not layer.class_name.startswith("torch.nn.")


def on_numbers(spec: OpSpec, then: Sequence[Value], now: Sequence[Value], who: str) -> None:
    """Raises UnknownError unless the numbers among the arguments are what they were, where a size may be in them."""
    attrs = spec.attrs
    rank = len(now[0].shape) if now else 0
    kept = True
    if "pad" in attrs:
        touched = {rank - 1 - i // 2 for i, n in enumerate(attrs["pad"]) if n}
        kept = all(then[0].shape[d] == now[0].shape[d] for d in touched)
    elif spec.name in ("slice", "narrow", "select", "split", "split_with_sizes", "unflatten"):
        dim = attrs.get("dim", 0)
        kept = then[0].shape[dim] == now[0].shape[dim]
    elif any(_number(v) for k, v in attrs.items() if k not in ("dim", "dims", "start_dim", "end_dim")):
        kept = all(a.shape == b.shape for a, b in zip(then, now, strict=True))
    if not kept:
        raise UnknownError(
            f"{who} has asked for sizes, and a number among the arguments of its {spec.target} may be one of them"
        )


def _number(value: object) -> bool:
    if isinstance(value, tuple):
        return any(map(_number, value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)
