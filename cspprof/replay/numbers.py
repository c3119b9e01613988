"""Sizes as plain arithmetic: steps on a list of numbers, and what has to be true of them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import add, mul
from typing import Any

from cspprof.replay.sizes import Operation, Product, Size, Sizes, Terms, Whole, terms_of

INFINITE = float("inf")


class Numbers:
    """Sizes in a list: the input's, plain numbers, and what steps make of them. Whoever wants one gets its place in
    what `run` returns."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._given = len(sizes.values) - len(sizes.made)
        self._held: list[int] = [0] * self._given
        self._steps: list[tuple[Operation, int, int, int]] = []
        """Operation, where its result goes, and where its operands are."""
        self._places: dict[Any, int] = {(i,): i for i in range(self._given)}
        self._wanted: dict[tuple[int, int], int] = {}
        """By factor and place of what it multiplies, the columns that follow: the place of the product."""
        self._factors: list[int] = []
        self._sources: list[int] = []
        self._between: dict[int, tuple[float, float]] = {}
        """What a held number has to be at least and at most."""
        self._never: list[tuple[int, int]] = []
        """A place, and what must not be there."""
        for terms, answer in sizes.zero.items():
            self._zero(terms, answer)
        for terms, answer in sizes.negative.items():
            self._negative(terms, answer)

    def place(self, number: Whole) -> int:
        """Where `run` gives it."""
        factor, source = self._scaled(terms_of(number))
        found = self._wanted.setdefault((factor, source), len(self._wanted))
        if found == len(self._factors):
            self._factors.append(factor)
            self._sources.append(source)
        return found

    def run(self, given: Sequence[int]) -> list[int] | None:
        """The numbers on another input; None where a question has another answer there."""
        held = self._held.copy()
        held[: self._given] = given
        try:
            for operation, to, left, right in self._steps:
                held[to] = operation(held[left], held[right])
        except ZeroDivisionError:
            return None
        for place, (low, high) in self._between.items():
            if not low <= held[place] <= high:
                return None
        if any(held[place] == number for place, number in self._never):
            return None
        return list(map(mul, self._factors, map(held.__getitem__, self._sources)))

    # -- where numbers are -----------------------------------------------------------------------------

    def _hold(self, name: Any, start: int = 0) -> int:
        place = self._places[name] = len(self._held)
        self._held.append(start)
        return place

    def _constant(self, n: float) -> int:
        found = self._places.get(n)
        return self._hold(n, n) if found is None else found  # type: ignore[arg-type]

    def _step(self, name: Any, operation: Operation, left: int, right: int) -> int:
        found = self._places.get(name)
        if found is None:
            found = self._hold(name)
            self._steps.append((operation, found, left, right))
        return found

    def _product(self, product: Product) -> int:
        if not product:
            return self._constant(1)
        found = self._places.get(product)
        if found is not None:
            return found
        if len(product) == 1:
            operation, left, right = self._sizes.made[product[0] - self._given]
            return self._step(product, operation, self._whole(left), self._whole(right))
        return self._step(product, mul, self._product(product[:-1]), self._product(product[-1:]))

    def _scaled(self, terms: Terms) -> tuple[int, int]:
        """A number as a factor and the place of what it multiplies."""
        if len(terms) > 1:
            return 1, self._sum(terms)
        ((product, factor),) = terms
        return factor, self._product(product)

    def _sum(self, terms: Terms) -> int:
        parts = []
        for product, factor in terms:
            place = self._product(product)
            parts.append(place if factor == 1 else self._step((factor, product), mul, self._constant(factor), place))
        place, *rest = parts
        for other in rest:
            place = self._step((add, place, other), add, place, other)
        return place

    def _whole(self, number: Whole | float) -> int:
        return self._sum(number.terms) if isinstance(number, Size) else self._constant(number)

    # -- questions -------------------------------------------------------------------------------------

    def _zero(self, terms: Terms, answer: bool) -> None:
        factor, rest, place = self._line(terms)
        if rest % factor:
            return  # never
        if answer:
            self._within(place, -rest // factor, -rest // factor)
        else:
            self._never.append((place, -rest // factor))

    def _negative(self, terms: Terms, answer: bool) -> None:
        factor, rest, place = self._line(terms)
        if factor > 0:  # x < −rest / factor
            least = -(rest // factor)
            self._within(place, *((-INFINITE, least - 1) if answer else (least, INFINITE)))
        else:  # x > rest / −factor
            most = rest // -factor
            self._within(place, *((most + 1, INFINITE) if answer else (-INFINITE, most)))

    def _line(self, terms: Terms) -> tuple[int, int, int]:
        """factor · x + rest, with x in a place."""
        rest = dict(terms).get((), 0)
        others = tuple([term for term in terms if term[0]])
        factor, place = self._scaled(others)
        return factor, rest, place

    def _within(self, place: int, low: float, high: float) -> None:
        least, most = self._between.get(place, (-INFINITE, INFINITE))
        self._between[place] = max(low, least), min(high, most)
