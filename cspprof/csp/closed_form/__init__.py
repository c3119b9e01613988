"""Closed forms: what a block costs as a formula, derived layer by layer with sympy, and what its partial twin saves.

The CIO of a dense block (CSPNet, Wang et al. 2019, section 3) is w·h·(c·m + (m² + m)·d/2). The closed form of every
other block is derived from its layers in the same way. Importing this package imports sympy, never torch.
"""

from __future__ import annotations

from cspprof.csp.closed_form import definitions  # noqa: F401 - registers the closed forms
from cspprof.csp.closed_form.forms import CLOSED_FORMS, ClosedForm, closed_form
from cspprof.csp.closed_form.saving import network_savings, saving, saving_curve
from cspprof.csp.closed_form.sized_block import SizedBlock, sized_block

__all__ = [
    "CLOSED_FORMS",
    "ClosedForm",
    "SizedBlock",
    "closed_form",
    "network_savings",
    "saving",
    "saving_curve",
    "sized_block",
]
