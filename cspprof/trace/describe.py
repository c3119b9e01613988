"""From an operation just answered to what is written down of it: facts, roles of its tensors, attributes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from cspprof.record import CONVOLUTIONS, POOLS, Kind, OpSpec, TensorSpec
from cspprof.rules import RULES, Facts, Packed
from cspprof.trace.metas import WEIGHT_NAMES, Meta, Operator, Tag
from cspprof.trace.nests import plain, replace, tensors_in
from cspprof.trace.packed import unpack
from cspprof.trace.relations import ALIAS, FRESH, SAME, Result

SPECS: dict[OpSpec, OpSpec] = {}
"""Interned, so that a trace can number them by identity."""

FREE = frozenset({"aten.detach", "aten.detach_", "aten.alias", "aten.sym_size", "aten.sym_stride", "aten.sym_numel",
                  "aten.sym_storage_offset", "prim.device", "aten.is_same_size"})  # fmt: skip
"""Operations that leave no trace: neither work nor a new shape."""

NOTHING = frozenset({"aten.detach", "aten.detach_", "aten.alias", "aten.dropout", "aten.feature_dropout",
                     "aten.alpha_dropout", "aten.feature_alpha_dropout", "prim.device"})  # fmt: skip
"""Operations that, where they do nothing, would do nothing on any tensor."""

VALUES = frozenset({"aten._local_scalar_dense", "aten.item", "aten.equal", "aten.is_nonzero"})
"""Operations that want a tensor's values as Python numbers."""


BY_VALUE = frozenset({"aten._pack_padded_sequence", "aten._pad_packed_sequence", "aten.lstm", "aten.gru",
                      "aten.rnn_tanh", "aten.rnn_relu", "aten.tensor_split"})  # fmt: skip
"""Operations with an argument that torch reads on the CPU, wherever the rest is: lengths, batch sizes, indices."""

REFUSED = frozenset({"aten._nested_tensor_from_mask_left_aligned"})
"""Questions answered with no, whatever the values: `nn.TransformerEncoder` then keeps the padded batch."""


class Entry(NamedTuple):
    """An operation on specs seen before: what to write down and how to answer it."""

    spec: OpSpec | None
    """None: nothing happened (a view of itself, a dropout that is off)."""
    reads: tuple[int, ...]
    """Positions among the tensor arguments: those of `spec.reads`, then those of `spec.weights`."""
    results: tuple[Result, ...]
    recorded: int
    """How many outputs are written down."""
    real: bool
    """Ask torch for the outputs each time: views, and lists of outputs."""
    view: bool = False
    """Views of the one tensor argument, on meta: their layout is known before torch makes them."""
    several: bool = False
    """Whether the operation returns a list."""
    offsets: tuple[int, ...] = ()
    """Where the views begin; empty where torch has to make them."""
    idle: tuple[str, dict[str, Any]] | None = None
    """Of an operation that did nothing here and might elsewhere: its name and arguments."""


def describe(
    op: Operator, made: Any, args: tuple[Any, ...], kwargs: dict[str, Any],
    results: list[Result], tags: list[Tag], on_meta: bool, within: tuple[str, ...] = (),
) -> Entry:  # fmt: skip
    """The entry of an operation that was just answered; `results` says where each output lies, `within` which
    composite operation it is a part of."""
    aliased = bool(results) and all(how is not FRESH for how, _, _ in results)
    if aliased and not op.written and all(how is SAME for how, _, _ in results):
        real = not (on_meta and isinstance(made, torch.Tensor))
        idle = None if op.target in NOTHING else (op.target, roles(op, args, kwargs, [t.meta for t in tags])[2])
        return Entry(None, (), tuple(results), 0, real, idle=idle)
    asks = not results and op.torchs_own and op.target not in RULES  # for a size, a flag …
    if asks or op.target in FREE:
        return Entry(None, (), tuple(results), 0, True, idle=None if op.target in NOTHING else (op.target, {}))
    metas = [t.meta for t in tags]
    bare = [m.spec for m in metas]
    made_metas = [m for _, _, m in results]
    view = aliased and (not op.written or (op.reshapes and op.target not in RULES))
    if not all(m.dense for m in metas + made_metas):
        facts = Facts(Kind.UNKNOWN, None)  # no rule holds where most elements are not there
    else:
        facts = Facts(Kind.VIEW) if view else facts_of(op, args, kwargs, bare, results)
    reads, weights, attrs = roles(op, args, kwargs, metas)
    if not reads and facts.kind in CONVOLUTIONS:  # of a learned map
        reads, weights = weights[:1], weights[1:]
    if not reads and facts.kind in POOLS:  # of weights, such as their mean over the kernel: no layer of the network
        facts = Facts(Kind.REDUCTION, elementwise=facts.elementwise, outputs=facts.outputs)
    recorded = len(results) if facts.outputs is None else min(facts.outputs, len(results))
    attrs.update(facts.attrs)
    if within and not view:
        attrs["within"] = within
    spec = OpSpec(
        op.target, facts.kind if type(facts.kind) is Kind else Kind(facts.kind),
        tuple([bare[i] for i in reads]), tuple([bare[i] for i in weights]),
        tuple([m.spec for m in made_metas[:recorded]]),
        attrs, facts.macs, facts.elementwise,
    )  # fmt: skip
    spec = SPECS.setdefault(spec, spec)
    known = any(t.constant for t in tags)
    real = not on_meta or view or known or not tags or not isinstance(made, torch.Tensor) or results[0][0] is ALIAS
    real = real or any(how is SAME and m is not metas[i] for how, i, m in results)  # unsqueeze_, t_ …
    seen = on_meta and not op.written and len(tags) == 1 and not known
    seen = seen and bool(results) and all(how is ALIAS for how, _, _ in results)
    several = not isinstance(made, torch.Tensor)
    return Entry(spec, (*reads, *weights), tuple(results), recorded, real, seen, several)


