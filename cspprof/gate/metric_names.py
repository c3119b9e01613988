"""Metric and convention names in a configuration; `cio` and `compute` depend on the convention of a model."""

from __future__ import annotations

from cspprof.core.errors import UnknownNameError
from cspprof.core.registry import suggestion
from cspprof.metrics import CONVENTIONS, METRICS

CIO_CONVENTIONS = {"cspnet": "cio_cspnet", "hardnet": "cio_hardnet"}
"""The metric that `cio` means under each convention of CIO."""
CONVENTION_METRICS = ("cio", "compute")


def check_convention(name: str) -> str:
    """Return `name` if it is a convention of CIO or of compute. Raises UnknownNameError."""
    if name not in CIO_CONVENTIONS and name not in CONVENTIONS:
        known = [*CIO_CONVENTIONS, *CONVENTIONS.names()]
        raise UnknownNameError(f"no convention named {name!r}", suggestion(name, known))
    return name


def check_metric(name: str) -> str:
    """Return `name` if it is a metric. Raises UnknownNameError."""
    if name not in CONVENTION_METRICS and name not in METRICS and name not in CONVENTIONS:
        hint = suggestion(name, [*CONVENTION_METRICS, *METRICS], "cspprof metrics")
        raise UnknownNameError(f"no metric named {name!r}", hint)
    return name


def resolve_metric(name: str, convention: str) -> str:
    """The registered metric that `name` means for a model of this convention.

    >>> resolve_metric("cio", "hardnet"), resolve_metric("compute", "fvcore"), resolve_metric("params", "cspnet")
    ('cio_hardnet', 'fvcore', 'params')
    """
    if name == "cio":
        return CIO_CONVENTIONS.get(convention, "cio_cspnet")
    if name == "compute":
        return convention if convention in CONVENTIONS else "macs"
    return name
