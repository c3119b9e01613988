"""The gate as users run it: the commands on a project with a model of its own, their output and exit codes."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
import torch
import xmlschema
from conftest import CHECKOUT, Result, git
from preloaded import run_module

import cspprof

Run = Callable[..., Result]
SCHEMAS = resources.files("cspprof") / "schemas"

PLAIN = '''\
"""A user's ResNeXt."""

import torch
from torch import nn


class Block(nn.Module):
    """Grouped bottleneck."""

    def __init__(self, channels, mid):
        super().__init__()
        self.reduce = nn.Conv2d(channels, mid, 1, bias=False)
        self.grouped = nn.Conv2d(mid, mid, 3, padding=1, groups=8, bias=False)
        self.expand = nn.Conv2d(mid, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return torch.relu(x + self.norm(self.expand(self.grouped(self.reduce(x)))))


class Stage(nn.Module):
    def __init__(self, c_in, channels, depth):
        super().__init__()
        self.down = nn.Conv2d(c_in, channels, 3, 2, 1, bias=False)
        self.blocks = nn.Sequential(*(Block(channels, channels) for _ in range(depth)))

    def forward(self, x):
        return self.blocks(self.down(x))


class ResNeXt(nn.Module):
    example_input_shape = (1, 3, 64, 64)

    def __init__(self, num_classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self.stage1 = Stage(32, 64, 3)
        self.stage2 = Stage(64, 128, 3)
        self.head = nn.Linear(128, num_classes)

    def forward(self, x):
        return self.head(self.stage2(self.stage1(self.stem(x))).mean((2, 3)))
'''

CSP_STAGE = '''\
class Stage(nn.Module):
    """Half of the channels bypass the blocks."""

    def __init__(self, c_in, channels, depth):
        super().__init__()
        self.down = nn.Conv2d(c_in, channels, 3, 2, 1, bias=False)
        self.blocks = nn.Sequential(*(Block(channels // 2, channels // 2) for _ in range(depth)))
        self.transition = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x):
        bypass, main = self.down(x).chunk(2, 1)
        return self.transition(torch.cat([bypass, self.blocks(main)], 1))


'''
STAGE = PLAIN[PLAIN.index("class Stage") : PLAIN.index("class ResNeXt")]
CSP = PLAIN.replace(STAGE, CSP_STAGE)

# CIO at 64×64, input plus output elements of each convolution and of the global pooling (8,320), by hand:
#   stem 12,288 + 32,768 · down 32,768 + 16,384, and 16,384 + 8,192
#   plain: nine convolutions 64→64 on 16×16 (32,768 each), nine 128→128 on 8×8 (16,384 each)
#   CSP: the same on half of the channels, and a transition 64→64 and 128→128
ENDS = 45_056 + 49_152 + 24_576 + 8_320
PLAIN_CIO = ENDS + 9 * 32_768 + 9 * 16_384
CSP_CIO = ENDS + 9 * 16_384 + 32_768 + 9 * 8_192 + 16_384

RULES = """\
[tool.cspprof.models.resnext]
target = "net.py:ResNeXt"

[[tool.cspprof.rules]]
id = "csp-pays"
metric = "cio"
min_drop = "5%"

[[tool.cspprof.rules]]
id = "macs"
metric = "macs"
max_increase = "0%"
"""


def environment() -> dict[str, str]:
    """The environment of a wide terminal without colors, outside of a GitHub job."""
    kept = {name: value for name, value in os.environ.items() if name != "GITHUB_STEP_SUMMARY"}
    return kept | {"COLUMNS": "200", "NO_COLOR": "1"}


def shell(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cspprof", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one model and two rules, without a baseline."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "net.py").write_text(PLAIN)
    (folder / "pyproject.toml").write_text(RULES)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return folder


def _schema(folder: Any, name: str) -> Callable[[str], None]:
    return lambda text: jsonschema.validate(json.loads(text), json.loads((folder / name).read_text()))


def _junit(text: str) -> None:
    xmlschema.XMLSchema(str(CI_SCHEMAS / "junit-10.xsd")).validate(io.BytesIO(text.encode()))


CI_SCHEMAS = CHECKOUT / "tests" / "schemas"
VALIDATE: dict[str, Callable[[str], None]] = {
    "json": _schema(SCHEMAS, "check-1.schema.json"),
    "junit": _junit,
    "sarif": _schema(CI_SCHEMAS, "sarif-2.1.0.json"),
    "gitlab": _schema(CI_SCHEMAS, "gitlab-code-quality.json"),
    "bencher": _schema(CI_SCHEMAS, "bencher.json"),
    "github-action-benchmark": _schema(CI_SCHEMAS, "github-action-benchmark.json"),
}
"""For each format that has a schema: a function that validates its output."""


def rewrite(folder: Path, old: str, new: str) -> None:
    text = (folder / "net.py").read_text()
    assert text.count(old) == 1
    (folder / "net.py").write_text(text.replace(old, new))


# -- from init to a failing build -----------------------------------------------------------------


@pytest.mark.slow
def test_a_new_configuration_uses_the_example_input_shape_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(PLAIN)
    assert shell("init", cwd=tmp_path).returncode == 0
    recorded = shell("check", "--update-baseline", cwd=tmp_path)
    assert (recorded.returncode, recorded.stderr) == (0, "")
    assert re.search(rf"resnext +cio_cspnet +– +{PLAIN_CIO:,} ", recorded.stdout)


@pytest.mark.slow
def test_from_init_to_a_failing_build(tmp_path: Path) -> None:
    """A change to the cross-stage-partial form passes; widening a convolution fails."""

    def shell(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return run_module("cspprof", *arguments, cwd=cwd, env=environment())

    (tmp_path / "net.py").write_text(PLAIN)
    git(tmp_path, "init", "--quiet")

    initialized = shell("init", cwd=tmp_path)
    assert (initialized.returncode, initialized.stderr) == (0, "")
    assert "models: net.py:ResNeXt" in initialized.stdout
    config = (tmp_path / "cspprof.toml").read_text()
    (tmp_path / "cspprof.toml").unlink()
    assert 'target = "net.py:ResNeXt"' in config
    (tmp_path / "pyproject.toml").write_text(RULES)

    unrecorded = shell("check", cwd=tmp_path)
    assert unrecorded.returncode == 2
    assert "cspprof check --update-baseline" in unrecorded.stdout

    recorded = shell("check", "--update-baseline", cwd=tmp_path)
    assert (recorded.returncode, recorded.stderr) == (0, "")
    assert re.search(rf"resnext +cio_cspnet +– +{PLAIN_CIO:,} ", recorded.stdout)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "plain")

    (tmp_path / "net.py").write_text(CSP)
    passed = shell("check", cwd=tmp_path)
    assert (passed.returncode, passed.stderr) == (0, "")
    limit = PLAIN_CIO * 95 // 100
    assert re.search(rf"csp-pays +resnext +cio_cspnet +{CSP_CIO:,} +{limit:,} +−{limit - CSP_CIO:,} +ok", passed.stdout)
    assert shell("check", "--update-baseline", cwd=tmp_path).returncode == 0
    unchanged = shell("check", cwd=tmp_path)  # nothing drops any more: the hint names the other rule
    assert unchanged.returncode == 1
    assert 'use max_increase = "0%" from now on' in " ".join(unchanged.stdout.split())
    (tmp_path / "pyproject.toml").write_text(RULES.replace('min_drop = "5%"', 'max_increase = "0%"'))
    assert shell("check", cwd=tmp_path).returncode == 0
    git(tmp_path, "commit", "--quiet", "-am", "cross-stage partial")

    wide = CSP.replace(
        "self.transition = nn.Conv2d(channels, channels, 1", "self.transition = nn.Conv2d(channels, 192, 1"
    )
    wide = wide.replace("Stage(64, 128, 3)", "Stage(192, 128, 3)").replace("nn.Linear(128", "nn.Linear(192")
    (tmp_path / "net.py").write_text(wide)
    kinds = [*VALIDATE, "concise", "github", "markdown", "csv", "latex"]
    failed = shell("check", "--why", "-f", "rich", *(f"--format={kind}={kind}.out" for kind in kinds), cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr.splitlines() == [f"wrote {kind}.out" for kind in kinds]
    assert failed.stdout.splitlines()[2].startswith("macs ")
    why = failed.stdout.partition("Why macs fails on resnext: MACs\n")[2].splitlines()
    assert why[2].startswith("stage1.transition ")  # it became wider; its successors cost even more now
    assert why[3].startswith("stage2.transition ")
    heading = "Why macs fails on resnext: MACs, in layers of which only the input changed\n"
    following = failed.stdout.partition(heading)[2]
    assert following.splitlines()[2].startswith("stage2.down ")
    for kind, validate in VALIDATE.items():
        validate((tmp_path / f"{kind}.out").read_text())
    assert all((tmp_path / f"{kind}.out").stat().st_size for kind in kinds)
    assert "conv2d 1x64x16x16 -> 1x192x16x16, kernel 1x1; was conv2d 1x64x16x16 -> 1x64x16x16" in why[2]
    line = wide.splitlines().index("class Stage(nn.Module):") + 1
    assert why[2].rstrip().endswith(f"net.py:{line} Stage")

    against = shell("check", "--against", "HEAD", "--why", cwd=tmp_path)
    assert against.returncode == 1
    assert against.stdout == failed.stdout.replace("the baseline's", "HEAD's")
    assert shell("check", "--against", "HEAD~1", cwd=tmp_path).returncode == 0  # still below the plain network
    assert git(tmp_path, "worktree", "list").count("\n") == 1

    difference = shell("baseline", "diff", "HEAD~1", cwd=tmp_path)
    assert re.search(rf"resnext +cio_cspnet +{PLAIN_CIO:,} +{CSP_CIO:,} +−172,032 +−30.2 %", difference.stdout)


# -- exit codes -----------------------------------------------------------------------------------

HEAD = RULES.partition("[[tool")[0]
OTHER = '[tool.cspprof.models.other]\ntarget = "resnet10"\n'


def rule(**keys: object) -> str:
    lines = [f"{k} = {json.dumps(v)}" for k, v in {"id": "r", **keys}.items()]
    return "\n[[tool.cspprof.rules]]\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("rules", "code", "row"),
    [
        (rule(max=PLAIN_CIO), 0, rf"r +resnext +cio_cspnet +{PLAIN_CIO:,} +{PLAIN_CIO:,} +0 +ok"),
        (rule(max=1), 1, rf"r +resnext +cio_cspnet +{PLAIN_CIO:,} +1 +\+{PLAIN_CIO - 1:,} +FAIL"),
        (rule(max=1, level="warn"), 0, r"r +resnext +cio_cspnet .* warn"),
        (rule(max=1, level="off"), 2, r"no rule of pyproject.toml applies to resnext"),  # nothing is checked
        (rule(max=1, level="off") + rule(id="s", max="1 G"), 0, r"s +resnext +cio_cspnet .* ok"),
        (  # a failure has priority over a model that cannot be measured
            rule(max=1) + '[tool.cspprof.models.broken]\ntarget = "nowhere.py:Net"\n', 1,
            r"r +resnext .* FAIL(.|\n)* broken: there is no file nowhere.py",
        ),
    ],
)  # fmt: skip
def test_exit_codes(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch, rules: str, code: int, row: str) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    (project / "pyproject.toml").write_text(HEAD + rules)
    got = run("check")
    assert (got.code, got.err) == (code, "")
    assert re.search(row, got.out), got.out


# -- problems -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEAD + rule(max="24 Q"),
            r"pyproject.toml:7 +tool.cspprof.rules\[0\].max: cannot read the quantity '24 Q' +Write for example: 24 M",
        ),
        (
            HEAD + rule(model="resnet*", max=1),
            r"pyproject.toml:6 +rule 'r': no model matches 'resnet\*' +Did you mean: resnext\?",
        ),
        (
            HEAD + rule(layer="stag?", max=1),
            r"pyproject.toml:6 .* 'stag\?' matches no layer of resnext that has cio_cspnet +Did you mean: stage",
        ),
        (
            HEAD + rule(min_drop="5%", base="plain"),
            r"pyproject.toml:6 +rule 'r': its base 'plain' is not a model +There are: resnext",
        ),
        (
            HEAD + rule(max="1 M") + rule(id="s", max="2 M"),
            r"pyproject.toml:10 +the rules 'r' and 's' set two limits for max of cio for '\*': 1 M and 2 M"
            r" +The other is on line 6: remove one of them",
        ),
        (
            HEAD + rule(max_increase="0%"),
            r"there is no baseline yet \(cspprof-baseline.json\) +Record it: cspprof check --update-baseline",
        ),
        (
            HEAD + OTHER.replace("resnet10", "resnet1") + rule(max="1 G"),
            r"pyproject.toml:4 +other: no model named 'resnet1' +Did you mean",
        ),
        (HEAD, r"pyproject.toml has no rules"),
    ],
)
def test_problems_name_the_place_and_what_to_write(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    (project / "pyproject.toml").write_text(text)
    got = run("check")
    assert (got.code, got.err) == (2, "")
    assert re.search(message, got.out), got.out


def test_a_hint_of_several_lines_is_one_cell_and_names_each_input_once(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "900")
    (project / "net.py").write_text(
        "from torch import nn\n\nclass Net(nn.Conv2d):\n    def __init__(self): super().__init__(3, 4, 1)\n"
        "    def forward(self, x, labels=None):\n        if labels is None: raise ValueError('no labels')\n"
        "        return super().forward(x) * labels.sum()\n"
    )
    (project / "pyproject.toml").write_text('[tool.cspprof.models.net]\ntarget = "net.py:Net"\n' + rule(max="1 G"))
    got = run("check")
    assert (got.code, "\\n" in got.out) == (2, False)
    keys = re.search(r"In pyproject.toml: (input = .*?\])", got.out)
    assert keys is not None
    (project / "pyproject.toml").write_text(
        f'[tool.cspprof.models.net]\ntarget = "net.py:Net"\n{keys[1]}\n' + rule(max="1 G")
    )
    assert run("check").code == 0


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            "import nothing_like_this\n",
            "importing bad.py failed: ModuleNotFoundError: No module named 'nothing_like_this'",
        ),
        ("def Net(:\n", "bad.py, line 1: invalid syntax"),
        ("raise RuntimeError('no licence')\n", "importing bad.py failed: RuntimeError: no licence (bad.py, line 1)"),
        ("import sys\nsys.exit(3)\n", "importing bad.py failed: SystemExit: 3"),
        ("from torch import nn\nNet = nn.Conv2d(7, 7, 1)\n", "bad.py:Net"),
        ("def Net(): return 3\n", "bad.py:Net returns an object of type int, not a torch.nn.Module"),
    ],
)
def test_a_model_that_fails_does_not_affect_others(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch, broken: str, message: str
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    (project / "bad.py").write_text(broken)
    (project / "pyproject.toml").write_text(
        HEAD + '[tool.cspprof.models.bad]\ntarget = "bad.py:Net"\n' + rule(max="1 M")
    )
    got = run("check")
    assert got.code == 2
    assert message in got.out
    assert "again with --debug" not in got.out
    assert re.search(rf"r +resnext +cio_cspnet +{PLAIN_CIO:,} +1,000,000 .* ok", got.out)
    recorded = run("check", "--update-baseline")
    assert (recorded.code, recorded.out) == (2, "")
    assert recorded.err.startswith("error: nothing was recorded, because not everything could be measured\n")
    assert message in recorded.err
    assert not (project / "cspprof-baseline.json").exists()


EXITS = {
    "in the forward": "class Net(nn.Module):\n    def forward(self, x):\n        {}\n",
    "in the factory": "def Net():\n    {}\n",
    "at the import": "{}\n",
    "in an attribute": (
        "class Meta(type):\n    @property\n    def example_input_shape(cls):\n        {}\n"
        "class Net(nn.Module, metaclass=Meta):\n    pass\n"
    ),
}


@pytest.mark.parametrize("call", ["sys.exit()", "sys.exit(0)", "sys.exit('all is well')", "raise GeneratorExit"])
@pytest.mark.parametrize("place", EXITS)
def test_a_model_cannot_end_a_check_with_exit_code_0(run: Run, project: Path, place: str, call: str) -> None:
    (project / "bad.py").write_text("import sys\nfrom torch import nn\n" + EXITS[place].format(call))
    (project / "pyproject.toml").write_text(
        HEAD + '[tool.cspprof.models.bad]\ntarget = "bad.py:Net"\n' + rule(max="1 M")
    )
    got = run("check", "--format", "junit=out.xml", "--format", "concise")
    assert got.code == 2
    assert ("SystemExit" if "exit" in call else "GeneratorExit") in got.out
    root = ElementTree.parse("out.xml").getroot()
    assert (root.get("tests"), root.get("errors"), root.get("failures")) == ("2", "1", "0")


UNKNOWN_OPERATION = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)

    def forward(self, x):
        return torch.ops.gatetest.twice(self.conv(x))
"""


def test_a_model_with_operations_without_a_rule_does_not_pass_and_is_not_recorded(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @torch.library.custom_op("gatetest::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    twice.register_fake(torch.empty_like)
    monkeypatch.setenv("COLUMNS", "300")
    (project / "own.py").write_text(UNKNOWN_OPERATION)
    (project / "pyproject.toml").write_text('[tool.cspprof.models.own]\ntarget = "own.py:Net"\n' + rule(max="1 G"))
    got = run("check")
    assert got.code == 2
    assert "own has operations without a rule: gatetest.twice (1)" in got.out
    (project / "pyproject.toml").write_text('[tool.cspprof.models.own]\ntarget = "own.py:Net"\n' + rule(max="1"))
    assert run("check").code == 1  # the counted operations already exceed the limit
    got = run("check", "--update-baseline")
    assert got.code == 2
    assert "own has operations without a rule: gatetest.twice" in got.err
    assert not (project / "cspprof-baseline.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "resnest"), "error: pyproject.toml has no model named 'resnest'\n  Did you mean: resnext?"),
        (("check", "--config", "nowhere"), "error: there is no file nowhere\n"),
        (("check", "--against", "nowhere"), "is not in a git repository"),
        (("check", "--against", "HEAD", "--update-baseline"), "--against compares, --update-baseline records"),
        (("check", "--format", "yaml"), "no format named 'yaml'"),
        (("check", "--format", "json=nowhere/x.json"), "there is no folder nowhere"),
        (("baseline", "show"), "there is no cspprof-baseline.json yet\n  Record one: cspprof check --update-baseline"),
        (("baseline", "diff"), "there is no cspprof-baseline.json yet"),
        (("init",), "pyproject.toml already has a configuration\n"),
    ],
)
def test_errors_of_commands(run: Run, project: Path, arguments: tuple[str, ...], message: str) -> None:
    got = run(*arguments)
    assert (got.code, got.out) == (2, "")
    assert message in got.err


# -- the baseline ---------------------------------------------------------------------------------


@pytest.fixture
def recorded(run: Run, project: Path) -> Path:
    assert run("check", "--update-baseline").code == 0
    return project / "cspprof-baseline.json"


def test_baseline_has_sorted_keys_and_one_number_per_line(run: Run, recorded: Path) -> None:
    text = recorded.read_text()
    document = json.loads(text)
    jsonschema.validate(document, json.loads((SCHEMAS / "baseline-1.schema.json").read_text()))
    assert json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False) + "\n" == text
    assert all(len(re.findall(r'": -?\d+', line)) <= 1 for line in text.splitlines())
    model = document["models"]["resnext"]
    assert model["totals"]["cio_cspnet"] == PLAIN_CIO
    assert model["totals"]["moc"] == {"over": model["totals"]["macs"] - 1280, "under": model["totals"]["cio_hardnet"]}
    assert model["layers"]["stem"]["cio_cspnet"] == 45_056
    assert sum(layer.get("cio_cspnet", 0) for layer in model["layers"].values()) == PLAIN_CIO
    assert model["versions"].keys() == {"cspprof", "torch"}
    again = recorded.read_bytes()
    got = run("check", "--update-baseline")
    assert got.out == "\nnote: no number changed\n"
    assert recorded.read_bytes() == again


def test_branches_that_change_different_models_merge_without_conflict(run: Run, project: Path) -> None:
    (project / "pyproject.toml").write_text(HEAD + OTHER + 'input = "1x3x64x64"\n' + rule(max_increase="0%"))
    assert run("check", "--update-baseline").code == 0
    git(project, "init", "--quiet", "--initial-branch", "main")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "both")
    git(project, "checkout", "--quiet", "-b", "csp")
    (project / "net.py").write_text(CSP)
    assert run("check", "--update-baseline", "resnext").code == 0
    git(project, "commit", "--quiet", "-am", "csp")
    git(project, "checkout", "--quiet", "main")
    rules = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(rules.replace('"resnet10"', '"resnet10,num_classes=10"'))
    assert run("check", "--update-baseline").code == 0
    git(project, "commit", "--quiet", "-am", "ten classes")
    git(project, "merge", "--quiet", "-m", "merged", "csp")
    got = run("check")
    assert (got.code, got.err) == (0, "")
    assert re.search(rf"resnext +cio_cspnet +{CSP_CIO:,} +{CSP_CIO:,} +0 +ok", got.out)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.replace("baseline/1", "baseline/2"), "'cspprof.baseline/2', which is newer than this cspprof"),
        (lambda t: t.replace("cspprof.baseline/1", "other/7"), "is not a baseline: its schema is 'other/7'"),
        (lambda t: "<<<<<<< HEAD\n" + t, "cspprof-baseline.json:1: an unresolved merge conflict"),
        (lambda t: t[: len(t) // 2], "cspprof-baseline.json is not JSON"),
        (lambda t: "[" * 200_000, "cspprof-baseline.json is not JSON: it is nested too deeply"),
        (lambda t: t.replace('"totals"', '"total"'), "object missing required field `totals`"),
        (lambda t: re.sub(r'"cio_cspnet": \d+', '"cio_cspnet": 1.5', t), "cio_cspnet: expected `int`, got `float`"),
    ],
)  # fmt: skip
def test_a_damaged_or_newer_baseline(
    run: Run, project: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[str], str], message: str
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    recorded.write_text(damage(recorded.read_text()))
    (project / "pyproject.toml").write_text(RULES + rule(max="1 M"))
    got = run("check")
    assert got.code == 2
    assert got.out.count(message) == 1  # once, not for each rule
    assert re.search(r"r +resnext .* ok", got.out)  # rules without a baseline are still checked
    shown = run("baseline", "show")
    assert (shown.code, shown.out) == (2, "")
    assert message in shown.err
    partial = run("check", "--update-baseline", "resnext")  # it would lose the other models
    assert partial.code == 2
    before = recorded.read_bytes()
    renewed = run("check", "--update-baseline")
    if "newer" in message:  # the file of a newer version is not overwritten
        assert (renewed.code, renewed.out) == (2, "")
        assert "Upgrade: pip install --upgrade cspprof" in renewed.err
        assert "--update-baseline" not in got.out
        assert recorded.read_bytes() == before
        return
    assert renewed.code == 0
    assert "the old baseline could not be read" in renewed.out
    assert run("baseline", "show").code == 0


def test_updating_one_model_keeps_the_others_and_a_full_update_removes_old_ones(run: Run, project: Path) -> None:
    (project / "pyproject.toml").write_text(HEAD + OTHER + 'input = "1x3x64x64"\n' + rule(max_increase="0%"))
    assert run("check", "--update-baseline").code == 0
    before = json.loads((project / "cspprof-baseline.json").read_text())["models"]
    (project / "net.py").write_text(CSP)
    assert run("check", "--update-baseline", "resnext").code == 0
    after = json.loads((project / "cspprof-baseline.json").read_text())["models"]
    assert after["other"] == before["other"]
    assert after["resnext"]["totals"]["cio_cspnet"] == CSP_CIO
    (project / "pyproject.toml").write_text(HEAD + rule(max_increase="0%"))
    assert run("check", "--update-baseline").code == 0
    assert list(json.loads((project / "cspprof-baseline.json").read_text())["models"]) == ["resnext"]


def test_a_baseline_with_another_input_is_not_compared(run: Run, project: Path, recorded: Path) -> None:
    (project / "pyproject.toml").write_text(
        RULES.replace('Net"', 'Net"').replace('ResNeXt"', 'ResNeXt"\ninput = "1x3x32x32"')
    )
    got = run("check", "--format", "json")
    assert got.code == 2
    finding = json.loads(got.out)["findings"][0]
    message = "the baseline has resnext with input 1x3x64x64:float32, but it is 1x3x32x32:float32 now"
    assert finding["message"] == message
    assert finding["hint"] == "Record it again: cspprof check --update-baseline"


def test_the_deployed_form_is_measured_and_compared_with_its_own_recording(run: Run, project: Path) -> None:
    """Six batch norms are folded, three of 64 and three of 128 channels: of 2·C parameters, C biases stay."""
    deployed = '[tool.cspprof.models.deployed]\ntarget = "net.py:ResNeXt"\ndeploy = true\n'
    rules = rule(metric="params", max_increase="0%", model="deployed", id="own")
    rules += rule(metric="params", min_drop=576, base="resnext", model="deployed", id="folded")
    (project / "pyproject.toml").write_text(HEAD + deployed + rules)
    assert run("check", "--update-baseline").code == 0
    assert run("check").code == 0
    recorded = (project / "cspprof-baseline.json").read_text()
    _schema(SCHEMAS, "baseline-1.schema.json")(recorded)
    plain, folded = (json.loads(recorded)["models"][name] for name in ("resnext", "deployed"))
    assert plain["totals"]["params"] - folded["totals"]["params"] == 3 * 64 + 3 * 128 == 576
    assert ("deployed" in plain, folded["deployed"]) == (False, True)
    (project / "pyproject.toml").write_text((HEAD + deployed + rules).replace("deploy = true\n", ""))
    findings = json.loads(run("check", "--format", "json").out)["findings"]
    assert "the baseline has deployed with deploy true, but it is false now" in {f["message"] for f in findings}


def test_baseline_show_and_diff(run: Run, project: Path, recorded: Path) -> None:
    shown = run("baseline", "show")
    assert re.search(rf"cio_cspnet +{PLAIN_CIO:,}\n", shown.out)
    assert json.loads(run("baseline", "show", "--format", "json").out)["models"][0]["totals"]["cio_cspnet"] == PLAIN_CIO
    assert "is not in a git repository" in run("baseline", "diff").err
    git(project, "init", "--quiet")
    git(project, "add", "net.py")
    git(project, "commit", "--quiet", "-m", "nothing recorded yet")
    got = run("baseline", "diff")
    assert got.code == 0
    assert "note: HEAD has no cspprof-baseline.json" in got.out
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "recorded")
    assert "no number changed" in run("baseline", "diff").out
    assert "there is no revision 'v1' in this repository" in run("baseline", "diff", "v1").err


# -- structure ------------------------------------------------------------------------------------


def test_a_changed_structure_with_the_same_totals_gives_a_note(run: Run, project: Path, recorded: Path) -> None:
    rewrite(project, "return torch.relu(", "return torch.sigmoid(")
    got = run("check")
    assert "note: the structure of resnext differs from the baseline, with the same totals" in got.out
    rewrite(project, "torch.sigmoid(", "torch.relu(")
    rewrite(project, "self.head = nn.Linear", "self.classifier = nn.Linear")
    rewrite(project, "self.head(", "self.classifier(")
    assert "structure" not in run("check").out  # names are not part of the structure


# -- no torch -------------------------------------------------------------------------------------


def test_saved_profiles_are_checked_without_torch(run: Run, project: Path) -> None:
    cspprof.profile("net.py:ResNeXt").save(project / "net.profile.json")
    (project / "pyproject.toml").write_text(RULES.replace("net.py:ResNeXt", "net.profile.json"))
    assert run("check", "--update-baseline").code == 0
    program = """
import sys
from cspprof.cli import main
try:
    main(["check", "--why"])
except SystemExit as leaving:
    code = leaving.code
heavy = {"torch", "pandas", "matplotlib", "numpy", "fvcore", "timm", "torchvision", "sympy"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else code)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")  # nothing dropped by 5 %
    assert re.search(rf"csp-pays +resnext +cio_cspnet +{PLAIN_CIO:,} ", done.stdout)


def test_help_does_not_import_the_gate() -> None:
    program = """
import sys
from cspprof.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
loaded = {m for m in sys.modules if m == "torch" or m.startswith(("pydantic", "cspprof.gate"))}
sys.exit(f"imported: {loaded}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- in Python ------------------------------------------------------------------------------------


def test_check_in_python(project: Path) -> None:
    (project / "pyproject.toml").write_text(HEAD + rule(max="500 k"))
    verdict = cspprof.check()
    assert (verdict.ok, verdict.exit_code) == (False, 1)
    failed = verdict.failures[0]
    assert (failed.rule, failed.model, failed.metric, failed.value, failed.difference) == (
        "r", "resnext", "cio_cspnet", PLAIN_CIO, PLAIN_CIO - 500_000,
    )  # fmt: skip
    assert [c.layer for c in failed.causes[:2]] == ["stage1.down", "stem"]
    assert cspprof.check(project, ["resnext"]).exit_code == 1
    (project / "pyproject.toml").write_text(HEAD + rule(max="500 M"))
    verdict = cspprof.check()
    assert (verdict.ok, verdict.exit_code, verdict.failures) == (True, 0, [])
