"""The tensors that a forward returns. What it returns without having run it, such as a generator, is run first."""

from __future__ import annotations

import asyncio
import functools
import io
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    ValuesView,
)
from concurrent.futures import Future as ThreadFuture
from dataclasses import fields, is_dataclass
from enum import Enum
from itertools import chain
from types import FunctionType, MethodType, NoneType
from typing import Any

import torch

from cspprof.core.errors import TraceError
from cspprof.operands.pytree import tensors_in

MOST_ITEMS = 10_000
"""A generator with more items is refused: it may never end."""

COLLECTIONS = (list, tuple, set, frozenset, deque, KeysView, ValuesView, ItemsView)
LAZY = (Iterator, AsyncIterator, Awaitable, ThreadFuture, torch._C.Future)
FUNCTIONS = (FunctionType, MethodType, functools.partial)
PLAIN = (NoneType, bool, int, float, complex, str, bytes, range, slice, Enum, torch.dtype, torch.device)
"""Classes of values that compute nothing later."""


class Outputs:
    """Finds the tensors in the result of a forward, and runs what has not run yet, inside the trace."""

    def __init__(self, name: str, is_traced: Callable[[torch.Tensor], bool]) -> None:
        self.name = name
        self.is_traced = is_traced
        """Whether the trace knows a tensor: an operation of the trace produced it, or it was there before."""
        self.tensors: list[torch.Tensor] = []
        self.returns_function = False
        """Whether the result, or an object in it, contains a function, which may compute when it is called."""
        self.objects: list[str] = []
        """Class names of objects in the result, in whose attributes no tensor is found."""
        self._seen: dict[int, Any] = {}

    def collect(self, value: Any) -> None:
        """Append the tensors in a nested value, left to right. Raises TraceError for what a trace cannot run."""
        if isinstance(value, (torch.Tensor, torch.ScriptObject)):
            self.tensors += tensors_in(value)
            return
        if id(value) in self._seen:  # an object that refers to itself
            return
        self._seen[id(value)] = value
        if isinstance(value, LAZY):
            self._collect_each(self._run(value))
        elif isinstance(value, Mapping):
            self._collect_each(value[key] for key in value)  # a class may compute an item when it is read
        elif isinstance(value, COLLECTIONS):
            self._collect_each(value)
        elif isinstance(value, FUNCTIONS):
            self.returns_function = True
        elif not isinstance(value, (type, torch.nn.Module, *PLAIN)):
            found = len(self.tensors)
            self._collect_attributes(value)
            if len(self.tensors) == found:
                self.objects.append(type(value).__name__)

    def _collect_each(self, values: Iterable[Any]) -> None:
        for value in values:
            self.collect(value)

    def _collect_attributes(self, value: Any) -> None:
        if is_dataclass(value):
            self._collect_each(getattr(value, field.name) for field in fields(value))
            return
        slots = chain.from_iterable(_slots_of(kind) for kind in type(value).__mro__)
        for item in (*getattr(value, "__dict__", {}).values(), *(getattr(value, name, None) for name in slots)):
            if isinstance(item, (torch.Tensor, list, tuple, Mapping, *LAZY, *FUNCTIONS)) or is_dataclass(item):
                self.collect(item)

    def refuse_unused(self, ran: bool) -> None:
        """Raise TraceError if the forward ran no operation, and returns something that may compute when it is used."""
        if ran or self.tensors or not (self.returns_function or self.objects):
            return
        what = f"an object of the class {self.objects[0]}" if self.objects else "a function"
        raise TraceError(
            f"{self.name}: the forward runs no operation and returns {what}, which may compute when it is used",
            "Wrap the model in a module whose forward uses it and returns tensors.",
        )

    # -- what has not run yet ---------------------------------------------------------------------

    def _run(self, value: Any) -> Iterable[Any]:
        """The items that the value yields, or its only result."""
        if isinstance(value, io.IOBase):  # iterates over lines
            return ()
        if isinstance(value, Iterator):
            return self._items(value)
        if isinstance(value, AsyncIterator):
            return [self._wait(self._all_items(value))]
        if isinstance(value, (ThreadFuture, torch._C.Future)):
            return [self._result_of_future(value)]
        if isinstance(value, asyncio.Future):
            return [self._result_of_task(value)]
        return [self._wait(_await(value))]

    def _items(self, iterator: Iterator[Any]) -> Iterator[Any]:
        for count, item in enumerate(iterator):
            self._check(count)
            yield item

    async def _all_items(self, iterator: AsyncIterator[Any]) -> list[Any]:
        items: list[Any] = []
        async for item in iterator:
            self._check(len(items))
            items.append(item)
        return items

    def _check(self, count: int) -> None:
        if count >= MOST_ITEMS:
            raise TraceError(
                f"{self.name}: the forward returns an iterator with more than {MOST_ITEMS:,} items",
                "Wrap the model in a module whose forward returns a list of the items to count.",
            )

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine, run in this thread, where the trace sees its operations."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            loop = asyncio.new_event_loop()
            try:
                return loop.run_until_complete(coroutine)
            finally:
                loop.close()
        try:  # in a notebook: the loop that runs cannot run this one too
            while True:
                if coroutine.send(None) is not None:
                    coroutine.close()
                    raise self._unfinished("a coroutine that waits for the running event loop")
        except StopIteration as stop:
            return stop.value

    def _result_of_future(self, future: Any) -> Any:
        if not future.done():
            raise self._unfinished(f"a {type(future).__name__} that is not done")
        result = future.value() if isinstance(future, torch._C.Future) else future.result()
        tensors = list(tensors_in(result))
        if not tensors or not all(map(self.is_traced, tensors)):
            raise self._unfinished(f"a {type(future).__name__}, whose work was done in another thread")
        return result

    def _result_of_task(self, future: asyncio.Future[Any]) -> Any:
        if future.done():
            return future.result()
        if future.get_loop().is_running():
            raise self._unfinished("a task of the running event loop")
        return future.get_loop().run_until_complete(future)

    def _unfinished(self, what: str) -> TraceError:
        return TraceError(
            f"{self.name}: the forward returns {what}, and a trace does not see what it computes",
            "Wrap the model in a module whose forward waits for the result in the same thread.",
        )


def _slots_of(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


async def _await(value: Awaitable[Any]) -> Any:
    return await value
