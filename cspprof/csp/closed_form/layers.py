"""Symbols, layers of symbolic width, and what follows from them by summation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import sympy
from sympy import Expr, Symbol, ceiling

Exprs = Mapping[Symbol, Expr]


def _whole(names: str) -> list[Symbol]:
    return [Symbol(name, integer=True, positive=True) for name in names.split()]


a, b, c, d, g, h, i, m, o, q, s, t, w = _whole("a b c d g h i m o q s t w")
gamma = Symbol("gamma", positive=True)
rho = Symbol("rho", positive=True)
"""c/(m·d)."""


LINKS = 16
"""More than a harmonic layer of any block has: the 2¹⁵th reads 16."""


def link_width(links: int) -> Symbol:
    """Width of a harmonic layer that reads so many layers."""
    return Symbol(f"k_{links}", integer=True, positive=True)


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or a pool on one image: (c_in, height, width) -> (c_out, ⌈height/stride⌉, ⌈width/stride⌉).

    Padding keeps the resolution at stride 1. Widths and sizes are expressions, in which i counts repetitions from 1.
    """

    name: str
    c_in: Expr
    c_out: Expr
    kernel: int = 1
    stride: Expr = sympy.S.One
    groups: Expr = sympy.S.One
    size: tuple[Expr, Expr] = (h, w)
    """Height and width of what it reads."""
    pool: bool = False

    @property
    def size_out(self) -> tuple[Expr, Expr]:
        height, width = self.size
        return ceiling(height / self.stride), ceiling(width / self.stride)

    @property
    def cio_cspnet(self) -> Expr:
        """Elements read and written."""
        (height, width), (height_out, width_out) = self.size, self.size_out
        return self.c_in * height * width + self.c_out * height_out * width_out

    @property
    def cio_hardnet(self) -> Expr:
        """The same, of convolutions only."""
        return sympy.S.Zero if self.pool else self.cio_cspnet

    @property
    def conv_weights(self) -> Expr:
        return sympy.S.Zero if self.pool else self.kernel**2 * self.c_in * self.c_out / self.groups

    @property
    def macs(self) -> Expr:
        height, width = self.size_out
        return self.conv_weights * height * width

    def at(self, values: Exprs) -> Layer:
        """With the values put in."""
        c_in, c_out, stride, groups, height, width = (
            x.xreplace(values) for x in (self.c_in, self.c_out, self.stride, self.groups, *self.size)
        )
        return replace(self, c_in=c_in, c_out=c_out, stride=stride, groups=groups, size=(height, width))


QUANTITIES = {"cio_hardnet": "CIO (HarDNet)", "cio_cspnet": "CIO (CSPNet)", "macs": "MACs", "conv_weights": "weights"}
"""What a layer's costs are called, as registered numbers are, and how they are headed."""


def conv(
    name: str, c_in: Expr, c_out: Expr, kernel: int = 1, stride: Expr = sympy.S.One, groups: Expr = sympy.S.One,
    size: tuple[Expr, Expr] = (h, w),
) -> Layer:  # fmt: skip
    """A kernel×kernel convolution."""
    return Layer(f"{name} {kernel}×{kernel}".lstrip(), c_in, c_out, kernel, stride, groups, size)


def halving(channels: Expr) -> Layer:
    """The 2×2 pool of a transition: an odd row or column counts as a whole one."""
    return Layer("pool 2×2", channels, channels, 2, sympy.Integer(2), pool=True)


@dataclass(frozen=True, slots=True)
class Part:
    """Layers that run one after another, `count` times."""

    layers: tuple[Layer, ...]
    count: Expr = sympy.S.One

    def series(self, term: Expr) -> Expr:
        """The sum over the repetitions, not evaluated."""
        return sympy.Sum(term, (i, 1, self.count))

    def sum_of(self, term: Expr) -> Expr:
        """The sum over the repetitions, summand by summand: powers of i sympy adds up at once, of a product it searches
        the sum for long."""
        return sympy.Add(*(self.series(x).doit() for x in sympy.Add.make_args(sympy.expand(term))))


@dataclass(frozen=True, slots=True)
class Layout:
    """All layers of a block in the order in which they run."""

    parts: tuple[Part, ...]
    c_out: Expr
    """Channels that the block gives on."""

    def total(self, quantity: str) -> Expr:
        """The sum of a quantity over all layers, each sum over repetitions evaluated."""
        terms = [(part, getattr(layer, quantity)) for part in self.parts for layer in part.layers]
        return sympy.Add(*(part.sum_of(term) for part, term in terms))

    def at(self, values: Exprs) -> Layout:
        parts = tuple(Part(tuple(x.at(values) for x in p.layers), p.count.xreplace(values)) for p in self.parts)
        return Layout(parts, self.c_out.xreplace(values))

    def length(self, values: Exprs) -> int:
        """How many layers run."""
        return sum(len(part.layers) * int(part.count.xreplace(values)) for part in self.parts)

    def expanded(self, values: Exprs) -> Iterator[Layer]:
        """Every layer with every number put in, in the order in which they run."""
        for part in self.at(values).parts:
            for n in range(1, int(part.count) + 1):
                for layer in part.layers:
                    named = replace(layer, name=f"{n}: {layer.name}") if part.count != 1 else layer
                    yield named.at({i: sympy.Integer(n)})


def repeated(*layers: Layer, c_out: Expr) -> Callable[[Expr], Layout]:
    """A block of the same layers m times over."""
    return lambda depth: Layout((Part(layers, depth),), c_out.subs(m, depth))


def once(*layers: Layer, c_out: Expr) -> Layout:
    return Layout((Part(layers),), c_out)
