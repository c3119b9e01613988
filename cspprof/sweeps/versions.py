"""The versions of everything on which the rows of a sweep depend, as a text that is part of the key of each row."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from cspprof._version import __version__
from cspprof.sources.cache_keys import installation, is_release
from cspprof.sources.spec import parse


def versions_of(models: Iterable[str]) -> str:
    """The versions of cspprof, Python, torch and the library of each model, and the content of each model's file.

    A package whose code can change under one version has the hash of its code beside it: a checkout or an editable
    installation, and a development version of cspprof.
    """
    packages = {"torch"}
    files: dict[str, str] = {}
    for model in models:
        target = parse(model).target
        packages |= {library for library in ("timm", "torchvision") if target.startswith(f"{library}:")}
        path = Path(target.rpartition(":")[0] if ".py:" in target else target)
        if path.is_file():
            files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    parts = [f"cspprof {__version__}{_code('cspprof')}", f"Python {platform.python_version()}"]
    parts += [f"{name} {_installed(name)}" for name in sorted(packages)]
    return ", ".join([*parts, *(f"{name} {digest}" for name, digest in sorted(files.items()))])


def _installed(package: str) -> str:
    try:
        return version(package) + _code(package)
    except PackageNotFoundError:
        return "not installed"


@cache
def _code(package: str) -> str:
    """` (code 1f0c9a…)` for a package whose code can change under one version, else empty."""
    installed = installation(package)
    if installed is not None and (package != "cspprof" or is_release(installed)):
        return ""
    spec = find_spec(package)
    code = hashlib.sha256()
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent
        for path in sorted(folder.rglob("*.py")):
            code.update(f"{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return f" (code {code.hexdigest()[:12]})"
