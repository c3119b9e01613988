"""Hints of errors: each is printed in a situation, and what it says to type works.

The hints are collected from the source. `SITUATIONS` prints them and follows them. A hint without a situation is
allowed only as far as `WITHOUT_SITUATION` says; that number only falls.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
from conftest import CHECKOUT, ONE_CONV, Result, quick

import cspprof
from cspprof.measure.machine import Machine
from cspprof.measure.result import EngineRun, MeasuredModel, Measurement, Timing

Run = Callable[..., Result]

PACKAGE = CHECKOUT / "cspprof"


# -- the hints in the source ----------------------------------------------------------------------


@dataclass(frozen=True)
class Hint:
    """A hint in the source: its file, its text with {} for values, and a pattern of what is printed."""

    file: str
    text: str
    pattern: str


@cache
def hints() -> tuple[Hint, ...]:
    """The hints of all `…Error(message, hint)` calls that have fixed words, in the order of the source."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1].endswith("Error"):
                given = node.args[1:2] + [k.value for k in node.keywords if k.arg == "hint"]
                for expression in (part for hint in given for part in _alternatives(hint)):
                    text, pattern = _template(expression)
                    if re.search("[A-Za-z]{2}", text):
                        found.append(Hint(path.relative_to(PACKAGE).as_posix(), text, pattern))
    return tuple(dict.fromkeys(found))


def _alternatives(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.IfExp):
        yield from _alternatives(node.body)
        yield from _alternatives(node.orelse)
    else:
        yield node


def _template(node: ast.expr) -> tuple[str, str]:
    """The text of an expression with {} for values, and a regular expression for its results."""
    if isinstance(node, ast.Constant):
        return str(node.value), re.escape(str(node.value))
    if isinstance(node, ast.JoinedStr):
        parts = [_template(value) for value in node.values]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [_template(node.left), _template(node.right)]
    else:
        return "{}", ".*"
    return "".join(text for text, _ in parts), "".join(pattern for _, pattern in parts)


# -- the situations -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Situation:
    """A command that prints a hint, the words that the hint says to type, and a command with these words."""

    command: str
    words: str
    then: str

    def __str__(self) -> str:
        return self.command


def situations(text: str) -> list[Situation]:
    """One situation per line: the command, the words of the hint, the command that follows them."""
    return [Situation(*(part.strip() for part in line.split(" | "))) for line in text.strip().splitlines()]


SITUATIONS = situations((CHECKOUT / "tests" / "hint_situations.txt").read_text(encoding="utf-8"))

RULE = '[[rules]]\nid = "budget"\nmetric = "macs"\nmax = "1 G"\n'

EMBEDDING = """\
from torch import nn

class Net(nn.Module):
{shape}
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(10, 16), nn.Linear(16, 10)

    def forward(self, ids, mask=None):
        x = ids if ids.is_floating_point() else self.head(self.embedding(ids))
        return x if mask is None else x * mask[..., None]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the situations name."""
    monkeypatch.chdir(tmp_path)
    net = ONE_CONV.format(imports="", width="width").replace("def __init__(self)", "def __init__(self, width=8)")
    for folder in ("nets", "toml"):
        Path(folder).mkdir()
    for file in ("net.py", "nets/net.py", "toml/net.py"):
        Path(file).write_text(net + "\n\nmade = Net(4)\nnumber = 3\n\n\ndef nothing():\n    return None\n")
    Path("empty").mkdir()
    Path("broken.py").write_text("def Net(:\n")
    Path("broken.toml").write_text("[models\n")
    Path("broken.profile.json").write_text("{")
    Path("broken.cfg").write_text("[convolutional]\nfilters=8\n")
    Path("net.cfg").write_text("[net]\nwidth=8\nheight=8\nchannels=3\n\n[convolutional]\nfilters=8\nsize=3\n")
    cspprof.profile("resnet10").save("saved.profile.json")
    Path("saved.profile.json").rename("saved.json")
    Path("lm.py").write_text(EMBEDDING.format(shape=""))
    Path("lm2.py").write_text(EMBEDDING.format(shape="    example_input_shape = (1, 4)\n"))
    Path("toml/cspprof.toml").write_text('[models.net]\ntarget = "net.py:Net"\n\n' + RULE)
    Path("weights.pth").touch()
    Path("config.json").write_text("{}")
    Path("hyper.yaml").write_text("width: 4\n")
    Path("mine.csv").write_text("id,label\n1,cat\n")
    Path("out.json").write_text('{\n  "schema": "cspprof.cio/1"\n}\n')
    cspprof.profile("resnet10").save("net2.profile.json")
    Path("broken.measured.json").write_text("{")
    Path("old.measured.json").write_text('{"schema":"cspprof.measured/0"}')
    Path("damaged.measured.json").write_text('{"schema":"cspprof.measured/1"}')
    machine = Machine("CPU", 1, 1 << 30, "Linux", "3.11")
    measured = Measurement(machine, "2026-01-02T03:04:05+00:00", 1, 1, None)
    measured.engines.append(EngineRun("torch"))
    for name in ("resnet10", "net2"):
        measured.models.append(MeasuredModel(name, name, [], replace(cspprof.profile("resnet10"), model=name)))
        measured.timings.append(Timing("torch", len(measured.timings), rounds=[[1.0]]))
    measured.save(Path("saved.measured.json"))


