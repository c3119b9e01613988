"""Networks of the zoo, by name."""

from __future__ import annotations

from cspprof.errors import SourceError, UnknownNameError
from cspprof.record import Profile
from cspprof.sources import Request, Spec
from cspprof.sources.build import traced
from cspprof.zoo import catalog


def load(spec: Spec, request: Request) -> Profile:
    """Build the network and trace it at its native input, or at the one asked for."""
    models = catalog()
    if spec.target not in models:
        raise _unknown(spec.target)
    entry = models.get(spec.target)
    return traced(spec, request, entry.factory, entry.input, name=spec.text)


def _unknown(name: str) -> SourceError:
    if name.endswith(".py"):
        return SourceError(f"{name} does not say which factory", f"Name a class or function in it: {name}:Net")
    if name.endswith(".json"):
        return SourceError(f"{name} is not called like a saved profile", "Those end in .profile.json")
    try:
        catalog().get(name)
    except UnknownNameError as error:
        hint = error.hint or ""
    also = "The zoo: cspprof models. Other networks: timm:NAME, torchvision:NAME, path/to/file.py:factory"
    return SourceError(f"no model named {name!r}", f"{hint}\n{also}" if hint.startswith("Did") else also)
