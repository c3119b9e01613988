"""What a forward asked in Python: which answers a replay can follow, and which have to stay as they were.

`then` is a tensor as recorded, `now` the same one in the replay.
"""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.record import Look, OpSpec, Profile, TensorSpec
from cspprof.replay.shapes import FLOATS
from cspprof.replay.values import UnknownError, Value

TYPES = frozenset({"dtype", "type", "is_floating_point", "is_complex", "is_signed", "element_size", "itemsize",
                   "aten.to", "aten._to_copy"})  # fmt: skip
"""Asks for the dtype and nothing else."""
RESIZE = "resize"
"""What a look says of the next call: one of its sizes is what was asked of another map."""
CASTS = frozenset({"aten.to", "aten._to_copy"})
"""To the dtype of another tensor, perhaps."""
BYTES = frozenset({"nbytes", "untyped_storage", "storage"})
"""Asks for the shape and the dtype."""
LAYOUT = frozenset({"aten.contiguous", "contiguous", "is_contiguous"})

LOST = "and what it does with the answer is not on record"


def named(profile: Profile, layer: int) -> str:
    """`layer 'neck.cem' (ContextEnhancement)`."""
    path, name = profile.layers[layer].path, profile.layers[layer].class_name.rpartition(".")[2]
    return f"layer {path!r} ({name})" if path else f"the forward of {name}"


def on_look(look: Look, then: Value, now: Value, profile: Profile, recast: bool) -> None:
    """Raises UnknownError unless the forward goes on as it did with what it heard; `recast` where anything has another
    dtype than in the record."""
    who = named(profile, look.layer)
    if look.what == "aten.flatten" and len(look.spec.shape) == 2:
        return
    if look.what in TYPES:
        kept = then.dtype == now.dtype and not (recast and look.what in CASTS and then.dtype in FLOATS)
        why = f"asks for the dtype of {look.spec} ({look.what}), {LOST}"
    elif look.what in LAYOUT and not look.args:
        known = None not in (then.strides, now.strides) and (then.strides == ()) == (now.strides == ())
        kept, why = known or then == now, f"depends on how {look.spec} lies in memory ({look.what})"
    elif look.what == "aten.chunk":
        dim = dict(look.args).get("dim", 0)
        kept, why = then.shape[dim] == now.shape[dim], f"divides the dimension {dim} of {look.spec} into equal parts"
    elif look.what == "crop":
        dim = dict(look.args)["dim"]
        kept = now.shape[dim] <= then.shape[dim]
        why = f"takes {look.spec} up to a stop in dimension {dim}, which may lie within a larger map"
    elif look.what.startswith("aten."):
        kept = then[:2] == now[:2]
        why = f"does {look.what} on {look.spec}, and what that does at another size is not on record"
    elif look.what == "size" and (dim := dict(look.args).get("dim")) is not None:
        kept, why = then.shape[dim] == now.shape[dim], f"asks for the size({dim}) of {look.spec}, {LOST}"
    else:
        kept = then.shape == now.shape and (look.what not in BYTES or then.dtype == now.dtype)
        why = f"asks for the {look.what} of {look.spec}, {LOST}"
    if not kept:
        raise UnknownError(f"{who} {why}")


def asking(look: Look) -> tuple[int, int, TensorSpec]:
    """What was asked before which call, as the resize that follows the answer has it."""
    return dict(look.args).get("asked", look.at), look.storage, look.spec


def resized(spec: OpSpec, looks: Sequence[tuple[Look, Value]]) -> tuple[int, ...]:
    """The size to which an operation resizes that follows other maps: those that it is said to, with what was asked.

    Raises UnknownError where it is not the operation that these looks are about.
    """
    size = list(spec.attrs.get("output_size") or ())
    for look, value in looks:
        args = dict(look.args)
        i, dim = args["output"], args["dim"]
        if size[i : i + 1] != [look.spec.shape[dim]]:
            raise UnknownError(f"resizes to the size of {look.spec}, {LOST}")
        size[i] = value.shape[dim]
    return tuple(size)
