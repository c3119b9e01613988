"""The stages of real dense networks, as the closed form takes them: c channels, m layers, growth rate d."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class DenseStage:
    """A dense block."""

    c: int
    """Channels of its base layer."""
    m: int
    """Layers."""
    d: int
    """Channels that a layer adds."""
    q: int | None = None
    """Of two-way layers: the width of the 1×1 convolutions in halves of d."""


@dataclass(frozen=True, slots=True)
class Network:
    """What the first stage reads, layers in each, and the part of the width that a transition keeps."""

    name: str
    width: int
    depths: tuple[int, ...]
    growth: int
    kept: Fraction
    form: str
    """The closed form of its own layers."""
    widening: tuple[int, ...] = ()
    """q of each stage, of a two-way network."""

    def stages(self) -> list[DenseStage]:
        found, width = [], self.width
        for n, depth in enumerate(self.depths):
            found.append(DenseStage(width, depth, self.growth, self.widening[n] if self.widening else None))
            width = int((width + depth * self.growth) * self.kept)
        return found


NETWORKS = {
    network.name: network
    for network in (
        Network("PeleeNet", 32, (3, 4, 8, 6), 32, Fraction(1), "two_way", (1, 2, 4, 4)),
        Network("DenseNet-121", 64, (6, 12, 24, 16), 32, Fraction(1, 2), "dense_bottleneck"),
        Network("DenseNet-201", 64, (6, 12, 48, 32), 32, Fraction(1, 2), "dense_bottleneck"),
    )
}
"""PeleeNet, Wang et al. 2018, Table 1; DenseNet, Huang et al. 2017, Table 1."""
