"""Pause Python's garbage collector while many objects are made that live until the end and form no cycles."""

from __future__ import annotations

import gc


class CollectionPause:
    """Python does not search for reference cycles between `begin` and `end`.

    A search visits every object of the process and takes 0.15 s beside torch and timm. A build and a trace make so many
    objects that it would run for every seventh network, a quarter of the time of a loop over many networks, and it
    would find nothing: their objects are freed without it. `end` may run twice, so a KeyboardInterrupt at any moment
    leaves nothing changed.
    """

    def __init__(self) -> None:
        self._enabled = gc.isenabled()

    def begin(self) -> None:
        gc.disable()

    def end(self) -> None:
        if self._enabled:  # else the user, or another thread that builds a network, paused it
            gc.enable()
