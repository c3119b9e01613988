"""GitLab's Code Quality report, which a merge request shows beside its changes."""

from __future__ import annotations

import json

from cspprof.gate.checking import Verdict
from cspprof.gate.formats.registry import verdict_format
from cspprof.gate.messages import messages

SEVERITIES = {"error": "major", "warn": "minor"}


@verdict_format("gitlab", own=r'\A(\[\]|\[\n \{\n  "description": )')
def as_gitlab(verdict: Verdict) -> str:
    issues = [
        {
            "description": m.text,
            "check_name": m.title,
            "fingerprint": m.fingerprint,
            "severity": SEVERITIES[m.level],
            "location": {"path": m.file, "lines": {"begin": m.line}},
        }
        for m in messages(verdict)
    ]
    return json.dumps(issues, indent=1, ensure_ascii=False) + "\n"
