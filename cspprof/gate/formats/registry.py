"""The registered formats."""

from __future__ import annotations

from collections.abc import Callable

from cspprof.core.registry import Registry
from cspprof.gate.checking import Verdict

VerdictFormat = Callable[[Verdict], str]
FORMATS: Registry[VerdictFormat] = Registry("format")


def verdict_format(name: str) -> Callable[[VerdictFormat], VerdictFormat]:
    """Register a function as the format `name`."""
    return lambda function: FORMATS.add(name, function)
