"""OpenCV's DNN module on the CPU, with its new engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2

from cspprof.measure.engines.network import EngineError, Network, Prepared

if TYPE_CHECKING:
    import numpy as np


def configure(threads: int, engine: str = "new") -> dict[str, Any]:
    cv2.setNumThreads(threads)
    if hasattr(cv2.utils, "logging"):  # not in every OpenCV 4
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # failures reach the user as exceptions
    return {"threads": cv2.getNumThreads(), "backend": "DNN_BACKEND_OPENCV", "target": "CPU", "engine": engine}


class OpenCvNetwork(Network):
    """A `cv2.dnn.Net` with its input."""

    def __init__(self, prepared: Prepared, *engine: int) -> None:
        self.net = cv2.dnn.readNetFromONNX(str(prepared.graph), *engine)
        if self.net.empty():
            raise EngineError("cv2.dnn.readNetFromONNX returned an empty network")
        self.net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
        self.net.setPreferableTarget(cv2.dnn.DNN_TARGET_CPU)
        self.feeds = dict(zip(prepared.input_names, prepared.inputs(), strict=True))
        self.names = output_names(prepared)
        self.results: list[np.ndarray] = []

    def run(self) -> None:
        for name, value in self.feeds.items():
            self.net.setInput(value, name)
        self.results = list(self.net.forward(self.names))

    def outputs(self) -> list[np.ndarray]:
        return self.results


def output_names(prepared: Prepared) -> list[str]:
    return list(prepared.facts["export"]["outputs"])


def new_engine() -> tuple[int, ...]:
    """The argument that chooses the new engine. OpenCV 4 has one engine and no such argument."""
    return (cv2.dnn.ENGINE_NEW,) if hasattr(cv2.dnn, "ENGINE_NEW") else ()


def load(prepared: Prepared, threads: int) -> Network:
    return OpenCvNetwork(prepared, *new_engine())