def taken_apart(op: Operator) -> bool:
    """Whether its parts are recorded instead: a composite operation without a rule."""
    known = op.target in RULES or op.plain in RULES or op.pointwise or op.target in FREE
    return not known and op.composite


def facts_of(
    op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], bare: list[TensorSpec],
    results: list[Result],
) -> Facts:  # fmt: skip
    out = results[0][2].spec if results else TensorSpec((0,))
    for name in (op.target, op.plain):
        if name in RULES:
            specs = iter(bare)
            given = replace(args, specs, _packed)
            named = {k: replace(v, specs, _packed) for k, v in kwargs.items()}
            return RULES.get(name)(*given, out=out, **{k: v for k, v in named.items() if k not in op.outs})
    if op.pointwise:
        return Facts(Kind.ELEMENTWISE, elementwise=out.numel)
    return _from_torch_registry(op, args, kwargs, results)


def _packed(held: torch.ScriptObject, specs: list[TensorSpec]) -> Packed:
    return Packed(tuple(specs), unpack(held)[1])


def _from_torch_registry(op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], results: list[Result]) -> Facts:
    """A formula that the user gave to torch's `register_flop_formula`; torch counts two FLOPs a MAC."""
    counter = sys.modules.get("torch.utils.flop_counter")
    formula = None if counter is None else counter.flop_registry.get(op.func.overloadpacket)
    if formula is None:
        return Facts(Kind.UNKNOWN, None)
    shapes = [m.empty() for _, _, m in results]
    flops = int(formula(*args, **kwargs, out_val=shapes[0] if len(shapes) == 1 else tuple(shapes)))
    return Facts(Kind.CUSTOM, (flops + 1) // 2, attrs={"flops": flops})


def roles(
    op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], metas: list[Meta]
) -> tuple[list[int], list[int], dict[str, Any]]:
    """Positions of the tensor arguments that are activations, and of those that are weights; the other arguments by
    their schema names, as plain values.

    Left out is what is not read: `out=`, and the tensor whose shape a new one takes.
    """
    reads: list[int] = []
    weights: list[int] = []
    attrs: dict[str, Any] = {}
    at = 0
    for name, value in (*zip(op.names, args, strict=False), *kwargs.items()):
        held = 0 if plain(value) else sum(1 for _ in tensors_in(value))
        if not held:
            attrs[name] = _plain(value)
        elif not op.makes_like and name not in op.outs:
            for position in range(at, at + held):
                learned = name in WEIGHT_NAMES or (metas[position].weight and name != "input")
                (weights if learned else reads).append(position)
        at += held
    return reads, weights, attrs


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple([_plain(v) for v in value])
    return str(value).removeprefix("torch.")


STATISTICS = ("running_mean", "running_var")
"""What batch and instance norm write in training, though their schemas do not say so."""


def written_in(
    op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], besides: Iterable[str] = ()
) -> list[torch.Tensor]:
    """The tensor arguments that the operation writes into by its schema, and those of the names `besides`."""
    named = {**dict(zip(op.names, args, strict=False)), **kwargs}
    return [t for name in (*op.written, *besides) for t in tensors_in(named.get(name))]


def outputs(op: Operator, made: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """What the operation returns, or what it writes into where it returns nothing."""
    return list(tensors_in(made)) or written_in(op, args, kwargs)
