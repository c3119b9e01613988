"""A closed form compared with the traced block, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from cspprof.analysis.layer_rows import Row, rows
from cspprof.core.record import CONVOLUTIONS, POOLS, OpSpec, Record
from cspprof.csp.closed_form.layers import QUANTITIES, Layer
from cspprof.csp.closed_form.numbers import Block
from cspprof.metrics import METRICS

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


def compare(block: Block, record: Record, parts: Sequence[str] = ()) -> Check:
    """Set the operations of a traced block beside its closed form. `parts` names the submodules that the form counts;
    without names it counts all."""
    ran = counted_rows(record, parts)
    terms = [
        Term(
            layer.name if layer else "", row.path if row else "",
            _of_layer(layer) if layer else None, _of_operation(row.spec) if row else None,
        )
        for layer, row in zip_longest(block.layers(), ran)
    ]  # fmt: skip
    traced = {name: sum(_cost(row.spec, name) for row in ran) for name in QUANTITIES}
    return Check(block, terms, block.totals(), traced)


def counted_rows(record: Record, parts: Sequence[str] = ()) -> list[Row]:
    """The convolutions and pools of the record that lie in one of the `parts`."""
    found = [row for row in rows(record) if row.spec.kind in CONVOLUTIONS | POOLS]
    return [row for row in found if not parts or row.path.split(".")[0] in parts]


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
