"""Which layers wait for memory: the roofline model (Williams et al. 2009)."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import share, significant
from cspprof.metrics.traffic import traffic_bytes
from cspprof.papers.hardware import Hardware
from cspprof.papers.hardware import hardware as hardware_named
from cspprof.report.chart_model import Axis, Chart, Line, Mark, Panel, Series
from cspprof.report.charts import chart
from cspprof.report.charts.order import Layers, describe, inputs_of, layers_with, name_of


@chart("roofline", default=("resnext50", "csp_resnext50"), models=(1, 4))
def roofline(profiles: Sequence[Record], *, hardware: Sequence[str] = ("gtx1080ti",)) -> Chart:
    """MACs per byte of every layer under the roof of given hardware; a point's area is its MACs."""
    roofs = _roofs(hardware)
    found = [layers_with(p, "macs") for p in profiles]
    intensities = [macs / traffic_bytes(r.spec) for f in found for r, macs in zip(f.rows, f.values, strict=True)]
    low = min(*intensities, *(roof.ridge for roof in roofs)) / 2
    high = max(*intensities, *(roof.ridge for roof in roofs)) * 2
    x = Axis("macs_per_byte", "MACs per byte", low=low, high=high, log=True)
    bottom = min(roof.attainable(low) for roof in roofs)
    y = Axis("gmacs_per_s", "attainable", "GMACs/s", low=bottom, high=max(r.gmacs for r in roofs) * 2, log=True)
    panels = [_panel(f, i, roof, x, y) for roof in roofs for i, f in enumerate(found)]
    caption = (
        f"Input {inputs_of(profiles)}. Every layer by itself at float32 peak, activations and weights all from memory; "
        f"an area is MACs. Left of the ridge a layer waits for memory. {'; '.join(map(_said, roofs))}."
    )
    notes = [f"{roof.title}: {roof.source}." for roof in roofs]
    return Chart("roofline", "Layers under the roof", tuple(panels), caption, notes)


def _said(roof: Hardware) -> str:
    return f"{roof.title}: {roof.gmacs:,.0f} GMACs/s, {roof.gb_per_s:,g} GB/s"


def _panel(f: Layers, tone: int, roof: Hardware, x: Axis, y: Axis) -> Panel:
    """One model under one roof."""
    edge = tuple(Mark(v, roof.attainable(v)) for v in (x.low, roof.ridge, x.high))
    bound = share(_bound(f, roof))
    return Panel(
        f"{name_of(f.profile)} on {roof.title}", x, y,
        (Series("roof", "line", edge, "strong"), _points(f, roof, tone)),
        (Line(roof.ridge, f"below {significant(roof.ridge)} MACs/byte:\n{bound} of MACs", "x", name="ridge"),),
        height=1.2, name=f"{name_of(f.profile)} on {roof.name}", sizes="macs", legend=False,
    )  # fmt: skip


def _roofs(names: Sequence[str]) -> list[Hardware]:
    if not 1 <= len(names) <= 4:
        raise CspprofError(f"roofline draws 1 to 4 roofs; {len(names)} were named", "Name fewer with --hardware.")
    return [hardware_named(name) for name in names]


def _points(f: Layers, roof: Hardware, tone: int) -> Series:
    marks = []
    for row, macs in zip(f.rows, f.values, strict=True):
        at = macs / traffic_bytes(row.spec)
        marks.append(Mark(at, roof.attainable(at), row.path, size=macs, stage=row.stage, detail=describe(row)))
    return Series(name_of(f.profile), "points", tuple(marks), tone)


def _bound(f: Layers, roof: Hardware) -> float:
    """The share of MACs in layers left of the ridge."""
    bound = sum(m for r, m in zip(f.rows, f.values, strict=True) if m < roof.ridge * traffic_bytes(r.spec))
    return bound / f.total
