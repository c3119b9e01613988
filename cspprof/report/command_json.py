"""The JSON document of `profile`, `cio`, `flops` and `compare`: the contract `cspprof.cio/1` and its siblings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from cspprof.analysis.comparison import Bound, Comparison, Delta
from cspprof.analysis.headline import headline
from cspprof.analysis.layer_rows import layer_records, layer_rows
from cspprof.analysis.module_summary import peak_path
from cspprof.analysis.stages import stage_depths
from cspprof.core.record import Record
from cspprof.metrics import METRICS, lower_bounds, value_of
from cspprof.metrics.conventions import convention_named
from cspprof.report.notes import model_notes
from cspprof.report.receptive_field import field_record

BOUNDS: dict[Bound, str | None] = {"": None, "≥": "at_least", "≤": "at_most", "?": "unknown"}


def json_document(
    schema: str, profiles: Sequence[Record], convention: str | None = None, chosen: Sequence[str] = (),
    receptive_fields: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """All models with their totals, notes and layers, and the change of each metric from the first model.

    With `convention`, each model also has its total in the convention of that tool; with `receptive_fields`, each layer
    has its field. The metrics are all registered
    ones, and the chosen totals of other tools.
    """
    comparison = Comparison(tuple(profiles))
    metrics = sorted({*METRICS.names(), *chosen})
    models = [_model(p, metrics) for p in profiles]
    if convention is not None:
        c = convention_named(convention)
        for p, model in zip(profiles, models, strict=True):
            model["convention"] = {
                "name": c.name,
                "tool": c.tool,
                "counts": c.counts,
                "per_mac": c.per_mac,
                "total": value_of(p, c.name),
            }
    if receptive_fields:
        for p, model in zip(profiles, models, strict=True):
            for row, layer in zip(layer_rows(p), model["layers"], strict=True):
                layer["receptive_field"] = field_record(p, row.index)
    for i, model in enumerate(models[1:]):
        model["notes"] += comparison.notes_on(i)
    return {"schema": schema, "models": models, "deltas": [_delta(d) for d in comparison.deltas(metrics)]}


def _model(record: Record, metrics: Sequence[str]) -> dict[str, Any]:
    total = partial(value_of, record)
    return {
        "model": record.model,
        "status": record.status,
        "source": record.source,
        "inputs": [list(t.shape) for t in record.inputs],
        "dtype": record.dtype,
        "depths": stage_depths(record),
        **{m: total(m) for m in ("macs", "flops", "params", "conv_weights")},
        **{m: total(m) for m in ("bflops", "bflops_cspnet", "bflops_darknet")},
        "cio": {"hardnet": total("cio_hardnet"), "cspnet": total("cio_cspnet")},
        "cio_all": total("cio_all"),
        "conv_share": total("conv_share"),
        "moc": total("moc"),
        "peak_bytes": total("peak_bytes"),
        "peak_path": peak_path(record),
        "metrics": {m: total(m) for m in metrics},
        "complete": record.complete,
        "uncounted": record.uncounted,
        "at_least": lower_bounds(record, METRICS.names()),
        "headline": headline([record]),
        "notes": model_notes(record),
        "layers": layer_records(record),
    }


def _delta(delta: Delta) -> dict[str, Any]:
    return {
        "base": delta.base,
        "model": delta.model,
        "metric": delta.metric,
        "base_value": delta.base_value,
        "value": delta.value,
        "relative": delta.relative,
        "bound": BOUNDS[delta.bound],
    }
