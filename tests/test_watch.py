"""Live editing: each save of a file that a model depends on is answered, by a real process and within this one."""

from __future__ import annotations

import gc
import os
import re
import shutil
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import CHECKOUT, ONE_CONV, Result
from onnx_models import node, save_graph, value
from preloaded import started_module
from torch import nn

import cspprof
from cspprof.metrics import METRICS
from cspprof.ops import RULES
from cspprof.render import Canvas, render
from cspprof.report.tables import Report, Table
from cspprof.sources import Request, parse
from cspprof.sources.user_modules import named_files, project_folder
from cspprof.watch.file_changes import MOST_REPEATS, FileChanges
from cspprof.watch.session import Session

Run = Callable[..., Result]
ONE_MAC_PER_CHANNEL = 3 * 8 * 8
"""MACs of `ONE_CONV` for each channel of its output."""


def net(width: int | str, imports: str = "") -> str:
    return ONE_CONV.format(imports=imports, width=width)


def save(file: Path, text: str) -> None:
    """As editors do it: write another file, then rename it."""
    other = file.with_name(f".{file.name}.swp")
    other.write_text(text)
    other.replace(file)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a network of 8 channels."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(net(8))
    return tmp_path


class Watch:
    """A session in this process. Its answers are collected, and a save is noticed without a wait."""

    def __init__(self, *specs: str, metrics: tuple[str, ...] = ("macs",), config: Path | None = None) -> None:
        self.answers: list[Report] = []
        self.errors: list[str] = []
        self.session = Session(specs, Request(), metrics, config, self._show, self._show_error)
        self.session.start()

    def _show(self, report: Report) -> bool:
        self.answers.append(report)
        return True

    def _show_error(self, error: Exception) -> None:
        self.errors.append(str(error))

    def saved(self, *files: str, other: bool = False) -> None:
        """The files were saved; with `other`, a file that no model has imported so far."""
        self.session.answer(set() if other else {Path(file).resolve() for file in files or ("net.py",)})

    @property
    def macs(self) -> int:
        """Those of the last answer."""
        return int(dict(zip(headers(self.totals), self.totals.rows[0], strict=True))["now"].value)

    @property
    def totals(self) -> Table:
        return self.answers[-1].tables[0]

    def change(self, column: str) -> str:
        """A cell of the last answer."""
        return dict(zip(headers(self.totals), self.totals.rows[0], strict=True))[column].text


def headers(table: Table) -> list[str]:
    return [column.header for column in table.columns]


# -- the command ----------------------------------------------------------------------------------


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


@pytest.mark.slow
def test_each_save_is_answered_until_ctrl_c(project: Path) -> None:
    """Saves by renaming and in place, of the file and of a helper; errors; the file is removed and written again."""
    Path("widths.py").write_text("WIDTH = 8\n")
    Path("net.py").write_text(net("WIDTH", "from widths import WIDTH"))
    with started_module("cspprof", "watch", "net.py:Net", "--metric", "macs") as watch:
        until(lambda: "Ctrl-C ends" in watch.err)
        assert "watching net.py, widths.py; Ctrl-C ends\n" in watch.err
        assert "MACs  1,536\n" in watch.out
        save(Path("net.py"), net("2 * WIDTH", "from widths import WIDTH"))
        until(lambda: re.search(r"MACs +1,536 +3,072 +\+100.0 % +\+100.0 %\n", watch.out) is not None)
        Path("widths.py").write_text("WIDTH = 4\n")
        until(lambda: re.search(r"MACs +3,072 +1,536 +−50.0 % +0 %\n", watch.out) is not None)
        save(Path("widths.py"), "WIDTH = (\n")
        until(lambda: "error: " in watch.err)
        assert re.findall("error: .*", watch.err) == [f"error: {project / 'widths.py'}, line 1: '(' was never closed"]
        save(Path("widths.py"), "WIDTH = 6\n")
        until(lambda: re.search(r"MACs +1,536 +2,304 +\+50.0 % +\+50.0 %\n", watch.out) is not None)
        Path("net.py").unlink()
        until(lambda: "there is no file net.py" in watch.err)
        save(Path("net.py"), net(10))
        until(lambda: re.search(r"MACs +2,304 +1,920 +−16.7 % +\+25.0 %\n", watch.out) is not None)
        printed, errors = watch.out, watch.err
        assert printed.count("net.py:Net") == 5
        assert "\x1b" not in printed
        watch.interrupt()
        assert watch.wait() == 0
        assert (watch.out, watch.err) == (printed, errors)


