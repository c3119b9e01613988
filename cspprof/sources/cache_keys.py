"""Keys of the cache: everything on which the record of a SPEC depends, as a text. No torch.

Runs with equal fingerprints give equal records, so the cache may return one in place of another. A fingerprint is made
of file contents, installed packages and environment variables; None means that the record cannot be cached.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from cspprof.core.files import display_path
from cspprof.sources.spec import Spec

Fingerprint = Callable[[Spec], str | None]

EXTERNAL_DATA = b"\x0a\x08location"
"""The key of a tensor in another file, as protobuf encodes it: field 1, 8 bytes. ONNX stores large tensors this way."""


TIMM_VARIABLES = "TIMM_.*|FORK_LAST3"
"""Environment variables that timm 1.0 reads; `TIMM_FUSED_ATTN=0` for example changes the operations of attention."""


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:40]


def not_cacheable(spec: Spec) -> None:
    """A user's Python can depend on anything; a saved profile is as fast to read as a cache entry."""


def of_packages(*names: str, env: str = "") -> Fingerprint:
    """The versions and contents of the packages, and the environment variables whose names match the pattern `env`."""

    def fingerprint(spec: Spec) -> str | None:
        installed = [installation(name) for name in names]
        environment = [f"{k}={v}" for k, v in sorted(os.environ.items()) if re.fullmatch(env, k)]
        return None if None in installed else "\n".join(map(str, [*installed, *environment]))

    return fingerprint


def of_file(*packages: str) -> Fingerprint:
    """The content of the target, its name in records, and the packages that read it. Raises OSError."""
    packages_of = of_packages(*packages)

    def fingerprint(spec: Spec) -> str | None:
        installed, path = packages_of(spec), Path(spec.target)
        if installed is None:
            return None
        data = path.read_bytes()
        if path.suffix == ".onnx" and EXTERNAL_DATA in data:
            return None
        return f"{digest(data)} {display_path(path)}\n{installed}"

    return fingerprint


@cache
def installation(package: str) -> str | None:
    """The version and the content of an installed package; None if files can change without a new installation.

    An ordinary installation has a folder `*.dist-info` beside the package, in which RECORD lists the hash of each file.
    The RECORD of an editable installation does not list the package's files, and a checkout has no RECORD.
    """
    try:
        spec = find_spec(package)
    except ValueError:  # a test put a module without a spec in its place
        return None
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parents[1]
    infos = list(folder.glob(f"{package}-*.dist-info"))
    try:
        record = (infos[0] / "RECORD").read_bytes()
    except (OSError, IndexError):
        return None
    listed = f"{package}/__init__.py,sha256=".encode() in record
    return f"{infos[0].stem} {digest(record)}" if listed and len(infos) == 1 else None


def is_release(installed: str) -> bool:
    """Whether the text from `installation` names a released version: `1.2.0`, but not `1.2.0.dev3` or `1.2.0+local`."""
    return re.fullmatch(r"\w+-\d+(\.\d+)* \w+", installed) is not None


def user_code_has_run() -> bool:
    """Whether this process has run a user's Python, which may have registered rules or models, or replaced anything."""
    ops, zoo = sys.modules.get("cspprof.ops"), sys.modules.get("cspprof.zoo")
    rules = [rule for _, rule in ops.RULES.items()] if ops else []
    factories = [entry.factory for _, entry in zoo.MODELS.items()] if zoo else []
    ours = all(getattr(f, "__module__", "").startswith("cspprof.") for f in (*rules, *factories))
    return not ours or "cspprof.sources.python_factory" in sys.modules
