"""MACs compared, layer by layer, with the counts of torch's FlopCounterMode and of fvcore.

A difference is explained if the convention of the tool (`metrics.conventions`) predicts exactly the tool's count for
the operations of the layer: the reason is then the convention's deviations. Every other difference is unexplained.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from cspprof.core.record import OpSpec, Record
from cspprof.metrics.conventions import Convention, convention_named


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The counts of one tool, or why there are none."""

    tool: str
    """The name of its convention."""
    version: str
    counts: Mapping[str, int] | None
    """By the path of the layer, without its submodules; None if the tool failed."""
    failure: str = ""

    @property
    def convention(self) -> Convention:
        return convention_named(self.tool)


@dataclass(frozen=True, slots=True)
class ToolCount:
    """The count of one tool for one layer, compared with ours."""

    tool: str
    per_mac: int
    macs: int
    """Our MACs of the operations that have a rule."""
    complete: bool
    """Whether every operation of the layer has a rule."""
    count: int
    """The tool's count."""
    predicted: int | None
    """The count that the convention of the tool predicts; None if it predicts none."""
    deviations: Mapping[str, int]
    """What the tool is predicted to count besides MACs."""

    @property
    def agrees(self) -> bool:
        return self.complete and self.count == self.per_mac * self.macs

    @property
    def explained(self) -> bool:
        """Whether the tool agrees or differs as predicted."""
        return self.agrees or self.count == self.predicted

    @property
    def difference(self) -> int:
        """The tool's count minus ours, in the tool's unit."""
        return self.count - self.per_mac * self.macs


@dataclass(frozen=True, slots=True)
class VerifiedLayer:
    """A layer without its submodules, and the count of every tool."""

    path: str
    class_name: str
    macs: int | None
    """Our MACs; None if an operation of the layer has no rule."""
    tool_counts: tuple[ToolCount, ...]

    @property
    def agrees(self) -> bool:
        return all(count.agrees for count in self.tool_counts)

    @property
    def explained(self) -> bool:
        return all(count.explained for count in self.tool_counts)


@dataclass(frozen=True)
class Verification:
    """A record, and the results of the other tools for the same model."""

    record: Record
    results: tuple[ToolResult, ...]

    @cached_property
    def layers(self) -> list[VerifiedLayer]:
        """Every layer that ran an operation or that a tool counts, in the order of `named_modules`."""
        record = self.record
        specs: dict[str, Counter[OpSpec]] = defaultdict(Counter)
        for spec, layer in zip(record.calls.spec, record.calls.layer, strict=True):
            specs[record.layers[layer].path][record.specs[spec]] += 1
        counts = {result.tool: result.counts for result in self.results if result.counts is not None}
        classes = {layer.path: layer.class_name for layer in record.layers}
        unknown = [path for by_path in counts.values() for path, n in by_path.items() if n and path not in classes]
        return [
            _verified_layer(path, classes.get(path, ""), specs[path], counts)
            for path in dict.fromkeys([*classes, *unknown])
            if specs[path] or any(by_path.get(path) for by_path in counts.values())
        ]

    @property
    def unexplained(self) -> list[VerifiedLayer]:
        return [layer for layer in self.layers if not layer.explained]


def _verified_layer(
    path: str, class_name: str, specs: Counter[OpSpec], counts: Mapping[str, Mapping[str, int]]
) -> VerifiedLayer:
    complete = all(spec.macs is not None for spec in specs)
    macs = sum((spec.macs or 0) * n for spec, n in specs.items())
    tool_counts = []
    for tool, by_path in counts.items():
        convention = convention_named(tool)
        predicted = convention.group_value(specs.items()).value
        tool_counts.append(
            ToolCount(
                tool, convention.per_mac, macs, complete, by_path.get(path, 0),
                None if predicted is None else int(predicted), convention.group_deviations(specs.items()),
            )
        )  # fmt: skip
    return VerifiedLayer(path, class_name, macs if complete else None, tuple(tool_counts))
