"""The pytest plugin in real runs of pytest: failures and their text, recordings, and what loading it imports."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import CHECKOUT, quick
from preloaded import run_module
from test_gate import CSP, CSP_CIO, PLAIN, PLAIN_CIO

import cspprof

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]

Runs = Callable[..., pytest.RunResult]
OTHER_PLUGINS = [f"-pno:{name}" for name in ("cacheprovider", "hypothesispytest", "anyio", "xdist")]
"""Other plugins are disabled: loading them takes longer than running these tests."""

CONFIG = """\
[models.resnext]
target = "net.py:ResNeXt"

[[rules]]
id = "cio"
max_increase = "0%"
"""
MATCHES = 'def test_cost(cspprof):\n    cspprof.assert_matches_baseline("net.py:ResNeXt")\n'


@pytest.fixture(scope="module", autouse=True)
def _loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Before the forks, import the fixture and what torch imports during a trace."""
    importlib.import_module("cspprof.gate.pytest_fixture")
    importlib.import_module("cspprof.gate.pytest_baseline")
    net = tmp_path_factory.mktemp("before") / "net.py"
    net.write_text(PLAIN)
    cspprof.profile(f"{net}:ResNeXt")


@pytest.fixture
def runs(pytester: pytest.Pytester) -> Runs:
    """Run pytest in a fork of this process, which has imported torch already: it saves seconds for each test."""
    if not hasattr(os, "fork"):
        return pytester.runpytest_subprocess

    def run(*arguments: str) -> pytest.RunResult:
        out = pytester.path.with_suffix(".out")
        child = os.fork()
        if not child:
            code = 70
            with contextlib.suppress(BaseException):
                gc.freeze()  # pytest collects garbage several times at exit, and torch has many objects
                target = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(target, 1)
                os.dup2(target, 2)
                sys.stdout = sys.stderr = open(1, "w", closefd=False)  # noqa: SIM115 - closed with the process
                torch.set_num_threads(1)  # threads do not survive a fork
                for name in ("net", "csp"):  # another test of this process may have imported its own
                    sys.modules.pop(name, None)
                code = int(pytest.main([*arguments, *OTHER_PLUGINS]))
                sys.stdout.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        return pytest.RunResult(os.waitstatus_to_exitcode(status), out.read_text().splitlines(), [], 0)

    return run


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two networks, in an environment with the plugin as `pyproject.toml` declares it, even if it is not installed."""
    declared = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    installed = pytester.path / "site" / "cspprof_here-0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: cspprof-here\nVersion: 0\n")
    points = "\n".join(f"{name} = {module}" for name, module in declared.items())
    (installed / "entry_points.txt").write_text(f"[pytest11]\n{points}\n")
    pytester.syspathinsert(installed.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(installed.parent), str(CHECKOUT)]))
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    (pytester.path / "net.py").write_text(PLAIN)
    (pytester.path / "csp.py").write_text(CSP)
    return pytester.path


def cost_test(body: str, imports: str = "") -> str:
    lines = "\n    ".join(body.splitlines())
    return f"{imports}\ndef test_cost(cspprof):\n    {lines}\n"


def errors(result: pytest.RunResult) -> list[str]:
    """The lines of the error, which pytest marks with an E."""
    return [line[1:].strip() for line in result.outlines if line.startswith("E ")]


# -- budgets and drops ----------------------------------------------------------------------------


def test_assertions_that_hold(pytester: pytest.Pytester, runs: Runs, project: Path) -> None:
    pytester.makepyfile(
        cost_test(
            f"""cspprof.assert_budget("net.py:ResNeXt", cio={PLAIN_CIO}, macs="30 M", peak_bytes="200 KiB", moc=54)
