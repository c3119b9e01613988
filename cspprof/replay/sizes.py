"""Whole numbers that remember how they follow from the sizes of an input, and what was asked of them.

A replay is worked out once with such numbers, by the same rules that work on plain ones. What comes out holds for
every other input of which the same questions have the same answers: there, the arithmetic that was remembered gives
everything, and no rule is asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from operator import floordiv, mod
from typing import Any, Union

Product = tuple[int, ...]
"""Numbers of unknowns, sorted; () is 1."""
Terms = tuple[tuple[Product, int], ...]
"""A sum of products with their coefficients, sorted: what makes a number the same as another."""
Operation = Callable[[int, Any], int]
Whole = Union[int, "Size"]


class Size:
    """A number that depends on the input: `value` where it was worked out, anything elsewhere.

    A comparison is answered by the value, and remembered. No hash: a set would compare without asking.
    """

    __slots__ = ("_of", "terms", "value")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, of: Sizes, terms: Terms, value: int) -> None:
        self._of, self.terms, self.value = of, terms, value

    def __add__(self, other: Whole) -> Any:
        return self._of.total([*self.terms, *terms_of(other)]) if isinstance(other, (int, Size)) else NotImplemented

    __radd__ = __add__

    def __neg__(self) -> Any:
        return self * -1

    def __sub__(self, other: Whole) -> Any:
        return self + -other if isinstance(other, (int, Size)) else NotImplemented

    def __rsub__(self, other: Whole) -> Any:
        return -self + other

    def __mul__(self, other: Whole | float) -> Any:
        if isinstance(other, float):
            return self * int(other) if other.is_integer() else Scaled(self, other)
        if not isinstance(other, (int, Size)):
            return NotImplemented
        return self._of.total([(_product(a, b), m * n) for a, m in self.terms for b, n in terms_of(other)])

    __rmul__ = __mul__

    def __trunc__(self) -> Any:
        return self

    def __floordiv__(self, other: Whole) -> Any:
        whole, rest = self._divided(other)
        return whole + (self._of.unknown(floordiv, rest, other) if isinstance(rest, Size) else rest // other)

    def __mod__(self, other: Whole) -> Any:
        _, rest = self._divided(other)
        return self._of.unknown(mod, rest, other) if isinstance(rest, Size) else rest % other

    def __divmod__(self, other: Whole) -> Any:
        return self // other, self % other

    def __rfloordiv__(self, other: int) -> Any:
        return self._of.unknown(floordiv, other, self)

    def __rmod__(self, other: int) -> Any:
        return self._of.unknown(mod, other, self)

    def _divided(self, other: Whole) -> tuple[Whole, Whole]:
        """What is certainly a multiple of `other`, as how many of it, and the rest."""
        if isinstance(other, int):
            parts = [(product, *divmod(n, other)) for product, n in self.terms]
            return self._of.total([(p, n) for p, n, _ in parts]), self._of.total([(p, n) for p, _, n in parts])
        if len(other.terms) == 1:
            ((by, n),) = other.terms
            shares = [(_quotient(product, by), *divmod(m, n)) for product, m in self.terms]
            found = [(product, m) for product, m, rest in shares if product is not None and not rest]
            if len(found) == len(shares):
                return self._of.total(found), 0
        return 0, self

    # -- questions -------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if isinstance(other, float):
            return int(self) == other
        return self._of.is_zero(self - other) if isinstance(other, (int, Size)) else NotImplemented

    def __lt__(self, other: Whole) -> bool:
        return self._of.is_negative(self - other)

    def __gt__(self, other: Whole) -> bool:
        return self._of.is_negative(other - self)

    def __le__(self, other: Whole) -> bool:
        return not self > other

    def __ge__(self, other: Whole) -> bool:
        return not self < other

    def __bool__(self) -> bool:
        return self != 0

    def __index__(self) -> int:
        """For whatever takes plain numbers only: from here on it has to be this one."""
        self._of.is_zero(self - self.value)
        return self.value

    def __format__(self, form: str) -> str:
        return format(int(self), form)

    def __str__(self) -> str:
        return str(int(self))


class Scaled:
    """A size times a fraction, until it is cut to a whole number."""

    def __init__(self, size: Size, factor: float) -> None:
        self.size, self.factor = size, factor

    def __trunc__(self) -> Any:
        return self.size._of.unknown(scaled, self.size, self.factor)


def scaled(size: int, factor: float) -> int:
    return int(size * factor)


class Sizes:
    """The numbers of one replay: first the input's sizes, then what cannot be written as a sum of products of known
    ones."""

    def __init__(self, given: Sequence[int]) -> None:
        self.values = list(given)
        """Of the unknowns, here."""
        self.made: list[tuple[Operation, Whole, Any]] = []
        """How each unknown after the input's sizes is made."""
        self.zero: dict[Terms, bool] = {}
        """Whether it was zero: what was asked."""
        self.negative: dict[Terms, bool] = {}
        self._sizes: dict[Terms, Size] = {}
        self._known: dict[tuple[Operation, Any, Any], Any] = {}

    def given(self, number: int) -> Any:
        """The input's size of that number: to a rule, an int like another."""
        return self.total([((number,), 1)])

    def total(self, terms: Iterable[tuple[Product, int]]) -> Whole:
        """A sum of products; a plain number where nothing unknown is left. Always the same object."""
        found: dict[Product, int] = {}
        for product, n in terms:
            found[product] = found.get(product, 0) + n
        key = tuple(sorted([term for term in found.items() if term[1]]))
        if not key or key[-1][0] == ():
            return key[0][1] if key else 0
        size = self._sizes.get(key)
        if size is None:
            value = sum(n * prod([self.values[i] for i in product]) for product, n in key)
            size = self._sizes[key] = Size(self, key, value)
        return size

    def unknown(self, operation: Operation, left: Whole, right: Any) -> Any:
        """A number of its own, made by `operation`."""
        key = operation, terms_of(left), terms_of(right) if isinstance(right, (int, Size)) else right
        if key not in self._known:
            self.made.append((operation, left, right))
            self.values.append(operation(plain(left), plain(right)))
            self._known[key] = self.given(len(self.values) - 1)
        return self._known[key]

    def is_zero(self, number: Whole) -> bool:
        if isinstance(number, int):
            return number == 0
        return self.zero.setdefault(number.terms, number.value == 0)

    def is_negative(self, number: Whole) -> bool:
        if isinstance(number, int):
            return number < 0
        return self.negative.setdefault(number.terms, number.value < 0)


