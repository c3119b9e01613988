"""Residual blocks: the output has the width of the input, so the same layers repeat."""

from __future__ import annotations

import sympy
from sympy import Expr

from cspprof.csp.closed_form.forms import form
from cspprof.csp.closed_form.layers import Layer, Layout, a, b, c, conv, g, h, once, repeated, s, w

RESNET = "ResNet, He et al. 2015"
RESNEXT = "ResNeXt, Xie et al. 2016"
CARDINALITY = sympy.Integer(32)


def _bottleneck(width: Expr, groups: Expr) -> tuple[Layer, ...]:
    return conv("reduce", c, width), conv("conv", width, width, 3, groups=groups), conv("restore", width, c)


@form("residual", partial="partial_residual", takes="c m", paper=RESNET)
def residual(depth: Expr) -> Layout:
    """Residual blocks without bottleneck: m times two 3×3 convolutions."""
    return repeated(conv("first", c, c, 3), conv("second", c, c, 3), c_out=c)(depth)


@form("residual_bottleneck", partial="partial_residual_bottleneck", takes="c m b", paper=RESNET, defaults={"b": c / 4})
def residual_bottleneck(depth: Expr) -> Layout:
    """Residual blocks with bottleneck: m times 1×1 to b channels, 3×3, and 1×1 back to c."""
    return repeated(*_bottleneck(b, sympy.S.One), c_out=c)(depth)


@form(
    "residual_darknet", partial="partial_residual_darknet", takes="c m b", paper="YOLOv3, Redmon and Farhadi 2018",
    defaults={"b": c / 2},
)  # fmt: skip
def residual_darknet(depth: Expr) -> Layout:
    """Darknet's residual blocks: m times 1×1 to b channels and 3×3 back to c."""
    return repeated(conv("reduce", c, b), conv("conv", b, c, 3), c_out=c)(depth)


@form("resnext", partial="partial_resnext", takes="c m g", paper=RESNEXT, defaults={"g": CARDINALITY})
def resnext(depth: Expr) -> Layout:
    """ResNeXt blocks without bottleneck: m times 1×1, grouped 3×3 and 1×1, all of c channels, as a halved stage has."""
    return repeated(*_bottleneck(c, g), c_out=c)(depth)


@form(
    "resnext_bottleneck", partial="partial_resnext_bottleneck", takes="c m b g", paper=RESNEXT,
    defaults={"b": c / 2, "g": CARDINALITY},
)  # fmt: skip
def resnext_bottleneck(depth: Expr) -> Layout:
    """ResNeXt blocks with bottleneck: m times 1×1 to b channels, 3×3 in g groups, and 1×1 back to c."""
    return repeated(*_bottleneck(b, g), c_out=c)(depth)


@form("entry", takes="a c s", paper=RESNET, defaults={"s": sympy.Integer(2)})
def entry(depth: Expr) -> Layout:
    """First block of a residual stage: two 3×3 convolutions, a to c channels, the first with stride s."""
    return once(conv("first", a, c, 3, s), conv("second", c, c, 3, size=_strided()), c_out=c)


@form(
    "entry_bottleneck", takes="a c b g s", paper=f"{RESNET}; {RESNEXT}",
    defaults={"b": c / 4, "g": sympy.Integer(1), "s": sympy.Integer(2)},
)  # fmt: skip
def entry_bottleneck(depth: Expr) -> Layout:
    """First bottleneck of a stage: a to c channels, the stride s in the 3×3, in g groups."""
    strided = conv("conv", b, b, 3, s, g)
    return once(conv("reduce", a, b), strided, conv("widen", b, c, size=strided.size_out), c_out=c)


@form("projection", takes="a c s", paper=RESNET, defaults={"s": sympy.Integer(2)})
def projection(depth: Expr) -> Layout:
    """Shortcut of a stage's first block where it is projected: 1×1, a to c channels, stride s."""
    return once(conv("projection", a, c, 1, s), c_out=c)


def _strided() -> tuple[Expr, Expr]:
    return sympy.ceiling(h / s), sympy.ceiling(w / s)
