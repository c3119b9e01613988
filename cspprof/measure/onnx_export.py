"""The ONNX graph that the engines run, exported by torch from a module with weights."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cspprof.measure.torch_model import TensorsOnly, has_only_tensors

EXTERNAL_BYTES = 1_500_000_000
"""From this size on, the weights go into a file beside the graph: a protobuf message has at most 2 GiB."""


def export(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], path: Path, quick: bool = False
) -> dict[str, Any]:
    """Write the graph, and return the facts that a result states: exporter, opset, names of inputs and outputs.

    The exporter is `torch.onnx.export(dynamo=True)` with its default opset; if it fails, the TorchScript exporter. If
    both fail, `failure` is the reason, else it is empty; `refused` are the reasons of exporters that failed.
    If `quick`, the TorchScript exporter is first: it takes a tenth of the time.
    """
    reasons: list[str] = []
    with torch.no_grad():
        if not has_only_tensors(module(*args, **kwargs)):
            module = TensorsOnly(module).eval()
    exporters = [_export_dynamo, _export_torchscript]
    for exporter in reversed(exporters) if quick else exporters:
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                name = exporter(module, args, kwargs, path)
            return {"failure": "", "exporter": name, "refused": reasons, "path": str(path), **graph_facts(path)}
        except Exception as error:  # the exporters raise errors of many classes
            reasons.append(f"{exporter.__name__.removeprefix('_export_')}: {_reason(error)}")
    if unsupported := _unsupported_operators(module, args, kwargs, path.parent):
        reasons = [f"torch {torch.__version__} has no ONNX form of {', '.join(unsupported)}"]
    return {"failure": "the network cannot be exported to ONNX: " + "; ".join(reasons), "exporter": ""}


def _export_dynamo(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], path: Path) -> str:
    program = torch.onnx.export(module, args, kwargs=kwargs or None, dynamo=True, verbose=False)
    assert program is not None
    size = sum(t.numel() * t.element_size() for t in module.state_dict().values() if isinstance(t, torch.Tensor))
    program.save(path, external_data=size > EXTERNAL_BYTES)
    return f"torch.onnx.export(dynamo=True) of torch {torch.__version__}"


def _export_torchscript(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], path: Path) -> str:
    torch.onnx.export(module, args, str(path), kwargs=kwargs or None, dynamo=False, opset_version=17)
    return f"torch.onnx.export(dynamo=False) of torch {torch.__version__}"


def graph_facts(path: Path) -> dict[str, Any]:
    """Opset, operator counts, and the names of inputs and outputs of a graph."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    constants = {t.name for t in model.graph.initializer}
    return {
        "opset": {o.domain or "ai.onnx": o.version for o in model.opset_import},
        "nodes": len(model.graph.node),
        "inputs": [i.name for i in model.graph.input if i.name not in constants],
        "outputs": [o.name for o in model.graph.output],
    }


def _unsupported_operators(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], folder: Path) -> list[str]:
    """Operators of torch that the exporter cannot translate: all of them, from the report that it writes."""
    with suppress(Exception), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, args, kwargs=kwargs or None, dynamo=True, verbose=False, report=True, artifacts_dir=str(folder)
        )
    text = "".join(path.read_text(encoding="utf-8") for path in folder.glob("onnx_export_*.md"))
    return sorted(set(re.findall(r"^- `([\w.]+)`: ", text.partition("Errors grouped by operator")[2], re.MULTILINE)))


def _reason(error: Exception) -> str:
    """The lines of an exporter's error that name the cause, without its advertisement of report files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    inner = [line.strip() for line in str(cause).splitlines() if line.strip()] if cause is not None else []
    first = (inner or lines or [type(error).__name__])[0]
    return f"{type(cause or error).__name__}: {first}"
