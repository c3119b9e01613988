"""Totals that other tools would print for the same model, each computed from the record by a rule written here.

A convention is a metric. It is found by its name (`profile.total("fvcore")`, `--sort fvcore`), but not listed with the
metrics. Some tools see operations: their rule takes an `OpSpec`. Others put hooks on modules of classes that they know:
their rule takes a `HookedModule`. A rule returns the count of the tool, or None if the record does not determine it; a
total with such a part has no value.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from cspprof.core.record import COMPUTE, CONVOLUTIONS, Kind, Layer, OpSpec, Record, TensorSpec
from cspprof.metrics.amounts import Amount, Ratio, Sum
from cspprof.metrics.definition import CONVENTIONS, Metric

F = TypeVar("F", bound=Callable[..., Any])
NO_VALUE = Ratio(0, 0)
"""A total of which some part is unknown."""


@dataclass(frozen=True, slots=True)
class HookedModule:
    """What a hook on a module sees: the operations of all its calls, without those of its submodules."""

    layer: Layer
    ancestors: tuple[str, ...]
    """Classes of the modules around it, from the model inwards."""
    leaf: bool
    """Whether it has no submodules."""
    params: dict[str, TensorSpec]
    """Its own parameters by name. A shared parameter belongs to the first module that has it."""
    buffers: frozenset[str]
    """The names of its own buffers."""
    ops: tuple[OpSpec, ...]
    """In execution order, with views."""

    @property
    def class_name(self) -> str:
        return self.layer.class_name

    def calls(self) -> Iterator[tuple[OpSpec, ...]]:
        """The operations of each call, if all calls ran equally many; else all operations at once."""
        n = max(self.layer.calls, 1)
        per_call, rest = divmod(len(self.ops), n)
        if rest:
            n, per_call = 1, len(self.ops)
        yield from (self.ops[i * per_call : (i + 1) * per_call] for i in range(n))


def hooked_modules(record: Record) -> list[HookedModule]:
    """The modules that ran, in the order of `named_modules`."""
    ops: dict[int, list[OpSpec]] = defaultdict(list)
    for spec, layer in zip(record.calls.spec, record.calls.layer, strict=True):
        ops[layer].append(record.specs[spec])
    params: dict[str, dict[str, TensorSpec]] = defaultdict(dict)
    buffers: dict[str, set[str]] = defaultdict(set)
    for storage in record.storages:
        owner, _, name = storage.name.rpartition(".")
        if storage.role == "parameter":
            params[owner][name] = storage.spec
        elif storage.role == "buffer":
            buffers[owner].add(name)
    classes = {layer.path: layer.class_name for layer in record.layers}
    parents = {path.rpartition(".")[0] for path in classes if path}
    return [
        HookedModule(
            layer, tuple(classes[p] for p in _ancestors(layer.path) if p in classes), layer.path not in parents,
            params[layer.path], frozenset(buffers[layer.path]), tuple(ops[i]),
        )
        for i, layer in enumerate(record.layers)
        if layer.calls
    ]  # fmt: skip


def _ancestors(path: str) -> list[str]:
    """`["", "a", "a.b"]` for `a.b.c`."""
    parts = path.split(".") if path else []
    return [".".join(parts[:n]) for n in range(len(parts))]


@dataclass(frozen=True, slots=True)
class Convention(Metric):
    """The total that another tool prints."""

    tool: str
    """The call that prints it."""
    counts: str
    """The tool's name for its total: MACs, flops, mult-adds."""
    per_mac: int
    """What the tool adds for one multiply-accumulate: 1 or 2."""
    of_module: Callable[[HookedModule], int | None] | None
    validity: str
    """In which cases the rule gives the number of the tool: "for a batch of one"."""
    version: str
    """The version of the tool that the rule follows."""

    def total(self, record: Record) -> Amount:
        """The total of the model, without a value if the rule does not determine some part of it."""
        if self.of_module is None:
            return self.group_value(record.spec_counts)
        return self._sum([self.of_module(m) for m in hooked_modules(record)])

    def group_value(self, specs: Iterable[tuple[OpSpec, int]]) -> Amount:
        """The total of operations given as (spec, number of calls), for a tool that sees operations."""
        return self._sum([None if (n := self.count(spec)) is None else n * calls for spec, calls in specs])

    def _sum(self, counts: list[int | None]) -> Amount:
        return NO_VALUE if None in counts else Sum(sum(n or 0 for n in counts), self.scale)

    def count(self, spec: OpSpec) -> int | None:
        """What the tool adds for one operation; None if that is unknown or the tool sees modules."""
        return None if self.of_op is None else self.of_op(spec)

    def deviations(self, record: Record) -> Counter[str]:
        """The total of the tool minus `per_mac` times the MACs, split by what the tool counts more (positive) or less
        (negative)."""
        if self.of_module is None:
            return self.group_deviations(record.spec_counts)
        parts: Counter[str] = Counter()
        for m in hooked_modules(record):
            macs = sum(spec.macs or 0 for spec in m.ops)
            _add_deviation(parts, m.ops, self.of_module(m) or 0, self.per_mac * macs)
        return parts

    def group_deviations(self, specs: Iterable[tuple[OpSpec, int]]) -> Counter[str]:
        """The deviations of operations given as (spec, number of calls), for a tool that sees operations."""
        parts: Counter[str] = Counter()
        for spec, calls in specs:
            _add_deviation(parts, (spec,), calls * (self.count(spec) or 0), calls * self.per_mac * (spec.macs or 0))
        return parts


