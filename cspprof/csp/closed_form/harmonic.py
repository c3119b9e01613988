"""HarDNet's blocks: layer k reads layer k − 2ⁿ for every n with 2ⁿ | k, so every m has a form of its own."""

from __future__ import annotations

from collections.abc import Callable

import sympy
from sympy import Expr, Symbol

from cspprof.core.formulas import harmonic_links, harmonic_width
from cspprof.csp.closed_form.forms import form
from cspprof.csp.closed_form.layers import LINKS, Layer, Layout, Part, c, conv, link_width

PAPER = "HarDNet, Chao et al. 2019, section 4"
DEFAULTS = {"r": sympy.Float("1.7")}


def widths(growth: int, multiplier: float) -> dict[Symbol, int]:
    """The width of layers that read 1, 2, 3 … layers."""
    return {link_width(n): harmonic_width(n, growth, multiplier) for n in range(1, LINKS + 1)}


def _layout(m: int, layers: Callable[[int, Expr, Expr], tuple[Layer, ...]]) -> Layout:
    written = [c, *(link_width(len(harmonic_links(k))) for k in range(1, m + 1))]
    parts = tuple(
        Part(layers(k, sympy.Add(*(written[j] for j in harmonic_links(k))), written[k])) for k in range(1, m + 1)
    )
    kept = (written[k] for k in range(1, m + 1) if k == m or k % 2)
    return Layout(parts, sympy.Add(*kept))


@form("harmonic", partial="partial_harmonic", takes="c m d r", paper=PAPER, defaults=DEFAULTS, widths=widths)
def harmonic(depth: Expr) -> Layout:
    """HarDNet's block of m harmonically linked 3×3 convolutions; a layer that reads n layers writes kₙ channels."""
    return _layout(int(depth), lambda k, c_in, c_out: (conv(f"{k}: conv", c_in, c_out, 3),))


@form(
    "harmonic_separable", partial="partial_harmonic_separable", takes="c m d r", paper=PAPER, defaults=DEFAULTS,
    widths=widths,
)  # fmt: skip
def harmonic_separable(depth: Expr) -> Layout:
    """HarDNet-DS's block: each harmonically linked layer is a 1×1 and a depthwise 3×3 convolution."""

    def layers(k: int, c_in: Expr, c_out: Expr) -> tuple[Layer, ...]:
        return conv(f"{k}: conv", c_in, c_out), conv(f"{k}: depthwise", c_out, c_out, 3, groups=c_out)

    return _layout(int(depth), layers)
