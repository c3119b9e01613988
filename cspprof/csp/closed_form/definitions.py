"""The closed forms: dense, harmonic and residual blocks, and the transitions and splits around them.

Every function takes m, the number of layers, as a symbol or a number and returns the layers of the block. The registry
of closed forms and the meaning of the parameters are in `forms`.
"""

from __future__ import annotations

from collections.abc import Callable

import sympy
from sympy import Expr, Symbol, ceiling

from cspprof.core.formulas import harmonic_links, harmonic_width
from cspprof.csp.closed_form.forms import HALF, closed_form
from cspprof.csp.closed_form.layers import (
    MAX_LINKS,
    BlockLayers,
    RepeatedLayers,
    SymbolicLayer,
    a,
    b,
    c,
    conv,
    d,
    g,
    gamma,
    h,
    i,
    link_width,
    m,
    o,
    once,
    q,
    repeated,
    s,
    t,
    transition_pool,
    w,
)

CSPNET = "CSPNet, Wang et al. 2019, section 3"
HARDNET = "HarDNet, Chao et al. 2019, section 4"
RESNET = "ResNet, He et al. 2015"
RESNEXT = "ResNeXt, Xie et al. 2016"

# -- dense blocks: every layer reads the base layer and the output of all layers before it -------------------------

DENSE_INPUT = c + (i - 1) * d
"""Channels that layer i of a dense block reads."""


@closed_form("dense", partial="partial", parameters="c m d", paper=CSPNET)
def dense(depth: Expr) -> BlockLayers:
    """Dense block as the paper counts it: each of m layers is one convolution and adds d channels."""
    return repeated(conv("conv", DENSE_INPUT, d, 3), c_out=c + m * d)(depth)


@closed_form(
    "dense_bottleneck", partial="partial_dense_bottleneck", parameters="c m d", paper="DenseNet, Huang et al. 2017"
)
def dense_bottleneck(depth: Expr) -> BlockLayers:
    """DenseNet's block: each of m layers is a 1×1 convolution to 4·d channels and a 3×3 one to d."""
    return repeated(conv("bottleneck", DENSE_INPUT, 4 * d), conv("conv", 4 * d, d, 3), c_out=c + m * d)(depth)


@closed_form(
    "two_way", partial="partial_two_way", parameters="c m d q", paper="PeleeNet, Wang et al. 2018, section 2.1",
    defaults={"q": sympy.Integer(1)}, conditions=(sympy.Le(q * d, c),),
)  # fmt: skip
def two_way(depth: Expr) -> BlockLayers:
    """PeleeNet's block: each of m layers adds half of d through one 3×3 convolution and half through two."""
    wide, half = q * d / 2, d / 2
    return repeated(
        conv("near", DENSE_INPUT, wide), conv("near", wide, half, 3),
        conv("far", DENSE_INPUT, wide), conv("far", wide, half, 3), conv("far", half, half, 3),
        c_out=c + m * d,
    )(depth)  # fmt: skip


# -- harmonic blocks: layer k reads layer k − 2ⁿ for every n such that 2ⁿ divides k, so each m has its own formula --

MULTIPLIER_DEFAULT = {"r": sympy.Float("1.7")}


def harmonic_widths(growth: int, multiplier: float) -> dict[Symbol, int]:
    """The widths of layers that read 1, 2, 3 … layers."""
    return {link_width(n): harmonic_width(n, growth, multiplier) for n in range(1, MAX_LINKS + 1)}


def _harmonic_block(depth: int, layers: Callable[[int, Expr, Expr], tuple[SymbolicLayer, ...]]) -> BlockLayers:
    """`layers` returns the convolutions of layer k, given k and the channels that it reads and writes."""
    written = [c, *(link_width(len(harmonic_links(k))) for k in range(1, depth + 1))]
    parts = tuple(
        RepeatedLayers(layers(k, sympy.Add(*(written[j] for j in harmonic_links(k))), written[k]))
        for k in range(1, depth + 1)
    )
    outputs = (written[k] for k in range(1, depth + 1) if k == depth or k % 2)
    return BlockLayers(parts, sympy.Add(*outputs))


@closed_form(
    "harmonic", partial="partial_harmonic", parameters="c m d r", paper=HARDNET, defaults=MULTIPLIER_DEFAULT,
    harmonic_widths=harmonic_widths,
)  # fmt: skip
def harmonic(depth: Expr) -> BlockLayers:
    """HarDNet's block of m harmonically linked 3×3 convolutions; a layer that reads n layers writes kₙ channels."""
    return _harmonic_block(int(depth), lambda k, c_in, c_out: (conv(f"{k}: conv", c_in, c_out, 3),))


@closed_form(
    "harmonic_separable", partial="partial_harmonic_separable", parameters="c m d r", paper=HARDNET,
    defaults=MULTIPLIER_DEFAULT, harmonic_widths=harmonic_widths,
)  # fmt: skip
def harmonic_separable(depth: Expr) -> BlockLayers:
    """HarDNet-DS's block: each harmonically linked layer is a 1×1 and a depthwise 3×3 convolution."""

    def layers(k: int, c_in: Expr, c_out: Expr) -> tuple[SymbolicLayer, ...]:
        return conv(f"{k}: conv", c_in, c_out), conv(f"{k}: depthwise", c_out, c_out, 3, groups=c_out)

    return _harmonic_block(int(depth), layers)


# -- residual blocks: the output is as wide as the input, so the same layers repeat ---------------------------------

CARDINALITY = sympy.Integer(32)


def _bottleneck(width: Expr, groups: Expr) -> tuple[SymbolicLayer, ...]:
    return conv("reduce", c, width), conv("conv", width, width, 3, groups=groups), conv("restore", width, c)


