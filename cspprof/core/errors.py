"""Everything that cspprof raises on purpose.

An error says what is wrong, where, and what to type next. The command line prints `message` and
`hint` and leaves with `exit_code`: 1 when the answer is no, 2 when there is no answer.
"""

from __future__ import annotations


class CspprofError(Exception):
    """The one base class: catching it catches whatever cspprof raises on purpose."""

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n{self.hint}"


class UnknownNameError(CspprofError):
    """A name that no registry holds; the hint lists the nearest ones."""


class SourceError(CspprofError):
    """A SPEC that cannot be turned into a model or a profile."""


class OptionError(SourceError):
    """A SPEC with an option that its factory does not take, or without one that it needs."""


class TraceError(CspprofError):
    """A forward pass that could not be followed to its end."""


class ProfileError(CspprofError):
    """A saved profile that cannot be read, or a record that contradicts itself."""


class ReplayError(CspprofError):
    """A record does not say what the model would do on the input asked for."""


class IncompleteError(CspprofError):
    """A total was asked for strictly, and some operation has no rule."""


class OutputError(CspprofError):
    """A file that cannot be written."""
