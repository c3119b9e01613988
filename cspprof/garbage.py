"""Python's collector of cycles, kept out of the way of what makes many objects and no cycles."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """No collection meanwhile, and none right after it for what was made: with the libraries of models loaded, a
    collection takes longer than the trace of a network.

    What was made joins the oldest generation at once, as if it had survived; what other threads made meanwhile too.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():  # what somebody froze stays frozen
                gc.freeze()
                gc.unfreeze()
            gc.enable()
