"""JUnit XML, which every CI system reads: a rule on a model is a test case."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from cspprof.gate.checking import Verdict
from cspprof.gate.formats import verdict_format
from cspprof.gate.rules import Finding, Outcome

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML has no way to write."""


@verdict_format("junit")
def as_junit(verdict: Verdict) -> str:
    failed = [f for f in verdict.failures if f.level == "error"]
    counts = {
        "tests": str(len(verdict.findings) + len(verdict.problems)),
        "failures": str(len(failed)),
        "errors": str(len(verdict.unknown) + len(verdict.problems)),
    }
    suites = ElementTree.Element("testsuites", {"name": "cspprof", **counts})
    suite = ElementTree.SubElement(suites, "testsuite", {"name": _text(verdict.config.name), **counts})
    for finding in verdict.findings:
        _told(_case(suite, finding.model, _name(finding)), finding)
    for problem in verdict.problems:
        case = _case(suite, "cspprof", problem.where)
        ElementTree.SubElement(case, "error", message=_text(problem.message), type="problem").text = _text(problem.hint)
    ElementTree.indent(suites, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def _case(suite: ElementTree.Element, classname: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=_text(classname), name=_text(name))


def _name(finding: Finding) -> str:
    return (
        f"{finding.rule} ({finding.metric} of {finding.layer})"
        if finding.layer
        else f"{finding.rule} ({finding.metric})"
    )


def _told(case: ElementTree.Element, finding: Finding) -> None:
    if finding.outcome is Outcome.HOLDS:
        return
    message, hint = _text(finding.message), _text(finding.hint)
    if finding.outcome is Outcome.UNKNOWN:
        ElementTree.SubElement(case, "error", message=message, type="unknown").text = hint
    elif finding.level == "error":
        body = "\n".join([hint, *(f"{c.layer}: {c.form}" for c in finding.causes[:10])]).strip()
        ElementTree.SubElement(case, "failure", message=message, type=finding.kind).text = _text(body)
    else:
        ElementTree.SubElement(case, "system-out").text = f"warning: {message}"


def _text(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
