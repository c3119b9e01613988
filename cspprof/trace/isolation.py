"""Leave the model as it was: undo whatever a forward changes in modules, and in the random generators."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import is_
from typing import Any

import torch
from torch import nn

from cspprof.trace.module_tree import STANDARD, ModuleTree

TABLES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
HOOKS = tuple(sorted(name for name in STANDARD if "hooks" in name))


@contextmanager
def isolation(tree: ModuleTree) -> Iterator[None]:
    """Restore every attribute, buffer, flag and hook of every module, and the state of the random generators.

    During the context each module has a copy of its `__dict__` and of its tables of parameters, buffers and
    submodules; a forward changes these copies. Other lists and dicts stay the same objects, because code outside the
    module may refer to them, and get their items back. Hooks that the forward registers are removed.
    """
    attributes = [vars(module) for module in tree.modules]
    copies, empty = _copies(attributes)
    requires_grad = [(p, p.requires_grad) for _, _, p in tree.parameters]
    hooks = [hooks for own in attributes for name in HOOKS if (hooks := own.get(name))]
    snapshots = [(container, container.copy()) for container in (*tree.containers, *hooks)]
    restore_generators = _save_generators()
    try:
        for module, own in zip(tree.modules, copies, strict=True):
            _set_attributes(module, own)
        yield
    finally:
        for module, own in zip(tree.modules, attributes, strict=True):
            _set_attributes(module, own)
        for container, items in snapshots:
            _restore_items(container, items)
        for table in filter(None, empty):
            table.clear()
        for parameter, before in requires_grad:  # the model's own train() may change it
            if parameter.requires_grad != before:
                parameter.requires_grad = before
        restore_generators()


def _set_attributes(module: nn.Module, attributes: dict[str, Any]) -> None:
    object.__setattr__(module, "__dict__", attributes)  # nn.Module's __setattr__ would store it as an attribute


def _copies(attributes: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Any]]:
    """Copies of the modules' attributes and tables, and the tables and hooks that are empty and need no copy.

    A table that two modules share stays shared.
    """
    copies = [own.copy() for own in attributes]
    copied: dict[int, Any] = {}
    empty = []
    for own in copies:
        for name in TABLES:
            table = own.get(name)
            if table and type(table) in (dict, OrderedDict, set):  # that of a scripted module is not a Python object
                own[name] = copied.setdefault(id(table), table.copy())
        empty += [table for name in (*TABLES, *HOOKS) if (table := own.get(name)) is not None and not table]
    return copies, empty


def _restore_items(container: Any, items: Any) -> None:
    """Give a list or dict the items back that it held, in their order."""
    if type(container) is list:
        if len(container) != len(items) or not all(map(is_, container, items)):
            container[:] = items
        return
    same = len(container) == len(items) and all(map(is_, container, items))
    if same and all(map(is_, container.values(), items.values())):
        return
    container.update(items)  # never empty in between: another thread may read it
    if len(container) != len(items) or not all(map(is_, container, items)):
        container.clear()
        container.update(items)


def _save_generators() -> Callable[[], None]:
    """Save the state of each global random generator that a forward may use. The returned function restores it."""
    states: list[tuple[Callable[[Any], Any], Any]] = [
        (torch.set_rng_state, torch.get_rng_state()),
        (random.setstate, random.getstate()),
    ]
    if torch.cuda.is_initialized():
        states.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    if (numpy := sys.modules.get("numpy.random")) is not None:
        states.append((numpy.set_state, numpy.get_state()))

    def restore() -> None:
        for set_state, state in states:
            set_state(state)

    return restore
