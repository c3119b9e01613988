"""The chart `memory --training`: memory over the forward and the backward pass of one training step."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.core.record import Kind, Record
from cspprof.core.units import nbytes
from cspprof.metrics.training_memory import Moment, training_memory
from cspprof.report.chart_model import Chart, Mark, Panel, ReferenceLine, Series, Span
from cspprof.report.charts.execution_order import input_text, order_axis, thin, thinning_note, value_axis
from cspprof.report.training import check_trainable, paths_of_calls, place_of_peak


def training_chart(profiles: Sequence[Record], optimizer: str) -> Chart:
    """Memory while each operation runs forward and backward: what is there in any case, the gradients of parameters,
    and what autograd keeps, one upon the other."""
    state = "" if optimizer == "sgd" else ", optimizer"
    for record in profiles:
        check_trainable(record)
    memories = [training_memory(p, optimizer) for p in profiles]
    shown = [
        [m for m in memory.moments if m.phase == "optimizer" or not _is_view(p, m)]
        for p, memory in zip(profiles, memories, strict=True)
    ]
    x = order_axis("operations of the forward pass, then of the backward pass", max(map(len, shown)))
    y = value_axis("train_peak_bytes", max(m.peak.total for m in memories))._replace(name="bytes", title="memory")
    panels, thinning = [], ""
    for i, (p, memory, moments) in enumerate(zip(profiles, memories, shown, strict=True)):
        paths = paths_of_calls(p)
        thinned, n = thin(moments, lambda moment: moment.total)
        thinning += thinning_note(p, len(moments), n)
        heights = (
            ("all memory", [m.total for _, m in thinned]),
            (f"weights{state}, gradients, saved", [m.total - m.other for _, m in thinned]),
            (f"weights{state}, gradients", [m.fixed + m.gradients for _, m in thinned]),
        )
        places = [(at + 1, _label(m, paths)) for at, m in thinned]
        series = tuple(
            Series(
                name, "steps", tuple(Mark(at, n, label) for (at, label), n in zip(places, values, strict=True)), color
            )
            for color, (name, values) in enumerate(heights)
        )
        peak = memory.peak.total
        line = ReferenceLine(peak, f"peak {nbytes(peak)}", color=i, name="peak")
        forward = sum(m.phase == "forward" for m in moments)
        spans = (Span(1, forward, "forward"), Span(forward + 1, len(moments), "backward"))
        panels.append(Panel(p.label, x, y, series, (line,), spans))
    peaks = ", ".join(f"{p.label} at {place_of_peak(p, m)}" for p, m in zip(profiles, memories, strict=True))
    caption = (
        f"Input {input_text(profiles)}. One training step, optimizer {optimizer}. The lowest line is weights, buffers, "
        f"input{', state of the optimizer' if state else ''} and gradients of parameters; the one above it adds what "
        "autograd keeps for the backward pass; the highest adds other activations and their gradients. "
        f"Peaks: {peaks}.{thinning}"
    )
    return Chart("memory", "Memory of a training step", tuple(panels), caption)


def _is_view(record: Record, moment: Moment) -> bool:
    return record.specs[record.calls.spec[moment.call]].kind is Kind.VIEW


def _label(moment: Moment, paths: Sequence[str]) -> str:
    return "optimizer" if moment.phase == "optimizer" else f"{moment.phase} of {paths[moment.call]}"
