"""A program written by `torch.export.save`: `model.pt2`.

Reading such a file runs no code from it. torch's loader evaluates expressions, imports modules, unpickles and opens
libraries that a file names, so it is not used: `archive` reads the zip file, `graph` its JSON as plain data,
`expressions` the sizes, `weights` the tensors. `modules` runs the graph with the operators that `operators` allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cspprof.core.errors import SourceError
from cspprof.core.files import display_path
from cspprof.sources.build import build_failed
from cspprof.sources.exported_program.archive import HINT, LEGACY_PROGRAM, Archive
from cspprof.sources.exported_program.graph import read_program
from cspprof.sources.exported_program.json_values import MalformedError
from cspprof.sources.exported_program.modules import ExportedModel
from cspprof.sources.exported_program.weights import read_weights
from cspprof.sources.spec import LoadedModel, Request, Spec


@contextmanager
def open_model(spec: Spec, request: Request) -> Iterator[LoadedModel]:
    """The program as a module, with the submodules of the exported model. Raises SourceError."""
    path = Path(spec.target)
    if spec.options:
        raise SourceError(f"{spec.target} is an exported program and takes no options", f"Write only: {spec.target}")
    for refused, option in (
        (request.train, "--train"), (request.deploy, "--deploy"), (request.dtype is not None, "--dtype")
    ):  # fmt: skip
        if refused:
            raise SourceError(
                f"{spec.target} is an exported program: {option} cannot change it",
                f"Use {option} on the PyTorch model (net.py:Net {option}), or export the model again in that form.",
            )
    try:
        module, notes = _read(path, request.device or "meta")
    except MalformedError as error:
        raise SourceError(f"{path.name}: {error}", error.hint or HINT) from None
    except (RuntimeError, AssertionError) as error:  # no such device, or too little memory on it
        raise build_failed(spec, error, request.device) from error
    inputs = module.arguments.defaults()
    if inputs is None and request.inputs is None:
        raise module.arguments.missing_sizes(spec.target)
    yield LoadedModel(module, inputs, path.name, display_path(path), notes)


def _read(path: Path, device: str) -> tuple[ExportedModel, tuple[str, ...]]:
    """The module, and notes. Raises MalformedError and SourceError."""
    with Archive(path) as archive:
        names = archive.programs()
        if len(names) > 1 and "model" not in names:
            raise MalformedError(f"it contains several programs ({', '.join(names)}), and none is named 'model'")
        name = "model" if "model" in names or not names else names[0]
        program = read_program(archive.json(f"models/{name}.json" if names else LEGACY_PROGRAM))
        tensors, notes = read_weights(archive, name, program, device)
        return ExportedModel(program, tensors, path.name), notes
