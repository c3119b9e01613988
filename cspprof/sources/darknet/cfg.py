"""A Darknet cfg as text: sections with their options, each known by its line. No torch.

Reading follows Darknet's own: white space anywhere in a line means nothing, `#` and `;` begin a comment line, the
first of two equal keys counts, and a line that is no `key=value` is passed over (with a note here).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cspprof.core.errors import SourceError

LARGEST = 2**31 - 1
"""Darknet keeps every number in a C int."""

_NUMBER = re.compile(r"([+-]?\d+)(\.\d*)?(?=$|[#;,])")


@dataclass(frozen=True, slots=True)
class Section:
    """`[type]` and its options: key -> (value, line)."""

    file: str
    type: str
    line: int
    options: dict[str, tuple[str, int]] = field(default_factory=dict)

    def error(self, what: str, hint: str, key: str = "") -> SourceError:
        """What is wrong here, with the file and the line of `key` (or of the section)."""
        line = self.options[key][1] if key in self.options else self.line
        return SourceError(f"{self.file}, line {line}: {what}", hint)

    def has(self, key: str) -> bool:
        return key in self.options

    def text(self, key: str, default: str = "") -> str:
        return self.options[key][0] if key in self.options else default

    def flag(self, key: str) -> bool:
        return self.number(key, 0) != 0

    def number(self, key: str, default: int, least: int | None = None) -> int:
        """The whole number of `key`. Raises SourceError where it is none, or below `least`."""
        if key not in self.options:
            return default
        n = self._number(key, self.options[key][0])
        if least is not None and n < least:
            raise self.error(f"[{self.type}] {key}={n} is too small", f"Write {least} or more: {key}={least}", key)
        return n

    def real(self, key: str, default: float) -> float:
        try:
            return float(self.text(key, str(default)))
        except ValueError:
            raise self.error(
                f"[{self.type}] {key}={self.text(key)!r} is not a number", f"Write for example {key}={default}", key
            ) from None

    def numbers(self, key: str, most: int) -> list[int]:
        """The whole numbers of a list such as `layers=-1,4`. Raises SourceError where it is missing or too long."""
        if not self.text(key):
            raise self.error(f"[{self.type}] has no {key}", f"Say which layers it reads: {key}=-1")
        parts = self.text(key).partition("#")[0].split(",")
        if "" in parts:
            raise self.error(
                f"[{self.type}] {key}={self.text(key)} has a comma and no number", "Darknet reads 0 there.", key
            )
        if len(parts) > most:
            raise self.error(f"[{self.type}] {key} lists {len(parts):,} numbers", f"At most {most:,} make sense.", key)
        return [self._number(key, part) for part in parts]

    def _number(self, key: str, text: str) -> int:
        found = _NUMBER.match(text)
        if not found:
            raise self.error(f"[{self.type}] {key}={text!r} is not a number", f"Write for example {key}=1", key)
        n = int(found[1]) if len(found[1]) < 12 else LARGEST + 1
        if abs(n) > LARGEST:
            raise self.error(f"[{self.type}] {key}={found[1][:12]}… does not fit a C int", f"Up to {LARGEST:,}.", key)
        return n


def read(path: Path) -> tuple[list[Section], tuple[str, ...]]:
    """The sections of a cfg, `[net]` first, and notes on lines that were passed over. Raises SourceError."""
    sections: list[Section] = []
    notes: list[str] = []
    for number, line in _lines(path):
        if line[0] == "[":
            sections.append(_section(path.name, line, number))
        elif not sections:
            raise SourceError(
                f"{path.name}, line {number}: {line[:40]!r} stands before any section",
                "A Darknet cfg begins with [net].",
            )
        else:
            key, equals, value = line.partition("=")
            if equals:
                sections[-1].options.setdefault(key, (value, number))
            else:
                notes.append(f"line {number} of {path.name} is no key=value and was passed over, as Darknet does")
    if not sections:
        raise SourceError(f"{path.name} has no sections", "A Darknet cfg begins with [net].")
    if sections[0].type not in ("net", "network"):
        raise sections[0].error(f"the first section is [{sections[0].type}]", "A Darknet cfg begins with [net].")
    if len(sections) == 1:
        raise sections[0].error("there is no layer after [net]", "Add one, for example [convolutional].")
    return sections, tuple(notes)


def _section(file: str, line: str, number: int) -> Section:
    name, bracket, rest = line[1:].partition("]")
    if not bracket or not name or (rest and rest[0] not in "#;"):
        raise SourceError(f"{file}, line {number}: cannot read the section {line[:40]!r}", "Write [convolutional].")
    return Section(file, name, number)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line that says something, white space taken out."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}", "Check the path.") from None
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        bare = b"".join(raw.split())
        if not bare or bare[:1] in (b"#", b";"):
            continue
        try:
            text = bare.decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        if not text.isprintable():
            raise SourceError(f"{path.name}, line {number}: these bytes are not text", "Is it a Darknet cfg?")
        yield number, text
