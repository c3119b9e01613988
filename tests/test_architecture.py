"""The architecture: one direction of imports, no cycles, and heavy libraries only where they are used."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import CHECKOUT

import cspprof

PACKAGE = CHECKOUT / "cspprof"

ROOMS: dict[str, set[str]] = {
    "core": set(),
    "ops": {"core"},
    "operands": {"core", "ops"},
    "isolation": {"core", "operands"},
    "diagnosis": {"core"},
    "modules": {"core", "operands", "isolation"},
    "trace": {"core", "ops", "operands", "isolation", "diagnosis", "modules"},
    "zoo": {"core", "ops", "modules", "trace"},
    "storage": {"core"},
    "errors": {"core"},
    "deployment": {"core"},
    "sources": {
        "core",
        "ops",
        "operands",
        "isolation",
        "diagnosis",
        "modules",
        "trace",
        "zoo",
        "storage",
        "deployment",
    },
    "metrics": {"core"},
    "analysis": {"core", "metrics"},
    "csp": {"core", "metrics", "analysis", "deployment"},
    "papers": {"core", "metrics", "analysis", "csp"},
    "report": {"core", "metrics", "analysis", "csp", "papers"},
    "render": {"core", "metrics", "analysis", "csp", "papers", "report"},
}
"""What each room may import. Facts come from the left branch (ops, trace, zoo, sources), numbers from the right one."""

BELOW_PROFILES = set(ROOMS) - {"errors"}
"""`profiles` and `results` join the branches; the gate, the API and the command line stand above them."""
ROOMS |= {
    "profiles": BELOW_PROFILES,
    "results": {*BELOW_PROFILES, "profiles"},
    "measure": {*BELOW_PROFILES, "profiles", "results"},
    "gate": {*BELOW_PROFILES, "profiles", "results", "measure"},
    "sweeps": {*BELOW_PROFILES, "profiles", "results"},
    "watch": {*BELOW_PROFILES, "profiles", "gate"},
    "verification": {"core", "modules"},
    "api": {*BELOW_PROFILES, "profiles", "results", "measure", "gate", "sweeps", "verification"},
    "pytest_plugin": {*BELOW_PROFILES, "profiles", "gate"},
    "cli": {*BELOW_PROFILES, "profiles", "results", "measure", "gate", "sweeps", "watch", "api"},
    "__main__": {"core", "cli"},
}
VERSION = "cspprof._version"

HEAVY = {
    "torch", "timm", "torchvision", "fvcore", "onnx", "onnxruntime", "pyarrow", "matplotlib", "pandas", "numpy",
    "sympy", "markupsafe",
    "cv2", "openvino", "psutil", "distributed", "optuna", "mlflow", "tensorboard", "watchfiles",
    "rich", "jinja2", "pydantic", "pydantic_core", "platformdirs", "typer", "pytest",
}  # fmt: skip
"""Libraries that take long to import, or that are optional."""

TORCH_IN_MEASURE = tuple(
    f"cspprof.measure.{name}"
    for name in (
        "engines.torch",
        "profilers.torch",
        "torch_model",
        "onnx_export",
        "preparation",
        "single_nodes",
        "calibration.networks",
    )
)
"""Files that only the processes of `cspprof.measure` import."""

LATE = {"tempfile", "difflib", "importlib.metadata", "subprocess"}
"""Modules of the standard library that may be imported inside a function, because most commands do not need them."""


def name_of(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


class Import(NamedTuple):
    module: str
    in_function: bool


@cache
def imports(source: str) -> tuple[Import, ...]:
    """Every import of a module, function bodies included; imports for type checkers excluded."""
    return tuple(walk_imports(source))


def walk_imports(source: str) -> Iterator[Import]:
    nodes: list[tuple[ast.AST, bool]] = [(ast.parse(source), False)]
    while nodes:
        node, in_function = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += [(child, in_function) for child in node.orelse]
            continue
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, in_function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            for alias in node.names:  # `from cspprof import cli` imports cspprof.cli
                full = f"{node.module}.{alias.name}"
                yield Import(full if full in MODULES else str(node.module), in_function)
        inside = in_function or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        nodes += [(child, inside) for child in ast.iter_child_nodes(node)]


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@cache
def loads_heavy(module: str) -> bool:
    """Whether importing a module of ours imports a heavy library, itself or through the modules that it imports."""
    reached, pending = set(), [module]
    while pending:
        name = pending.pop()
        if name in reached:
            continue
        reached.add(name)
        if name in MODULES:
            pending += [i.module for i in imports(MODULES[name]) if not i.in_function]
            pending += (
                [name.rpartition(".")[0]] if name.count(".") > 1 else []
            )  # a package is imported before its modules
    return any(name.split(".")[0] in HEAVY for name in reached)


def violations(module: str, source: str) -> list[str]:
    room, found = room_of(module), []
    for name, in_function in imports(source):
        ours = name.split(".")[0] == "cspprof"
        if ours and name != VERSION and room and room_of(name) not in {room, *ROOMS[room]}:
            found.append(f"{module} imports {name}: {room} stands below {room_of(name) or 'the package'}")
        if in_function and ours and room not in ("cli", "", "__main__") and not (name in MODULES and loads_heavy(name)):
            found.append(f"{module} imports {name} inside a function, though it loads no heavy library")
        if in_function and not ours and name.split(".")[0] not in HEAVY and name not in LATE:
            found.append(f"{module} imports {name} inside a function")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_direction(module: str) -> None:
    assert violations(module, MODULES[module]) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("cspprof.core.record", "from cspprof import metrics"),
        ("cspprof.core.record", "def total():\n    from cspprof.metrics import METRICS"),
        ("cspprof.ops.matrix", "from cspprof.trace import trace"),
        ("cspprof.metrics.compute", "from cspprof.report.tables import Table"),
        ("cspprof.analysis.verification", "class A:\n    from cspprof.sources import Request"),
        ("cspprof.report.tables", "try:\n    pass\nfinally:\n    from cspprof.render import render"),
        ("cspprof.gate.config", "from cspprof import cli"),
        ("cspprof.render.latex", "def draw():\n    from cspprof.core import units"),
        ("cspprof.render.latex", "def draw():\n    import json"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str) -> None:
    assert len(violations(module, source)) >= 1


def test_no_cycle_of_modules() -> None:
    graph = {
        name: {i.module for i in imports(source) if i.module in MODULES and i.module not in ("cspprof", name)}
        for name, source in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("library", sorted({"torch", "timm", "torchvision", "matplotlib", "pandas", "sympy"}))
def test_heavy_libraries_are_imported_at_module_level_only_where_a_room_needs_them(library: str) -> None:
    allowed = {
        "torch": (
            "cspprof.operands",
            "cspprof.isolation",
            "cspprof.diagnosis",
            "cspprof.modules",
            "cspprof.trace",
            "cspprof.verification",
            "cspprof.zoo",
            "cspprof.sources",
            "cspprof.csp.conversion",
            "cspprof.csp.advice.apply",
            "cspprof.deployment",
            *TORCH_IN_MEASURE,
        ),
        "sympy": ("cspprof.csp.closed_form", "cspprof.report.closed_form"),
    }
    for module, source in MODULES.items():
        tops = {i.module.split(".")[0] for i in imports(source) if not i.in_function}
        assert library not in tops or module.startswith(allowed.get(library, ())), module


def test_the_top_of_the_package_is_small() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_no_module_hides_behind_a_public_name() -> None:
    modules = {p.stem for p in PACKAGE.glob("*.py")} | {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert modules & set(cspprof.__all__) == {"errors"}


def test_every_public_name_exists() -> None:
    for name in cspprof.__all__:
        assert getattr(cspprof, name) is not None
    assert dir(cspprof) == cspprof.__all__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = cspprof.nothing


def test_the_exceptions_can_be_imported_from_their_public_module() -> None:
    from cspprof import errors
    from cspprof.core import errors as core

    public = {name for name, value in vars(core).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert public == set(errors.__all__)
    assert cspprof.errors is errors


def files_of_the_repository() -> list[Path]:
    """The files that git tracks or would track; without git, as in a source archive, the files of the package."""
    try:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        listed = ""
    return [p for p in (CHECKOUT / line for line in listed.splitlines()) if p.is_file()] or list(PACKAGE.rglob("*.py"))


def test_no_file_contains_a_path_of_this_machine() -> None:
    # The paths are written in pieces, so that this file does not contain them.
    paths = ["/" + "work/", "/" + "tmp/venv", f"{Path.home()}/", f"{CHECKOUT}/"]
    pattern = re.compile("|".join(rf"(?<![\w.-]){re.escape(p)}" for p in paths if p.strip("/")))
    for file in files_of_the_repository():
        if b"\0" not in (data := file.read_bytes()):  # images are binary
            match = pattern.search(data.decode(errors="replace"))
            assert match is None, f"{file.relative_to(CHECKOUT)} contains {match}"
