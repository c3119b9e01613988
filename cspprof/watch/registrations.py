"""Registrations that a user's code makes while it is imported: metrics, rules of operations, networks, FLOP formulas.

A registry refuses a second entry of the same name, so these entries are removed before the code is imported again.
"""

from __future__ import annotations

import sys
from typing import Any

from cspprof.core.registry import Registry
from cspprof.metrics import METRICS, Metric
from cspprof.ops import RULES
from cspprof.zoo import MODELS, ModelEntry

REGISTRIES: tuple[Registry[Any], ...] = (RULES, METRICS, MODELS)


class Registrations:
    """The names that were registered when this object was made."""

    def __init__(self) -> None:
        self._before = [set(registry) for registry in REGISTRIES]
        self._formulas = set(_flop_formulas())

    def remove_later(self) -> None:
        """Remove what was registered afterwards by other modules than those of cspprof and torch."""
        for registry, before in zip(REGISTRIES, self._before, strict=True):
            for name, entry in list(registry.items()):
                if name not in before and not _module_of(entry).startswith("cspprof."):
                    registry.remove(name)
        formulas = _flop_formulas()
        for operation, formula in list(formulas.items()):
            if operation not in self._formulas and not _module_of(formula).startswith("torch."):
                del formulas[operation]


def _flop_formulas() -> dict[Any, Any]:
    """Torch's registry of FLOP formulas; empty as long as no code has imported it."""
    counter = sys.modules.get("torch.utils.flop_counter")
    return {} if counter is None else counter.flop_registry


def _module_of(entry: Any) -> str:
    function = entry
    if isinstance(entry, Metric):
        function = entry.of_op or entry.of_record
    elif isinstance(entry, ModelEntry):
        function = entry.factory
    return str(getattr(function, "__module__", ""))
