"""The summary of a GitHub job: Markdown, below the size at which GitHub drops it."""

from __future__ import annotations

LIMIT = 1024 * 1024
"""Bytes; GitHub refuses a step's summary that has more."""
NOTE = "\n\n*Cut here: the summary of a job holds 1 MiB. All of it: `cspprof check --why --format markdown=check.md`*\n"


def fitted(text: str, taken: int = 0) -> bytes:
    """`text` whole where it fits beside the bytes that are taken already, else cut after a line, with a note."""
    data = text.encode()
    room = LIMIT - 1 - taken
    if len(data) <= room:
        return data
    note = NOTE.encode()
    if room < len(note):
        return b""
    cut = data[: room - len(note)]
    return cut[: cut.rfind(b"\n") + 1] + note
