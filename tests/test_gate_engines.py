"""Rules that run models in engines: `latency_ms` against the base revision, and `engine_ready`."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import ONE_CONV, Result, git

from cspprof.gate import engine_rules
from cspprof.gate.checking import Verdict, check
from cspprof.gate.config import Rule, load
from cspprof.gate.engine_rules import judge, latency_note, latency_result, readiness_result
from cspprof.gate.formats import FORMATS
from cspprof.gate.reference import Reference
from cspprof.gate.report import verdict_document
from cspprof.gate.rules import Outcome
from cspprof.measure import ab_session
from cspprof.measure import engines as engine_registry
from cspprof.measure.ab_session import ABTiming
from cspprof.measure.machine import Machine
from cspprof.measure.result import EngineRun, MeasuredModel, Measurement, Timing
from cspprof.measure.statistics import Estimate
from cspprof.measure.worker import OUT_OF_MEMORY
from cspprof.measure.worker_process import Checkout
from cspprof.profiles import Profile

Run = Callable[..., Result]
HOLDS, FAILS, UNKNOWN = Outcome.HOLDS, Outcome.FAILS, Outcome.UNKNOWN


def latency_rule(limit: str, **keys: Any) -> Rule:
    rule = {"id": "time", "metric": "latency_ms", "engine": "torch", "max_increase": limit, **keys}
    return Rule.model_validate(rule)


def timing(base: list[list[float]], again: list[list[float]], head: list[list[float]]) -> ABTiming:
    """Samples in seconds: of the base, of the base in another process, of the head."""
    return ABTiming(Timing("torch", 0, rounds=base), Timing("torch", 0, True, again), Timing("torch", 0, rounds=head))


def constant(seconds: float) -> list[list[float]]:
    return [[seconds] * 4] * 5


# -- the decision ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "spread", "max_increase", "outcome"),
    [
        ((1.0, 0.99, 1.01), 0.01, 0.05, HOLDS),
        ((1.0, 1.0, 1.0), 0.0, 0.0, HOLDS),
        ((1.04, 1.03, 1.06), 0.01, 0.05, HOLDS),  # 1.06 is the limit 1.05 with the tolerance 0.01
        ((1.04, 1.03, 1.07), 0.01, 0.05, UNKNOWN),  # the interval contains 1.06
        ((1.08, 1.06, 1.10), 0.01, 0.05, UNKNOWN),  # not wholly above 1.06
        ((1.08, 1.07, 1.10), 0.01, 0.05, FAILS),
        ((2.0, 1.9, 2.1), 0.01, 0.05, FAILS),
        ((1.0, 0.99, 1.01), 0.06, 0.05, UNKNOWN),  # the A/A pair differs by more than what may be allowed
        ((1.0, 1.0, 1.0), 0.001, 0.0, UNKNOWN),
        ((2.0, 1.9, 2.1), 0.30, 0.05, FAILS),  # noise of 30 % does not explain twice the time
        ((1.3, 1.2, 1.4), 0.30, 0.05, UNKNOWN),
        ((0.5, 0.45, 0.55), 0.30, 0.05, HOLDS),  # nor half the time
        ((0.9, 0.85, 0.95), 0.30, 0.05, UNKNOWN),
    ],
)
def test_a_ratio_is_judged_with_the_spread_of_the_equal_pair_as_tolerance(
    ratio: tuple[float, float, float], spread: float, max_increase: float, outcome: Outcome
) -> None:
    assert judge(Estimate(*ratio), spread, max_increase) is outcome


def test_a_result_has_the_medians_the_limit_and_the_ratio() -> None:
    slower = latency_result(latency_rule("5%"), "net", timing(constant(0.5), constant(0.5), constant(1.0)), "main")
    assert slower.outcome is FAILS
    assert (slower.value, slower.base, slower.limit) == (1000, 500, 525)
    assert (slower.base_name, slower.unit, slower.least_difference) == ("main", "ms", 0.0)
    assert slower.ratio == Estimate(2.0, 2.0, 2.0)
    assert slower.message == (
        "latency_ms of net (torch) is 1000.000 ms, 2.000 [2.000, 2.000] times the 500.000 ms of main; "
        "max_increase is 5.0 %, and the A/A pair differs by 0.0 %"
    )
    assert latency_note(slower) == ""  # the message of a failure says it
    same = latency_result(latency_rule("0%"), "net", timing(constant(0.5), constant(0.5), constant(0.5)), "main")
    assert (same.outcome, same.message) == (HOLDS, "")
    assert latency_note(same) == (
        "time: net (torch) takes 1.000 [1.000, 1.000] times the time of main; the A/A pair differs by 0.0 %"
    )


def test_the_spread_of_the_equal_pair_is_added_to_the_limit() -> None:
    result = latency_result(latency_rule("50%"), "net", timing(constant(0.5), constant(0.625), constant(0.8)), "main")
    assert (result.outcome, result.least_difference, result.limit) == (HOLDS, 0.25, Fraction(875))
    noisy = latency_result(latency_rule("20%"), "net", timing(constant(0.5), constant(0.625), constant(0.5)), "main")
    assert noisy.outcome is UNKNOWN
    assert noisy.message.startswith("this machine cannot say whether net (torch) became slower: 500.000 ms, 1.000 ")
    assert noisy.message.endswith("max_increase is 20.0 %, and the A/A pair differs by 25.0 %")
    assert "larger max_increase" in noisy.hint


@pytest.mark.parametrize(("side", "where"), [("base", "net of main"), ("again", "net of main"), ("head", "net")])
def test_a_model_that_has_no_time_in_one_version_is_not_judged(side: str, where: str) -> None:
    measured = timing(constant(0.5), constant(0.5), constant(0.5))
    failed: Timing = getattr(measured, side)
    failed.failure, failed.hint = "it ended\nwith a bang", "Look."
    result = latency_result(latency_rule("5%"), "net", measured, "main")
    assert (result.outcome, result.value, result.hint) == (UNKNOWN, None, "Look.")
    assert result.message == f"{where} has no time in torch: it ended; with a bang"


# -- rules that cannot be judged ------------------------------------------------------------------

MODELS = '[models.net]\ntarget = "net.py:Net"\n\n'
TIMED = '[[rules]]\nid = "time"\nmetric = "latency_ms"\nengine = "torch"\nmax_increase = "5%"\n'
READY = '[[rules]]\nid = "ready"\nengine_ready = "onnxruntime"\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a network and no configuration."""
    (tmp_path / "net.py").write_text(ONE_CONV.format(imports="", width=4))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checked(text: str, reference: Reference | None = None) -> Verdict:
    Path("cspprof.toml").write_text(text)
    return check(load(Path("cspprof.toml")), reference=reference)


