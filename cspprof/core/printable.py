"""Text from files and modules as a terminal, a log or a document can show it: nothing in it is invisible, moves the
cursor, reverses the direction of text, starts a line, or is a command to a CI system."""

from __future__ import annotations

import re

BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Letters and marks that fonts show as nothing. All other invisible characters are unprintable for Python: control
characters, line separators, marks that reverse text, spaces that are no ` `, halves of surrogate pairs."""

NOT_ASCII = re.compile(r"[^\n\t -~]")

LOG_COMMAND = re.compile(r"^((?:[ \t]|\x1b\[[\d;]*m)*)(:)(?=:)|(#)(?=#(?:vso|teamcity)?\[)", re.MULTILINE)
"""Where a line of a log is a command to its CI system: `::error::` of GitHub, `##[…]` of GitHub, `##vso[…]` of Azure
Pipelines, `##teamcity[…]`. GitHub ignores the spaces before a command. Color codes of ours can stand there too."""


def printable(text: str) -> str:
    """The text on one line. Characters that cannot be seen become their escape sequences: `\\n`, `\\x1b`, `\\u202e`."""
    if _is_visible(text):
        return text
    return "".join(c if _is_visible(c) else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """The text with its lines, each as `printable` shows it."""
    return "\n".join(map(printable, text.split("\n")))


def log_lines(text: str) -> str:
    """The text for standard error: its lines as `printable` shows them, none of them a command to a CI system."""
    return without_log_commands(printable_lines(text))


def without_log_commands(text: str) -> str:
    """The text with a backslash in what a CI system would take for a command in a log: `\\::error::`."""
    return LOG_COMMAND.sub(lambda m: f"{m[1]}\\:" if m[2] else "#\\", text)


def without_controls(document: str) -> str:
    """A document of several lines, JSON too; escape sequences such as `\\u001b` replace what cannot be seen."""
    if _is_visible(document.replace("\n", "").replace("\t", "")):
        return document
    return NOT_ASCII.sub(lambda m: m[0] if _is_visible(m[0]) else _json_escape(m[0]), document)


def _is_visible(text: str) -> bool:
    return text.isprintable() and not BLANK.search(text)


def _json_escape(character: str) -> str:
    """`\\u202e`; beyond the first 65,536 characters a pair of surrogates: `\\udb40\\udc01`."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