def test_the_extra_is_named_if_it_is_not_installed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    failed = run("watch", "net.py:Net")
    assert (failed.code, failed.out) == (2, "")
    assert failed.err == ('error: watching needs the library watchfiles\n  Install it: pip install "cspprof[watch]"\n')


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet10", "resnet10 has no file of yours that can change"),
        ("torch.nn:ReLU", "torch.nn:ReLU has no file of yours that can change"),
        ("nowhere.py:Net", "there is no file nowhere.py"),
        ("nowhere.profile.json", "there is no file nowhere.profile.json"),
        ("nowhere:Net", "there is no module 'nowhere'"),
        ("net.py", "net.py names no class or function of the file"),
        ("net.py:Net,width", "cannot read the option 'width'"),
    ],
)
def test_what_cannot_be_watched_is_refused(spec: str, message: str, run: Run) -> None:
    failed = run("watch", spec)
    assert failed.code == 2
    assert message in failed.err


def test_the_command_ends_when_its_reader_is_gone(project: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cspprof.cli.output.ReportWriter.write", lambda self, report: False)
    assert run("watch", "net.py:Net").code == 0


# -- what is imported again -----------------------------------------------------------------------


@pytest.mark.usefixtures("project")
def test_a_second_save_in_the_same_second_and_of_the_same_size_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python itself would use the bytecode of the first one."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    Path("widths.py").write_text("WIDTH = 4\n")
    Path("net.py").write_text(net("WIDTH", "from widths import WIDTH"))
    watch = Watch("net.py:Net")
    for width in (5, 6, 7):
        Path("widths.py").write_text(f"WIDTH = {width}\n")
        os.utime("widths.py", (1_800_000_000, 1_800_000_000))
        watch.saved("widths.py")
        assert watch.macs == width * ONE_MAC_PER_CHANNEL
    assert not Path("__pycache__").exists()
    assert sys.dont_write_bytecode is False


@pytest.mark.parametrize(
    ("spec", "imports", "width", "helper"),
    [
        ("nets/net.py:Net", "import blocks", "blocks.WIDTH", "nets/blocks.py"),
        ("nets/net.py:Net", "from .blocks import WIDTH", "WIDTH", "nets/blocks.py"),
        ("nets/net.py:Net", "from parts import blocks", "blocks.WIDTH", "nets/parts/blocks.py"),
        ("nets/net.py:Net", "import parts.deep.blocks as b", "b.WIDTH", "nets/parts/deep/blocks.py"),
        ("nets/net.py:Net", "from shared_code import WIDTH", "WIDTH", "lib/shared_code.py"),
        ("nets.net:Net", "from nets import blocks", "blocks.WIDTH", "nets/blocks.py"),
        ("nets.net:Net", "from .parts.blocks import WIDTH", "WIDTH", "nets/parts/blocks.py"),
        ("nets.net:Net", "from shared_code import WIDTH", "WIDTH", "lib/shared_code.py"),
    ],
)
def test_every_module_of_the_project_is_imported_again(
    spec: str, imports: str, width: str, helper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the file, in packages without an `__init__.py`, and in a folder of PYTHONPATH."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "lib"), *sys.path])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    for file, text in {helper: "WIDTH = 4\n", "nets/net.py": net(width, imports)}.items():
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(text)
    known = set(sys.modules)
    watch = Watch(spec)
    assert watch.macs == 4 * ONE_MAC_PER_CHANNEL
    assert {tmp_path / helper, tmp_path / "nets/net.py"} <= watch.session.files
    Path(helper).write_text("WIDTH = 5\n")
    watch.saved(helper)
    assert watch.macs == 5 * ONE_MAC_PER_CHANNEL
    own = ("nets", "blocks", "parts", "shared_code", "cspprof_user")
    assert [name for name in set(sys.modules) - known if name.partition(".")[0] in own] == []


@pytest.mark.usefixtures("project")
def test_a_helper_that_is_added_or_removed_is_followed() -> None:
    watch = Watch("net.py:Net")
    Path("net.py").write_text(net("WIDTH", "from widths import WIDTH"))
    watch.saved()
    assert "No module named 'widths'" in watch.errors[0]
    watch.saved(other=True)
    assert len(watch.errors) == 1  # another file changed, and the error is the same
    Path("widths.py").write_text("WIDTH = 2\n")
    watch.saved(other=True)
    assert watch.macs == 2 * ONE_MAC_PER_CHANNEL
    assert Path("widths.py").resolve() in watch.session.files
    Path("net.py").write_text(net(3))
    watch.saved()
    assert Path("widths.py").resolve() not in watch.session.files


@pytest.mark.usefixtures("project")
def test_another_file_that_the_code_reads_is_answered_only_if_a_number_changes() -> None:
    Path("width.json").write_text("4")
    Path("net.py").write_text(net("int(Path('width.json').read_text())", "from pathlib import Path"))
    watch = Watch("net.py:Net")
    watch.saved(other=True)
    assert len(watch.answers) == 1
    Path("width.json").write_text("9")
    watch.saved(other=True)
    assert (len(watch.answers), watch.macs) == (2, 9 * ONE_MAC_PER_CHANNEL)


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_what_the_code_registers_is_registered_again() -> None:
    """A metric, a rule and a custom operation, which can each be registered once."""
    Path("net.py").write_text(
        "import cspprof, torch\nfrom torch import nn\nfrom torch.utils.flop_counter import register_flop_formula\n"
        "@cspprof.metric('mine', unit='ops')\ndef mine(op):\n    '''One for each operation.'''\n    return 1\n"
        "@torch.library.custom_op('watched::double', mutates_args=())\n"
        "def double(x: torch.Tensor) -> torch.Tensor:\n    return x * 2\n"
        "@double.register_fake\ndef _(x):\n    return torch.empty_like(x)\n"
        "@cspprof.op_rule('watched.double')\ndef rule(x, *, out):\n    return cspprof.Facts('conv', macs=100)\n"
        "@register_flop_formula(torch.ops.watched.double)\ndef formula(x, out_shape=None, **kwargs):\n    return 7\n"
        "class Net(nn.Module):\n    example_input_shape = (1, 4)\n    def forward(self, x): return double(x)\n"
    )
    watch = Watch("net.py:Net")
    assert watch.macs == 100
    gc.collect()
    Path("net.py").write_text(Path("net.py").read_text().replace("macs=100", "macs=50"))
    watch.saved()
    assert (watch.errors, watch.macs) == ([], 50)
    assert "mine" not in METRICS
    assert "watched.double" not in RULES


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_versions_of_the_code_are_freed() -> None:
    """Of 50 versions, none is alive at the end: neither modules nor classes."""
    alive: list[weakref.ref[Any]] = []
    module = sys.modules["seen_versions"] = ModuleType("seen_versions")
    vars(module)["alive"] = alive
    code = "import weakref, seen_versions\nseen_versions.alive.append(weakref.ref(Net))\n"
    try:
        Path("net.py").write_text(net(8) + code)
        watch = Watch("net.py:Net")
        gc.collect()
        gc.freeze()
        objects = []
        for width in range(1, 51):
            Path("net.py").write_text(net(width) + code)
            watch.saved()
            watch.answers.clear()
            gc.collect()
            objects.append(len(gc.get_objects()))
        assert watch.session.models[0].number == 51
    finally:
        gc.unfreeze()
        del sys.modules["seen_versions"]
    assert len(alive) == 51
    assert [ref for ref in alive if ref() is not None] == []
    assert objects[-1] - objects[9] < 4_000  # the metas of 40 more shapes


# -- SPECs ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("project")
def test_graphs_and_saved_profiles_are_watched_by_content(tmp_path: Path) -> None:
    def write(width: int) -> None:
        Path("net.cfg").write_text(
            f"[net]\nwidth=8\nheight=8\nchannels=3\n\n[convolutional]\nfilters={width}\nsize=1\n"
        )
        Path("net.py").write_text(net(width))
        cspprof.profile("net.py:Net").save("net.profile.json")
        shapes = [value("x", [1, 3, 8, 8])], [value("y", [1, width, 8, 8])]
        save_graph(Path("net.onnx"), [node("Conv", "x", "w")], *shapes, {"w": (width, 3, 1, 1)})
        program = torch.export.export(nn.Conv2d(3, width, 1), (torch.zeros(1, 3, 8, 8),))
        torch.export.save(program, "new.pt2")
        Path("new.pt2").replace("net.pt2")

    specs = ["net.cfg", "net.onnx", "net.profile.json", "net.pt2"]
    write(8)
    watch = Watch(*specs)
    write(16)
    for count, spec in enumerate(specs, len(specs) + 1):
        watch.saved(spec)
        assert (watch.macs, len(watch.answers)) == (16 * ONE_MAC_PER_CHANNEL, count)
        assert watch.change("change") == watch.change("since the start") == "+100.0 %"
    watch.saved(other=True)
    Path("net.cfg").write_text("[net]\nwidth=\n")
    watch.saved("net.cfg")
    assert (len(watch.answers), len(watch.errors)) == (2 * len(specs), 1)


@pytest.mark.usefixtures("project")
def test_several_models_of_one_file_have_an_answer_each_and_one_error() -> None:
    Path("net.py").write_text(net(8) + "\n\nclass Wide(Net):\n    def __init__(self):\n        super().__init__()\n")
    watch = Watch("net.py:Net", "net.py:Wide", "net.py:Net")
    assert len(watch.answers) == 2
    save(Path("net.py"), Path("net.py").read_text().replace("nn.Conv2d(3, 8, 1)", "nn.Conv2d(3, 9, 1)"))
    watch.saved()
    assert [report.tables[0].title for report in watch.answers[2:]] == [
        "net.py:Net, version 2",
        "net.py:Wide, version 2",
    ]
    Path("net.py").write_text("1 / 0\n")
    watch.saved()
    assert len(watch.errors) == 1
    assert "ZeroDivisionError: division by zero (net.py, line 1)" in watch.errors[0]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("class Net(:\n", "net.py, line 1: invalid syntax"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        (net(8).replace("Net(nn", "Other(nn"), "net.py has no 'Net'"),
        (net("'a'"), "building net.py:Net failed"),
        (net(8).replace("self.conv(x)", "self.conv(x) + x"), "failed at aten.add on 1×8×8×8, 1×3×8×8"),
        (net(8).replace("self.conv(x)", "exit()"), "SystemExit: None (net.py, line 12)"),
    ],
)
def test_an_error_is_shown_once_for_each_save_and_the_next_save_is_answered(broken: str, message: str) -> None:
    watch = Watch("net.py:Net")
    for count in (1, 2):
        Path("net.py").write_text(broken)
        watch.saved()
        assert len(watch.errors) == count
        assert message in watch.errors[-1]
    Path("net.py").write_text(net(8))
    watch.saved()
    assert (len(watch.answers), watch.macs, watch.answers[-1].notes) == (
        2,
        8 * ONE_MAC_PER_CHANNEL,
        ("no number changed",),
    )


@pytest.mark.usefixtures("project")
def test_a_file_that_is_broken_at_the_start_is_watched() -> None:
    Path("net.py").write_text("class Net(:\n")
    watch = Watch("net.py:Net")
    assert (len(watch.answers), len(watch.errors)) == (0, 1)
    Path("net.py").write_text(net(8))
    watch.saved()
    assert headers(watch.totals) == ["", "now"]
    Path("net.py").write_text(net(12))
    watch.saved()
    assert watch.change("since the start") == "+50.0 %"


@pytest.mark.usefixtures("project")
def test_the_layers_that_changed_are_listed() -> None:
    watch = Watch("net.py:Net")
    Path("net.py").write_text(net(12))
    watch.saved()
    layers = watch.answers[-1].tables[1]
    assert (layers.title, headers(layers)) == (
        "Layers that changed most: MACs",
        ["layer", "before", "now", "difference"],
    )
    assert [[cell.text for cell in row] for row in layers.rows] == [["conv", "1,536", "2,304", "+768"]]
    Path("net.py").write_text(net(12).replace("self.conv(x)", "self.conv(x.relu())"))
    watch.saved()
    assert watch.answers[-1].notes == ("the structure changed, with the same totals",)
    Path("net.py").write_text(net(12).replace("(1, 3, 8, 8)", "(1, 3, 9, 9)"))
    watch.saved()
    assert watch.answers[-1].notes == ("the input changed: 1×3×8×8 before, 1×3×9×9 now",)


# -- rules and baseline ---------------------------------------------------------------------------

CONFIG = """
[models.net]
target = "net.py:Net"
input = "1x3x4x4"

[[rules]]
id = "budget"
metric = "macs"
max = 400

[[rules]]
id = "speed"
metric = "latency_ms"
engine = "torch"
max_increase = "10%"
"""


def rows(report: Report) -> list[tuple[str, str, bool | None]]:
    """Rule, status and color of each row of the rules of an answer."""
    table = next(t for t in report.tables if t.title == "Rules of cspprof.toml")
    return [(row[0].text, row[-1].text, row[-1].good) for row in table.rows]


@pytest.mark.usefixtures("project")
def test_rules_and_recorded_baseline_of_the_project(run: Run) -> None:
    """The model has the input of the configuration. A change of rules is an answer, an error in them too."""
    Path("cspprof.toml").write_text(CONFIG)
    Path("net.py").write_text(net(4))
    assert run("check", "--update-baseline").code == 0
    Path("net.py").write_text(net(8))
    watch = Watch("net.py:Net")
    assert (watch.macs, rows(watch.answers[-1])) == (8 * 3 * 16, [("budget", "ok", True)])
    assert "\x1b[32mok" in render("rich", watch.answers[-1], Canvas(100, color=True)).decode()
    assert watch.change("since the baseline") == "+100.0 %"
    assert "rules that run an engine are left to cspprof check: speed" in watch.answers[-1].notes
    Path("net.py").write_text(net(9))
    watch.saved()
    assert rows(watch.answers[-1]) == [("budget", "FAIL", False)]
    assert "\x1b[31mFAIL" in render("rich", watch.answers[-1], Canvas(100, color=True)).decode()
    assert any("macs of net is 432; the limit is 400" in note for note in watch.answers[-1].notes)
    assert (watch.change("change"), watch.change("since the baseline")) == ("+12.5 %", "+125.0 %")
    Path("cspprof.toml").write_text(CONFIG.replace("400", "432").replace("models.net", 'models."net[1]"'))
    watch.saved("cspprof.toml")
    assert rows(watch.answers[-1]) == [("budget", "ok", True)]
    Path("cspprof.toml").write_text("[models\n")
    watch.saved("cspprof.toml")
    assert len(watch.errors) == 1
    assert "cspprof.toml is not TOML" in watch.errors[0]
    assert "Rules of cspprof.toml" not in {table.title for table in watch.answers[-1].tables}
    Path("cspprof.toml").write_text(CONFIG)
    watch.saved("cspprof.toml")
    assert rows(watch.answers[-1]) == [("budget", "FAIL", False)]
    assert run("check", "--update-baseline").code == 0
    watch.saved("cspprof-baseline.json")
    assert watch.change("since the baseline") == "0 %"


@pytest.mark.usefixtures("project")
def test_a_model_that_the_configuration_does_not_name_has_no_rules() -> None:
    Path("cspprof.toml").write_text(CONFIG.replace("net.py:Net", "net.py:Net,width=4"))
    watch = Watch("net.py:Net")
    assert watch.macs == 8 * ONE_MAC_PER_CHANNEL
    assert len(watch.answers[-1].tables) == 1


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("max = 400", 'max = "400 Q"', "cannot read the quantity '400 Q'"),
        ('metric = "macs"', 'metric = "mcs"', "no metric named 'mcs'"),
        ('id = "budget"', 'id = "budget"\nmodel = "nte"', "no model matches 'nte'"),
        ('input = "1x3x4x4"', 'input = "3x"', "cannot read the input '3x'"),
    ],
)
def test_a_rule_or_model_that_cannot_be_read_is_named_in_each_answer(right: str, wrong: str, problem: str) -> None:
    Path("cspprof.toml").write_text(CONFIG)
    watch = Watch("net.py:Net")
    Path("cspprof.toml").write_text(CONFIG.replace(right, wrong))
    watch.saved("cspprof.toml")
    for answer in (watch.answers[-1], Watch("net.py:Net").answers[-1]):
        table = next(t for t in answer.tables if t.title == "Could not be measured")
        assert any(problem in row[1].text for row in table.rows)


