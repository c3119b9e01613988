"""Sources of records: one file per kind of source, and one grammar for all SPECs.

    SPEC = target[,option=value]…

A target is a zoo name, `timm:NAME`, `torchvision:NAME`, `path/to/file.py:factory`, `pkg.mod:factory`, a Darknet
`model.cfg`, an exported program `model.pt2`, an ONNX graph `model.onnx` or a saved `x.profile.json`. A file of
measurements `x.measured.json` has a record of each of its models.

To add a kind, write a file and a line in `SOURCES`. The file has a context manager `open_model(spec, request)` that
yields a `LoadedModel`, or, for a format without a module to run, a function `read_record(spec, request)`. Neither torch
nor an optional library is imported before a source needs it. The last field of the line says what identifies the
content of a SPEC, so that its record can be cached: see `cache_keys`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from importlib import import_module
from typing import NamedTuple

from cspprof.core.errors import EXIT_HINT, SourceError
from cspprof.core.inputs import arguments
from cspprof.core.record import SCHEMA, Record
from cspprof.isolation.collection import without_collection
from cspprof.sources.cache_keys import (
    TIMM_VARIABLES,
    Fingerprint,
    digest,
    installation,
    is_release,
    not_cacheable,
    of_file,
    of_packages,
    user_code_has_run,
)  # fmt: skip
from cspprof.sources.spec import LoadedModel, Request, Spec, parse

__all__ = [
    "SOURCES", "LoadedModel", "Request", "Source", "Spec", "cache_key", "open_model", "parse", "record_of_spec",
    "source_of",
]  # fmt: skip


class Source(NamedTuple):
    """A kind of source: the targets that belong to it, and the module that reads them."""

    name: str
    matches: Callable[[str], bool]
    module: str
    fingerprint: Fingerprint = not_cacheable
    takes_other_inputs: bool = True
    """Whether a loaded model can be traced on several inputs. A Darknet network is built for one input."""

    has_layers: bool = True
    """Whether its modules are layers of torch or of the user, which can be changed. Those of an exported program are
    nodes of a graph."""

    @property
    def can_be_changed(self) -> bool:
        """Whether the source has a model whose modules can be replaced, and not only a record or a graph."""
        return self.has_layers and hasattr(import_module(f"{__name__}.{self.module}"), "open_model")

    def record(self, spec: Spec, request: Request) -> Record:
        """The record, read from a file or traced. Raises SourceError also if the code of the model exits the program:
        a check then continues with the other models."""
        module = import_module(f"{__name__}.{self.module}")
        if hasattr(module, "read_record"):
            return module.read_record(spec, request)  # type: ignore[no-any-return]
        try:
            return without_collection(partial(self._traced, spec, request))
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise SourceError(
                f"the code of {spec.text} exited the program: {type(error).__name__}: {error}", EXIT_HINT
            ) from error

    def _traced(self, spec: Spec, request: Request) -> Record:
        from cspprof.sources.build import trace_loaded  # imports torch

        with self.open_model(spec, request) as loaded:
            return trace_loaded(loaded, request, partial(self.open_model, spec))

    def open_model(self, spec: Spec, request: Request) -> AbstractContextManager[LoadedModel]:
        """The model, ready to run. Raises SourceError if the source holds only a record or a graph."""
        module = import_module(f"{__name__}.{self.module}")
        if not hasattr(module, "open_model"):
            raise SourceError(
                f"{spec.target} ({self.name}) contains no model that can run",
                "Name the model from which it was made, for example: file.py:factory",
            )
        return module.open_model(spec, request)  # type: ignore[no-any-return]


def _suffix(*suffixes: str) -> Callable[[str], bool]:
    return lambda target: target.endswith(suffixes)


def _prefix(prefix: str) -> Callable[[str], bool]:
    return lambda target: target.startswith(prefix)


SOURCES: list[Source] = [
    Source("saved profile", _suffix(".profile.json", ".profile.json.gz"), "saved_profile", takes_other_inputs=False),
    Source("measurement", _suffix(".measured.json"), "measured_file", takes_other_inputs=False),
    Source("Darknet", _suffix(".cfg"), "darknet", of_file("torch"), takes_other_inputs=False),
    Source("exported program", _suffix(".pt2"), "exported_program", of_file("torch"), has_layers=False),
    Source("ONNX", _suffix(".onnx"), "onnx_graph", of_file("onnx"), takes_other_inputs=False),
    Source("timm", _prefix("timm:"), "timm_models", of_packages("torch", "timm", "torchvision", env=TIMM_VARIABLES)),
    Source("torchvision", _prefix("torchvision:"), "torchvision_models", of_packages("torch", "torchvision")),
    Source("factory", lambda target: ":" in target, "python_factory"),
    Source("zoo", lambda target: True, "zoo_models", of_packages("torch")),
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


def cache_key(text: str, request: Request) -> str | None:
    """A hash of everything on which the record of this SPEC depends; None if the record cannot be cached.

    It cannot if the source is a user's Python or cspprof itself may change between two runs: in a checkout, an editable
    installation or a development version.
    """
    spec = parse(text)
    ours = installation("cspprof")
    if ours is None or not is_release(ours) or request.device not in (None, "meta", "cpu") or user_code_has_run():
        return None
    try:
        content = source_of(spec).fingerprint(spec)
        requested = _request_text(request)
    except (OSError, TypeError):  # no such file, or the inputs are tensors
        return None
    if content is None:
        return None
    return digest("\n".join([text, requested, content, ours, SCHEMA, sys.version]).encode())


def _request_text(request: Request) -> str:
    """The request as JSON. Raises TypeError if an input is a tensor."""
    inputs = (
        None if request.inputs is None else arguments(request.inputs, lambda leaf: ["tensor", leaf.shape, leaf.dtype])
    )
    return json.dumps([inputs, *request._replace(inputs=None)])
