"""What other counters say of a model, by the layers of a trace. Each runs the model once and leaves it as it was."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from cspprof.errors import CspprofError, TraceError
from cspprof.inputs import Inputs, arguments
from cspprof.trace.run import InputMaker, ready, unwrap
from cspprof.trace.running import hooked
from cspprof.trace.scope import Scope, clean

Counts = dict[str, int]
"""What a tool counted in a module and in none of its submodules, by the module's path."""


def flop_counter(
    model: nn.Module, inputs: Inputs, *, device: str = "meta", dtype: str | None = None, train: bool = False
) -> Counts:
    """FLOPs by torch's `FlopCounterMode`. Raises TraceError where it cannot follow the model."""
    from torch.utils.flop_counter import FlopCounterMode

    scope, args, kwargs = _called(model, inputs, device, dtype)
    counts: Counter[str] = Counter()
    counter = FlopCounterMode(display=False)
    running, counted = 0, 0

    def move(layer: int) -> int:
        nonlocal running, counted
        total = counter.get_total_flops()
        counts[scope.paths[running]] += total - counted
        outer, running, counted = running, layer, total
        return outer

    with _quietly("torch's FlopCounterMode"), ready(scope, train, dtype, device), torch.no_grad(), counter:
        with hooked(scope, move):
            scope.model(*args, **kwargs)
        move(0)
    return dict(counts)


def fvcore(
    model: nn.Module, inputs: Inputs, *, device: str = "cpu", dtype: str | None = None, train: bool = False
) -> Counts:
    """What fvcore's `FlopCountAnalysis` calls flops; it computes the forward for real. Raises TraceError likewise."""
    scope, args, kwargs = _called(model, inputs, device, dtype)
    with _quietly("fvcore"), ready(scope, train, dtype, device):
        from fvcore.nn import FlopCountAnalysis

        if kwargs:
            raise TraceError("fvcore takes no keyword arguments", "Give positional inputs.")
        analysis = FlopCountAnalysis(scope.model, args)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        whole = analysis.by_module()
    own = Counter({path: int(n) for path, n in whole.items()})
    for path, n in whole.items():
        if path:
            own[path.rpartition(".")[0]] -= int(n)
    counts: Counter[str] = Counter()
    for path, n in own.items():
        counts[clean(path)] += n
    return dict(counts)


def versions() -> dict[str, str]:
    """Of the tools asked here, by the name of their convention."""
    return {"flop_counter": torch.__version__, "fvcore": version("fvcore")}


def _called(
    model: nn.Module, inputs: Inputs, device: str, dtype: str | None
) -> tuple[Scope, tuple[Any, ...], dict[str, Any]]:
    maker = InputMaker(device, dtype)
    args, kwargs = arguments(inputs, maker)
    return Scope(unwrap(model)), args, kwargs


@contextmanager
def _quietly(tool: str) -> Iterator[None]:
    """Whatever the tool has to say is left to what it counts; whatever it raises is a `TraceError`."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except CspprofError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise TraceError(f"{tool} cannot follow it: {type(error).__name__}: {reason}") from error
    finally:
        logging.disable(before)
