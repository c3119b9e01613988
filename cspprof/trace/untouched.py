"""Leaving no change behind: whatever a forward does to the attributes of modules is undone."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, compress, filterfalse, islice
from operator import attrgetter, is_, is_not
from typing import Any

import torch
from torch import nn

from cspprof.trace.scope import CONTAINERS, HOOKS, TABLES, Scope

REQUIRES_GRAD = attrgetter("requires_grad")


PUT: Any = nn.Module.__dict__["__dict__"].__set__
"""Gives a module another dictionary of attributes."""
COPIED = CONTAINERS | {set}


@contextmanager
def untouched(scope: Scope) -> Iterator[None]:
    """Put back every attribute, buffer, flag and hook of every module, and the state of the random generators.

    Meanwhile each module has a copy of its attributes and of its tables, which is what a forward changes; so nothing
    of it needs to be compared. Other lists and dicts stay themselves, since others may know them too, and hold again
    what they held: a forward may keep tensors of the trace in a cache of its own. Hooks that it registered go.
    """
    parameters = scope.parameters.tensors
    learned = list(map(REQUIRES_GRAD, parameters))
    attributes = scope.attributes
    copies = _copies(scope)
    empty = list(filterfalse(None, chain.from_iterable(scope.tables.values())))
    hooks = filter(None, chain.from_iterable([scope.tables[name] for name in HOOKS]))
    kept = Kept([*scope.containers, *hooks])
    put_generators_back = _generators()
    try:
        deque(map(PUT, scope.modules, copies), 0)
        scope.attributes = copies
        yield
    finally:
        deque(map(PUT, scope.modules, attributes), 0)
        scope.attributes = attributes
        kept.put_back()
        for table in filter(None, empty):
            table.clear()
        if list(map(REQUIRES_GRAD, parameters)) != learned:  # which train() of the model's own may change
            for parameter, before in zip(parameters, learned, strict=True):
                parameter.requires_grad = before
        put_generators_back()


def _copies(scope: Scope) -> list[dict[str, Any]]:
    """Of each module's attributes and of its tables; one that two modules share stays shared."""
    copies = list(map(dict.copy, scope.attributes))
    made: dict[int, Any] = {}
    for name in TABLES:
        tables = scope.tables[name]
        for own, table in compress(zip(copies, tables, strict=True), tables):
            key = id(table)
            if key not in made:  # that of a module in TorchScript is not Python's
                made[key] = table.copy() if type(table) in COPIED else table
            own[name] = made[key]
    return copies


class Kept:
    """What lists and dicts hold, end to end: to see later that all of it is still there is to compare long lists."""

    def __init__(self, containers: list[Any]) -> None:
        self.containers = containers
        self.tables = [c for c in containers if type(c) is not list]
        self.lengths = list(map(len, containers))
        self.names = self._names()
        self.values = self._values()

    def _names(self) -> list[Any]:
        return list(chain.from_iterable(self.tables))

    def _values(self) -> list[Any]:
        if len(self.tables) == len(self.containers):
            return list(chain.from_iterable([c.values() for c in self.containers]))
        return list(chain.from_iterable([c if type(c) is list else c.values() for c in self.containers]))

    def put_back(self) -> None:
        """Have each container hold again what it held, in its order."""
        names, values = self._names(), self._values()
        lengths = list(map(len, self.containers)) == self.lengths
        if lengths and _equal(names, self.names) and all(map(is_, values, self.values)):
            return
        then, names_then = iter(self.values), iter(self.names)
        for container, length in zip(self.containers, self.lengths, strict=True):
            if type(container) is list:
                container[:] = islice(then, length)
            else:
                _refill(container, dict(zip(islice(names_then, length), then, strict=False)))


def _equal(keys: list[Any], others: list[Any]) -> bool:
    try:
        return keys == others
    except Exception:  # of keys that refuse to be compared, such as tensors
        return False


def _refill(table: dict[Any, Any], before: dict[Any, Any]) -> None:
    table.update(before)  # never empty on the way: other threads may look
    if len(table) != len(before) or any(map(is_not, table, before)):
        table.clear()
        table.update(before)


def _generators() -> Callable[[], None]:
    """Remembers the state of every global random generator that a forward may draw from; the call puts it back."""
    states: list[tuple[Callable[[Any], Any], Any]] = [
        (torch.set_rng_state, torch.get_rng_state()),
        (random.setstate, random.getstate()),
    ]
    if torch.cuda.is_initialized():
        states.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    if (numpy := sys.modules.get("numpy.random")) is not None:
        states.append((numpy.set_state, numpy.get_state()))

    def put_back() -> None:
        for put, state in states:
            put(state)

    return put_back
