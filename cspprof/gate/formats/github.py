"""GitHub Actions: workflow commands, which annotate the code, and the summary of the job."""

from __future__ import annotations

from cspprof.core.printable import printable, printable_lines
from cspprof.gate.checking import Verdict
from cspprof.gate.formats.registry import verdict_format
from cspprof.gate.messages import SUMMARY, Message, messages, summary_line

MAX_ANNOTATIONS = 10
"""GitHub shows ten annotations of a kind for each step, and drops the others without a message."""
MAX_SUMMARY = 1024 * 1024
"""Bytes. GitHub refuses a larger summary of a step."""
CUT_NOTE = (
    "\n\n*Cut here: the summary of a job holds 1 MiB. All of it: `cspprof check --why --format markdown=check.md`*\n"
)


@verdict_format("github", own=r"^::(error|warning) |" + SUMMARY)
def as_github(verdict: Verdict) -> str:
    all_messages = messages(verdict)
    lines = [_command(m) for m in all_messages[:MAX_ANNOTATIONS]]
    left_out = len(all_messages) - MAX_ANNOTATIONS
    if left_out > 0:
        lines.append(f"{left_out} more have no annotation: GitHub shows {MAX_ANNOTATIONS}. See the summary of the job.")
    return "\n".join([*lines, summary_line(verdict)]) + "\n"


def _command(message: Message) -> str:
    kind = "warning" if message.level == "warn" else "error"
    place = f"file={_property(message.file)},line={message.line},title={_property(f'cspprof: {message.title}')}"
    return f"::{kind} {place}::{_data(message.text)}"


def _data(text: str) -> str:
    return printable_lines(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(printable(text)).replace(":", "%3A").replace(",", "%2C")


def cut_summary(text: str, used: int = 0) -> bytes:
    """`text`, cut after a line and with a note if it is too long for a summary that already has `used` bytes."""
    data = text.encode()
    room = MAX_SUMMARY - 1 - used
    if len(data) <= room:
        return data
    note = CUT_NOTE.encode()
    if room < len(note):
        return b""
    cut = data[: room - len(note)]
    return cut[: cut.rfind(b"\n") + 1] + note