def only_unknown(verdict: Verdict) -> tuple[str, str]:
    (result,) = verdict.unknown
    assert verdict.exit_code == 2
    assert result.line is not None
    return result.message, result.hint


@pytest.mark.usefixtures("project")
def test_without_a_revision_a_time_has_nothing_to_compare_with_and_other_rules_are_checked() -> None:
    counts = '[[rules]]\nid = "cio"\nmax = 1\n'
    verdict = checked(MODELS + TIMED + counts)
    assert verdict.exit_code == 1
    assert [(r.rule, r.outcome) for r in verdict.results] == [("time", UNKNOWN), ("cio", FAILS)]
    assert only_unknown(checked(MODELS + TIMED)) == (
        "latency_ms is compared with a git revision, and none is named", "Name it: cspprof check --against main",
    )  # fmt: skip
    assert checked(MODELS + TIMED + 'level = "off"\n' + counts).exit_code == 1


@pytest.mark.usefixtures("project")
def test_a_model_that_the_revision_lacks_or_has_with_another_input_is_not_timed() -> None:
    verdict = checked(MODELS + '[[rules]]\nid = "cio"\nmax = "1 M"\n')
    checkout = Checkout(Path.cwd(), [])
    assert (
        only_unknown(checked(MODELS + TIMED, Reference("main", {}, checkout=checkout)))[0] == "main does not have net"
    )
    recorded = Reference("main", verdict.measurements, checkout=checkout)
    larger = MODELS.replace("\n\n", '\ninput = "1x3x9x9"\n\n')
    message, hint = only_unknown(checked(larger + TIMED, recorded))
    assert message == "main has net with input 1x3x8x8:float32, but it is 1x3x9x9:float32 now"
    assert hint == "Compare with a later revision, or with the baseline."


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("rule", [TIMED.replace('"torch"', '"openvino"'), READY.replace("onnxruntime", "openvino")])
def test_an_engine_that_is_not_installed_names_its_extra(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_registry, "find_spec", lambda name: None if name == "openvino" else object())
    assert only_unknown(checked(MODELS + rule)) == (
        "the engine openvino needs openvino", "Install what is missing: pip install \"cspprof[openvino]\"",
    )  # fmt: skip


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("key", "what"),
    [
        ('dtype = "float16"', "in float16"),
        ("train = true", "in training mode"),
        ("deploy = true", "in its deployed form"),
    ],
)
def test_a_model_that_no_engine_runs_as_it_is_described_is_not_run(key: str, what: str) -> None:
    message, hint = only_unknown(checked(MODELS.replace("\n\n", f"\n{key}\n\n") + READY))
    assert message == f"engines run models as they are built, in eval mode and float32, but net is traced {what}"
    assert "without train, deploy and dtype" in hint


