"""What rules look at: one model's numbers and those of its layers, whether traced now or read from a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from cspprof.analysis.layer_rows import Group, by_path
from cspprof.analysis.structural_hash import structural_hash
from cspprof.core.record import Kind, OpSpec, Record
from cspprof.gate.metric_names import matches
from cspprof.metrics import METRICS, Amount, Peak, Sum


@dataclass(frozen=True, slots=True)
class Part:
    """One layer: a row of the profile, by its path."""

    form: str
    """What it does: `conv2d 1x64x56x56 -> 1x64x56x56, kernel 3x3, groups 32`."""
    amounts: Mapping[str, Amount]
    owner: str = ""
    """The class that the layer is written in: its own, or that of the module around it where its own is torch's."""
    file: str = ""
    """Where that class is defined, relative to the project; empty where that is not known."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One model's numbers, exact."""

    name: str
    convention: str
    inputs: tuple[str, ...]
    structure: str
    """A hash of what is computed, in which order and on what, whatever the layers are called."""
    totals: Mapping[str, Amount]
    parts: Mapping[str, Part]
    """Layers by path, in execution order where that is known."""
    uncounted: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    by: str = ""
    """Who recorded it, where that is not `cspprof check`: `pytest`."""

    def total(self, metric: str) -> Fraction | None:
        amount = self.totals.get(metric)
        return None if amount is None else exact(amount)

    def names(self) -> list[str]:
        """Every path that a layer glob can mean: rows, and the modules around them, in order."""
        found: dict[str, None] = {}
        for path in self.parts:
            names = path.split(".")
            found.update(dict.fromkeys(".".join(names[:n]) for n in range(1, len(names) + 1)))
        return list(found)

    def matching(self, glob: str) -> list[str]:
        return [path for path in self.names() if matches(glob, path)]

    def layer(self, path: str, metric: str) -> Fraction | None:
        """The value of a layer and everything in it; None where it has none, or the metric is of whole models."""
        total: Amount | None = None
        for name, part in self.parts.items():
            amount = part.amounts.get(metric)
            if amount is not None and (name == path or name.startswith(path + ".")):
                total = amount if total is None else total + amount  # type: ignore[operator]
        return None if total is None else exact(total)


def exact(amount: Amount) -> Fraction | None:
    """The value without rounding; None for a ratio over nothing."""
    if isinstance(amount, Sum):
        return Fraction(amount.n, amount.scale)
    if isinstance(amount, Peak):
        return Fraction(amount.n)
    return Fraction(amount.numerator, amount.denominator) if amount.denominator else None


def measured(name: str, record: Record, convention: str, layered: Iterable[str] = ()) -> Measured:
    """A profile's numbers: every registered one, and what `layered` names besides, the latter layer by layer."""
    layered = tuple(dict.fromkeys(layered))
    return Measured(
        name,
        convention,
        tuple(f"{'x'.join(map(str, t.shape)) or 'scalar'}:{t.dtype}" for t in record.inputs),
        structural_hash(record),
        {m: METRICS.get(m).total(record) for m in (*METRICS.names(), *layered)},
        _parts(record, layered),
        record.uncounted,
        dict(record.tool),
    )


def _parts(record: Record, layered: Iterable[str]) -> dict[str, Part]:
    owners = _owners(record)
    parts = {}
    for group in by_path(record):
        amounts = {m: a for m in layered if (a := _amount(group, m)) is not None and exact(a)}
        if amounts or group.rows[0].spec.kind is Kind.UNKNOWN:
            owner = owners.get(_module(group.name, owners), "")
            parts[group.name] = Part(form(group.rows[0].spec), amounts, owner, record.sources.get(owner, ""))
    return parts


def _amount(group: Group, metric: str) -> Amount | None:
    if metric == "params":
        return Sum(group.params)
    m = METRICS.get(metric)
    return None if m.of_op is None else m.group_value((r.spec, 1) for r in group.rows)


def _owners(record: Record) -> dict[str, str]:
    """The class that each module is written in: the nearest one, from the module outwards, that is not torch's."""
    owners: dict[str, str] = {}
    for layer in record.layers:
        above = owners.get(layer.path.rpartition(".")[0], "") if layer.path else ""
        owners[layer.path] = above if layer.class_name.startswith("torch.") and above else layer.class_name
    return owners


def _module(path: str, owners: Mapping[str, str]) -> str:
    """The module of a row, whose path may end in the operation's name."""
    return path if path in owners else path.rpartition(".")[0]


def form(spec: OpSpec) -> str:
    """What an operation does, on one line."""
    sides = (", ".join("x".join(map(str, t.shape)) or "scalar" for t in ts) for ts in (spec.reads, spec.writes))
    words = [f"{spec.name.strip('_')} {' -> '.join(sides)}"]
    for name, plain in (("kernel", None), ("stride", 1), ("dilation", 1), ("groups", 1)):
        value = spec.attrs.get(name)
        values = value if isinstance(value, (tuple, list)) else (value,)
        if value is not None and any(v != plain for v in values):
            words.append(f"{name} {'x'.join(map(str, values))}")
    return ", ".join(words)


def chosen(form: str) -> tuple[str, ...]:
    """What a layer decides itself, of its `form`; every other size follows from what it reads.

    A convolution or linear layer decides its width; a depthwise convolution only how many it makes of each channel.

    >>> chosen("conv2d 1x64x56x56 -> 1x128x28x28, kernel 3x3, stride 2x2")
    ('conv2d', '128', 'kernel 3x3', 'stride 2x2')
    >>> chosen("conv2d 1x64x56x56 -> 1x64x56x56, kernel 3x3, groups 64")
    ('conv2d', '1 of each', 'kernel 3x3')
    """
    name, _, rest = form.partition(" ")
    reads, _, writes = rest.partition(" -> ")
    first, *others = writes.split(", ")
    settings = [text for text in others if text[:1].isalpha()]
    before, after = reads.split(", ")[0].split("x"), first.split("x")
    width: list[str] = []
    if name == "linear":
        width = after[-1:]
    elif name.startswith("conv") and min(len(before), len(after)) > 2:
        width = after[1:2]
        if (depthwise := f"groups {before[1]}") in settings:
            settings.remove(depthwise)
            width = [f"{int(after[1]) // int(before[1])} of each"]
    return name, *width, *settings