@pytest.mark.usefixtures("project")
def test_a_wrong_configuration_at_the_start_is_an_error(run: Run) -> None:
    Path("cspprof.toml").write_text("[models\n")
    failed = run("watch", "net.py:Net")
    assert failed.code == 2
    assert "cspprof.toml is not TOML" in failed.err


# -- waiting for saves ----------------------------------------------------------------------------


@pytest.fixture
def changes(project: Path) -> Any:
    """Those of `net.py` and of its folder."""
    waiting = FileChanges()
    waiting.follow([project / "net.py"])
    waiting.follow([project / "net.py"])  # it was written just before
    yield waiting
    waiting.close()


def later(action: Callable[[], object]) -> None:
    """Run `action` while the test waits."""
    threading.Timer(0.03, action).start()


def test_a_save_ends_the_wait(project: Path, changes: FileChanges) -> None:
    for action in (
        lambda: save(project / "net.py", net(9)),
        lambda: (project / "net.py").write_text(net(10)),
        lambda: (project / "net.py").touch(),
    ):
        later(action)
        assert changes.wait() == {project / "net.py"}
        changes.follow([project / "net.py"])


def test_a_change_of_a_folder_is_no_save(project: Path, changes: FileChanges) -> None:
    """Also of the folder of a package without an `__init__.py`."""
    changes.follow([project / "net.py", project])
    later(lambda: (project / "other.py").touch())
    assert changes.wait() == set()


