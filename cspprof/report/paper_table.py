"""The complexity table of a paper: one row per model, short units, a caption and a label."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.core import units
from cspprof.core.record import Record
from cspprof.metrics import METRICS
from cspprof.report.changes import metric_change
from cspprof.report.metric_labels import metric_label
from cspprof.report.tables import Cell, Column, Table, text, total


def complexity_table(profiles: Sequence[Record], metrics: Sequence[str]) -> Table:
    """One row per model and one column per metric: 25.6 M, 4.09 G, 12.5 MiB. Below two models, the relative change."""
    inputs = [" + ".join(map(str, p.inputs)) for p in profiles]
    same_input = len(set(inputs)) == 1
    columns = [Column("model", shortens=True), *([] if same_input else [Column("input")])]
    columns += [Column(metric_label(m), numeric=True) for m in metrics]
    rows = [
        [text(p.label), *([] if same_input else [text(shape)]), *(_short_total(p, m) for m in metrics)]
        for p, shape in zip(profiles, inputs, strict=True)
    ]
    if len(profiles) == 2:
        changes = [metric_change(m, *profiles) for m in metrics]
        rows.append([text("change"), *([] if same_input else [text("")]), *changes])
    return Table(_caption(profiles, inputs[0] if same_input else ""), columns, rows, "tab:complexity")


def _caption(profiles: Sequence[Record], shape: str) -> str:
    dtypes = list(dict.fromkeys(p.dtype for p in profiles))
    caption = f"Complexity of {len(profiles)} models" + (f" for an input of {shape}" if shape else "")
    return caption + (f", {' and '.join(dtypes)}" if dtypes != ["float32"] else "")


def _short_total(record: Record, metric: str) -> Cell:
    """The total of a metric with three significant digits; ratios and bytes as in other tables."""
    amount = METRICS.get(metric).total(record)
    cell = total(metric, amount)
    if not isinstance(amount.value, int) or METRICS.get(metric).unit == "bytes":
        return cell
    bound = cell.text.removesuffix(units.count(amount.value))
    return cell._replace(text=bound + units.short_count(amount.value))
