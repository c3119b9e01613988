"""`cspprof init`: the names of models in the configuration."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ONE_CONV, Result

from cspprof.gate.init import Factory, model_names


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("net.py:Net small.py:Small", ["net", "small"]),
        ("train.py:Net serve.py:Net other.py:Wide", ["train_net", "serve_net", "wide"]),
        ("a/net.py:Net b/net.py:Net", ["a_net", "b_net"]),
        ("a/x/net.py:Net b/x/net.py:Net", ["a_x_net", "b_x_net"]),
        ("net.py:Net net.py:NET", ["net", "net_1"]),
        ("my net.py:Net näh.py:Net", ["my_net", "n_h_net"]),
    ],
)
def test_models_with_one_name_are_named_after_their_files(targets: str, names: list[str]) -> None:
    files = targets.replace("my net", "my~net").split()
    factories = [Factory(*target.replace("~", " ").split(":")) for target in files]
    assert model_names(factories) == names


LANGUAGE_MODEL = """
import torch
from torch import nn

class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(100, 8)
        self.head = nn.Linear(8, 100)
    def forward(self, {argument}):
        return self.head(self.table({argument}))

def build():
    return Decoder()
"""


@pytest.mark.parametrize("argument", ["x", "input_ids"])
def test_the_input_of_a_language_model_is_integers(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lm.py").write_text(LANGUAGE_MODEL.format(argument=argument))
    assert run("init").code == 0
    assert tomllib.loads(Path("cspprof.toml").read_text())["models"] == {
        "build": {"target": "lm.py:build", "input": "1x32:int64"},
    }  # fmt: skip
    assert run("check", "--update-baseline").code == 0


def test_a_baseline_shows_the_place_of_the_peak(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(ONE_CONV.format(imports="", width=4))
    run("init")
    run("check", "--update-baseline")
    assert "note: peak memory: net at conv" in run("baseline", "show").out


def test_the_configuration_of_two_models_with_one_name(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file, width in (("train.py", 4), ("serve.py", 8)):
        Path(file).write_text(ONE_CONV.format(imports="", width=width))
    assert run("init").code == 0
    models = tomllib.loads(Path("cspprof.toml").read_text())["models"]
    assert {name: model["target"] for name, model in models.items()} == {
        "train_net": "train.py:Net", "serve_net": "serve.py:Net",
    }  # fmt: skip
    assert run("check", "--update-baseline").code == 0


def test_a_project_without_models_is_told_how_to_name_one(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("init").out.endswith("Next: name one in it, then record its numbers: cspprof check --update-baseline\n")
    recorded, checked = run("check", "--update-baseline"), run("check")
    assert (recorded.code, checked.code) == (2, 2)
    assert recorded.err == (
        'error: cspprof.toml has no models\n  Write one:\n  [models.net]\n  target = "net.py:Net"\n'
    )
    assert 'cspprof.toml has no models  Write one: [models.net] target = "net.py:Net"' in checked.out
    assert "no model matches" not in checked.out
