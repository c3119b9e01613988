"""Read an ONNX file: the graph, its small constants, and the shapes of its inputs. Large weights are not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from cspprof.core.errors import SourceError
from cspprof.core.inputs import Inputs, Value, arguments
from cspprof.core.tensors import TensorSpec, is_possible
from cspprof.sources.onnx_graph.constant_folding import is_small
from cspprof.sources.onnx_graph.protos import dtype_of, shape_text, tensor_spec
from cspprof.sources.onnx_graph.validation import check_model


def load_model(path: Path) -> ModelProto:
    """The model, checked by `validation`. Raises SourceError."""
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}", "Check the path.") from None
    except Exception as error:  # each implementation of protobuf has its own class
        reason = str(error).splitlines()[0] if str(error) else "empty"
        raise SourceError(
            f"{path.name} is not an ONNX file, or it is incomplete: {reason}",
            "Export it again, or check the download.",
        ) from None
    if not model.graph.node or not model.graph.output:
        raise SourceError(f"{path.name} contains no graph", "Export it again, or check the download.")
    check_model(path, model)
    _use_short_domain(model)
    return model


def _use_short_domain(model: ModelProto) -> None:
    """Write the domain of the standard operators as the empty string everywhere: `ai.onnx` is another name of it."""
    pending = [model.graph.node, *(function.node for function in model.functions)]
    for opset in (*model.opset_import, *(o for function in model.functions for o in function.opset_import)):
        if opset.domain == "ai.onnx":
            opset.domain = ""
    while pending:
        for node in pending.pop():
            if node.domain == "ai.onnx":
                node.domain = ""
            for attribute in node.attribute:
                pending += [graph.node for graph in (attribute.g, *attribute.graphs)]


def constant_array(tensor: TensorProto, folder: Path) -> Any:
    """The elements of a small constant; None if it is large or its data is not there."""
    spec = tensor_spec(tensor)
    if not is_small(spec):
        return None
    try:
        if tensor.data_location != TensorProto.EXTERNAL:
            return onnx.numpy_helper.to_array(tensor)
        entries = {entry.key: entry.value for entry in tensor.external_data}
        file = folder / entries["location"]
        if not file.is_file():
            return None
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        with file.open("rb") as stream:
            stream.seek(int(entries.get("offset", 0)))
            data = stream.read(spec.numel * dtype.itemsize)
        return numpy.frombuffer(data, dtype).reshape(spec.shape)
    except Exception:  # a missing file, or a type that NumPy does not have
        return None


def input_specs(model: ModelProto, name: str, requested: Inputs | None) -> tuple[dict[str, TensorSpec], list[str]]:
    """The spec of each input, and notes on assumed dimensions. `name` is the model's in messages.

    `requested` (--input) may name inputs or list them in order. An open batch dimension is 1. Raises SourceError for
    any other open dimension, and for a shape that contradicts the graph.
    """
    weights = {t.name for t in model.graph.initializer}
    declared = [v for v in model.graph.input if v.name not in weights]
    shapes = _requested_shapes(name, [v.name for v in declared], requested)
    specs, notes = {}, []
    for value in declared:
        dims, dtype = _dims(value), dtype_of(value.type.tensor_type.elem_type)
        open_dims = [i for i, d in enumerate(dims) if isinstance(d, str)]
        has_rank = value.type.tensor_type.HasField("shape")
        if value.name in shapes:
            shape = shapes[value.name]
            if has_rank and (
                len(shape) != len(dims) or any(i not in open_dims and shape[i] != d for i, d in enumerate(dims))
            ):
                raise SourceError(
                    f"{name}: the input {value.name!r} is {shape_text(dims)}, not {shape_text(shape)}",
                    "Only dimensions that have a name instead of a number can change.",
                )
            specs[value.name] = _possible(name, value.name, TensorSpec(shape, dtype))
            continue
        if open_dims not in ([], [0]) or not has_rank:
            example = "x".join("224" if i in open_dims[-2:] and len(dims) == 4 else "1" if i in open_dims else str(d)
                               for i, d in enumerate(dims)) or "1x3x224x224"  # fmt: skip
            what = f"is {shape_text(dims)}, which leaves dimensions open" if has_rank else "has no shape in the file"
            raise SourceError(
                f"{name}: the input {value.name!r} {what}",
                f"Give them: --input {value.name}={example}",
            )
        if open_dims:
            notes.append(f"the batch size of input {value.name!r} is open: 1 is assumed (--input changes it)")
        shape = tuple(1 if isinstance(d, str) else d for d in dims)
        specs[value.name] = _possible(name, value.name, TensorSpec(shape, dtype))
    return specs, notes


def _possible(name: str, input_name: str, spec: TensorSpec) -> TensorSpec:
    if not is_possible(spec):
        raise SourceError(
            f"{name}: the input {input_name!r} has the impossible shape {spec}", "Write: --input 1x3x224x224"
        )
    return spec


def _requested_shapes(name: str, declared: list[str], requested: Inputs | None) -> dict[str, tuple[int, ...]]:
    if requested is None:
        return {}

    def refuse(value: Value) -> None:
        raise SourceError(f"{name} takes tensors only, not the value {value.value!r}", "Write: --input 1x3x224x224")

    args, kwargs = arguments(requested, lambda tensor: tuple(tensor.shape), refuse)
    unknown = [key for key in kwargs if key not in declared]
    if unknown or len(args) > len(declared):
        raise SourceError(
            f"{name} has no input {unknown[0]!r}" if unknown else f"{name} has only {len(declared)} inputs",
            f"There are: {', '.join(declared)}",
        )
    return dict(zip(declared, args, strict=False)) | kwargs


def _dims(value: ValueInfoProto) -> list[int | str]:
    """The dimensions of an input; an open one is its name, or `?`."""
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else d.dim_param or "?"
            for d in value.type.tensor_type.shape.dim]  # fmt: skip