KEYS = frozenset({int, str, bool, float, type(None)})
"""Types of what is its own key."""


def terms_of(number: Whole) -> Terms:
    return number.terms if isinstance(number, Size) else (((), number),)


def plain(value: Any) -> Any:
    """The same with each size's value, in tuples too. Nothing is asked."""
    if isinstance(value, tuple):
        return tuple([plain(v) for v in value])
    return value.value if isinstance(value, Size) else value


def key(value: Any) -> Any:
    """What tells two of them apart everywhere, not just here; hashable. Nothing is asked."""
    if isinstance(value, tuple):
        return tuple([n if type(n) in KEYS else key(n) for n in value])
    if isinstance(value, dict):
        return tuple([(name, key(n)) for name, n in value.items()])
    return value.terms if isinstance(value, Size) else value


def depends(value: Any) -> bool:
    """Whether a size is in it."""
    if isinstance(value, dict):
        return any(map(depends, value.values()))
    return any(map(depends, value)) if isinstance(value, tuple) else isinstance(value, Size)


def _product(a: Product, b: Product) -> Product:
    return tuple(sorted(a + b)) if a and b else a or b


def _quotient(a: Product, b: Product) -> Product | None:
    rest = list(a)
    for unknown in b:
        if unknown not in rest:
            return None
        rest.remove(unknown)
    return tuple(rest)
