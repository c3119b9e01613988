"""Verdicts in the formats of CI systems: each output fits its schema, also with names that need escaping."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import xmlschema
from conftest import CHECKOUT, Result

from cspprof.gate.causes import Cause
from cspprof.gate.checking import Verdict
from cspprof.gate.config import Config, Model, Problem, Rule
from cspprof.gate.formats import FORMATS
from cspprof.gate.formats.github import MAX_SUMMARY, cut_summary
from cspprof.gate.measurement import Measurement
from cspprof.gate.report import verdict_document, verdict_report
from cspprof.gate.rules import Outcome, RuleResult
from cspprof.metrics import Peak, Ratio, Sum
from cspprof.render import render

SCHEMAS = CHECKOUT / "tests" / "schemas"
NASTY = 'a<b> & "q", 100%:\n\x00é | `x`'


def result(rule: str, value: int, limit: int = 100, level: Any = "error", **rest: Any) -> RuleResult:
    outcome = Outcome.FAILS if value > limit else Outcome.HOLDS
    result = RuleResult(rule, "max", level, "net", "cio_cspnet", outcome, "", Fraction(value), Fraction(limit), line=9)
    return replace(result, message=f"cio_cspnet of net is {value}" if outcome is Outcome.FAILS else "", **rest)


def verdict(*results: RuleResult, problems: tuple[Problem, ...] = ()) -> Verdict:
    rules = tuple(Rule.model_validate({"id": name, "max": 100}) for name in dict.fromkeys(r.rule for r in results))
    config = Config(Path("cspprof.toml").resolve(), {"net": Model(target="net.py:Net")}, rules, Path("b.json"))
    totals = {
        "macs": Sum(7),
        "bflops": Sum(14, 10**9),
        "moc": Ratio(7, 2),
        "balance": Ratio(0, 0),
        "peak_bytes": Peak(3),
    }
    net = Measurement("net", "cspnet", ("1x3x8x8:float32",), "s", totals, {})
    return Verdict(config, results, problems, ("net has another structure",), {"net": net})


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verdict:
    """A failure at a known class, a worse one, a warning, an unknown outcome, a rule that holds, an invalid entry."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    cause = Cause("stem.conv", Fraction(110), Fraction(90), "conv2d", "conv2d", "Stem", "pkg/net.py", 14)
    return verdict(
        result("slightly", 120, causes=(cause,)),
        result("worst", 900),
        result("warned", 5000, level="warn"),
        replace(result("unsure", 1), outcome=Outcome.UNKNOWN, message="nothing was recorded", hint="Record it"),
        result("holds", 100),
        problems=(Problem("cspprof.toml:3", "no metric named 'coi'", "Did you mean: cio?", 3),),
    )


@pytest.fixture
def nasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verdict:
    monkeypatch.chdir(tmp_path)
    bad = result(NASTY, 120, model=NASTY, layer=NASTY)
    return verdict(replace(bad, message=NASTY, hint=NASTY), problems=(Problem(NASTY, NASTY, NASTY, None),))


@pytest.fixture(params=["mixed", "nasty", "empty"])
def any_verdict(request: pytest.FixtureRequest) -> Verdict:
    if request.param == "empty":
        return verdict()
    found: Verdict = request.getfixturevalue(request.param)
    return found


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / name).read_text())


# -- schemas --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("sarif", "sarif-2.1.0.json"),
        ("gitlab", "gitlab-code-quality.json"),
        ("bencher", "bencher.json"),
        ("github-action-benchmark", "github-action-benchmark.json"),
    ],
)
def test_json_formats_fit_the_schema_of_their_ci_system(any_verdict: Verdict, kind: str, file: str) -> None:
    jsonschema.validate(json.loads(FORMATS.get(kind)(any_verdict)), schema(file))


def test_junit_fits_its_xml_schema(any_verdict: Verdict) -> None:
    text = FORMATS.get("junit")(any_verdict)
    xmlschema.XMLSchema(str(SCHEMAS / "junit-10.xsd")).validate(io.BytesIO(text.encode()))


