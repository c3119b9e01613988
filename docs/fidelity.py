"""Write `fidelity.md`: what vouches for each number. With `--check`, exit with 1 if the page is not current.

`fidelity/oracles.toml` lists the oracles; its head says how to write counts. `--timm FILE` first takes over the results
that `benchmarks/timm_sweep.py --json FILE` wrote.
"""

from __future__ import annotations

import ast
import csv
import json
import re
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from page_files import write_or_check

DOCS = Path(__file__).parent
CHECKOUT = DOCS.parent
PAGE = DOCS / "fidelity.md"
ORACLES = DOCS / "fidelity" / "oracles.toml"
TIMM = DOCS / "fidelity" / "timm_macs.csv"
PEAKS = DOCS / "fidelity" / "training_peak.csv"
TOLERANCE = 0.05

INTRODUCTION = """\
# What vouches for each number

An *oracle* is something independent of cspprof that gives the same number: torch's own counter, autograd, an allocator,
an engine, a printed table, or arithmetic by hand. This page lists all of them. [Metrics](semantics.md) defines the
numbers. A number that is only partly known says so (`≥`, `?`).

`python docs/fidelity.py` writes this page. Its counts come from the tests and from committed results, and a test checks
that they are current.
"""


class Oracle(NamedTuple):
    """An independent source for a number. Its texts have their counts filled in."""

    number: str
    oracle: str
    scope: str
    """On how many networks, operations or cells."""
    agreement: str
    reproduce: list[str]
    """Tests and commands."""
    differs: str = ""
    """Known differences, with their reasons."""


# -- counts -----------------------------------------------------------------------------------------


@cache
def _test_file(file: str) -> ast.Module:
    return ast.parse((CHECKOUT / "tests" / file).read_text())


def _length(file: str, value: ast.expr) -> int:
    """The number of elements of a list, tuple, set, dict, or name of one, as written in a test file."""
    if isinstance(value, ast.Name):
        return length(file, value.id)
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "quick":
        return _length(file, value.args[0])
    if isinstance(value, ast.Dict):
        parts = zip(value.keys, value.values, strict=True)
        return sum(_length(file, part) if key is None else 1 for key, part in parts)
    if isinstance(value, (ast.DictComp, ast.ListComp, ast.GeneratorExp)):
        if any(generator.ifs for generator in value.generators):
            raise ValueError(f"{file}: elements that a condition selects cannot be counted: {ast.unparse(value)}")
        return prod(_length(file, generator.iter) for generator in value.generators)
    if isinstance(value, (ast.List, ast.Tuple, ast.Set)):
        return sum(_length(file, e.value) if isinstance(e, ast.Starred) else 1 for e in value.elts)
    raise ValueError(f"{file}: elements cannot be counted: {ast.unparse(value)}")


def length(file: str, *names: str) -> int:
    """The number of elements that a test file assigns to these names."""
    assigned: dict[str, ast.expr] = {}
    for node in _test_file(file).body:
        if isinstance(node, ast.Assign):
            assigned[ast.unparse(node.targets[0])] = node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            assigned[ast.unparse(node.target)] = node.value
    return sum(_length(file, assigned[name]) for name in names)


def functions(file: str) -> dict[str, ast.FunctionDef]:
    """The functions of a test file."""
    return {node.name: node for node in _test_file(file).body if isinstance(node, ast.FunctionDef)}


def cases(file: str, test: str) -> int:
    """The number of cases of a test: the product of its parametrizations. A decorator `DEVICES` makes two."""
    product = 1
    for decorator in functions(file)[test].decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.parametrize":
            product *= _length(file, decorator.args[1])
        elif isinstance(decorator, ast.Name) and decorator.id == "DEVICES":
            product *= 2
    return product


def rows(file: str, condition: str = "") -> int:
    """The number of rows of a table, or of those with a value in a column: `status=exact`."""
    column, _, wanted = condition.partition("=")
    return sum(not column or row[column] == wanted for row in table(CHECKOUT / file))


