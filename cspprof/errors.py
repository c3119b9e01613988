"""The exceptions of cspprof, for `except` clauses: each has a message and a hint that says what to do."""

from cspprof.core.errors import (
    BuildError,
    CspprofError,
    IncompleteError,
    NeedsValuesError,
    OptionError,
    OutputError,
    ProfileError,
    SourceError,
    TraceError,
    UnknownNameError,
)

__all__ = [
    "BuildError",
    "CspprofError",
    "IncompleteError",
    "NeedsValuesError",
    "OptionError",
    "OutputError",
    "ProfileError",
    "SourceError",
    "TraceError",
    "UnknownNameError",
]
