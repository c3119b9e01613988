"""The failures and problems of a verdict as messages, each at a file and line: what the formats of CI systems show."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cspprof.core.printable import printable, printable_lines
from cspprof.gate.checking import Verdict
from cspprof.gate.report import all_problems
from cspprof.gate.rules import Outcome, RuleResult


@dataclass(frozen=True, slots=True)
class Message:
    """A failure, or something that cannot be measured. Names in its title and text stay on their lines."""

    level: str
    """`error` or `warn`."""
    title: str
    text: str
    file: str
    """Relative to the top of the repository or, outside of one, to the current folder."""
    line: int
    result: RuleResult | None = None

    @property
    def fingerprint(self) -> str:
        """An identity that does not change while the same rule fails, whatever the values and lines are."""
        r = self.result
        identity = (self.title, self.text) if r is None else (r.rule, r.kind, r.model, r.layer, r.metric)
        return hashlib.sha256("\0".join(identity).encode()).hexdigest()[:32]


def messages(verdict: Verdict) -> list[Message]:
    """Failures of level error, the worst first; then what cannot be measured; then warnings."""
    failures = [_failure_message(verdict, r) for r in verdict.failures]
    config = _relative(verdict.config.path)
    problems = [
        Message("error", "could not be measured", printable_lines(_sentence(p.message, p.hint)), config, p.line or 1)
        for p in all_problems(verdict)
    ]
    errors = [m for m in failures if m.level == "error"]
    return [*errors, *problems, *(m for m in failures if m.level != "error")]


SUMMARY = r"^(\d+ (failed|warned|could not be measured|hold)\b|nothing was checked$)"
"""A regular expression for the line of `summary_line`."""


def summary_line(verdict: Verdict) -> str:
    """`1 failed, 2 hold`; counts of 0 are left out."""
    counts = {
        "failed": sum(r.level == "error" for r in verdict.failures),
        "warned": sum(r.level == "warn" for r in verdict.failures),
        "could not be measured": len(verdict.unknown) + len(verdict.problems),
        "hold": sum(r.outcome is Outcome.HOLDS for r in verdict.results),
    }
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n) or "nothing was checked"


def _failure_message(verdict: Verdict, result: RuleResult) -> Message:
    """At the class of the first cause if its line is known, else at the rule."""
    text = _sentence(result.message, result.hint)
    file, line = verdict.config.path, result.line or 1
    if result.causes:
        cause = result.causes[0]
        if cause.layer != result.layer:
            text += f". First cause: {cause.layer}"
        if cause.file and cause.line:
            file, line = verdict.config.folder / cause.file, cause.line
    return Message(result.level, printable(result.rule), printable_lines(text), _relative(file), line, result)


def _sentence(message: str, hint: str) -> str:
    return f"{message}. {hint}" if hint else message


def _relative(path: Path) -> str:
    path = path.resolve()
    here = Path.cwd().resolve()
    top = next((p for p in (here, *here.parents) if (p / ".git").exists()), here)
    return (path.relative_to(top) if path.is_relative_to(top) else Path(path.name)).as_posix()