def table(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def in_page(file: str, pattern: str) -> str:
    """The first group of a pattern in another page."""
    match = re.search(pattern, (CHECKOUT / file).read_text())
    if match is None:
        raise LookupError(f"{file} does not contain {pattern!r}")
    return match[1]


def zoo() -> int:
    """The number of networks of the zoo."""
    return len((CHECKOUT / "cspprof" / "data" / "zoo_names.txt").read_text().split())


def comparisons() -> dict[str, tuple[float, str]]:
    """For each network: how much the predicted peak of a training step differs from the measured one, and why."""
    return {row["network"]: (float(row["difference"]), row["reason"]) for row in table(PEAKS)}


def peaks(what: str) -> int | str:
    """A figure of the comparison of predicted and measured peaks of training steps."""
    compared = comparisons()
    far = {name: (d, reason) for name, (d, reason) in compared.items() if abs(d) > TOLERANCE}
    if what in ("zoo", "timm"):
        return sum(name.startswith("timm:") == (what == "timm") for name in compared)
    if what == "close":
        return len(compared) - len(far)
    if what == "median":
        return f"{sorted(abs(d) for d, _ in compared.values())[len(compared) // 2] * 100:.1f} %"
    by_reason: dict[str, list[str]] = {}
    for name, (d, reason) in far.items():
        by_reason.setdefault(reason, []).append(f"{name} {'−' if d < 0 else '+'}{abs(d) * 100:.1f} %")
    return " ".join(f"{reason}: {', '.join(names)}." for reason, names in by_reason.items())


def _count(match: re.Match[str]) -> str:
    kind, _, rest = match[1].partition(" ")
    if kind == "page":
        file, _, pattern = rest.partition(" ")
        return in_page(file, pattern)
    arguments = rest.split()
    if kind == "outputs":
        return str(sum(name.endswith("_output") for name in functions(*arguments)))
    counters: dict[str, Callable[..., int | str]] = {
        "list": length, "cases": cases, "rows": rows, "zoo": zoo, "peaks": peaks,
    }  # fmt: skip
    count = counters[kind](*arguments)
    return f"{count:,}" if isinstance(count, int) else count


def filled(text: str) -> str:
    """The text with its counts."""
    return re.sub(r"\{([^{}]+)\}", _count, text)


def _filled(value: Any) -> Any:
    return filled(value) if isinstance(value, str) else value


# -- the page ---------------------------------------------------------------------------------------


def families() -> dict[str, list[Oracle]]:
    """The oracles, by family of numbers."""
    listed: dict[str, list[dict[str, Any]]] = tomllib.loads(ORACLES.read_text())
    return {
        family: [Oracle(**{k: _filled(v) for k, v in entry.items()}) for entry in entries]
        for family, entries in listed.items()
    }


def page() -> str:
    """The whole page."""
    lines = [INTRODUCTION, "| number | oracle | on | agreement |", "| --- | --- | --- | --- |"]
    sections = []
    for family, oracles in families().items():
        anchor = family.lower().replace(" ", "-")
        lines += [f"| [{o.number}](#{anchor}) | {o.oracle} | {o.scope} | {o.agreement} |" for o in oracles]
        sections.append(f"\n## {family}\n")
        for o in oracles:
            known = f" {o.differs}" if o.differs else ""
            commands = ", ".join(f"`{_command(entry)}`" for entry in o.reproduce)
            sections.append(f"- **{o.number}**: {o.oracle}. *On* {o.scope}. *Result*: {o.agreement}.{known}")
            sections.append(f"  Run {commands}.")
    return "\n".join([*lines, *sections]) + "\n"


def _command(entry: str) -> str:
    if entry.startswith("test_"):
        return f"pytest tests/{entry}"
    return entry if entry.startswith("cspprof") else f"python {entry}"


def take_over(file: Path) -> None:
    """Replace the committed results for timm by those of a run of the benchmark."""
    measured: list[dict[str, Any]] = json.loads(file.read_text())
    with TIMM.open("w", newline="") as target:
        writer = csv.writer(target, lineterminator="\n")
        writer.writerow(["architecture", "input", "macs", "torch_macs", "verdict"])
        for row in sorted(measured, key=lambda row: row["name"]):
            theirs = row["torch_macs"]
            theirs = int(theirs) if theirs is not None and theirs == int(theirs) else theirs
            writer.writerow([row["name"], row["input"].replace("×", "x"), row["macs"], theirs, row["verdict"]])


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--timm"]:
        take_over(Path(arguments[1]))
    return write_or_check({PAGE: page()}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
