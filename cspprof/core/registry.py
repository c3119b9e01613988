"""`Registry`: entries by name, for metrics, operations, models, sources and formats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from cspprof.core.errors import CspprofError, UnknownNameError
from cspprof.core.units import shortened

T = TypeVar("T")


def suggestion(name: str, known: Iterable[str], listing: str | None = None) -> str:
    """A hint for an unknown `name`: the name in other letter case, else the most similar known names, else the command
    that lists them, else the first 20.

    >>> suggestion("rde", ["red", "blue"])
    'Did you mean: red?'
    """
    names = list(dict.fromkeys(known))
    same = [known for known in names if known.lower() == name.lower()]
    near = same or get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"Did you mean: {', '.join(near)}?"
    if listing:
        return f"List them with: {listing}"
    if not names:
        return "There are none."
    return f"There are: {', '.join(names[:20])}{' …' if len(names) > 20 else ''}"


class Registry(Generic[T]):
    """A mapping that refuses a duplicate name and suggests similar names for an unknown one.

    >>> colors = Registry[str]("color")
    >>> colors.add("red", "#f00")
    '#f00'
    >>> colors.get("rde")
    Traceback (most recent call last):
    cspprof.core.errors.UnknownNameError: no color named 'rde'
    Did you mean: red?
    """

    def __init__(
        self,
        noun: str,
        listing: str | None = None,
        fallback: Registry[T] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.noun = noun
        self._listing = listing
        """The command that lists the entries, for hints."""
        self._fallback = fallback
        """Searched for a name that is not in this registry. Its entries are not listed, counted or iterated here."""
        self._aliases = aliases or {}
        """Further names of entries. They are found and suggested, but not listed, counted or iterated."""
        self._entries: dict[str, T] = {}
        self.version = 0
        """The number of changes so far. A cache of something derived from the entries compares it."""

    def add(self, name: str, entry: T) -> T:
        """Register `entry` and return it. Raises CspprofError if the name is taken."""
        if name in self._entries:
            raise CspprofError(f"the {self.noun} {name!r} is registered already")
        self._entries[name] = entry
        self.version += 1
        return entry

    def sort(self, key: Callable[[T], Any]) -> None:
        """Put the entries into the order of `key`; those with equal keys stay in the order of registration."""
        self._entries = dict(sorted(self._entries.items(), key=lambda item: key(item[1])))

    def remove(self, name: str) -> None:
        del self._entries[name]
        self.version += 1

    def get(self, name: str) -> T:
        """The entry. Raises UnknownNameError with similar names as its hint."""
        if name in self._entries:
            return self._entries[name]
        if self._fallback is not None and name in self._fallback:
            return self._fallback.get(name)
        if name in self._aliases:
            return self.get(self._aliases[name])
        raise UnknownNameError(f"no {self.noun} named {shortened(name, 80)!r}", self.suggest(name))

    def suggest(self, name: str) -> str:
        """A hint for the unknown `name`: similar names, or how to list all."""
        return suggestion(name, [*self.names(), *self._aliases, *(self._fallback or ())], self._listing)

    def names(self) -> list[str]:
        return sorted(self._entries)

    def items(self) -> Iterator[tuple[str, T]]:
        """Names and entries, in the order of registration."""
        return iter(self._entries.items())

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)
