"""README and documentation: every command runs, what it prints is what a page shows, and every file it names exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import CHECKOUT, ONE_CONV, Result, quick

import cspprof
from cspprof.cli import COMMANDS

Run = Callable[..., Result]

PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
NEEDS = {
    "timm:": "timm", "torchvision:": "torchvision", ".onnx": "onnx", ".parquet": "pyarrow", "plot ": "matplotlib",
    "verify ": "fvcore",
}  # fmt: skip
"""The text of commands that need an optional library."""


@dataclass(frozen=True)
class Shown:
    """A command on a page, and the lines that the page shows below it."""

    page: Path
    command: str
    output: str

    @property
    def name(self) -> str:
        return f"{self.page.stem}: {self.command}"


def shown_commands() -> Iterator[Shown]:
    """The commands in the console blocks (`$ cspprof …`) and shell blocks (`cspprof …`) of all pages."""
    for page in PAGES:
        fenced = page.read_text(encoding="utf-8").split("```")[1::2]
        blocks = [block.partition("\n")[2] for block in fenced if block.startswith(("\n", "console\n", "sh\n"))]
        for block in blocks:
            parts = re.split(r"^(?:\$ )?(cspprof .*)\n", block, flags=re.M)
            for command, output in zip(parts[1::2], parts[2::2], strict=True):
                yield Shown(page, command.partition(" #")[0].strip(), output.strip("\n"))


SHOWN = list(shown_commands())
"""Commands in the text of a sentence are not here."""
GATE = [s for s in SHOWN if s.command.startswith("cspprof check")]
"""Their output depends on the edits that the page describes; test_guide compares it."""
ENDLESS = [s for s in SHOWN if s.command.startswith("cspprof watch")]
"""They run until Ctrl-C; test_watch compares what they print."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every file that the commands name."""
    monkeypatch.chdir(tmp_path)
    net = ONE_CONV.format(imports="", width="width").replace("def __init__(self)", "def __init__(self, width=8)")
    for folder in ("path/to", "mypkg"):
        Path(folder).mkdir(parents=True)
    Path("mypkg/__init__.py").touch()
    Path("mypkg/models.py").write_text(net + "\n\nbuild = Net\n")
    for file in ("path/to/net.py", "net.py"):
        Path(file).write_text(net)
    Path("table.csv").write_text("model,input,params (k),MACs (k)\nnet.py:Net,8,0.032,1.536\n")
    Path("yolov4-tiny.cfg").write_text("[net]\nwidth=32\nheight=32\nchannels=3\n\n[convolutional]\nfilters=8\nsize=3\n")
    cspprof.profile("resnext50").save("before.profile.json")
    cspprof.profile("net.py:Net").save("net.profile.json")
    return tmp_path


def write_graphs() -> None:
    """`model.onnx` and `net.onnx` with a named node, and `model.pt2`."""
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    import torch

    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    weight = helper.make_tensor("w", float32, (4, 3, 1, 1), [1.0] * 12)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="/conv/Conv")], "net",
        [helper.make_tensor_value_info("x", float32, (1, 3, 640, 640))],
        [helper.make_tensor_value_info("y", float32, (1, 4, 640, 640))], [weight],
    )  # fmt: skip
    for file in ("model.onnx", "net.onnx"):
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), file)
    torch.export.save(torch.export.export(torch.nn.Conv2d(3, 4, 1), (torch.zeros(1, 3, 8, 8),)), "model.pt2")


FAILS = {"cspprof audit example": 1}
"""Exit codes of commands that find something."""
QUICK = {s for s in SHOWN if s.command.split()[1] in ("explain", "metrics", "cache", "--version", "init")} | {SHOWN[0]}


@pytest.mark.parametrize("shown", quick([s for s in SHOWN if s not in GATE + ENDLESS], QUICK), ids=lambda s: s.name)
def test_a_documented_command_runs_and_prints_what_the_page_shows(shown: Shown, run: Run, project: Path) -> None:
    for text, library in NEEDS.items():
        if text in shown.command:
            pytest.importorskip(library, reason=f"{shown.command} needs {library}")
    if ".onnx" in shown.command or ".pt2" in shown.command:
        write_graphs()
    if shown.command.startswith("cspprof baseline"):
        assert run("init").code == run("check", "--update-baseline").code == 0
    arguments = shlex.split(shown.command)[1:]
    got = run(*arguments)
    assert got.code == FAILS.get(shown.command, 0), got.err
    for option in ("-o", "--save"):
        if option in arguments:
            assert Path(arguments[arguments.index(option) + 1]).stat().st_size
    if shown.output:
        compare(got.out, shown.output)


def compare(printed: str, shown: str) -> None:
    """Every shown paragraph is printed, in this order. A paragraph `…` stands for paragraphs that are left out, and
    without that mark nothing is left out."""
    at, cut = 0, False
    for paragraph in shown.split("\n\n"):
        if paragraph == "…":
            cut = True
            continue
        found = printed.find(paragraph, at)
        assert found >= 0, f"not printed:\n{paragraph}"
        assert cut or not printed[at:found].strip(), f"left out without a mark:\n{printed[at:found]}"
        at, cut = found + len(paragraph), False
    assert cut or not printed[at:].strip(), f"left out without a mark:\n{printed[at:]}"


def test_a_cut_without_a_mark_is_found() -> None:
    compare("a\n\nb\n\nc\n", "a\n\n…\n\nc")
    for shown in ("a\n\nc", "a\n\nb", "b\n\nc", "a\n\n…\n\nd"):
        with pytest.raises(AssertionError):
            compare("a\n\nb\n\nc\n", shown)


def test_the_pages_show_many_commands() -> None:
    assert len(SHOWN) > 50
    assert {s.page.name for s in SHOWN} >= {"README.md", "files.md", "profile.md", "reports.md", "ci.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_the_text_exists(page: Path) -> None:
    for command in re.findall(r"`cspprof ([a-z][a-z-]*)", page.read_text(encoding="utf-8")):
        assert command in COMMANDS, f"cspprof {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_in_the_text_exists(page: Path) -> None:
    known = (CHECKOUT / "docs" / "cli.md").read_text() + "--debug --no-cache --version --help --cspprof-update"
    known += "--quick --json"  # of benchmarks/run.py
    for option in re.findall(r"`(?:cspprof [^`]*)?(--[a-z-]+)[ A-Z0-9]*`", page.read_text(encoding="utf-8")):
        assert option in known, option


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_or_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert [target for target in links if target and not (page.parent / target).exists()] == []
    folders = "cspprof|docs|benchmarks|tests|reports|notebooks|templates"
    named = re.findall(rf"`((?:{folders})/[\w/.-]*)`", text)
    assert [file for file in named if not (CHECKOUT / file).exists()] == []
