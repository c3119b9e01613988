"""The registered formats."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from cspprof.core.printable import without_controls
from cspprof.core.registry import Registry
from cspprof.gate.checking import Verdict


class VerdictFormat(NamedTuple):
    """A registered format."""

    render: Callable[[Verdict], str]
    is_own: Callable[[bytes], bool]
    """Whether a file that starts with these bytes may be an earlier output, which a new one can replace."""
    shows_notes: bool = False
    """Whether the format contains the notes of a verdict."""

    def __call__(self, verdict: Verdict) -> str:
        """The verdict as text. Names that JSON contains as they are have escape sequences there."""
        return without_controls(self.render(verdict))


FORMATS: Registry[VerdictFormat] = Registry("format")


def verdict_format(
    name: str, own: str, shows_notes: bool = False
) -> Callable[[Callable[[Verdict], str]], Callable[[Verdict], str]]:
    """Register a function as the format `name`. `own` is a regular expression that its outputs contain near the start.

    A file without it is never replaced.
    """
    pattern = re.compile(own.encode(), re.MULTILINE)

    def register(function: Callable[[Verdict], str]) -> Callable[[Verdict], str]:
        FORMATS.add(name, VerdictFormat(function, lambda head: pattern.search(head) is not None, shows_notes))
        return function

    return register