def test_several_writes_are_one_save(project: Path, changes: FileChanges) -> None:
    def in_pieces() -> None:
        shutil.move(project / "net.py", project / "net.py~")
        (project / "net.py").touch()
        time.sleep(0.06)  # the file is empty
        (project / "net.py").write_text(net(9))

    later(in_pieces)
    assert changes.wait() == {project / "net.py"}
    assert (project / "net.py").read_text() == net(9)
    changes.follow([project / "net.py"])
    later(lambda: (project / "other.json").touch())
    assert changes.wait() == set()


def test_a_folder_that_is_removed_and_made_again_is_watched(project: Path) -> None:
    file = project / "nets" / "net.py"
    file.parent.mkdir()
    file.write_text(net(8))
    changes = FileChanges()
    try:
        for _ in range(2):
            changes.follow([file])
        later(lambda: shutil.rmtree(file.parent))
        assert changes.wait() == {file}
        changes.follow([file])

        def again() -> None:
            file.parent.mkdir()
            file.write_text(net(9))

        later(again)
        assert changes.wait() == {file}
    finally:
        changes.close()


def test_a_file_that_changes_while_code_runs_is_traced_again(project: Path, changes: FileChanges) -> None:
    """But not for ever: the code of a model may write its files itself."""
    ended = threading.Event()
    later((project / "net.py").touch)
    assert changes.wait() == {project / "net.py"}
    for repeat in range(MOST_REPEATS + 1):
        with changes.while_code_runs():
            save(project / "net.py", net(9 + repeat))
        changes.follow([project / "net.py"])
        if repeat < MOST_REPEATS:
            assert changes.wait() == set()
    threading.Timer(0.5, lambda: (ended.set(), (project / "net.py").touch())).start()
    assert changes.wait() == {project / "net.py"}
    assert ended.is_set()


