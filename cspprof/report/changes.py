"""Changes from one model to another: of a metric, and where a change comes from."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.analysis.comparison import Comparison, Contribution, Delta
from cspprof.analysis.headline import OF_CONVOLUTIONS, cio_describes_all
from cspprof.core.record import Record
from cspprof.metrics import HIGHER_IS_BETTER, NEITHER_IS_BETTER, Sum
from cspprof.report.metric_labels import title_of
from cspprof.report.tables import Cell, Column, Table, change_of, difference, part, text, total


def lower_is_better(metric: str, profiles: Sequence[Record]) -> bool | None:
    """Whether a smaller value is an improvement; None if it says nothing, such as CIO of networks that it does not
    describe."""
    of_convolutions = metric in OF_CONVOLUTIONS or metric == "bflops_darknet"
    if metric in NEITHER_IS_BETTER or (of_convolutions and not cio_describes_all(profiles)):
        return None
    return metric not in HIGHER_IS_BETTER


def metric_change(metric: str, base: Record, other: Record) -> Cell:
    """The relative change of a metric; empty for a metric that only describes a network."""
    if metric in NEITHER_IS_BETTER:
        return text("")
    return change_of(Delta.of(base, other, metric), lower_is_better(metric, [base, other]))


def change_tables(comparison: Comparison, metric: str, layers: int = 5) -> list[Table]:
    """Where each difference in `metric` comes from: by stage, and the layers that changed most."""
    tables = []
    for i, p in enumerate(comparison.others):
        pair = [comparison.base, p]
        title, better = title_of(metric, pair), lower_is_better(metric, pair)
        parts = comparison.by_stage(metric, i)
        whole = Contribution(
            "total", sum(c.base or 0 for c in parts), sum(c.value or 0 for c in parts),
            sum(c.base_missed for c in parts), sum(c.missed for c in parts),
        )  # fmt: skip
        columns = [
            Column("stage", shortens=True),
            *(Column(x.label, numeric=True, shortens=True) for x in pair),
            Column("difference", numeric=True),
        ]
        lines = [_contribution(metric, c, better) for c in parts]
        lines.append([
            text(whole.name), total(metric, Sum(whole.base or 0, 1, whole.base_missed)),
            total(metric, Sum(whole.value or 0, 1, whole.missed)),
            difference(metric, whole.difference, whole.bound, better),
        ])  # fmt: skip
        tables.append(Table(f"Where the change in {title} comes from", columns, lines))
        changed = comparison.by_layer(metric, i)[:layers]
        if changed:
            labels = (comparison.base.label, p.label)
            tables.append(layers_table("Layers that changed most", metric, changed, labels, better))
    return tables


def layers_table(
    title: str, metric: str, layers: Sequence[Contribution], labels: tuple[str, str], better: bool | None
) -> Table:
    """One row per layer: its value on both sides, which `labels` name, and the difference. `better` is the value of
    `lower_is_better`."""
    columns = [
        Column("layer", shortens=True),
        *(Column(label, numeric=True, shortens=True) for label in labels),
        Column("difference", numeric=True),
    ]
    return Table(title, columns, [_contribution(metric, c, better) for c in layers])


def _contribution(metric: str, c: Contribution, lower_is_better: bool | None) -> list[Cell]:
    """A row of a table of changes: name, both values, and the difference."""
    sides = (None if n is None else Sum(n, 1, missed) for n, missed in ((c.base, c.base_missed), (c.value, c.missed)))
    return [text(c.name), *(part(metric, s) for s in sides), difference(metric, c.difference, c.bound, lower_is_better)]
