"""SARIF 2.1.0, for code scanning."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from cspprof._version import __version__
from cspprof.gate.checking import Verdict
from cspprof.gate.config import Rule
from cspprof.gate.formats import Message, messages, verdict_format
from cspprof.gate.formats.gitlab import fingerprint

LEVELS = {"error": "error", "warn": "warning", "off": "none"}


@verdict_format("sarif")
def as_sarif(verdict: Verdict) -> str:
    index = {rule.id: i for i, rule in enumerate(verdict.config.rules)}
    told = messages(verdict)
    unsure = [m for m in told if m.finding is None]
    invocation: dict[str, Any] = {"executionSuccessful": not unsure, "exitCode": verdict.exit_code}
    if unsure:
        invocation["toolExecutionNotifications"] = [
            {"level": "error", "message": {"text": m.text}, "locations": [_location(m)]} for m in unsure
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
        "results": [_result(m, index) for m in told if m.finding is not None],
    }
    log = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=1, ensure_ascii=False) + "\n"


def _rule(rule: Rule) -> dict[str, Any]:
    what = f"{rule.kind} = {rule.limit.text} of {rule.metric}" + (f", against {rule.base}" if rule.base else "")
    return {
        "id": rule.id,
        "shortDescription": {"text": what},
        "defaultConfiguration": {"level": LEVELS[rule.level]},
        "properties": {"model": rule.model, "layer": rule.layer or ""},
    }


def _result(message: Message, index: dict[str, int]) -> dict[str, Any]:
    f = message.finding
    assert f is not None
    return {
        "ruleId": f.rule,
        "ruleIndex": index[f.rule],
        "level": LEVELS[message.level],
        "message": {"text": message.text},
        "locations": [_location(message) | {"logicalLocations": [{"fullyQualifiedName": f.place, "kind": "module"}]}],
        "partialFingerprints": {"cspprof/v1": fingerprint(message)},
    }


def _location(message: Message) -> dict[str, Any]:
    place = {"uri": quote(message.file), "uriBaseId": "%SRCROOT%"}
    return {"physicalLocation": {"artifactLocation": place, "region": {"startLine": message.line}}}
