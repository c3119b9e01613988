"""torch.compile with its default backend, inductor, on the CPU."""

from __future__ import annotations

from typing import Any

import torch

from cspprof.measure.engines import torch_engine
from cspprof.measure.engines.network import Network, Prepared


def configure(threads: int) -> dict[str, Any]:
    settings = torch_engine.configure(threads)
    return {**settings, "mode": "torch.compile(backend='inductor', dynamic=False), torch.inference_mode, float32"}


class CompiledNetwork(torch_engine.TorchNetwork):
    """A module that the first run compiles."""

    def __init__(self, prepared: Prepared) -> None:
        super().__init__(prepared)
        torch._dynamo.config.suppress_errors = False  # a graph that fails to compile must not run in eager mode
        self.forward = torch.compile(self.module, backend="inductor", dynamic=False)
        torch._dynamo.utils.counters.clear()
        self.run()
        breaks = sum(torch._dynamo.utils.counters["graph_break"].values())
        if breaks:
            self.notes = (f"torch.compile split the network at {breaks} places (graph breaks)",)


def load(prepared: Prepared, threads: int) -> Network:
    return CompiledNetwork(prepared)
