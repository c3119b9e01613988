"""How rules of operations are registered: the cost of an operation, and the shape of its output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from cspprof.core.backward import Backward, Saved
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


class Operand(NamedTuple):
    """A tensor argument or output of an operation, as a backward rule receives it."""

    position: int | None
    """Its place among the operands; ~n for the n-th output; None if the operation does not read it."""
    meta: TensorMeta
    in_place: bool = False
    """Whether the operation overwrites it. Autograd then keeps a copy."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.meta.shape

    @property
    def numel(self) -> int:
        return self.meta.spec.numel

    @property
    def nbytes(self) -> int:
        return self.meta.spec.nbytes


Rule = Callable[..., Facts]
BackwardRule = Callable[..., Backward]
OutputRule = Callable[..., TensorMeta | None]
R = TypeVar("R", bound=Rule)
RULES: Registry[Rule] = Registry("operation rule")
VALUE_ARGUMENTS: dict[str, tuple[str, ...]] = {}
"""The arguments whose elements decide the cost of an operation, by the name of the operation."""
OUTPUT_RULES: dict[str, OutputRule] = {}
BACKWARD_RULES: dict[str, BackwardRule] = {}
B = TypeVar("B", bound=BackwardRule)


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


def backward_rule(*targets: str) -> Callable[[B], B]:
    """Register a rule for what the backward pass of operations computes and what autograd keeps for it, as
    `backward` says. Names are those of `op_rule`.

    The rule is called with the operation's own arguments, each tensor as an `Operand`, and the keyword argument `out`,
    the `Operand` of the first output.
    """

    def register(rule: B) -> B:
        BACKWARD_RULES.update(dict.fromkeys(targets, rule))
        return rule

    return register


Needs = Any
"""An operand, several in a sequence, or None. Numbers and other arguments that are no operands are ignored."""


def kept(tensor: Any, needed_by: Needs = None, unless: Needs = None) -> list[Saved]:
    """The entry for an operand or an output that autograd keeps if one of the operands `needed_by` requires a gradient
    (None: if any operand does) and none of `unless` does.

    Empty if `tensor` is no tensor, as an omitted weight or a number, or if `needed_by` has no operand.
    """
    if not isinstance(tensor, Operand) or (needed_by is not None and not _operands(needed_by)):
        return []
    if tensor.in_place or tensor.position is None:
        return kept_bytes(tensor.nbytes, needed_by, unless)
    return [Saved(tensor.position, 0, _indices(needed_by), _indices(unless))]


def kept_bytes(nbytes: int, needed_by: Needs = None, unless: Needs = None) -> list[Saved]:
    """The entry for a tensor that autograd keeps and that is neither operand nor output."""
    return [Saved(None, nbytes, _indices(needed_by), _indices(unless))] if nbytes else []


def _indices(operands: Needs) -> tuple[int, ...]:
    return tuple([o.position for o in _operands(operands) if o.position is not None])


def _operands(needs: Needs) -> list[Operand]:
    if isinstance(needs, Operand):  # which is a tuple too
        return [needs]
    listed = needs if isinstance(needs, (list, tuple)) else ()
    return [o for o in listed if isinstance(o, Operand)]


def backward(*saves: Sequence[Saved], products: Sequence[tuple[int, Needs]] = ()) -> Backward:
    """The backward pass of an operation: what autograd keeps, and the MACs of each product with the operands that need
    it: one of them must require a gradient."""
    needed = [(macs, _indices(operands)) for macs, operands in products]
    return Backward(tuple([(n, by) for n, by in needed if by]), tuple([s for group in saves for s in group]))


NO_GRADIENT = Backward(ends=True)
PASSES_ON = Backward(passes=True)


def keeps_nothing(names: str, passes: bool = False, namespace: str = "aten") -> None:
    """Register operations whose backward pass needs shapes only, and has no MACs."""
    result = PASSES_ON if passes else Backward()
    backward_rule(*(f"{namespace}.{name}" for name in names.split()))(lambda *args, out, **kwargs: result)


def keeps_input(names: str, namespace: str = "aten") -> None:
    """Register operations whose backward pass reads the first argument, and has no MACs."""
    backward_rule(*(f"{namespace}.{name}" for name in names.split()))(
        lambda *args, out, **kwargs: backward(kept(args[0]))
    )


def keeps_output(names: str, namespace: str = "aten") -> None:
    """Register operations whose backward pass reads their output, and has no MACs."""
    backward_rule(*(f"{namespace}.{name}" for name in names.split()))(lambda *args, out, **kwargs: backward(kept(out)))


def ends_gradients(names: str, namespace: str = "aten") -> None:
    """Register operations through which no gradient passes although their outputs are floating."""
    backward_rule(*(f"{namespace}.{name}" for name in names.split()))(lambda *args, out, **kwargs: NO_GRADIENT)


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