def hint_of(result: Result) -> str:
    """The hint that a command printed: the indented lines below its error."""
    return "\n".join(line[2:] for line in result.err.partition("error: ")[2].splitlines()[1:] if line.startswith("  "))


def matching(printed: str) -> list[Hint]:
    return [hint for hint in hints() if re.fullmatch(f"(?s:{hint.pattern})", printed)]


FAST = ("--format", "--sort", "--by", "-o x.xlsx", "--ascending", "explain gama")


@pytest.mark.parametrize(
    "situation", quick(SITUATIONS, [s for s in SITUATIONS if any(word in s.command for word in FAST)]), ids=str
)
@pytest.mark.usefixtures("project")
def test_a_hint_says_what_to_type_and_it_works(situation: Situation, run: Run) -> None:
    for library in ("torchvision", "timm"):
        if f"{library}:" in situation.then:
            pytest.importorskip(library, reason="the extra is not installed")
    failed = run(*shlex.split(situation.command))
    assert failed.code == 2
    assert situation.words in hint_of(failed), failed.err
    followed = run(*shlex.split(situation.then))
    assert followed.code == 0, followed.err


# -- every hint has a situation -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_hints_without_a_situation_become_fewer(run: Run) -> None:
    printed = {hint_of(run(*shlex.split(s.command))) for s in SITUATIONS}
    covered = {hint for text in printed for hint in matching(text)}
    missing = Counter(hint.file for hint in hints() if hint not in covered)
    more = {file: n for file, n in missing.items() if n > WITHOUT_SITUATION.get(file, 0)}
    listed = "\n".join(f"{h.file}: {h.text}" for h in hints() if h.file in more and h not in covered)
    assert not more, f"add situations for new hints:\n{listed}"


WITHOUT_SITUATION: dict[str, int] = {
    "trace/failure.py": 1,
    "sources/exported_program/memory_limits.py": 3,
    "analysis/whatif.py": 1,
    "api.py": 4,
    "cli/__init__.py": 3,
    "cli/convert.py": 1,
    "cli/measure.py": 1,
    "cli/output.py": 1,
    "cli/specs.py": 1,
    "core/files.py": 1,
    "core/inputs.py": 1,
    "core/units.py": 3,
    "csp/closed_form/forms.py": 1,
    "csp/closed_form/saving.py": 2,
    "csp/conversion/onnx_export.py": 1,
    "csp/conversion/convert.py": 1,
    "csp/conversion/plan.py": 1,
    "csp/conversion/refusals.py": 3,
    "csp/conversion/stage_names.py": 2,
    "gate/baseline.py": 3,
    "gate/checking.py": 1,
    "gate/config.py": 3,
    "gate/init.py": 1,
    "gate/pytest_baseline.py": 1,
    "gate/pytest_fixture.py": 6,
    "gate/revision.py": 5,
    "gate/revision_worker.py": 2,
    "measure/parity.py": 1,
    "measure/random_weights.py": 1,
    "measure/result.py": 1,
    "metrics/definition.py": 1,
    "papers/hardware.py": 1,
    "papers/printed_value.py": 1,
    "papers/published.py": 7,
    "papers/recipes.py": 6,
    "profiles.py": 1,
    "render/netron.py": 1,
    "render/registry.py": 2,
    "report/charts/bottleneck.py": 1,
    "report/charts/execution_order.py": 1,
    "report/charts/fusion.py": 2,
    "report/charts/memory.py": 1,
    "report/charts/roofline.py": 1,
    "report/charts/stages.py": 1,
    "sources/__init__.py": 1,
    "sources/build.py": 3,
    "sources/darknet/__init__.py": 1,
    "sources/darknet/cfg.py": 2,
    "sources/darknet/network.py": 1,
    "sources/exported_program/__init__.py": 1,
    "sources/exported_program/archive.py": 2,
    "sources/exported_program/call_arguments.py": 3,
    "sources/exported_program/expressions.py": 1,
    "sources/exported_program/graph.py": 2,
    "sources/exported_program/modules.py": 2,
    "sources/exported_program/operators.py": 3,
    "sources/exported_program/weights.py": 2,
    "sources/onnx_graph/__init__.py": 2,
    "sources/onnx_graph/graph.py": 4,
    "sources/onnx_graph/model_file.py": 7,
    "sources/python_factory.py": 2,
    "sources/spec_mistakes.py": 2,
    "sources/timm_models.py": 1,
    "sources/torchvision_models.py": 2,
    "storage/measured_file.py": 1,
    "storage/profile_file.py": 3,
    "trace/dispatch.py": 1,
    "trace/fallbacks.py": 2,
    "trace/input_tensors.py": 1,
    "trace/other_counters.py": 1,
    "trace/outputs.py": 4,
    "trace/prepared_model.py": 3,
    "trace/run.py": 5,
    "trace/tensor_meta.py": 1,
    "trace/tensor_subclasses.py": 2,
    "zoo/csp.py": 1,
    "zoo/mobilenet.py": 1,
    "zoo/resnet.py": 2,
}
"""The number of hints in a file that no situation prints yet."""
