"""Prepare a model for the engines: weights, an input, the correct output and an ONNX graph, in a folder.

It runs in a process of its own, so that its memory is free again before an engine runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cspprof.core.errors import CspprofError
from cspprof.core.inputs import parse_inputs
from cspprof.core.relative_error import relative_error
from cspprof.deployment.random_weights import VanishedError, calibrate, check_depends_on_input, rescale
from cspprof.measure.engines.network import EngineError, save_arrays
from cspprof.measure.onnx_export import export, graph_facts
from cspprof.measure.parity import NEARBY, TOLERANCE, tolerance_for
from cspprof.measure.torch_model import (
    Call,
    call_arguments,
    copied_state,
    input_tensors,
    output_tensors,
    write_changes,
)
from cspprof.modules.input_tensors import InputTensors
from cspprof.sources import Request, open_model, parse, source_of


def prepare(
    spec: str, input_texts: Sequence[str], folder: Path, needs_graph: bool, quick: bool = False
) -> dict[str, Any]:
    """Write the folder that `Prepared` reads, and return its facts. For `quick` see `export`.

    Raises CspprofError if the model cannot be built or run, or if its output does not depend on its input.
    """
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    if quick:  # threads that wait for each other take most of the time of short networks on a busy machine
        torch.set_num_threads(1)
    is_graph = source_of(parse(spec)).name == "ONNX"
    facts = _prepare_graph(spec, input_texts, folder) if is_graph else _prepare_module(
        spec, input_texts, folder, needs_graph, quick
    )  # fmt: skip
    facts = {"spec": spec, "inputs": list(input_texts), **facts}
    (folder / "model.json").write_text(json.dumps(facts), encoding="utf-8")
    return facts


def _prepare_module(
    spec: str, input_texts: Sequence[str], folder: Path, needs_graph: bool, quick: bool
) -> dict[str, Any]:
    with open_model(spec, Request(device="cpu")) as loaded:
        module = loaded.module.eval()
        call = call_arguments(loaded, input_texts)
        forward = _Forward(module, call, call_arguments(loaded, input_texts, seed=1))
        before = copied_state(module)
        try:
            notes, outputs, tolerance = _correct_outputs(module, forward)
        except CspprofError:
            raise
        except Exception as error:  # the forward of a user's model may raise anything
            reason = next(iter(str(error).strip().splitlines()), "")
            raise EngineError(f"torch cannot run it: {type(error).__name__}: {reason}") from error
        write_changes(module, before, folder)
        save_arrays(folder / "inputs.npz", [t.numpy() for t in input_tensors(*call)])
        save_arrays(folder / "outputs.npz", [t.numpy() for t in outputs])
        exported: dict[str, Any] = {"failure": "no engine needs the ONNX graph", "exporter": ""}
        if needs_graph:
            exported = export(module, *call, folder / "model.onnx", quick)
        return {"notes": notes, "tolerance": tolerance, "export": exported}


def _correct_outputs(module: nn.Module, forward: _Forward) -> tuple[list[str], list[torch.Tensor], float]:
    """Notes on changed weights, the output tensors, and the relative error that an engine may have.

    Raises VanishedError if the output does not depend on the input, and EngineError if it is random.
    """
    notes = calibrate(module, forward)
    outputs = forward()
    try:
        check_depends_on_input(outputs, forward.on_other_input(outputs))
    except VanishedError:
        notes.append(rescale(module, forward))
        outputs = forward()
        check_depends_on_input(outputs, forward.on_other_input(outputs))
    if _change(outputs, forward()) > TOLERANCE:
        raise EngineError(
            "a second run on the same input gives another output, so no output can be compared",
            "Remove the random numbers from the forward pass in eval mode.",
        )
    tolerance = tolerance_for(_change(outputs, forward.on_nearby_input()))
    if tolerance > TOLERANCE:
        notes.append(
            f"the output reacts to rounding errors, so engines may differ by {tolerance:.0e} instead of {TOLERANCE:.0e}"
        )
    return notes, outputs, tolerance


def _change(outputs: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    """The largest relative change of an output."""
    return relative_error([t.numpy() for t in others], [t.numpy() for t in outputs])


class _Forward:
    """A forward pass of a module on its input; calling it gives the output tensors."""

    def __init__(self, module: nn.Module, call: Call, other_call: Call) -> None:
        self.module, self.call, self.other_call = module, call, other_call
        self.is_random_input = any(t.is_floating_point() for t in input_tensors(*call))

    @torch.no_grad()
    def __call__(self) -> list[torch.Tensor]:
        return [t.detach().clone() for t in output_tensors(self.module(*self.call[0], **self.call[1]))]

    @torch.no_grad()
    def on_other_input(self, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """The output for other random numbers; some other output for an input of integers, which are all 0."""
        if not self.is_random_input:
            return [t + 1 for t in outputs]
        return [t.detach().clone() for t in output_tensors(self.module(*self.other_call[0], **self.other_call[1]))]

    @torch.no_grad()
    def on_nearby_input(self) -> list[torch.Tensor]:
        """The output after a relative change of the input by `NEARBY`."""
        tensors = [t for t in input_tensors(*self.call) if t.is_floating_point()]
        saved = [t.clone() for t in tensors]
        for tensor in tensors:
            tensor.mul_(1 + NEARBY * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2)))
        try:
            return self()
        finally:
            for tensor, value in zip(tensors, saved, strict=True):
                tensor.copy_(value)


def _prepare_graph(spec: str, input_texts: Sequence[str], folder: Path) -> dict[str, Any]:
    """A graph of the user: its output by ONNX Runtime without any optimization is the correct one."""
    from cspprof.measure.engines import onnxruntime_engine
    from cspprof.sources.onnx_graph.model_file import input_specs, load_model

    path = Path(spec).resolve()
    specs, _ = input_specs(load_model(path), spec, parse_inputs(input_texts))
    make = InputTensors("cpu", None)
    arrays = {name: make(tensor).numpy() for name, tensor in specs.items()}
    exported = {"failure": "", "exporter": "the file itself", "path": str(path), **graph_facts(path)}
    save_arrays(folder / "inputs.npz", [arrays[name] for name in exported["inputs"]])
    save_arrays(folder / "outputs.npz", onnxruntime_engine.run_without_optimization(path, arrays))
    notes = ["compared with ONNX Runtime without graph optimization"]
    return {"notes": notes, "tolerance": TOLERANCE, "export": exported}
