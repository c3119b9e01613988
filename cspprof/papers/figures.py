"""The published figures: `data/published.toml`, read and held to its own rules."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from cspprof.core.errors import CspprofError
from cspprof.core.registry import Registry
from cspprof.papers.printed import Agreement, Printed, parse
from cspprof.papers.recipes import KEYS, Recipe, Subject, chosen_by

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure in print, and how to compute it; without a recipe, one that no public definition stands behind."""

    row: str
    printed: Printed
    recipe: Recipe | None
    must: Agreement | None
    """What it came out as, and has to come out as from then on."""
    because: str
    """Why it is known not to reproduce; shown only where it does not."""


@dataclass(frozen=True, slots=True)
class Beside:
    """A number that nobody printed and that belongs beside the figures."""

    row: str
    unit: str
    places: int
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Published:
    """A table or a figure of a paper."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    beside: tuple[Beside, ...]

    @property
    def subjects(self) -> list[Subject]:
        recipes = [f.recipe for f in self.figures] + [b.recipe for b in self.beside]
        return [s for recipe in recipes if recipe is not None for s in recipe.subjects]


@cache
def published() -> Registry[Published]:
    """Every table and figure, in the order of the file."""
    return read((resources.files("cspprof") / "data" / "published.toml").read_text(encoding="utf-8"))


def chosen(name: str) -> list[Published]:
    """The table or figure `name`, or all. Raises UnknownNameError, with what it might have meant."""
    known = published()
    return [entry for _, entry in known.items()] if name == "all" else [known.get(name)]


def read(text: str) -> Registry[Published]:
    """The tables of a data file. Raises CspprofError where an entry breaks a rule of the file, naming it."""
    document = tomllib.loads(text)
    reasons: Mapping[str, str] = document.pop("because", {})
    found: Registry[Published] = Registry("table or figure")
    for name, table in document.items():
        if "title" not in table or table.keys() - {"title", "figures", "beside"}:
            raise CspprofError(f"{name} is no table of figures", "It has a title, figures, and what is beside them.")
        figures = _each(name, table.get("figures", ()), lambda entry: _figure(entry, reasons))
        found.add(name, Published(name, table["title"], figures, _each(name, table.get("beside", ()), _beside)))
    return found


def _each(table: str, entries: Iterable[Mapping[str, Any]], make: Callable[[Mapping[str, Any]], T]) -> tuple[T, ...]:
    """What `make` makes of every entry; its errors say which."""
    made = []
    for entry in entries:
        try:
            made.append(make(entry))
        except CspprofError as error:
            raise CspprofError(f"{table}, {entry.get('row', '?')!r}: {error.message}", error.hint) from None
    return tuple(made)


def _figure(entry: Mapping[str, Any], reasons: Mapping[str, str]) -> Figure:
    _check(entry, required=("row", "printed"), allowed=("must", "because"))
    printed = parse(entry["printed"])
    recipe = chosen_by(entry, printed.unit)
    must, because = entry.get("must"), entry.get("because")
    if must not in (None, "exact", "truncated"):
        raise CspprofError(f"must = {must!r}", "A figure must come out exact or truncated.")
    if because is not None and because not in reasons:
        raise CspprofError(f"no reason named {because!r}", "Reasons stand under [because].")
    if recipe is None and (must or because):
        raise CspprofError("nothing computes it, so nothing can be asked of it", "Give it a spec and a metric.")
    if must and because:
        raise CspprofError("it has to come out and is known not to", "Give it must or because.")
    return Figure(entry["row"], printed, recipe, must, "" if because is None else reasons[because])


def _beside(entry: Mapping[str, Any]) -> Beside:
    _check(entry, required=("row", "unit", "places"))
    recipe = chosen_by(entry, entry["unit"])
    if recipe is None:
        raise CspprofError("nothing computes it", "Give it a spec and a metric, or arithmetic.")
    return Beside(entry["row"], entry["unit"], entry["places"], recipe)


def _check(entry: Mapping[str, Any], required: Sequence[str], allowed: Sequence[str] = ()) -> None:
    known = (*required, *allowed, *KEYS)
    wrong = [f"{key} is missing" for key in required if key not in entry]
    wrong += [f"{key} is no key of it" for key in entry if key not in known]
    if wrong:
        raise CspprofError("; ".join(wrong), f"Its keys: {', '.join(known)}")
