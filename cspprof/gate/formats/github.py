"""Workflow commands of GitHub Actions: annotations beside the code."""

from __future__ import annotations

from cspprof.gate.checking import Verdict
from cspprof.gate.formats import Message, messages, verdict_format
from cspprof.gate.formats.concise import counted

AT_MOST = 10
"""GitHub shows ten of a kind for a step, and drops the others without a word."""


@verdict_format("github")
def as_github(verdict: Verdict) -> str:
    found = messages(verdict)
    lines = [_command(m) for m in found[:AT_MOST]]
    if len(found) > AT_MOST:
        lines.append(
            f"{len(found) - AT_MOST} more are not annotated: GitHub shows {AT_MOST}. They are in the job summary."
        )
    return "\n".join([*lines, counted(verdict)]) + "\n"


def _command(message: Message) -> str:
    kind = "warning" if message.level == "warn" else "error"
    place = f"file={_property(message.file)},line={message.line},title={_property(f'cspprof: {message.title}')}"
    return f"::{kind} {place}::{_data(message.text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