def test_check_document_fits_its_published_schema(any_verdict: Verdict) -> None:
    published = json.loads((resources.files("cspprof") / "schemas" / "check-1.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(published)
    jsonschema.validate(json.loads(render("json", verdict_report(any_verdict, why=True))), published)
    assert verdict_document(any_verdict)["exit_code"] == any_verdict.exit_code


@pytest.mark.parametrize("kind", ["rich", "markdown", "csv", "latex"])
def test_report_formats_render_any_verdict(any_verdict: Verdict, kind: str) -> None:
    assert render(kind, verdict_report(any_verdict, why=True)).decode().endswith("\n")


# -- content --------------------------------------------------------------------------------------


def test_concise_has_one_line_per_message_worst_first(mixed: Verdict) -> None:
    assert FORMATS.get("concise")(mixed) == (
        "cspprof.toml:9: error: worst: cio_cspnet of net is 900\n"
        "pkg/net.py:14: error: slightly: cio_cspnet of net is 120. First cause: stem.conv\n"
        "cspprof.toml:3: error: could not be measured: no metric named 'coi'. Did you mean: cio?\n"
        "cspprof.toml:9: error: could not be measured: rule 'unsure' on net: nothing was recorded. Record it\n"
        "cspprof.toml:9: warning: warned: cio_cspnet of net is 5000\n"
        "note: net has another structure\n"
        "2 failed, 1 warned, 2 could not be measured, 1 hold\n"
    )


def test_github_annotations(mixed: Verdict) -> None:
    lines = FORMATS.get("github")(mixed).splitlines()
    assert lines[:2] == [
        "::error file=cspprof.toml,line=9,title=cspprof%3A worst::cio_cspnet of net is 900",
        "::error file=pkg/net.py,line=14,title=cspprof%3A slightly::cio_cspnet of net is 120. First cause: stem.conv",
    ]
    assert lines[4].startswith("::warning file=cspprof.toml,line=9,title=cspprof%3A warned::")


def test_github_annotations_are_escaped(nasty: Verdict) -> None:
    lines = FORMATS.get("github")(nasty).split("\n")
    assert lines[0] == (
        '::error file=cspprof.toml,line=9,title=cspprof%3A a<b> & "q"%2C 100%25%3A\\n\\x00é | `x`'
        '::a<b> & "q", 100%25:%0A\\x00é | `x`. a<b> & "q", 100%25:%0A\\x00é | `x`'
    )
    assert all(re.match(r"::(error|warning) file=[^:,]+,line=\d+,title=[^:,]+::[^\r]+$", line) for line in lines[:2])


def test_github_annotates_the_ten_worst_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    many = [result(f"r{n}", 100 + n, level="warn" if n == 99 else "error") for n in (*range(1, 15), 99)]
    lines = FORMATS.get("github")(verdict(*many)).splitlines()
    commands = [line for line in lines if line.startswith("::")]
    assert [line.rpartition(" ")[2] for line in commands] == [str(100 + n) for n in range(14, 4, -1)]
    assert lines[10] == "5 more have no annotation: GitHub shows 10. See the summary of the job."


def test_gitlab_issues_keep_their_fingerprint_when_values_change(mixed: Verdict) -> None:
    issues = json.loads(FORMATS.get("gitlab")(mixed))
    assert [(i["check_name"], i["severity"], i["location"]) for i in issues[:2]] == [
        ("worst", "major", {"path": "cspprof.toml", "lines": {"begin": 9}}),
        ("slightly", "major", {"path": "pkg/net.py", "lines": {"begin": 14}}),
    ]
    assert issues[-1]["severity"] == "minor"
    assert len({i["fingerprint"] for i in issues}) == len(issues)
    worse = replace(mixed, results=tuple(replace(r, value=r.value and r.value + 1, line=70) for r in mixed.results))
    again = json.loads(FORMATS.get("gitlab")(worse))
    assert {i["fingerprint"] for i in again if i["check_name"] == "worst"} == {issues[0]["fingerprint"]}


def test_junit_counts_failures_and_errors(mixed: Verdict) -> None:
    suites = ElementTree.fromstring(FORMATS.get("junit")(mixed))
    suite = suites[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("6", "2", "2")
    children = {case.get("name"): [child.tag for child in case] for case in suite}
    assert children == {
        "slightly (cio_cspnet)": ["failure"], "worst (cio_cspnet)": ["failure"], "warned (cio_cspnet)": ["system-out"],
        "unsure (cio_cspnet)": ["error"], "holds (cio_cspnet)": [], "cspprof.toml:3": ["error"],
    }  # fmt: skip
    assert suite[0][0].text == "stem.conv: conv2d"


def test_junit_shows_characters_that_xml_cannot_represent_as_escape_sequences(nasty: Verdict) -> None:
    case = ElementTree.fromstring(FORMATS.get("junit")(nasty))[0][0]
    assert case.get("classname") == NASTY.replace("\n", r"\n").replace("\x00", r"\x00")
    assert case[0].get("type") == "max"


def test_sarif_results_point_at_classes_and_problems_are_notifications(mixed: Verdict) -> None:
    run = json.loads(FORMATS.get("sarif")(mixed))["runs"][0]
    assert [r["id"] for r in run["tool"]["driver"]["rules"]] == ["slightly", "worst", "warned", "unsure", "holds"]
    assert [(r["ruleId"], r["ruleIndex"], r["level"]) for r in run["results"]] == [
        ("worst", 1, "error"), ("slightly", 0, "error"), ("warned", 2, "warning"),
    ]  # fmt: skip
    place = run["results"][1]["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("pkg/net.py", 14)
    assert run["invocations"][0]["executionSuccessful"] is False
    assert len(run["invocations"][0]["toolExecutionNotifications"]) == 2


def test_history_formats_have_exact_values_and_leave_out_missing_ones(mixed: Verdict) -> None:
    assert json.loads(FORMATS.get("bencher")(mixed)) == {
        "net": {"macs": {"value": 7}, "bflops": {"value": 1.4e-8}, "moc": {"value": 3.5}, "peak_bytes": {"value": 3}}
    }
    entries = json.loads(FORMATS.get("github-action-benchmark")(mixed))
    assert entries == [  # without MoC: a higher one is better, and the tool expects values where smaller is better
        {"name": "net macs", "unit": "MACs", "value": 7},
        {"name": "net bflops", "unit": "BFLOPs", "value": 1.4e-8},
        {"name": "net peak_bytes", "unit": "bytes", "value": 3},
    ]


# -- the summary of a GitHub job ------------------------------------------------------------------


def test_job_summary_is_cut_below_the_limit_of_github_with_a_note() -> None:
    assert cut_summary("short\n") == b"short\n"
    line = "| é | 1 |\n"
    cut = cut_summary(line * 200_000)
    assert MAX_SUMMARY - 200 < len(cut) < MAX_SUMMARY
    text = cut.decode()
    assert "*Cut here: the summary of a job holds 1 MiB." in text
    assert set(text.partition("\n\n*")[0].splitlines()) == {line.strip()}
    beside = cut_summary(line * 200_000, used=MAX_SUMMARY // 2)
    assert MAX_SUMMARY // 2 - 200 < len(beside) < MAX_SUMMARY // 2
    assert cut_summary(line * 200_000, used=MAX_SUMMARY - 10) == b""


# -- on the command line --------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    (tmp_path / "cspprof.toml").write_text(
        '[models.net]\ntarget = "resnet10"\ninput = "1x3x64x64"\n\n[[rules]]\nid = "r"\nmax = 1\n'
    )
    return tmp_path


def test_check_writes_several_formats_and_appends_the_job_summary(
    run: Callable[..., Result], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = project / "summary.md"
    summary.write_text("an earlier step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    arguments = [f"--format={kind}={kind}.out" for kind in ("sarif", "junit", "gitlab", "json", "markdown", "bencher")]
    got = run("check", "--format", "github", *arguments)
    assert got.code == 1
    assert got.out.startswith("::error file=cspprof.toml,line=6,title=cspprof%3A r::cio_cspnet of net is ")
    jsonschema.validate(json.loads((project / "sarif.out").read_text()), schema("sarif-2.1.0.json"))
    assert ElementTree.parse(project / "junit.out").getroot().get("failures") == "1"
    assert len(json.loads((project / "gitlab.out").read_text())) == 1
    assert json.loads((project / "json.out").read_text())["exit_code"] == 1
    assert (project / "markdown.out").read_text().startswith("| rule | model |")
    text = summary.read_text()
    assert text.startswith("an earlier step\n## cspprof\n\n| rule | model |")
    assert "**Why r fails on net: CIO (CSPNet)**" in text
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project / "nowhere" / "summary.md"))
    got = run("check", "--format", "concise")
    assert got.code == 1  # the exit code is still that of the verdict
    assert got.err.startswith("note: cannot write the summary of the job: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "sarff"), "no format named 'sarff'\n  Did you mean: sarif?"),
        (("--format", "xml"), "no format named 'xml'\n  There are: rich, markdown, json, csv"),
        (("--format", "sarif=nowhere/x"), "there is no folder nowhere\n  Make it: mkdir -p nowhere"),
        (
            ("--format", "junit", "--update-baseline"),
            "--update-baseline prints changes, not a verdict\n  Use one of: rich",
        ),
    ],
)
def test_an_invalid_format_is_refused_before_measuring(
    run: Callable[..., Result], project: Path, arguments: tuple[str, ...], message: str
) -> None:
    got = run("check", *arguments)
    assert (got.code, got.out) == (2, "")
    assert message in got.err
    assert not (project / "cspprof-baseline.json").exists()


def test_the_help_of_check_names_every_format(run: Callable[..., Result]) -> None:
    text = run("check", "--help").out
    assert [kind for kind in FORMATS if kind not in text] == []
