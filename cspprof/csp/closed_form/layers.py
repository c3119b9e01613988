"""The layers of a block with symbolic widths, and the sums of their costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import sympy
from sympy import Expr, Symbol, ceiling

Values = Mapping[Symbol, Expr]


def _whole(names: str) -> list[Symbol]:
    return [Symbol(name, integer=True, positive=True) for name in names.split()]


a, b, c, d, g, h, i, m, o, q, s, t, w = _whole("a b c d g h i m o q s t w")
gamma = Symbol("gamma", positive=True)
rho = Symbol("rho", positive=True)
"""c/(m·d)."""


MAX_LINKS = 16
"""The 2¹⁵th layer of a harmonic block reads 16 layers: more than any layer of a real block."""


def link_width(links: int) -> Symbol:
    """The width of a harmonic layer that reads `links` layers."""
    return Symbol(f"k_{links}", integer=True, positive=True)


@dataclass(frozen=True, slots=True)
class SymbolicLayer:
    """A convolution or a pool on one image: (c_in, height, width) -> (c_out, ⌈height/stride⌉, ⌈width/stride⌉).

    Padding keeps the resolution at stride 1. Widths and sizes are expressions. In a repeated layer they may contain i,
    the number of the repetition, which starts at 1.
    """

    name: str
    c_in: Expr
    c_out: Expr
    kernel: int = 1
    stride: Expr = sympy.S.One
    groups: Expr = sympy.S.One
    size: tuple[Expr, Expr] = (h, w)
    """Height and width of the input map."""
    pool: bool = False

    @property
    def size_out(self) -> tuple[Expr, Expr]:
        height, width = self.size
        return ceiling(height / self.stride), ceiling(width / self.stride)

    @property
    def cio_cspnet(self) -> Expr:
        """Elements read plus elements written."""
        (height, width), (height_out, width_out) = self.size, self.size_out
        return self.c_in * height * width + self.c_out * height_out * width_out

    @property
    def cio_hardnet(self) -> Expr:
        """The same for a convolution; 0 for a pool."""
        return sympy.S.Zero if self.pool else self.cio_cspnet

    @property
    def conv_weights(self) -> Expr:
        return sympy.S.Zero if self.pool else self.kernel**2 * self.c_in * self.c_out / self.groups

    @property
    def macs(self) -> Expr:
        height, width = self.size_out
        return self.conv_weights * height * width

    def substitute(self, values: Values) -> SymbolicLayer:
        c_in, c_out, stride, groups, height, width = (
            x.xreplace(values) for x in (self.c_in, self.c_out, self.stride, self.groups, *self.size)
        )
        return replace(self, c_in=c_in, c_out=c_out, stride=stride, groups=groups, size=(height, width))


COSTS = {"cio_hardnet": "CIO (HarDNet)", "cio_cspnet": "CIO (CSPNet)", "macs": "MACs", "conv_weights": "weights"}
"""The costs of a layer: attribute of `SymbolicLayer` and name of the metric, and heading in a table."""


def conv(
    name: str, c_in: Expr, c_out: Expr, kernel: int = 1, stride: Expr = sympy.S.One, groups: Expr = sympy.S.One,
    size: tuple[Expr, Expr] = (h, w),
) -> SymbolicLayer:  # fmt: skip
    """A kernel×kernel convolution."""
    return SymbolicLayer(f"{name} {kernel}×{kernel}".lstrip(), c_in, c_out, kernel, stride, groups, size)


def transition_pool(channels: Expr) -> SymbolicLayer:
    """The 2×2 pool of stride 2 that ends a transition. An odd height or width is rounded up."""
    return SymbolicLayer("pool 2×2", channels, channels, 2, sympy.Integer(2), pool=True)


@dataclass(frozen=True, slots=True)
class RepeatedLayers:
    """Layers that run one after another, `count` times."""

    layers: tuple[SymbolicLayer, ...]
    count: Expr = sympy.S.One

    def series(self, term: Expr) -> Expr:
        """The sum of `term` over the repetitions, not evaluated."""
        return sympy.Sum(term, (i, 1, self.count))

    def evaluated_sum(self, term: Expr) -> Expr:
        """The sum of `term` over the repetitions. sympy adds powers of i at once but takes long for a product, so each
        summand of the expanded term is summed by itself."""
        return sympy.Add(*(self.series(x).doit() for x in sympy.Add.make_args(sympy.expand(term))))


@dataclass(frozen=True, slots=True)
class BlockLayers:
    """All layers of a block in execution order."""

    parts: tuple[RepeatedLayers, ...]
    c_out: Expr
    """Channels of the block's output."""

    def total(self, cost: str) -> Expr:
        """The sum of a cost over all layers, with every sum over repetitions evaluated."""
        terms = [(part, getattr(layer, cost)) for part in self.parts for layer in part.layers]
        return sympy.Add(*(part.evaluated_sum(term) for part, term in terms))

    def substitute(self, values: Values) -> BlockLayers:
        parts = tuple(
            RepeatedLayers(tuple(layer.substitute(values) for layer in p.layers), p.count.xreplace(values))
            for p in self.parts
        )
        return BlockLayers(parts, self.c_out.xreplace(values))

    def layer_count(self, values: Values) -> int:
        """The number of layers, with repetitions."""
        return sum(len(part.layers) * int(part.count.xreplace(values)) for part in self.parts)

    def in_numbers(self, values: Values) -> Iterator[SymbolicLayer]:
        """Every layer in execution order, with a number for every symbol."""
        for part in self.substitute(values).parts:
            for n in range(1, int(part.count) + 1):
                for layer in part.layers:
                    named = replace(layer, name=f"{n}: {layer.name}") if part.count != 1 else layer
                    yield named.substitute({i: sympy.Integer(n)})


def repeated(*layers: SymbolicLayer, c_out: Expr) -> Callable[[Expr], BlockLayers]:
    """A function of m that returns a block of the same layers, repeated m times."""
    return lambda depth: BlockLayers((RepeatedLayers(layers, depth),), c_out.subs(m, depth))


def once(*layers: SymbolicLayer, c_out: Expr) -> BlockLayers:
    """A block in which each layer runs once."""
    return BlockLayers((RepeatedLayers(layers),), c_out)
