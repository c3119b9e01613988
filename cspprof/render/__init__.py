"""One file per output format. A renderer takes a `Report` and returns text or bytes; it never changes the report.

To add a format, write a file here with a function `(Report, Canvas) -> str` and decorate it with `registry.renderer`.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from cspprof.render.registry import RENDERERS, Canvas, format_for, format_of, render

__all__ = ["RENDERERS", "Canvas", "format_for", "format_of", "render"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
