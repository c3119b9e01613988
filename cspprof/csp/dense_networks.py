"""The stages of real dense networks, in the parameters of the closed forms: c channels, m layers, growth rate d."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class DenseStage:
    """One dense block."""

    c: int
    """Channels of the base layer."""
    m: int
    """Number of layers."""
    d: int
    """Channels that each layer adds."""
    q: int | None = None
    """Width of a two-way layer's 1×1 convolutions in halves of d."""


@dataclass(frozen=True, slots=True)
class DenseNetwork:
    """A network of dense blocks with a transition after each."""

    name: str
    stem_width: int
    """Channels that the first block reads."""
    depths: tuple[int, ...]
    """Layers of each block."""
    growth: int
    compression: Fraction
    """The part of its input channels that a transition keeps."""
    form: str
    """The closed form of the network's own layers."""
    bottleneck_widths: tuple[int, ...] = ()
    """q of each block, for a network of two-way layers."""

    def stages(self) -> list[DenseStage]:
        stages, width = [], self.stem_width
        for n, depth in enumerate(self.depths):
            q = self.bottleneck_widths[n] if self.bottleneck_widths else None
            stages.append(DenseStage(width, depth, self.growth, q))
            width = int((width + depth * self.growth) * self.compression)
        return stages


NETWORKS = {
    network.name: network
    for network in (
        DenseNetwork("PeleeNet", 32, (3, 4, 8, 6), 32, Fraction(1), "two_way", (1, 2, 4, 4)),
        DenseNetwork("DenseNet-121", 64, (6, 12, 24, 16), 32, Fraction(1, 2), "dense_bottleneck"),
        DenseNetwork("DenseNet-201", 64, (6, 12, 48, 32), 32, Fraction(1, 2), "dense_bottleneck"),
    )
}
"""PeleeNet, Wang et al. 2018, Table 1; DenseNet, Huang et al. 2017, Table 1."""
