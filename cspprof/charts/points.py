"""Charts in which a model is a point: costs against each other and against published accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.accuracy import ACCURACIES, Accuracy, published
from cspprof.charts import chart
from cspprof.charts.order import inputs_of, name_of, scale
from cspprof.errors import CspprofError
from cspprof.marks import Axis, Chart, Line, Mark, Panel, Series
from cspprof.metrics import HIGHER_IS_BETTER, METRICS, Number
from cspprof.record import Profile
from cspprof.units import change

ROOM = 0.12
"""Around the points, as a part of what they span."""
DECADES = 8
"""The largest value over the least, beyond which an axis is logarithmic."""


@chart(
    "pareto",
    default=(
        "resnet10", "darknet_ref", "mobilenet_v2_darknet", "csp_mobilenet_v2", "efficientnet_b0_darknet", "peleenet",
        "csp_peleenet", "sparse_peleenet", "resnet50", "csp_resnet50", "resnext50", "csp_resnext50", "darknet53",
        "csp_darknet53",
    ),
    models=(2, 60),
)  # fmt: skip
def pareto(profiles: Sequence[Profile], *, x: str = "bflops", y: str = "top1") -> Chart:
    """Any number against any other, accuracy included, and the models that no other beats in both."""
    points, missing = [], []
    for p in profiles:
        across, up = value_of(p, x), value_of(p, y)
        if across is None or up is None:
            missing.append(name_of(p))
        else:
            points.append((p, (across, up)))
    if len(points) < 2:
        unknown = y if y in ACCURACIES else x
        raise CspprofError(
            f"{unknown} is known of {len(points)} of these models: there is nothing to compare",
            "Published accuracies hold for the zoo's networks at their own inputs. Take another number: --y cio_cspnet",
        )
    best = {i for i in range(len(points)) if not any(_beats(b, points[i][1], x, y) for _, b in points)}
    marks = [Mark(a, b, name_of(p), text=name_of(p), detail=inputs_of([p])) for p, (a, b) in points]
    front = sorted((marks[i] for i in best), key=lambda m: (m.x, m.y))
    series = (
        Series("not beaten in both", "points", tuple(front), 0),
        Series("beaten", "points", tuple(m for i, m in enumerate(marks) if i not in best), "muted", hollow=True),
    )
    line = Series("front", "line", tuple(Mark(m.x, m.y) for m in front), "muted")
    axes = [_axis(name, [v[i] for _, v in points]) for i, name in enumerate((x, y))]
    panel = Panel("", axes[0], axes[1], (line, *(s for s in series if s.marks)), height=2.2, name="models")
    unknown = y if y in ACCURACIES else x
    notes = [f"not shown, {unknown} unknown: {', '.join(missing)}."] if missing else []
    caption = f"Input {inputs_of(profiles)}."
    if {x, y} & set(ACCURACIES):
        sources = dict.fromkeys(a.source for p, _ in points if (a := published(p)))
        caption += f" Accuracy as published: {'; '.join(sources)}. Readings stand at the published network's accuracy."
    return Chart("pareto", f"{axes[1].title} against {axes[0].title}", (panel,), caption, notes)


def value_of(profile: Profile, name: str) -> Number:
    """A registered number of the whole model, or its published accuracy in percent; None where nobody knows."""
    if name in ACCURACIES:
        known = published(profile)
        return getattr(known, name) if known else None
    return METRICS.get(name).total(profile).value


def _beats(a: tuple[float, float], b: tuple[float, float], *names: str) -> bool:
    """Whether `a` is as good as `b` in both and better in one."""
    signs = [1 if n in ACCURACIES or n in HIGHER_IS_BETTER else -1 for n in names]
    gains = [s * (p - q) for s, p, q in zip(signs, a, b, strict=True)]
    return min(gains) >= 0 and max(gains) > 0


def _axis(name: str, values: Sequence[float]) -> Axis:
    """An axis around the values; it need not begin at 0, points have no length."""
    low, high = min(values), max(values)
    room = (high - low) * ROOM or abs(high) * ROOM or 1
    if name in ACCURACIES:
        return Axis(name, ACCURACIES[name], "%", 1, low - room, high + room)
    m = METRICS.get(name)
    divisor, unit = (1, m.unit) if m.scale > 1 else scale(high, m.unit)
    if low > 0 and high / low > DECADES:
        around = (high / low) ** ROOM
        return Axis(name, m.title, unit, divisor, low / around, high * around, log=True)
    return Axis(name, m.title, unit, divisor, max(low - room, 0), high + room)


@chart(
    "fusion",
    default=(
        "peleenet", "csp_peleenet,fusion=first", "csp_peleenet,fusion=last", "csp_peleenet,fusion=last,gamma=0.25",
        "csp_peleenet", "csp_peleenet,gamma=0.25",
    ),
    models=(2, 12),
    variants=("fusion=none", "fusion=first", "fusion=last", "fusion=csp"),
)  # fmt: skip
def fusion(profiles: Sequence[Profile], *, metric: str = "bflops_cspnet") -> Chart:
    """The forms of the cross-stage-partial stage (Figs. 3 and 4): cost against the plain form, and published top-1."""
    base = profiles[0]
    m = METRICS.get(metric)
    whole = value_of(base, metric)
    if not whole:
        raise CspprofError(f"{base.model} has no {m.title} to compare with", "Name the plain network first.")
    costs = [(value_of(p, metric) or 0) / whole - 1 for p in profiles]
    bars = tuple(
        Mark(
            i + 1,
            cost,
            "plain" if p is base else _form(p),
            text=change(cost),
            detail=f"{value_of(p, metric):,} {m.unit}",
        )
        for i, (p, cost) in enumerate(zip(profiles, costs, strict=True))
    )
    low, high = min(costs), max(*costs, 0.01)
    room = (high - low) * 0.25
    percent = _percent(f"{m.title} against {name_of(base)}", low - room * (low < 0), high + room * (high > 0.01))
    forms = Axis("form", "", low=0.5, high=len(bars) + 0.5, ticks=tuple((b.x, b.label) for b in bars))
    panels = [Panel("", forms, percent, (Series("computed", "bars", bars, 0),), (Line(0, "", name=name_of(base)),),
                    lying=True, height=0.1 + 0.12 * len(bars), name="cost")]  # fmt: skip
    known = [(p, cost, a) for p, cost in zip(profiles, costs, strict=True) if (a := published(p))]
    notes = []
    if len(known) >= 2:
        panels.append(_against_accuracy(known, m.title, name_of(base)))
    else:
        notes.append("no panel of accuracies: they are published of fewer than two of these.")
    if any("fusion=first" in p.source for p, _, a in known):
        notes.append("the paper does not print the γ of fusion first.")
    caption = f"Input {inputs_of(profiles)}."
    if any(a.cost_change is not None for _, _, a in known):
        caption += (
            " Hollow: cost as printed (Wang et al. 2019, Fig. 4), filled: cost of our networks, which are readings."
        )
    return Chart("fusion", "Fusion of the partial stage", tuple(panels), caption, notes)


def _against_accuracy(known: Sequence[tuple[Profile, float, Accuracy]], title: str, base: str) -> Panel:
    ours = tuple(Mark(cost, a.top1, _form(p), text=_form(p), detail=name_of(p)) for p, cost, a in known)
    theirs = tuple(
        Mark(a.cost_change / 100, a.top1, _form(p), detail=a.source) for p, _, a in known if a.cost_change is not None
    )
    found = [Series("our networks", "points", ours, 0), Series("as printed", "points", theirs, 1, hollow=True)]
    xs, ys = [k.x for k in ours + theirs], [k.y for k in ours]
    wide, tall = (max(xs) - min(xs) or 0.01) * ROOM, (max(ys) - min(ys) or 1) * ROOM * 1.5
    return Panel("", _percent(f"{title} against {base}", min(xs) - wide, max(xs) + 2.5 * wide),
                 Axis("top1", ACCURACIES["top1"], "%", 1, min(ys) - tall, max(ys) + tall),
                 tuple(s for s in found if s.marks), height=1.5, name="accuracy")  # fmt: skip


def _percent(title: str, low: float, high: float) -> Axis:
    return Axis("change", title, "%", low=low, high=high, divisor=0.01)


def _form(profile: Profile) -> str:
    """`last γ=0.25` of csp_peleenet,fusion=last,gamma=0.25; a network without these options has its name."""
    name, *options = profile.source.split(",")
    given = dict(o.partition("=")[::2] for o in options)
    if given.get("fusion") == "none":
        return "plain"
    if not given and not name.startswith("csp_"):
        return name_of(profile)
    return f"{given.get('fusion', 'csp')} γ={given.get('gamma', '0.5')}"
