"""Counts of other tools for the layers of a model. Each tool runs the model once and leaves it as it was."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from cspprof.core.errors import CspprofError, TraceError
from cspprof.core.inputs import Inputs, arguments
from cspprof.core.plain_arguments import with_plain_values
from cspprof.modules.input_tensors import InputTensors
from cspprof.modules.module_hooks import add_module_hooks
from cspprof.modules.module_tree import ModuleTree, without_wrappers
from cspprof.modules.prepared_model import prepared_model, unwrap_compiled

Counts = dict[str, int]
"""What a tool counted in each module without its submodules, by the module's path."""


def count_with_flop_counter(
    model: nn.Module, inputs: Inputs, *, device: str = "meta", dtype: str | None = None, train: bool = False
) -> Counts:
    """FLOPs by torch's `FlopCounterMode`. Raises TraceError if it fails on the model."""
    from torch.utils.flop_counter import FlopCounterMode

    tree, args, kwargs = _prepare(model, inputs, device, dtype)
    counts: Counter[str] = Counter()
    counter = FlopCounterMode(display=False)
    running, counted = 0, 0

    def set_layer(layer: int) -> int:
        nonlocal running, counted
        total = counter.get_total_flops()
        counts[tree.paths[running]] += total - counted
        outer, running, counted = running, layer, total
        return outer

    with _quiet("torch's FlopCounterMode"), prepared_model(tree, train, dtype, device) as prepared:
        add_module_hooks(tree, prepared.modules, set_layer)
        with torch.no_grad(), counter:
            prepared.model(*args, **kwargs)
        set_layer(0)
    return dict(counts)


def count_with_fvcore(
    model: nn.Module, inputs: Inputs, *, device: str = "cpu", dtype: str | None = None, train: bool = False
) -> Counts:
    """What fvcore's `FlopCountAnalysis` calls flops. It computes the forward. Raises TraceError if it fails."""
    tree, args, kwargs = _prepare(model, inputs, device, dtype)
    with _quiet("fvcore"), prepared_model(tree, train, dtype, device) as prepared:
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(prepared.model, _positional(prepared.model, args, kwargs))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        whole = analysis.by_module()
    own = Counter({path: int(n) for path, n in whole.items()})
    for path, n in whole.items():
        if path:
            own[path.rpartition(".")[0]] -= int(n)
    counts: Counter[str] = Counter()
    for path, n in own.items():
        counts[without_wrappers(path)] += n
    return dict(counts)


def _positional(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """All arguments by position: fvcore takes no others. Raises TraceError if the forward takes one by name only."""
    if not kwargs:
        return args
    bound = inspect.signature(model.forward).bind(*args, **kwargs)
    if bound.kwargs:
        raise TraceError(f"fvcore takes no arguments by name, and the forward needs {', '.join(bound.kwargs)}")
    return bound.args


def versions() -> dict[str, str]:
    """The versions of the tools, by the name of their convention."""
    return {"flop_counter": torch.__version__, "fvcore": version("fvcore")}


def _prepare(
    model: nn.Module, inputs: Inputs, device: str, dtype: str | None
) -> tuple[ModuleTree, tuple[Any, ...], dict[str, Any]]:
    make_input = InputTensors(device, dtype)
    args, kwargs = arguments(
        with_plain_values(model.forward, inputs)[0], make_input, permutation=make_input.permutation
    )
    return ModuleTree(unwrap_compiled(model)), args, kwargs


@contextmanager
def _quiet(tool: str) -> Iterator[None]:
    """Suppress the tool's logging and warnings. Whatever it raises becomes a TraceError."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (CspprofError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise TraceError(f"{tool} fails on it: {type(error).__name__}: {reason}") from error
    finally:
        logging.disable(before)
