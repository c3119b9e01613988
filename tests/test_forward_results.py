"""What a forward returns: work that has not run yet is run through and counted, or refused by name."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import trace
from networks import Function
from torch import nn

from cspprof.core.errors import TraceError

DEVICES = pytest.mark.parametrize("device", ["meta", "cpu"])
SHAPE, MACS = (2, 4), 2 * 4 * 8


class Twice(nn.Module):
    """Applies a layer twice in the way that a subclass says."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 8)


class Yields(Twice):
    def forward(self, x: torch.Tensor) -> Any:
        yield self.layer(x)
        yield self.layer(x)


class Nested(Twice):
    def forward(self, x: torch.Tensor) -> Any:
        return {"rows": [map(self.layer, [x]), (self.layer(y) for y in [x])]}


class Lazy(Twice):
    def forward(self, x: torch.Tensor) -> Any:
        return zip(map(self.layer, [x]), filter(lambda y: y is not None, map(self.layer, [x])), strict=True)


class Delegates(Twice):
    def forward(self, x: torch.Tensor) -> Any:
        yield from Yields.forward(self, x)


class Async(Twice):
    async def part(self, x: torch.Tensor) -> torch.Tensor:
        await asyncio.sleep(0)
        return self.layer(x)

    async def forward(self, x: torch.Tensor) -> Any:
        return await self.part(x) + await self.part(x)


class Gathers(Async):
    async def forward(self, x: torch.Tensor) -> Any:
        return await asyncio.gather(self.part(x), self.part(x))


class AsyncYields(Async):
    async def forward(self, x: torch.Tensor) -> Any:
        yield await self.part(x)
        yield await self.part(x)


class CustomAwaitable(Async):
    def forward(self, x: torch.Tensor) -> Any:
        class Later:
            def __await__(self) -> Any:
                return both().__await__()

        async def both() -> Any:
            return [await self.part(x), await self.part(x)]

        return Later()


class Script(Twice):
    def forward(self, x: torch.Tensor) -> Any:
        return [torch.jit.fork(self.layer, x), self.layer(x)]


class Done(Twice):
    def forward(self, x: torch.Tensor) -> Any:
        future: Future[Any] = Future()
        future.set_result((self.layer(x), self.layer(x)))
        return future


@DEVICES
@pytest.mark.parametrize(
    "model", [Yields, Nested, Lazy, Delegates, Async, Gathers, AsyncYields, CustomAwaitable, Script, Done]
)
def test_what_a_forward_returns_without_having_run_it_is_counted(model: type[Twice], device: str) -> None:
    p = trace(model(), SHAPE, device=device)
    assert p.total("macs") == 2 * MACS
    assert {op.layer for op in p.ops if op.macs} == {"layer"}
    assert p.outputs


class Products(Twice):
    """A submodule that is a generator; some of its operations belong to no layer of its own."""

    def forward(self, x: torch.Tensor) -> Any:
        yield self.layer(x)
        received = yield x @ x.t()
        try:
            yield received @ x
        except ValueError:
            yield x @ x.t()
        return x @ x.t()


class AsyncProducts(Twice):
    async def forward(self, x: torch.Tensor) -> Any:
        await asyncio.sleep(0)
        return self.layer(x), x @ x.t()


@DEVICES
def test_operations_of_a_submodule_that_is_a_generator_belong_to_it(device: str) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Products()

        def forward(self, x: torch.Tensor) -> Any:
            steps = self.inner(x)
            own = [next(steps), x @ x.t(), next(steps)]
            own.append(steps.send(own[-1]))
            own.append(steps.throw(ValueError("stop")))
            with pytest.raises(StopIteration) as stop:
                next(steps)
            return [*own, stop.value.value]

    p = trace(Outer(), SHAPE, device=device)
    square = 2 * 2 * 4
    assert [(op.layer, op.macs) for op in p.ops if op.macs] == [
        ("inner.layer", MACS), ("", square), ("inner", square), ("inner", square), ("inner", square),
        ("inner", square),
    ]  # fmt: skip


@DEVICES
def test_operations_of_a_submodule_that_is_a_coroutine_belong_to_it(device: str) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = AsyncProducts()

        async def forward(self, x: torch.Tensor) -> Any:
            return await asyncio.gather(self.inner(x), self.inner(x)), x @ x.t()

    p = trace(Outer(), SHAPE, device=device)
    assert sorted((op.layer, op.macs) for op in p.ops if op.macs) == [
        ("", 16), ("inner", 16), ("inner", 16), ("inner.layer", MACS), ("inner.layer", MACS),
    ]  # fmt: skip


def test_a_coroutine_is_run_while_an_event_loop_is_running() -> None:
    async def notebook() -> int:
        return int(trace(Async(), SHAPE).total("macs"))

    assert asyncio.run(notebook()) == 2 * MACS

    async def waiting() -> None:
        trace(Gathers(), SHAPE)

    with pytest.raises(TraceError, match="a coroutine that waits for the running event loop"):
        asyncio.run(waiting())


def test_a_generator_without_end_is_refused() -> None:
    with pytest.raises(TraceError, match="an iterator with more than 10,000 items"):
        trace(Function(lambda x: (x for _ in itertools.count())), SHAPE)


