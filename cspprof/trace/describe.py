"""From an operation just answered to what is written down of it: facts, roles of its tensors, attributes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from cspprof.record import CONVOLUTIONS, POOLS, Kind, OpSpec, TensorSpec
from cspprof.rules import RULES, Facts, Rule
from cspprof.trace.given import Given
from cspprof.trace.metas import Operator, Tag
from cspprof.trace.nests import tensors_in
from cspprof.trace.relations import ALIAS, FRESH, SAME, Result

make = tuple.__new__
"""Builds a NamedTuple without its keyword handling."""

SPECS: dict[OpSpec, OpSpec] = {}
"""Interned, so that a trace can number them by identity."""

RULE_OF: dict[Operator, tuple[Rule | None]] = {}
"""Found before."""

FREE = frozenset({"aten.detach", "aten.detach_", "aten.alias", "aten.sym_size", "aten.sym_stride", "aten.sym_numel",
                  "aten.sym_storage_offset", "prim.device", "aten.is_same_size"})  # fmt: skip
"""Operations that leave no trace: neither work nor a new shape."""

NOTHING = frozenset({"aten.detach", "aten.detach_", "aten.dropout", "aten.feature_dropout",
                     "aten.alpha_dropout", "aten.feature_alpha_dropout", "prim.device"})  # fmt: skip
"""Operations that, where they do nothing, would do nothing on any tensor."""

INDEXING = frozenset({"aten.alias", "aten.slice", "aten.select", "aten.unsqueeze"})
"""Operations that an index is made of."""

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
    """Of an operation that did nothing here and might elsewhere, or that is part of an index which left something out:
    its name and arguments."""


def describe(
    op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], given: Given, results: list[Result],
    tags: list[Tag], one: bool, on_meta: bool, within: tuple[str, ...] = (),
) -> Entry:  # fmt: skip
    """The entry of an operation whose answer is known; `results` says where each output lies, `one` whether it
    returns a single tensor, `within` which composite operation it is a part of."""
    ways = {how for how, _, _ in results}
    aliased = bool(ways) and FRESH not in ways
    off = op.plain in NOTHING and given.attrs.get("train") is False  # an in-place dropout
    if ways == {SAME} and (off or not op.written):
        real = not (on_meta and one)
        return Entry(None, (), tuple(results), 0, real, idle=None if op.plain in NOTHING else (op.target, given.attrs))
    asks = not results and op.torchs_own and op.target not in RULES  # for a size, a flag …
    if asks or op.target in FREE:
        return Entry(None, (), tuple(results), 0, True, idle=None if op.target in NOTHING else (op.target, {}))
    view = aliased and (not op.written or (op.reshapes and op.target not in RULES))
    dense, known = True, False
    for _, _, m, constant in tags:
        dense, known = dense and m.dense, known or constant
    if not (dense and all(m.dense for _, _, m in results)):
        facts = Facts(Kind.UNKNOWN, None)  # no rule holds where most elements are not there
    else:
        facts = Facts(Kind.VIEW) if view else facts_of(op, args, kwargs, given, results)
    spec, reads = _spec(op, facts, given, results, tags, () if view else within)
    real = not on_meta or view or known or not tags or not one or results[0][0] is ALIAS
    if SAME in ways and not real:
        real = any(how is SAME and m is not tags[i].meta for how, i, m in results)  # unsqueeze_, t_ …
    seen = on_meta and not op.written and len(tags) == 1 and not known and ways == {ALIAS}
    idle = (op.target, given.attrs) if op.target in INDEXING else None
    return make(Entry, (spec, reads, tuple(results), len(spec.writes), real, seen, not one, (), idle))


def alike(known: Entry, op: Operator, given: Given, result: Result, tags: list[Tag]) -> Entry:
    """The entry of an operation that differs from a known one, answered without torch, in nothing but sizes."""
    spec, _ = _spec(op, facts_of(op, (), {}, given, [result]), given, [result], tags, ())
    return make(Entry, (spec, known.reads, (result,), *known[3:]))


def _spec(
    op: Operator, facts: Facts, given: Given, results: list[Result], tags: list[Tag], within: tuple[str, ...]
) -> tuple[OpSpec, tuple[int, ...]]:
    """What is written down, and the positions of its reads and weights among the tensor arguments."""
    reads, weights, attrs, kind = given.reads, given.weights, given.attrs, facts.kind
    if not reads and kind in CONVOLUTIONS:  # of a learned map
        reads, weights = weights[:1], weights[1:]
    if not reads and kind in POOLS:  # of weights, such as their mean over the kernel: no layer of the network
        kind = Kind.REDUCTION
    if facts.attrs:
        attrs.update(facts.attrs)
    if within:
        attrs["within"] = within
    bare = [t[2].spec for t in tags]
    made = [m.spec for _, _, m in (results if facts.outputs is None else results[: facts.outputs])]
    spec: OpSpec = make(OpSpec, (
        op.target, kind if type(kind) is Kind else Kind(kind),
        tuple(map(bare.__getitem__, reads)), tuple(map(bare.__getitem__, weights)), tuple(made),
        attrs, facts.macs, facts.elementwise,
    ))  # fmt: skip
    return SPECS.setdefault(spec, spec), (*reads, *weights)


def taken_apart(op: Operator) -> bool:
    """Whether its parts are recorded instead: a composite operation without a rule."""
    return not (rule_of(op) or op.pointwise or op.target in FREE) and op.composite


def rule_of(op: Operator) -> Rule | None:
    """Of what the operation costs: its own, or that of its plain name."""
    found = RULE_OF.get(op)
    if found is None:
        name = next((n for n in (op.target, op.plain) if n in RULES), None)
        found = RULE_OF[op] = (None if name is None else RULES.get(name),)
    return found[0]


def facts_of(op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], given: Given, results: list[Result]) -> Facts:
    out = results[0][2].spec if results else TensorSpec((0,))
    rule = rule_of(op)
    if rule is not None:
        named = given.named_specs
        return rule(*given.specs, out=out, **({k: v for k, v in named.items() if k not in op.outs} if named else named))
    if op.pointwise:
        return Facts(Kind.ELEMENTWISE, elementwise=out.numel)
    return _from_torch_registry(op, args, kwargs, results)


def _from_torch_registry(op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], results: list[Result]) -> Facts:
    """A formula that the user gave to torch's `register_flop_formula`; torch counts two FLOPs a MAC."""
    counter = sys.modules.get("torch.utils.flop_counter")
    formula = None if counter is None else counter.flop_registry.get(op.func.overloadpacket)
    if formula is None:
        return Facts(Kind.UNKNOWN, None)
    shapes = [m.empty() for _, _, m in results]
    flops = int(formula(*args, **kwargs, out_val=shapes[0] if len(shapes) == 1 else tuple(shapes)))
    return Facts(Kind.CUSTOM, (flops + 1) // 2, attrs={"flops": flops})


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
