"""The closed form against the block itself: built from the zoo's parts, traced, and compared layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING

from cspprof.closed_form.layers import QUANTITIES, Layer
from cspprof.closed_form.numbers import Block
from cspprof.metrics import METRICS
from cspprof.record import CONVOLUTIONS, POOLS, OpSpec
from cspprof.rows import Row, rows

if TYPE_CHECKING:
    from cspprof.record import Profile

SHAPE = ("c_in", "c_out", "kernel", "groups", "size", "size_out")


@dataclass(frozen=True, slots=True)
class Term:
    """A layer of the closed form beside the operation that ran; None for one that the other side does not have."""

    name: str
    path: str
    formula: dict[str, object] | None
    traced: dict[str, object] | None

    @property
    def agrees(self) -> bool:
        """Whether shape, kernel, groups and every cost are the same."""
        return self.formula == self.traced

    @property
    def differing(self) -> list[str]:
        formula, traced = self.formula or {}, self.traced or {}
        return [name for name in (*SHAPE, *QUANTITIES) if formula.get(name) != traced.get(name)]


@dataclass(frozen=True, slots=True)
class Check:
    """A block's terms, and its totals by the summed expression and by the trace."""

    block: Block
    terms: list[Term]
    closed: dict[str, int]
    traced: dict[str, int]

    @property
    def agrees(self) -> bool:
        return self.closed == self.traced and all(term.agrees for term in self.terms)


def check(block: Block) -> Check:
    """Build the block, trace it on meta tensors, and set what ran beside the closed form."""
    ran = ran_layers(block)
    terms = [
        Term(
            layer.name if layer else "", row.path if row else "",
            _of_layer(layer) if layer else None, _of_operation(row.spec) if row else None,
        )
        for layer, row in zip_longest(block.layers(), ran)
    ]  # fmt: skip
    traced = {name: sum(_cost(row.spec, name) for row in ran) for name in QUANTITIES}
    return Check(block, terms, block.totals(), traced)


def ran_layers(block: Block) -> list[Row]:
    """The convolutions and pools that the form counts, as they ran in the block that the zoo's parts make."""
    profile, parts = _trace(block)
    ran = [row for row in rows(profile) if row.spec.kind in CONVOLUTIONS | POOLS]
    return [row for row in ran if not parts or row.path.split(".")[0] in parts]


def _trace(block: Block) -> tuple[Profile, tuple[str, ...]]:
    from cspprof.sources import Spec
    from cspprof.sources.build import build
    from cspprof.trace import trace
    from cspprof.zoo import form_blocks as zoo

    form, numbers = block.form, block.integers()
    fraction = block.numbers.get("gamma", 0)
    h, w = numbers.pop("h"), numbers.pop("w")
    c = numbers.pop("c")
    multiplier = {"multiplier": float(block.numbers["r"])} if "r" in block.numbers else {}
    sizes = zoo.Sizes(c, bypass=int(fraction * c), **numbers, **multiplier)  # type: ignore[arg-type]
    builder, parts = zoo.BLOCKS.get(form.base or form.name)
    if form.base:
        parts = zoo.PARTIAL_PARTS
        plain = replace(sizes, c=sizes.main, bypass=0)
        module, _ = build(Spec(form.name, form.name), lambda: zoo.partial(builder, sizes, plain, block.c_out), None)
    else:
        module, _ = build(Spec(form.name, form.name), lambda: builder(sizes), None)
    return trace(module, (1, sizes.a or c, h, w), name=form.name), parts


def _of_layer(layer: Layer) -> dict[str, object]:
    sizes = ((int(height), int(width)) for height, width in (layer.size, layer.size_out))
    shape = (int(layer.c_in), int(layer.c_out), (layer.kernel,) * 2, int(layer.groups), *sizes)
    return dict(zip(SHAPE, shape, strict=True)) | {name: int(getattr(layer, name)) for name in QUANTITIES}


def _of_operation(op: OpSpec) -> dict[str, object]:
    read, written = op.reads[0].shape, op.writes[0].shape
    shape = (read[1], written[1], op.attrs["kernel"], op.attrs.get("groups", 1), read[2:], written[2:])
    return dict(zip(SHAPE, shape, strict=True)) | {name: _cost(op, name) for name in QUANTITIES}


def _cost(op: OpSpec, name: str) -> int:
    if name == "conv_weights":
        return sum(weight.numel for weight in op.weights if len(weight.shape) == 4)
    amount = METRICS.get(name).op(op)
    return int(amount.value or 0) if amount else 0
