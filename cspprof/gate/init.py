"""`cspprof init`: a configuration to start from, with the models that a project seems to have.

Files are parsed, not imported: a look around runs nobody's code.
"""

from __future__ import annotations

import ast
import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cspprof.core.errors import CspprofError
from cspprof.core.files import write_atomically
from cspprof.gate.config import BASELINE

AT_MOST = 12
SKIPPED = {"venv", ".venv", "env", "node_modules", "build", "dist", "site-packages", "tests", "test", "docs"}
MODULE_BASES = {"nn.Module", "Module", "torch.nn.Module", "LightningModule", "L.LightningModule", "pl.LightningModule"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A class or function that makes a model without being given anything."""

    file: str
    name: str

    @property
    def target(self) -> str:
        return f"{self.file}:{self.name}"


def start(folder: Path) -> tuple[Path, list[Candidate]]:
    """Write `cspprof.toml` in `folder`; the file and the models that were found. Overwrites nothing.

    Raises CspprofError where the project has a configuration already.
    """
    target = folder / "cspprof.toml"
    for path in (target, folder / "pyproject.toml"):
        if path.is_file() and (path == target or "[tool.cspprof" in path.read_text(encoding="utf-8", errors="replace")):
            raise CspprofError(f"{path.name} has a configuration already", "Edit it, then run: cspprof check")
    found = candidates(folder)
    write_atomically(target, written(found).encode())
    return target, found


def candidates(folder: Path) -> list[Candidate]:
    """Models that nothing else in the project is built of, in the order of their files."""
    trees: dict[str, ast.Module] = {}
    for path in _files(folder):
        with suppress(SyntaxError, ValueError, OSError):
            trees[path.relative_to(folder).as_posix()] = ast.parse(path.read_bytes())
    classes = _modules(trees)
    makes = {file: [n for n in tree.body if _makes_one(n, classes)] for file, tree in trees.items()}
    used = {name for tree in trees.values() for name in _used(tree, classes)}
    named = [(file, str(getattr(node, "name", "_"))) for file, nodes in makes.items() for node in nodes]
    return [Candidate(file, name) for file, name in named if name not in used and not name.startswith("_")]


def _files(folder: Path) -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", "*.py"]
    try:
        listed = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout.decode()
        files = [folder / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        files = list(folder.rglob("*.py"))
    kept = [f for f in files if f.is_file() and not SKIPPED & set(f.relative_to(folder).parts[:-1])]
    return sorted(f for f in kept if not f.name.startswith(("test_", "conftest", "setup")))


def _modules(trees: dict[str, ast.Module]) -> set[str]:
    """Names of classes that are modules, directly or by a class of the project."""
    bases = {
        node.name: {ast.unparse(b) for b in node.bases}
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    found: set[str] = set()
    while True:
        known = MODULE_BASES | found
        more = {n for n, names in bases.items() if names & known or {b.split(".")[-1] for b in names} & found} - found
        if not more:
            return found
        found |= more


def _makes_one(node: ast.stmt, classes: set[str]) -> bool:
    """Whether a statement is a class of a model, or a function that returns one, that needs no arguments."""
    if isinstance(node, ast.ClassDef):
        return node.name in classes and _free(node)
    if not isinstance(node, ast.FunctionDef) or not _no_arguments(node.args, 0):
        return False
    if node.returns is not None and ast.unparse(node.returns).split(".")[-1].strip("'\"") in {"Module", *classes}:
        return True
    returned = [n.value for n in ast.walk(node) if isinstance(n, ast.Return)]
    return any(isinstance(v, ast.Call) and _name(v.func) in {"Sequential", *classes} for v in returned)


def _free(node: ast.ClassDef) -> bool:
    """Whether the class can be made without arguments, and has a forward of its own or may inherit one."""
    own = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    return all(_no_arguments(n.args, 1) for n in own)


def _no_arguments(arguments: ast.arguments, own: int) -> bool:
    positional = len(arguments.posonlyargs) + len(arguments.args) - own
    return positional <= len(arguments.defaults) and all(d is not None for d in arguments.kw_defaults)


def _used(tree: ast.Module, classes: set[str]) -> Iterator[str]:
    """Names that classes, and functions which make models, build on: parts, not the model."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) or _makes_one(node, classes):
            inside = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            yield from inside - {getattr(node, "name", "")}


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def written(found: list[Candidate]) -> str:
    """The file's text."""
    lines = [HEAD.format(baseline=BASELINE)]
    taken: set[str] = set()
    for i, candidate in enumerate(found[:AT_MOST]):
        name = candidate.name.lower() if candidate.name.lower() not in taken else f"{candidate.name.lower()}_{i}"
        taken.add(name)
        lines.append(f'[models.{name}]\ntarget = {json.dumps(candidate.target)}\n# input = "1x3x224x224"\n')
    if len(found) > AT_MOST:
        more = ", ".join(c.target for c in found[AT_MOST:])
        lines.append(f"# {len(found) - AT_MOST} more seem to be models: {more}\n")
    if not found:
        lines.append(EXAMPLE)
    lines.append(RULES)
    return "\n".join(lines)


HEAD = """\
# What CI checks about the cost of this project's models. `cspprof check` reads it: exit code 0 all rules hold,
# 1 one failed, 2 something could not be measured. The same tables can stand in pyproject.toml, under [tool.cspprof].

# Where `cspprof check --update-baseline` records what the models cost. Commit that file.
baseline = "{baseline}"

# A model: `target` is what any cspprof command takes (net.py:Net, pkg.module:factory, timm:NAME, x.profile.json …),
# `input` its shape (unless given: its example_input_shape, else 1x3x224x224). More: convention, dtype, device, train.
"""

EXAMPLE = """\
# No class or function was found that makes a torch.nn.Module without arguments. Name one:
# [models.net]
# target = "path/to/net.py:Net"
# input = "1x3x224x224"
"""

RULES = """\
# Rules. `metric` is any number of `cspprof metrics`; `cio` is the convolutional input/output.
# `model` and `layer` are globs; a rule has one of max, max_increase, min_drop and max_share.

[[rules]]
id = "no-more-cio"
metric = "cio"
max_increase = "0%"     # against the baseline; the numbers are exact, so 0% never fails by noise

[[rules]]
id = "no-more-macs"
metric = "macs"
max_increase = "0%"

# [[rules]]
# id = "budget"
# model = "net"
# metric = "cio"
# max = "24 M"            # elements; bytes are written 200 MB

# [[rules]]
# id = "csp-pays"
# model = "csp_net"
# metric = "cio"
# min_drop = "5%"
# base = "net"            # plain against cross-stage-partial; without base: against the baseline

# [[rules]]
# id = "no-bottleneck"
# metric = "macs"
# max_share = "20%"       # of the largest layer
# level = "warn"
"""