cspprof.assert_budget(ResNeXt(), input="1x3x64x64", cio="{PLAIN_CIO:,}")
cspprof.assert_budget(ResNeXt(), input=(1, 3, 64, 64), params="0.3 M", bottleneck_share="16%")
cspprof.assert_budget(ResNeXt(), cio_cspnet={PLAIN_CIO})  # with its example_input_shape
cspprof.assert_budget(profile("net.py:ResNeXt"), cio={PLAIN_CIO})
cspprof.assert_budget("net.py:ResNeXt", layer="stage?.down", cio=49_152)
cspprof.assert_drop("net.py:ResNeXt", "csp.py:ResNeXt", cio={PLAIN_CIO - CSP_CIO}, macs="30%")""",
            "from cspprof import profile\nfrom net import ResNeXt\n",
        )
    )
    runs("--strict-markers", "--strict-config").assert_outcomes(passed=1)


def test_text_of_a_failed_budget(pytester: pytest.Pytester, runs: Runs, project: Path) -> None:
    pytester.makepyfile(
        cost_test('cspprof.assert_budget(ResNeXt(), input="1x3x64x64", cio="500 k")', "from net import ResNeXt\n")
    )
    result = runs()
    result.assert_outcomes(failed=1)
    begin = next(i for i, line in enumerate(result.outlines) if line.startswith("cspprof = <"))
    end = next(i for i, line in enumerate(result.outlines) if "short test summary" in line)
    line = PLAIN.splitlines().index("class Stage(nn.Module):") + 1
    root = PLAIN.splitlines().index("class ResNeXt(nn.Module):") + 1
    block = PLAIN.splitlines().index("class Block(nn.Module):") + 1
    blocks = "conv2d 1x64x16x16 -> 1x64x16x16, kernel"
    down, stem = "conv2d 1x32x32x32 -> 1x64x16x16", "conv2d 1x3x64x64 -> 1x32x32x32"
    assert result.outlines[begin + 2 : end] == [
        "    def test_cost(cspprof):",
        '>       cspprof.assert_budget(ResNeXt(), input="1x3x64x64", cio="500 k")',
        "E       AssertionError: cio_cspnet of ResNeXt is 569,472; the limit is 500,000, exceeded by 69,472",
        "E         layers with most cio_cspnet (17 more):",
        f"E           stage1.down              49,152  {down}, kernel 3x3, stride 2x2  [net.py:{line} Stage]",
        f"E           stem                     45,056  {stem}, kernel 3x3, stride 2x2  [net.py:{root} ResNeXt]",
        f"E           stage1.blocks.0.reduce   32,768  {blocks} 1x1  [net.py:{block} Block]",
        f"E           stage1.blocks.0.grouped  32,768  {blocks} 3x3, groups 8  [net.py:{block} Block]",
        f"E           stage1.blocks.0.expand   32,768  {blocks} 1x1  [net.py:{block} Block]",
        "",
        "test_text_of_a_failed_budget.py:4: AssertionError",
    ]
    assert "the limit is 500,000, exceeded by 69,472" in result.outlines[end + 1]


def test_several_failed_limits_are_listed_worst_first(pytester: pytest.Pytester, runs: Runs, project: Path) -> None:
    pytester.makepyfile(cost_test('cspprof.assert_budget("net.py:ResNeXt", params=1, cio="500 k", macs="1 G")'))
    lines = [line for line in errors(runs()) if "the limit is" in line]
    assert [line.split(" of ")[0].removeprefix("AssertionError: ") for line in lines] == ["params", "cio_cspnet"]


def test_text_of_a_failed_drop_lists_increased_layers(pytester: pytest.Pytester, runs: Runs, project: Path) -> None:
    pytester.makepyfile(cost_test('cspprof.assert_drop("net.py:ResNeXt", "csp.py:ResNeXt", cio="50%")'))
    lines = errors(runs())
    assert lines[0] == (
        f"AssertionError: cio_cspnet of csp.py:ResNeXt is {CSP_CIO:,}; the limit is {PLAIN_CIO // 2:,}, exceeded by "
        f"{CSP_CIO - PLAIN_CIO // 2:,} (at least 50% below net.py:ResNeXt's {PLAIN_CIO:,}; now −30.2 %)"
    )
    assert lines[1] == "where cio_cspnet increased:"
    assert lines[2].startswith("stage1.transition  32,768 (new)  conv2d 1x64x16x16 -> 1x64x16x16, kernel 1x1  [csp.py:")


@pytest.mark.parametrize(
    ("call", "message", "hint"),
    quick(
        [
            ('assert_budget("net.py:ResNeXt", ciao="24 M")', "no metric named 'ciao'", "Did you mean: cio, "),
            (
                'assert_budget("net.py:ResNeXt", cio="24 Q")',
                "cannot read the quantity '24 Q'",
                "Write for example: 24 M",
            ),
            ('assert_budget("net.py:ResNeXt", cio="-1")', "cio = '-1' is negative", "at least 0"),
            (
                'assert_budget("net.py:ResNeXt", cio="24 MB")',
                "'24 MB' is in bytes, but cio_cspnet is in elements",
                "24 M",
            ),
            ('assert_budget("net.py:ResNeXt")', "assert_budget needs a limit", 'Give one: cio="24 M"'),
            ('assert_budget("net.py:ResNet", cio="24 M")', "net.py has no 'ResNet'", "Did you mean: ResNeXt?"),
            (
                'assert_budget("net.py:ResNeXt", layer="stag?", cio=1)',
                "'stag?' matches no layer",
                "Did you mean: stage",
            ),
            ('assert_budget("net.py:ResNeXt", input="1,x", cio=1)', "cannot read the input '1,x'", "joined by x"),
            (
                "assert_budget(__import__('torch').nn.ReLU(), cio=1)",
                "input is not known",
                "Give input=",
            ),
            (
                "assert_budget(__import__('torch').nn.ReLU, cio=1)",
                "ReLU is not a model",
                "Call it: ReLU()",
            ),
            ('assert_drop("net.py:ResNeXt", "resnet10", cio="5%")', "is measured on", "the same input: 1x3x64x64"),
            ('assert_drop("net.py:ResNeXt", "csp.py:ResNeXt")', "assert_drop needs a limit", 'Give one: cio="5%"'),
            ('assert_drop("net.py:ResNeXt", "csp.py:ResNeXt", cio="200%")', "is more than 100%", "at most 100%"),
            (
                'assert_matches_baseline("net.py:ResNeXt")',
                "cspprof-baseline.json does not exist yet",
                "--cspprof-update",
            ),
            (
                'assert_matches_baseline("net.py:ResNeXt", metrics="ciao")',
                "no metric named 'ciao'",
                "Did you mean: cio, ",
            ),
        ],
        5,
    ),
)
def test_what_cannot_be_decided_is_an_error_and_not_an_assertion_error(
    pytester: pytest.Pytester, runs: Runs, project: Path, call: str, message: str, hint: str
) -> None:
    pytester.makepyfile(
        f"import pytest\n@pytest.mark.xfail(raises=AssertionError)\ndef test_cost(cspprof):\n    cspprof.{call}\n"
    )
    result = runs()
    result.assert_outcomes(failed=1)
    lines = errors(result)
    assert message in lines[0]
    assert hint in lines[1]
    assert not [line for line in result.outlines if re.match(r"\S*cspprof/.*:\d+: ", line)]  # of cspprof


def test_a_model_with_uncounted_operations_does_not_pass(pytester: pytest.Pytester, runs: Runs, project: Path) -> None:
    pytester.makepyfile(
        cost_test(
            'cspprof.assert_budget(Net(), input="1x3x8x8", macs="1 G")',
            """
