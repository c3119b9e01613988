"""Named things, registered once: metrics, operations, models, sources, formats."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Generic, TypeVar

from cspprof.core.errors import CspprofError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping in which a duplicate raises and a miss suggests.

    >>> colours = Registry[str]("colour")
    >>> colours.add("red", "#f00")
    '#f00'
    >>> colours.get("rde")
    Traceback (most recent call last):
    cspprof.core.errors.UnknownNameError: no colour named 'rde'
    Did you mean: red?
    """

    def __init__(self, noun: str, listing: str | None = None, beside: Registry[T] | None = None) -> None:
        self.noun = noun
        self._listing = listing
        self._beside = beside
        """Where else a name is looked for. What is found there is not listed, counted or iterated here."""
        self._entries: dict[str, T] = {}
        self.version = 0
        """Grows with every change, for whoever keeps something derived from the entries."""

    def add(self, name: str, entry: T) -> T:
        if name in self._entries:
            raise CspprofError(f"the {self.noun} {name!r} is registered already")
        self._entries[name] = entry
        self.version += 1
        return entry

    def remove(self, name: str) -> None:
        del self._entries[name]
        self.version += 1

    def get(self, name: str) -> T:
        if name in self._entries:
            return self._entries[name]
        if self._beside is not None and name in self._beside:
            return self._beside.get(name)
        raise UnknownNameError(f"no {self.noun} named {name!r}", self.suggest(name))

    def suggest(self, name: str) -> str:
        """What to type instead of `name`."""
        known = dict.fromkeys([*self._entries, *(self._beside or ())])
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        if near:
            return f"Did you mean: {', '.join(near)}?"
        if self._listing:
            return f"List them with: {self._listing}"
        return f"There are: {', '.join(self.names())}"

    def names(self) -> list[str]:
        return sorted(self._entries)

    def items(self) -> Iterator[tuple[str, T]]:
        """In the order of registration."""
        return iter(self._entries.items())

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)
