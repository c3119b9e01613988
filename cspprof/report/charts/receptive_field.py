"""The chart `receptive-field`: the size of the receptive field over the execution order, and those of branches."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.analysis.layer_rows import LayerRow, layer_rows
from cspprof.analysis.receptive_field import LayerField, receptive_fields
from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.csp.cross_stage_splits import find_bypasses
from cspprof.report.chart_model import Axis, Chart, Mark, Panel, ReferenceLine, Series
from cspprof.report.charts.execution_order import (
    HEADROOM,
    input_text,
    layer_detail,
    order_axis,
    stage_spans,
    thin,
    thinning_note,
)
from cspprof.report.charts.registry import chart
from cspprof.report.receptive_field import field_notes, size_text

Sized = tuple[LayerRow, LayerField, int]
"""A row, its field, and the largest size along an axis of the input."""


@chart("receptive-field", default=("resnext50", "csp_resnext50"), models=(1, 6))
def receptive_field(profiles: Sequence[Record]) -> Chart:
    """The receptive field of each operation, and of both sides of each cross stage split."""
    models = [_sized_rows(p) for p in profiles]
    largest = max(size for rows in models for _, _, size in rows)
    x = order_axis("operations in execution order", max(map(len, models)))
    y = Axis("rf_size", "receptive field", "pixels", 1, 0, largest * HEADROOM, integer=True)
    panels, ends, thinning = [], [], ""
    for i, (p, rows) in enumerate(zip(profiles, models, strict=True)):
        thinned, n = thin(rows, lambda row: row[2])
        thinning += thinning_note(p, len(rows), n)
        steps = tuple(Mark(at + 1, size, r.path, stage=r.stage, detail=_detail(r, f)) for at, (r, f, size) in thinned)
        series = [Series("receptive field", "steps", steps, i)]
        splits = {b.join for b in find_bypasses(p) if b.split != "whole"}
        joins = [(at, r, f) for at, (r, f, _) in enumerate(rows)]
        meeting = _branch_marks([join for join in joins if join[1].index not in splits])
        sides = _branch_marks([join for join in joins if join[1].index in splits])
        series.append(Series("branches that meet", "points", meeting, "muted"))
        series.append(Series("sides of a cross stage split", "points", sides, "strong"))
        pixels = max(axis.length for axis in rows[0][1].axes)
        row, field, _ = max(rows, key=lambda sized: sized[2])
        ends.append(f"{p.label} {size_text(field)} at {row.path}")
        line = ReferenceLine(pixels, f"input {pixels}", name="input")
        panels.append(
            Panel(p.label, x, y, tuple(s for s in series if s.marks), (line,), stage_spans([r for r, _, _ in rows]))
        )
    caption = (
        f"Input {input_text(profiles)}. The side of the largest square of the input, padding included, that one output "
        f"element depends on, without operations over the whole map. Largest: {'; '.join(ends)}.{thinning}"
    )
    return Chart("receptive-field", "Receptive field", tuple(panels), caption, field_notes(profiles))


def _sized_rows(record: Record) -> list[Sized]:
    """The rows whose elements have a position. Raises CspprofError if there are none."""
    fields = receptive_fields(record)
    rows = []
    for row in layer_rows(record):
        field = fields[row.index]
        if field is not None and (sizes := [size for size in field.local if size]):
            rows.append((row, field, max(sizes)))
    if not rows:
        raise CspprofError(
            f"{record.model} has no layer with a receptive field, so the chart is empty",
            "Choose a model whose input has height and width, or a length.",
        )
    return rows


def _branch_marks(rows: Sequence[tuple[int, LayerRow, LayerField]]) -> tuple[Mark, ...]:
    """The branches that meet at these positions in the execution order."""
    marks = []
    for at, row, field in rows:
        for branch in field.branches:
            sizes = [size for size in branch.local if size]
            if sizes:
                detail = f"{row.path} reads {branch.source or 'a tensor'}: {size_text(branch)}"
                marks.append(Mark(at + 1, max(sizes), branch.source, stage=row.stage, detail=detail))
    return tuple(marks)


def _detail(row: LayerRow, field: LayerField) -> str:
    return f"{size_text(field)}, {layer_detail(row)}"
