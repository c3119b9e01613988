"""GitLab's Code Quality report: what a merge request shows beside its changes."""

from __future__ import annotations

import hashlib
import json

from cspprof.gate.checking import Verdict
from cspprof.gate.formats import Message, messages, verdict_format

SEVERITIES = {"error": "major", "warn": "minor"}


@verdict_format("gitlab")
def as_gitlab(verdict: Verdict) -> str:
    issues = [
        {
            "description": m.text,
            "check_name": m.title,
            "fingerprint": fingerprint(m),
            "severity": SEVERITIES[m.level],
            "location": {"path": m.file, "lines": {"begin": m.line}},
        }
        for m in messages(verdict)
    ]
    return json.dumps(issues, indent=1, ensure_ascii=False) + "\n"


def fingerprint(message: Message) -> str:
    """The same for one failure from run to run, whatever its numbers and lines are then."""
    f = message.finding
    identity = (message.title, message.text) if f is None else (f.rule, f.kind, f.model, f.layer, f.metric)
    return hashlib.sha256("\0".join(identity).encode()).hexdigest()[:32]
