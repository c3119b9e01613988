"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime as ort

from cspprof.measure.engines.network import Network, Prepared

if TYPE_CHECKING:
    import numpy as np

LEVEL = ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def configure(threads: int) -> dict[str, Any]:
    ort.set_default_logger_severity(3)  # errors only
    return {
        "intra_op_threads": threads,
        "inter_op_threads": 1,
        "allow_spinning": False,
        "graph_optimization": LEVEL.name,
        "provider": "CPUExecutionProvider",
    }


def session_options(threads: int, level: Any = LEVEL) -> ort.SessionOptions:
    """Options with explicit threads, threads that sleep while they wait, and denormals flushed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = level
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return options


class OrtNetwork(Network):
    """A session with its input."""

    def __init__(self, prepared: Prepared, options: ort.SessionOptions) -> None:
        self.session = ort.InferenceSession(str(prepared.graph), options, providers=["CPUExecutionProvider"])
        self.feeds = dict(zip(prepared.input_names, prepared.inputs(), strict=True))
        self.results: list[np.ndarray] = []

    def run(self) -> None:
        self.results = self.session.run(None, self.feeds)

    def outputs(self) -> list[np.ndarray]:
        return self.results


def load(prepared: Prepared, threads: int) -> Network:
    return OrtNetwork(prepared, session_options(threads))


def run_without_optimization(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The output of a graph with every graph optimization turned off."""
    options = session_options(1, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))
