"""Dense blocks: every layer reads the base layer and whatever the layers before it have added."""

from __future__ import annotations

import sympy
from sympy import Expr

from cspprof.csp.closed_form.forms import form
from cspprof.csp.closed_form.layers import Layout, c, conv, d, i, m, q, repeated

READS = c + (i - 1) * d


@form("dense", partial="partial", takes="c m d", paper="CSPNet, Wang et al. 2019, section 3")
def dense(depth: Expr) -> Layout:
    """Dense block as the paper counts it: each of m layers is one convolution and adds d channels."""
    return repeated(conv("conv", READS, d, 3), c_out=c + m * d)(depth)


@form("dense_bottleneck", partial="partial_dense_bottleneck", takes="c m d", paper="DenseNet, Huang et al. 2017")
def dense_bottleneck(depth: Expr) -> Layout:
    """DenseNet's block: each of m layers is a 1×1 convolution to 4·d channels and a 3×3 one to d."""
    return repeated(conv("bottleneck", READS, 4 * d), conv("conv", 4 * d, d, 3), c_out=c + m * d)(depth)


@form(
    "two_way", partial="partial_two_way", takes="c m d q", paper="PeleeNet, Wang et al. 2018, section 2.1",
    defaults={"q": sympy.Integer(1)}, holds=(sympy.Le(q * d, c),),
)  # fmt: skip
def two_way(depth: Expr) -> Layout:
    """PeleeNet's block: each of m layers adds half of d through one 3×3 convolution and half through two."""
    wide, half = q * d / 2, d / 2
    return repeated(
        conv("near", READS, wide), conv("near", wide, half, 3),
        conv("far", READS, wide), conv("far", wide, half, 3), conv("far", half, half, 3),
        c_out=c + m * d,
    )(depth)  # fmt: skip
