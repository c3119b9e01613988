"""SPECs that name no model: the error says what they are, and its hint is what to type."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result
from preloaded import run_module

import cspprof
from cspprof.core.errors import SourceError
from cspprof.profiles import profile_spec
from cspprof.sources.spec_mistakes import factories_of, library_with

Run = Callable[..., Result]

NET = """\
from torch import nn
{imports}

class Config: pass

class Net(nn.Module):
    example_input_shape = (1, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.conv(x)

class Wide(Net): pass

class _Part(nn.Module): pass

def build():
    return Net()
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for folder in ("nets", "pkg/sub", "src/inner", "empty"):
        Path(folder).mkdir(parents=True)
    Path("nets/net.py").write_text(NET.format(imports=""))
    Path("empty.py").write_text("x = 1\n")
    Path("weights.pth").write_bytes(b"PK")
    Path("config.json").write_text('{"architectures": ["ResNet"]}')
    Path("hyper.yaml").write_text("width: 4\n")
    for init in ("pkg/__init__.py", "pkg/sub/__init__.py", "src/inner/__init__.py"):
        Path(init).touch()
    for blocks in ("pkg/blocks.py", "src/inner/blocks.py"):
        Path(blocks).write_text(NET.format(imports=""))
    Path("pkg/sub/net.py").write_text(NET.format(imports="from ..blocks import Net"))
    Path("nets/uses_pkg.py").write_text(NET.format(imports="from pkg.blocks import Net"))
    Path("nets/uses_src.py").write_text(NET.format(imports="import inner.blocks"))
    Path("nets/uses_nothing.py").write_text(NET.format(imports="import nowhere_at_all"))
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("weights.pth", "weights.pth holds weights, or a pickle that would run code"),
        ("model.safetensors", "holds weights.*\n.*file.py:factory.*torch.export.save.*model.pt2"),
        ("net.tflite", r"a graph of TensorFlow Lite, which cspprof does not read\n.*net.onnx"),
        ("nets", r"nets is a folder, not a model\nName a model in it: nets/net.py:Net, nets/net.py:Wide, "),
        ("empty", r"empty is a folder, not a model\nName a file in it"),
        ("nets/net.py", r"no class or function.*\nName a class or function in it: nets/net.py:Net, nets/net.py:Wide, "),
        ("nets/net.py:", r"no class or function.*\nName a class or function in it: nets/net.py:Net"),
        ("empty.py", r"no class or function.*\nIt defines no class or function"),
        ("nte/net.py", r"there is no file nte/net.py: the folder nte is missing"),
        ("nets/nte.py:Net", r"there is no file nets/nte.py\nDid you mean: nets/net.py"),
        ("nets/net.py::Net", r"has two colons\nWrite one: nets/net.py:Net"),
        ("nope.py::Net", "there is no file nope.py"),
        ("config.json", r"config.json is a configuration or other data.*\nName the code .* end in .profile.json"),
        ("hyper.yaml", r"hyper.yaml is a file of a kind that cspprof does not read\n.*cspprof models"),
        ("https://example.org/net.py:Net", "is an address, and nothing is downloaded"),
        ("inner.blocks:Net", r"there is no module 'inner'\nIt is in src. Make it importable: PYTHONPATH=src"),
        ("nets/net:Net", r"there is no module 'nets/net'\nName the file: nets/net.py"),
        ("nowhere_at_all:Net", r"there is no module 'nowhere_at_all'\nRun in a folder"),
        ("nets/uses_src.py:Net", r"No module named 'inner' .*\ninner is in src. .*: PYTHONPATH=src cspprof"),
        ("nets/uses_nothing.py:Net", r"'nowhere_at_all' .*\nInstall the package that contains nowhere_at_all"),
        ("pkg/sub/net.py:Net", r"relative import .*\n.*package: pkg.sub.net:factory"),
        ("ResNeXt50", r"no model named 'ResNeXt50'\nDid you mean: resnext50"),
        ("qqqq", r"no model named 'qqqq'\nThe zoo: cspprof models"),
    ],
)  # fmt: skip
def test_the_error_says_what_the_spec_is_and_what_to_type(spec: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        profile_spec(spec)


@pytest.mark.parametrize("spec", ["nets/net.py", "nets", "nets/net.py::Net"])
def test_every_named_spec_of_the_hint_works(run: Run, spec: str) -> None:
    got = run("cio", spec)
    assert got.code == 2
    named = re.search(r"(?:Name a .* in it|Write one): (.*)", got.err)
    assert named is not None
    for hint in named[1].split(", "):
        if "Config" not in hint and "uses" not in hint and hint != "…":
            assert run("cio", hint).code == 0, hint


@pytest.mark.parametrize(
    ("spec", "hint"),
    [("nets/uses_pkg.py:Net", r"PYTHONPATH=(\S+) cspprof"), ("pkg/sub/net.py:Net", r"package: (\S+):")],
)
def test_the_hint_for_a_package_that_cannot_be_imported_works(project: Path, spec: str, hint: str) -> None:
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    nested = project / "nets"
    outside = run_module("cspprof", "cio", str(project / spec), cwd=nested, env=environment)
    assert outside.returncode == 2
    found = re.search(hint, outside.stderr)
    assert found is not None, outside.stderr
    if "PYTHONPATH" in outside.stderr:
        folder = re.search(r"PYTHONPATH=(\S+)", outside.stderr)
        assert folder is not None
        environment["PYTHONPATH"] = str((nested / shlex.split(folder[1])[0]).resolve())
    named = f"{found[1]}:Net" if spec.startswith("pkg") else str(project / spec)
    assert run_module("cspprof", "cio", named, cwd=nested, env=environment).returncode == 0


def test_json_files_of_cspprof_are_told_apart(run: Run) -> None:
    cspprof.profile("resnet10").save("x.profile.json")
    Path("x.profile.json").rename("saved.json")
    with pytest.raises(SourceError, match=r"Rename it: mv saved.json saved.profile.json"):
        profile_spec("saved.json")
    assert run("cio", "resnet10", "-o", "out.json").code == 0
    with pytest.raises(SourceError, match=r"is the JSON output of a command.*\nSave a profile: cspprof profile"):
        profile_spec("out.json")


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_unknown_architectures_of_a_library(library: str) -> None:
    pytest.importorskip(library, reason="the extra is not installed")
    with pytest.raises(SourceError, match=rf"{library} has no model named 'nope'\n.*python -c \"import {library}"):
        profile_spec(f"{library}:nope")
    with pytest.raises(SourceError, match=rf"Did you mean: {library}:resnet50,"):
        profile_spec(f"{library}:ResNet50")
    with pytest.raises(SourceError, match="names no architecture"):
        profile_spec(f"{library}:")


@pytest.mark.parametrize(("name", "library"), [("regnet_y_400mf", "torchvision"), ("convnextv2_atto", "timm")])
def test_a_network_of_a_library_is_named_with_its_library(name: str, library: str) -> None:
    pytest.importorskip(library, reason="the extra is not installed")
    with pytest.raises(SourceError, match=rf"a library has\nWrite: {library}:{name}") as raised:
        profile_spec(name)
    assert profile_spec(str(raised.value.hint).removeprefix("Write: ")).params > 0


def test_names_that_no_library_defines() -> None:
    assert library_with("nosuchnet") is None
    assert library_with("a b(") is None


def test_factories_of_a_file_are_modules_first_without_private_names() -> None:
    assert factories_of(Path("nets/net.py")) == ["Net", "Wide", "Config", "build"]
    assert factories_of(Path("config.json")) == factories_of(Path("missing.py")) == []


@pytest.mark.parametrize(
    ("spec", "named"),
    [("nets.net.Net", "nets/net.py:Net"), ("nets/net", "nets/net.py:Net"), ("loose", "loose.py:Net"),
     ("loose.build", "loose.py:build"), ("Wide", "loose.py:Wide"), ("loose.Nat", "loose.py:Net")],
)  # fmt: skip
def test_a_name_without_the_ending_of_its_file_names_the_file(run: Run, spec: str, named: str) -> None:
    Path("loose.py").write_text(NET.format(imports=""))
    got = run("cio", spec)
    assert (got.code, f"{named.partition(':')[0]}" in got.err.splitlines()[0]) == (2, True)
    assert re.search(rf"(Write|Name .* in it): {named}(,|$)", got.err, re.MULTILINE)
    assert run("cio", named).code == 0


@pytest.mark.parametrize(
    "command",
    [
        "cio none.py", "cio none.cfg", "cio none.onnx", "cio none.pt2", "cio none.profile.json", "audit none.csv",
        "sweep --space none.toml", "plot memory none.measured.json",
    ],
)  # fmt: skip
def test_a_file_that_is_not_there_has_one_message(
    command: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    got = run(*command.split())
    assert got.code == 2
    assert got.err.splitlines()[0] == f"error: there is no file {command.split()[-1]}"
    assert len(got.err.splitlines()) > 1
