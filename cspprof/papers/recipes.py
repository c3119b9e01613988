"""How a number is computed: one small class for each way, chosen by the keys that an entry of the data file gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from cspprof.core.errors import CspprofError, IncompleteError
from cspprof.core.record import Kind, Record
from cspprof.metrics import METRICS, Amount, Peak, Ratio
from cspprof.papers.arithmetic import worked_out
from cspprof.papers.printed import UNITS


class Subject(NamedTuple):
    """What has to be traced: a SPEC, and its input where that is not the native one."""

    spec: str
    input: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return self.spec if self.input is None else f"{self.spec} --input {'x'.join(map(str, self.input))}"


Profiles = Mapping[Subject, Record]


class Recipe(Protocol):
    """A way to compute a number."""

    @property
    def rule(self) -> str:
        """What it is counted by: the name of a number where it is one."""

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """What has to be traced: the network itself, then the one that it is set against."""

    @property
    def how(self) -> str:
        """What to trace or to work out."""

    def value(self, unit: str, profiles: Profiles) -> Fraction:
        """The exact value in the printed unit. Raises IncompleteError where a network has operations without a rule: a
        total that misses something reproduces nothing."""


@dataclass(frozen=True, slots=True)
class Total:
    """A number of a network, with what is added to it by arithmetic."""

    metric: str
    subject: Subject
    added: str = ""

    @property
    def rule(self) -> str:
        return f"{self.metric} + arithmetic" if self.added else self.metric

    @property
    def subjects(self) -> tuple[Subject, ...]:
        return (self.subject,)

    @property
    def how(self) -> str:
        return f"{self.subject} + {self.added}" if self.added else str(self.subject)

    def value(self, unit: str, profiles: Profiles) -> Fraction:
        total = _total(profiles[self.subject], self.metric) * UNITS[unit][METRICS.get(self.metric).unit]
        return total + worked_out(self.added) * UNITS[unit]["number"] if self.added else total


@dataclass(frozen=True, slots=True)
class Change:
    """The change in a number of one network from another's."""

    metric: str
    subject: Subject
    base: Subject

    @property
    def rule(self) -> str:
        return self.metric

    @property
    def subjects(self) -> tuple[Subject, ...]:
        return (self.subject, self.base)

    @property
    def how(self) -> str:
        return f"{self.subject} against {self.base}"

    def value(self, unit: str, profiles: Profiles) -> Fraction:
        whole = _total(profiles[self.base], self.metric)
        return (_total(profiles[self.subject], self.metric) / whole - 1) * UNITS[unit]["fraction"]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Whole numbers to work out."""

    how: str
    rule: str = "arithmetic"
    subjects: tuple[Subject, ...] = ()

    def value(self, unit: str, profiles: Profiles) -> Fraction:
        return worked_out(self.how) * UNITS[unit]["number"]


@dataclass(frozen=True, slots=True)
class Compression:
    """How many elements the layers of a class write, less than they read."""

    layers: str
    subject: Subject

    @property
    def rule(self) -> str:
        return "elements"

    @property
    def subjects(self) -> tuple[Subject, ...]:
        return (self.subject,)

    @property
    def how(self) -> str:
        return f"what {self.layers} writes against what it reads, in {self.subject}"

    def value(self, unit: str, profiles: Profiles) -> Fraction:
        profile, read, written = profiles[self.subject], 0, 0
        for spec, layer in zip(profile.calls.spec, profile.calls.layer, strict=True):
            op = profile.specs[spec]
            if op.kind is not Kind.VIEW and profile.layers[layer].class_name.endswith(f".{self.layers}"):
                read += op.reads[0].numel
                written += op.writes[0].numel
        if not read:
            raise CspprofError(f"{self.subject} has no layer of class {self.layers}", f"cspprof profile {self.subject}")
        return (Fraction(written, read) - 1) * UNITS[unit]["fraction"]


@dataclass(frozen=True, slots=True)
class Saving:
    """The part of a dense block's CIO that its partial twin saves, by the closed form; without c the limit c ≫ m·d."""

    numbers: tuple[tuple[str, int | str], ...]
    rule: str = "closed form"
    subjects: tuple[Subject, ...] = ()

    @property
    def how(self) -> str:
        given = " ".join(f"--{name} {number}" for name, number in self.numbers)
        return f"cspprof closed-form dense {given}" + ("" if "c" in dict(self.numbers) else ", c → ∞")

    def value(self, unit: str, profiles: Profiles) -> Fraction:
        from cspprof.csp.closed_form import CLOSED_FORMS
        from cspprof.csp.closed_form.forms import PARAMETERS
        from cspprof.csp.closed_form.saving import limits, saving

        found = saving(CLOSED_FORMS.get("dense"))
        if "c" not in dict(self.numbers):
            found = next(limit.value for limit in limits(found) if limit.symbol.name == "c")
        return Fraction(str(found.subs({PARAMETERS[name][0]: n for name, n in self.numbers}))) * UNITS[unit]["fraction"]


def exact(amount: Amount) -> Fraction:
    """An amount without rounding."""
    if isinstance(amount, Ratio):
        return Fraction(amount.numerator, amount.denominator)
    return Fraction(amount.n) if isinstance(amount, Peak) else Fraction(amount.n, amount.scale)


def _total(record: Record, metric: str) -> Fraction:
    if not record.complete:
        raise IncompleteError(f"{record.model} has operations without a rule", f"cspprof profile {record.model}")
    return exact(METRICS.get(metric).total(record))


KEYS = ("spec", "input", "metric", "base", "arithmetic", "layers", "saving")
"""Of an entry, those that say how it is computed."""


def chosen_by(entry: Mapping[str, Any], unit: str) -> Recipe | None:
    """The recipe of an entry; None where it gives none. Raises CspprofError for keys that make none, and for a number
    that cannot be printed in `unit`."""
    if unit not in UNITS:
        raise CspprofError(f"no unit {unit!r}", f"There are: {', '.join(UNITS)}")
    given = {key for key in KEYS if key in entry} - {"input"}
    size = tuple(entry["input"]) if "input" in entry else None
    if "arithmetic" in given:
        worked_out(entry["arithmetic"])
    if not given:
        return None
    if given == {"arithmetic"}:
        return Arithmetic(entry["arithmetic"])
    if given == {"saving"}:
        _check_percentage(unit)
        return Saving(tuple(entry["saving"].items()))
    if given == {"spec", "layers"}:
        _check_percentage(unit)
        return Compression(entry["layers"], Subject(entry["spec"], size))
    if given == {"spec", "metric", "base"}:
        METRICS.get(entry["metric"])
        _check_percentage(unit)
        return Change(entry["metric"], Subject(entry["spec"], size), Subject(entry["base"], size))
    if given in ({"spec", "metric"}, {"spec", "metric", "arithmetic"}):
        _check_unit(entry["metric"], unit)
        return Total(entry["metric"], Subject(entry["spec"], size), entry.get("arithmetic", ""))
    raise CspprofError(
        f"{', '.join(sorted(given))} do not say how to compute it",
        "Give it spec and metric (with base or arithmetic), spec and layers, saving, or arithmetic.",
    )


def _check_percentage(unit: str) -> None:
    if unit != "%":
        raise CspprofError("a change is a percentage", f"Print it in %, not in {unit}.")


def _check_unit(metric: str, unit: str) -> None:
    measured = METRICS.get(metric).unit
    if measured not in UNITS[unit]:
        raise CspprofError(
            f"{metric} is a number of {measured}, never of {unit}", f"{unit} can be of: {', '.join(UNITS[unit])}"
        )
