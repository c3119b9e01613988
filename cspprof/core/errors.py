"""The exceptions of cspprof. Each says what is wrong, where, and what to type next.

The command line prints `message` and `hint` and exits with `exit_code`: 1 if a check fails, 2 if a command cannot
produce its result.
"""

from __future__ import annotations

from cspprof.core.printable import log_lines

LONGEST = 2_000
"""Characters of a message and of a hint. A longer one repeats content of a file, and its middle is left out."""


def _without_middle(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[1 - LONGEST // 2 :]}"


class CspprofError(Exception):
    """The base class of all exceptions that cspprof raises on purpose."""

    exit_code = 2

    def __init__(self, message: str, hint: str | None = None) -> None:
        message = _without_middle(message)
        super().__init__(message)
        self.message = message
        self.hint = None if hint is None else _without_middle(hint)

    @property
    def texts(self) -> list[str]:
        """The message and, if there is one, the hint as a log can show them: names in them come from files and modules.
        Characters that are not printable become longer, so the texts are cut again."""
        parts = [self.message] if self.hint is None else [self.message, self.hint]
        return [_without_middle(log_lines(part)) for part in parts]

    def __str__(self) -> str:
        return "\n".join(self.texts)


def exception_chain(error: BaseException) -> list[BaseException]:
    """The error and those that it replaced while they were handled, the latest first."""
    chain = [error]
    while chain[-1].__context__ is not None:
        chain.append(chain[-1].__context__)
    return chain


def pip_install(extra: str) -> str:
    """The command that installs an extra, in the quotes that every shell knows."""
    return f'pip install "cspprof[{extra}]"'


EXIT_HINT = "Remove the call of sys.exit from the code of the model."


class UnknownNameError(CspprofError):
    """A name that is not registered; the hint lists similar names."""


class SourceError(CspprofError):
    """A SPEC that yields no model and no profile."""


class OptionError(SourceError):
    """A SPEC with an option that its factory does not accept, or without an option that it requires."""


class BuildError(SourceError):
    """A factory that raised an exception."""


class TraceError(CspprofError):
    """A forward pass that failed or could not be recorded."""


class NeedsValuesError(TraceError):
    """A forward pass that needs the values of tensors, which tensors on meta do not have."""


class ProfileError(CspprofError):
    """A saved profile that cannot be read, or a record that is inconsistent."""


class IncompleteError(CspprofError):
    """A strict total is requested and some operation has no rule."""


class OutputError(CspprofError):
    """A file that cannot be written."""
