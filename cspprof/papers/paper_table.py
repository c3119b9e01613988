"""A table of a paper in a CSV file: the network and input size of each row, and its printed numbers with their units.

The heading of a column says what it contains, and can have the unit: `Params (M)`, `GFLOPs`, `Memory [MB]`. An error
names the line and the column.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from cspprof.core.errors import CspprofError
from cspprof.core.registry import suggestion
from cspprof.papers.printed_value import PrintedValue

EXAMPLE = "example"
"""The name of the shipped table: a part of Table 3 of the CSPNet paper."""


class Quantity(StrEnum):
    """The quantity that the numbers of a column count."""

    PARAMS = "params"
    COMPUTE = "compute"
    CIO = "CIO"
    ACTIVATIONS = "activations"
    MEMORY = "memory"


class PrintedUnit(NamedTuple):
    """A unit that a printed number can have, and how many operations, values or bytes it is."""

    name: str
    scale: int
    binary: bool = False
    """Whether it is a power of 1024 bytes."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of printed numbers."""

    heading: str
    quantity: Quantity
    units: tuple[PrintedUnit, ...]
    """From the heading; empty if it has no unit. `MB` is 10⁶ or 2²⁰ bytes."""
    per_mac: int = 0
    """The count of one multiply-accumulate by the heading: 1 for MACs, 2 for FLOPs, 0 if the heading names neither."""


