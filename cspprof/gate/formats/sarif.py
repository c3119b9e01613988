"""SARIF 2.1.0, for code scanning."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from cspprof._version import __version__
from cspprof.core.printable import printable
from cspprof.gate.checking import Verdict
from cspprof.gate.config import Rule
from cspprof.gate.formats.registry import verdict_format
from cspprof.gate.messages import Message, messages
from cspprof.gate.rules import RuleResult

LEVELS = {"error": "error", "warn": "warning", "off": "none"}


@verdict_format("sarif", own=r'"name": "cspprof"')
def as_sarif(verdict: Verdict) -> str:
    rule_index = {rule.id: i for i, rule in enumerate(verdict.config.rules)}
    all_messages = messages(verdict)
    problems = [m for m in all_messages if m.result is None]
    invocation: dict[str, Any] = {"executionSuccessful": not problems, "exitCode": verdict.exit_code}
    if problems:
        invocation["toolExecutionNotifications"] = [
            {"level": "error", "message": _text(m.text), "locations": [_location(m)]} for m in problems
        ]
    run = {
        "tool": {
            "driver": {
                "name": "cspprof",
                "semanticVersion": __version__,
                "rules": [_rule(rule) for rule in verdict.config.rules],
            }
        },
        "invocations": [invocation],
        "results": [_result(m, m.result, rule_index) for m in all_messages if m.result is not None],
    }
    log = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1, ensure_ascii=False) + "\n"


def _text(text: str) -> dict[str, str]:
    """A message. `[words](address)` would be a link in it, unless a backslash is before the bracket."""
    return {"text": text.replace("\\", "\\\\").replace("[", "\\[") if "](" in text else text}


def _rule(rule: Rule) -> dict[str, Any]:
    base = f", compared with {rule.base}" if rule.base else ""
    return {
        "id": printable(rule.id),
        "shortDescription": _text(printable(f"{rule.text}{base}")),
        "defaultConfiguration": {"level": LEVELS[rule.level]},
        "properties": {"model": printable(rule.model), "layer": printable(rule.layer or "")},
    }


def _result(message: Message, result: RuleResult, rule_index: dict[str, int]) -> dict[str, Any]:
    logical = {"logicalLocations": [{"fullyQualifiedName": printable(result.place), "kind": "module"}]}
    return {
        "ruleId": message.title,
        "ruleIndex": rule_index[result.rule],
        "level": LEVELS[message.level],
        "message": _text(message.text),
        "locations": [_location(message) | logical],
        "partialFingerprints": {"cspprof/v1": message.fingerprint},
    }


def _location(message: Message) -> dict[str, Any]:
    file = {"uri": quote(message.file), "uriBaseId": "%SRCROOT%"}
    return {"physicalLocation": {"artifactLocation": file, "region": {"startLine": message.line}}}
