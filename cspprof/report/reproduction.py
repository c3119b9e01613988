"""The report of `reproduce`: one table per published table or figure, and related values that are not printed."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import groupby
from typing import Any

from cspprof.core import units
from cspprof.papers.printed_value import decimal
from cspprof.papers.published import PublishedTable, RelatedNumber
from cspprof.papers.reproduction import REPRODUCED, FigureResult, Reproduction, Status
from cspprof.report.tables import Cell, Column, Report, Table, text

MORE_DIGITS = 2
"""Decimal places of a computed value in addition to those of the printed value."""


def reproduction_report(r: Reproduction) -> Report:
    """Every printed figure beside the computed value, with the status of the reproduction."""
    tables = [_figure_table(table, list(results)) for table, results in groupby(r.figures, lambda f: f.table)]
    if r.related:
        tables.append(_related_table(r.related))
    records = [figure_record(f) for f in r.figures]
    document = {
        "schema": "cspprof.reproduce/1",
        "holds": not r.broken,
        "counts": {status.name.lower(): n for status, n in r.counts.items()},
        "figures": records,
        "beside": [
            {"table": t.name, "row": b.row, "computed": float(v), "unit": b.unit, "rule": b.recipe.rule,
             "how": b.recipe.how}
            for t, b, v in r.related
        ],
        "notes": reproduction_notes(r),
    }  # fmt: skip
    return Report(tables, records, document, reproduction_notes(r))


def reproduction_notes(r: Reproduction) -> list[str]:
    """The number of figures by status, and every figure whose result contradicts the data file."""
    counted = " · ".join(f"{n} {status}" for status, n in r.counts.items())
    notes = [f"{len(r.figures)} figures: {counted}"]
    for f in r.figures:
        where = f"{f.table.name}, {f.figure.row}, {f.figure.printed.text}"
        if f.figure.required and f.broken:
            notes.append(f"{where}: was {REPRODUCED[f.figure.required]}, and no longer is.")
        elif f.broken:
            notes.append(f"{where}: does not reproduce, and no reason is known.")
        elif f.contradicts_reason:
            notes.append(f"{where}: is listed as not reproducing ({f.figure.reason}), but it reproduces.")
    return notes


def figure_record(f: FigureResult) -> dict[str, Any]:
    """The result of one figure as a flat record."""
    figure, recipe = f.figure, f.figure.recipe
    network, base = (*(recipe.networks if recipe else ()), None, None)[:2]
    return {
        "table": f.table.name,
        "title": f.table.title,
        "row": figure.row,
        "printed": figure.printed.text,
        "printed_value": float(figure.printed.value),
        "unit": figure.printed.unit,
        "computed": None if f.computed is None else float(f.computed),
        "rule": _rule(f),
        "difference": None if f.difference is None else float(f.difference),
        "difference_unit": "points" if figure.printed.unit == "%" else "fraction",
        "status": f.status.name.lower(),
        "says": status_text(f),
        "spec": network.spec if network else "",
        "base": base.spec if base else "",
        "input": "×".join(map(str, network.input or ())) if network else "",
        "how": recipe.how if recipe else "",
        "must": figure.required or "",
        "holds": not f.broken,
    }


def _rule(f: FigureResult) -> str:
    return f.figure.recipe.rule if f.figure.recipe else "–"


def status_text(f: FigureResult) -> str:
    """The status in words, with the difference: `reading, off by 3.1 %`."""
    if f.status is Status.READING and f.computed is not None:
        agrees = f.figure.printed.agreement(f.computed) == "exact"
        return f"{f.status}, {Status.EXACT if agrees else _off(f)}"
    if f.status is Status.KNOWN:
        return f"{f.status}, because {f.figure.reason}"
    return f"{f.status}, {_off(f)}" if f.status is Status.UNEXPLAINED else str(f.status)


def _off(f: FigureResult) -> str:
    return "off by " + _difference(f).text.lstrip("+−")


def _difference(f: FigureResult) -> Cell:
    if f.difference is None:
        return text("–")
    if f.figure.printed.unit == "%":
        return Cell(float(f.difference), f"{_sign(f.difference)}{decimal(f.difference, 2)} points")
    return Cell(float(f.difference), units.change(float(f.difference)))


def _sign(x: Fraction) -> str:
    return "+" if x > 0 else ""


def _figure_table(table: PublishedTable, results: Iterable[FigureResult]) -> Table:
    columns = [Column("figure"), Column("printed", True), Column("computed", True), Column("rule"),
               Column("difference", True), Column("status")]  # fmt: skip
    lines = []
    for f in results:
        printed = f.figure.printed
        places = printed.places + MORE_DIGITS
        computed = text("–") if f.computed is None else _value(f.computed, places, printed.unit)
        good = False if f.broken else True if f.status in REPRODUCED.values() else None
        lines.append([text(f.figure.row), text(printed.text), computed, text(_rule(f)), _difference(f),
                      Cell(status_text(f), status_text(f), good)])  # fmt: skip
    return Table(table.title, columns, lines)


def _value(x: Fraction, places: int, unit: str) -> Cell:
    return Cell(float(x), f"{decimal(x, places)} {unit}")


def _related_table(related: Iterable[tuple[PublishedTable, RelatedNumber, Fraction]]) -> Table:
    columns = [Column("value"), Column("computed", True), Column("rule"), Column("how")]
    lines = [[text(f"{t.name}: {b.row}"), _value(v, b.places, b.unit), text(b.recipe.rule), text(b.recipe.how)]
             for t, b, v in related]  # fmt: skip
    return Table("Related values that are not printed", columns, lines)
