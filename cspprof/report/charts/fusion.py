"""The chart `fusion`: cost and published accuracy of the variants of the cross-stage-partial stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import change, decimal
from cspprof.metrics import METRICS, Number
from cspprof.papers.accuracy import ACCURACIES, Accuracy, published_accuracy
from cspprof.report.chart_model import Axis, Chart, Mark, Panel, ReferenceLine, Series
from cspprof.report.charts.execution_order import cio_note, input_text
from cspprof.report.charts.pareto import MARGIN, metric_or_accuracy
from cspprof.report.charts.registry import chart

PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant of the network: its cost relative to the plain network, and its published accuracy."""

    profile: Record
    name: str
    value: Number
    relative_cost: float
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
    """Variants of the cross-stage-partial stage (Figs. 3 and 4): cost against the plain network, published top-1."""
    title, base = METRICS.get(metric).title, profiles[0].label
    whole = metric_or_accuracy(profiles[0], metric)
    if not whole:
        raise CspprofError(f"{base} has no {title} to compare with", "Give the plain network first.")
    values = [metric_or_accuracy(p, metric) for p in profiles]
    unknown = [p.label for p, value in zip(profiles, values, strict=True) if value is None]
    if unknown:
        raise CspprofError(
            f"the {title} of {', '.join(unknown)} is not known", "Choose another metric: --metric params"
        )
    families = {_plain_name(p) for p in profiles}
    names = [PLAIN, *map(variant_name, profiles[1:])] if len(families) == 1 else [p.label for p in profiles]
    variants = [
        Variant(p, name, value, (value or 0) / whole - 1, published_accuracy(p))
        for p, name, value in zip(profiles, names, values, strict=True)
    ]
    if len(families) > 1:  # printed costs are relative to the plain network of the family
        variants = [replace(v, printed=v.printed and replace(v.printed, cost_change=None)) for v in variants]
    panels, notes = [_cost_panel(variants, metric, base)], []
    with_accuracy = [v for v in variants if v.printed]
    if len(with_accuracy) >= 2:
        panels.append(_accuracy_panel(with_accuracy, title, base))
    else:
        notes.append("no accuracy panel: accuracies are published for fewer than two of these models.")
    if any("fusion=first" in v.profile.source for v in with_accuracy):
        notes.append("the paper does not print the γ of fusion first.")
    caption = f"Input {input_text(profiles)}."
    caption += cio_note(metric, profiles)
    if any(v.printed and v.printed.cost_change is not None for v in with_accuracy):
        caption += " Hollow: printed cost (Wang et al. 2019, Fig. 4); filled: cost of our networks, which are readings."
    return Chart("fusion", "Fusion of the partial stage", tuple(panels), caption, notes)


def _plain_name(record: Record) -> str:
    """The name of the plain network: peleenet for csp_peleenet,gamma=0.25."""
    return record.source.partition(",")[0].removeprefix("csp_")


def variant_name(record: Record) -> str:
    """`last γ=0.25` for csp_peleenet,fusion=last,gamma=0.25; a network without these options keeps its name."""
    name, *options = record.source.split(",")
    given = dict(o.partition("=")[::2] for o in options)
    if given.get("fusion") == "none":
        return PLAIN
    if not given and not name.startswith("csp_"):
        return record.label
    return f"{given.get('fusion', 'csp')} γ={given.get('gamma', '0.5')}"


def _cost_panel(variants: Sequence[Variant], metric: str, base: str) -> Panel:
    """One horizontal bar per variant: its cost relative to the plain network."""
    m = METRICS.get(metric)
    bars = [
        Mark(i, v.relative_cost, v.name, text=change(v.relative_cost), detail=f"{decimal(v.value or 0)} {m.unit}")
        for i, v in enumerate(variants, 1)
    ]
    low, high = min(b.y for b in bars), max(0.01, *(b.y for b in bars))
    margin = (high - low) * 0.35
    y = _percent_axis(f"{m.title} against {base}", low - margin * (low < 0), high + margin * (high > 0.01))
    x = Axis("form", "", low=0.5, high=len(bars) + 0.5, tick_labels=tuple((b.x, b.label) for b in bars))
    return Panel("", x, y, (Series("computed", "bars", tuple(bars), 0),), (ReferenceLine(0, "", name=base),),
                 horizontal=True, height=0.1 + 0.12 * len(bars), name="cost")  # fmt: skip


def _accuracy_panel(variants: Sequence[Variant], title: str, base: str) -> Panel:
    """Top-1 accuracy against the computed cost and the printed cost."""
    pairs = [(v, v.printed) for v in variants if v.printed]
    ours = [Mark(v.relative_cost, a.top1, v.name, text=v.name, detail=v.profile.label) for v, a in pairs]
    printed = [
        Mark(a.cost_change / 100, a.top1, v.name, detail=a.source) for v, a in pairs if a.cost_change is not None
    ]
    series = (
        Series("our networks", "points", tuple(ours), 0),
        Series("as printed", "points", tuple(printed), 1, hollow=True),
    )
    xs, ys = [k.x for k in (*ours, *printed)], [k.y for k in ours]
    x_margin, y_margin = (max(xs) - min(xs) or 0.01) * MARGIN, (max(ys) - min(ys) or 1) * MARGIN * 1.5
    x = _percent_axis(f"{title} against {base}", min(xs) - x_margin, max(xs) + 2 * x_margin)
    y = Axis("top1", ACCURACIES["top1"], "%", low=min(ys) - y_margin, high=max(ys) + y_margin)
    return Panel("", x, y, tuple(s for s in series if s.marks), height=1.5, name="accuracy")


def _percent_axis(title: str, low: float, high: float) -> Axis:
    return Axis("change", title, "%", 0.01, low, high)
