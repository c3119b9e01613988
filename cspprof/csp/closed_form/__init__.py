"""Closed forms of what blocks cost, derived layer by layer with sympy, and what their partial twins save. No torch.

CIO of a dense block (CSPNet, Wang et al. 2019, section 3) is w·h·(c·m + (m² + m)·d/2); the form of every other block
comes from its layers in the same way. Importing this room imports sympy.
"""

from __future__ import annotations

from cspprof.csp.closed_form import dense, harmonic, residual, transitions  # noqa: F401 - register themselves
from cspprof.csp.closed_form.forms import FORMS, Form, form
from cspprof.csp.closed_form.numbers import Block, block
from cspprof.csp.closed_form.saving import real_stages, saving, saving_curve

__all__ = ["FORMS", "Block", "Form", "block", "form", "real_stages", "saving", "saving_curve"]
