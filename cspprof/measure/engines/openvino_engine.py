"""OpenVINO on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openvino as ov

from cspprof.measure.engines.network import Network, Prepared

if TYPE_CHECKING:
    import numpy as np


def properties(threads: int) -> dict[str, Any]:
    """Explicit threads in one stream, float32 also where the CPU has bfloat16, and denormals flushed.

    The process is pinned; OpenVINO's own pinning would place the threads on other CPUs.
    """
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
        "CPU_DENORMALS_OPTIMIZATION": True,
    }


def configure(threads: int) -> dict[str, Any]:
    return properties(threads)


class OpenVinoNetwork(Network):
    """An inference request with its input."""

    def __init__(self, prepared: Prepared, options: dict[str, Any]) -> None:
        core = ov.Core()
        self.compiled = core.compile_model(core.read_model(str(prepared.graph)), "CPU", options)
        self.request = self.compiled.create_infer_request()
        self.feeds = dict(zip(prepared.input_names, map(ov.Tensor, prepared.inputs()), strict=True))

    def run(self) -> None:
        self.request.infer(self.feeds)

    def outputs(self) -> list[np.ndarray]:
        return [self.request.get_output_tensor(i).data.copy() for i in range(len(self.compiled.outputs))]


def load(prepared: Prepared, threads: int) -> Network:
    return OpenVinoNetwork(prepared, properties(threads))
