"""What other tools would print for the same model, each derived by a rule of ours from the same record.

A convention is a number like any other, looked up by its name (`profile.total("fvcore")`, `--sort fvcore`), and left
out of every listing. Tools count in one of two ways. Some see operations: their rule takes an `OpSpec`. Others hang a
hook on modules of classes that they know: their rule takes a `Module`. Either returns the tool's count, or None where
what the tool does cannot be told from the record; a total with such a part has no value.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from cspprof.core.record import COMPUTE, CONVOLUTIONS, Kind, Layer, OpSpec, Record, TensorSpec
from cspprof.metrics import CONVENTIONS, Amount, Metric, Ratio, Sum

F = TypeVar("F", bound=Callable[..., Any])
UNTOLD = Ratio(0, 0)
"""The total that cannot be told."""


@dataclass(frozen=True, slots=True)
class Module:
    """A module as a hook on it sees it: all its calls, with the operations that ran in it and in no submodule."""

    layer: Layer
    around: tuple[str, ...]
    """Classes of the modules that it lies in, the model's own first."""
    leaf: bool
    params: dict[str, TensorSpec]
    """Its own parameters by their own names; one that is shared is with the module that has it first."""
    ops: tuple[OpSpec, ...]
    """In execution order, views among them."""

    @property
    def class_name(self) -> str:
        return self.layer.class_name

    def calls(self) -> Iterator[tuple[OpSpec, ...]]:
        """The operations of each call, where every call ran as many."""
        n = max(self.layer.calls, 1)
        width, rest = divmod(len(self.ops), n)
        if rest:
            n, width = 1, len(self.ops)
        yield from (self.ops[i * width : (i + 1) * width] for i in range(n))


def modules(record: Record) -> list[Module]:
    """The modules that ran, in the order of `named_modules`."""
    ops: dict[int, list[OpSpec]] = defaultdict(list)
    for spec, layer in zip(record.calls.spec, record.calls.layer, strict=True):
        ops[layer].append(record.specs[spec])
    params: dict[str, dict[str, TensorSpec]] = defaultdict(dict)
    for storage in record.storages:
        if storage.role == "parameter":
            owner, _, name = storage.name.rpartition(".")
            params[owner][name] = storage.spec
    classes = {layer.path: layer.class_name for layer in record.layers}
    parents = {path.rpartition(".")[0] for path in classes if path}
    return [
        Module(
            layer, tuple(classes[p] for p in _above(layer.path) if p in classes), layer.path not in parents,
            params[layer.path], tuple(ops[i]),
        )
        for i, layer in enumerate(record.layers)
        if layer.calls
    ]  # fmt: skip


def _above(path: str) -> list[str]:
    parts = path.split(".") if path else []
    return [".".join(parts[:n]) for n in range(len(parts))]


@dataclass(frozen=True, slots=True)
class Convention(Metric):
    """A number in another tool's sense."""

    tool: str
    """The call that prints it."""
    counts: str
    """The tool's own word for what it counts."""
    per_mac: int
    """What the tool adds for one multiply-accumulate: 1 or 2."""
    of_module: Callable[[Module], int | None] | None
    holds: str
    """Where the rule is the tool's, and where it is not."""

    def total(self, record: Record) -> Amount:
        """The model's value; one without a value where the rule cannot tell some part of it."""
        if self.of_module is None:
            return self.over(record.spec_counts)
        return self._sum([self.of_module(m) for m in modules(record)])

    def over(self, specs: Iterable[tuple[OpSpec, int]]) -> Amount:
        """The value of some operations, of a tool that sees operations."""
        return self._sum([None if (n := self.count(spec)) is None else n * k for spec, k in specs])

    def _sum(self, counts: list[int | None]) -> Amount:
        return UNTOLD if None in counts else Sum(sum(n or 0 for n in counts), self.scale)

    def count(self, spec: OpSpec) -> int | None:
        """What the tool adds for one operation; None where that cannot be told, or where it counts by module."""
        return None if self.of_op is None else self.of_op(spec)

    def beside(self, record: Record) -> Counter[str]:
        """What the tool counts more (or, negative, less) than `per_mac` for each MAC, by what it counts."""
        if self.of_module is None:
            return self.beside_of(record.spec_counts)
        parts: Counter[str] = Counter()
        for m in modules(record):
            _add(parts, m.ops, self.of_module(m) or 0, self.per_mac * sum(spec.macs or 0 for spec in m.ops))
        return parts

    def beside_of(self, specs: Iterable[tuple[OpSpec, int]]) -> Counter[str]:
        """The same for some operations, given as (spec, number of calls), of a tool that sees operations."""
        parts: Counter[str] = Counter()
        for spec, n in specs:
            _add(parts, (spec,), n * (self.count(spec) or 0), n * self.per_mac * (spec.macs or 0))
        return parts


def _add(parts: Counter[str], specs: tuple[OpSpec, ...], count: int, macs: int) -> None:
    if count != macs:
        parts[_part(specs, count, macs)] += count - macs


def _part(specs: tuple[OpSpec, ...], count: int, macs: int) -> str:
    """What a tool counted where its `count` is not that of the MACs."""
    computing = [s for s in specs if s.kind in COMPUTE]
    spec = next(iter(computing or [s for s in specs if s.kind is not Kind.VIEW] or specs), None)
    if spec is None:
        return "modules without operations"
    kind = spec.kind.value.replace("_", " ")
    if spec.kind in COMPUTE:
        return f"unseen {kind}" if not count else "bias" if count > macs and spec.kind in BIASED else kind
    if spec.kind in (Kind.ELEMENTWISE, Kind.NORM):
        return spec.name.strip("_").replace("_", " ")
    return _NAMES.get(spec.kind, kind)


BIASED = CONVOLUTIONS | {Kind.LINEAR, Kind.RECURRENT}
_NAMES = {
    Kind.MAX_POOL: "max pooling",
    Kind.AVG_POOL: "average pooling",
    Kind.ACTIVATION: "activations",
    Kind.REDUCTION: "reductions",
}


def conventions() -> dict[str, Convention]:
    """All of them by name, in the order of registration."""
    return {name: entry for name, entry in CONVENTIONS.items() if isinstance(entry, Convention)}


def convention_named(name: str) -> Convention:
    """The convention of that name. Raises UnknownNameError, which suggests."""
    found = CONVENTIONS.get(name)
    assert isinstance(found, Convention)
    return found


def convention(
    name: str, *, tool: str, counts: str, per_mac: int, of: str = "op", holds: str = "", scale: int = 1,
    printed: Callable[[Record], float | None] | None = None,
) -> Callable[[F], F]:  # fmt: skip
    """Register what `tool` counts; the decorated function's docstring says what that is.

    `counts` is the tool's own word for it, `per_mac` what it adds for one MAC. With `of="op"` the function takes an
    `OpSpec`, with `of="module"` a `Module`; it returns an int, or None for what cannot be told.
    """

    def register(function: F) -> F:
        by_op = of == "op"
        title = counts if counts.lower() == name else f"{name} {counts}"
        CONVENTIONS.add(
            name,
            Convention(
                name, title, f"{per_mac} per MAC", "", "", function if by_op else None,
                None, " ".join((function.__doc__ or "").split()), scale, Sum(0, scale), printed,
                tool, counts, per_mac, None if by_op else function, holds,
            ),
        )  # fmt: skip
        return function

    return register
