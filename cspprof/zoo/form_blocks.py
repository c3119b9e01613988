"""The very blocks that `cspprof.csp.closed_form` has formulas for, made of the zoo's own parts.

A builder takes the form's whole-numbered parameters by name and returns a module that reads (N, c, H, W) (a residual
entry: (N, a, H, W)). The partial twin of a form is its block inside a `CrossStagePartial`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from cspprof.core.registry import Registry
from cspprof.zoo.blocks import Basic, Bottleneck, ConvNormAct, Residual
from cspprof.zoo.csp import CrossStagePartial
from cspprof.zoo.densenet import dense_block
from cspprof.zoo.hardnet import HarmonicBlock
from cspprof.zoo.peleenet import DenseBlock, TwoWayLayer

Builder = Callable[["Sizes"], nn.Module]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers for a block; those that its form does not have are 0."""

    c: int
    m: int = 0
    d: int = 0
    a: int = 0
    b: int = 0
    g: int = 0
    q: int = 0
    s: int = 0
    t: int = 0
    o: int = 0
    bypass: int = 0
    """Channels of c that bypass the block: γ·c."""
    multiplier: float = 1.7
    """Of a harmonic layer's width."""

    @property
    def main(self) -> int:
        return self.c - self.bypass


BLOCKS: Registry[tuple[Builder, tuple[str, ...]]] = Registry("block")
"""By the name of the plain form: what builds it, and the submodules that the form counts (none named: all)."""


def block(name: str, *parts: str) -> Callable[[Builder], Builder]:
    """Register the decorated builder for a form."""

    def register(builder: Builder) -> Builder:
        BLOCKS.add(name, (builder, parts))
        return builder

    return register


def partial(builder: Builder, n: Sizes, plain: Sizes, c_blocks: int) -> nn.Module:
    """The block of `plain`, which reads the processed channels and gives `c_blocks`, in a sliced cross-stage-partial
    stage with both transitions."""
    return CrossStagePartial(
        n.c, n.c, bypass=n.bypass, main=n.main, blocks=builder(plain), c_blocks=c_blocks, split="slice"
    )


PARTIAL_PARTS = ("blocks",)


@block("dense")
def _dense(n: Sizes) -> nn.Module:
    return DenseBlock(n.c, n.m, lambda c_in: ConvNormAct(c_in, n.d, 3), n.d)


@block("dense_bottleneck")
def _dense_bottleneck(n: Sizes) -> nn.Module:
    return dense_block(n.c, n.d, n.m)


@block("two_way")
def _two_way(n: Sizes) -> nn.Module:
    return DenseBlock(n.c, n.m, lambda c_in: TwoWayLayer(c_in, n.q, n.d, "relu"), n.d)


@block("harmonic")
def _harmonic(n: Sizes) -> nn.Module:
    return HarmonicBlock(n.c, n.d, n.multiplier, n.m, separable=False)


@block("harmonic_separable")
def _harmonic_separable(n: Sizes) -> nn.Module:
    return HarmonicBlock(n.c, n.d, n.multiplier, n.m, separable=True)


@block("residual")
def _residual(n: Sizes) -> nn.Module:
    return nn.Sequential(*(Basic(n.c, n.c) for _ in range(n.m)))


@block("residual_bottleneck")
def _residual_bottleneck(n: Sizes) -> nn.Module:
    return nn.Sequential(*(Bottleneck(n.c, n.b, n.c) for _ in range(n.m)))


@block("residual_darknet")
def _residual_darknet(n: Sizes) -> nn.Module:
    return nn.Sequential(*(Residual(n.c, n.b) for _ in range(n.m)))


@block("resnext")
def _resnext(n: Sizes) -> nn.Module:
    return nn.Sequential(*(Bottleneck(n.c, n.c, n.c, groups=n.g) for _ in range(n.m)))


@block("resnext_bottleneck")
def _resnext_bottleneck(n: Sizes) -> nn.Module:
    return nn.Sequential(*(Bottleneck(n.c, n.b, n.c, groups=n.g) for _ in range(n.m)))


@block("entry")
def _entry(n: Sizes) -> nn.Module:
    return Basic(n.a, n.c, n.s)


@block("entry_bottleneck")
def _entry_bottleneck(n: Sizes) -> nn.Module:
    return Bottleneck(n.a, n.b, n.c, n.s, n.g)


@block("projection")
def _projection(n: Sizes) -> nn.Module:
    return ConvNormAct(n.a, n.c, 1, n.s, act=None)


@block("transition")
def _transition(n: Sizes) -> nn.Module:
    return nn.Sequential(ConvNormAct(n.c, n.o), _pool())


@block("transitions_csp", "block_transition", "pool", "transition")
def _transitions_csp(n: Sizes) -> nn.Module:
    return _around_dense(n, n.o, "csp")


@block("transitions_last", "block_transition", "pool")
def _transitions_last(n: Sizes) -> nn.Module:
    return _around_dense(n, n.t + n.bypass, "last")


@block("split", "bypass", "main")
def _split(n: Sizes) -> nn.Module:
    return CrossStagePartial(n.c, n.c, bypass=n.bypass, main=n.main, blocks=nn.Identity(), c_blocks=n.main)


def _around_dense(n: Sizes, c_out: int, fusion: str) -> nn.Module:
    """A partial dense stage whose transitions are those asked for."""
    return CrossStagePartial(
        n.c, c_out, bypass=n.bypass, main=n.main, c_blocks=n.main + n.m * n.d, c_transition=n.t, split="slice",
        blocks=DenseBlock(n.main, n.m, lambda c_in: ConvNormAct(c_in, n.d, 3), n.d),
        fusion=fusion, pool=_pool(),
    )  # fmt: skip


def _pool() -> nn.Module:
    return nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)


def build_block(form: str, sizes: Sizes, base: str = "", c_out: int = 0) -> tuple[nn.Module, tuple[str, ...]]:
    """The block of a closed form, and the names of the submodules that the form counts (empty: all).

    For a partial form `base` names its plain form, and `c_out` is the number of channels that the inner block writes.
    """
    builder, parts = BLOCKS.get(base or form)
    if not base:
        return builder(sizes), parts
    plain = replace(sizes, c=sizes.main, bypass=0)
    return partial(builder, sizes, plain, c_out), PARTIAL_PARTS
