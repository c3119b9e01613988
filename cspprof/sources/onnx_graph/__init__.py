"""An ONNX graph as a record, by the same cost formulas as a trace, without torch.

`model_file` reads the file and settles the shapes of its inputs. `graph` then walks over the nodes, with `control_flow`
over those of branches and loops, and `nodes` records each. `shape_inference` gives the outputs of a node, `operators`
and `contrib_operators` its cost, `constant_folding` the elements of small constants. `recording` collects the calls;
`weights` says which constants are parameters.

A graph is data. No part of it runs, except arithmetic on small constants by a list of operators, within a budget.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from cspprof.core.errors import SourceError, pip_install
from cspprof.core.files import display_path
from cspprof.core.record import Record
from cspprof.sources.spec import Request, Spec
from cspprof.sources.spec_mistakes import check_is_file


def read_record(spec: Spec, request: Request) -> Record:
    """The record of `model.onnx`. Raises SourceError."""
    if spec.options:
        raise SourceError(f"{spec.target} is an ONNX graph and takes no options", f"Write only: {spec.target}")
    for refused, option in (
        (request.dtype is not None, "--dtype"),
        (request.train, "--train"),
        (request.deploy, "--deploy"),
        (request.device not in (None, "meta"), "--device"),
    ):
        if refused:
            raise SourceError(
                f"{spec.target} is an ONNX graph: {option} cannot change it",
                f"Use {option} on the PyTorch model (net.py:Net {option}), or export the model again in that form.",
            )
    path = Path(spec.target)
    check_is_file(path)
    if find_spec("onnx") is None:
        raise SourceError("ONNX graphs need the library onnx", f"Install it: {pip_install('onnx')}")
    from cspprof.sources.onnx_graph.graph import GraphWalker
    from cspprof.sources.onnx_graph.model_file import input_specs, load_model

    model = load_model(path)
    inputs, notes = input_specs(model, spec.target, request.inputs)
    return GraphWalker(path, model, inputs).record(display_path(path), tuple(notes))
