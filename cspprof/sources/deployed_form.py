"""The record of a network in the form in which it is deployed."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from cspprof.core.errors import TraceError
from cspprof.core.inputs import Inputs, arguments
from cspprof.core.plain_arguments import with_plain_values
from cspprof.core.record import Record
from cspprof.deployment.deploy import deploy
from cspprof.deployment.proof import Forward
from cspprof.modules.input_tensors import InputTensors
from cspprof.modules.prepared_model import unwrap_compiled
from cspprof.operands.pytree import tensors_in
from cspprof.trace import trace
from cspprof.trace.fallbacks import device_of_weights


def trace_deployed(
    module: nn.Module, inputs: Inputs, *, device: str | None, dtype: str | None, train: bool, name: str | None = None,
    notes: tuple[str, ...] = (), **facts: Any,
) -> Record:  # fmt: skip
    """The record of the deployed form of a module that has weights with values. `facts` are other options of `trace`.

    Raises CspprofError if the deployed form does not return the outputs of the module; see `deployment`.
    """
    if train:
        raise TraceError(
            "a deployed network runs in eval mode: --train and --deploy exclude each other", "Leave out one of them."
        )
    module = unwrap_compiled(module)
    if device_of_weights(module) is None:
        raise TraceError(
            "the deployed form is proven on real tensors, and the weights of the model are on meta",
            "Build the model on the CPU, then profile it with deploy=True.",
        )
    weights = [p.dtype for p in module.parameters() if p.is_floating_point()]
    own_dtype = str(weights[0]).removeprefix("torch.") if weights else None
    read, _ = with_plain_values(module.forward, inputs)

    def recorded(changed: nn.Module) -> Record:
        return trace(changed, inputs, device=device, dtype=dtype or own_dtype)

    def run(changed: nn.Module, seed: int, real: torch.dtype) -> list[torch.Tensor]:
        make = InputTensors("cpu", None, seed)

        def tensor(given: Any) -> torch.Tensor:
            made = make(given)
            if not made.is_floating_point():
                return made.clone()
            made = made.to(real, copy=True)  # the forward may write into its input
            if seed and isinstance(given, torch.Tensor):
                made += torch.randn(made.shape, generator=torch.Generator().manual_seed(seed)).to(real)
            return made

        args, kwargs = arguments(read, tensor, permutation=make.permutation)
        may_compile = "torch._dynamo" in sys.modules
        with torch.no_grad(), torch.compiler.set_stance("force_eager") if may_compile else nullcontext():
            return [t.detach() for t in tensors_in(changed(*args, **kwargs))]

    floating: list[bool] = []
    arguments(read, lambda leaf: floating.append("float" in (str(leaf.dtype) or "float32")))
    label = name or type(module).__name__
    deployed = deploy(module, recorded, Forward(run, any(floating)), label)
    record = trace(
        deployed.module, inputs, device=device, dtype=dtype, name=f"{label} deployed",
        notes=(*notes, *deployed.notes), **facts,
    )  # fmt: skip
    return replace(record, deployed=True)
