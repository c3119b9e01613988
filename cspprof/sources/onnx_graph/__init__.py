"""An ONNX graph: the same record through the same formulas, without torch.

The inputs' dimensions are settled first (`reading`), then the nodes are walked once (`graph`): shapes are inferred node
by node, shape arithmetic is worked out, and each operator is costed by its rule (`rules`).
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from cspprof.core.errors import SourceError
from cspprof.core.files import display_path
from cspprof.core.record import Record
from cspprof.sources.spec import Request, Spec


def read_record(spec: Spec, request: Request) -> Record:
    """The profile of `model.onnx`. Raises SourceError."""
    if spec.options:
        raise SourceError(f"{spec.target} is an ONNX graph and takes no options", f"Write only: {spec.target}")
    for asked, option in (
        (request.dtype is not None, "--dtype"),
        (request.train, "--train"),
        (request.device not in (None, "meta"), "--device"),
    ):
        if asked:
            raise SourceError(f"{spec.target} is an ONNX graph: {option} cannot change it", "Export the model anew.")
    if find_spec("onnx") is None:
        raise SourceError("reading ONNX graphs takes the library onnx", "Install it: pip install 'cspprof[onnx]'")
    from cspprof.sources.onnx_graph.graph import Graph
    from cspprof.sources.onnx_graph.reading import input_specs, read

    path = Path(spec.target)
    model = read(spec)
    inputs, notes = input_specs(spec, model, request.inputs)
    graph = Graph(path.name, path.parent, model, inputs)
    for node in model.graph.node:
        graph.run(node)
    for value in model.graph.output:
        if value.name not in graph.specs:
            raise SourceError(f"{path.name}: nothing gives the output {value.name!r}", "Is the file whole?")
        declared = [d.dim_value for d in value.type.tensor_type.shape.dim]
        found = graph.specs[value.name].shape
        fits = len(declared) == len(found) and all(d in (0, n) for d, n in zip(declared, found, strict=True))
        if declared and not fits:
            raise SourceError(
                f"{path.name}: the output {value.name!r} is declared as {'×'.join(map(str, declared))}, "
                f"its node gives {'×'.join(map(str, found))}",
                "Export it again; if dimensions were changed by hand, leave them open.",
            )
    return graph.profile(display_path(path), inputs, tuple(notes))
