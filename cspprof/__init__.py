"""cspprof: where a CNN's compute and memory traffic go, layer by layer, and whether a refactor made it better.

`import cspprof` imports neither torch nor pandas: each public name is imported on its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from cspprof._version import __version__

if TYPE_CHECKING:
    from cspprof import errors
    from cspprof.api import advise, audit, check, compare, convert, gradients, plot, profile, reproduce
    from cspprof.core.inputs import Value
    from cspprof.core.tensors import TensorSpec
    from cspprof.metrics import metric
    from cspprof.ops import Facts, op_rule
    from cspprof.profiles import Profile
    from cspprof.results import Advice, Comparison, Conversion, Gradients
    from cspprof.sweeps.sweep import sweep
    from cspprof.zoo import model

MODULES = {
    "profile": "cspprof.api",
    "compare": "cspprof.api",
    "convert": "cspprof.api",
    "gradients": "cspprof.api",
    "advise": "cspprof.api",
    "reproduce": "cspprof.api",
    "audit": "cspprof.api",
    "check": "cspprof.api",
    "plot": "cspprof.api",
    "Advice": "cspprof.results",
    "sweep": "cspprof.sweeps.sweep",
    "Comparison": "cspprof.results",
    "Conversion": "cspprof.results",
    "Gradients": "cspprof.results",
    "Profile": "cspprof.profiles",
    "TensorSpec": "cspprof.core.tensors",
    "Value": "cspprof.core.inputs",
    "metric": "cspprof.metrics",
    "Facts": "cspprof.ops",
    "op_rule": "cspprof.ops",
    "model": "cspprof.zoo",
}
"""The module that defines each public name."""

__all__ = [
    "Advice",
    "Comparison",
    "Conversion",
    "Facts",
    "Gradients",
    "Profile",
    "TensorSpec",
    "Value",
    "__version__",
    "advise",
    "audit",
    "check",
    "compare",
    "convert",
    "errors",
    "gradients",
    "metric",
    "model",
    "op_rule",
    "plot",
    "profile",
    "reproduce",
    "sweep",
]


def __getattr__(name: str) -> object:
    if name == "errors":
        return import_module("cspprof.errors")
    if name in MODULES:
        return getattr(import_module(MODULES[name]), name)
    raise AttributeError(f"module 'cspprof' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
