"""Sources of records: one file per kind of source, and one grammar for all SPECs.

    SPEC = target[,option=value]…

A target is a zoo name, `timm:NAME`, `torchvision:NAME`, `path/to/file.py:factory`, `pkg.mod:factory`, a Darknet
`model.cfg`, an exported program `model.pt2`, an ONNX graph `model.onnx` or a saved `x.profile.json`.

To add a kind, write a file and a line in `SOURCES`. The file has a context manager `open_model(spec, request)` that
yields a `LoadedModel`, or, for a format without a module to run, a function `read_record(spec, request)`. Neither torch
nor an optional library is imported before a source needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import NamedTuple

from cspprof.core.errors import SourceError
from cspprof.core.record import Record
from cspprof.sources.spec import LoadedModel, Request, Spec, parse

__all__ = ["SOURCES", "LoadedModel", "Request", "Source", "Spec", "open_model", "parse", "record_of_spec", "source_of"]


class Source(NamedTuple):
    """A kind of source: the targets that belong to it, and the module that reads them."""

    name: str
    matches: Callable[[str], bool]
    module: str

    def record(self, spec: Spec, request: Request) -> Record:
        """The record, read from a file or traced."""
        module = import_module(self.module)
        if hasattr(module, "read_record"):
            return module.read_record(spec, request)  # type: ignore[no-any-return]
        from cspprof.sources.build import trace_loaded  # imports torch

        with self.open_model(spec, request) as loaded:
            return trace_loaded(loaded, request)

    def open_model(self, spec: Spec, request: Request) -> AbstractContextManager[LoadedModel]:
        """The model, ready to run. Raises SourceError if the source holds only a record or a graph."""
        module = import_module(self.module)
        if not hasattr(module, "open_model"):
            raise SourceError(
                f"{spec.target} ({self.name}) contains no model that can run",
                "Name the model from which it was made, for example: file.py:factory",
            )
        return module.open_model(spec, request)  # type: ignore[no-any-return]


SOURCES: list[Source] = [
    Source("saved profile", lambda t: t.endswith((".profile.json", ".profile.json.gz")), f"{__name__}.saved_profile"),
    Source("Darknet", lambda t: t.endswith(".cfg"), f"{__name__}.darknet"),
    Source("exported program", lambda t: t.endswith(".pt2"), f"{__name__}.exported_program"),
    Source("ONNX", lambda t: t.endswith(".onnx"), f"{__name__}.onnx_graph"),
    Source("timm", lambda t: t.startswith("timm:"), f"{__name__}.timm_models"),
    Source("torchvision", lambda t: t.startswith("torchvision:"), f"{__name__}.torchvision_models"),
    Source("factory", lambda t: ":" in t, f"{__name__}.python_factory"),
    Source("zoo", lambda t: True, f"{__name__}.zoo_models"),
]
"""The first source that matches a target reads it."""


def source_of(spec: Spec) -> Source:
    return next(s for s in SOURCES if s.matches(spec.target))


def record_of_spec(text: str, request: Request | None = None) -> Record:
    """The record of the model that the SPEC `text` names. Raises SourceError, or TraceError from the forward."""
    spec = parse(text)
    return source_of(spec).record(spec, request or Request())


def open_model(text: str, request: Request) -> AbstractContextManager[LoadedModel]:
    """The model that the SPEC `text` names, ready to run inside the context. Raises SourceError."""
    spec = parse(text)
    return source_of(spec).open_model(spec, request)
