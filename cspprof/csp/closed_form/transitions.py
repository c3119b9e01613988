"""What stands between dense layers and the next stage: splits and transitions, outside the paper's closed form."""

from __future__ import annotations

from sympy import Expr, ceiling

from cspprof.csp.closed_form.forms import HALF, form
from cspprof.csp.closed_form.layers import Layout, c, conv, d, gamma, h, halving, m, o, once, t, w

PAPER = "CSPNet, Wang et al. 2019, section 3 and Fig. 3"
PROCESSED, BYPASSED = (1 - gamma) * c, gamma * c
DENSE_PATH = PROCESSED + m * d


@form("transition", takes="c o", paper="DenseNet, Huang et al. 2017; CSPNet's fusion first", defaults={"o": c})
def transition(depth: Expr) -> Layout:
    """Transition of a plain stage, or of fusion first: 1×1 from c to o channels, then a 2×2 pool."""
    return once(conv("transition", c, o), halving(o), c_out=o)


@form(
    "transitions_csp", takes="c m d gamma t o", paper=PAPER,
    defaults={"gamma": HALF, "t": DENSE_PATH, "o": c + m * d},
)  # fmt: skip
def transitions_csp(depth: Expr) -> Layout:
    """The two transitions of fusion csp: 1×1 of the dense path to t, concatenation with γ·c, 2×2 pool, 1×1 to o."""
    last = conv("transition", t + BYPASSED, o, size=(ceiling(h / 2), ceiling(w / 2)))
    return once(conv("block transition", DENSE_PATH, t), halving(t + BYPASSED), last, c_out=o)


@form(
    "transitions_last", takes="c m d gamma t", paper=PAPER, defaults={"gamma": HALF, "t": DENSE_PATH},
)  # fmt: skip
def transitions_last(depth: Expr) -> Layout:
    """The one transition of fusion last: 1×1 of the dense path to t, concatenation with γ·c, 2×2 pool."""
    return once(conv("block transition", DENSE_PATH, t), halving(t + BYPASSED), c_out=t + BYPASSED)


@form("split", takes="c gamma", paper="the authors' CSPResNe(X)t-50 and CSPDarknet-53", defaults={"gamma": HALF})
def split(depth: Expr) -> Layout:
    """A split by two 1×1 convolutions of the same map, to γ·c and to (1 − γ)·c channels; a slice costs nothing."""
    return once(conv("bypass", c, BYPASSED), conv("main", c, PROCESSED), c_out=c)
