"""Verdicts as CI systems read them: one file per format. A format takes a `Verdict` and returns text.

Tables (rich, markdown, json, csv …) are not here: a verdict is a `Report` like any other, see `gate.report`. To add a
format, write a function `(Verdict) -> str`, decorate it with `verdict_format`, and import its file below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cspprof.core.registry import Registry
from cspprof.gate.checking import Verdict
from cspprof.gate.report import problems
from cspprof.gate.rules import Finding

VerdictFormat = Callable[[Verdict], str]
FORMATS: Registry[VerdictFormat] = Registry("format")


def verdict_format(name: str) -> Callable[[VerdictFormat], VerdictFormat]:
    """Register a format."""
    return lambda function: FORMATS.add(name, function)


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to tell about a place in the project: a failure, or what could not be measured."""

    level: str
    """`error` or `warn`."""
    title: str
    text: str
    file: str
    """Relative to the top of the repository, else to where we are."""
    line: int
    finding: Finding | None = None


def messages(verdict: Verdict) -> list[Message]:
    """Failures of level error, the worst first; then what could not be measured; then warnings."""
    failed = [_of_failure(verdict, f) for f in verdict.failures]
    config = _relative(verdict.config.path)
    unsure = [
        Message(
            "error", "could not be measured", f"{p.message}. {p.hint}" if p.hint else p.message, config, p.line or 1
        )
        for p in problems(verdict)
    ]
    return [*(m for m in failed if m.level == "error"), *unsure, *(m for m in failed if m.level != "error")]


def _of_failure(verdict: Verdict, finding: Finding) -> Message:
    """At the class of the first layer that it comes from, where that is known, else at the rule."""
    text = finding.message + (f". {finding.hint}" if finding.hint else "")
    cause = finding.causes[0] if finding.causes else None
    if cause is not None and cause.layer != finding.layer:
        text += f". Look at {cause.layer} first"
    if cause is not None and cause.file and cause.line:
        return Message(
            finding.level, finding.rule, text, _relative(verdict.config.folder / cause.file), cause.line, finding
        )
    return Message(finding.level, finding.rule, text, _relative(verdict.config.path), finding.line or 1, finding)


def _relative(path: Path) -> str:
    path = path.resolve()
    here = Path.cwd().resolve()
    top = next((p for p in (here, *here.parents) if (p / ".git").exists()), here)
    return (path.relative_to(top) if path.is_relative_to(top) else Path(path.name)).as_posix()


from cspprof.gate.formats import concise, github, gitlab, history, junit, sarif  # noqa: E402, F401 - register themselves
