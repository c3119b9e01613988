"""What a replayed operation costs: the rule that counts it in a trace, called on the new shapes."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.record import Kind, OpSpec, TensorSpec
from cspprof.replay.sizes import key
from cspprof.replay.values import UnknownError
from cspprof.rules import RULES, Facts

ADDED = frozenset({"kernel", "global", "within"})
"""Attributes that are no arguments of the operation."""

PROPORTIONAL = frozenset({Kind.CONV, Kind.LINEAR, Kind.NORM, Kind.RESIZE})
"""Where one map is read, each element that is written costs what it did: there the rule need not be asked again."""


def counted(spec: OpSpec, given: Sequence[TensorSpec], made: Sequence[TensorSpec]) -> OpSpec:
    """The spec of the same operation on other tensors. Raises UnknownError where no rule counts it."""
    n, attrs = len(spec.reads), spec.attrs
    reads, weights, writes = tuple(given[:n]), tuple(given[n:]), tuple(made)
    if spec.kind in PROPORTIONAL and n == 1 and spec.macs is not None:
        now, then = made[0].numel, spec.writes[0].numel
        macs, elementwise = spec.macs * now // then, spec.elementwise * now // then
        return OpSpec(spec.target, spec.kind, reads, weights, writes, attrs, macs, elementwise)
    facts = Facts(Kind.VIEW) if spec.kind is Kind.VIEW else _facts(spec, given, made[0])
    if any(key(attrs.get(name)) != key(value) for name, value in facts.attrs.items()):
        attrs = {**attrs, **facts.attrs}
    return OpSpec(spec.target, spec.kind, reads, weights, writes, attrs, facts.macs, facts.elementwise)


def _facts(spec: OpSpec, given: Sequence[TensorSpec], out: TensorSpec) -> Facts:
    for name in (spec.target, spec.target.rstrip("_")):
        if name in RULES:
            arguments = {k: v for k, v in spec.attrs.items() if k not in ADDED and (k != "bias" or v is not None)}
            return RULES.get(name)(*given, out=out, **arguments)
    if spec.kind is Kind.ELEMENTWISE:
        return Facts(Kind.ELEMENTWISE, elementwise=out.numel)
    raise UnknownError("has no rule that counts it")
