"""Shared fixtures: reference totals, a profile made by hand, and the command line inside this process."""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cspprof.__main__ import GC_THRESHOLD
from cspprof.core.record import Calls, Kind, Layer, OpSpec, Storage, TensorSpec
from cspprof.profiles import Profile

CHECKOUT = Path(__file__).resolve().parent.parent

# Some tests write a module twice within a second and with the same length: Python would reuse the old bytecode.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
sys.dont_write_bytecode = True

# No test reads or writes the cache, the journals and the calibrations of the user.
_OF_THIS_RUN = tempfile.TemporaryDirectory(prefix="cspprof-tests-")
for _kind in ("CACHE", "CALIBRATION"):
    os.environ[f"CSPPROF_{_kind}_DIR"] = str(Path(_OF_THIS_RUN.name) / _kind.lower())

# With all libraries loaded, a full garbage collection takes a third of a second.
gc.set_threshold(GC_THRESHOLD, 50, 100)

# The workers share the cores: more threads per worker would wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def quick(values: Iterable[Any], always: int | Container[Any]) -> list[Any]:
    """Parameters of a test: the first `always`, or those in `always`, run in every run; the others are slow tests.

    A tuple holds the values of several arguments.
    """

    def runs_always(i: int, value: Any) -> bool:
        return i < always if isinstance(always, int) else value in always

    return [
        value
        if runs_always(i, value)
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for i, value in enumerate(values)
    ]


def trace(model: Any, inputs: Any, **options: Any) -> Profile:
    """`cspprof.trace.trace`, as a `Profile`."""
    from cspprof.trace import trace as trace_record

    return Profile.of(trace_record(model, inputs, **options))


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of reference totals, which is not part of the repository."""
    folder = Path(os.environ.get("CSPPROF_REFERENCE", CHECKOUT.parent / "shared" / "reference"))
    if not folder.is_dir():
        pytest.skip("no reference folder: set CSPPROF_REFERENCE to compare with the published totals")
    return folder


@pytest.fixture(scope="session")
def darknet_totals(reference: Path) -> dict[str, Any]:
    totals: dict[str, Any] = json.loads((reference / "darknet_totals.json").read_text())
    return totals


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`run("cio", "resnext50")` runs a command in this process and returns exit code, standard output and error."""
    from cspprof.cli import main

    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def call(*arguments: str) -> Result:
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        out, err = capsys.readouterr()
        return Result(int(exit_.value.code or 0), out, err)

    return call


ONE_CONV = """\
from torch import nn
{imports}

class Net(nn.Module):
    example_input_shape = (1, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, {width}, 1)

    def forward(self, x):
        return self.conv(x)
"""
"""A user's network with one convolution: (1, 3, 8, 8) -> (1, width, 8, 8)."""


def git(folder: Path, *arguments: str) -> str:
    """The output of a git command in the repository `folder`."""
    options = ["-c", "user.name=someone", "-c", "user.email=someone@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *options, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def conv_spec(c_in: int, c_out: int, size: int, k: int = 3, dtype: str = "float32") -> OpSpec:
    """A k×k convolution of stride 1 on one (c_in, size, size) map."""
    return OpSpec(
        "aten.conv2d",
        Kind.CONV,
        (TensorSpec((1, c_in, size, size), dtype),),
        (TensorSpec((c_out, c_in, k, k), dtype),),
        (TensorSpec((1, c_out, size, size), dtype),),
        {"kernel": (k, k), "stride": (1, 1), "padding": (k // 2, k // 2), "dilation": (1, 1), "groups": 1},
        macs=k * k * c_in * c_out * size * size,
    )


def relu_spec(c: int, size: int) -> OpSpec:
    x = TensorSpec((1, c, size, size))
    return OpSpec("aten.relu_", Kind.ACTIVATION, (x,), (), (x,), elementwise=x.numel)


@pytest.fixture
def chain() -> Profile:
    """Three operations: conv 3→8 on 4×4, in-place ReLU, conv 8→8."""
    first, relu, second = conv_spec(3, 8, 4), relu_spec(8, 4), conv_spec(8, 8, 4)
    return Profile(
        model="chain",
        source="chain",
        inputs=(TensorSpec((1, 3, 4, 4)),),
        layers=(
            Layer("", "Chain", 0, 1, 0),
            Layer("a", "torch.nn.modules.conv.Conv2d", 1, 1, 216),
            Layer("act", "torch.nn.modules.activation.ReLU", 1, 1, 0),
            Layer("b", "torch.nn.modules.conv.Conv2d", 1, 1, 576),
        ),
        specs=(first, relu, second),
        #             x  w  y      y  y      y  w  z
        calls=Calls([0, 1, 2], [1, 2, 3], [0, 1, 3, 3, 3, 3, 2, 4]),
        storages=(
            Storage(0, "input", "input", TensorSpec((1, 3, 4, 4))),
            Storage(1, "a.weight", "parameter", TensorSpec((8, 3, 3, 3))),
            Storage(2, "b.weight", "parameter", TensorSpec((8, 8, 3, 3))),
        ),
        params=792,
        outputs=(4,),
    )


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sweeps trace their candidates in this process, without limits, and write to a temporary folder."""
    from concurrent.futures import ThreadPoolExecutor
    from contextlib import contextmanager

    from cspprof.sweeps.candidate import trace_candidate
    from cspprof.sweeps.executors import Workers

    @contextmanager
    def one(count: int | None) -> Any:
        with ThreadPoolExecutor(1) as pool:
            yield Workers(pool, 1, 1)

    def run_candidates(candidates: list[Any], versions: str, limits: Any) -> list[Any]:
        return [trace_candidate(c, versions) for c in candidates]

    monkeypatch.setattr("cspprof.sweeps.sweep.local_workers", one)
    monkeypatch.setattr("cspprof.sweeps.runner.run_candidates", run_candidates)
    monkeypatch.setenv("CSPPROF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Imports a script such as `docs/fidelity`. The module is not kept after the test."""
    imported: list[str] = []

    def load(path: str) -> Any:
        folder, _, name = path.rpartition("/")
        monkeypatch.syspath_prepend(CHECKOUT / folder)
        imported.append(name)
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    yield load
    for name in imported:
        sys.modules.pop(name, None)
