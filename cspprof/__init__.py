"""cspprof: where a CNN's compute and memory traffic go, layer by layer, and whether a refactor made it better.

Names are imported when they are first used, so `import cspprof` loads neither torch nor pandas.
"""

from __future__ import annotations

from importlib import import_module
from time import time
from typing import TYPE_CHECKING

from cspprof._version import __version__

if TYPE_CHECKING:
    from cspprof import errors
    from cspprof.api import check, compare, plot, profile, reproduce
    from cspprof.comparison import Comparison
    from cspprof.metrics import metric
    from cspprof.record import Profile, TensorSpec
    from cspprof.rules import op_rule
    from cspprof.zoo import model

LOADED = time()
"""When this process began to read cspprof: a file that was changed later is not what runs."""

_HOMES = {
    "profile": "cspprof.api",
    "compare": "cspprof.api",
    "reproduce": "cspprof.api",
    "check": "cspprof.api",
    "plot": "cspprof.api",
    "Comparison": "cspprof.comparison",
    "Profile": "cspprof.record",
    "TensorSpec": "cspprof.record",
    "metric": "cspprof.metrics",
    "op_rule": "cspprof.rules",
    "model": "cspprof.zoo",
}

__all__ = [
    "Comparison",
    "Profile",
    "TensorSpec",
    "__version__",
    "check",
    "compare",
    "errors",
    "metric",
    "model",
    "op_rule",
    "plot",
    "profile",
    "reproduce",
]


def __getattr__(name: str) -> object:
    if name == "errors":
        return import_module("cspprof.errors")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cspprof' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
