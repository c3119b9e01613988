"""One line for each message, as compilers and linters print it, and a last line with the counts."""

from __future__ import annotations

from cspprof.core.printable import printable, without_log_commands
from cspprof.gate.checking import Verdict
from cspprof.gate.formats.registry import verdict_format
from cspprof.gate.messages import SUMMARY, Message, messages, summary_line


@verdict_format("concise", own=r": (error|warning): |" + SUMMARY, shows_notes=True)
def as_concise(verdict: Verdict) -> str:
    lines = [_line(m) for m in messages(verdict)]
    lines += [f"note: {note}" for note in verdict.notes]
    return without_log_commands("\n".join(map(printable, [*lines, summary_line(verdict)])) + "\n")


def _line(message: Message) -> str:
    label = "warning" if message.level == "warn" else "error"
    return f"{message.file}:{message.line}: {label}: {message.title}: {' '.join(message.text.split())}"
