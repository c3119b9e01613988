"""Names as a terminal or a document can show them: without characters that move the cursor or start a line."""

from __future__ import annotations

import re

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, other ends of lines, and marks that reverse the direction of text."""


def printable(text: str) -> str:
    """The text on one line. Control characters become their escape sequences: `\\n`, `\\x1b`."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def printable_lines(text: str) -> str:
    """The text with its lines, each as `printable` shows it."""
    return "\n".join(map(printable, text.split("\n")))


def without_controls(document: str) -> str:
    """A document of several lines, JSON too, in which escape sequences such as `\\u001b` replace control characters."""
    return CONTROL.sub(lambda match: match[0] if match[0] in "\n\t" else f"\\u{ord(match[0]):04x}", document)
