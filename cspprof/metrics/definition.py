"""`Metric`, the decorator that registers one, and the registries of metrics and of conventions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from cspprof.core.errors import CspprofError
from cspprof.core.record import OpSpec, Record
from cspprof.core.registry import Registry
from cspprof.metrics.amounts import Amount, Peak, Ratio, Sum

Number = int | float | None
HIGHER_IS_BETTER = frozenset({"moc", "balance"})
"""Metrics of which a larger value is better. Of all others, except `NEITHER_IS_BETTER`, a smaller value is better."""

NEITHER_IS_BETTER = frozenset({"conv_share"})
"""Metrics that only describe a network."""

Unit = Literal["MACs", "FLOPs", "BFLOPs", "elements", "bytes", "values", "MACs/element", "fraction", "ops"] | str
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Metric:
    """A registered metric: what the number is, and the function that computes it."""

    name: str
    title: str
    unit: Unit
    is_not: str
    """Other quantities that are often confused with it."""
    paper: str
    of_op: Callable[[OpSpec], Any] | None
    """Computes the metric of one operation; None for a metric of the whole model."""
    of_record: Callable[[Record], Any] | None
    """Computes a metric of the whole model; None for a metric of operations."""
    definition: str
    scale: int
    zero: Amount
    """The value of no operations. Its class says how values combine."""
    printed: Callable[[Record], float | None] | None
    """The total with the rounding of the tool that prints it, if that differs. The value itself stays exact."""

    @property
    def builtin(self) -> bool:
        """Whether cspprof registered it, not a user."""
        return (self.of_op or self.of_record).__module__.startswith("cspprof.metrics")

    @property
    def additive(self) -> bool:
        """Whether the values of the layers add up to the value of the model. Not so for peaks, ratios and metrics of
        the whole model."""
        return self.of_op is not None and isinstance(self.zero, Sum)

    def op_value(self, spec: OpSpec) -> Amount | None:
        """The value of one operation; None if it is unknown or the metric is one of the whole model."""
        return None if self.of_op is None else self._amount(self.of_op(spec))

    def group_value(self, specs: Iterable[tuple[OpSpec, int]]) -> Amount:
        """The value of a group of calls, given as (spec, number of calls). It counts the unknown calls as missed."""
        if self.of_op is None:
            return self.zero
        found = [(self.of_op(spec), calls) for spec, calls in specs]
        values = [(value, calls) for value, calls in found if value is not None]
        total: Any = self.zero
        if len(values) < len(found):
            total = replace(total, missed=sum([calls for value, calls in found if value is None]))
        if values and all(type(value) is int for value, _ in values):  # nearly always; five times faster than amounts
            peak = isinstance(total, Peak)
            count = max([value for value, _ in values]) if peak else sum([value * calls for value, calls in values])
            return total + self._amount(count)  # type: ignore[no-any-return]
        for value, calls in values:
            total = total + self._amount(value) * calls
        return total  # type: ignore[no-any-return]

    def total(self, record: Record) -> Amount:
        """The value of the whole model. It counts the calls whose part is unknown as missed."""
        if self.of_record is None:
            return self.group_value(record.spec_counts)
        amount: Amount = self._amount(self.of_record(record))
        return amount

    def _amount(self, value: Any) -> Any:
        """What the function of a metric returned, with an int as an amount of the class of `zero`."""
        if value is None or isinstance(value, (Sum, Peak, Ratio)):
            return value
        return Peak(int(value)) if isinstance(self.zero, Peak) else Sum(int(value), self.scale)


CONVENTIONS: Registry[Metric] = Registry("convention", "cspprof explain conventions")
"""The totals of other tools: see `conventions`. `METRICS.get` finds them, but does not list them."""

DEFAULT_METRICS = {"cio": "cio_cspnet", "compute": "macs"}
"""Names that stand for a metric, and the metric that they mean without a convention; see `names.resolve_metric`."""

METRICS: Registry[Metric] = Registry("metric", "cspprof metrics", fallback=CONVENTIONS, aliases=DEFAULT_METRICS)


def value_of(record: Record, metric: str) -> Any:
    """The value of a registered metric for the whole model: an exact int for a count, a float for a ratio or a scaled
    count, None for a ratio whose denominator is 0 or of which a part is unknown.

    A sum or a peak that misses operations is a lower bound; see `lower_bounds`. Raises UnknownNameError.
    """
    return METRICS.get(metric).total(record).value


def lower_bounds(record: Record, metrics: Iterable[str]) -> list[str]:
    """Those of `metrics` whose totals are lower bounds, because they miss operations of which a part is unknown."""
    totals = {name: METRICS.get(name).total(record) for name in metrics}
    return [name for name, amount in totals.items() if amount.missed and amount.value is not None]


def metric(
    name: str,
    *,
    unit: Unit,
    title: str | None = None,
    is_not: str = "",
    paper: str = "",
    of: Literal["op", "profile"] = "op",
    scale: int = 1,
    zero: Amount | None = None,
    printed: Callable[[Record], float | None] | None = None,
) -> Callable[[F], F]:
    """Register a metric. The docstring of the decorated function is its definition.

    With `of="op"` the function takes an `OpSpec` and returns an int, an `Amount`, or None for unknown: totals then
    show that they miss this operation. With
    `of="profile"` it takes the `Record` of the whole model. The value is the exact sum divided by `scale` (BFLOPs:
    10⁹). `zero` says how values combine: a `Sum`, the default, a `Peak` or a `Ratio`.

    Raises CspprofError if the function has no docstring or the name is registered already.
    """

    def register(function: F) -> F:
        definition = " ".join((function.__doc__ or "").split())
        if not definition:
            raise CspprofError(f"the metric {name!r} has no definition", "Give its function a docstring.")
        METRICS.add(
            name,
            Metric(
                name, title or name, unit, is_not, paper,
                function if of == "op" else None, function if of == "profile" else None,
                definition, scale, zero or Sum(0, scale), printed,
            ),
        )  # fmt: skip
        return function

    return register