@closed_form("residual", partial="partial_residual", parameters="c m", paper=RESNET)
def residual(depth: Expr) -> BlockLayers:
    """Residual blocks without bottleneck: m times two 3×3 convolutions."""
    return repeated(conv("first", c, c, 3), conv("second", c, c, 3), c_out=c)(depth)


@closed_form(
    "residual_bottleneck", partial="partial_residual_bottleneck", parameters="c m b", paper=RESNET,
    defaults={"b": c / 4},
)  # fmt: skip
def residual_bottleneck(depth: Expr) -> BlockLayers:
    """Residual blocks with bottleneck: m times 1×1 to b channels, 3×3, and 1×1 back to c."""
    return repeated(*_bottleneck(b, sympy.S.One), c_out=c)(depth)


@closed_form(
    "residual_darknet", partial="partial_residual_darknet", parameters="c m b",
    paper="YOLOv3, Redmon and Farhadi 2018", defaults={"b": c / 2},
)  # fmt: skip
def residual_darknet(depth: Expr) -> BlockLayers:
    """Darknet's residual blocks: m times 1×1 to b channels and 3×3 back to c."""
    return repeated(conv("reduce", c, b), conv("conv", b, c, 3), c_out=c)(depth)


@closed_form("resnext", partial="partial_resnext", parameters="c m g", paper=RESNEXT, defaults={"g": CARDINALITY})
def resnext(depth: Expr) -> BlockLayers:
    """ResNeXt blocks without bottleneck: m times 1×1, grouped 3×3 and 1×1, all of c channels, as a halved stage has."""
    return repeated(*_bottleneck(c, g), c_out=c)(depth)


@closed_form(
    "resnext_bottleneck", partial="partial_resnext_bottleneck", parameters="c m b g", paper=RESNEXT,
    defaults={"b": c / 2, "g": CARDINALITY},
)  # fmt: skip
def resnext_bottleneck(depth: Expr) -> BlockLayers:
    """ResNeXt blocks with bottleneck: m times 1×1 to b channels, 3×3 in g groups, and 1×1 back to c."""
    return repeated(*_bottleneck(b, g), c_out=c)(depth)


@closed_form("entry", parameters="a c s", paper=RESNET, defaults={"s": sympy.Integer(2)})
def entry(depth: Expr) -> BlockLayers:
    """First block of a residual stage: two 3×3 convolutions, a to c channels, the first with stride s."""
    strided = conv("first", a, c, 3, s)
    return once(strided, conv("second", c, c, 3, size=strided.size_out), c_out=c)


@closed_form(
    "entry_bottleneck", parameters="a c b g s", paper=f"{RESNET}; {RESNEXT}",
    defaults={"b": c / 4, "g": sympy.Integer(1), "s": sympy.Integer(2)},
)  # fmt: skip
def entry_bottleneck(depth: Expr) -> BlockLayers:
    """First bottleneck of a stage: a to c channels, the stride s in the 3×3, in g groups."""
    strided = conv("conv", b, b, 3, s, g)
    return once(conv("reduce", a, b), strided, conv("widen", b, c, size=strided.size_out), c_out=c)


@closed_form("projection", parameters="a c s", paper=RESNET, defaults={"s": sympy.Integer(2)})
def projection(depth: Expr) -> BlockLayers:
    """Shortcut of a stage's first block where it is projected: 1×1, a to c channels, stride s."""
    return once(conv("projection", a, c, 1, s), c_out=c)


# -- transitions and splits of a dense stage: the paper's closed form leaves them out -------------------------------

CSPNET_FIG3 = f"{CSPNET} and Fig. 3"
PROCESSED, BYPASSED = (1 - gamma) * c, gamma * c
DENSE_PATH = PROCESSED + m * d


@closed_form(
    "transition", parameters="c o", paper="DenseNet, Huang et al. 2017; CSPNet's fusion first", defaults={"o": c}
)
def transition(depth: Expr) -> BlockLayers:
    """Transition of a plain stage, or of fusion first: 1×1 from c to o channels, then a 2×2 pool."""
    return once(conv("transition", c, o), transition_pool(o), c_out=o)


@closed_form(
    "transitions_csp", parameters="c m d gamma t o", paper=CSPNET_FIG3,
    defaults={"gamma": HALF, "t": DENSE_PATH, "o": c + m * d},
)  # fmt: skip
def transitions_csp(depth: Expr) -> BlockLayers:
    """The two transitions of fusion csp: 1×1 of the dense path to t, concatenation with γ·c, 2×2 pool, 1×1 to o."""
    last = conv("transition", t + BYPASSED, o, size=(ceiling(h / 2), ceiling(w / 2)))
    return once(conv("block transition", DENSE_PATH, t), transition_pool(t + BYPASSED), last, c_out=o)


@closed_form(
    "transitions_last", parameters="c m d gamma t", paper=CSPNET_FIG3, defaults={"gamma": HALF, "t": DENSE_PATH},
)  # fmt: skip
def transitions_last(depth: Expr) -> BlockLayers:
    """The one transition of fusion last: 1×1 of the dense path to t, concatenation with γ·c, 2×2 pool."""
    return once(conv("block transition", DENSE_PATH, t), transition_pool(t + BYPASSED), c_out=t + BYPASSED)


@closed_form(
    "split", parameters="c gamma", paper="the authors' CSPResNe(X)t-50 and CSPDarknet-53", defaults={"gamma": HALF}
)
def split(depth: Expr) -> BlockLayers:
    """A split by two 1×1 convolutions of the same map, to γ·c and to (1 − γ)·c channels; a slice costs nothing."""
    return once(conv("bypass", c, BYPASSED), conv("main", c, PROCESSED), c_out=c)
