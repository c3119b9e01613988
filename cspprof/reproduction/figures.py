"""The published figures: `data/published.toml`, read and held to its own rules."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, NamedTuple, TypeVar

from cspprof.errors import CspprofError
from cspprof.metrics import METRICS
from cspprof.registry import Registry
from cspprof.reproduction.arithmetic import worked_out
from cspprof.reproduction.printed import UNITS, Agreement, Printed, parse

T = TypeVar("T")


class Subject(NamedTuple):
    """What has to be traced: a SPEC, and its input where that is not the native one."""

    spec: str
    input: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return self.spec if self.input is None else f"{self.spec} --input {'x'.join(map(str, self.input))}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a number is computed: a registered number of a network, the change of one from another network's, arithmetic,
    or the first with arithmetic added."""

    metric: str | None = None
    subject: Subject | None = None
    base: Subject | None = None
    arithmetic: str | None = None

    @property
    def rule(self) -> str:
        return " + ".join(filter(None, (self.metric, self.arithmetic and "arithmetic"))) or "–"

    @property
    def subjects(self) -> list[Subject]:
        return [s for s in (self.subject, self.base) if s is not None]

    @property
    def how(self) -> str:
        """What to trace or to work out: `csp_resnext50 against resnext50`, `1 - 5/8`."""
        return " + ".join(filter(None, (" against ".join(map(str, self.subjects)), self.arithmetic)))


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure in print, and how to compute it; with an empty recipe, one that no public definition stands behind."""

    row: str
    printed: Printed
    recipe: Recipe
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
        return [s for recipe in recipes for s in recipe.subjects]


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
    recipe = _recipe(entry, printed.unit)
    must, because = entry.get("must"), entry.get("because")
    if must not in (None, "exact", "truncated"):
        raise CspprofError(f"must = {must!r}", "A figure must come out exact or truncated.")
    if because is not None and because not in reasons:
        raise CspprofError(f"no reason named {because!r}", "Reasons stand under [because].")
    if recipe.rule == "–" and (must or because):
        raise CspprofError("nothing computes it, so nothing can be asked of it", "Give it a spec and a metric.")
    if must and because:
        raise CspprofError("it has to come out and is known not to", "Give it must or because.")
    return Figure(entry["row"], printed, recipe, must, "" if because is None else reasons[because])


def _beside(entry: Mapping[str, Any]) -> Beside:
    _check(entry, required=("row", "unit", "places"))
    recipe = _recipe(entry, entry["unit"])
    if recipe.rule == "–":
        raise CspprofError("nothing computes it", "Give it a spec and a metric, or arithmetic.")
    return Beside(entry["row"], entry["unit"], entry["places"], recipe)


_RECIPE = ("spec", "input", "metric", "base", "arithmetic")


def _check(entry: Mapping[str, Any], required: Sequence[str], allowed: Sequence[str] = ()) -> None:
    missing = [key for key in required if key not in entry]
    unknown = [key for key in entry if key not in (*required, *allowed, *_RECIPE)]
    if missing or unknown:
        wrong = [f"{key} is missing" for key in missing] + [f"{key} is no key of it" for key in unknown]
        raise CspprofError("; ".join(wrong), f"Its keys: {', '.join((*required, *allowed, *_RECIPE))}")


def _recipe(entry: Mapping[str, Any], unit: str) -> Recipe:
    given = {key for key in _RECIPE if key in entry}
    if unit not in UNITS:
        raise CspprofError(f"no unit {unit!r}", f"There are: {', '.join(UNITS)}")
    if not given:
        return Recipe()
    arithmetic = entry.get("arithmetic")
    if arithmetic is not None:
        worked_out(arithmetic)
    if given == {"arithmetic"}:
        return Recipe(arithmetic=arithmetic)
    if not {"spec", "metric"} <= given or {"arithmetic", "base"} <= given:
        raise CspprofError(f"{', '.join(sorted(given))} do not say how to compute it",
                           "Give it spec and metric (with input, base or arithmetic), or arithmetic.")  # fmt: skip
    measured = METRICS.get(entry["metric"]).unit
    if "base" in given and unit != "%":
        raise CspprofError("the change from a base is a percentage", f"Print it in %, not in {unit}.")
    if "base" not in given and measured not in UNITS[unit]:
        raise CspprofError(f"{entry['metric']} is a number of {measured}, never of {unit}",
                           f"{unit} can be of: {', '.join(UNITS[unit])}")  # fmt: skip
    size = tuple(entry["input"]) if "input" in given else None
    base = Subject(entry["base"], size) if "base" in given else None
    return Recipe(entry["metric"], Subject(entry["spec"], size), base, arithmetic)
