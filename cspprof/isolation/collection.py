"""Pause Python's garbage collector while many objects are made that live until the end and form no cycles."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def without_collection(work: Callable[[], T]) -> T:
    """The result of `work`, during which Python does not search for reference cycles.

    A search visits every object of the process and takes 0.15 s beside torch and timm. A build and a trace make so many
    objects that it would run for every seventh network, a quarter of the time of a loop over many networks, and it
    would find nothing: their objects are freed without it. Afterwards the collector is as before, also after a
    KeyboardInterrupt at any moment.
    """
    enabled = gc.isenabled()  # if not, the user or another thread that builds a network paused it
    try:
        try:
            gc.disable()
            return work()
        finally:
            if enabled:
                gc.enable()
    finally:  # again: a KeyboardInterrupt may have come before
        if enabled:
            gc.enable()