# -- an engine in which a model must run -----------------------------------------------------------


def checked_session(record: Profile, **failed: Any) -> Measurement:
    """What `measure --check` finds for one model; `failed` are fields of its timing."""
    session = Measurement(Machine("some CPU", 1, 1 << 30, "Linux", "3.11"), "2026-01-02T03:04:05+00:00", 1, 5, 0.1)
    session.engines = [EngineRun("opencv", {"opencv-python-headless": "5.0", "onnx": "1.20"})]
    session.models = [MeasuredModel("net", "net.py:Net", [], record)]
    session.timings = [Timing("opencv", 0, **failed)]
    return session


def test_a_failure_names_every_operation_that_the_engine_cannot_run(chain: Profile) -> None:
    rule = Rule.model_validate({"id": "ready", "engine_ready": "opencv"})
    assert readiness_result(rule, "net", checked_session(chain)).outcome is HOLDS
    nodes = "error: no layer\nopencv 5.0 fails on node 'a' (Strange)\nopencv 5.0 fails on node 'b' and 1 more (Odd)"
    result = readiness_result(rule, "net", checked_session(chain, failure=nodes, hint="Use another."))
    assert (result.outcome, result.hint) == (FAILS, "Use another.")
    assert result.message == "net does not run in opencv 5.0: " + nodes.replace("\n", "; ")
    assert (result.metric, result.engine, result.value, result.limit) == ("engine_ready", "opencv", None, None)


