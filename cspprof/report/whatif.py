"""The table of `whatif`: what a network costs on each input variation."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.analysis.headline import OF_CONVOLUTIONS, cio_describes_all
from cspprof.analysis.module_summary import peak_path
from cspprof.analysis.whatif import Variation, VariationResult
from cspprof.core import units
from cspprof.core.record import Record, TensorSpec
from cspprof.metrics import METRICS, lower_bounds, value_of
from cspprof.report.metric_labels import SHORT_METRICS, at_least_field, metric_label
from cspprof.report.notes import cio_notes, model_notes
from cspprof.report.profile import with_conv_share
from cspprof.report.tables import UNKNOWN, Cell, Column, Report, Table, text, total

DEFAULT_METRICS = ("macs", "cio_hardnet", "cio_cspnet", "activations", "traffic_bytes", "peak_bytes")


TRAFFIC_METRICS = ("macs", "traffic_bytes", "cio_all", "cio_cspnet", "peak_bytes")
"""The default metrics for a network that CIO does not describe."""


def default_metrics(records: Sequence[Record]) -> tuple[str, ...]:
    """The metrics that `whatif` shows by default."""
    return DEFAULT_METRICS if cio_describes_all(records) else TRAFFIC_METRICS


def whatif_report(model: str, results: Sequence[VariationResult], metrics: Sequence[str]) -> Report:
    """One row per input. A note gives the reason where the network has no result."""
    traced = [r.record for r in results if r.record]
    records, rows = [], []
    shown = with_conv_share(metrics, traced)
    for (variation, record, problem, _), dtype in zip(results, map(_dtype, results), strict=True):
        values = {m: value_of(record, m) if record else None for m in shown}
        bounds = lower_bounds(record, values) if record else []
        shapes = [list(tensor.shape) for tensor in variation.tensors]
        records.append({
            "model": model, "input": shapes[0], "inputs": shapes, "dtype": dtype, **values,
            **({"peak_path": peak_path(record) if record else None} if "peak_bytes" in shown else {}),
            **at_least_field(bounds), "problem": problem,
        })  # fmt: skip
        cells = [total(m, METRICS.get(m).total(record)) if record else UNKNOWN for m in shown]
        rows.append([Cell(shapes[0], _shapes(variation)), text(dtype), *cells])
    order = sorted(shown, key=lambda m: m not in SHORT_METRICS)
    columns = [Column("input"), Column("dtype"), *(Column(metric_label(m), True, order.index(m)) for m in shown)]
    notes = [". ".join(filter(None, (f"{_shapes(r.variation)}: {r.problem}", r.hint))) for r in results if r.problem]
    notes += [note for p in traced for note in model_notes(p)]
    notes += cio_notes(traced)[:1] if OF_CONVOLUTIONS & {*metrics} else []
    notes += _peak_notes(results) if "peak_bytes" in metrics else []
    return Report(
        [Table(model, columns, rows)],
        records,
        {"schema": "cspprof.whatif/1", "model": model, "results": records},
        list(dict.fromkeys(notes)),
        traced,
        metrics[0],
    )


def _peak_notes(results: Sequence[VariationResult]) -> list[str]:
    """Where the memory is largest; with the input behind it, if that differs between inputs."""
    inputs: dict[str, list[str]] = {}
    for r in results:
        if r.record and peak_path(r.record):
            inputs.setdefault(peak_path(r.record), []).append(_shapes(r.variation))
    if len(inputs) == 1:
        return [f"Peak memory at {next(iter(inputs))}."]
    places = (f"at {path} for {', '.join(dict.fromkeys(of_path))}" for path, of_path in inputs.items())
    return [f"Peak memory {'; '.join(places)}."] if inputs else []


def _dtype(result: VariationResult) -> str:
    """The requested floating dtype, else that of the network."""
    return result.variation.dtype or (result.record.dtype if result.record else result.variation.tensors[0].dtype)


def _shapes(variation: Variation) -> str:
    """The shapes of the inputs, with names and with dtypes that are not floating: `1×128 int64 + mask 1×128`. Values
    are the same in all variations and not listed."""
    return " + ".join(
        " ".join(filter(None, (name, units.shape(t.shape) or "scalar", "" if "float" in t.dtype else t.dtype)))
        for name, t in variation.named
        if isinstance(t, TensorSpec)
    )
