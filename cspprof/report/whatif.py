"""The table of `whatif`: what a network costs on each input variation."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.analysis.whatif import Variation, VariationResult
from cspprof.core import units
from cspprof.metrics import value_of
from cspprof.report.profile import metric_label
from cspprof.report.tables import Cell, Column, Report, Table, quantity, text

DEFAULT_METRICS = ("macs", "cio_hardnet", "cio_cspnet", "activations", "traffic_bytes", "peak_bytes")


def whatif_report(model: str, results: Sequence[VariationResult], metrics: Sequence[str]) -> Report:
    """One row per input. A note gives the reason where the network has no result."""
    records, rows = [], []
    for (variation, record, problem), dtype in zip(results, map(_dtype, results), strict=True):
        values = {m: value_of(record, m) if record else None for m in metrics}
        shapes = [list(tensor.shape) for tensor in variation.tensors]
        records.append(
            {"model": model, "input": shapes[0], "inputs": shapes, "dtype": dtype, **values, "problem": problem}
        )
        cells = [quantity(m, v) if record else Cell(None, "?") for m, v in values.items()]
        rows.append([Cell(shapes[0], _shapes(variation)), text(dtype), *cells])
    columns = [Column("input"), Column("dtype"), *(Column(metric_label(m), True) for m in metrics)]
    return Report(
        [Table(model, columns, rows)],
        records,
        {"schema": "cspprof.whatif/1", "model": model, "results": records},
        list(dict.fromkeys(f"{_shapes(r.variation)}: {r.problem}" for r in results if r.problem)),
        [r.record for r in results if r.record],
        metrics[0],
    )


def _dtype(result: VariationResult) -> str:
    """The requested floating dtype, else that of the network."""
    return result.variation.dtype or (result.record.dtype if result.record else result.variation.tensors[0].dtype)


def _shapes(variation: Variation) -> str:
    """The shapes of the inputs, with names and with dtypes that are not floating: `1×128 int64 + mask 1×128`."""
    return " + ".join(
        " ".join(filter(None, (name, units.shape(t.shape) or "scalar", "" if "float" in t.dtype else t.dtype)))
        for name, t in variation.named
    )