def test_no_save_between_a_trace_and_the_next_wait_is_lost(project: Path, changes: FileChanges) -> None:
    """Saves follow each other, each before the wait for it begins; also one while the code runs."""
    later((project / "net.py").touch)
    assert changes.wait() == {project / "net.py"}
    with changes.while_code_runs():
        save(project / "net.py", net(8))
    for width in (9, 10, 11):
        save(project / "net.py", net(width))
        changes.follow([project / "net.py"])
        fallback = threading.Timer(5, (project / "net.py").touch)  # ends the wait for a save that was lost
        fallback.start()
        assert changes.wait() == set()
        fallback.cancel()


def test_files_that_the_code_writes_in_each_trace_do_not_end_the_wait(project: Path, changes: FileChanges) -> None:
    """A file that it replaces, and a file with a new name: after some repeated traces there are no more."""
    ended = threading.Event()
    later((project / "net.py").touch)
    assert changes.wait() == {project / "net.py"}
    for repeat in range(MOST_REPEATS + 1):
        with changes.while_code_runs():
            (project / "made.json").write_text(f"{repeat}")
            (project / f"log{repeat}.json").touch()
        changes.follow([project / "net.py"])
        if repeat < MOST_REPEATS:
            assert changes.wait() == set()
    threading.Timer(0.5, lambda: (ended.set(), (project / "net.py").touch())).start()
    assert changes.wait() == {project / "net.py"}
    assert ended.is_set()


