"""Exported programs: totals equal to the model's, and no code from the file ever runs."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Result
from torch import nn

import cspprof
from cspprof.core.errors import SourceError
from cspprof.core.inputs import parse_inputs
from cspprof.sources.exported_program import _is_arithmetic


class Net(nn.Module):
    """A convolution that runs twice, a keyword argument, and a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.conv(self.conv(self.stem(x)))
        return {"a": y * scale, "b": y.mean((2, 3))}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    side = torch.export.Dim("side", min=4, max=64)
    exported = torch.export.export(
        Net().eval(), (torch.randn(1, 3, 8, 8),), {"scale": torch.ones(1)},
        dynamic_shapes={"x": {2: side, 3: side}, "scale": None},
    )  # fmt: skip
    torch.export.save(exported, path)
    return path


TOTALS = ("macs", "cio_hardnet", "cio_cspnet", "params", "traffic_bytes", "peak_bytes")


def test_program_has_the_totals_of_its_model(program: Path) -> None:
    exported = cspprof.profile(str(program))
    exported.self_check()
    model = cspprof.profile(Net(), {"x": (1, 3, 8, 8), "scale": (1,)})
    assert exported.complete
    assert {t: exported.total(t) for t in TOTALS} == {t: model.total(t) for t in TOTALS}
    assert exported.total("macs") == (27 * 4 + 2 * 4 * 4) * 64
    assert (exported.model, exported.source) == ("net.pt2", "net.pt2")


def test_modules_keep_their_names_and_classes(program: Path) -> None:
    layers = {layer.path: layer for layer in cspprof.profile(str(program)).layers}
    assert layers["stem.0"].class_name == "torch.nn.modules.conv.Conv2d"
    assert layers[""].class_name.endswith("Net")
    assert next(op.layer for op in cspprof.profile(str(program)).ops if op.kind == "conv") == "stem.0"


def test_dynamic_dimensions_accept_another_input(program: Path, run: Callable[..., Result]) -> None:
    larger = cspprof.profile(str(program), parse_inputs(["1x3x16x16", "scale=1"]))
    assert larger.total("macs") == 4 * cspprof.profile(str(program)).total("macs")
    result = run("cio", str(program), "--input", "1x3x8x9", "--input", "scale=1")
    assert result.code == 2
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("spec", "option", "message"),
    [
        ("{},width=3", [], "takes no options"),
        ("{}", ["--train"], "--train cannot change it"),
        ("{}", ["--dtype", "float16"], "--dtype cannot change it"),
    ],
)
def test_option_that_cannot_change_a_program_is_refused(
    spec: str, option: list[str], message: str, program: Path, run: Callable[..., Result]
) -> None:
    result = run("cio", spec.format(program), *option)
    assert result.code == 2
    assert message in result.err


# -- files that are not a program, or contain code ----------------------------------------------------


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


def rewritten(
    program: Path, to: Path, change: Callable[[str, bytes], bytes], extra: dict[str, bytes] | None = None
) -> Path:
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, data in (extra or {}).items():
            new.writestr(name, data)
    return to


def in_graph(old: bytes, new: bytes) -> Callable[[str, bytes], bytes]:
    def change(name: str, data: bytes) -> bytes:
        if not name.endswith("model.json"):
            return data
        assert old in data
        return data.replace(old, new)

    return change


def test_pickle_is_not_opened(tmp_path: Path, run: Callable[..., Result]) -> None:
    marker, file = tmp_path / "marker", tmp_path / "model.pt2"
    file.write_bytes(pickle.dumps(Bomb(marker)))
    result = run("cio", str(file))
    assert (result.code, result.out) == (2, "")
    assert "model.pt2 is not an exported program: it is not an archive" in result.err
    assert not marker.exists()


def test_pickles_in_the_archive_are_not_unpickled(program: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    bomb = tmp_path / "bomb.pt"
    torch.save((Bomb(marker),), bomb)
    file = rewritten(
        program, tmp_path / "a.pt2", lambda name, data: bomb.read_bytes() if "sample_inputs" in name else data
    )
    with pytest.raises(SourceError, match=r"a\.pt2 cannot be read"):
        cspprof.profile(str(file))
    objects = {"net/data/constants/opaque_obj_0": pickle.dumps(Bomb(marker))}
    with pytest.raises(SourceError, match="not a tensor"):
        cspprof.profile(str(rewritten(program, tmp_path / "b.pt2", lambda name, data: data, objects)))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"torch.ops.aten.conv2d.default", b"torch.hub.load"),
        (b"torch.ops.aten.conv2d.default", b"torch.ops.__class__.mro"),
        (b'"name": "conv2d"', b'"name": "x = exec"'),
        (b"Symbol('", b"__import__('"),
        (b"Symbol('", b"Symbol('+open(1)+"),
    ],
)
def test_graph_that_could_run_code_is_refused(old: bytes, new: bytes, program: Path, tmp_path: Path) -> None:
    file = rewritten(program, tmp_path / "a.pt2", in_graph(old, new))
    with pytest.raises(SourceError, match="not an operator or a name of torch"):
        cspprof.profile(str(file))


def test_other_files_are_refused(program: Path, tmp_path: Path, run: Callable[..., Result]) -> None:
    checkpoint, cut, missing = tmp_path / "checkpoint.pt2", tmp_path / "cut.pt2", tmp_path / "missing.pt2"
    torch.save(Net().state_dict(), checkpoint)
    cut.write_bytes(program.read_bytes()[:3000])
    for file, message in (
        (checkpoint, "it contains no graph (a checkpoint or TorchScript of torch.save?)"),
        (cut, "it is not an archive (a pickle, or incomplete?)"),
        (missing, "No such file"),
    ):
        result = run("cio", str(file))
        assert (result.code, result.out) == (2, "")
        assert message in " ".join(result.err.split())
        assert "Traceback" not in result.err


@pytest.mark.parametrize("text", ["Symbol('s0', integer=True)", "Mul(Integer(2), Symbol('s1'))", "s0 + 2*s1", "True"])
def test_arithmetic_expression(text: str) -> None:
    assert _is_arithmetic(text)


@pytest.mark.parametrize("text", ["open('x')", "Symbol('a b')", "(1).__class__", "[x for x in y]", "lambda: 0", "("])
def test_expression_beyond_arithmetic(text: str) -> None:
    assert not _is_arithmetic(text)
