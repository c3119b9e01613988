"""The published tables and figures in `data/published.toml`, parsed and validated."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from cspprof.core.errors import CspprofError
from cspprof.core.registry import Registry
from cspprof.papers.printed_value import Agreement, PrintedValue, parse_printed
from cspprof.papers.recipes import KEYS, Network, Recipe, parse_recipe

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PublishedFigure:
    """A printed number and how to compute it."""

    row: str
    printed: PrintedValue
    recipe: Recipe | None
    """None if the network has no public definition."""
    required: Agreement | None
    """The agreement that a computed value must keep; None if it is not reproduced."""
    reason: str
    """Why the number is known not to reproduce; else empty."""


@dataclass(frozen=True, slots=True)
class RelatedNumber:
    """A number that is not in print but explains the published ones."""

    row: str
    unit: str
    places: int
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table or figure of a paper."""

    name: str
    title: str
    figures: tuple[PublishedFigure, ...]
    related: tuple[RelatedNumber, ...]

    @property
    def networks(self) -> list[Network]:
        """The networks that the recipes need, with duplicates."""
        recipes = [f.recipe for f in self.figures] + [r.recipe for r in self.related]
        return [network for recipe in recipes if recipe is not None for network in recipe.networks]


@cache
def published_tables() -> Registry[PublishedTable]:
    """Every table and figure, in the order of the file."""
    return parse_tables((resources.files("cspprof") / "data" / "published.toml").read_text(encoding="utf-8"))


def tables_named(name: str) -> list[PublishedTable]:
    """The table or figure `name`, or all of them for "all". Raises UnknownNameError."""
    tables = published_tables()
    return [table for _, table in tables.items()] if name == "all" else [tables.get(name)]


def parse_tables(text: str) -> Registry[PublishedTable]:
    """The tables of a data file. Raises CspprofError, with the table and row, for an invalid entry."""
    document = tomllib.loads(text)
    reasons: Mapping[str, str] = document.pop("because", {})
    tables: Registry[PublishedTable] = Registry("table or figure")
    for name, table in document.items():
        if "title" not in table or table.keys() - {"title", "figures", "beside"}:
            raise CspprofError(f"{name} is not a table of figures", "Its keys: title, figures, beside")
        figures = _parse_entries(name, table.get("figures", ()), lambda entry: _figure(entry, reasons))
        related = _parse_entries(name, table.get("beside", ()), _related)
        tables.add(name, PublishedTable(name, table["title"], figures, related))
    return tables


def _parse_entries(
    table: str, entries: Iterable[Mapping[str, Any]], parse: Callable[[Mapping[str, Any]], T]
) -> tuple[T, ...]:
    """Parse every entry. Errors name the table and the row."""
    parsed = []
    for entry in entries:
        try:
            parsed.append(parse(entry))
        except CspprofError as error:
            raise CspprofError(f"{table}, {entry.get('row', '?')!r}: {error.message}", error.hint) from None
    return tuple(parsed)


def _figure(entry: Mapping[str, Any], reasons: Mapping[str, str]) -> PublishedFigure:
    _check_keys(entry, required=("row", "printed"), optional=("must", "because"))
    printed = parse_printed(entry["printed"])
    recipe = parse_recipe(entry, printed.unit)
    required, reason = entry.get("must"), entry.get("because")
    if required not in (None, "exact", "truncated"):
        raise CspprofError(f"must = {required!r} is not an agreement", "Write exact or truncated.")
    if reason is not None and reason not in reasons:
        raise CspprofError(f"no reason named {reason!r}", "Define it under [because].")
    if recipe is None and (required or reason):
        raise CspprofError("must and because need a recipe", "Add spec and metric.")
    if required and reason:
        raise CspprofError("must and because exclude each other", "Remove one of them.")
    return PublishedFigure(entry["row"], printed, recipe, required, "" if reason is None else reasons[reason])


def _related(entry: Mapping[str, Any]) -> RelatedNumber:
    _check_keys(entry, required=("row", "unit", "places"))
    recipe = parse_recipe(entry, entry["unit"])
    if recipe is None:
        raise CspprofError("a number beside the figures needs a recipe", "Add spec and metric, or arithmetic.")
    return RelatedNumber(entry["row"], entry["unit"], entry["places"], recipe)


def _check_keys(entry: Mapping[str, Any], required: Sequence[str], optional: Sequence[str] = ()) -> None:
    known = (*required, *optional, *KEYS)
    errors = [f"the key {key} is missing" for key in required if key not in entry]
    errors += [f"unknown key {key}" for key in entry if key not in known]
    if errors:
        raise CspprofError("; ".join(errors), f"The keys of an entry: {', '.join(known)}")