def test_files_of_a_spec(project: Path) -> None:
    for name in ("nets/net.py", "hyper.yaml", "pkg/__init__.py"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).touch()
    for spec, files in {
        "net.py:Net": ["net.py"],
        "nets/net.py:Net,cfg=hyper.yaml,other=none.yaml": ["nets/net.py", "hyper.yaml"],
        "nets.net:Net": ["nets/net.py"],
        "pkg:Net": ["pkg/__init__.py"],
        "gone.py:Net": ["gone.py"],
        "gone.onnx": ["gone.onnx"],
        "x.measured.json,model=a": ["x.measured.json"],
        "torch.nn:ReLU": [],
        "resnet50": [],
        "timm:resnet50": [],
    }.items():
        assert named_files(parse(spec)) == {project / file for file in files}, spec
    assert project_folder(project / "nets" / "net.py") == project / "nets"
    (project / "pyproject.toml").touch()
    assert project_folder(project / "nets" / "net.py") == project


# -- the guide ------------------------------------------------------------------------------------


def test_the_guide_shows_what_is_printed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page has a network, a configuration, and the answers to a wider layer and to an error."""
    page = (CHECKOUT / "docs" / "guide" / "watch.md").read_text(encoding="utf-8")
    code, wider = re.findall(r"```python\n(.*?)```", page, re.S)[:2]
    config = re.findall(r"```toml\n(.*?)```", page, re.S)[0]
    shown = re.findall(r"```text\n(.*?)```", page, re.S)
    old, new = (line[2:] for line in wider.splitlines())
    Path("net.py").write_text(code)
    Path("cspprof.toml").write_text(config)
    watch = Watch("net.py:Net", metrics=())
    assert old in code
    Path("net.py").write_text(code.replace(old, new))
    watch.saved()
    printed = [render("rich", report).decode() for report in watch.answers]
    assert printed == shown[:2]
