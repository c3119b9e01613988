"""Columns of receptive fields for tables of layers, and what their notes say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from cspprof.analysis.receptive_field import Branch, input_axes, receptive_fields
from cspprof.core.record import Record
from cspprof.core.units import counted
from cspprof.report.tables import UNKNOWN, Cell, Column, text

FIELD_COLUMNS = {
    "rf_size": "receptive field",
    "rf_stride": "rf stride",
    "rf_offset": "rf offset",
    "rf_center": "rf center",
    "rf_branches": "branches",
}
"""The columns of receptive fields, with their headings. `rf` stands for all of them."""
NOTHING = Cell(None, "–")


def field_columns(names: Sequence[str]) -> list[Column]:
    """The columns with these names."""
    return [Column(FIELD_COLUMNS[n], n != "rf_branches", name=n) for n in names]


def field_cells(record: Record, index: int, names: Sequence[str]) -> dict[str, Cell]:
    """The cells of the call `index` in these columns."""
    field = receptive_fields(record)[index]
    if field is None:
        return dict.fromkeys(names, NOTHING)
    makers = {
        "rf_size": lambda: UNKNOWN if field.reach_unknown else text(size_text(field)),
        "rf_stride": lambda: _numbers(field.stride),
        "rf_offset": lambda: _numbers(field.offset),
        "rf_center": lambda: _numbers(field.center),
        "rf_branches": lambda: text("; ".join(map(_branch_text, field.branches))),
    }
    return {name: makers[name]() for name in names}


def field_record(record: Record, index: int) -> dict[str, Any] | None:
    """The receptive field of the call `index` for JSON: lists of one number for each axis, None where it is unknown."""
    field = receptive_fields(record)[index]
    if field is None:
        return None
    numbers = _numbers_record(field)
    if field.reach_unknown:
        numbers |= dict.fromkeys(("size", "local"), [None] * len(field.axes))
    return {**numbers, "branches": [{"source": b.source, **_numbers_record(b)} for b in field.branches]}


def _numbers_record(field: Branch) -> dict[str, Any]:
    names = ("size", "local", "stride", "offset", "center")
    numbers = {name: [n if n is None else _json_number(Fraction(n)) for n in getattr(field, name)] for name in names}
    return {**numbers, "global": list(field.everywhere), "at_least": field.at_least}


def _json_number(value: Fraction) -> int | float:
    """An int if the number is an integer, else a float."""
    return value.numerator if value.denominator == 1 else float(value)


def size_text(field: Branch) -> str:
    """`35×35`, `≥ 35×35`, or `224×224 global, 35×35 local` behind an operation over the whole map."""
    if field.unknown:
        return "?"
    bound = "≥ " if field.at_least else ""
    size = bound + _times(field.size)
    if not any(field.everywhere):
        return size
    local = "" if None in field.local else f", {bound}{_times(field.local)} local"
    return f"{size} global{local}"


def field_notes(records: Sequence[Record]) -> list[str]:
    """Notes on what receptive fields miss."""
    notes = []
    for record in records:
        fields = receptive_fields(record)
        if not input_axes(record):
            notes.append(f"{record.label}: no input has height, width or length, so its layers have no receptive field")
        unknown = Counter(record.ops[i].target for i, f in enumerate(fields) if f is not None and f.reach_unknown)
        if unknown:
            which = ", ".join(f"{n} × {target}" for target, n in sorted(unknown.items()))
            notes.append(
                f"{record.label}: receptive fields marked ≥ are lower bounds, because what these operations read is "
                f"unknown: {which}"
            )
        elif bounds := sum(f is not None and f.at_least for f in fields):
            first = next(i for i, f in enumerate(fields) if f is not None and f.at_least)
            where = record.ops[first].layer or record.ops[first].target
            notes.append(
                f"{record.label}: receptive fields marked ≥ are lower bounds ({counted(bounds, 'operation')}, the "
                f"first in {where}): branches of different strides meet, and their fields are not followed beyond the "
                "borders of the map"
            )
    return notes


def _branch_text(branch: Branch) -> str:
    parts = [f"{branch.source} {size_text(branch)}"]
    for name, cell in (("stride", _numbers(branch.stride)), ("offset", _numbers(branch.offset))):
        if cell is not NOTHING:
            parts.append(f"{name} {cell.text}")
    return ", ".join(parts)


def _times(sizes: Sequence[int | None]) -> str:
    return "×".join("?" if size is None else str(size) for size in sizes)


def _numbers(values: Sequence[int | Fraction | None]) -> Cell:
    """One number if it is the same along all axes; else one for each, height before width."""
    if not values or all(value is None for value in values):
        return NOTHING
    texts = ["–" if value is None else _number(value) for value in values]
    return text(texts[0] if len(set(texts)) == 1 else ", ".join(texts))


def _number(value: int | Fraction) -> str:
    """Halves as decimals, other fractions as such: `14.5`, `8/7`."""
    if isinstance(value, Fraction) and value.denominator == 2:
        return f"{float(value):.1f}"
    return str(value)
