"""What a forward computes in another thread, where a trace does not see it: its results are of unknown cost."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import numpy as np
import pytest
import torch
from conftest import trace
from networks import Function
from torch import nn


def in_thread(work: Callable[[], torch.Tensor]) -> torch.Tensor:
    results: list[torch.Tensor] = []
    thread = Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def in_pool(x: torch.Tensor) -> torch.Tensor:
    with ThreadPoolExecutor(2) as pool:
        return torch.stack(list(pool.map(lambda y: y @ y.t(), [x, x + 1])))


FORWARDS = {
    "pool": (in_pool, 2, 0),
    "returned": (lambda x: in_thread(lambda: x @ x), 1, 0),
    "used": (lambda x: in_thread(lambda: x @ x) @ x, 1, 64),
    "in a list": (lambda x: torch.cat([x, in_thread(lambda: x.sum(0, True))]), 1, 0),
    "of a result": (lambda x: in_thread(lambda: (x @ x) @ x) + 1, 1, 0),
    "index": (lambda x: x[in_thread(lambda: x.argmax(1))], 1, 0),
    "in a generator": (lambda x: (in_thread(lambda: x @ x) @ y for y in (x, x)), 2, 128),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_a_result_of_another_thread_is_an_operation_of_unknown_cost(name: str) -> None:
    forward, unknown, macs = FORWARDS[name]
    p = trace(Function(forward), (4, 4))
    assert p.uncounted == {"other_thread": unknown}
    assert p.total("macs") == macs
    assert "tensors that another thread computed" in p.notes[0]
    p.self_check()


TABLE = torch.arange(4.0, device="meta")


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x * TABLE,
        lambda x: x * torch.as_tensor([1.0, 2.0, 3.0, 4.0], device=x.device),
        lambda x: x * torch.as_tensor(np.ones(4, np.float32), device=x.device),
        lambda x: x * torch.asarray([1.0, 2.0, 3.0, 4.0], device=x.device),
        lambda x: x * x.new_tensor([1.0, 2.0, 3.0, 4.0]),
        lambda x: x[[0, 1]] * 2,
        lambda x: torch.vmap(lambda row: row * torch.as_tensor([2.0], device=x.device))(x),
    ],
)
def test_a_tensor_made_without_an_operation_is_not_taken_for_such_a_result(
    forward: Callable[..., object],
) -> None:
    p = trace(Function(forward), (4, 4))
    assert p.complete
    assert p.notes == ()


def test_a_tensor_that_a_module_holds_on_meta_is_not_taken_for_such_a_result() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.ones(4, device="meta")
            self.tables = {"shift": [torch.ones(4, device="meta")]}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale + self.tables["shift"][0]

    calls: list[int] = []
    model = Net()
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    assert trace(model, (4, 4)).complete
    assert calls == [1], "one forward is enough"
