"""Which layers a failure comes from, what follows from them, largest first; and where their classes are written."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

from cspprof.gate.measurement import Measured, exact
from cspprof.gate.rules import Cause, Finding

SHOWN = 10


def causes(finding: Finding, found: Measured, own: Measured | None, base: Measured | None) -> list[Cause]:
    """The layers that grew since `own`, the same model as it was recorded, or else since `base`; the largest layers
    where there is nothing that shares their names. Empty for a number that layers do not have.

    What was changed comes first, then what follows from it (`Cause.follows`), each the largest first: a convolution
    that was widened before those that read its output, whose difference may well be larger.
    """
    smaller = finding.limit is None  # a gain that was not recorded
    for before in (own, base):
        if before is not None and _comparable(found, before):
            changed = [c for c in _candidates(finding, found, before) if c.difference and (c.difference < 0) == smaller]
            if changed:
                return sorted(changed, key=lambda c: (c.follows, -abs(c.difference)))
    return sorted(_candidates(finding, found, None), key=lambda c: -c.value)


def _comparable(found: Measured, before: Measured) -> bool:
    return 2 * len(found.parts.keys() & before.parts.keys()) >= len(found.parts)


def _candidates(finding: Finding, found: Measured, before: Measured | None) -> Iterator[Cause]:
    old = {} if before is None else before.parts
    for path in dict.fromkeys([*found.parts, *old]):
        if finding.layer and path != finding.layer and not path.startswith(finding.layer + "."):
            continue
        now, then = ((side[path].amounts.get(finding.metric) if path in side else None) for side in (found.parts, old))
        if now is None and then is None:
            continue
        part = found.parts.get(path) or old[path]
        yield Cause(
            layer=path,
            value=Fraction(0) if now is None else exact(now) or Fraction(0),
            before=None if then is None else exact(then),
            form=part.form if path in found.parts else "",
            form_before=old[path].form if path in old else "",
            owner=part.owner.rpartition(".")[2],
            file=part.file,
            line=None,
            new=before is not None and path not in old,
        )


def class_lines(folder: Path, found: Measured) -> Mapping[str, int]:
    """The line on which each part's class begins, by path of the part; those that cannot be found left out."""
    tables: dict[str, dict[str, int]] = {}
    lines = {}
    for path, part in found.parts.items():
        if part.file:
            if part.file not in tables:
                tables[part.file] = _classes(folder / part.file)
            table = tables[part.file]
            # The qualified name of the class ends in its name within the file: pkg.mod.Outer.Inner
            names = part.owner.split(".")
            hit = next((n for i in range(len(names)) if (n := table.get(".".join(names[i:]))) is not None), None)
            if hit is not None:
                lines[path] = hit
    return lines


def _classes(file: Path) -> dict[str, int]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return {}
    return dict(_within(tree, ""))


def _within(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        name = prefix
        if isinstance(child, ast.ClassDef):
            name = f"{prefix}{child.name}"
            yield name, child.lineno
            name += "."
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            name = f"{prefix}{child.name}.<locals>."
        yield from _within(child, name)
