"""Charts of one cost, layer by layer: where a model peaks, what it reads and writes, what its largest layers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import change, share
from cspprof.metrics import METRICS
from cspprof.report.chart_model import Axis, Chart, Line, Mark, Panel, Series
from cspprof.report.charts import chart
from cspprof.report.charts.order import (
    Layers,
    amount,
    describe,
    inputs_of,
    layer_mark,
    layers_with,
    name_of,
    order_axis,
    stage_spans,
    thinned,
    thinning,
    value_axis,
)


@chart("fig7", default=("peleenet_yolo", "peleenet_prn", "csp_peleenet_efm"), traced_on=(1, 3, 416, 416), models=(1, 6))
def fig7(profiles: Sequence[Record], *, metric: str = "bflops") -> Chart:
    """BFLOPs of every layer, each model's peak, and by how much it lies below those of the models before it."""
    found = [layers_with(p, metric) for p in profiles]
    m = METRICS.get(metric)
    y = value_axis(metric, max(f.values[f.peak] for f in found))
    x = order_axis("layers in execution order", max(len(f.rows) for f in found))
    panels, thinned_to = [], ""
    for i, f in enumerate(found):
        bars, n = _bars(f)
        thinned_to += thinning(f.profile, len(f.rows), n)
        peak = f.values[f.peak]
        falls = [(name_of(e.profile), e.values[e.peak]) for e in found[:i]]
        text = f"peak {amount(metric, peak)}" + "".join(
            f"\n{change((peak - before) / before)} from {name}" for name, before in falls
        )
        lines = [Line(before, "", tone=j, name=f"peak of {name}") for j, (name, before) in enumerate(falls)]
        panels.append(
            Panel(
                f"{name_of(f.profile)}: {amount(metric, f.total)}", x, y, (Series("layers", "bars", bars, tone=i),),
                (*lines, Line(peak, text, tone=i, name=f"peak of {name_of(f.profile)}")), stage_spans(f.rows),
                name=name_of(f.profile),
            )
        )  # fmt: skip
    of = ", ".join(f"{name_of(f.profile)} at {f.rows[f.peak].path}" for f in found)
    caption = f"Input {inputs_of(profiles)}. Peaks: {of}.{thinned_to}"
    return Chart("fig7", f"{m.title} of every layer", tuple(panels), caption)


@chart("fig8", default=("resnext50", "csp_resnext50"), traced_on=(1, 3, 256, 256), models=(1, 6))
def fig8(profiles: Sequence[Record]) -> Chart:
    """Input and output of every convolution and pool, and the CIO that they add up to."""
    metric = "cio_cspnet"
    found = [layers_with(p, metric) for p in profiles]
    y = value_axis(metric, max(f.values[f.peak] for f in found))
    y = replace(y, title="elements")
    x = order_axis("convolutions and pools in execution order", max(len(f.rows) for f in found))
    panels, thinned_to = [], ""
    for f in found:
        chosen, n = thinned(list(zip(f.rows, f.values, strict=True)), lambda rv: rv[1])
        thinned_to += thinning(f.profile, len(f.rows), n)
        reads, writes = [], []
        for i, (row, _) in chosen:
            read, written = row.spec.reads[0].numel, row.spec.writes[0].numel
            reads.append(layer_mark(i, row, read))
            writes.append(layer_mark(i, row, written, base=read))
        fall = "" if f is found[0] else f" ({change((f.total - found[0].total) / found[0].total)})"
        panels.append(
            Panel(
                f"{name_of(f.profile)}: CIO {_in_millions(f.total)}{fall}", x, y,
                (Series("input", "bars", tuple(reads), 0), Series("output", "bars", tuple(writes), 1)),
                spans=stage_spans(f.rows), name=name_of(f.profile),
            )
        )  # fmt: skip
    rule = "CIO by CSPNet's rule: convolutions and pools, no other layer."
    caption = f"Input {inputs_of(profiles)}. {rule}{thinned_to}"
    return Chart("fig8", "Input and output of every layer", tuple(panels), caption)