def test_work_of_another_thread_is_refused() -> None:
    def forward(x: torch.Tensor) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return [pool.submit(lambda: x @ x.t())]

    with pytest.raises(TraceError, match="a Future, whose work was done in another thread"):
        trace(Function(forward), SHAPE)
    with pytest.raises(TraceError, match="a Future that is not done"):
        trace(Function(lambda x: Future()), SHAPE)


def test_a_failure_in_a_generator_names_the_layer() -> None:
    class Fails(Twice):
        def forward(self, x: torch.Tensor) -> Any:
            yield self.layer(x.t())

    with pytest.raises(TraceError, match=r"layer 'layer' \(Linear\) failed"):
        trace(Fails(), SHAPE)


@pytest.mark.parametrize("function", [lambda: None, functools.partial(print), [1].append.__self__.append])
def test_a_function_as_a_result_is_noted(function: Any) -> None:
    p = trace(Function(lambda x: (x + 1, function)), SHAPE)
    assert p.total("macs") == 0
    noted = any("returns a function" in note for note in p.notes)
    assert noted is not (type(function).__name__ == "builtin_function_or_method")


class Iterates:
    def __init__(self, compute: Any) -> None:
        self.compute = compute

    def __iter__(self) -> Any:
        return iter([self.compute()])


class Slots:
    __slots__ = ("later",)

    def __init__(self, later: Any) -> None:
        self.later = later


@pytest.mark.parametrize(
    ("wrap", "what"),
    [(lambda f: f, "a function"), (functools.partial, "a function"), (Iterates, "class Iterates"),
     (functools.cached_property, "class cached_property"),
     (lambda f: SimpleNamespace(a=SimpleNamespace(b=f)), "class SimpleNamespace")],
)  # fmt: skip
def test_a_forward_that_only_returns_what_computes_later_is_refused(wrap: Any, what: str) -> None:
    with pytest.raises(TraceError, match=f"runs no operation and returns .*{what}"):
        trace(Function(lambda x: wrap(lambda: x @ x.t())), SHAPE)


def test_an_object_that_holds_a_function_is_noted_beside_tensors() -> None:
    p = trace(Function(lambda x: (x @ x.t(), SimpleNamespace(later=lambda: x @ x.t()))), SHAPE)
    assert p.total("macs") == 2 * 2 * 4
    assert any("returns an object (SimpleNamespace)" in note for note in p.notes)


def test_an_object_without_tensors_as_a_result_is_noted() -> None:
    p = trace(Function(lambda x: [x + 1, Iterates(None)][1]), SHAPE)
    assert p.notes == (
        "the forward returns an object (Iterates) without tensors: what that computes when it is used is not counted",
    )
    assert trace(Function(lambda x: (x + 1, Iterates(None))), SHAPE).notes == ()
    assert trace(Function(lambda x: [x + 1, {"a": (None, 1, "b")}][1]), SHAPE).notes == ()


def test_a_generator_in_a_slot_is_run() -> None:
    p = trace(Function(lambda x: Slots(x @ x.t() for _ in range(3))), SHAPE)
    assert p.total("macs") == 3 * SHAPE[0] * SHAPE[1] * SHAPE[0]


def test_a_module_as_a_result_is_no_work() -> None:
    assert trace(Function(lambda x: (x + 1, nn.ReLU())), SHAPE).notes == ()


@dataclasses.dataclass
class Result:
    x: Any
    more: Any = None


class Plain:
    def __init__(self, x: Any) -> None:
        self.x = x
        self.itself = self
        self.all = [self]


@pytest.mark.parametrize(
    "wrap",
    [Result, Plain, lambda x: Result(None, Plain(x)), lambda x: deque([x]), lambda x: {1: x}.values(),
     lambda x: OrderedDict(x=x), lambda x: [Result(x)], lambda x: torch.distributions.Normal(x, 1, validate_args=False),
     lambda x: iter([x]), lambda x: frozenset([x])],
)  # fmt: skip
def test_tensors_are_found_in_any_result(wrap: Any) -> None:
    p = trace(Function(lambda x: wrap(x + 1)), SHAPE)
    assert p.ops[0].writes[0].storage in p.outputs


@pytest.mark.parametrize("kind", ["Categorical", "Bernoulli", "Geometric"])
def test_a_distribution_as_a_result_is_counted_without_unknown_operations(kind: str) -> None:
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(10, 5)

        def forward(self, x: torch.Tensor) -> Any:
            return getattr(torch.distributions, kind)(logits=self.layer(x))

    p = trace(Policy(), (1, 10), device="cpu")
    assert p.total("macs") == 50
    assert p.complete, p.uncounted


class ComputesItems(dict[str, object]):
    """A mapping that multiplies when an item is read."""

    def __init__(self, x: torch.Tensor) -> None:
        super().__init__(product=None)
        self.x = x

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.x @ self.x.t()


def test_items_that_a_mapping_computes_are_counted() -> None:
    p = trace(Function(ComputesItems), (3, 4))
    assert p.total("macs") == 3 * 4 * 3
