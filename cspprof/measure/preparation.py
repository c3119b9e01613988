"""Prepare a model for the engines: weights, an input, the correct output and an ONNX graph, in a folder.

It runs in a process of its own, so that its memory is free again before an engine runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cspprof.core.errors import CspprofError
from cspprof.core.inputs import parse_inputs
from cspprof.measure.engines.network import EngineError, save_arrays
from cspprof.measure.onnx_export import export, graph_facts
from cspprof.measure.random_weights import VanishedError, calibrate, check_depends_on_input, rescale
from cspprof.measure.torch_model import call_arguments, copied_state, input_tensors, output_tensors, write_changes
from cspprof.sources import Request, open_model, parse, source_of
from cspprof.trace.input_tensors import InputTensors


def prepare(spec: str, input_texts: Sequence[str], folder: Path, needs_graph: bool) -> dict[str, Any]:
    """Write the folder that `Prepared` reads, and return its facts.

    Raises CspprofError if the model cannot be built or run, or if its output does not depend on its input.
    """
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    is_graph = source_of(parse(spec)).name == "ONNX"
    facts = _prepare_graph(spec, input_texts, folder) if is_graph else _prepare_module(
        spec, input_texts, folder, needs_graph
    )  # fmt: skip
    facts = {"spec": spec, "inputs": list(input_texts), **facts}
    (folder / "model.json").write_text(json.dumps(facts), encoding="utf-8")
    return facts


def _prepare_module(spec: str, input_texts: Sequence[str], folder: Path, needs_graph: bool) -> dict[str, Any]:
    with open_model(spec, Request(device="cpu")) as loaded:
        module = loaded.module.eval()
        args, kwargs = call_arguments(loaded, input_texts)
        other_args, other_kwargs = call_arguments(loaded, input_texts, seed=1)
        before = copied_state(module)

        @torch.no_grad()
        def run() -> list[torch.Tensor]:
            return output_tensors(module(*args, **kwargs))

        @torch.no_grad()
        def run_other() -> list[torch.Tensor]:
            return output_tensors(module(*other_args, **other_kwargs))

        has_random_input = any(t.is_floating_point() for t in input_tensors(args, kwargs))
        try:
            notes = calibrate(module, run)
            outputs = run()
            others = run_other() if has_random_input else [t + 1 for t in outputs]
            try:
                check_depends_on_input(outputs, others)
            except VanishedError:
                notes.append(rescale(module, run))
                outputs = run()
                others = run_other() if has_random_input else [t + 1 for t in outputs]
                check_depends_on_input(outputs, others)
        except CspprofError as error:
            raise type(error)(f"{spec}: {error.message}", error.hint) from error
        except Exception as error:  # the forward of a user's model may raise anything
            reason = next(iter(str(error).strip().splitlines()), "")
            raise EngineError(f"torch cannot run {spec}: {type(error).__name__}: {reason}") from error
        write_changes(module, before, folder)
        save_arrays(folder / "inputs.npz", [t.numpy() for t in input_tensors(args, kwargs)])
        save_arrays(folder / "outputs.npz", [t.numpy() for t in outputs])
        exported: dict[str, Any] = {"failure": "no engine needs the ONNX graph", "exporter": ""}
        if needs_graph:
            exported = export(module, args, kwargs, folder / "model.onnx")
        return {"notes": notes, "export": exported}


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
    return {"notes": ["compared with ONNX Runtime without graph optimization"], "export": exported}
