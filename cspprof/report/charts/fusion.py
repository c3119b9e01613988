"""The four forms of the cross-stage-partial stage: what they cost, and what accuracy was published of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import change, decimal
from cspprof.metrics import METRICS, Number
from cspprof.papers.accuracy import ACCURACIES, Accuracy, published_accuracy
from cspprof.report.chart_model import Axis, Chart, Line, Mark, Panel, Series
from cspprof.report.charts import chart
from cspprof.report.charts.order import inputs_of, name_of
from cspprof.report.charts.points import ROOM, value_of

PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Form:
    """One of the forms: its cost against the plain one, as a fraction, and what is in print of it."""

    profile: Record
    name: str
    value: Number
    cost: float
    printed: Accuracy | None


@chart(
    "fusion",
    default=(
        "peleenet", "csp_peleenet,fusion=first", "csp_peleenet,fusion=last", "csp_peleenet,fusion=last,gamma=0.25",
        "csp_peleenet", "csp_peleenet,gamma=0.25",
    ),
    models=(2, 12),
    variants=("fusion=none", "fusion=first", "fusion=last", "fusion=csp"),
)  # fmt: skip
def fusion(profiles: Sequence[Record], *, metric: str = "bflops_cspnet") -> Chart:
    """The forms of the cross-stage-partial stage (Figs. 3 and 4): cost against the plain form, and published top-1."""
    title, base = METRICS.get(metric).title, name_of(profiles[0])
    whole = value_of(profiles[0], metric)
    if not whole:
        raise CspprofError(f"{base} has no {title} to compare with", "Name the plain network first.")
    values = [value_of(p, metric) for p in profiles]
    names = [PLAIN, *map(named, profiles[1:])]
    forms = [
        Form(p, name, value, (value or 0) / whole - 1, published_accuracy(p))
        for p, name, value in zip(profiles, names, values, strict=True)
    ]
    panels, notes = [_costs(forms, metric, base)], []
    known = [f for f in forms if f.printed]
    if len(known) >= 2:
        panels.append(_accuracies(known, title, base))
    else:
        notes.append("no panel of accuracies: they are published of fewer than two of these.")
    if any("fusion=first" in f.profile.source for f in known):
        notes.append("the paper does not print the γ of fusion first.")
    caption = f"Input {inputs_of(profiles)}."
    if any(f.printed and f.printed.cost_change is not None for f in known):
        caption += " Hollow: cost as printed (Wang et al. 2019, Fig. 4); filled: cost of our networks, readings."
    return Chart("fusion", "Fusion of the partial stage", tuple(panels), caption, notes)


def named(record: Record) -> str:
    """`last γ=0.25` of csp_peleenet,fusion=last,gamma=0.25; a network without these options has its name."""
    name, *options = record.source.split(",")
    given = dict(o.partition("=")[::2] for o in options)
    if given.get("fusion") == "none":
        return PLAIN
    if not given and not name.startswith("csp_"):
        return name_of(record)
    return f"{given.get('fusion', 'csp')} γ={given.get('gamma', '0.5')}"


def _costs(forms: Sequence[Form], metric: str, base: str) -> Panel:
    """A bar for each form, from the plain one's cost."""
    m = METRICS.get(metric)
    bars = [
        Mark(i, f.cost, f.name, text=change(f.cost), detail=f"{decimal(f.value or 0)} {m.unit}")
        for i, f in enumerate(forms, 1)
    ]
    low, high = min(b.y for b in bars), max(0.01, *(b.y for b in bars))
    room = (high - low) * 0.25
    axis = _percent(f"{m.title} against {base}", low - room * (low < 0), high + room * (high > 0.01))
    places = Axis("form", "", low=0.5, high=len(bars) + 0.5, ticks=tuple((b.x, b.label) for b in bars))
    return Panel("", places, axis, (Series("computed", "bars", tuple(bars), 0),), (Line(0, "", name=base),), lying=True,
                 height=0.1 + 0.12 * len(bars), name="cost")  # fmt: skip


def _accuracies(known: Sequence[Form], title: str, base: str) -> Panel:
    """Top-1 accuracy against the cost, ours and the one printed beside it."""
    pairs = [(f, f.printed) for f in known if f.printed]
    ours = [Mark(f.cost, a.top1, f.name, text=f.name, detail=name_of(f.profile)) for f, a in pairs]
    theirs = [Mark(a.cost_change / 100, a.top1, f.name, detail=a.source) for f, a in pairs if a.cost_change is not None]
    found = (
        Series("our networks", "points", tuple(ours), 0),
        Series("as printed", "points", tuple(theirs), 1, hollow=True),
    )
    xs, ys = [k.x for k in (*ours, *theirs)], [k.y for k in ours]
    wide, tall = (max(xs) - min(xs) or 0.01) * ROOM, (max(ys) - min(ys) or 1) * ROOM * 1.5
    x = _percent(f"{title} against {base}", min(xs) - wide, max(xs) + 2 * wide)
    y = Axis("top1", ACCURACIES["top1"], "%", low=min(ys) - tall, high=max(ys) + tall)
    return Panel("", x, y, tuple(s for s in found if s.marks), height=1.5, name="accuracy")


def _percent(title: str, low: float, high: float) -> Axis:
    return Axis("change", title, "%", 0.01, low, high)