@pytest.mark.usefixtures("project")
def test_ctrl_c_while_an_engine_runs_ends_the_check(chain: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that was interrupted returns what it has: here nothing, and no verdict follows from it."""
    session = checked_session(chain)
    session.timings, session.interrupted = [], True
    monkeypatch.setattr(engine_rules.Session, "run", lambda self, check_only: session)
    with pytest.raises(KeyboardInterrupt):
        checked(MODELS + READY.replace("onnxruntime", "opencv"))


def test_what_the_machine_lacks_is_no_fault_of_the_model(chain: Profile) -> None:
    rule = Rule.model_validate({"id": "ready", "engine_ready": "opencv"})
    for reason in ("skipped: no GPU", f"{OUT_OF_MEMORY}: 3 GiB"):
        assert readiness_result(rule, "net", checked_session(chain, failure=reason)).outcome is UNKNOWN
    session = checked_session(chain, failure="it vanishes")
    session.models[0].failure = "it vanishes"
    result = readiness_result(rule, "net", session)
    assert (result.outcome, result.message) == (UNKNOWN, "net was not run in opencv: it vanishes")


# -- every format ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("project")
def test_results_of_engines_are_in_every_format(chain: Profile) -> None:
    Path("cspprof.toml").write_text(MODELS + TIMED + READY.replace("onnxruntime", "opencv"))
    config = load(Path("cspprof.toml"))
    time, ready = config.rules
    slow, same, noisy = (
        latency_result(time, "net", timing(constant(0.5), constant(again), constant(head)), "main")
        for again, head in ((0.5, 1.0), (0.5, 0.5), (0.9, 0.5))
    )
    broken = readiness_result(ready, "net", checked_session(chain, failure="no Strange"))
    verdict = Verdict(config, (slow, same, noisy, broken), (), (latency_note(same),), {})
    document = verdict_document(verdict)
    schema = json.loads((resources.files("cspprof") / "schemas" / "check-1.schema.json").read_text())
    jsonschema.validate(document, schema)
    first, _, _, last = document["findings"]
    assert (first["engine"], first["ratio"], first["ratio_low"], first["least_difference"]) == ("torch", 2, 2, 0)
    assert (last["engine"], last["kind"], last["ratio"], last["value"]) == ("opencv", "engine_ready", None, None)
    assert "latency_ms of net (torch) is 1000.000 ms" in FORMATS.get("concise")(verdict)
    assert "note: time: net (torch) takes 1.000" in FORMATS.get("concise")(verdict)
    assert FORMATS.get("github")(verdict).count("::error ") == 3
    assert 'failures="2" errors="1"' in FORMATS.get("junit")(verdict)
    sarif = json.loads(FORMATS.get("sarif")(verdict))["runs"][0]
    assert [rule["shortDescription"]["text"] for rule in sarif["tool"]["driver"]["rules"]] == [
        "max_increase = 5% of latency_ms in torch", "engine_ready = opencv",
    ]  # fmt: skip
    assert [r["ruleId"] for r in sarif["results"]] == ["time", "ready"]
    assert len(json.loads(FORMATS.get("gitlab")(verdict))) == 3


# -- real engines ---------------------------------------------------------------------------------

NETS = """\
from torch import nn

DEPTH = {depth}


class Same(nn.Module):
    example_input_shape = (1, 16, 32, 32)

    def __init__(self, depth=1):
        super().__init__()
        self.stem = nn.Conv2d(16, 16, 1)
        self.convs = nn.Sequential(*[nn.Conv2d(16, 16, 3, padding=1) for _ in range(depth)])

    def forward(self, x):
        return self.convs(self.stem(x))


class Slower(Same):
    def __init__(self):
        super().__init__(DEPTH)


class Vanishes(Same):
    def forward(self, x):
        return super().forward(x) * (0 if DEPTH > 1 else 1)
"""


@pytest.mark.slow
def test_the_base_revision_and_the_head_are_timed_side_by_side(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is wide, and the slower head needs far more time: the machine of a test is not quiet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ab_session, "default_threads", lambda: 1)  # threads that wait for each other on a busy machine
    git(tmp_path, "init", "--quiet")
    (tmp_path / "nets.py").write_text(NETS.format(depth=1))
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "base")
    (tmp_path / "nets.py").write_text(NETS.format(depth=60))
    (tmp_path / "new.py").write_text(NETS.format(depth=1))
    targets = {"same": "nets.py:Same", "slower": "nets.py:Slower", "vanishes": "nets.py:Vanishes", "new": "new.py:Same"}
    models = "".join(f'[models.{name}]\ntarget = "{target}"\n' for name, target in targets.items())
    (tmp_path / "cspprof.toml").write_text(models + TIMED.replace('"5%"', '"300%"'))

    got = run("check", "--against", "HEAD", "--format", "json")
    document = json.loads(got.out)
    findings = {finding["model"]: finding for finding in document["findings"]}
    assert {name: finding["status"] for name, finding in findings.items()} == {
        "same": "holds", "slower": "fails", "vanishes": "unknown", "new": "unknown",
    }  # fmt: skip
    assert got.code == 1
    assert findings["slower"]["ratio_low"] > 4 + findings["slower"]["least_difference"]
    assert findings["slower"]["value"] > 4 * findings["slower"]["base"] > 0
    assert findings["same"]["ratio_low"] < 4
    assert findings["vanishes"]["message"].startswith("vanishes has no time in torch: the largest output is 0.0e+00")
    assert findings["new"]["message"] == "HEAD cannot be measured: there is no file new.py"
    assert [note for note in document["notes"] if note.startswith("time: same (torch) takes ")]
    assert git(tmp_path, "worktree", "list").count("\n") == 1


@pytest.mark.slow
def test_a_network_that_has_no_onnx_form_is_not_ready_and_its_operations_are_named(run: Run, project: Path) -> None:
    net = "import torch\n" + ONE_CONV.format(imports="", width=4)
    net = net.replace(
        "self.conv(x)", "torch.special.bessel_j0(self.conv(x)).amax(-1) + torch.linalg.svdvals(self.conv(x))"
    )
    (project / "odd.py").write_text(net)
    (project / "cspprof.toml").write_text(MODELS + '[models.odd]\ntarget = "odd.py:Net"\n' + READY)
    got = run("check", "--format", "json")
    assert got.code == 1
    ready, odd = json.loads(got.out)["findings"]
    assert (ready["status"], odd["status"]) == ("holds", "fails")
    assert odd["message"].startswith("odd does not run in onnxruntime ")
    assert "aten._linalg_svd.default, prims.bessel_j0.default" in odd["message"]
