"""What was answered before: operations by function, argument specs and scalars; whole layers by class and settings."""

from __future__ import annotations

import sys
from collections import defaultdict
from types import BuiltinFunctionType
from typing import Any, NamedTuple

import torch
from torch import nn

from cspprof.rules import RULES
from cspprof.trace.describe import RULE_OF, SPECS, Entry
from cspprof.trace.given import Given
from cspprof.trace.metas import Operator

Memo = dict[tuple[Any, ...], Entry]

MEMOS: dict[tuple[bool, tuple[str, ...]], Memo] = defaultdict(dict)
"""By whether the trace is on meta and which composite operation is being taken apart."""
ANSWERED: Memo = {}
"""What a whole layer of torch's own did: see `layers`."""


class Recipe(NamedTuple):
    """The one operation that layers with the same settings do, whatever the sizes of their input."""

    op: Operator
    args: tuple[Any, ...]
    """With a `Slot` in the place of each tensor."""
    given: Given
    """As it was given to the layer that was run."""
    entry: Entry
    """Of that one."""


RECIPES: dict[tuple[Any, ...], Recipe | None] = {}
"""By the outline of a layer; None of those that give back their input."""
LIMIT = 50_000

_KNOWN: list[object] = []
"""What the memo was made under."""


def forget() -> None:
    """Empty the memo: a rule was added, or a first trace is to be timed."""
    for memo in MEMOS.values():  # emptied, not dropped: a trace under way holds its own
        memo.clear()
    ANSWERED.clear()
    RECIPES.clear()
    SPECS.clear()
    RULE_OF.clear()


FUNCTIONS = (
    "conv1d", "conv2d", "conv3d", "linear", "pad", "batch_norm", "layer_norm", "group_norm", "relu", "relu_", "relu6",
    "leaky_relu", "leaky_relu_", "silu", "silu_", "gelu", "hardswish", "hardsigmoid", "mish", "sigmoid", "tanh",
    "softmax", "dropout", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d",
)  # fmt: skip
"""What layers of torch's own are made of, by its names in `torch` and in `torch.nn.functional`."""


_GENUINE: list[bool] = []
"""Whether those functions are all torch's."""


def genuine() -> bool:
    """Whether nobody put another function in the place of one of torch's, which is then to be called."""
    return all(_GENUINE) and as_before()


def as_before() -> bool:
    """Whether those functions are still what they were when the trace began: a forward may replace some."""
    return _functions() == _KNOWN[-len(_GENUINE) :]


def _functions() -> list[Any]:
    return [*map(vars(torch).get, FUNCTIONS), *map(vars(nn.functional).get, FUNCTIONS)]


def _is_torchs(function: Any) -> bool:
    """None is a name that one of the two does not have."""
    home = getattr(function, "__globals__", {}).get("__name__", "")
    return function is None or isinstance(function, BuiltinFunctionType) or home.startswith("torch.")


def remember() -> None:
    """Before a trace: keep the memo only where no rule was added, here or in torch's registry of FLOP formulas, no
    function of torch's was replaced, and what else an operation depends on is as it was."""
    counter = sys.modules.get("torch.utils.flop_counter")
    functions = _functions()
    now = [RULES.version, torch.get_default_dtype(), torch.backends.cudnn.enabled, nn.Module.__getattr__]
    if counter is not None:
        now += counter.flop_registry.values()
    now += functions
    if now != _KNOWN or len(SPECS) > LIMIT:
        forget()
        _KNOWN[:] = now
        _GENUINE[:] = [_is_torchs(f) for f in functions]
