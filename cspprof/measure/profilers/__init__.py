"""How each engine reports the time of its operations. The file of an engine has one function,

`profile(prepared, threads, runs, engine)`, which runs only in a process of its own and returns a list of raw profiles,
one per setting of the engine, as JSON data:

- `level`: the setting, empty if there is one only; `runs`: the runs that were recorded;
- `seconds`: the mean time of the fastest half of them, and `nodes`: what ran, as `RawNode` objects with their mean time
  in the same runs. Times of the same runs add up; medians of operations would not. The slower half of the runs was
  disturbed by other programs;
- `graph`: the nodes of the ONNX graph, for engines that run it.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

from cspprof.measure.engines.network import Network

PROFILERS = {
    "torch": "torch_profiler",
    "onnxruntime": "onnxruntime_profiler",
    "opencv": "opencv_profiler",
    "opencv-classic": "opencv_profiler",
    "openvino": "openvino_profiler",
}
"""The file in this folder, by the name of the engine."""
NO_PROFILER = {
    "torch-compile": "inductor compiles operations of several layers into one kernel",
    "torch-cuda": "the times of the CPU say nothing about kernels that run on the GPU",
}
"""Why other engines have no profile per layer."""

RUNS = 10
"""Runs in a profile."""
WARM_UP = 3
"""Runs before them. The first run allocates memory and packs weights."""


class RawNode(NamedTuple):
    """One operation of an engine, with its time."""

    name: str
    operator: str
    seconds: float
    """Mean of the fastest half of the runs."""
    anchors: Sequence[str] = ()
    """Names of nodes or tensors of the ONNX graph that this operation certainly computes; of a change of the layout,
    those whose layout it changes."""
    path: str = ""
    """The module that called it, for torch."""
    activation_bytes: int | None = None
    parameter_bytes: int | None = None
    output_bytes: int | None = None
    macs: int | None = None
    """Multiply-accumulates on the shapes that ran, which may be padded; None if the engine does not say."""
    is_layout: bool = False
    """Whether it only changes the layout of a tensor."""
    allocated_bytes: int | None = None
    """Bytes that the allocator gave to it and that it kept, for torch: its outputs."""


def timed_run(network: Network) -> float:
    """The time of a run, while the engine records its profile."""
    start = perf_counter()
    network.run()
    return perf_counter() - start


def fastest_half(seconds: Sequence[float]) -> list[int]:
    """The indices of the fastest half of the runs, in order; at least one."""
    ranked = sorted(range(len(seconds)), key=lambda i: seconds[i])
    return sorted(ranked[: max(1, len(seconds) // 2)])


def raw_profile(
    nodes: list[RawNode], seconds: float, runs: int, level: str = "", graph: Any = None, **more: Any
) -> dict[str, Any]:
    """A raw profile as JSON data. `names_first` among `more`: an operation has the name of the first node that it
    computes, and not of the last one."""
    return {
        "level": level,
        "runs": runs,
        "seconds": seconds,
        "nodes": [n._asdict() for n in nodes],
        "graph": graph,
        **more,
    }
