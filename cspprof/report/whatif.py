"""The table of `whatif`: what a network costs on each input variation."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.analysis.whatif import VariationResult
from cspprof.core import units
from cspprof.metrics import METRICS, value_of
from cspprof.report.profile import metric_label
from cspprof.report.tables import Cell, Column, Report, Table, quantity, text

DEFAULT_METRICS = ("macs", "cio_hardnet", "cio_cspnet", "activations", "traffic_bytes", "peak_bytes")


def metrics_or_default(names: Sequence[str]) -> tuple[str, ...]:
    """The named metrics, or the default ones. Raises UnknownNameError."""
    for name in names:
        METRICS.get(name)
    return tuple(names) or DEFAULT_METRICS


def whatif_report(model: str, results: Sequence[VariationResult], metrics: Sequence[str]) -> Report:
    """One row per input. A note gives the reason where the network has no result."""
    records, rows = [], []
    for given, record, problem in results:
        values = {m: value_of(record, m) if record else None for m in metrics}
        records.append({"model": model, "input": list(given.shape), "dtype": given.dtype, **values, "problem": problem})
        cells = [quantity(m, v) if record else Cell(None, "?") for m, v in values.items()]
        rows.append([Cell(list(given.shape), units.shape(given.shape)), text(given.dtype), *cells])
    columns = [Column("input"), Column("dtype"), *(Column(metric_label(m), True) for m in metrics)]
    return Report(
        [Table(model, columns, rows)],
        records,
        {"schema": "cspprof.whatif/1", "model": model, "results": records},
        list(dict.fromkeys(f"{units.shape(r.input.shape)}: {r.problem}" for r in results if r.problem)),
        [r.record for r in results if r.record],
        metrics[0] if metrics else "macs",
    )
