"""An operation on tensors of known shapes: its `OpSpec`, and how to produce its outputs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from cspprof.core.record import CONVOLUTIONS, POOLS, Backward, Kind, OpSpec, TensorSpec
from cspprof.core.tensors import TensorMeta
from cspprof.core.validation import LARGEST
from cspprof.operands.aliasing import Alias, Output
from cspprof.operands.bound_args import BoundArgs
from cspprof.operands.operators import Operator
from cspprof.operands.pytree import tensors_in
from cspprof.operands.tensor_meta import TensorTag, empty_tensor
from cspprof.ops import BACKWARD_RULES, NO_GRADIENT, PASSES_ON, RULES, Facts, Operand, Rule

NOT_RECORDED = frozenset({"aten.detach", "aten.detach_", "aten.alias", "aten.sym_size", "aten.sym_stride",
                          "aten.sym_numel", "aten.sym_storage_offset", "prim.device", "aten.is_same_size"})  # fmt: skip
"""Operations that neither compute nor change a shape."""

DROPOUTS = frozenset({"aten.dropout", "aten.feature_dropout", "aten.alpha_dropout", "aten.feature_alpha_dropout"})

SPECS: dict[OpSpec, OpSpec] = {}
"""Interned specs, so that a trace can number them by identity."""


class OpEntry(NamedTuple):
    """An operation on tensors of known shapes: what to record, and how to produce its outputs again."""

    spec: OpSpec | None
    """None if nothing is recorded: a view of the whole tensor, a dropout in eval mode."""
    reads: tuple[int, ...]
    """Positions among the tensor arguments: those of `spec.reads`, then those of `spec.weights`."""
    outputs: tuple[Output, ...]
    recorded: int
    """How many of the outputs are recorded."""
    runs: bool
    """Whether torch must produce the outputs each time: views, and lists of outputs."""
    view: bool = False
    """Whether all outputs are views of the only tensor argument, on meta: then their `TensorMeta` stays valid."""


LoggedCall = tuple[OpEntry, int, list[TensorTag], Sequence[int], bool]
"""One call of an operation: entry, layer, tags of the tensor arguments, storages of the outputs, and whether gradients
were enabled. A plain tuple, because there is one for each call."""


def make_entry(
    op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], bound: BoundArgs, outputs: list[Output],
    tags: list[TensorTag], single: bool, on_meta: bool, within: tuple[str, ...] = (),
    values: list[list[int] | None] | None = None,
) -> OpEntry:  # fmt: skip
    """The entry of an operation whose outputs are known.

    `single` says whether it returns one tensor rather than a list, `within` which composite operation it is part of.
    `values` are the elements of the arguments that decide its cost, if it has such arguments.
    """
    aliases = {out.alias for out in outputs}
    aliased = bool(aliases) and Alias.NONE not in aliases
    is_off = op.plain in DROPOUTS and bound.attrs.get("train") is False
    if aliases == {Alias.SAME} and (is_off or not op.written):
        return OpEntry(None, (), tuple(outputs), 0, runs=not (on_meta and single))
    queries = not outputs and op.builtin and op.target not in RULES  # returns a size, a flag …
    if queries or op.target in NOT_RECORDED:
        return OpEntry(None, (), tuple(outputs), 0, runs=True)
    view = aliased and (not op.written or (op.changes_shape_in_place and op.target not in RULES))
    if not all(tag.meta.dense for tag in tags) or not all(out.meta.dense for out in outputs):
        facts = Facts(Kind.UNKNOWN, None)  # no rule holds for sparse tensors
    else:
        facts = Facts(Kind.VIEW) if view else facts_of(op, args, kwargs, bound, outputs, values)
    if max(facts.macs or 0, facts.elementwise) > LARGEST:
        raise OverflowError(f"the operation counts more than {LARGEST:,}, which no profile can hold")
    spec, reads = _make_spec(op, facts, bound, outputs, tags, () if view else within)
    constant = any(tag.constant for tag in tags)
    runs = not on_meta or view or constant or not tags or not single or outputs[0].alias is Alias.VIEW
    runs = runs or any(o.alias is Alias.SAME and o.meta is not tags[o.argument].meta for o in outputs)  # unsqueeze_ …
    only_view = on_meta and not op.written and len(tags) == 1 and not constant and aliases == {Alias.VIEW}
    return OpEntry(spec, reads, tuple(outputs), len(spec.writes), runs, only_view)


def _make_spec(
    op: Operator, facts: Facts, bound: BoundArgs, outputs: list[Output], tags: list[TensorTag], within: tuple[str, ...]
) -> tuple[OpSpec, tuple[int, ...]]:
    """The spec, and the positions of its reads and weights among the tensor arguments."""
    reads, weights, kind = bound.reads, bound.weights, Kind(facts.kind)
    if not reads and kind in CONVOLUTIONS:  # the input is a parameter: a learned feature map
        reads, weights = weights[:1], weights[1:]
    if not reads and kind in POOLS:  # of weights only, e.g. their mean over the kernel: not a layer of the network
        kind = Kind.REDUCTION
    attrs = {**bound.attrs, **facts.attrs}
    if within:
        attrs["within"] = within
    spec = OpSpec(
        op.target,
        kind,
        tuple([tags[i].meta.spec for i in reads]),
        tuple([tags[i].meta.spec for i in weights]),
        tuple([out.meta.spec for out in outputs[: facts.outputs]]),
        attrs,
        facts.macs,
        facts.elementwise,
        _backward_of(op, facts, bound, outputs, (*reads, *weights)),
    )
    return SPECS.setdefault(spec, spec), (*reads, *weights)


def _backward_of(
    op: Operator, facts: Facts, bound: BoundArgs, outputs: list[Output], operands: tuple[int, ...]
) -> Backward | None:
    """The backward pass of the operation, by its rule. Without one, it has no MACs if the operation has none, and what
    it keeps is unknown."""
    if not any(_differentiable(out.meta) for out in outputs):
        return NO_GRADIENT
    if facts.kind is Kind.VIEW:
        return PASSES_ON
    rule = next((BACKWARD_RULES[name] for name in (op.target, op.plain) if name in BACKWARD_RULES), None)
    if rule is None or op.outs:
        return Backward(saves=None) if facts.macs == 0 and facts.kind is not Kind.GRADIENT else None
    index = {position: i for i, position in enumerate(operands)}
    at = -1

    def with_operands(value: Any, in_place: bool = False) -> Any:
        nonlocal at
        if isinstance(value, TensorMeta):
            at += 1
            return Operand(index.get(at), value, in_place)
        return [with_operands(v) for v in value] if isinstance(value, (list, tuple)) else value

    args = [with_operands(value, op.in_place and not i) for i, value in enumerate(bound.metas)]
    named = {name: with_operands(value) for name, value in bound.named_metas.items()}
    return rule(*args, out=Operand(~0, outputs[0].meta), **named)


def _differentiable(meta: TensorMeta) -> bool:
    return meta.is_floating or meta.is_complex


def is_decomposed(op: Operator) -> bool:
    """Whether a trace records the parts of the operation instead: a composite operation without a rule."""
    return not (rule_of(op) or op.pointwise or op.target in NOT_RECORDED) and op.composite


def rule_of(op: Operator) -> Rule | None:
    """The rule for the operation's cost: registered for its own name, or for its name without the underscore."""
    return next((RULES.get(name) for name in (op.target, op.plain) if name in RULES), None)


