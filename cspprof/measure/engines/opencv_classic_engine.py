"""OpenCV's DNN module on the CPU, with its classic engine: the one of OpenCV 4."""

from __future__ import annotations

from typing import Any

import cv2

from cspprof.measure.engines import opencv_engine
from cspprof.measure.engines.network import Network, Prepared


def configure(threads: int) -> dict[str, Any]:
    return opencv_engine.configure(threads, "classic")


def classic_engine() -> tuple[int, ...]:
    """The argument that chooses the classic engine. OpenCV 4 has no other."""
    return (cv2.dnn.ENGINE_CLASSIC,) if hasattr(cv2.dnn, "ENGINE_CLASSIC") else ()


def load(prepared: Prepared, threads: int) -> Network:
    return opencv_engine.OpenCvNetwork(prepared, *classic_engine())
