"""Operations that were traced before, by function, tensor metas and scalars. Kept between traces of one process."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any

import torch

from cspprof.ops import RULES
from cspprof.trace.op_entries import SPECS, OpEntry

OpCache = dict[tuple[Any, ...], OpEntry]

CACHES: dict[tuple[bool, tuple[str, ...]], OpCache] = defaultdict(dict)
"""By whether the trace is on meta, and which composite operation is being decomposed."""

LIMIT = 50_000
"""Entries in one cache, and interned specs."""

_made_with: list[object] = []
"""The rules and settings that the cached entries depend on."""


def clear() -> None:
    """Forget all operations."""
    for cache in CACHES.values():  # emptied, not replaced: a running trace refers to its cache
        cache.clear()
    SPECS.clear()


def prepare() -> None:
    """Before a trace: forget all operations if a rule was registered, here or in torch's registry of FLOP formulas, or
    if a setting changed that they depend on."""
    counter = sys.modules.get("torch.utils.flop_counter")
    formulas = [] if counter is None else list(counter.flop_registry.values())
    now = [RULES.version, torch.backends.cudnn.enabled, *formulas]
    if now != _made_with or len(SPECS) > LIMIT:
        clear()
        _made_with[:] = now
