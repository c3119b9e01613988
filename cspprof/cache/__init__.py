"""Profiles remembered between runs of the command line: the same question on unchanged sources imports no torch.

A stale answer would be worse than none. What was asked, and by which interpreter where, is the *key*; everything that
the answer was made from is *evidence*: each file that was opened or imported, each folder that was listed, each
environment variable that was read while the model was loaded and traced, each path that was asked about (`witness`).
The answer is given again only while all evidence is as it was (`evidence`); `store` keeps it in the user's cache
folder.

Not seen: the clock, and numbers drawn at random. A model whose shape depends on these has no one answer.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Callable
from contextvars import ContextVar
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

from cspprof._version import __version__
from cspprof.cache import store
from cspprof.cache.evidence import Evidence, Look
from cspprof.cache.witness import WITNESS
from cspprof.errors import ProfileError
from cspprof.glance import Glance, glance_at
from cspprof.metrics import CONVENTIONS, METRICS
from cspprof.record import SCHEMA, Profile
from cspprof.saving import from_bytes, to_bytes

if TYPE_CHECKING:
    from cspprof.sources import Request

T = TypeVar("T")
U = TypeVar("U")

ENABLED: ContextVar[bool] = ContextVar("ENABLED", default=True)
"""Off with `--no-cache`."""

SPEAKS_FOR_ITSELF = (".profile.json", ".profile.json.gz")
"""Targets that are read as fast as the cache is."""


_LOOK = Look()
"""This command's."""


def remembered(text: str, request: Request, make: Callable[[], Profile]) -> Profile:
    """The profile of the SPEC `text` as `request` asks for it: remembered where nothing that it was made from has
    changed since, else made, and kept where that can be vouched for.

    Not kept: what was traced on a device other than meta and CPU, what ran programs or went to the network, what
    registered numbers of its own (they have to be there for the tables), and what was changed while it was read.
    """
    if not _of_use(text, request):
        return make()
    return _answer((text, repr(request)), make, lambda p: to_bytes(p, compressed=True), _profile)


def remembered_glance(text: str, request: Request, make: Callable[[], Profile]) -> Profile | Glance:
    """The same, and of what is remembered a glance, where that can be had."""
    if not _of_use(text, request):
        return make()
    return _answer((text, repr(request)), make, lambda p: to_bytes(p, compressed=True), _glance)


def recalled(text: str, request: Request) -> Profile | None:
    """The profile where it is remembered, at once."""
    asked = _of_use(text, request) and ENABLED.get() and WITNESS.reliable()
    return _recall(_key(text, repr(request)), _profile) if asked else None


def remembered_listing(question: str, make: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Records about cspprof's own networks, which JSON can hold, remembered as profiles are."""
    return _answer((question, "listing"), make, lambda x: gzip.compress(json.dumps(x).encode(), mtime=0), _records)


def _of_use(text: str, request: Request) -> bool:
    return not text.endswith(SPEAKS_FOR_ITSELF) and request.device in (None, "meta", "cpu")


def _profile(data: bytes) -> Profile:
    return from_bytes(data, "what was kept")


def _glance(data: bytes) -> Profile | Glance:
    return glance_at(data, "what was kept") or _profile(data)


def _records(data: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(gzip.decompress(data))
    return found


def _answer(
    question: tuple[str, ...], make: Callable[[], T], to_keep: Callable[[T], bytes], from_kept: Callable[[bytes], U]
) -> T | U:
    if not ENABLED.get() or not WITNESS.reliable():
        return make()
    key = _key(*question)
    found = _recall(key, from_kept)
    if found is not None:
        return found
    numbers = METRICS.version, CONVENTIONS.version
    with WITNESS.watching():
        made = make()
    if (METRICS.version, CONVENTIONS.version) == numbers:
        evidence = WITNESS.evidence()
        if evidence is not None:
            store.keep(key, evidence.to_dict(), to_keep(made))
    return made


def _recall(key: str, from_kept: Callable[[bytes], U]) -> U | None:
    entry = store.entry(key)
    evidence = None if entry is None else Evidence.from_dict(entry["evidence"])
    if entry is None or evidence is None or not _LOOK.confirms(evidence):
        return None
    data = store.content(entry["profile"])
    if data is None:
        return None
    try:
        found = from_kept(data)
    except (ProfileError, ValueError, OSError):
        return None
    store.touch(key, entry["profile"])
    return found


def _key(*question: str) -> str:
    """What is asked, of which cspprof, under which interpreter, on which machine and from where."""
    parts = (
        *question, __version__, SCHEMA, sys.version, sys.executable, repr(sys.flags), repr(sys.path),
        str(sys.dont_write_bytecode), _machine(), os.getcwd(),
    )  # fmt: skip
    return blake2b("\0".join(parts).encode(errors="surrogateescape"), digest_size=20).hexdigest()


def _machine() -> str:
    return os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
