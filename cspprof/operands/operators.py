"""The schema of an operator, read once: names of its arguments, what it writes, whether it returns views."""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import Any

import torch


class Operator:
    """One overload of an ATen (or library) operator, e.g. `aten::conv2d.default`."""

    def __init__(self, func: Any) -> None:
        schema = func._schema
        self.func = func
        """What torch calls."""
        self.target: str = schema.name.replace("::", ".")
        """The name in a record: `aten.conv2d`."""
        self.builtin = schema.name.partition("::")[0] in ("aten", "prim", "prims", "profiler")
        """Whether the operator comes with torch itself."""
        self.names = tuple([a.name for a in schema.arguments])
        written = [a for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        self.written = tuple([a.name for a in written])
        """Arguments that the operator writes into."""
        self.outs = tuple([a.name for a in written if a.kwarg_only])
        """Arguments that are written and never read: `out=`."""
        name = self.target.rpartition(".")[2]
        self.reads_shape_only = name.startswith("new_") or name.endswith("_like")
        self.in_place = self.written[:1] == self.names[:1] != ()
        self.plain = self.target.rstrip("_")
        """The target without the in-place underscore: `aten.relu_` -> `aten.relu`."""
        self.returns_views = not self.written and any(r.alias_info is not None for r in schema.returns)

    @cached_property
    def pointwise(self) -> bool:
        return torch.Tag.pointwise in self.func.tags

    @cached_property
    def changes_shape_in_place(self) -> bool:
        """Whether it writes no element: `squeeze_`, `transpose_` …"""
        return torch.Tag.inplace_view in self.func.tags

    @cached_property
    def draws(self) -> bool:
        """Whether it draws random numbers."""
        return torch.Tag.nondeterministic_seeded in self.func.tags

    @cached_property
    def with_generator(self) -> tuple[Any, int]:
        """The overload with the same arguments and a `generator`, and the position of that; (None, 0) without one."""
        packet = self.func.overloadpacket
        for overload in (self.func, *(getattr(packet, name) for name in packet.overloads())):
            names = [a.name for a in overload._schema.arguments]
            if "generator" in names and set(names) == {*self.names, "generator"}:
                return overload, names.index("generator")
        return None, 0

    @cached_property
    def composite(self) -> bool:
        """Whether torch registered it as a composition of other operators. Torch 2.13 and 2.14 have no public query."""
        return not self.target.startswith("prim.") and bool(self.func._can_decompose())


class HigherOrderOperator(Operator):
    """An operator that takes functions, such as flex_attention. It has a Python signature instead of a schema."""

    def __init__(self, func: Any) -> None:
        self.func = func
        self.target = self.plain = f"higher_order.{func.name()}"
        self.names = tuple(inspect.signature(type(func).__call__).parameters)[1:]
        self.written = self.outs = ()
        self.builtin = True
        self.reads_shape_only = self.in_place = self.returns_views = False
        self.pointwise = self.changes_shape_in_place = self.composite = self.draws = False


_OPERATORS: dict[int, Operator] = {}
"""By the function's id, which stays unique because the `Operator` holds the function."""


def operator(func: Any) -> Operator:
    """The `Operator` of a function that a dispatch mode receives."""
    found = _OPERATORS.get(id(func))
    if found is None:
        found = Operator(func) if isinstance(func, torch._ops.OpOverload) else HigherOrderOperator(func)
        _OPERATORS[id(func)] = found
    return found
