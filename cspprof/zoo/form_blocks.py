"""The modules that the closed forms of `cspprof.csp.closed_form` describe, built from parts of the zoo.

`build_block` returns the module of a plain form, `build_partial_block` puts it inside a `CrossStagePartial`. A module
takes (N, c, H, W); the first block of a residual stage takes (N, a, H, W). To add a module, decorate its builder with
`form_block`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from torch import nn

from cspprof.core.registry import Registry
from cspprof.zoo.blocks import Basic, Bottleneck, ConvNormAct, Residual, transition_pool
from cspprof.zoo.csp import CrossStagePartial
from cspprof.zoo.densenet import dense_block
from cspprof.zoo.hardnet import HarmonicBlock
from cspprof.zoo.peleenet import DenseBlock, TwoWayLayer


@dataclass(frozen=True, slots=True)
class BlockSizes:
    """The parameters of a closed form, by their names there. Parameters that the form does not have are 0."""

    c: int
    m: int = 0
    d: int = 0
    a: int = 0
    b: int = 0
    g: int = 0
    q: int = 0
    r: float = 0
    s: int = 0
    t: int = 0
    o: int = 0
    gamma: Fraction = Fraction(0)

    @property
    def c_in(self) -> int:
        """Channels of the input."""
        return self.a or self.c

    @property
    def bypass(self) -> int:
        """Channels of c that bypass the block."""
        return int(self.gamma * self.c)

    @property
    def main(self) -> int:
        """Channels of c that run through the block."""
        return self.c - self.bypass


Builder = Callable[[BlockSizes], nn.Module]
BLOCKS: Registry[tuple[Builder, tuple[str, ...]]] = Registry("block")
"""The builder of each plain form, and the names of the submodules that the form counts (empty: all)."""


def form_block(form: str, *counted: str) -> Callable[[Builder], Builder]:
    """Register the decorated builder for a closed form. `counted` names the submodules that the form counts."""

    def register(builder: Builder) -> Builder:
        BLOCKS.add(form, (builder, counted))
        return builder

    return register


def build_block(form: str, sizes: BlockSizes) -> nn.Module:
    """The module of a plain closed form."""
    builder, _ = BLOCKS.get(form)
    return builder(sizes)


def build_partial_block(plain_form: str, sizes: BlockSizes, c_blocks: int) -> nn.Module:
    """The module of `plain_form` on the processed channels, inside a sliced cross-stage-partial stage with both
    transitions. `c_blocks` is the number of channels that the inner module writes."""
    inner = build_block(plain_form, replace(sizes, c=sizes.main, gamma=Fraction(0)))
    return CrossStagePartial(
        sizes.c, sizes.c, bypass=sizes.bypass, main=sizes.main, blocks=inner, c_blocks=c_blocks, split="slice"
    )


def counted_submodules(form: str) -> tuple[str, ...]:
    """The names of the submodules that a form, plain or partial, counts. Empty: all."""
    return BLOCKS.get(form)[1] if form in BLOCKS else ("blocks",)


@form_block("dense")
def _dense(sizes: BlockSizes) -> nn.Module:
    return DenseBlock(sizes.c, sizes.m, lambda c_in: ConvNormAct(c_in, sizes.d, 3), sizes.d)


@form_block("dense_bottleneck")
def _dense_bottleneck(sizes: BlockSizes) -> nn.Module:
    return dense_block(sizes.c, sizes.d, sizes.m)


@form_block("two_way")
def _two_way(sizes: BlockSizes) -> nn.Module:
    return DenseBlock(sizes.c, sizes.m, lambda c_in: TwoWayLayer(c_in, sizes.q, sizes.d, "relu"), sizes.d)


@form_block("harmonic")
def _harmonic(sizes: BlockSizes) -> nn.Module:
    return HarmonicBlock(sizes.c, sizes.d, sizes.r, sizes.m, separable=False)


@form_block("harmonic_separable")
def _harmonic_separable(sizes: BlockSizes) -> nn.Module:
    return HarmonicBlock(sizes.c, sizes.d, sizes.r, sizes.m, separable=True)


@form_block("residual")
def _residual(sizes: BlockSizes) -> nn.Module:
    return nn.Sequential(*(Basic(sizes.c, sizes.c) for _ in range(sizes.m)))


@form_block("residual_bottleneck")
def _residual_bottleneck(sizes: BlockSizes) -> nn.Module:
    return nn.Sequential(*(Bottleneck(sizes.c, sizes.b, sizes.c) for _ in range(sizes.m)))


@form_block("residual_darknet")
def _residual_darknet(sizes: BlockSizes) -> nn.Module:
    return nn.Sequential(*(Residual(sizes.c, sizes.b) for _ in range(sizes.m)))


@form_block("resnext")
def _resnext(sizes: BlockSizes) -> nn.Module:
    return nn.Sequential(*(Bottleneck(sizes.c, sizes.c, sizes.c, groups=sizes.g) for _ in range(sizes.m)))


@form_block("resnext_bottleneck")
def _resnext_bottleneck(sizes: BlockSizes) -> nn.Module:
    return nn.Sequential(*(Bottleneck(sizes.c, sizes.b, sizes.c, groups=sizes.g) for _ in range(sizes.m)))


@form_block("entry")
def _entry(sizes: BlockSizes) -> nn.Module:
    return Basic(sizes.a, sizes.c, sizes.s)


@form_block("entry_bottleneck")
def _entry_bottleneck(sizes: BlockSizes) -> nn.Module:
    return Bottleneck(sizes.a, sizes.b, sizes.c, sizes.s, sizes.g)


@form_block("projection")
def _projection(sizes: BlockSizes) -> nn.Module:
    return ConvNormAct(sizes.a, sizes.c, 1, sizes.s, act=None)


@form_block("transition")
def _transition(sizes: BlockSizes) -> nn.Module:
    return nn.Sequential(ConvNormAct(sizes.c, sizes.o), transition_pool())


@form_block("transitions_csp", "block_transition", "pool", "transition")
def _transitions_csp(sizes: BlockSizes) -> nn.Module:
    return _around_dense(sizes, sizes.o, "csp")


@form_block("transitions_last", "block_transition", "pool")
def _transitions_last(sizes: BlockSizes) -> nn.Module:
    return _around_dense(sizes, sizes.t + sizes.bypass, "last")


@form_block("split", "bypass", "main")
def _split(sizes: BlockSizes) -> nn.Module:
    return CrossStagePartial(
        sizes.c, sizes.c, bypass=sizes.bypass, main=sizes.main, blocks=nn.Identity(), c_blocks=sizes.main
    )


def _around_dense(sizes: BlockSizes, c_out: int, fusion: str) -> nn.Module:
    """A cross-stage-partial dense stage with the transitions of `fusion`."""
    return CrossStagePartial(
        sizes.c, c_out, bypass=sizes.bypass, main=sizes.main, c_blocks=sizes.main + sizes.m * sizes.d,
        c_transition=sizes.t, split="slice",
        blocks=DenseBlock(sizes.main, sizes.m, lambda c_in: ConvNormAct(c_in, sizes.d, 3), sizes.d),
        fusion=fusion, pool=transition_pool(),
    )  # fmt: skip
