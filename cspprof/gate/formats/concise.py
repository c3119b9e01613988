"""One line for each thing that is wrong, as compilers and linters print it, and one that counts."""

from __future__ import annotations

from cspprof.gate.checking import Verdict
from cspprof.gate.formats import messages, verdict_format
from cspprof.gate.rules import Outcome


@verdict_format("concise")
def as_concise(verdict: Verdict) -> str:
    lines = [f"{m.file}:{m.line}: {_label(m.level)}: {m.title}: {' '.join(m.text.split())}" for m in messages(verdict)]
    lines += [f"note: {note}" for note in verdict.notes]
    return "\n".join([*lines, counted(verdict)]) + "\n"


def _label(level: str) -> str:
    return "warning" if level == "warn" else "error"


def counted(verdict: Verdict) -> str:
    """`1 failed, 2 hold`, without what there is none of."""
    failed = verdict.failures
    counts = {
        "failed": sum(f.level == "error" for f in failed),
        "warned": sum(f.level == "warn" for f in failed),
        "could not be measured": len(verdict.unknown) + len(verdict.problems),
        "hold": sum(f.outcome is Outcome.HOLDS for f in verdict.findings),
    }
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n) or "nothing was checked"
