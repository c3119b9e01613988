"""A second opinion, layer by layer: our MACs beside what fvcore and torch's own counter say, each difference named.

A difference is explained when the rule that we have of the tool (`metrics.conventions`) gives, for the operations that
ran in the layer, exactly the tool's number: then the rule's parts are the reason. Whatever else differs is not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from cspprof.core.record import OpSpec, Record
from cspprof.metrics.conventions import Convention, convention_named

TOOLS = ("flop_counter", "fvcore")


@dataclass(frozen=True, slots=True)
class ToolResult:
    """One tool's answer, or why it has none."""

    tool: str
    """The name of its convention."""
    version: str
    counts: Mapping[str, int] | None
    """By the path of the layer, submodules left out."""
    failure: str = ""

    @property
    def convention(self) -> Convention:
        return convention_named(self.tool)


@dataclass(frozen=True, slots=True)
class Finding:
    """A tool's count of one layer beside ours."""

    tool: str
    per_mac: int
    macs: int
    """Ours, of the operations that have a rule."""
    complete: bool
    """Whether all of the layer have one."""
    count: int
    """The tool's."""
    predicted: int | None
    """What the rule that we have of the tool gives; None where that cannot tell."""
    parts: Mapping[str, int]
    """What the tool is predicted to count beside the MACs."""

    @property
    def agrees(self) -> bool:
        return self.complete and self.count == self.per_mac * self.macs

    @property
    def explained(self) -> bool:
        """Whether the tools agree, or differ as predicted."""
        return self.agrees or self.count == self.predicted

    @property
    def difference(self) -> int:
        """The tool's count less ours, in the tool's unit."""
        return self.count - self.per_mac * self.macs


@dataclass(frozen=True, slots=True)
class Checked:
    """A layer, with every tool's finding on what ran in it and in none of its submodules."""

    path: str
    class_name: str
    macs: int | None
    """Ours; None where an operation of the layer has no rule."""
    findings: tuple[Finding, ...]

    @property
    def agrees(self) -> bool:
        return all(f.agrees for f in self.findings)

    @property
    def explained(self) -> bool:
        return all(f.explained for f in self.findings)


@dataclass(frozen=True)
class Verification:
    """A profile and what the tools say of the same model."""

    profile: Record
    opinions: tuple[ToolResult, ...]

    @cached_property
    def layers(self) -> list[Checked]:
        """Every layer in which something ran, in the order of `named_modules`."""
        heard = [o for o in self.opinions if o.counts is not None]
        ran: dict[str, Counter[OpSpec]] = defaultdict(Counter)
        for spec, layer in zip(self.profile.calls.spec, self.profile.calls.layer, strict=True):
            ran[self.profile.layers[layer].path][self.profile.specs[spec]] += 1
        classes = {layer.path: layer.class_name for layer in self.profile.layers}
        elsewhere = [path for o in heard for path, n in (o.counts or {}).items() if n and path not in classes]
        return [
            _checked(path, classes.get(path, ""), ran[path], heard)
            for path in dict.fromkeys([*classes, *elsewhere])
            if ran[path] or any((o.counts or {}).get(path) for o in heard)
        ]

    @property
    def unexplained(self) -> list[Checked]:
        return [layer for layer in self.layers if not layer.explained]


def _checked(path: str, class_name: str, ran: Counter[OpSpec], heard: list[ToolResult]) -> Checked:
    complete = all(spec.macs is not None for spec in ran)
    macs = sum((spec.macs or 0) * n for spec, n in ran.items())
    findings = []
    for opinion in heard:
        c = opinion.convention
        predicted = c.group_value(ran.items()).value
        findings.append(
            Finding(
                opinion.tool, c.per_mac, macs, complete, (opinion.counts or {}).get(path, 0),
                None if predicted is None else int(predicted), c.group_deviations(ran.items()),
            )
        )  # fmt: skip
    return Checked(path, class_name, macs if complete else None, tuple(findings))
