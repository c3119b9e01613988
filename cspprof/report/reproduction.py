"""A reproduction as a report: a table for each table or figure in print, and what belongs beside its figures."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import groupby
from typing import Any

from cspprof.core import units
from cspprof.papers.figures import Beside, Published
from cspprof.papers.printed import decimal
from cspprof.papers.reproduction import MUST, Finding, Reproduction, Status
from cspprof.report.tables import Cell, Column, Report, Table, text

MORE_DIGITS = 2
"""Decimal places of a computed value beyond those of the printed one."""


def reproduction_report(r: Reproduction) -> Report:
    """The answer to `reproduce`."""
    tables = [_figures(table, list(found)) for table, found in groupby(r.findings, lambda f: f.table)]
    if r.beside:
        tables.append(_beside(r.beside))
    records = [figure_record(f) for f in r.findings]
    document = {
        "schema": "cspprof.reproduce/1",
        "holds": not r.broken,
        "counts": {status.name.lower(): n for status, n in r.counts.items()},
        "figures": records,
        "beside": [
            {"table": t.name, "row": b.row, "computed": float(v), "unit": b.unit, "rule": b.recipe.rule,
             "how": b.recipe.how}
            for t, b, v in r.beside
        ],
        "notes": notes(r),
    }  # fmt: skip
    return Report(tables, records, document, notes(r))


def notes(r: Reproduction) -> list[str]:
    """The figures by status, and whatever has to be looked into."""
    counted = " · ".join(f"{n} {status}" for status, n in r.counts.items())
    found = [f"{len(r.findings)} figures: {counted}"]
    for f in r.findings:
        where = f"{f.table.name}, {f.figure.row}, {f.figure.printed.text}"
        if f.figure.must and f.broken:
            found.append(f"{where}: came out {MUST[f.figure.must]}, and no longer does.")
        elif f.broken:
            found.append(f"{where}: does not come out, and no reason is known.")
        elif f.contradicted:
            found.append(f"{where}: is said not to reproduce ({f.figure.because}), and does.")
    return found


def figure_record(f: Finding) -> dict[str, Any]:
    """A finding as one flat row."""
    figure, recipe = f.figure, f.figure.recipe
    subject, base = (*(recipe.subjects if recipe else ()), None, None)[:2]
    return {
        "table": f.table.name,
        "title": f.table.title,
        "row": figure.row,
        "printed": figure.printed.text,
        "printed_value": float(figure.printed.value),
        "unit": figure.printed.unit,
        "computed": None if f.computed is None else float(f.computed),
        "rule": rule(f),
        "difference": None if f.distance is None else float(f.distance),
        "difference_unit": "points" if figure.printed.unit == "%" else "fraction",
        "status": f.status.name.lower(),
        "says": says(f),
        "spec": subject.spec if subject else "",
        "base": base.spec if base else "",
        "input": "×".join(map(str, subject.input or ())) if subject else "",
        "how": recipe.how if recipe else "",
        "must": figure.must or "",
        "holds": not f.broken,
    }


def rule(f: Finding) -> str:
    return f.figure.recipe.rule if f.figure.recipe else "–"


def says(f: Finding) -> str:
    """The status in words: `reading, off by 3.1 %`."""
    if f.status is Status.READING and f.computed is not None:
        agrees = f.figure.printed.agreement(f.computed) == "exact"
        return f"{f.status}, {Status.EXACT if agrees else _off(f)}"
    if f.status is Status.KNOWN:
        return f"{f.status}, because {f.figure.because}"
    return f"{f.status}, {_off(f)}" if f.status is Status.UNEXPLAINED else str(f.status)


def _off(f: Finding) -> str:
    return "off by " + _distance(f).text.lstrip("+−")


def _distance(f: Finding) -> Cell:
    if f.distance is None:
        return text("–")
    if f.figure.printed.unit == "%":
        return Cell(float(f.distance), f"{_sign(f.distance)}{decimal(f.distance, 2)} points")
    return Cell(float(f.distance), units.change(float(f.distance)))


def _sign(x: Fraction) -> str:
    return "+" if x > 0 else ""


def _figures(table: Published, found: Iterable[Finding]) -> Table:
    columns = [Column("figure"), Column("printed", True), Column("computed", True), Column("rule"),
               Column("difference", True), Column("status")]  # fmt: skip
    lines = []
    for f in found:
        printed = f.figure.printed
        places = printed.places + MORE_DIGITS
        computed = text("–") if f.computed is None else _value(f.computed, places, printed.unit)
        good = False if f.broken else True if f.status in MUST.values() else None
        lines.append([text(f.figure.row), text(printed.text), computed, text(rule(f)), _distance(f),
                      Cell(says(f), says(f), good)])  # fmt: skip
    return Table(table.title, columns, lines)


def _value(x: Fraction, places: int, unit: str) -> Cell:
    return Cell(float(x), f"{decimal(x, places)} {unit}")


def _beside(found: Iterable[tuple[Published, Beside, Fraction]]) -> Table:
    columns = [Column("beside them"), Column("computed", True), Column("rule"), Column("how")]
    lines = [[text(f"{t.name}: {b.row}"), _value(v, b.places, b.unit), text(b.recipe.rule), text(b.recipe.how)]
             for t, b, v in found]  # fmt: skip
    return Table("Not in print", columns, lines)
