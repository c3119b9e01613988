"""The house keeps its shape: who may import whom, how long a module is, and what the repository does not say."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CHECKOUT

import cspprof

PACKAGE = CHECKOUT / "cspprof"
HEAVY = {"torch", "timm", "torchvision", "fvcore", "matplotlib", "pandas", "numpy", "sympy"}
NETWORKS = {"torch", "timm", "torchvision"}
LOWEST = {"cspprof.core.errors", "cspprof.core.registry", "cspprof.core.units", "cspprof._version", "cspprof.garbage"}
FACTS = {
    "cspprof.core.kinds",
    "cspprof.core.tensors",
    "cspprof.core.record",
    "cspprof.core.formulas",
    "cspprof.core.inputs",
    "cspprof.core.files",
}
TRACING = ("cspprof.trace", "cspprof.zoo", "cspprof.sources", "cspprof.ops", "cspprof.replay")
ENTRANCES = {"cspprof", "cspprof.__main__", "cspprof.api"}  # where the two sides meet


def name_of(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def within(name: str, *rooms: str) -> bool:
    """Whether a module is one of the rooms or lies in one."""
    return any(name == room or name.startswith(room + ".") for room in rooms)


def may_load_torch(name: str) -> bool:
    """`zoo` and `sources` themselves only list what they hold, and a saved profile needs no torch."""
    free = within(name, "cspprof.sources.onnx_graph") or name in (
        "cspprof.zoo",
        "cspprof.sources",
        "cspprof.sources.saved_profile",
    )
    return within(name, "cspprof.trace", "cspprof.zoo", "cspprof.sources") and not free


def imports(source: str, everywhere: bool) -> Iterator[str]:
    """Modules imported with this one or, everywhere, also in its functions. Imports for types only do not count."""
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
            continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not everywhere:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are written in full"
            for alias in node.names:  # `from cspprof import cli` imports cspprof.cli
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)
        nodes += ast.iter_child_nodes(node)


def complaints(name: str, source: str) -> list[str]:
    """What a module imports and should not."""
    top, all_ = set(imports(source, everywhere=False)), set(imports(source, everywhere=True))
    ours = {i for i in top if within(i, "cspprof")}
    wrong: set[str] = set()

    def refuse(imported: set[str]) -> None:
        wrong.update(f"{name} imports {i}" for i in imported)

    allowed = {"torch"} if may_load_torch(name) else set()
    if name == "cspprof.sources.onnx_graph.graph":
        allowed.add("numpy")  # small constants; loaded only once a graph is read
    if within(name, "cspprof.csp.closed_form") or name.startswith("cspprof.report.closed_form"):
        allowed.add("sympy")  # the room is imported in functions only, so that its command alone waits for it
    else:
        refuse({i for i in top if within(i, "cspprof.csp.closed_form")})
    refuse({i for i in top if i.split(".")[0] in HEAVY - allowed})
    if not within(name, "cspprof.trace", "cspprof.zoo", "cspprof.sources"):
        refuse({i for i in all_ if i.split(".")[0] in NETWORKS})
    if not within(name, "cspprof.cli", "cspprof.__main__"):
        refuse({i for i in all_ if within(i, "cspprof.cli")})
    if not within(name, "cspprof.cli", "cspprof.render"):
        refuse({i for i in top if within(i, "cspprof.render")})
    if within(name, "cspprof.render"):
        refuse({i for i in all_ if within(i, *TRACING)})
    if name in LOWEST:
        refuse(ours - LOWEST)
    elif name in FACTS:
        refuse(ours - LOWEST - FACTS)
    elif within(name, "cspprof.metrics"):
        refuse({i for i in ours if i not in LOWEST | FACTS and not within(i, "cspprof.metrics")})
    elif within(name, *TRACING):
        refuse({i for i in ours if i not in LOWEST | FACTS and not within(i, *TRACING)})
    elif name not in ENTRANCES and not within(name, "cspprof.cli"):
        refuse({i for i in ours if within(i, *TRACING)})
    return sorted(wrong)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name: str) -> None:
    assert complaints(name, MODULES[name].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("cspprof.ops", "import torch"),
        ("cspprof.ops", "def f():\n    import torch"),
        ("cspprof.sources", "import torch"),
        ("cspprof.sources.timm_models", "import timm"),
        ("cspprof.metrics.compute", "from cspprof.trace import trace"),
        ("cspprof.metrics.compute", "from cspprof.report.profile import overview"),
        ("cspprof.trace.run", "from cspprof.metrics import METRICS"),
        ("cspprof.report.profile", "try:\n    pass\nfinally:\n    import pandas as pd"),
        ("cspprof.report.profile", "class A:\n    from cspprof.sources import Request"),
        ("cspprof.analysis.comparison", "from cspprof.render import html"),
        ("cspprof.analysis.comparison", "import sympy"),
        ("cspprof.csp.closed_form.dense", "from cspprof.zoo.densenet import dense_block"),
        ("cspprof.cli.closed_form", "from cspprof.csp.closed_form import FORMS"),
        ("cspprof.render.html", "def f():\n    from cspprof.zoo import catalog"),
        ("cspprof.core.record", "from cspprof import metrics"),
        ("cspprof.core.errors", "from cspprof.core.record import Profile"),
        ("cspprof.api", "def f():\n    from cspprof import cli"),
    ],
)
def test_a_wrong_import_is_seen(name: str, source: str) -> None:
    assert len(complaints(name, source)) == 1


@pytest.mark.parametrize("name", MODULES)
def test_a_module_stays_readable(name: str) -> None:
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) < 400


def test_no_module_hides_behind_an_exported_name() -> None:
    modules = {p.stem for p in PACKAGE.glob("*.py")} | {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert not modules & (set(cspprof.__all__) - {"errors"})


def test_public_names_are_all_there() -> None:
    for name in cspprof.__all__:
        assert getattr(cspprof, name) is not None
    assert dir(cspprof) == cspprof.__all__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = cspprof.nothing


def files_of_the_repository() -> list[Path]:
    """What git tracks or would; without git, as in a source archive, what the package holds."""
    try:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        listed = ""
    return [p for p in (CHECKOUT / line for line in listed.splitlines()) if p.is_file()] or list(MODULES.values())


def test_no_path_of_a_machine_is_in_the_repository() -> None:
    # Written in pieces, so that this file does not hold what it looks for.
    paths = ["/" + "work/", "/" + "tmp/venv", f"{Path.home()}/", f"{CHECKOUT}/"]
    wanted = re.compile("|".join(rf"(?<![\w.-]){re.escape(p)}" for p in paths if p.strip("/")))
    for file in files_of_the_repository():
        if b"\0" not in (data := file.read_bytes()):  # pictures are not text
            found = wanted.search(data.decode(errors="replace"))
            assert found is None, f"{file.relative_to(CHECKOUT)} holds {found}"
