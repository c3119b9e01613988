"""JUnit XML, which every CI system reads: each rule on each model is a test case.

XML cannot represent control characters. `printable` shows them as escape sequences.
"""

from __future__ import annotations

from xml.etree import ElementTree

from cspprof.core.printable import printable, printable_lines
from cspprof.gate.causes import WHY_LAYERS
from cspprof.gate.checking import Verdict
from cspprof.gate.formats.registry import verdict_format
from cspprof.gate.rules import Outcome, RuleResult


@verdict_format("junit", own=r'<testsuites name="cspprof"')
def as_junit(verdict: Verdict) -> str:
    counts = {
        "tests": str(len(verdict.results) + len(verdict.problems)),
        "failures": str(sum(r.level == "error" for r in verdict.failures)),
        "errors": str(len(verdict.unknown) + len(verdict.problems)),
    }
    suites = ElementTree.Element("testsuites", {"name": "cspprof", **counts})
    suite = ElementTree.SubElement(suites, "testsuite", {"name": printable(verdict.config.name), **counts})
    for result in verdict.results:
        what = f"{result.metric} of {result.layer}" if result.layer else result.metric
        _add_outcome(_test_case(suite, result.model, f"{result.rule} ({what})"), result)
    for problem in verdict.problems:
        case = _test_case(suite, "cspprof", problem.where)
        error = ElementTree.SubElement(case, "error", message=printable(problem.message), type="problem")
        error.text = printable_lines(problem.hint)
    ElementTree.indent(suites, " ")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def _test_case(suite: ElementTree.Element, classname: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=printable(classname), name=printable(name))


def _add_outcome(case: ElementTree.Element, result: RuleResult) -> None:
    if result.outcome is Outcome.HOLDS:
        return
    message, hint = printable(result.message), printable_lines(result.hint)
    if result.outcome is Outcome.UNKNOWN:
        ElementTree.SubElement(case, "error", message=message, type="unknown").text = hint
    elif result.level == "error":
        causes = [printable(f"{c.layer}: {c.operation}") for c in result.causes[:WHY_LAYERS]]
        failure = ElementTree.SubElement(case, "failure", message=message, type=result.kind)
        failure.text = "\n".join([hint, *causes]).strip()
    else:
        ElementTree.SubElement(case, "system-out").text = f"warning: {message}"