@dataclass(frozen=True, slots=True)
class PrintedCell:
    """A printed number, in each unit that it can have."""

    column: Column
    printed: PrintedValue
    units: tuple[PrintedUnit, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A network of the table."""

    line: int
    name: str
    """As the table prints it."""
    spec: str
    input: tuple[int, ...]
    """The stated input size (H, W), or a whole shape (N, C, H, W)."""
    cells: tuple[PrintedCell, ...]


@dataclass(frozen=True, slots=True)
class PaperTable:
    """A table of a paper."""

    name: str
    """The name of the file."""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    not_audited: tuple[str, ...]
    """Headings of columns that are no cost of a network, or that the user leaves out."""

    def where(self, row: Row, column: str = "") -> str:
        """The place of a row or cell, for messages."""
        return _where(self.name, row.line, row.name, column)


def read_paper_table(path: str | Path, size: str | None = None, ignore: Sequence[str] = ()) -> PaperTable:
    """The table in a CSV file, or the shipped one if `path` is `example`. `size` is the input size of rows without one,
    and the columns in `ignore` are left out. Raises CspprofError."""
    if str(path) == EXAMPLE:
        data = (resources.files("cspprof") / "data" / "cspnet_table3.csv").read_bytes()
        return parse_paper_table(data, "CSPNet, part of Table 3", size, ignore)
    path = Path(path)
    try:
        return parse_paper_table(path.read_bytes(), path.name, size, ignore)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise CspprofError(
            f"there is no file {path}" if missing else f"cannot read {path}: {error.strerror or error}",
            f"Name a CSV file, or see: cspprof audit {EXAMPLE}",
        ) from None


def parse_paper_table(data: bytes, name: str, size: str | None = None, ignore: Sequence[str] = ()) -> PaperTable:
    """The table in the bytes of a CSV file. Raises CspprofError, with the line and the column of what is wrong."""
    lines = list(_lines(data, name))
    if not lines:
        raise CspprofError(f"{name} is empty", f"Write a line of headings and a line per network: {HEADINGS}")
    headings = _without_blank_end([cell.strip() for cell in lines[0][1]], 0)
    kinds = _kinds(headings, name, ignore)
    if len(lines) < 2:
        raise CspprofError(f"{name} has headings and no rows", "Write a line per network below them.")
    columns = tuple(kind for kind in kinds if isinstance(kind, Column))
    default = None if size is None else _size(size, "--size")
    rows = tuple(_row(line, cells, kinds, headings, name, default) for line, cells in lines[1:])
    if not any(row.cells for row in rows):
        raise CspprofError(f"{name} has no printed number", f"Fill in {' or '.join(c.heading for c in columns)}.")
    return PaperTable(name, columns, rows, tuple(h for h, k in zip(headings, kinds, strict=True) if k == NOT_AUDITED))


def _where(table: str, line: int, row: str = "", column: str = "") -> str:
    """`table.csv, line 4 (ResNet-50), column 'FLOPs'`."""
    return f"{table}, line {line}" + (f" ({row})" if row else "") + (f", column {column!r}" if column else "")


def _lines(data: bytes, name: str) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not empty, with their numbers. The heading's most frequent separator separates the cells."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise CspprofError(f"{name} is not text in UTF-8", "Save the table as CSV in UTF-8, and name that file.")
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise CspprofError(
            f"{_where(name, reader.line_num)}: {error}", 'Close each quote: "csp_resnet50,elastic=True"'
        ) from None


# -- headings -------------------------------------------------------------------------------------

HEADINGS = "model,input,params (M),FLOPs (G)"
"""Headings of an example."""
NAME, SPEC, INPUT, NOT_AUDITED = "name", "SPEC", "input", "not audited"
"""Kinds of columns without printed numbers of one quantity."""
NAMES = {
    NAME: "model name network net method architecture arch backbone",
    SPEC: "spec",
    INPUT: "input inputsize size resolution inputresolution imagesize imgsize inputshape res",
    NOT_AUDITED: "top1 top5 top1acc top5acc top1accuracy top5accuracy top1error top5error top1err top5err acc accuracy "
    "error ap ap50 ap75 aps apm apl map map50 miou fps latency time speed throughput year venue paper reference ref "
    "epochs note notes comment",
    Quantity.PARAMS: "params param parameters parameter weights numparams nparams numberofparams numberofparameters",
    Quantity.COMPUTE: "compute complexity",
    Quantity.CIO: "cio",
    Quantity.ACTIVATIONS: "activations activation acts",
    Quantity.MEMORY: "memory mem peakmemory activationmemory memoryfootprint modelsize weightsize filesize",
}
KINDS = {word: kind for kind, words in NAMES.items() for word in words.split()}
OPERATIONS = {"flops": 2, "flop": 2, "macs": 1, "mac": 1, "maccs": 1, "madds": 1, "madd": 1, "multadds": 1,
              "multiadds": 1, "ops": 0}  # fmt: skip
"""Words for compute, and what each says that a multiply-accumulate counts; 0 if it does not say."""
PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "million": 10**6, "g": 10**9, "b": 10**9, "bn": 10**9, "billion": 10**9,
            "t": 10**12}  # fmt: skip
_WORDS = {
    Quantity.PARAMS: "params?|parameters|weights|values",
    Quantity.COMPUTE: "|".join(OPERATIONS),
    Quantity.CIO: "elements?|values",
    Quantity.ACTIVATIONS: "elements?|values",
}
UNITS = {
    Quantity.PARAMS: "k, M, B",
    Quantity.COMPUTE: "M, G, B, GFLOPs, GMACs, BFLOPs",
    Quantity.CIO: "k, M, G",
    Quantity.ACTIVATIONS: "k, M, G",
    Quantity.MEMORY: "kB, MB, GB, KiB, MiB, GiB",
}
"""The units that messages name."""


def units_named(quantity: Quantity, text: str) -> tuple[PrintedUnit, ...]:
    """The units that `text` can mean for a quantity: one for `M` and `GFLOPs`, two for `MB`; none if it is unknown."""
    word = re.sub("[^a-z]", "", text.casefold())
    if quantity is Quantity.MEMORY:
        match = re.fullmatch("(?P<prefix>[kmgt]?)(?P<binary>i?)(?:b|bytes?)?", word)
        if not match or word in ("", "i", "ib"):
            return ()
        if not match["prefix"]:
            return (PrintedUnit("B", 1),)
        power = "kmgt".index(match["prefix"])
        decimal = PrintedUnit(f"{'kMGT'[power]}B", 1000 ** (power + 1))
        binary = PrintedUnit(f"{'KMGT'[power]}iB", 1024 ** (power + 1), True)
        return (binary,) if match["binary"] else (decimal, binary)
    match = re.fullmatch(f"(?P<prefix>{'|'.join(PREFIXES)})(?:{_WORDS[quantity]})?", word)
    return (PrintedUnit(text, PREFIXES[match["prefix"]]),) if match and word else ()


def _kinds(headings: list[str], name: str, ignore: Sequence[str]) -> list[Column | str]:
    """The contents of each column. Raises CspprofError for an unknown heading or unit."""
    for wanted in ignore:
        if wanted.casefold() not in map(str.casefold, headings):
            raise CspprofError(f"{name} has no column {wanted!r} to leave out", suggestion(wanted, headings))
    left_out = {wanted.casefold() for wanted in ignore}
    kinds = [NOT_AUDITED if h.casefold() in left_out else _kind(h, name) for h in headings]
    for heading, n in Counter(h.casefold() for h in headings).items():
        if n > 1:
            raise CspprofError(
                f"{name} has {n} columns {heading!r}", "Give each its own heading, such as: FLOPs (G), MACs (G)"
            )
    for kind in (NAME, SPEC, INPUT):
        same = [h for h, k in zip(headings, kinds, strict=True) if k == kind]
        if len(same) > 1:
            raise CspprofError(
                f"{name} has {len(same)} columns for the {kind}: {', '.join(same)}",
                f"Leave one out: --ignore {same[-1]!r}",
            )
    if NAME not in kinds and SPEC not in kinds:
        raise CspprofError(f"{name} has no column for the model", "Add a column: model")
    if not any(isinstance(kind, Column) for kind in kinds):
        raise CspprofError(
            f"{name} has no column of printed costs", "Add a column, such as: params (M), FLOPs (G), memory (MB)"
        )
    return kinds


def _kind(heading: str, name: str) -> Column | str:
    """The contents of a column with this heading. Raises CspprofError if the heading is unknown."""
    words = re.findall("[a-z0-9]+", heading.casefold())
    before_bracket = len(re.findall("[a-z0-9]+", re.split(r"[(\[]", heading.casefold())[0]))
    for n in (len(words), before_bracket, len(words) - 1):
        found = _kind_named("".join(words[:n]), "".join(words[n:]), heading)
        if found is not None:
            return found
    near = suggestion("".join(words), [*KINDS, *OPERATIONS])
    similar = f"{near}\n" if near.startswith("Did you mean") else ""
    raise CspprofError(
        f"{name} has an unknown column {heading!r}",
        f"{similar}Name it by quantity and unit: {HEADINGS}, memory (MB). Or leave it out: --ignore {heading!r}",
    )


def _kind_named(word: str, unit: str, heading: str) -> Column | str | None:
    """The contents of a column whose heading is a word and a unit; None if the heading is unknown."""
    kind = KINDS.get(word)
    if word == "size" and units_named(Quantity.MEMORY, unit):  # the size of a file
        kind = Quantity.MEMORY
    match = re.fullmatch(f"(?P<prefix>{'|'.join(PREFIXES)})(?P<word>{'|'.join(OPERATIONS)})", word)
    quantity = Quantity.COMPUTE if match else kind
    if not isinstance(quantity, Quantity):
        return kind if kind == NOT_AUDITED or unit in ("", "px", "pixels") else None
    if match and match["prefix"]:
        units: tuple[PrintedUnit, ...] = (PrintedUnit(heading.strip("# "), PREFIXES[match["prefix"]]),)
    else:
        units = units_named(quantity, _as_written(unit, heading))
    if unit and (not units or (match and match["prefix"])):
        return None
    return Column(heading, quantity, units, OPERATIONS[match["word"]] if match else 0)


def _as_written(word: str, heading: str) -> str:
    """The last word of a heading with its capitals."""
    place = heading.casefold().rfind(word)
    return word if place < 0 else heading[place:][: len(word)]


# -- rows -----------------------------------------------------------------------------------------

NOT_PRINTED = ("", "-", "−", "–", "—", "n/a", "na", "?")
"""Cells without a number."""
_SIZE = re.compile(r"\d{1,6}(?:\s*[x×*]\s*\d{1,6}){0,3}", re.ASCII)
_CELL = re.compile(r"[~≈]?\s*(?P<number>\d[\d.,]{0,40})(?:[eE]\+?(?P<power>\d{1,2}))?(?:\s*(?P<unit>[^\d.,\s].*))?")
LEAST_DIGITS = 1000
"""A smaller number without a unit is not every digit of a cost: its unit is missing."""


def _without_blank_end(cells: list[str], least: int) -> list[str]:
    """The cells without blank ones at the end, which programs write for empty columns, but at least `least` cells."""
    n = len(cells)
    while n > least and not cells[n - 1].strip():
        n -= 1
    return cells[:n]


def _row(
    line: int,
    cells: list[str],
    kinds: list[Column | str],
    headings: list[str],
    table: str,
    default: tuple[int, ...] | None,
) -> Row:
    """One row. Raises CspprofError."""
    cells = _without_blank_end(cells, len(kinds))
    if len(cells) != len(kinds):
        raise CspprofError(
            f"{_where(table, line, cells[0])}: {len(cells)} cells under {len(kinds)} headings",
            'Quote what contains a comma, as in "csp_resnet50,elastic=True", and write a decimal point: 12.5',
        )
    texts = [cell.strip() for cell in cells]
    found = {kind: text for kind, text in zip(kinds, texts, strict=True) if isinstance(kind, str)}
    name = found.get(NAME) or found.get(SPEC) or ""
    if not name:
        raise CspprofError(f"{_where(table, line)}: the row names no model", "Write a name or a SPEC, such as resnet50")
    numbers = [
        _cell(text, kind, _where(table, line, name, heading))
        for kind, heading, text in zip(kinds, headings, texts, strict=True)
        if isinstance(kind, Column) and text.casefold() not in NOT_PRINTED
    ]
    heading = next((h for h, k in zip(headings, kinds, strict=True) if k == INPUT), "input")
    stated = found.get(INPUT, "")
    size = default if stated.casefold() in NOT_PRINTED else _size(stated, _where(table, line, name, heading))
    if size is None:
        raise CspprofError(
            f"{_where(table, line, name, heading)}: no input size",
            "Write it there: 224, 224x320 or 1x3x224x224. Or give one for all rows without a size: --size 224",
        )
    return Row(line, name, found.get(SPEC) or name, size, tuple(numbers))


def _size(text: str, where: str) -> tuple[int, ...]:
    """The size (H, W) or the whole shape (N, C, H, W) that a text states. Raises CspprofError."""
    numbers = tuple(map(int, re.findall("[0-9]+", text))) if _SIZE.fullmatch(text.strip()) else (0,)
    if 0 in numbers:
        raise CspprofError(f"{where}: cannot read the input size {text!r}", "Write 224, 224x320 or 1x3x224x224")
    return {1: numbers * 2, 3: (1, *numbers)}.get(len(numbers), numbers)


def _cell(text: str, column: Column, where: str) -> PrintedCell:
    """A printed number and its unit. Raises CspprofError."""
    match = _CELL.fullmatch(text)
    known = UNITS[column.quantity]
    if match is None:
        raise CspprofError(f"{where}: cannot read {text!r}", f"Write a number and a unit, such as 12.5 M: {known}")
    number, unit = match["number"], (match["unit"] or "").strip()
    units = units_named(column.quantity, unit) if unit else column.units
    if unit and not units:
        raise CspprofError(f"{where}: unknown unit {unit!r} in {text!r}", f"Units of {column.quantity}: {known}")
    if unit and column.units and not {u.scale for u in units} & {u.scale for u in column.units}:
        raise CspprofError(
            f"{where}: {text!r} and the heading have different units",
            f"Write the unit in one of them: {number} {column.units[0].name}, or a heading without a unit",
        )
    value, places = _number(number, bool(units), where)
    power = 10 ** int(match["power"] or 0)
    if not units and (value * power < LEAST_DIGITS or (value * power).denominator > 1):
        raise CspprofError(
            f"{where}: {text!r} has no unit", f"Write it behind the number or in the heading, or every digit: {known}"
        )
    if not value or (units and units[0].scale == 1 and (value * power).denominator > 1):
        raise CspprofError(f"{where}: {text!r} is no cost of a network", f"Check the number and its unit: {known}")
    scaled = tuple(u._replace(scale=u.scale * power) for u in units or (PrintedUnit("", 1),))
    shown = text if unit or not units else f"{text} {units[0].name}"
    return PrintedCell(column, PrintedValue(shown, value, places, scaled[0].name), scaled)


def _number(text: str, has_unit: bool, where: str) -> tuple[Fraction, int]:
    """The value and the number of decimal places. Raises CspprofError for a decimal comma.

    A comma separates thousands only where it cannot be a decimal comma: between several groups, or without a unit.
    """
    groups = re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", text)
    if groups and (text.count(",") > 1 or "." in text or not has_unit):
        text = text.replace(",", "")
    if not re.fullmatch(r"\d+(?:\.\d+)?", text):
        raise CspprofError(
            f"{where}: cannot read the number {text!r}", "Write a decimal point, and no separator of thousands: 12.5"
        )
    return Fraction(text), len(text.partition(".")[2])
