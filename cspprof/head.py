"""The first line of a saved profile: its totals, so that who asks for totals reads nothing else.

Totals are no facts. They are worked out anew, from the facts that follow, unless the line's seal says that there is
nothing to be gained by it: the code that worked them out is the code that runs now, and what follows are still the
bytes that it worked on. Whatever else is the case, an old file, another release, a line or a byte that somebody
changed, a number that somebody replaced, the line is as if it were not there.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import cspprof
from cspprof.metrics import METRICS, OURS, Amount, Peak, Ratio, Sum
from cspprof.record import Profile, TensorSpec
from cspprof.structure import structure

LONGEST = 2**16
"""Bytes of a line that is read; a longer one is not looked for."""

TICK = 0.02
"""Seconds by which the clock of a file system may be behind."""

_SEAL = b',"seal":"'
_AMOUNTS: Mapping[str, type[Amount]] = {kind.__name__: kind for kind in (Sum, Peak, Ratio)}


class Head(NamedTuple):
    """What is known of a profile without looking at an operation."""

    model: str
    inputs: tuple[TensorSpec, ...]
    tool: Mapping[str, str]
    uncounted: Mapping[str, int]
    totals: Mapping[str, Amount]
    """Of every number that comes with cspprof."""
    structure: str


def head_of(profile: Profile) -> Head | None:
    """None where nobody could believe it later, or some number cannot be worked out."""
    if not _as_they_came():
        return None
    try:
        totals = {name: number.total(profile) for name, number in OURS.items()}
        found = structure(profile)
    except Exception:  # of a record made by hand, which is saved all the same
        return None
    return Head(profile.model, profile.inputs, dict(profile.tool), profile.uncounted, totals, found)


def sealed(head: Head, rest: bytes) -> bytes:
    """The line that vouches for `rest`, the bytes that follow it in the file; empty where nothing can."""
    key = fingerprint()
    if key is None:
        return b""
    document = head._asdict() | {
        "inputs": [[t.shape, t.dtype] for t in head.inputs],
        "totals": {name: [type(a).__name__, *_numbers(a)] for name, a in head.totals.items()},
    }
    text = json.dumps({"head": document}, separators=(",", ":"), ensure_ascii=False).removesuffix("}").encode()
    return text + _SEAL + _seal(key, text, rest) + b'",\n'


def believed(data: bytes) -> Head | None:
    """The head of a file with this content, where it is sealed by the code that runs now. Of what follows, compressed
    or not, the bytes are looked at as they lie there."""
    key = fingerprint()
    line, rest = _split(data)
    text, found, seal = line.rpartition(_SEAL)
    if not found or key is None or seal != _seal(key, text, rest) + b'",\n' or not _as_they_came():
        return None
    document = json.loads(text + b"}")["head"]
    return Head(**document | {
        "inputs": tuple(TensorSpec(tuple(shape), dtype) for shape, dtype in document["inputs"]),
        "totals": {name: _AMOUNTS[kind](*numbers) for name, (kind, *numbers) in document["totals"].items()},
    })  # fmt: skip


def _split(data: bytes) -> tuple[bytes, bytes]:
    """The first line and what follows it; compressed, each is a member of the file. No line where there is no such."""
    if data[:2] != b"\x1f\x8b":
        end = data.find(b"\n", 0, LONGEST) + 1
        return data[:end], data[end:]
    member = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        line = member.decompress(data, LONGEST)
    except zlib.error:
        return b"", data
    return (line, member.unused_data) if member.eof else (b"", data)


def _seal(key: bytes, text: bytes, rest: bytes) -> bytes:
    digest = blake2b(text + b"\n", digest_size=16, key=key)
    digest.update(rest)
    return digest.hexdigest().encode()


def _numbers(amount: Amount) -> tuple[int, int] | tuple[int]:
    if isinstance(amount, Sum):
        return amount.n, amount.scale
    return (amount.n,) if isinstance(amount, Peak) else (amount.over, amount.under)


def _as_they_came() -> bool:
    """Whether each number that comes with cspprof is still registered. Some look others up by name, so that one which
    somebody replaced may change them too."""
    return all(name in METRICS and METRICS.get(name) is number for name, number in OURS.items())


@cache
def fingerprint() -> bytes | None:
    """Of the code that numbers depend on, as this process runs it; None where its source cannot be read, or was changed
    since it was loaded."""
    return fingerprint_of(Path(__file__).parent, cspprof.LOADED)


def fingerprint_of(package: Path, loaded: float) -> bytes | None:
    digest = blake2b(digest_size=32)
    files = sorted((*package.glob("*.py"), *package.glob("metrics/*.py")))
    try:
        for file in files:
            state, source = file.stat(), file.read_bytes()
            if max(state.st_mtime, state.st_ctime) > loaded - TICK:
                return None
            digest.update(f"{file.relative_to(package).as_posix()} {len(source)}\n".encode() + source)
    except OSError:
        return None
    return digest.digest() if files else None
