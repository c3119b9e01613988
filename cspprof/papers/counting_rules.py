"""The rules under which a table can print a cost: metrics, the totals of other tools, and common variants of both.

A rule returns the exact number of operations, values or bytes of a record, or None if the record does not determine it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from cspprof.core.cached import cached
from cspprof.core.record import Kind, OpSpec, Record
from cspprof.core.tensors import ITEM_SIZES
from cspprof.metrics import METRICS, Ratio
from cspprof.metrics.conventions import Convention, conventions
from cspprof.metrics.memory import activation_bytes
from cspprof.metrics.weights import WITH_MATRICES
from cspprof.papers.paper_table import Quantity

Value = Callable[[Record], Fraction | None]


@dataclass(frozen=True, slots=True)
class CountingRule:
    """A way to count a cost."""

    name: str
    """The name of a metric or convention, or what is counted."""
    counts: str
    """The definition of the count, in one sentence."""
    value: Value
    common: bool = False
    """Whether the rule is considered at other input sizes too. The rules of many tools at many sizes would explain
    any number."""
    of_input: bool = True
    """Whether the number depends on the input size."""
    per_mac: int = 0
    """The count of one multiply-accumulate (1 or 2), for rules of compute."""


def rules_of(quantity: Quantity) -> list[CountingRule]:
    """The rules for a quantity. Of two rules that explain a number equally well, the first is chosen."""
    return list(_RULES[quantity]())


# -- compute --------------------------------------------------------------------------------------


def _compute_rules() -> Iterator[CountingRule]:
    yield _metric("macs", common=True, per_mac=1)
    yield _metric("flops", common=True, per_mac=2)
    yield _metric("bflops_cspnet", common=True, per_mac=2)
    yield _metric("bflops_darknet", per_mac=2)
    yield CountingRule("MACs of convolutions", "MACs of convolutions only.", _convolution_macs, per_mac=1)
    yield CountingRule(
        "2·MACs of convolutions", "2·MACs of convolutions only.", _times(2, _convolution_macs), per_mac=2
    )
    tools = [c for c in conventions().values() if c.name not in ("macs", "flops", "darknet")]
    yield from map(_tool_rule, tools)
    for c in tools:
        if c.per_mac == 1:
            rule = _tool_rule(c)
            yield CountingRule(f"2·{c.name}", f"Twice the {c.counts} of {c.tool}.", _times(2, rule.value), per_mac=2)


def _tool_rule(c: Convention) -> CountingRule:
    return CountingRule(c.name, c.definition, _total(c.name), per_mac=c.per_mac)


def _convolution_macs(record: Record) -> Fraction | None:
    amount = METRICS.get("conv_share").total(record)
    return Fraction(amount.numerator) if isinstance(amount, Ratio) and not amount.missed else None


# -- values ---------------------------------------------------------------------------------------


def _params_rules() -> Iterator[CountingRule]:
    for name in ("params", "conv_weights", "params_darknet"):
        yield _metric(name, of_input=False)
    for name, counts, value in (
        ("params without norms", "Parameters except those of normalization.", _without(_of_normalization)),
        ("params without biases", "Parameters except biases of convolutions and linear layers.", _without(_is_bias)),
        ("params and buffers", "Parameters, and buffers such as running mean and variance.", _with_buffers),
        ("params without classifier", "Parameters except those of the last linear layer.", _without_classifier),
    ):
        yield CountingRule(name, counts, value, of_input=False)


def _cio_rules() -> Iterator[CountingRule]:
    yield _metric("cio_cspnet", common=True)
    yield _metric("cio_hardnet", common=True)
    yield _metric("cio_all")


def _activation_rules() -> Iterator[CountingRule]:
    yield _metric("activations", common=True)
    yield CountingRule(
        "all outputs", "Output elements of all operations; in-place operations and views add none.",
        lambda record: Fraction(activation_bytes(record), _item_size(record)),
    )  # fmt: skip


def _without(excluded: Callable[[OpSpec, int], bool]) -> Value:
    """The parameters except those that an operation reads as a weight for which `excluded` holds."""
    return lambda record: Fraction(record.params - _elements(record, excluded))


def _elements(record: Record, chosen: Callable[[OpSpec, int], bool]) -> int:
    """Elements of the parameters that operations read as a weight for which `chosen` holds, each parameter once. Its
    arguments are the operation and the position of the weight."""
    parameters = {s.id: s.spec.numel for s in record.storages if s.role == "parameter"}
    found = set()
    for i, at in zip(record.calls.spec, record.offsets, strict=True):
        spec = record.specs[i]
        first = at + len(spec.reads)
        found |= {record.calls.storage[first + n] for n in range(len(spec.weights)) if chosen(spec, n)}
    return sum(parameters[storage] for storage in found if storage in parameters)


def _of_normalization(op: OpSpec, position: int) -> bool:
    return op.kind is Kind.NORM


def _is_bias(op: OpSpec, position: int) -> bool:
    return op.kind in WITH_MATRICES and position > 0 and len(op.weights[position].shape) == 1


def _without_classifier(record: Record) -> Fraction | None:
    """None if the last operation with MACs is no linear layer."""
    computing = [call for call, spec in enumerate(record.calls.spec) if record.specs[spec].macs]
    if not computing or record.specs[record.calls.spec[computing[-1]]].kind is not Kind.LINEAR:
        return None
    read = {*record.storages_read(computing[-1])}
    return Fraction(
        record.params - sum(s.spec.numel for s in record.storages if s.id in read and s.role == "parameter")
    )


def _with_buffers(record: Record) -> Fraction:
    return Fraction(record.params + sum(s.spec.numel for s in record.storages if s.role == "buffer"))


# -- bytes ----------------------------------------------------------------------------------------


def _memory_rules() -> Iterator[CountingRule]:
    """Each rule with the dtype of the record, and if that is float32, with float16."""
    rules = [
        _metric("peak_bytes", common=True),
        CountingRule("weights", "Bytes of the parameters.", _weight_bytes, of_input=False),
        CountingRule(
            "weights and buffers", "Bytes of parameters and buffers, as in a file of weights.", _state_bytes,
            of_input=False,
        ),
        CountingRule(
            "weights and peak", "Bytes of the parameters, and peak_bytes.",
            lambda record: _sum(_weight_bytes(record), _total("peak_bytes")(record)), common=True,
        ),
        CountingRule(
            "all outputs", "Bytes of the outputs of all operations; in-place operations and views add none.",
            lambda record: Fraction(activation_bytes(record)),
        ),
        CountingRule(
            "weights and all outputs", "Bytes of the parameters, and of the outputs of all operations.",
            lambda record: _sum(_weight_bytes(record), Fraction(activation_bytes(record))),
        ),
        CountingRule(
            "Darknet weight file", "Four bytes for each value of params_darknet.",
            _times(4, _total("params_darknet")), of_input=False,
        ),
        _metric("traffic_bytes"),
        _metric("cio_bytes"),
    ]  # fmt: skip
    yield from rules
    for rule in rules:
        yield replace(
            rule, name=f"{rule.name} in float16", counts=f"{rule.counts} With tensors in float16.",
            value=_in_float16(rule.value),
        )  # fmt: skip


def _item_size(record: Record) -> int:
    return ITEM_SIZES.get(record.dtype, 1)


def _weight_bytes(record: Record) -> Fraction:
    return Fraction(record.params * _item_size(record))


def _state_bytes(record: Record) -> Fraction:
    return _weight_bytes(record) + sum(s.spec.nbytes for s in record.storages if s.role == "buffer")


def _in_float16(value: Value) -> Value:
    def halved(record: Record) -> Fraction | None:
        return _times(Fraction(1, 2), value)(record) if record.dtype == "float32" else None

    return halved


# -- totals ---------------------------------------------------------------------------------------

SCALES = {"BFLOPs": 10**9}
"""Units of metrics that are not operations, values or bytes."""


def _metric(name: str, common: bool = False, of_input: bool = True, per_mac: int = 0) -> CountingRule:
    return CountingRule(name, METRICS.get(name).definition, _total(name), common, of_input, per_mac)


def _total(name: str) -> Value:
    """The total of a metric or convention; None if some part of it is unknown."""
    return lambda record: _exact_total(record, name)


@cached
def _exact_total(record: Record, name: str) -> Fraction | None:
    metric = METRICS.get(name)
    amount = metric.total(record)
    exact = None if amount.missed else amount.exact
    return None if exact is None else exact * SCALES.get(metric.unit, 1)


def _times(factor: int | Fraction, value: Value) -> Value:
    def multiplied(record: Record) -> Fraction | None:
        found = value(record)
        return None if found is None else factor * found

    return multiplied


def _sum(*parts: Fraction | None) -> Fraction | None:
    known = [part for part in parts if part is not None]
    return sum(known, Fraction(0)) if len(known) == len(parts) else None


_RULES: dict[Quantity, Callable[[], Iterator[CountingRule]]] = {
    Quantity.PARAMS: _params_rules,
    Quantity.COMPUTE: _compute_rules,
    Quantity.CIO: _cio_rules,
    Quantity.ACTIVATIONS: _activation_rules,
    Quantity.MEMORY: _memory_rules,
}
