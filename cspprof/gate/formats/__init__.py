"""Verdicts in the formats of CI systems: one file for each. (Tables of a verdict are made in `gate.report`.)

To add a format, add a file to this folder with a function `(Verdict) -> str`, decorated with `verdict_format`.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from cspprof.gate.formats.registry import FORMATS, VerdictFormat, verdict_format

__all__ = ["FORMATS", "VerdictFormat", "verdict_format"]

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
