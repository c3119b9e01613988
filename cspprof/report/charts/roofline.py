"""The chart `roofline`: which layers are limited by memory (the roofline model, Williams et al. 2009)."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import share, significant
from cspprof.metrics.traffic import traffic_bytes
from cspprof.papers.hardware import Hardware
from cspprof.papers.hardware import hardware as hardware_named
from cspprof.report.chart_model import Axis, Chart, Mark, Panel, ReferenceLine, Series
from cspprof.report.charts.execution_order import LayerValues, input_text, layer_detail, layer_values, missed_note
from cspprof.report.charts.registry import chart


@chart("roofline", default=("resnext50", "csp_resnext50"), models=(1, 4))
def roofline(profiles: Sequence[Record], *, hardware: Sequence[str] = ("gtx1080ti",)) -> Chart:
    """An upper bound of the speed of every layer, from its MACs per byte and the Roofline of a device."""
    if not 1 <= len(hardware) <= 4:
        raise CspprofError(f"roofline shows 1 to 4 devices, not {len(hardware)}", "Give fewer --hardware options.")
    roofs = [hardware_named(name) for name in hardware]
    models = [layer_values(p, "macs") for p in profiles]
    intensities = [macs / traffic_bytes(r.spec) for f in models for r, macs in zip(f.rows, f.values, strict=True)]
    low = min(*intensities, *(roof.ridge for roof in roofs)) / 2
    high = max(*intensities, *(roof.ridge for roof in roofs)) * 2
    x = Axis("macs_per_byte", "MACs per byte of traffic", low=low, high=high, log=True)
    bottom = min(roof.attainable(low) for roof in roofs)
    y = Axis("gmacs_per_s", "upper bound", "GMACs/s", low=bottom, high=max(r.gmacs for r in roofs) * 2, log=True)
    panels = [_panel(f, i, roof, x, y) for roof in roofs for i, f in enumerate(models)]
    peaks = "; ".join(f"{roof.title}: {roof.gmacs:,.0f} GMACs/s, {roof.gb_per_s:,g} GB/s" for roof in roofs)
    caption = (
        f"Input {input_text(profiles)}. Each point is an upper bound of the speed of a layer, not a measurement: the "
        "layer alone, at the float32 peak or at the memory bandwidth, if it reads its inputs and weights from memory "
        "and writes its outputs there once (traffic). The area of a point is its MACs. Layers left of the ridge are "
        f"limited by memory. {peaks}.{missed_note(models)}"
    )
    notes = [f"{roof.title}: {roof.source}." for roof in roofs]
    return Chart("roofline", "Roofline", tuple(panels), caption, notes)


def _panel(f: LayerValues, color: int, roof: Hardware, x: Axis, y: Axis) -> Panel:
    """One model below the Roofline of one device."""
    corners = tuple(Mark(v, roof.attainable(v)) for v in (x.low, roof.ridge, x.high))
    bound = share(_memory_bound(f, roof))
    label = f.profile.label
    return Panel(
        f"{label} on {roof.title}", x, y,
        (Series("roof", "line", corners, "strong"), _points(f, roof, color)),
        (ReferenceLine(roof.ridge, f"below {significant(roof.ridge)} MACs/byte:\n{bound} of MACs", "x", name="ridge"),),
        height=1.2, name=f"{label} on {roof.name}", size_name="macs", legend=False,
    )  # fmt: skip


def _points(f: LayerValues, roof: Hardware, color: int) -> Series:
    marks = []
    for row, macs in zip(f.rows, f.values, strict=True):
        intensity = macs / traffic_bytes(row.spec)
        marks.append(Mark(intensity, roof.attainable(intensity), row.path, size=macs, stage=row.stage,
                          detail=layer_detail(row)))  # fmt: skip
    return Series(f.profile.label, "points", tuple(marks), color, upper_bounds=True)


def _memory_bound(f: LayerValues, roof: Hardware) -> float:
    """The share of MACs in layers left of the ridge."""
    bound = sum(m for r, m in zip(f.rows, f.values, strict=True) if m < roof.ridge * traffic_bytes(r.spec))
    return bound / f.total
