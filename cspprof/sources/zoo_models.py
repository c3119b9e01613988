"""Networks of the zoo: `resnext50`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cspprof.core.errors import SourceError
from cspprof.sources.build import build_module
from cspprof.sources.spec import LoadedModel, Request, Spec
from cspprof.sources.spec_mistakes import KINDS, library_with, mistaken_target
from cspprof.zoo import catalog


@contextmanager
def open_model(spec: Spec, request: Request) -> Iterator[LoadedModel]:
    """The network, at its native input."""
    models = catalog()
    if spec.target not in models:
        raise _unknown_name(spec.target)
    entry = models.get(spec.target)
    module, notes = build_module(spec, entry.factory, request.device)
    status = entry.status_with(spec.options)
    shown_status = "" if status == "published" else status
    yield LoadedModel(module, entry.input, spec.portable_text, spec.portable_text, notes, status=shown_status)


def _unknown_name(name: str) -> SourceError:
    if error := mistaken_target(name):
        return error
    if library := library_with(name):
        return SourceError(f"the zoo has no model named {name!r}, and a library has", f"Write: {library}")
    hint = catalog().suggest(name.lower())
    return SourceError(f"no model named {name!r}", f"{hint}\n{KINDS}" if hint.startswith("Did") else KINDS)
