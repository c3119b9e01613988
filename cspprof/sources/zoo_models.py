"""Networks of the zoo: `resnext50`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cspprof.core.errors import SourceError, UnknownNameError
from cspprof.sources.build import build_module
from cspprof.sources.spec import LoadedModel, Request, Spec
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
    if name.endswith(".py"):
        return SourceError(f"{name} names no factory", f"Name a class or function in it: {name}:Net")
    if name.endswith(".json"):
        return SourceError(f"{name} is not the name of a saved profile", "Names of saved profiles end in .profile.json")
    try:
        catalog().get(name)
    except UnknownNameError as error:
        hint = error.hint or ""
    also = "The zoo: cspprof models. Other networks: timm:NAME, torchvision:NAME, path/to/file.py:factory, model.cfg, …"
    return SourceError(f"no model named {name!r}", f"{hint}\n{also}" if hint.startswith("Did") else also)
