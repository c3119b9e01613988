"""Ctrl-C, or another interruption, at any moment of a trace or of a build leaves torch and the model as they were."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import quick
from odd_modules import MODULES
from test_untouched import assert_untouched

from cspprof.trace import trace

TORCH = str(Path(torch.__file__).parent)
TRACE = str(Path(sys.modules["cspprof.trace"].__file__ or "").parent.parent)


@contextmanager
def interrupted_at(line: int) -> Iterator[list[int]]:
    """Raise KeyboardInterrupt at the n-th line that Python runs in cspprof or torch. Yields a list with the count."""
    count = [0]

    def trace_lines(frame: Any, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith((TORCH, TRACE)):
            return None
        if event == "line":
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
    """How many lines the work runs."""
    with interrupted_at(-1) as count:
        work()
    return count[0]


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(
    "name", quick(["ReassignsBuffers", "DrawsRandomNumbers", "AccumulatesGradients", "MaxNorm"], 1)
)
def test_an_interrupted_trace_leaves_everything_as_it_was(name: str, device: str) -> None:
    model = MODULES[name]()
    trace(model, (2, 4), device=device, train=True)
    total = lines_of(lambda: trace(model, (2, 4), device=device, train=True))

    def work(line: int) -> None:
        with pytest.raises(KeyboardInterrupt) as caught, interrupted_at(line):
            trace(model, (2, 4), device=device, train=True)
        del caught

    for line in range(1, total + 1, max(1, total // 60)):
        assert_untouched(model, lambda line=line: work(line))  # type: ignore[misc]
