"""The chart `gradients`: a matrix of layers and the gradients that update them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import counted
from cspprof.csp.gradient_reuse import GradientReuse, gradient_reuse
from cspprof.report.chart_model import Axis, Chart, Mark, Panel, Series, Span
from cspprof.report.charts.fusion import variant_name
from cspprof.report.charts.registry import chart

FORMS = tuple(f"csp_densenet121,fusion={fusion}" for fusion in ("none", "first", "csp", "last"))


@chart("gradients", default=FORMS, models=(1, 6))
def gradients(profiles: Sequence[Record]) -> Chart:
    """Which gradients update which layers, and which of them a block and its bypass share (CSPNet, Figs. 2 and 3)."""
    networks = {p.source.partition(",")[0] for p in profiles}
    of_one = len(profiles) > len(networks) == 1
    panels = [_panel(gradient_reuse(p), variant_name(p) if of_one else p.label) for p in profiles]
    caption = (
        "A point: the gradient that an operation computes for its input (across, in execution order) reaches the "
        "output of a layer (up) unchanged and updates its weights. Shared: it also reaches what bypasses the block."
    )
    title = f"Gradients that update the layers{f' of {networks.pop()}' if of_one else ''}"
    return Chart("gradients", title, tuple(panels), caption)


def _panel(reuse: GradientReuse, name: str) -> Panel:
    used = [n for n, gradient in enumerate(reuse.gradients) if gradient.layers]
    if not used:
        raise CspprofError(
            f"{reuse.record.model} has no layer with weights, so the chart is empty", "Choose another model."
        )
    positions = {n: x for x, n in enumerate(used, 1)}
    once: list[Mark] = []
    again: list[Mark] = []
    shared: list[Mark] = []
    for n in used:
        gradient = reuse.gradients[n]
        for i in gradient.layers:
            layer = reuse.layers[i]
            mark = Mark(positions[n], i + 1, layer.path, stage=layer.stage, detail=f"gradient of {gradient.name}")
            (shared if (n, i) in reuse.shared_uses else again if gradient.reused else once).append(mark)
    series = (Series("used once", "points", tuple(once), "muted"), Series("used again", "points", tuple(again), 0),
              Series("shared with the bypass", "points", tuple(shared), 1))  # fmt: skip
    total = reuse.total
    title = f"{name}: {counted(total.uses, 'use')}, {total.shared:,} shared"
    x = Axis("gradient", "gradient", low=0.5, high=len(used) + 0.5, integer=True)
    y = Axis("layer", "layer", low=0.5, high=len(reuse.layers) + 0.5, integer=True)
    spans = _stage_spans([reuse.gradients[n].stage for n in used])
    return Panel(title, x, y, tuple(s for s in series if s.marks), spans=spans, height=1.4, name=name)


def _stage_spans(stages: Sequence[str]) -> tuple[Span, ...]:
    """The stages of the gradients at positions 1, 2, 3 …"""
    spans, start = [], 0.5
    for stage, group in groupby(stages):
        end = start + len(list(group))
        spans.append(Span(start, end, stage))
        start = end
    return tuple(spans)
