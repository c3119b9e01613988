"""`cspprof init`: write a configuration with the models that the project defines.

Files are parsed and not imported, so no code of the project runs.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cspprof.core.errors import CspprofError
from cspprof.core.files import write_atomically
from cspprof.core.printable import printable
from cspprof.gate.config import BASELINE_FILE

MAX_MODELS = 12
"""The number of models that the configuration names; further ones are listed in a comment."""
SKIPPED_FOLDERS = {"venv", ".venv", "env", "node_modules", "build", "dist", "site-packages", "tests", "test", "docs"}
TOKEN_ARGUMENTS = {"ids", "idx", "input_ids", "token_ids", "tokens"}
"""First arguments of the forward of a language model."""
MODULE_BASES = {"nn.Module", "Module", "torch.nn.Module", "LightningModule", "L.LightningModule", "pl.LightningModule"}


@dataclass(frozen=True, slots=True)
class Factory:
    """A class or function that makes a model and needs no arguments."""

    file: str
    name: str
    reads_tokens: bool = False
    """Whether its input seems to be integers, as in a language model."""

    @property
    def target(self) -> str:
        return f"{self.file}:{self.name}"


def write_config(folder: Path) -> tuple[Path, list[Factory]]:
    """Write `cspprof.toml` in `folder`; return its path and the models in it.

    Raises CspprofError if the folder has a configuration.
    """
    target = folder / "cspprof.toml"
    for path in (target, folder / "pyproject.toml"):
        if path.is_file() and (path == target or "[tool.cspprof" in path.read_text(encoding="utf-8", errors="replace")):
            raise CspprofError(f"{path.name} already has a configuration", "Edit it, then run: cspprof check")
    models = find_models(folder)
    write_atomically(target, config_text(models).encode())
    return target, models


# -- the models of a project -----------------------------------------------------------------------


def find_models(folder: Path) -> list[Factory]:
    """The models that no other class or factory of the project uses, in the order of their files."""
    trees: dict[str, ast.Module] = {}
    for path in _python_files(folder):
        with suppress(SyntaxError, ValueError, OSError, RecursionError, MemoryError):
            trees[path.relative_to(folder).as_posix()] = ast.parse(path.read_bytes())
    classes = _module_classes(trees)
    used = {name for tree in trees.values() for name in _used_names(tree, classes)}
    token_classes = {n.name for t in trees.values() for n in t.body if isinstance(n, ast.ClassDef) and _reads_tokens(n)}
    factories = [
        Factory(file, node.name, bool(_made_classes(node, classes) & token_classes))
        for file, tree in trees.items()
        for node in tree.body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and _makes_model(node, classes)
    ]
    return [f for f in factories if f.name not in used and not f.name.startswith("_")]


def _python_files(folder: Path) -> list[Path]:
    """The Python files of the project without tests; in a git repository, without ignored files. A file whose name is
    not UTF-8 is left out: no TOML file can name it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", "*.py"]
    try:
        listed = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
        files = [folder / name for name in os.fsdecode(listed).split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        files = list(folder.rglob("*.py"))
    files = [f for f in files if f.is_file() and not SKIPPED_FOLDERS & set(f.relative_to(folder).parts[:-1])]
    files = [f for f in files if not f.name.startswith(("test_", "conftest", "setup"))]
    return sorted(f for f in files if not any("\ud800" <= c <= "\udfff" for c in f.relative_to(folder).as_posix()))


def _module_classes(trees: dict[str, ast.Module]) -> set[str]:
    """The names of classes that inherit from a base of `MODULE_BASES`, directly or through other classes."""
    bases = {
        node.name: {ast.unparse(base) for base in node.bases}
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    classes: set[str] = set()
    while True:
        more = {
            name
            for name, names in bases.items()
            if names & (MODULE_BASES | classes) or {base.split(".")[-1] for base in names} & classes
        }
        if more <= classes:
            return classes
        classes |= more


def _makes_model(node: ast.stmt, classes: set[str]) -> bool:
    """Whether a statement defines a model class, or a function that returns a model, that needs no arguments."""
    if isinstance(node, ast.ClassDef):
        inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        return node.name in classes and all(_needs_no_arguments(init.args, 1) for init in inits)
    if not isinstance(node, ast.FunctionDef) or not _needs_no_arguments(node.args, 0):
        return False
    if node.returns is not None and ast.unparse(node.returns).split(".")[-1].strip("'\"") in {"Module", *classes}:
        return True
    values = [n.value for n in ast.walk(node) if isinstance(n, ast.Return)]
    return any(isinstance(value, ast.Call) and _name(value.func) in {"Sequential", *classes} for value in values)


def _made_classes(node: ast.ClassDef | ast.FunctionDef, classes: set[str]) -> set[str]:
    """The name of a class, or the names of the model classes that a function uses."""
    if isinstance(node, ast.ClassDef):
        return {node.name}
    return {_name(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)} & classes


def _reads_tokens(node: ast.ClassDef) -> bool:
    """Whether the first argument of the forward has the name of tokens, or the class makes an embedding and no
    convolution."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "forward":
            first = [a.arg for a in part.args.args[1:2]]
            if TOKEN_ARGUMENTS.intersection(first):
                return True
    called = {_name(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
    return "Embedding" in called and not any(name.startswith("Conv") for name in called)


def _needs_no_arguments(arguments: ast.arguments, implicit: int) -> bool:
    """Whether all arguments have a default, except the first `implicit` ones (`self`)."""
    positional = len(arguments.posonlyargs) + len(arguments.args) - implicit
    return positional <= len(arguments.defaults) and all(default is not None for default in arguments.kw_defaults)


def _used_names(tree: ast.Module, classes: set[str]) -> Iterator[str]:
    """The names that classes and factories of models use: what has one of these names is a part of a model."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) or _makes_model(node, classes):
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            yield from names - {getattr(node, "name", "")}


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


# -- the configuration -----------------------------------------------------------------------------


def config_text(models: list[Factory]) -> str:
    """The text of `cspprof.toml`."""
    lines = [HEAD.format(baseline=BASELINE_FILE)]
    for name, model in zip(model_names(models), models[:MAX_MODELS], strict=False):
        shape = 'input = "1x32:int64"' if model.reads_tokens else '# input = "1x3x224x224"'
        lines.append(f"[models.{_toml_key(name)}]\ntarget = {_toml_string(model.target)}\n{shape}\n")
    if len(models) > MAX_MODELS:
        others = printable(", ".join(model.target for model in models[MAX_MODELS:]))
        lines.append(f"# {len(models) - MAX_MODELS} more possible models: {others}\n")
    if not models:
        lines.append(EXAMPLE)
    lines.append(RULES)
    return "\n".join(lines)


def _toml_key(name: str) -> str:
    """A key of TOML. A name with other characters than bare keys have, such as `größer`, is in quotes."""
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else _toml_string(name)


def _toml_string(text: str) -> str:
    """A string of TOML on one line, in which escape sequences replace what cannot be seen."""
    escaped = [f"\\{c}" if c in '"\\' else c if c == printable(c) else f"\\U{ord(c):08x}" for c in text]
    return f'"{"".join(escaped)}"'


def model_names(models: list[Factory]) -> list[str]:
    """A name for each model: that of its class or function or, where several have it, with its file in front, and
    with the folders of the file where the files have one name too."""
    names = [model.name.lower() for model in models]
    for depth in (1, 2, 3, 4):
        clashing = {name for name, n in Counter(names).items() if n > 1}
        names = [_after_file(m, depth) if name in clashing else name for name, m in zip(names, models, strict=True)]
    taken: set[str] = set()
    for i, name in enumerate(names):  # two names in one file that differ only in case
        names[i] = name if name not in taken else f"{name}_{i}"
        taken.add(names[i])
    return names


def _after_file(model: Factory, depth: int) -> str:
    """`net` of `nets/small.py`: `small_net` and, with depth 2, `nets_small_net`; of `csp_net.py`, which ends with it
    already: `csp_net`. A bare key of TOML."""
    parts = Path(model.file).with_suffix("").parts[-depth:]
    names = list(parts) if parts[-1].lower().endswith(model.name.lower()) else [*parts, model.name]
    return re.sub("[^a-z0-9_-]", "_", "_".join(names).lower())


HEAD = """\
# Rules for the cost of this project's models. `cspprof check` checks them: exit code 0 if all rules hold, 1 if one
# fails, 2 if something could not be measured. The same tables can be in pyproject.toml, under [tool.cspprof].

# The file in which `cspprof check --update-baseline` records the current numbers. Commit it to git.
baseline = "{baseline}"

# A model. `target` is a SPEC, as for every cspprof command: net.py:Net, pkg.module:factory, timm:NAME, x.profile.json …
# `input` is its input shape; the default is the model's example_input_shape, or else 1x3x224x224.
# Further keys: convention, dtype, device, train.
"""

EXAMPLE = """\
# No class or function was found that makes a torch.nn.Module without arguments. Name one:
# [models.net]
# target = "path/to/net.py:Net"
# input = "1x3x224x224"
"""

RULES = """\
# Rules. `metric` is any metric of `cspprof metrics`; `cio` is the convolutional input/output. Of a network with few
# convolutions, such as a transformer, limit traffic_bytes instead.
# `model` and `layer` are globs. A rule has one of max, max_increase, min_drop and max_share.

[[rules]]
id = "no-more-cio"
metric = "cio"
max_increase = "0%"     # compared with the baseline; the numbers are exact, so 0% never fails because of noise

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
# base = "net"            # the plain network; without base: compared with the baseline

# [[rules]]
# id = "no-bottleneck"
# metric = "macs"
# max_share = "20%"       # the share of the largest layer
# level = "warn"
"""
