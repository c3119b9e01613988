"""torch in eager mode on a GPU, timed with CUDA events."""

from __future__ import annotations

from typing import Any

import torch

from cspprof.measure.engines import torch_engine
from cspprof.measure.engines.network import SKIPPED, EngineError, Network, Prepared


def configure(threads: int) -> dict[str, Any]:
    """Turn off TF32, which rounds float32 to 10 bits of mantissa. Raises EngineError without a GPU."""
    settings = torch_engine.configure(threads)
    if not torch.cuda.is_available():
        built = torch.version.cuda
        reason = f"torch was built for CUDA {built}, and finds no GPU" if built else "torch was built without CUDA"
        raise EngineError(SKIPPED + reason)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True  # the input has one shape: choose the fastest algorithm in the warm-up
    return {
        **settings,
        "device": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "timer": "CUDA events",
        "mode": "eager, torch.inference_mode, float32 without TF32, cudnn.benchmark",
    }


class CudaNetwork(torch_engine.TorchNetwork):
    """A module on the GPU."""

    def run(self) -> None:
        super().run()
        torch.cuda.synchronize()

    def seconds(self, runs: int) -> float:
        """The mean time between two CUDA events around `runs` forward passes, which includes launching the kernels."""
        new_event: Any = torch.cuda.Event  # has no types
        start, end = new_event(enable_timing=True), new_event(enable_timing=True)
        start.record()
        for _ in range(runs):
            super().run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / runs


def load(prepared: Prepared, threads: int) -> Network:
    return CudaNetwork(prepared, "cuda")
