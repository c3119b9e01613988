"""What a forward asked in Python: which answers a replay can follow, and which have to stay as they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cspprof.record import Kind, Layer, Look, OpSpec, Profile
from cspprof.replay.values import UnknownError, Value

Follow = tuple[int, int, int]
"""A place in the size that a resize gives, and the value and its dimension that it is taken from."""

TYPES = frozenset({"dtype", "is_floating_point", "element_size", "itemsize", "aten.to", "aten._to_copy"})
"""Asks for the dtype and nothing else."""
LAYOUT = frozenset({"aten.contiguous", "contiguous", "is_contiguous"})
HARMLESS = frozenset({"aten.chunk"})
"""Taken apart, and its parts know what they need."""


LOST = "and what it does with the answer is not on record"


def named(profile: Profile, layer: int) -> str:
    """`layer 'neck.cem' (ContextEnhancement)`."""
    path, name = profile.layers[layer].path, profile.layers[layer].class_name.rpartition(".")[2]
    return f"layer {path!r} ({name})" if path else f"the forward of {name}"


class Guard(NamedTuple):
    """A value, or some of its dimensions, that have to be as recorded."""

    value: int
    why: str
    dims: tuple[int, ...] | None = None
    dtype: bool = False
    shape: bool = True
    contiguous: bool = False

    def check(self, recorded: Sequence[Value], values: Sequence[Value]) -> None:
        """Raises UnknownError."""
        old, new = recorded[self.value], values[self.value]
        if self.dims is not None:
            kept = all(old.shape[d] == new.shape[d] for d in self.dims)
        elif self.contiguous:
            kept = old == new or (None not in (old.strides, new.strides) and (old.strides == ()) == (new.strides == ()))
        else:
            kept = not (self.shape and old.shape != new.shape) and not (self.dtype and old.dtype != new.dtype)
        if not kept:
            raise UnknownError(self.why)


def on_look(look: Look, value: int, profile: Profile) -> list[Guard]:
    """What has to stay, so that the forward goes on as it did."""
    who = named(profile, look.layer)
    if look.what in HARMLESS:
        return []
    if look.what in TYPES:
        return [Guard(value, f"{who} asks for the dtype of {look.spec} ({look.what}), {LOST}", dtype=True, shape=False)]
    if look.what in LAYOUT and not look.args:
        return [Guard(value, f"{who} depends on how {look.spec} lies in memory ({look.what})", contiguous=True)]
    if look.what.startswith("aten."):
        if look.what == "aten.flatten" and len(look.spec.shape) == 2:
            return []
        return [
            Guard(
                value,
                f"{who} does {look.what} on {look.spec}, and what that does at another size is not on record",
                dtype=True,
            )
        ]
    dim = dict(look.args).get("dim") if look.what == "size" else None
    dims = None if dim is None else (dim % len(look.spec.shape),)
    what = f"size({dim})" if dims else look.what
    return [Guard(value, f"{who} asks for the {what} of {look.spec}, {LOST}",
                  dims, dtype=look.what == "nbytes")]  # fmt: skip


def following(spec: OpSpec, layer: int, looks: Sequence[tuple[Look, int]]) -> tuple[Follow, ...]:
    """A resize to the height and width that its own layer has just asked another map for follows that map.

    Empty where any answer is left that this does not explain.
    """
    size = spec.attrs.get("output_size")
    if spec.kind is not Kind.RESIZE or size is None:
        return ()
    found: dict[int, Follow] = {}
    for look, value in looks:
        shape = look.spec.shape
        dim = dict(look.args).get("dim")
        if look.what not in ("shape", "size") or look.layer != layer or len(shape) != len(size) + 2:
            return ()
        for d in range(2, len(shape)) if dim is None else [dim % len(shape)]:
            if d < 2 or size[d - 2] != shape[d] or found.get(d, (d - 2, value, d)) != (d - 2, value, d):
                return ()
            found[d] = (d - 2, value, d)
    return tuple(found.values())


def loose(layer: Layer) -> bool:
    """Whether its forward is the user's, so that a size it has at hand may be an argument of whatever it does."""
    return not layer.class_name.startswith("torch.nn.")


def on_numbers(spec: OpSpec, reads: Sequence[int], who: str) -> list[Guard]:
    """What has to stay for the numbers among the arguments to be what they were, where a size may be in them."""
    attrs = spec.attrs
    why = f"{who} has asked for sizes, and a number among the arguments of its {spec.target} may be one of them"
    rank = len((*spec.reads, *spec.weights)[0].shape) if reads else 0
    if "pad" in attrs:
        touched = {rank - 1 - i // 2 for i, n in enumerate(attrs["pad"]) if n}
        return [Guard(reads[0], why, tuple(touched))]
    if spec.name in ("slice", "narrow", "select", "split", "split_with_sizes", "unflatten"):
        return [Guard(reads[0], why, (attrs.get("dim", 0) % rank,))]
    numbers = {k for k, v in attrs.items() if k not in ("dim", "dims", "start_dim", "end_dim") and _number(v)}
    return [Guard(v, why) for v in reads] if numbers else []


def _number(value: object) -> bool:
    if isinstance(value, tuple):
        return any(map(_number, value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)
