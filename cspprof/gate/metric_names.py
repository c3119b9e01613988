"""The words of a configuration: `cio` and `compute`, which mean what a model's convention says, and globs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache

from cspprof.core.errors import UnknownNameError
from cspprof.metrics import CONVENTIONS, METRICS

CIO_RULES = {"cspnet": "cio_cspnet", "hardnet": "cio_hardnet"}
SETTLED = ("cio", "compute")


def known_convention(name: str) -> str:
    """`name`, if it is a rule of CIO or a convention of compute. Raises UnknownNameError, which suggests."""
    if name not in CIO_RULES and name not in CONVENTIONS:
        known = [*CIO_RULES, *CONVENTIONS.names()]
        near = get_close_matches(name, known, 3, 0.5)
        hint = f"Did you mean: {', '.join(near)}?" if near else f"There are: {', '.join(known)}"
        raise UnknownNameError(f"no convention named {name!r}", hint)
    return name


def known_metric(name: str) -> str:
    """`name`, if it is a number. Raises UnknownNameError, which suggests."""
    if name not in SETTLED and name not in METRICS and name not in CONVENTIONS:
        near = get_close_matches(name, [*SETTLED, *METRICS], 3, 0.5)
        hint = f"Did you mean: {', '.join(near)}?" if near else "List them with: cspprof metrics"
        raise UnknownNameError(f"no metric named {name!r}", hint)
    return name


def metric_of(word: str, convention: str) -> str:
    """The registered number that `word` means under a model's convention."""
    if word == "cio":
        return CIO_RULES.get(convention, "cio_cspnet")
    if word == "compute":
        return convention if convention in CONVENTIONS else "macs"
    return word


@cache
def _pattern(glob: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*|\?)", glob)
    return re.compile("".join({"**": ".*", "*": "[^.]*", "?": "[^.]"}.get(p, re.escape(p)) for p in parts))


def matches(glob: str, name: str) -> bool:
    """Whether `name` is meant: `*` and `?` stay within a name, `**` crosses dots.

    >>> matches("stage?.*.conv", "stage1.0.conv"), matches("stage*", "stage1.0"), matches("stage1.**", "stage1.0.conv")
    (True, False, True)
    """
    return _pattern(glob).fullmatch(name) is not None


def suggestion(glob: str, names: Iterable[str], noun: str) -> str:
    """What to write instead of a name or glob that matches nothing."""
    known = list(names)
    near = get_close_matches(glob, known, 3, 0.5)
    if near:
        return f"Did you mean: {', '.join(near)}?"
    return f"There are: {', '.join(known[:8])}{' …' if len(known) > 8 else ''}" if known else f"There is no {noun}."
