"""A reproduction as a report: a table for each table or figure in print, and what belongs beside its figures."""

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
"""Decimal places of a computed value beyond those of the printed one."""


def reproduction_report(r: Reproduction) -> Report:
    """The answer to `reproduce`."""
    tables = [_figures(table, list(found)) for table, found in groupby(r.figures, lambda f: f.table)]
    if r.related:
        tables.append(_beside(r.related))
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
        "notes": notes(r),
    }  # fmt: skip
    return Report(tables, records, document, notes(r))


def notes(r: Reproduction) -> list[str]:
    """The figures by status, and whatever has to be looked into."""
    counted = " · ".join(f"{n} {status}" for status, n in r.counts.items())
    found = [f"{len(r.figures)} figures: {counted}"]
    for f in r.figures:
        where = f"{f.table.name}, {f.figure.row}, {f.figure.printed.text}"
        if f.figure.required and f.broken:
            found.append(f"{where}: came out {REPRODUCED[f.figure.required]}, and no longer does.")
        elif f.broken:
            found.append(f"{where}: does not come out, and no reason is known.")
        elif f.contradicts_reason:
            found.append(f"{where}: is said not to reproduce ({f.figure.reason}), and does.")
    return found


def figure_record(f: FigureResult) -> dict[str, Any]:
    """A finding as one flat row."""
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
        "rule": rule(f),
        "difference": None if f.difference is None else float(f.difference),
        "difference_unit": "points" if figure.printed.unit == "%" else "fraction",
        "status": f.status.name.lower(),
        "says": says(f),
        "spec": network.spec if network else "",
        "base": base.spec if base else "",
        "input": "×".join(map(str, network.input or ())) if network else "",
        "how": recipe.how if recipe else "",
        "must": figure.required or "",
        "holds": not f.broken,
    }


def rule(f: FigureResult) -> str:
    return f.figure.recipe.rule if f.figure.recipe else "–"


def says(f: FigureResult) -> str:
    """The status in words: `reading, off by 3.1 %`."""
    if f.status is Status.READING and f.computed is not None:
        agrees = f.figure.printed.agreement(f.computed) == "exact"
        return f"{f.status}, {Status.EXACT if agrees else _off(f)}"
    if f.status is Status.KNOWN:
        return f"{f.status}, because {f.figure.reason}"
    return f"{f.status}, {_off(f)}" if f.status is Status.UNEXPLAINED else str(f.status)


def _off(f: FigureResult) -> str:
    return "off by " + _distance(f).text.lstrip("+−")


def _distance(f: FigureResult) -> Cell:
    if f.difference is None:
        return text("–")
    if f.figure.printed.unit == "%":
        return Cell(float(f.difference), f"{_sign(f.difference)}{decimal(f.difference, 2)} points")
    return Cell(float(f.difference), units.change(float(f.difference)))


def _sign(x: Fraction) -> str:
    return "+" if x > 0 else ""


def _figures(table: PublishedTable, found: Iterable[FigureResult]) -> Table:
    columns = [Column("figure"), Column("printed", True), Column("computed", True), Column("rule"),
               Column("difference", True), Column("status")]  # fmt: skip
    lines = []
    for f in found:
        printed = f.figure.printed
        places = printed.places + MORE_DIGITS
        computed = text("–") if f.computed is None else _value(f.computed, places, printed.unit)
        good = False if f.broken else True if f.status in REPRODUCED.values() else None
        lines.append([text(f.figure.row), text(printed.text), computed, text(rule(f)), _distance(f),
                      Cell(says(f), says(f), good)])  # fmt: skip
    return Table(table.title, columns, lines)


def _value(x: Fraction, places: int, unit: str) -> Cell:
    return Cell(float(x), f"{decimal(x, places)} {unit}")


def _beside(found: Iterable[tuple[PublishedTable, RelatedNumber, Fraction]]) -> Table:
    columns = [Column("beside them"), Column("computed", True), Column("rule"), Column("how")]
    lines = [[text(f"{t.name}: {b.row}"), _value(v, b.places, b.unit), text(b.recipe.rule), text(b.recipe.how)]
             for t, b, v in found]  # fmt: skip
    return Table("Not in print", columns, lines)
