"""How rules of operations are registered: the cost of an operation, and the shape of its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from cspprof.core.kinds import Kind
from cspprof.core.registry import Registry
from cspprof.core.tensors import TensorMeta, TensorSpec

Spec = TensorSpec
Ints = int | Sequence[int]


class Facts(NamedTuple):
    """The kind and the cost of one operation: the result of a rule."""

    kind: Kind | str
    macs: int | None = 0
    """Exact multiply-accumulates, without biases and normalization; None if the count is unknown."""
    elementwise: int = 0
    """Scalar operations other than multiply-accumulates."""
    attrs: Mapping[str, Any] = MappingProxyType({})
    """Stored with the arguments of the operation."""
    outputs: int | None = None
    """How many of the outputs are results. The others (saved statistics, workspace) are not recorded. None: all."""


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """The weights of a quantized layer, which its kernel stores in an opaque object."""

    tensors: tuple[Spec, ...]
    """Weights first, biases after them."""
    attrs: Mapping[str, Any]
    """For a convolution: `stride`, `padding`, `dilation`, `groups`."""


Rule = Callable[..., Facts]
OutputRule = Callable[..., TensorMeta | None]
R = TypeVar("R", bound=Rule)
RULES: Registry[Rule] = Registry("operation rule")
VALUE_ARGUMENTS: dict[str, tuple[str, ...]] = {}
"""The arguments whose elements decide the cost of an operation, by the name of the operation."""
OUTPUT_RULES: dict[str, OutputRule] = {}


def op_rule(*targets: str, values: tuple[str, ...] = ()) -> Callable[[R], R]:
    """Register a cost rule for operations by their names in a profile, without overloads: `aten.conv2d`, `mylib.op`.

    The rule is called with the operation's own arguments, each tensor as its `TensorSpec` and packed weights as
    `PackedWeights`; the keyword argument `out` is the spec of the first output. An in-place form (`aten.relu_`)
    follows the rule of its plain name unless it has its own. Raises CspprofError for a name that has a rule.

    If the cost depends on the elements of integer tensors, `values` lists the names of these arguments. The rule then
    gets the keyword argument `values`: for each of them its elements, None if they are unknown, or an empty list if the
    call omits it.
    """

    def register(rule: R) -> R:
        for target in targets:
            RULES.add(target, rule)
            if values:
                VALUE_ARGUMENTS[target] = values
        return rule

    return register


def output_rule(*targets: str) -> Callable[[OutputRule], OutputRule]:
    """Register a rule for the shape, strides and dtype of the output of operations that return one tensor.

    The rule is called with the operation's own arguments, each tensor as its `TensorMeta`. It returns the `TensorMeta`
    of the output, or None to let torch compute it: unusual layouts, mixed dtypes, everything that torch may refuse. So
    a wrong shape still raises torch's own error.
    """

    def register(rule: OutputRule) -> OutputRule:
        OUTPUT_RULES.update(dict.fromkeys(targets, rule))
        return rule

    return register


def output_numel(*args: Any, out: Spec, **kwargs: Any) -> int:
    """One scalar operation for each element of the output."""
    return out.numel


def input_numel(*args: Any, out: Spec, **kwargs: Any) -> int:
    """One scalar operation for each element of the first argument."""
    return args[0].numel if args and isinstance(args[0], TensorSpec) else out.numel


def register_without_macs(
    kind: Kind, names: str, elementwise: Callable[..., int] | None = None, namespace: str = "aten"
) -> None:
    """Register one rule for many operations that have no MACs; `elementwise` counts their scalar operations."""

    @op_rule(*(f"{namespace}.{name}" for name in names.split()))
    def rule(*args: Any, out: Spec, **kwargs: Any) -> Facts:
        return Facts(kind, elementwise=elementwise(*args, out=out, **kwargs) if elementwise else 0)
