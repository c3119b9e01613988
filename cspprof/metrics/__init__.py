"""The numbers. Each is one function, registered once; it is then a column, a sort key and an `explain` page.

>>> from cspprof import metric
>>> @metric("relu_elements", unit="elements", is_not="time spent in activations")
... def relu_elements(op):
...     '''Elements that ReLU layers write.'''
...     return op.writes[0].numel if op.name in ("relu", "relu_") else 0

A number of operations is computed from one `OpSpec` and summed over calls; a number of the whole model, from the
`Record`. How two values combine belongs to the value: `Sum` adds, `Peak` takes the larger, `Ratio` keeps both
halves and divides last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, TypeVar

from cspprof.core.errors import CspprofError
from cspprof.core.record import OpSpec, Record
from cspprof.core.registry import Registry

Number = int | float | None
HIGHER_IS_BETTER = frozenset({"moc", "balance"})
"""Numbers of which more is better; of every other, less."""


@dataclass(frozen=True, slots=True)
class Sum:
    """An exact count, shown divided by `scale`."""

    n: int
    scale: int = 1

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.n + other.n, max(self.scale, other.scale))

    @property
    def value(self) -> int | float:
        return self.n if self.scale == 1 else self.n / self.scale


@dataclass(frozen=True, slots=True)
class Peak:
    """The largest of its parts."""

    n: int

    def __add__(self, other: Peak) -> Peak:
        return Peak(max(self.n, other.n))

    @property
    def value(self) -> int:
        return self.n


@dataclass(frozen=True, slots=True)
class Ratio:
    """Numerator and denominator, divided when looked at. Over nothing it has no value: None."""

    over: int
    under: int

    def __add__(self, other: Ratio) -> Ratio:
        return Ratio(self.over + other.over, self.under + other.under)

    @property
    def value(self) -> float | None:
        return self.over / self.under if self.under else None


Amount = Sum | Peak | Ratio
Unit = Literal["MACs", "FLOPs", "BFLOPs", "elements", "bytes", "values", "MACs/element", "fraction", "ops"] | str
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Metric:
    """A registered number: its definition, and how to compute it."""

    name: str
    title: str
    unit: Unit
    is_not: str
    """What it is often taken for."""
    paper: str
    of_op: Callable[[OpSpec], Any] | None
    of_profile: Callable[[Record], Any] | None
    definition: str
    scale: int
    zero: Amount
    printed: Callable[[Record], float | None] | None
    """The total as the tool that prints it rounds it on the way, for people to compare; the value stays exact."""

    @property
    def ours(self) -> bool:
        """Whether it comes with cspprof, and is not a user's."""
        return (self.of_op or self.of_profile).__module__.startswith("cspprof.metrics")

    @property
    def adds_up(self) -> bool:
        """Whether the layers' values add up to the whole model's: a peak, a ratio and a number of models do not."""
        return self.of_op is not None and isinstance(self.zero, Sum)

    def op(self, spec: OpSpec) -> Amount | None:
        """One operation's value; None where nobody knows, or where the number is only of the whole model."""
        return None if self.of_op is None else self._amount(self.of_op(spec))

    def total(self, record: Record) -> Amount:
        """The whole model's value. Unknown operations are left out; `profile.complete` says whether there are any."""
        if self.of_profile is None:
            return self.over(record.spec_counts)
        amount: Amount = self._amount(self.of_profile(record))
        return amount

    def over(self, specs: Iterable[tuple[OpSpec, int]]) -> Amount:
        """The value of a group of calls, given as (spec, number of calls)."""
        if self.of_op is None:
            return self.zero
        of_op = self.of_op
        count = largest = over = under = 0
        total: Any = self.zero
        for spec, n in specs:
            value = of_op(spec)
            if type(value) is int:  # nearly all: combined before they become an amount
                count += value * n
                if value > largest:
                    largest = value
            elif type(value) is Ratio:
                over += value.over * n
                under += value.under * n
            elif value is not None:
                total = total + times(self._amount(value), n)
        if over or under:
            total = total + Ratio(over, under)
        if count:
            total = total + (Peak(largest) if isinstance(self.zero, Peak) else Sum(count, self.scale))
        return total  # type: ignore[no-any-return]

    def _amount(self, value: Any) -> Any:
        """What a number's function returned, an int as what combines as `zero` does."""
        if value is None or isinstance(value, (Sum, Peak, Ratio)):
            return value
        return Peak(int(value)) if isinstance(self.zero, Peak) else Sum(int(value), self.scale)


def value_of(record: Record, metric: str) -> Any:
    """The value of a registered metric for the whole model: an exact int for a count, a float for a ratio or a scaled
    count, None for a ratio whose denominator is 0.

    A sum leaves out operations without a rule; see `Record.complete` and `Record.uncounted`.
    """
    return METRICS.get(metric).total(record).value


def times(amount: Amount, n: int) -> Amount:
    """`n` equal values combined."""
    if isinstance(amount, Sum):
        return Sum(amount.n * n, amount.scale)
    if isinstance(amount, Ratio):
        return Ratio(amount.over * n, amount.under * n)
    return amount


CONVENTIONS: Registry[Metric] = Registry("convention", "cspprof explain conventions")
"""Numbers in other tools' senses: see `conventions`. Found by name wherever a number is, and in no list of numbers."""

METRICS: Registry[Metric] = Registry("metric", "cspprof metrics", beside=CONVENTIONS)


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
    """Register a number; the decorated function's docstring is its definition.

    With `of="op"` the function takes an `OpSpec` and returns an int, an `Amount`, or None for unknown; with
    `of="profile"` it takes the `Record`. `scale` divides the exact sum when it is shown (BFLOPs: 10⁹);
    `printed` gives what people read instead, where the tool itself prints a rounded total (None: it is the value).
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


for _room in (
    "compute",
    "weights",
    "traffic",
    "memory",
    "operation_counters",
    "module_counters",
):  # listed in this order
    import_module(f"{__name__}.{_room}")
