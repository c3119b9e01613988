"""Hints of errors: each is printed in a situation, and what it says to type works.

The hints are collected from the source (`hints_in_source`). The situations in `hint_situations.txt` and the functions
in `SPECIAL` print them and follow them. Only the hints of the files in `WITHOUT_SITUATION` may have none.
"""

from __future__ import annotations

import errno
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import CHECKOUT, ONE_CONV, Result, git, quick
from hint_examples import FILES, calibrated
from hints_in_source import Hint, hints
from onnx_models import node, save_graph, value

import cspprof
from cspprof.core.errors import CspprofError
from cspprof.measure.machine import Machine
from cspprof.measure.result import EngineRun, MeasuredModel, Measurement, Timing
from cspprof.render.registry import RENDERERS, renderer
from cspprof.sweeps.journal import SqliteJournal

Run = Callable[..., Result]


# -- the situations -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Situation:
    """A command that prints a hint, the words that the hint says to type, and a command with these words.

    A command is one of `cspprof`, or behind `>>>` an expression with the names of `hint_examples`.
    """

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


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the situations name."""
    folder = tmp_path_factory.mktemp("files")
    net = ONE_CONV.format(imports="", width="width").replace("def __init__(self)", "def __init__(self, width=8)")
    net += "\n\nmade = Net(4)\nnumber = 3\n\n\ndef nothing():\n    return None\n"
    written: dict[str, str | bytes] = {
        **dict.fromkeys(("net.py", "nets/net.py", "toml/net.py"), net),
        **FILES,
        "broken.py": "def Net(:\n",
        "broken.toml": "[models\n",
        "broken.profile.json": "{",
        "broken.cfg": "[convolutional]\nfilters=8\n",
        "net.cfg": "[net]\nwidth=8\nheight=8\nchannels=3\n\n[convolutional]\nfilters=8\nsize=3\n",
        "big.cfg": "[net]\nwidth=6\nheight=6\nchannels=8\n\n[maxpool]\nsize=214748364\n",
        "lm.py": EMBEDDING.format(shape=""),
        "lm2.py": EMBEDDING.format(shape="    example_input_shape = (1, 4)\n"),
        "toml/cspprof.toml": '[models.net]\ntarget = "net.py:Net"\n\n' + RULE,
        "weights.pth": "",
        "config.json": "{}",
        "hyper.yaml": "width: 4\n",
        "mine.csv": "id,label\n1,cat\n",
        "out.json": '{\n  "schema": "cspprof.cio/1"\n}\n',
        "space.toml": 'models = ["csp_peleenet"]\ngrid.gamma = "0.25:0.75:0.125"\n',
        "binary.cfg": b"[net]\n\xff\xfe",
        "empty.onnx": "",
        "cut.onnx": b"\x08\x0a\x12",
        "empty.pt2": "",
    }
    for name, content in written.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in ("empty", "folder.profile.json"):
        (folder / name).mkdir()
    cspprof.profile("resnet10").save(folder / "net2.profile.json")
    SqliteJournal(folder / "new.sweep").close()
    shutil.copy(folder / "net2.profile.json", folder / "saved.json")
    save_graph(folder / "small.onnx", [node("Relu", "x")], [value("x", [1, 4])], [value("y", [1, 4])])
    machine = Machine("CPU", 1, 1 << 30, "Linux", "3.11")
    measured = Measurement(machine, "2026-01-02T03:04:05+00:00", 1, 1, None)
    measured.engines.append(EngineRun("torch"))
    for name in ("resnet10", "net2"):
        measured.models.append(MeasuredModel(name, name, [], replace(cspprof.profile("resnet10"), model=name)))
        measured.timings.append(Timing("torch", len(measured.timings), rounds=[[1.0]]))
    measured.save(folder / "saved.measured.json")
    calibrated().save(folder / "saved.calibration.json")
    return folder


@pytest.fixture
def project(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the files is the current folder."""
    shutil.copytree(files, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("CSPPROF_CALIBRATION_DIR", str(tmp_path / "calibrations"))
    monkeypatch.setattr("cspprof.sweeps.executors.CONNECT_SECONDS", 1)


def hint_of(result: Result) -> str:
    """The hint that a command printed: the indented lines below its error."""
    return "\n".join(line[2:] for line in result.err.partition("error: ")[2].splitlines()[1:] if line.startswith("  "))


def evaluate(expression: str) -> object:
    import hint_examples

    return eval(expression, dict(vars(hint_examples)))


def printed_hint(command: str, run: Run) -> str:
    """The hint that a command prints, or that an expression raises."""
    if command.startswith(">>>"):
        with pytest.raises(CspprofError) as raised:
            evaluate(command[3:].strip())
        return raised.value.hint or ""
    failed = run(*shlex.split(command))
    assert failed.code in (1, 2), command
    return hint_of(failed)


def matching(printed: str) -> list[Hint]:
    return [hint for hint in hints() if re.fullmatch(f"(?s:{hint.pattern})", printed)]


FAST = (
    "--format", "--sort", "--by", "-o x.xlsx", "--ascending", "explain gama", ">>> cfg(", ">>> figure(", ">>> tables(",
    ">>> parse_quantity(", "cio forwards.py:Scaled", "cio forwards.py:Resized", ">>> fixture().assert",
)  # fmt: skip
"""Words of the situations that are tested in every run."""


@pytest.mark.parametrize(
    "situation", quick(SITUATIONS, [s for s in SITUATIONS if any(word in s.command for word in FAST)]), ids=str
)
@pytest.mark.usefixtures("project")
def test_a_hint_says_what_to_type_and_it_works(situation: Situation, run: Run) -> None:
    for library in ("torchvision", "timm"):
        if f"{library}:" in situation.then:
            pytest.importorskip(library, reason="the extra is not installed")
    printed = printed_hint(situation.command, run)
    assert situation.words in printed
    if situation.then.startswith(">>>"):
        evaluate(situation.then[3:].strip())
    else:
        followed = run(*shlex.split(situation.then))
        assert followed.code == 0, followed.err


# -- situations that need another environment -----------------------------------------------------

Special = Callable[[Run, pytest.MonkeyPatch], Iterator[str]]
SPECIAL: list[Special] = []
"""Functions that yield the hints that they have printed and followed."""


def special(function: Special) -> Special:
    SPECIAL.append(function)
    return function


@special
def _a_library_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each hint names an extra that the package defines, and the extra has the library."""
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    for library, command in (
        ("timm", "cio timm:resnet18"), ("torchvision", "cio torchvision:resnet18"), ("onnx", "cio small.onnx"),
        ("pyarrow", "cio resnet10 -o x.parquet"), ("psutil", "measure net.py:Net"),
        ("distributed", "sweep resnet10 --scheduler tcp://127.0.0.1:9"), ("optuna", "sweep resnet10 --search tpe"),
        ("mlflow", "sweep resnet10 --tracker mlflow:sqlite:///x.db"),
        ("tensorboard", "sweep resnet10 --tracker tensorboard:runs"), ("watchfiles", "watch net.py:Net"),
    ):  # fmt: skip
        with monkeypatch.context() as without:
            for name in [n for n in sys.modules if n.partition(".")[0] == library]:
                without.setitem(sys.modules, name, None)
            without.setitem(sys.modules, library, None)
            hint = printed_hint(command, run)
        extra = re.search(r"cspprof\[(\w+)\]", hint)
        assert extra is not None
        assert any(library in requirement for requirement in extras[extra[1]])
        yield hint


@special
def _an_operator_of_a_missing_library(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "torchvision", None)
        yield printed_hint(
            '>>> program(document(call("torch.ops.torchvision.nms.default", [named("y")], self=named("x"))))', run
        )
    run("cio", "resnet10")


@special
def _the_disk_is_full(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("cspprof.profiles.Profile.save", full)
        yield printed_hint("profile resnet10 --save y.profile.json", run)
    assert run("profile", "resnet10", "--save", "y.profile.json").code == 0


@special
def _a_bug(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    def wrong(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr("cspprof.cli.profile.profile_specs", wrong)
        yield printed_hint("cio resnet10", run)
        assert "Traceback" in run("cio", "resnet10", "--debug").err


@special
def _standard_output_takes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with monkeypatch.context() as patched:
        patched.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        yield printed_hint("cio resnet10 --format parquet", run)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", None)
        yield printed_hint('>>> write_bytes(b"", None)', run)
    assert run("cio", "resnet10", "-o", "closed.csv").code == 0


@special
def _files_cannot_be_read_or_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    def denied(*arguments: object, **options: object) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    Path("denied.csv").write_text("model,metric\n")
    with monkeypatch.context() as patched:
        patched.setattr("os.access", lambda *_: False)
        yield printed_hint("cio resnet10 -o x.csv", run)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", denied)
        yield printed_hint("cio resnet10 -o denied.csv", run)
    with monkeypatch.context() as patched:
        patched.setattr("tempfile.mkstemp", denied)
        yield printed_hint("cio resnet10 -o x.csv", run)
    assert run("cio", "resnet10", "-o", "other.csv").code == 0
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", denied)
        yield printed_hint("check --config toml/cspprof.toml", run)
    assert run("check", "--config", "toml/cspprof.toml").code == 0


@special
def _more_memory_than_is_taken_without_a_request(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with monkeypatch.context() as patched:
        patched.setattr("cspprof.sources.build.MOST_WEIGHT_BYTES", 1)
        yield printed_hint("cio forwards.py:Values", run)
        assert run("cio", "forwards.py:Values", "--device", "cpu").code == 0
        yield printed_hint("cio resnet10 --deploy", run)
        assert run("cio", "resnet10", "--deploy", "--device", "cpu").code == 0
    with monkeypatch.context() as patched:
        patched.setattr("cspprof.trace.fallbacks.MOST_INPUT_BYTES", 1)
        yield printed_hint(">>> profile(FromValues(), IMAGE)", run)
        evaluate('profile(FromValues(), IMAGE, device="cpu")')
    with monkeypatch.context() as patched:
        patched.setattr("cspprof.measure.session.available_memory", lambda: 0)
        yield printed_hint('>>> refuse_without_memory(profile("resnet10"))', run)
    evaluate('refuse_without_memory(profile("resnet10", (1, 3, 128, 128)))')


@special
def _a_distributed_module(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Without a group of processes: an object of the class is enough."""
    import torch.distributed.fsdp as fsdp

    model = torch.nn.Conv2d(3, 8, 1)
    wrapped = torch.nn.Conv2d(3, 8, 1)
    wrapped.__class__ = type("Wrapped", (fsdp.FSDPModule, torch.nn.Conv2d), {})
    with pytest.raises(CspprofError) as raised:
        cspprof.profile(wrapped, (1, 3, 8, 8))
    yield raised.value.hint or ""
    cspprof.profile(model, (1, 3, 8, 8))


@special
def _a_format_without_an_ending(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    renderer("plain", is_own=lambda head: True)(lambda report, canvas: "")
    try:
        yield printed_hint("cio resnet10 --format plain -o x.csv", run)
        assert run("cio", "resnet10", "--format", "plain", "-o", "x.plain").code == 0
    finally:
        RENDERERS.remove("plain")


@special
def _revisions_of_git(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    against = "check --config toml/cspprof.toml --against HEAD"
    yield printed_hint(against, run)  # no repository
    git(Path("toml"), "init", "--quiet")
    git(Path("toml"), "add", ".")
    git(Path("toml"), "commit", "--quiet", "-m", "first")
    with monkeypatch.context() as patched:
        patched.setenv("PATH", "")
        yield printed_hint(against, run)
    yield printed_hint(against.replace("HEAD", "nothing"), run)
    Path("toml/.git/worktrees").touch()  # git cannot add a working tree
    yield printed_hint(against, run)
    Path("toml/.git/worktrees").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/bin/false")
        yield printed_hint(against, run)
    assert run(*shlex.split(against)).code == 0
    for call in (
        'measure_at("net", {"model": {"target": "net.py:Net"}}, Path("gone"))',
        'refuse_working_copy(Path("toml").resolve(), Path("toml").resolve())',
    ):
        monkeypatch.setitem(
            sys.modules, "example_of_a_working_copy", SimpleNamespace(__file__=str(Path("toml/net.py").resolve()))
        )
        yield printed_hint(f">>> {call}", run)
    monkeypatch.delitem(sys.modules, "example_of_a_working_copy")


@pytest.mark.parametrize("situation", quick(SPECIAL, 0), ids=lambda s: s.__name__.strip("_").replace("_", " "))
@pytest.mark.usefixtures("project")
def test_a_hint_in_another_environment(situation: Special, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = list(situation(run, monkeypatch))
    assert printed
    assert all(matching(hint) for hint in printed), printed


# -- every hint has a situation -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_every_hint_has_a_situation(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = {printed_hint(s.command, run) for s in SITUATIONS}
    printed |= {hint for situation in SPECIAL for hint in situation(run, monkeypatch)}
    covered = {hint for text in printed for hint in matching(text)}
    missing = [hint for hint in hints() if hint not in covered]
    listed = "\n".join(f"{h.file}: {h.text}" for h in missing if h.file not in WITHOUT_SITUATION)
    assert not listed, f"add situations for new hints:\n{listed}"
    assert set(WITHOUT_SITUATION) <= {hint.file for hint in missing}, "remove what has situations now"


WITHOUT_SITUATION: dict[str, str] = {}
"""Files with hints that no situation prints, and why."""