import torch

@torch.library.custom_op("plugintest::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x

twice.register_fake(torch.empty_like)

class Net(torch.nn.Module):
    def forward(self, x):
        return twice(x)
""",
        )
    )
    lines = errors(runs())
    assert lines[0].endswith("Net has operations without a rule: plugintest.twice (1)")
    assert "cspprof.op_rule" in lines[1]


# -- the baseline ---------------------------------------------------------------------------------


def recorded(project: Path) -> dict[str, dict[str, int]]:
    models = json.loads((project / "cspprof-baseline.json").read_text())["models"]
    return {name: model["totals"] for name, model in models.items()}


def test_a_metric_missing_in_the_baseline_is_an_error(pytester: pytest.Pytester, runs: Runs, project: Path) -> None:
    pytester.makepyfile(cost_test('cspprof.assert_matches_baseline("net.py:ResNeXt")'))
    assert runs("--cspprof-update").ret == 0
    file = project / "cspprof-baseline.json"
    document = json.loads(file.read_text())
    del document["models"]["net.py:ResNeXt"]["totals"]["cio_cspnet"]
    file.write_text(json.dumps(document))
    result = runs()
    result.assert_outcomes(failed=1)
    assert "the baseline has no cio_cspnet of net.py:ResNeXt" in errors(result)[0]


def test_record_then_compare_then_fail(pytester: pytest.Pytester, runs: Runs, project: Path) -> None:
    pytester.makepyfile(MATCHES)
    result = runs("--cspprof-update")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["*= cspprof baseline =*", "1 model recorded in cspprof-baseline.json:", f"  *cio_cspnet: {PLAIN_CIO:,}"]
    )
    assert recorded(project)["net.py:ResNeXt"]["cio_cspnet"] == PLAIN_CIO
    before = (project / "cspprof-baseline.json").read_bytes()
    assert runs().ret == 0
    result = runs("--cspprof-update")
    result.stdout.fnmatch_lines(["1 model recorded in cspprof-baseline.json; no number changed"])
    assert (project / "cspprof-baseline.json").read_bytes() == before

    wider = PLAIN.replace("nn.Conv2d(3, 32, 3, 2, 1", "nn.Conv2d(3, 40, 3, 2, 1").replace("Stage(32,", "Stage(40,")
    (project / "net.py").write_text(wider)
    result = runs()
    lines = errors(result)
    assert re.match(r"AssertionError: net.py:ResNeXt does not match cspprof-baseline.json: \d+ of 23 numbers", lines[0])
    assert f"cio_cspnet        {PLAIN_CIO + 2 * 8_192:,}, recorded {PLAIN_CIO:,} (+2.9 %)" in lines
    at = next(i for i, line in enumerate(lines) if line.startswith("where cio_cspnet increased"))
    assert lines[at + 1].startswith(
        "stem         53,248 (+8,192)  conv2d 1x3x64x64 -> 1x40x32x32, kernel 3x3, stride 2x2; was"
    )
    assert lines[-1] == "To record the new numbers: pytest --cspprof-update"
    assert (project / "cspprof-baseline.json").read_bytes() == before


@pytest.mark.slow
def test_metrics_selects_the_numbers_to_compare(pytester: pytest.Pytester, runs: Runs, project: Path) -> None:
    pytester.makepyfile(MATCHES)
    assert runs("--cspprof-update").ret == 0
    text = (project / "cspprof-baseline.json").read_text()
    (project / "cspprof-baseline.json").write_text(text.replace(f'"cio_cspnet": {PLAIN_CIO}', '"cio_cspnet": 7'))
    for metrics, failed in (('("macs", "params")', 0), ('"cio"', 1), ("()", 1)):
        pytester.makepyfile(MATCHES.replace('ResNeXt")', f'ResNeXt", metrics={metrics})'))
        runs().assert_outcomes(failed=failed, passed=1 - failed)


@pytest.mark.slow
def test_models_of_the_configuration_share_the_baseline_of_the_command(
    pytester: pytest.Pytester, runs: Runs, project: Path
) -> None:
    (project / "cspprof.toml").write_text(CONFIG)
    (project / "tests").mkdir()
    body = 'cspprof.assert_matches_baseline("resnext")\ncspprof.assert_matches_baseline("csp.py:ResNeXt")'
    (project / "tests" / "test_it.py").write_text(cost_test(body))
    assert runs("--cspprof-update").ret == 0
    both = (project / "cspprof-baseline.json").read_bytes()
    assert recorded(project).keys() == {"resnext", "csp.py:ResNeXt"}

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_module("cspprof", *arguments, cwd=project)

    assert command("check").returncode == 0
    assert command("check", "--update-baseline").returncode == 0  # writes the same, and keeps the models of tests
    assert (project / "cspprof-baseline.json").read_bytes() == both
    assert runs().ret == 0


def test_a_module_is_recorded_by_its_class_or_by_name(pytester: pytest.Pytester, runs: Runs, project: Path) -> None:
    imports = "import csp, net\n"
    same = "cspprof.assert_matches_baseline(net.ResNeXt())\ncspprof.assert_matches_baseline(csp.ResNeXt())"
    pytester.makepyfile(cost_test(same, imports))
    result = runs("--cspprof-update")
    assert errors(result)[0].endswith("two tests record different models as 'ResNeXt'")
    result.stdout.fnmatch_lines(["nothing was recorded:", "two tests record different models as 'ResNeXt'"])
    assert not (project / "cspprof-baseline.json").exists()
    pytester.makepyfile(cost_test(same.replace("csp.ResNeXt()", 'csp.ResNeXt(), name="csp"'), imports))
    assert runs("--cspprof-update").ret == 0
    assert {n: t["cio_cspnet"] for n, t in recorded(project).items()} == {"ResNeXt": PLAIN_CIO, "csp": CSP_CIO}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('cspprof.assert_matches_baseline("nowhere.py:Net")', "nowhere.py:Net: there is no file nowhere.py"),
        ("raise KeyboardInterrupt", "the test run did not finish"),
    ],
)
def test_an_error_in_one_test_records_nothing(
    pytester: pytest.Pytester, runs: Runs, project: Path, body: str, message: str
) -> None:
    pytester.makepyfile(MATCHES + f"def test_other(cspprof):\n    {body}\n")
    result = runs("--cspprof-update")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*= cspprof baseline =*", "nothing was recorded:", message])
    assert not (project / "cspprof-baseline.json").exists()


def test_a_baseline_with_conflict_is_not_overwritten(pytester: pytest.Pytester, runs: Runs, project: Path) -> None:
    (project / "cspprof-baseline.json").write_text("<<<<<<< HEAD\n")
    pytester.makepyfile(MATCHES)
    result = runs("--cspprof-update")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["nothing was recorded:", "*cspprof-baseline.json:1: an unresolved merge conflict"])
    assert (project / "cspprof-baseline.json").read_text() == "<<<<<<< HEAD\n"


def test_a_changed_structure_with_the_same_totals_is_a_warning(
    pytester: pytest.Pytester, runs: Runs, project: Path
) -> None:
    pytester.makepyfile(MATCHES)
    assert runs("--cspprof-update").ret == 0
    (project / "net.py").write_text(PLAIN.replace("return torch.relu(", "return torch.sigmoid("))
    result = runs()
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*test_a_changed*.py:2: UserWarning: the structure of net.py:ResNeXt differs from *"])


def test_an_assertion_on_cio_of_a_transformer_warns_what_cio_sees(
    pytester: pytest.Pytester, runs: Runs, project: Path
) -> None:
    (project / "vit.py").write_text(
        "from torch import nn\n\n\n"
        "class Tokens(nn.Module):\n"
        "    example_input_shape = (1, 3, 8, 8)\n\n"
        "    def __init__(self, width=16):\n"
        "        super().__init__()\n"
        "        self.patches, self.mix = nn.Conv2d(3, width, 4, 4), nn.Linear(width, 64)\n\n"
        "    def forward(self, x):\n"
        "        return self.mix(self.patches(x).flatten(2).mT)\n"
    )
    pytester.makepyfile(
        """
        from vit import Tokens

        def test_budget(cspprof):
            cspprof.assert_budget(Tokens(), cio="1 M")

        def test_drop(cspprof):
            cspprof.assert_drop(Tokens(), Tokens(8), cio="1%")

        def test_baseline(cspprof):
            cspprof.assert_matches_baseline(Tokens(), metrics="cio")

        def test_traffic(cspprof):
            cspprof.assert_budget(Tokens(), traffic_bytes="1 MB", macs="1 M")
            cspprof.assert_matches_baseline(Tokens())
        """
    )
    assert runs("--cspprof-update").ret == 0
    result = runs()
    result.assert_outcomes(passed=4, warnings=3)
    # for each position, 3 * 16 * 4 * 4 = 768 MACs in the convolution and 16 * 64 = 1,024 in the linear layer
    assert round(100 * 768 / (768 + 1024), 1) == 42.9
    for name, line in (("assert_budget", 4), ("assert_drop", 7), ("assert_matches_baseline", 10)):
        warning = f"{name}: cio_cspnet sees 42.9 % of the MACs of Tokens"
        result.stdout.fnmatch_lines([f"*.py:{line}: UserWarning: {warning}*"])


@pytest.mark.slow
def test_xdist_workers_record_together(pytester: pytest.Pytester, project: Path) -> None:
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    for name in ("net", "csp"):  # saved profiles: the workers need not import torch
        cspprof.profile(f"{name}.py:ResNeXt").save(f"{name}.profile.json")
        (project / f"test_{name}.py").write_text(MATCHES.replace("net.py:ResNeXt", f"{name}.profile.json"))
    two = [argument for argument in OTHER_PLUGINS if "xdist" not in argument] + ["-n", "2", "--cspprof-update"]
    result = pytester.runpytest_subprocess(*two)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["2 models recorded in cspprof-baseline.json:"])
    assert {n: t["cio_cspnet"] for n, t in recorded(project).items()} == {
        "net.profile.json": PLAIN_CIO,
        "csp.profile.json": CSP_CIO,
    }
    before = (project / "cspprof-baseline.json").read_bytes()
    (project / "test_csp.py").write_text("import os\ndef test_cost(cspprof):\n    os._exit(1)\n")
    result = pytester.runpytest_subprocess(*two, "--max-worker-restart=0")
    result.stdout.fnmatch_lines(["nothing was recorded:", "a worker of pytest-xdist did not finish"])
    assert (project / "cspprof-baseline.json").read_bytes() == before


# -- loading the plugin ---------------------------------------------------------------------------


def test_the_plugin_can_be_disabled(pytester: pytest.Pytester, runs: Runs, project: Path) -> None:
    pytester.makepyfile(MATCHES)
    result = runs("-p", "no:cspprof")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E * fixture 'cspprof' not found"])
    assert "--cspprof-update" not in runs("-p", "no:cspprof", "--help").stdout.str()
    runs("--help").stdout.fnmatch_lines(["cost of networks:", "  --cspprof-update *"])


def test_loading_the_plugin_imports_only_pytest(pytester: pytest.Pytester, project: Path) -> None:
    pytester.makepyfile("import sys\ndef test_light():\n    print(*sorted(sys.modules), sep='\\n')\n")
    result = pytester.runpytest_subprocess("-s")
    result.assert_outcomes(passed=1)
    imported = [line for line in result.outlines if line.startswith("cspprof")]
    assert imported == ["cspprof", "cspprof._version", "cspprof.pytest_plugin"]
    heavy = {"torch", "pydantic", "pandas", "matplotlib", "numpy", "sympy", "rich", "typer"}
    assert not heavy & set(result.outlines)
