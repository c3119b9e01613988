"""Leave the model as it was: undo whatever a forward changes in modules, and in the random generators."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import is_, itemgetter
from typing import Any

import torch
from torch import nn

from cspprof.trace.module_tree import STANDARD, ModuleTree

TABLES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
HOOKS = tuple(sorted(name for name in STANDARD if "hooks" in name))
get_tables_and_hooks = itemgetter(*TABLES, *HOOKS)


@contextmanager
def isolation(tree: ModuleTree) -> Iterator[None]:
    """Restore every attribute, buffer, flag and hook of every module, and the state of the random generators.

    During the context each module has a copy of its `__dict__` and of its tables of parameters, buffers and
    submodules; a forward changes these copies. Other lists and dicts stay the same objects, because code outside the
    module may refer to them, and get their items back. Hooks that the forward registers are removed.
    """
    attributes = [vars(module) for module in tree.modules]
    copies = [own.copy() for own in attributes]
    hooks, empty = _copy_tables(copies)
    gradients = [(p, p.requires_grad, p.grad) for _, _, p in tree.parameters if p.is_leaf]
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
        for parameter, requires_grad, grad in gradients:  # the model's own train(), or a backward() in the forward
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad = requires_grad
            if parameter.grad is not grad:
                parameter.grad = grad
        restore_generators()


def _set_attributes(module: nn.Module, attributes: dict[str, Any]) -> None:
    object.__setattr__(module, "__dict__", attributes)  # nn.Module's __setattr__ would store it as an attribute


def _copy_tables(modules: list[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    """Replace the tables in the attributes of modules by copies; a table that two modules share stays shared.

    Returns the dicts of hooks, and the tables and dicts of hooks that are empty and were not copied.
    """
    hooks: list[Any] = []
    empty: list[Any] = []
    copied: dict[int, Any] = {}
    for attributes in modules:
        try:
            values = get_tables_and_hooks(attributes)
        except KeyError:  # a scripted module, or one from an old file
            values = tuple(map(attributes.get, (*TABLES, *HOOKS)))
        empty += [value for value in values if value is not None and not value]
        hooks += filter(None, values[len(TABLES) :])
        for name, table in zip(TABLES, values, strict=False):
            if table and type(table) in (dict, OrderedDict, set):  # that of a scripted module is not a Python object
                attributes[name] = copied.setdefault(id(table), table.copy())
    return hooks, empty


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
