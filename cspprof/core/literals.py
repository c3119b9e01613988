"""Python literals in options and inputs, such as `(3, 4)`, `0.5` and `'x'`, read within limits."""

from __future__ import annotations

import ast
import re
from typing import Any

MAX_LENGTH = 3_000
"""Characters of a literal. Its integers then have fewer digits than Python converts to text."""


class TooLargeError(ValueError):
    """A text that is too long for a literal, or nested too deeply."""


def parse_literal(text: str) -> Any:
    """The value of a Python literal. Raises ValueError for any other text, and TooLargeError beyond the limits."""
    if len(text) > MAX_LENGTH:
        raise TooLargeError(f"it has {len(text):,} characters, and the limit is {MAX_LENGTH:,}")
    try:
        return ast.literal_eval(text)
    except (MemoryError, RecursionError):
        raise TooLargeError("it is nested too deeply") from None
    except (SyntaxError, TypeError) as error:
        if "too many nested" in str(error):
            raise TooLargeError("it is nested too deeply") from None
        raise ValueError(f"it is not a literal: {error}") from None


def is_number(text: str) -> bool:
    """Whether a text is a finite decimal number in ASCII digits: `1`, `-0.5`, `1e-4`."""
    return _NUMBER.fullmatch(text) is not None and abs(float(text)) < float("inf")


_NUMBER = re.compile(r"[+-]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")
