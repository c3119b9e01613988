"""torch in eager mode on the CPU."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch

from cspprof.measure.engines.network import EngineError, Network, Prepared
from cspprof.measure.torch_model import call_arguments, output_tensors, read_changes
from cspprof.sources import Request, open_model, parse, source_of

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


def configure(threads: int) -> dict[str, Any]:
    """Set the threads of an operation; operations do not run beside each other."""
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.set_flush_denormal(True)
    return {"intra_op_threads": threads, "inter_op_threads": 1, "mode": "eager, torch.inference_mode, float32"}


class TorchNetwork(Network):
    """A module on a device, with its arguments."""

    def __init__(self, prepared: Prepared, device: str = "cpu") -> None:
        self._stack = ExitStack()  # the model of a SPEC may import files as long as its context is open
        if source_of(parse(prepared.spec)).name == "ONNX":
            raise EngineError(f"{prepared.spec} is an ONNX graph, and torch runs modules only")
        loaded = self._stack.enter_context(open_model(prepared.spec, Request(device="cpu")))
        self.module: nn.Module = loaded.module.eval()
        read_changes(self.module, prepared.folder)
        self.module.to(device)
        self.args, self.kwargs = call_arguments(loaded, prepared.input_texts, device)
        self.forward: Any = self.module
        self.result: Any = None

    @torch.inference_mode()
    def run(self) -> None:
        self.result = self.forward(*self.args, **self.kwargs)

    def outputs(self) -> list[np.ndarray]:
        return [t.detach().cpu().numpy() for t in output_tensors(self.result)]


def load(prepared: Prepared, threads: int) -> Network:
    return TorchNetwork(prepared)
