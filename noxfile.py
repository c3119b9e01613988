"""The matrix of versions: `nox --list` shows the sessions, `nox --session lowest` runs one.

Each session has an environment of its own. PIP_EXTRA_INDEX_URL can name the index of the CPU builds of torch.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import nox

HERE = Path(__file__).parent
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = ["3.11", "3.12", "3.13"]
LOWEST = {name: version for name, _, version in (d.partition(">=") for d in PROJECT["dependencies"]) if version}
"""The lowest version of each dependency."""

CONSUMER = (
    "test_cli.py",
    "test_zoo.py",
    "test_trace.py",
    "test_onnx.py",
    "test_timm.py",
    "test_torchvision.py",
    "test_convert.py",
)
"""The test files that depend most on the versions of torch and of the libraries of models."""

MAIN_JOB = (
    "--version",
    "cio resnext50 csp_resnext50",
    "report resnext50 csp_resnext50 -o report.html",
    "plot fig8 -o fig8.png",
)

EXTRAS = {
    "timm": "profile timm:resnet18",
    "torchvision": "profile torchvision:resnet18",
    "onnx": "profile net.onnx",
    "parquet": "cio resnext50 -o rows.parquet",
    "measure": "measure resnet10 --engine torch,onnxruntime --input 1x3x64x64",
    "openvino": "measure resnet10 --engine openvino --input 1x3x64x64",
    "optuna": "sweep csp_peleenet --grid gamma=0.25,0.5 --search random --trials 2",
    "mlflow": "sweep csp_peleenet --grid gamma=0.25,0.5 --tracker mlflow:sqlite:///mlflow.db",
    "watch": "doctor",
    "tensorboard": "sweep csp_peleenet --grid gamma=0.25,0.5 --tracker tensorboard:runs",
}
"""A command that needs the extra."""

ONNX_FILE = """
import onnx
from onnx import helper as h
ends = [h.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 3, 8, 8)) for name in "xy"]
graph = h.make_graph([h.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), "net.onnx")
"""

DASK_SWEEP = """
import cspprof
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1) as cluster:
        print(cspprof.sweep("csp_peleenet", grid={"gamma": [0.25, 0.5]}, scheduler=cluster.scheduler_address))
"""

SCRIPTS = {"onnx": ONNX_FILE, "dask": DASK_SWEEP}
"""Python code that runs before the command of an extra, or in its place."""

nox.options.sessions = ["tests", "lowest", "newest", "wheel", "extras"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The everyday tests on each version of Python."""
    session.install("-e", ".[test]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """The lowest version of every dependency."""
    versions = [f"{name}=={version.partition(',')[0]}" for name, version in LOWEST.items()]
    session.install("-e", ".[test]", *versions)
    session.run("pytest", "-n", "auto", *(f"tests/{name}" for name in CONSUMER), *session.posargs)


@nox.session(python=PYTHONS[-1])
def newest(session: nox.Session) -> None:
    """The newest version of every dependency, previews of torch included."""
    session.install("-e", ".[test]")
    session.install("--upgrade", "--pre", "torch", "torchvision", "timm", "onnx", "onnxruntime")
    session.run("pytest", "-n", "auto", *(f"tests/{name}" for name in CONSUMER), *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """The wheel without extras, outside the checkout."""
    install_wheel(session, "")
    for command in MAIN_JOB:
        session.run("cspprof", *command.split())


@nox.session
@nox.parametrize("extra", sorted({*EXTRAS, *SCRIPTS}))
def extras(session: nox.Session, extra: str) -> None:
    """The wheel with one extra, and a command that needs it."""
    install_wheel(session, f"[{extra}]")
    if extra in SCRIPTS:
        Path("script.py").write_text(SCRIPTS[extra], encoding="utf-8")
        session.run("python", "script.py")
    if extra in EXTRAS:
        session.run("cspprof", *EXTRAS[extra].split())


def install_wheel(session: nox.Session, extra: str) -> None:
    """Build the wheel, install it, and go to an empty folder."""
    session.install("build")
    folder = session.create_tmp()
    session.run("python", "-m", "build", "--wheel", "--outdir", folder, str(HERE), silent=True)
    (file,) = sorted(Path(folder).glob("*.whl"), key=lambda path: path.stat().st_mtime)[-1:]
    session.install(f"{file}{extra}")
    session.chdir(folder)
