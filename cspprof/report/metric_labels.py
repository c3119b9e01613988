"""Titles of metrics for headings and rows, and the fields of records that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cspprof.analysis.headline import OF_CONVOLUTIONS, needs_conv_share
from cspprof.core.record import Record
from cspprof.metrics import METRICS
from cspprof.report.tables import total

SHORT_METRICS = ("params", "macs", "cio_cspnet", "traffic_bytes", "peak_bytes")
"""One metric of each kind: weights, compute, traffic of convolutions, traffic of all operations, memory."""


def model_fields(record: Record) -> dict[str, Any]:
    """The fields that say which model a CSV record belongs to."""
    return {"model": record.model, "status": record.status}


def metric_label(metric: str) -> str:
    """The title of a metric, with its unit if the title does not contain it: `CIO (CSPNet) [elements]`."""
    m = METRICS.get(metric)
    unit = "" if m.unit in ("bytes", "fraction", "values") or m.unit.lower() in m.title.lower() else f" [{m.unit}]"
    return m.title + unit


def title_of(metric: str, profiles: Sequence[Record]) -> str:
    """The title of a metric for a heading; for CIO with the share of the MACs that it sees, where that is needed."""
    return METRICS.get(metric).title + cio_remark(metric, profiles)


def cio_remark(metric: str, profiles: Sequence[Record]) -> str:
    """` (sees 2.3 % of the MACs)` for CIO, where it must be said; else empty."""
    if metric not in OF_CONVOLUTIONS or not any(map(needs_conv_share, profiles)):
        return ""
    return f" (sees {conv_share_text(profiles)} of the MACs)"


def conv_share_text(profiles: Sequence[Record]) -> str:
    """The shares of the MACs that CIO sees: `2.3 %`, or `2.3 % and 100.0 %`."""
    amounts = [METRICS.get("conv_share").total(p) for p in profiles]
    texts = ["an unknown part" if a.missed else total("conv_share", a).text for a in amounts]
    return " and ".join(dict.fromkeys(texts))


def at_least_field(metrics: Sequence[str]) -> dict[str, str]:
    """The field of a CSV record that names its lower bounds; no field without any."""
    return {"at_least": " ".join(metrics)} if metrics else {}
