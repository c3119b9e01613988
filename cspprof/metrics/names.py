"""Names of metrics as users write them: `cio` and `compute` stand for a metric of the chosen convention."""

from __future__ import annotations

from cspprof.core.errors import UnknownNameError
from cspprof.core.registry import suggestion
from cspprof.metrics.definition import CONVENTIONS, DEFAULT_METRICS, METRICS

CIO_CONVENTIONS = {"cspnet": "cio_cspnet", "hardnet": "cio_hardnet"}
"""The metric that `cio` means under each convention of CIO."""


def check_convention(name: str) -> str:
    """Return `name` if it is a convention of CIO or of compute. Raises UnknownNameError."""
    if name not in CIO_CONVENTIONS and name not in CONVENTIONS:
        known = [*CIO_CONVENTIONS, *CONVENTIONS.names()]
        raise UnknownNameError(f"no convention named {name!r}", suggestion(name, known))
    return name


def check_metric(name: str) -> str:
    """Return `name` if it is a metric. Raises UnknownNameError."""
    METRICS.get(name)
    return name


def resolve_metric(name: str, convention: str | None = None) -> str:
    """The registered metric that `name` means for a model of this convention, or without one.

    >>> resolve_metric("cio", "hardnet"), resolve_metric("compute", "fvcore"), resolve_metric("params", "cspnet")
    ('cio_hardnet', 'fvcore', 'params')
    >>> resolve_metric("cio"), resolve_metric("compute")
    ('cio_cspnet', 'macs')
    """
    if name == "cio" and convention in CIO_CONVENTIONS:
        return CIO_CONVENTIONS[convention]
    if name == "compute" and convention in CONVENTIONS:
        return str(convention)
    return DEFAULT_METRICS.get(name, name)


def split_metrics(texts: list[str] | None, convention: str | None = None) -> list[str]:
    """The registered metrics that the values of a repeatable `--metric a,b` name, each once and in order.

    Raises UnknownNameError.
    """
    names = [name.strip() for text in texts or () for name in text.split(",") if name.strip()]
    if texts and not names:
        raise UnknownNameError("no metric is named", "Write for example: --metric macs,cio,peak_bytes")
    return list(dict.fromkeys(resolve_metric(check_metric(name), convention) for name in names))
