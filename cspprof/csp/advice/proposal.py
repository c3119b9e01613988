"""The proposals of advisers, and the registry of advisers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

from cspprof.core.cached import cached
from cspprof.core.record import Record
from cspprof.core.registry import Registry
from cspprof.csp.advice.network_widths import NetworkWidths, WidthChange
from cspprof.csp.conversion.channels import CouplingError
from cspprof.csp.conversion.plan import Options
from cspprof.metrics import HIGHER_IS_BETTER, METRICS, Number
from cspprof.metrics.names import resolve_metric

LEAST_GAIN = 0.01
"""The part of a network's number that a change must save to be worth a line."""


@dataclass(frozen=True, slots=True)
class StageConversion:
    """One stage becomes cross stage partial."""

    stage: str
    options: Options


@dataclass(frozen=True, slots=True)
class InPlace:
    """Activations write into their input."""

    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FoldNorms:
    """Batch norms become a part of the convolution in front of them, as at inference."""

    pairs: tuple[tuple[str, str], ...]
    """Paths of a convolution and of the norm behind it."""


Change = WidthChange | StageConversion | InPlace | FoldNorms


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change that one adviser proposes, with its effect as computed from shapes."""

    place: str
    """Where: a layer, a stage, or several layers."""
    finding: str
    """The observation at this place."""
    action: str
    """The change in words."""
    metric: str
    """The number of the whole network that the change improves: a registered metric, or `idle_macs`."""
    change: Change | None
    """The change that can be applied to a module; None if only the author of the forward can make it."""
    computed: Number
    """The number after the change, computed from shapes."""
    limits: tuple[str, ...] = ()
    """Metrics that must not get worse."""


@dataclass(frozen=True, slots=True)
class Adviser:
    """A registered adviser."""

    name: str
    propose: Callable[[Record], Iterable[Proposal]]
    most: int
    """The largest number of suggestions that are kept."""

    @property
    def summary(self) -> str:
        return (self.propose.__doc__ or "").strip().partition("\n")[0]


ADVISERS: Registry[Adviser] = Registry("adviser")


def adviser(
    name: str, most: int = 3
) -> Callable[[Callable[[Record], Iterable[Proposal]]], Callable[[Record], Iterable[Proposal]]]:
    """Register the decorated function: a function from a record to proposals, the best first."""

    def register(function: Callable[[Record], Iterable[Proposal]]) -> Callable[[Record], Iterable[Proposal]]:
        ADVISERS.add(name, Adviser(name, function, most))
        return function

    return register


@cached
def network_widths(record: Record) -> NetworkWidths | None:
    """The channel groups of a record; None if the model reads no map."""
    try:
        return NetworkWidths(record)
    except CouplingError:
        return None


OWN_NUMBERS: dict[str, tuple[str, Callable[[Record], int]]] = {}
"""Numbers that are no registered metrics: the title, and the function that computes them."""


def number(record: Record, metric: str) -> Fraction | None:
    """The exact value of a metric, or of a number of an adviser; None if it is unknown."""
    if metric in OWN_NUMBERS:
        return Fraction(OWN_NUMBERS[metric][1](record))
    amount = METRICS.get(resolve_metric(metric)).total(record)
    return None if amount.missed else amount.exact


def gain(record: Record, metric: str, before: Fraction | None, after: Fraction | None) -> float:
    """The part of the network's number that a change improves; negative if it gets worse, 0 if a value is unknown.
    Idle MACs are a part of the network's MACs."""
    whole = number(record, "macs") if metric == "idle_macs" else before
    if before is None or after is None or not whole:
        return 0.0
    change = float((after - before) / whole)
    return change if metric in HIGHER_IS_BETTER else -change


def named(paths: Iterable[str]) -> str:
    """`layer1.0.conv1`, or `layer1.0.conv1 and 5 more layers`."""
    unique = list(dict.fromkeys(paths))
    more = len(unique) - 1
    return unique[0] if not more else f"{unique[0]} and {more} more layer{'s' if more > 1 else ''}"
