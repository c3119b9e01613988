"""Compare a closed form with a trace of the block, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from cspprof.analysis.layer_rows import LayerRow, layer_rows
from cspprof.core.record import CONVOLUTIONS, POOLS, OpSpec, Record
from cspprof.csp.closed_form.layers import COSTS, SymbolicLayer
from cspprof.csp.closed_form.sized_block import SizedBlock
from cspprof.metrics import METRICS

SHAPE = ("c_in", "c_out", "kernel", "groups", "size", "size_out")
"""Keys of a layer besides its costs."""


@dataclass(frozen=True, slots=True)
class LayerCheck:
    """A layer of the closed form and the operation of the trace at the same position. If one side has more layers, the
    other is None."""

    name: str
    path: str
    formula: dict[str, object] | None
    traced: dict[str, object] | None

    @property
    def agrees(self) -> bool:
        """Whether shapes, kernel, groups and all costs are equal."""
        return self.formula == self.traced

    @property
    def differing(self) -> list[str]:
        formula, traced = self.formula or {}, self.traced or {}
        return [name for name in (*SHAPE, *COSTS) if formula.get(name) != traced.get(name)]


@dataclass(frozen=True, slots=True)
class ClosedFormCheck:
    """The layers of a block, and its total costs by the closed form and by the trace."""

    block: SizedBlock
    layers: list[LayerCheck]
    formula_totals: dict[str, int]
    traced_totals: dict[str, int]

    @property
    def agrees(self) -> bool:
        return self.formula_totals == self.traced_totals and all(layer.agrees for layer in self.layers)


def check_block(block: SizedBlock, record: Record, submodules: Sequence[str] = ()) -> ClosedFormCheck:
    """Compare the closed form of `block` with `record`, a trace of the block.

    Only convolutions and pools are compared. If `submodules` are given, only operations inside these are.
    """
    executed = [row for row in layer_rows(record) if row.spec.kind in CONVOLUTIONS | POOLS]
    executed = [row for row in executed if not submodules or row.path.split(".")[0] in submodules]
    layers = [_layer_check(layer, row) for layer, row in zip_longest(block.layers(), executed)]
    traced_totals = {cost: sum(_traced_cost(row.spec, cost) for row in executed) for cost in COSTS}
    return ClosedFormCheck(block, layers, block.totals(), traced_totals)


def _layer_check(layer: SymbolicLayer | None, row: LayerRow | None) -> LayerCheck:
    return LayerCheck(
        layer.name if layer else "", row.path if row else "",
        _formula_values(layer) if layer else None, _traced_values(row.spec) if row else None,
    )  # fmt: skip


def _formula_values(layer: SymbolicLayer) -> dict[str, object]:
    sizes = ((int(height), int(width)) for height, width in (layer.size, layer.size_out))
    shape = (int(layer.c_in), int(layer.c_out), (layer.kernel,) * 2, int(layer.groups), *sizes)
    return dict(zip(SHAPE, shape, strict=True)) | {cost: int(getattr(layer, cost)) for cost in COSTS}


def _traced_values(op: OpSpec) -> dict[str, object]:
    read, written = op.reads[0].shape, op.writes[0].shape
    shape = (read[1], written[1], op.attrs["kernel"], op.attrs.get("groups", 1), read[2:], written[2:])
    return dict(zip(SHAPE, shape, strict=True)) | {cost: _traced_cost(op, cost) for cost in COSTS}


def _traced_cost(op: OpSpec, cost: str) -> int:
    if cost == "conv_weights":  # the metric needs the whole record
        return sum(weight.numel for weight in op.weights if len(weight.shape) == 4)
    amount = METRICS.get(cost).op_value(op)
    return int(amount.value or 0) if amount else 0
