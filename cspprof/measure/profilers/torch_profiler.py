"""The profile of torch in eager mode: hooks mark the modules, torch's profiler times the operations in them.

Hooks alone see modules, and neither a concatenation nor an addition in the `forward` of a block. The profiler sees each
operation; only those count that no other operation calls. It also records what the allocator allocates and frees.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean
from typing import Any, NamedTuple

import torch
from torch.autograd.profiler import record_function

from cspprof.measure.engines.network import Prepared
from cspprof.measure.engines.torch_engine import TorchNetwork
from cspprof.measure.profilers import WARM_UP, RawNode, fastest_half, raw_profile

MARK = "cspprof::"
"""The first part of the name of the range that a module's hook opens."""


class Span(NamedTuple):
    """An operation of one run: the module that called it, its name, its start and end in seconds, and the bytes that it
    allocated and kept."""

    path: str
    name: str
    start: float
    end: float
    nbytes: int = 0


def profile(prepared: Prepared, threads: int, runs: int, engine: str) -> list[dict[str, Any]]:
    network = TorchNetwork(prepared)
    for _ in range(WARM_UP):
        network.run()
    marks = _ModuleMarks(network.module)
    walls, spans, peaks = [], [], []
    try:
        network.run()
        for _ in range(runs):
            network.result = None  # its memory is not part of the next run
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as found:
                network.run()
            wall, run = _spans(found.events())
            walls.append(wall)
            spans.append(run)
            peaks.append(allocator_peaks(_allocations(found), [span.end for span in run]))
    finally:
        marks.remove()
    chosen = fastest_half(walls)
    nodes, (peak, kept) = nodes_of_spans([spans[i] for i in chosen]), peaks[-1]
    return [
        raw_profile(nodes, mean(walls[i] for i in chosen), runs, peak_bytes=peak, peak_without_workspace=kept)
    ]  # fmt: skip


class _ModuleMarks:
    """Hooks that open a named range of the profiler around each module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._open: list[Any] = []  # record_function has no types
        self._hooks = []
        for path, part in module.named_modules():
            self._hooks.append(part.register_forward_pre_hook(self._enter(path)))
            self._hooks.append(part.register_forward_hook(self._leave, always_call=True))

    def _enter(self, path: str) -> Any:
        def enter(module: torch.nn.Module, args: Any) -> None:
            self._open.append(record_function(MARK + path))
            self._open[-1].__enter__()

        return enter

    def _leave(self, module: torch.nn.Module, args: Any, result: Any) -> None:
        self._open.pop().__exit__(None, None, None)

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _spans(events: Any) -> tuple[float, list[Span]]:
    """The time of the model, and its operations that no other operation called."""
    wall, spans = 0.0, []
    for event in events:
        parent = event.cpu_parent
        if event.name == MARK and parent is None:
            wall += event.time_range.elapsed_us() * 1e-6
        elif event.name.startswith("aten::") and parent is not None and parent.name.startswith(MARK):
            span = (parent.name.removeprefix(MARK), event.name.removeprefix("aten::"))
            times = (event.time_range.start * 1e-6, event.time_range.end * 1e-6)
            spans.append(Span(*span, *times, event.cpu_memory_usage))
    return wall, sorted(spans, key=lambda span: span.start)


def _allocations(found: Any) -> list[tuple[float, int]]:
    """When the allocator of the CPU gave (positive) or took back (negative) how many bytes."""
    results = found.profiler.kineto_results
    began = results.trace_start_ns()
    return [
        ((event.start_ns() - began) * 1e-9, event.nbytes()) for event in results.events() if event.name() == "[memory]"
    ]


def nodes_of_spans(runs: Sequence[Sequence[Span]]) -> list[RawNode]:
    """The operations in the order of the last run, each with its mean time. An operation is the n-th call of a function
    in a module.

    Raises RuntimeError if the runs have different operations, so that their times do not belong together.
    """
    times: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    kept: dict[tuple[str, str, int], int] = {}
    order: list[tuple[str, str, int]] = []
    keys: set[tuple[tuple[str, str, int], ...]] = set()
    for spans in runs:
        seen: dict[tuple[str, str], int] = defaultdict(int)
        order = []
        for span in spans:
            key = (span.path, span.name, seen[span.path, span.name])
            seen[span.path, span.name] += 1
            times[key].append(span.end - span.start)
            kept[key] = span.nbytes
            order.append(key)
        keys.add(tuple(order))
    if len(keys) > 1:
        raise RuntimeError("the model runs other operations in every forward pass")
    return [
        RawNode(
            f"{path}.{name}".lstrip("."),
            name,
            mean(times[path, name, n]),
            path=path,
            allocated_bytes=kept[path, name, n],
        )
        for path, name, n in order
    ]


def allocator_peaks(allocations: Sequence[tuple[float, int]], ends: Sequence[float]) -> tuple[int, int]:
    """The peak of the allocated bytes, and the peak at the ends of operations.

    At the end of an operation its inputs and outputs are allocated and its workspace is not; that is what `peak_bytes`
    of a record counts. `allocations` are (time, bytes) with negative bytes for a release.
    """
    current = peak = kept = 0
    waiting = sorted(ends)
    position = 0
    for time, size in sorted(allocations, key=lambda event: event[0]):
        while position < len(waiting) and waiting[position] <= time:
            kept = max(kept, current)
            position += 1
        current += size
        peak = max(peak, current)
    return peak, max(kept, current) if position < len(waiting) else kept