def _add_deviation(parts: Counter[str], specs: tuple[OpSpec, ...], count: int, expected: int) -> None:
    if count != expected:
        parts[_part_name(specs, count, expected)] += count - expected


def _part_name(specs: tuple[OpSpec, ...], count: int, expected: int) -> str:
    """A name for the difference between the `count` of a tool and what the MACs make it expect."""
    computing = [s for s in specs if s.kind in COMPUTE]
    spec = next(iter(computing or [s for s in specs if s.kind is not Kind.VIEW] or specs), None)
    if spec is None:
        return "modules without operations"
    kind = spec.kind.value.replace("_", " ")
    if spec.kind in COMPUTE:
        return f"unseen {kind}" if not count else "bias" if count > expected and spec.kind in WITH_BIAS else kind
    if spec.kind in (Kind.ELEMENTWISE, Kind.NORM):
        return spec.name.strip("_").replace("_", " ")
    return _PART_NAMES.get(spec.kind, kind)


WITH_BIAS = CONVOLUTIONS | {Kind.LINEAR, Kind.RECURRENT}
_PART_NAMES = {
    Kind.MAX_POOL: "max pooling",
    Kind.AVG_POOL: "average pooling",
    Kind.ACTIVATION: "activations",
    Kind.REDUCTION: "reductions",
}


def conventions() -> dict[str, Convention]:
    """All conventions by name, in the order of registration."""
    return {name: entry for name, entry in CONVENTIONS.items() if isinstance(entry, Convention)}


def convention_named(name: str) -> Convention:
    """The convention of that name. Raises UnknownNameError."""
    entry = CONVENTIONS.get(name)
    assert isinstance(entry, Convention)
    return entry


def convention(
    name: str, *, tool: str, counts: str, per_mac: int, of: str = "op", validity: str = "", scale: int = 1,
    version: str = "", printed: Callable[[Record], float | None] | None = None,
) -> Callable[[F], F]:  # fmt: skip
    """Register the counting rule of `tool`. The docstring of the decorated function is its definition.

    `version` is that of the tool, `counts` the tool's name for its total, `per_mac` what it adds for one MAC. With
    `of="op"` the function takes an `OpSpec`, with `of="module"` a `HookedModule`. It returns an int, or None if the
    record does not determine it.
    """

    def register(function: F) -> F:
        by_op = of == "op"
        title = counts if counts.lower() == name else f"{name} {counts}"
        CONVENTIONS.add(
            name,
            Convention(
                name, title, f"{per_mac} per MAC", "", "", function if by_op else None,
                None, " ".join((function.__doc__ or "").split()), scale, Sum(0, scale), printed,
                tool, counts, per_mac, None if by_op else function, validity, version,
            ),
        )  # fmt: skip
        return function

    return register
