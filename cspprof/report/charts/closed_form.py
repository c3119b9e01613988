"""The chart `closed-form`: the saving of a partial dense block against γ, and at the stages of real networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import share
from cspprof.csp.dense_networks import NETWORKS
from cspprof.report.chart_model import Axis, Chart, Mark, Panel, ReferenceLine, Series
from cspprof.report.charts.execution_order import HEADROOM
from cspprof.report.charts.registry import chart

HALF = 0.5
POINTS = 51


@dataclass(frozen=True, slots=True)
class StagePoint:
    """A dense block of the chart: c channels in the base layer and m dense layers that add d channels each."""

    network: str
    number: int
    c: int
    m: int
    d: int

    def saving(self, gamma: float) -> float:
        """The fraction of the CIO of the block that is saved if γ of the base layer bypasses it."""
        from cspprof.csp.closed_form.saving import saving_at

        return saving_at(gamma, c=self.c, m=self.m, d=self.d)

    def mark(self, x: float, y: float, text: str = "") -> Mark:
        label = f"{self.network} stage {self.number} ({self.c}, {self.m})"
        return Mark(x, y, label, detail=f"c={self.c}, m={self.m}, d={self.d}", text=text)


REAL_STAGES = [StagePoint(net, i, x.c, x.m, x.d) for net, of in NETWORKS.items() for i, x in enumerate(of.stages(), 1)]


@chart("closed-form", models=(0, 0))
def closed_form(profiles: Sequence[Record], *, c: int = 64, m: int = 6, d: int = 32) -> Chart:
    """The CIO that a partial dense block saves against γ, by the closed form, and the saving at real stages."""
    if min(c, m, d) < 1:
        raise CspprofError(f"c={c}, m={m}, d={d} is no dense block", "All three are at least 1: --c 64 --m 6 --d 32")
    caption = (
        "c channels in the base layer, m dense layers of one convolution each, growth rate d. Transitions and "
        "bottleneck convolutions are outside the form: it is not the saving of a whole network."
    )
    panels = (_curve_panel(StagePoint("", 0, c, m, d)), _stages_panel())
    return Chart("closed-form", "Saving of a partial dense block", panels, caption)


def _curve_panel(block: StagePoint) -> Panel:
    """The saving against γ, its limit, and the real stages at γ = 0.5."""
    fractions = [i / (POINTS - 1) for i in range(POINTS)]
    curve = Series(
        f"c={block.c}, m={block.m}, d={block.d}", "line", tuple(Mark(g, block.saving(g)) for g in fractions), 0
    )
    limit = Series("limit, c ≫ m·d", "line", (Mark(0, 0), Mark(1, 1)), "muted")
    points = (
        Series(net, "points", tuple(s.mark(HALF, s.saving(HALF)) for s in REAL_STAGES if s.network == net), color)
        for color, net in enumerate(NETWORKS, 1)
    )
    x = Axis("gamma", "γ, the bypassed fraction")
    y = Axis("saving", "CIO saved", "%", 0.01)
    half = ReferenceLine(HALF, "", "x", name="half bypasses")
    return Panel("", x, y, (limit, curve, *points), (half,), height=1.6, name="curve")


def _stages_panel() -> Panel:
    """The real stages as horizontal bars, the largest saving first."""
    ordered = sorted(REAL_STAGES, key=lambda s: -s.saving(HALF))
    bars = [(s.network, s.mark(i, s.saving(HALF), share(s.saving(HALF)))) for i, s in enumerate(ordered, 1)]
    x = Axis("place", "", low=0.5, high=len(bars) + 0.5, tick_labels=tuple((b.x, b.label) for _, b in bars))
    y = Axis("saving", f"CIO saved at γ = {HALF}", "%", 0.01, high=HALF * HEADROOM)
    series = (
        Series(net, "bars", tuple(b for of, b in bars if of == net), color) for color, net in enumerate(NETWORKS, 1)
    )
    return Panel("Real stages (c, m)", x, y, tuple(series), horizontal=True, legend=False,
                 height=0.1 + 0.12 * len(bars), name="stages")  # fmt: skip
