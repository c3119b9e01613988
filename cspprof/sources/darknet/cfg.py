"""Read a Darknet cfg file into sections. Needs no torch.

The rules are those of Darknet's own reader: white space anywhere in a line is ignored, `#` and `;` start a comment
line, the first of two equal keys counts, and a line without `=` is skipped (here with a note).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cspprof.core.errors import SourceError
from cspprof.core.literals import is_number
from cspprof.core.units import shortened
from cspprof.sources.spec_mistakes import check_is_file

INT_MAX = 2**31 - 1
"""The largest C int, the type in which Darknet stores every integer."""
MAX_FILE = 4 << 20
"""Bytes of a file."""
MAX_SECTIONS = 3_000
MAX_LIST = 1_000
"""Numbers in a list such as `layers=-1,4`."""
MAX_INPUTS = 20_000
"""Numbers in all lists of a file: maps that its layers read."""
MAX_NOTES = 20
"""Skipped lines that have a note each."""
SHOWN = 40
"""Characters of a line that a message repeats."""

_INTEGER = re.compile(r"([+-]?[0-9]+)(\.[0-9]*)?(?=$|[#;,])")


@dataclass(frozen=True, slots=True)
class Section:
    """`[type]` and its options: key -> (value, line)."""

    file: str
    type: str
    line: int
    options: dict[str, tuple[str, int]] = field(default_factory=dict)

    def error(self, what: str, hint: str, key: str = "") -> SourceError:
        """An error that names the file and the line of `key`, or of the section if it has no such key."""
        line = self.options[key][1] if key in self.options else self.line
        return SourceError(f"{self.file}, line {line}: {what}", hint)

    def has(self, key: str) -> bool:
        return key in self.options

    def text(self, key: str, default: str = "") -> str:
        return self.options[key][0] if key in self.options else default

    def flag(self, key: str) -> bool:
        return self.integer(key, 0) != 0

    def integer(self, key: str, default: int, minimum: int | None = None) -> int:
        """The integer value of `key`. Raises SourceError if it is not an integer or is less than `minimum`."""
        if key not in self.options:
            return default
        n = self._parse_integer(key, self.options[key][0])
        if minimum is not None and n < minimum:
            raise self.error(f"[{self.type}] {key}={n} is too small", f"Write {key}={minimum} or more.", key)
        return n

    def real(self, key: str, default: float) -> float:
        """The floating-point value of `key`. Raises SourceError if it is not a finite number."""
        text = self.text(key, str(default))
        if not is_number(text):
            raise self.error(
                f"[{self.type}] {key}={shortened(text, SHOWN)!r} is not a number",
                f"Write for example {key}={default}", key,
            )  # fmt: skip
        return float(text)

    def integers(self, key: str) -> list[int]:
        """The integers of a list such as `layers=-1,4`. Raises SourceError if it is missing, too long or malformed."""
        if not self.text(key):
            raise self.error(f"[{self.type}] has no {key}", f"Name the layers that it reads: {key}=-1")
        parts = self.text(key).partition("#")[0].split(",")
        if "" in parts:
            raise self.error(
                f"[{self.type}] {key}={shortened(self.text(key), SHOWN)} has a comma without a number",
                "Remove the comma: Darknet would read it as layer 0.",
                key,
            )
        if len(parts) > MAX_LIST:
            raise self.error(f"[{self.type}] {key} lists {len(parts):,} numbers", f"The limit is {MAX_LIST:,}.", key)
        return [self._parse_integer(key, part) for part in parts]

    def _parse_integer(self, key: str, text: str) -> int:
        match = _INTEGER.match(text)
        if not match:
            raise self.error(
                f"[{self.type}] {key}={shortened(text, SHOWN)!r} is not an integer", f"Write for example {key}=1", key
            )
        digits = match[1]
        if len(digits) >= 12 or abs(int(digits)) > INT_MAX:  # int() of a very long text is slow
            raise self.error(
                f"[{self.type}] {key}={digits[:12]}… does not fit a C int", f"The largest value is {INT_MAX:,}.", key
            )
        return int(digits)


def read_cfg(path: Path) -> tuple[list[Section], tuple[str, ...]]:
    """The sections of a cfg file, `[net]` first, and notes on skipped lines. Raises SourceError."""
    sections: list[Section] = []
    notes: list[str] = []
    skipped = 0
    for number, line in _lines(path):
        if line[0] == "[":
            sections.append(_section(path.name, line, number))
            if len(sections) > MAX_SECTIONS:
                raise sections[-1].error("this is a section too many", f"The limit is {MAX_SECTIONS:,} sections.")
        elif not sections:
            raise SourceError(
                f"{path.name}, line {number}: {line[:40]!r} stands before the first section",
                "A Darknet cfg begins with [net].",
            )
        else:
            key, equals, value = line.partition("=")
            if equals:
                sections[-1].options.setdefault(key, (value, number))
            else:
                skipped += 1
                if skipped <= MAX_NOTES:
                    notes.append(f"line {number} of {path.name} has no '=' and is skipped, as in Darknet")
    if skipped > MAX_NOTES:
        notes.append(f"{skipped - MAX_NOTES:,} more lines of {path.name} have no '=' and are skipped")
    if not sections:
        raise SourceError(f"{path.name} has no sections", "A Darknet cfg begins with [net].")
    if sections[0].type not in ("net", "network"):
        raise sections[0].error(f"the first section is [{sections[0].type}]", "A Darknet cfg begins with [net].")
    if len(sections) == 1:
        raise sections[0].error("there is no layer after [net]", "Add one, for example [convolutional].")
    return sections, tuple(notes)


def _section(file: str, line: str, number: int) -> Section:
    name, bracket, rest = line[1:].partition("]")
    if not bracket or not 0 < len(name) <= SHOWN or (rest and rest[0] not in "#;"):
        raise SourceError(
            f"{file}, line {number}: {line[:40]!r} is not a section header", "Write for example [convolutional]."
        )
    return Section(file, name, number)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The number and the text, without white space, of every line that is not empty and not a comment."""
    try:
        check_is_file(path)
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}", "Check the path.") from None
    if len(data) > MAX_FILE:
        raise SourceError(f"{path.name} has more than {MAX_FILE:,} bytes", "Name a Darknet cfg, which is a text file.")
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        line = b"".join(raw.split())
        if not line or line[:1] in (b"#", b";"):
            continue
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        if not text.isprintable():
            raise SourceError(f"{path.name}, line {number} is not text", "Name a Darknet cfg, which is a text file.")
        yield number, text