@chart("bottleneck", default=("csp_darknet53",), models=(1, 1))
def bottleneck(profiles: Sequence[Record], *, metric: str = "macs", top: int = 10) -> Chart:
    """Every layer with the stages behind it, the share so far, and the largest layers by name."""
    (profile,) = profiles
    if top < 1:
        raise CspprofError(f"top={top} shows no layer", "Show at least one: top=10")
    f = layers_with(profile, metric)
    m = METRICS.get(metric)
    largest = sorted(range(len(f.values)), key=lambda i: (-f.values[i], i))[:top]
    bars, n = _bars(f)
    named = {i + 1 for i in largest}
    x = order_axis("layers in execution order", len(f.rows))
    y = value_axis(metric, f.values[f.peak])
    every = (
        Series(f"largest {len(largest)}", "bars", tuple(b for b in bars if b.x in named), tone=1),
        Series("others", "bars", tuple(b for b in bars if b.x not in named), tone=0),
    )
    spans = stage_spans(f.rows)
    title = f"{name_of(profile)}: {amount(metric, f.total)}"
    panels = (
        Panel(title, x, y, tuple(s for s in every if s.marks), spans=spans, name="layers"),
        Panel("", x, _share_axis(m.title), (Series("share so far", "steps", _running(f, n), 2),), spans=spans,
              height=0.6, name="share"),
        _largest(f, largest, y),
    )  # fmt: skip
    head = f.rows[f.peak]
    part = share(f.values[f.peak] / f.total)
    caption = f"Input {inputs_of(profiles)}. Largest layer: {head.path}, {part} of {m.title}."
    caption += thinning(profile, len(f.rows), n)
    return Chart("bottleneck", f"Largest layers by {m.title}", panels, caption)


def _in_millions(total: int) -> str:
    """As the paper prints it, `34.4 M elements`; smaller amounts in their own prefix."""
    return f"{total / 1e6:,.1f} M elements" if total >= 10**6 else amount("cio_cspnet", total)


def _bars(f: Layers) -> tuple[tuple[Mark, ...], int]:
    """A bar for each layer, or for each n neighbours the largest; and n."""
    chosen, n = thinned(list(zip(f.rows, f.values, strict=True)), lambda rv: rv[1])
    return tuple(layer_mark(i, row, value) for i, (row, value) in chosen), n


def _share_axis(title: str) -> Axis:
    return Axis("share_so_far", f"{title} so far", "%", 0.01, 0, 1)


def _running(f: Layers, n: int) -> tuple[Mark, ...]:
    """The share of all layers up to each one, or up to each n-th."""
    marks, so_far = [], 0
    for i, (row, value) in enumerate(zip(f.rows, f.values, strict=True)):
        so_far += value
        if (i + 1) % n == 0 or i + 1 == len(f.rows):
            marks.append(Mark(i + 1, so_far / f.total, row.path, stage=row.stage))
    return tuple(marks)


def _largest(f: Layers, largest: Sequence[int], y: Axis) -> Panel:
    """The largest layers below each other, with their share and that of all down to there."""
    marks, so_far = [], 0
    for place, i in enumerate(largest):
        so_far += f.values[i]
        marks.append(
            Mark(place + 1, f.values[i], f.rows[i].path, stage=f.rows[i].stage, detail=describe(f.rows[i]),
                 text=f"{share(f.values[i] / f.total)}, so far {share(so_far / f.total)}")
        )  # fmt: skip
    places = Axis("place", "", low=0.5, high=len(marks) + 0.5, ticks=tuple((m.x, m.label) for m in marks))
    return Panel(f"Largest {len(marks)}", places, y, (Series("largest", "bars", tuple(marks), 1),), lying=True,
                 height=0.1 + len(marks) * 0.12, name="largest")  # fmt: skip
