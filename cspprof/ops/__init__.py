"""What an operation costs: one small rule per operation, a thin adapter over `formulas`.

A rule is called with the operation's own arguments, in the order and by the names of its schema, with a
`TensorSpec` in the place of each tensor and a `PackedWeights` in that of packed weights; `out` is the first output's spec.
To add an operation, decorate a function with `op_rule`:

>>> from cspprof import op_rule
>>> from cspprof.ops import Facts
>>> @op_rule("mylib.fused_conv")
... def fused_conv(x, weight, *, out):
...     return Facts("conv", macs=weight.numel // weight.shape[0] * out.numel)

An operation is in one of three states: counted by a rule, ignored on purpose (a rule that says zero, or a view),
or unknown. Nothing becomes zero by being forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from cspprof.core.record import Kind, TensorSpec
from cspprof.core.registry import Registry
from cspprof.core.tensors import TensorMeta

Spec = TensorSpec
Ints = int | Sequence[int]


class Facts(NamedTuple):
    """What a rule says of one operation."""

    kind: Kind | str
    macs: int | None = 0
    """Exact multiply-accumulates; bias, padding tricks and normalisation are not in it."""
    elementwise: int = 0
    """Scalar operations other than multiply-accumulates."""
    attrs: Mapping[str, Any] = MappingProxyType({})
    """Kept beside the operation's own arguments."""
    outputs: int | None = None
    """How many of the outputs are real results; the rest (saved statistics, workspace) is left out."""


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """The weights of a quantised layer, which its kernel keeps in a form of its own."""

    tensors: tuple[Spec, ...]
    """Weights first, biases after them."""
    attrs: Mapping[str, Any]
    """Of a convolution: `stride`, `padding`, `dilation`, `groups`."""


Rule = Callable[..., Facts]
OutputRule = Callable[..., TensorMeta | None]
R = TypeVar("R", bound=Rule)
RULES: Registry[Rule] = Registry("operation rule")
OUTPUT_RULES: dict[str, OutputRule] = {}


def op_rule(*targets: str) -> Callable[[R], R]:
    """Register a rule for operations named as in a profile: `aten.conv2d`, `mylib.op` (every overload of it).

    An in-place form (`aten.relu_`) follows the rule of its plain name.
    """

    def register(rule: R) -> R:
        for target in targets:
            RULES.add(target, rule)
        return rule

    return register


def output_rule(*targets: str) -> Callable[[OutputRule], OutputRule]:
    """Register a rule for the output's shape, strides and dtype: `output_rule("conv2d")`.

    It is called with the operation's own arguments, each tensor as its `TensorMeta`, and returns the `TensorMeta` of
    the only output, or None to let torch decide: unusual layouts, mixed dtypes, anything that torch may refuse.
    """

    def register(rule: OutputRule) -> OutputRule:
        OUTPUT_RULES.update(dict.fromkeys((f"aten.{target}" for target in targets), rule))
        return rule

    return register


def no_macs(kind: Kind, names: str, cost: Callable[..., int] = lambda *a, out, **k: 0, room: str = "aten") -> None:
    """One rule for many operations that multiply nothing; `cost` gives their scalar operations."""

    @op_rule(*(f"{room}.{name}" for name in names.split()))
    def rule(*args: Any, out: Spec, **kwargs: Any) -> Facts:
        return Facts(kind, elementwise=cost(*args, out=out, **kwargs))


for _file in (
    "convolution",
    "matrix",
    "linalg",
    "attention",
    "recurrent",
    "pooling",
    "fourier",
    "pointwise",
    "data",
    "output_shapes",
):
    import_module(f"{__name__}.{_file}")
