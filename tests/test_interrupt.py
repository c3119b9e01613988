"""Ctrl-C, or another interruption, at any moment of a trace or of a build leaves torch and the model as they were."""

from __future__ import annotations

import linecache
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import quick
from networks import Function
from odd_modules import MODULES
from test_untouched import assert_untouched, global_state
from torch import nn

from cspprof.isolation.torch_state import TorchState, autocast_depth
from cspprof.sources.build import build_module
from cspprof.sources.spec import Spec
from cspprof.trace import trace

pytestmark = pytest.mark.slow

TORCH = str(Path(torch.__file__).parent)
FEWER_LINES = 4
"""A run may have fewer lines than the one before it, because torch has cached something, or because the search for
tensors of other threads visits fewer objects: so many interruptions of the last lines may not happen."""

INTERRUPTIONS = 24
"""How many lines of a run are interrupted, evenly spaced."""

TRACE = str(Path(sys.modules["cspprof.trace"].__file__ or "").parent.parent)


@contextmanager
def interrupted_at(line: int) -> Iterator[list[int]]:
    """Raise KeyboardInterrupt at the n-th line that Python runs in cspprof or torch. Yields a list with the count.

    Python runs the line of a `with` statement a second time to leave it, but handles no signal before `__exit__`: that
    line is not interrupted.
    """
    count = [0]
    entered: dict[int, set[int]] = {}

    def trace_lines(frame: Any, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith((TORCH, TRACE)):
            return None
        if event == "call":
            entered.pop(id(frame), None)
        elif event == "line" and frame.f_lineno not in entered.get(id(frame), ()):
            if linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with "):
                entered.setdefault(id(frame), set()).add(frame.f_lineno)
            count[0] += 1
            if count[0] == line:
                raise KeyboardInterrupt
        return trace_lines

    before = sys.gettrace()
    sys.settrace(trace_lines)
    try:
        yield count
    finally:
        sys.settrace(before)


def lines_of(work: Callable[[], Any]) -> int:
    """How many lines the work runs, when everything that it imports is imported."""
    counts = []
    for _ in range(3):
        with interrupted_at(-1) as count:
            work()
        counts.append(count[0])
    return min(counts)


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(
    "name", quick(["ReassignsBuffers", "DrawsRandomNumbers", "AccumulatesGradients", "MaxNorm"], 1)
)
def test_an_interrupted_trace_leaves_everything_as_it_was(name: str, device: str) -> None:
    model = MODULES[name]()
    trace(model, (2, 4), device=device, train=True)
    total = lines_of(lambda: trace(model, (2, 4), device=device, train=True))

    interrupted = [0]

    def work(line: int) -> None:
        try:
            with interrupted_at(line):
                trace(model, (2, 4), device=device, train=True)
        except KeyboardInterrupt:
            interrupted[0] += 1

    lines = range(1, total + 1, max(1, total // INTERRUPTIONS))
    for line in lines:
        assert_untouched(model, lambda line=line: work(line))  # type: ignore[misc]
    assert interrupted[0] >= len(lines) - FEWER_LINES
    in_turn = threading.Thread(target=trace, args=(model, (2, 4)), daemon=True)
    in_turn.start()
    in_turn.join(60)
    assert not in_turn.is_alive(), "an interrupted trace still keeps the traces of other threads waiting"


class Net(nn.Module):
    """Draws random numbers of every kind while it is built, and reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        nn.init.xavier_uniform_(self.fc.weight)
        nn.init.trunc_normal_(self.fc.weight)
        self.scale = (torch.rand(2) + torch.randn(2) + F.dropout(torch.ones(2))).sum().item() + self.fc.weight[
            0, 0
        ].item()


SPEC = Spec("test", "test", {})


@pytest.mark.parametrize("device", ["cpu", None])
def test_an_interrupted_build_leaves_everything_as_it_was(device: str | None) -> None:
    build_module(SPEC, Net, device)
    total = lines_of(lambda: build_module(SPEC, Net, device))
    state = global_state()
    interrupted = 0
    lines = range(1, total + 1, max(1, total // INTERRUPTIONS))
    for line in lines:
        try:
            with interrupted_at(line):
                build_module(SPEC, Net, device)
        except KeyboardInterrupt:
            interrupted += 1
        assert global_state() == state
    assert interrupted >= len(lines) - FEWER_LINES


def raises_another_error() -> nn.Module:
    """As torch does if an interruption comes while it leaves one of its context managers."""
    try:
        raise KeyboardInterrupt
    finally:
        raise RuntimeError("trying to pop from empty mode stack")


def test_an_interruption_that_torch_replaces_by_an_error_is_an_interruption() -> None:
    with pytest.raises(KeyboardInterrupt):
        build_module(SPEC, raises_another_error, "cpu")
    with pytest.raises(KeyboardInterrupt):
        trace(Function(lambda x: raises_another_error()(x)), (2, 4))


def test_an_import_of_dynamo_that_was_interrupted_does_not_replace_the_interruption(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python removes the package whose import was interrupted; its modules stay, and torch cannot import it again."""
    monkeypatch.delitem(sys.modules, "torch._dynamo.eval_frame", raising=False)
    state = TorchState()
    monkeypatch.setitem(sys.modules, "torch._dynamo.eval_frame", SimpleNamespace(_stance=object()))
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    monkeypatch.setattr(torch.compiler, "set_stance", lambda stance: raises_another_error())
    state.restore()


def test_a_build_draws_the_same_weights_each_time_and_none_from_the_generators_of_the_process() -> None:
    state = global_state()
    first, second = (build_module(SPEC, Net, "cpu")[0] for _ in range(2))
    assert torch.equal(first.fc.weight, second.fc.weight)
    assert first.fc.weight.std() > 0
    assert global_state() == state


def test_reading_the_depth_of_autocast_cannot_be_interrupted_in_between() -> None:
    """At no line that runs while it is read does an interruption leave the depth changed."""
    before = autocast_depth()
    for line in range(1, lines_of(autocast_depth) + 1):
        with pytest.raises(KeyboardInterrupt), interrupted_at(line):
            autocast_depth()
        assert autocast_depth() == before
