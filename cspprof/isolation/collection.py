"""Pause Python's garbage collector while many objects are made that live until the end and form no cycles."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Python does not search for reference cycles meanwhile.

    A search visits every object of the process and takes 0.15 s beside torch and timm. A build and a trace make so many
    objects that it would run for every seventh network, a quarter of the time of a loop over many networks, and it
    would find nothing: their objects are freed without it.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
