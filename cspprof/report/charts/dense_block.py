"""What a partial dense block saves, by the closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import share
from cspprof.csp.dense_networks import NETWORKS
from cspprof.report.chart_model import Axis, Chart, Line, Mark, Panel, Series
from cspprof.report.charts import chart
from cspprof.report.charts.order import HEADROOM

HALF = 0.5
POINTS = 51


@dataclass(frozen=True, slots=True)
class DenseStage:
    """c channels in the base layer, m dense layers, each of which adds d."""

    network: str
    number: int
    c: int
    m: int
    d: int

    def saved(self, gamma: float) -> float:
        """The part of the block's CIO that is saved where γ of the base layer bypasses it."""
        from cspprof.csp.closed_form.saving import saving_at

        return saving_at(gamma, c=self.c, m=self.m, d=self.d)

    def mark(self, x: float, y: float, text: str = "") -> Mark:
        """A datum of this stage."""
        label = f"{self.network} stage {self.number} ({self.c}, {self.m})"
        return Mark(x, y, label, detail=f"c={self.c}, m={self.m}, d={self.d}", text=text)


REAL = [DenseStage(net, i, x.c, x.m, x.d) for net, of in NETWORKS.items() for i, x in enumerate(of.stages(), 1)]


@chart("closed-form", models=(0, 0))
def closed_form(profiles: Sequence[Record], *, c: int = 64, m: int = 6, d: int = 32) -> Chart:
    """CIO that a partial dense block saves against γ, by the closed form, and where real stages lie."""
    if min(c, m, d) < 1:
        raise CspprofError(f"c={c}, m={m}, d={d} is no dense block", "All three are at least 1: --c 64 --m 6 --d 32")
    caption = (
        "c channels in the base layer, m dense layers of one convolution each, growth d. Transitions and bottleneck "
        "convolutions are outside the form: it is not a whole network's saving."
    )
    panels = (_curve(DenseStage("", 0, c, m, d)), _real_stages())
    return Chart("closed-form", "What a partial dense block saves", panels, caption)


def _curve(given: DenseStage) -> Panel:
    """The saving against γ, its limit, and the real stages at γ = 0.5."""
    fractions = [i / (POINTS - 1) for i in range(POINTS)]
    curve = Series(
        f"c={given.c}, m={given.m}, d={given.d}", "line", tuple(Mark(g, given.saved(g)) for g in fractions), 0
    )
    limit = Series("limit, c ≫ m·d", "line", (Mark(0, 0), Mark(1, 1)), "muted")
    points = (
        Series(net, "points", tuple(s.mark(HALF, s.saved(HALF)) for s in REAL if s.network == net), tone)
        for tone, net in enumerate(NETWORKS, 1)
    )
    x = Axis("gamma", "γ, the fraction that bypasses")
    y = Axis("saving", "CIO saved", "%", 0.01)
    return Panel("", x, y, (limit, curve, *points), (Line(HALF, "", "x", name="half bypasses"),), height=1.6,
                 name="curve")  # fmt: skip


def _real_stages() -> Panel:
    """The real stages by name, the one that gains most first."""
    ordered = sorted(REAL, key=lambda s: -s.saved(HALF))
    bars = [(s.network, s.mark(i, s.saved(HALF), share(s.saved(HALF)))) for i, s in enumerate(ordered, 1)]
    places = Axis("place", "", high=len(bars) + 0.5, low=0.5, ticks=tuple((b.x, b.label) for _, b in bars))
    saved = Axis("saving", f"CIO saved at γ = {HALF}", "%", 0.01, high=HALF * HEADROOM)
    series = (
        Series(net, "bars", tuple(b for of, b in bars if of == net), tone) for tone, net in enumerate(NETWORKS, 1)
    )
    return Panel("Real stages (c, m)", places, saved, tuple(series), lying=True, legend=False,
                 height=0.1 + 0.12 * len(bars), name="stages")  # fmt: skip