def facts_of(
    op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], bound: BoundArgs, outputs: list[Output],
    values: list[list[int] | None] | None,
) -> Facts:  # fmt: skip
    """What the operation costs: by its rule, else by torch's own classification, else unknown."""
    out = outputs[0].meta.spec if outputs else TensorSpec((0,))
    rule = rule_of(op)
    if rule is not None:
        named = {k: v for k, v in bound.named_specs.items() if k not in op.outs}
        return rule(*bound.specs, out=out, **named, **({} if values is None else {"values": values}))
    if op.pointwise:
        return Facts(Kind.ELEMENTWISE, elementwise=out.numel)
    return _facts_from_flop_formula(op, args, kwargs, outputs)


def _facts_from_flop_formula(
    op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: list[Output]
) -> Facts:
    """A formula that the user passed to torch's `register_flop_formula`. Torch counts two FLOPs per MAC."""
    counter = sys.modules.get("torch.utils.flop_counter")
    formula = None if counter is None else counter.flop_registry.get(op.func.overloadpacket)
    if formula is None:
        return Facts(Kind.UNKNOWN, None)
    tensors = [empty_tensor(out.meta) for out in outputs]
    flops = int(formula(*args, **kwargs, out_val=tensors[0] if len(tensors) == 1 else tuple(tensors)))
    return Facts(Kind.CUSTOM, (flops + 1) // 2, attrs={"flops": flops})


STATISTICS = ("running_mean", "running_var")
"""Arguments that batch and instance norm write in training, although their schemas do not say so."""


def written_tensors(
    op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], also: Iterable[str] = ()
) -> list[torch.Tensor]:
    """The tensor arguments that the operation writes into by its schema, and those named in `also`."""
    named = {**dict(zip(op.names, args, strict=False)), **kwargs}
    return [tensor for name in (*op.written, *also) for tensor in tensors_in(named.get(name))]
