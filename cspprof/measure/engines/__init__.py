"""The engines that can run a model. Each has a file in this folder and a line in `ENGINES`.

The file of an engine has two functions, which run only in the process of that engine:

- `configure(threads)` sets the number of threads and everything else that holds for the whole process, and returns the
  settings by name, as the result states them;
- `load(prepared, threads)` returns a `Network` that is ready to run. It raises whatever the library raises.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple

from cspprof.core.errors import CspprofError, pip_install
from cspprof.core.registry import Registry


class Engine(NamedTuple):
    """An engine: how to run it, what it needs, and what it is."""

    module: str
    """The file in this folder."""
    libraries: tuple[str, ...]
    """Libraries that it imports; the first one is the engine itself."""
    packages: tuple[str, ...]
    """The name of each for pip."""
    extra: str
    """The extra of cspprof that installs the libraries; empty for a dependency of cspprof."""
    runs_graph: bool
    """Whether it runs the ONNX graph; else it runs the torch module."""
    summary: str
    is_default: bool = True
    """Whether it is used where the command names no engine."""

    def missing(self) -> list[str]:
        """The libraries that are not installed."""
        return [name for name in self.libraries if find_spec(name) is None]

    def versions(self) -> dict[str, str]:
        """The version of each library, by its name for pip."""
        found = {}
        for library, package in zip(self.libraries, self.packages, strict=True):
            try:
                found[package] = version(package)
            except PackageNotFoundError:  # another distribution has the library, such as opencv-python
                found[package] = str(getattr(sys.modules.get(library), "__version__", "unknown"))
        return found


ENGINES: Registry[Engine] = Registry("engine", "cspprof measure --help")
for _name, _engine in {
    "torch": Engine("torch_engine", ("torch",), ("torch",), "", False, "torch in eager mode"),
    "torch-compile": Engine(
        "torch_compile_engine", ("torch",), ("torch",), "", False, "torch.compile with inductor", False
    ),
    "torch-cuda": Engine("torch_cuda_engine", ("torch",), ("torch",), "", False, "torch on a GPU", False),
    "onnxruntime": Engine(
        "onnxruntime_engine", ("onnxruntime", "onnx", "onnxscript"), ("onnxruntime", "onnx", "onnxscript"),
        "measure", True, "ONNX Runtime on the CPU",
    ),
    "opencv": Engine(
        "opencv_engine", ("cv2", "onnx", "onnxscript"), ("opencv-python-headless", "onnx", "onnxscript"),
        "measure", True, "OpenCV DNN, its new engine",
    ),
    "opencv-classic": Engine(
        "opencv_classic_engine", ("cv2", "onnx", "onnxscript"), ("opencv-python-headless", "onnx", "onnxscript"),
        "measure", True, "OpenCV DNN, its classic engine", False,
    ),
    "openvino": Engine(
        "openvino_engine", ("openvino", "onnx", "onnxscript"), ("openvino", "onnx", "onnxscript"),
        "openvino", True, "OpenVINO on the CPU",
    ),
}.items():  # fmt: skip
    ENGINES.add(_name, _engine)


def engines_named(text: str | None) -> list[str]:
    """The engines in a text such as `torch,opencv`, each once; without a text, the default engines that are installed.

    Raises UnknownNameError, and CspprofError if an engine in the text is not installed.
    """
    if text is None:
        return [name for name, engine in ENGINES.items() if engine.is_default and not engine.missing()]
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise CspprofError("--engine names no engine", f"There are: {', '.join(ENGINES)}")
    missing = {name: engine.missing() for name in names if (engine := ENGINES.get(name)).missing()}
    if missing:
        raise CspprofError(
            "\n".join(f"the engine {name} needs {' and '.join(found)}" for name, found in missing.items()),
            _install_hint(names, missing),
        )
    return names


def not_installed() -> list[str]:
    """The default engines that are not installed."""
    return [name for name, engine in ENGINES.items() if engine.is_default and engine.missing()]


def _install_hint(names: Sequence[str], missing: dict[str, list[str]]) -> str:
    extras = ",".join(dict.fromkeys(ENGINES.get(name).extra or "measure" for name in missing))
    hint = f"Install what is missing: {pip_install(extras)}"
    others = [name for name in names if name not in missing]
    return hint + (f"\nOr measure without it: --engine {','.join(others)}" if others else "")
