"""The report of `audit`: the rule and the input size under which each printed number of a table comes out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cspprof.core import units
from cspprof.papers.audit import Audit, Candidate, CellResult, Convention, Outcome, RowResult
from cspprof.papers.paper_table import Column as PrintedColumn
from cspprof.papers.printed_value import decimal
from cspprof.report.notes import STATUS_MEANINGS, incomplete_note
from cspprof.report.tables import Cell, Column, Report, Table, text

MORE_DIGITS = 2
"""Decimal places of a computed number in addition to those of the printed one."""
MOST_OTHERS = 2
"""Further rules that a line of the table names."""
GOOD = {Outcome.EXACT: True, Outcome.TRUNCATED: True, Outcome.NOT_EXPLAINED: False, Outcome.UNKNOWN: None}


def audit_report(audit: Audit) -> Report:
    """One line per printed number, the definitions of the rules, and notes on what does not fit together."""
    records = [cell_record(row, cell) for row in audit.rows for cell in row.cells]
    notes = list(_notes(audit))
    document = {
        "schema": "cspprof.audit/1",
        "table": audit.table.name,
        "explained": audit.explained,
        "mixed": audit.mixed,
        "counts": {outcome.name.lower(): n for outcome, n in audit.counts.items()},
        "columns": [_column_record(audit, column) for column in audit.table.columns],
        "rows": [_row_record(row) for row in audit.rows],
        "cells": records,
        "rules": _rules(audit),
        "not_audited": list(audit.table.not_audited),
        "notes": notes,
    }
    flat = [{**record, "also": "; ".join(record["also"])} for record in records]
    tables = [_cells_table(audit), *([_rules_table(audit)] if document["rules"] else [])]
    return Report(tables, flat, document, notes)


# -- lines ----------------------------------------------------------------------------------------


def _cells_table(audit: Audit) -> Table:
    columns = [
        Column("network", shortens=True), Column("column"), Column("printed", True), Column("computed", True),
        Column("rule"), Column("input"), Column("result"), Column("also", priority=1),
    ]  # fmt: skip
    rows = [_line(row, cell) for row in audit.rows for cell in row.cells]
    return Table(audit.table.name, columns, rows)


def _line(row: RowResult, cell: CellResult) -> list[Cell]:
    best, printed = cell.best, cell.cell.printed
    head = [text(row.traced.row.name), text(cell.cell.column.heading), text(printed.text)]
    result = Cell(str(cell.outcome), _result_text(cell), GOOD[cell.outcome])
    if best is None:
        return [*head, Cell(None, "?"), text("–"), text(units.shape(row.traced.size)), result, text("")]
    good = False if cell.explained and not cell.follows_column else None
    rule = Cell(best.rule.name, convention_text(best.convention), good)
    size = Cell(list(best.size), _input_text(best) or "any", None if best.stated else False)
    also = [convention_text(c.convention) for c in cell.others]
    shown = ", ".join(also[:MOST_OTHERS]) + (f" and {len(also) - MOST_OTHERS} more" if len(also) > MOST_OTHERS else "")
    return [*head, Cell(float(best.value), computed_text(cell, best)), rule, size, result, text(shown)]


def _result_text(cell: CellResult) -> str:
    """`exact`, `truncated`, `nearest: +2.7 %`."""
    if cell.outcome is Outcome.NOT_EXPLAINED and cell.best is not None:
        return f"nearest: {_change(cell.best)}"
    return cell.outcome.name.lower()


def computed_text(cell: CellResult, candidate: Candidate) -> str:
    """The computed number with two more digits, and its unit if a printed MB is read as MiB."""
    unit = "" if candidate.unit.name == cell.cell.printed.unit else f" {candidate.unit.name}"
    return decimal(candidate.value, cell.cell.printed.places + MORE_DIGITS) + unit


def convention_text(convention: Convention) -> str:
    """The name of a rule; for bytes also that the unit is a power of 1024."""
    return f"{convention.rule}, 1024-based" if convention.binary else convention.rule


def _input_text(candidate: Candidate) -> str:
    """The input size of the number; empty if it does not depend on it."""
    return units.shape(candidate.size) if candidate.rule.of_input else ""


def _change(candidate: Candidate) -> str:
    """The computed number against the printed one: `+2.7 %`, or `12 times` if it is at least ten times as large."""
    if candidate.difference >= 9:
        return f"{float(candidate.difference) + 1:,.0f} times"
    return units.change(float(candidate.difference))


def _rules_table(audit: Audit) -> Table:
    """The first sentence of the definition of each rule that the lines name."""
    rows = [[text(name), text(counts.partition(". ")[0].rstrip(".") + ".")] for name, counts in _rules(audit).items()]
    return Table("Rules", [Column("rule"), Column("counts")], rows)


def _rules(audit: Audit) -> dict[str, str]:
    """Definitions of the rules in the table: those that explain a number or come nearest to one."""
    return {c.best.rule.name: c.best.rule.counts for c in audit.cells if c.best}


# -- notes ----------------------------------------------------------------------------------------


def _notes(audit: Audit) -> Iterator[str]:
    counted = " · ".join(f"{n} {outcome}" for outcome, n in audit.counts.items())
    yield f"{units.counted(len(audit.cells), 'printed number')}: {counted}"
    for column in audit.table.columns:
        yield from _column_notes(audit, column)
    if len(audit.sizes) > 1:
        yield f"The rows come from different input sizes: {_counted_sizes(audit)}. They cannot be compared."
    for row in audit.rows:
        yield from _row_notes(audit, row)
    if audit.table.not_audited:
        yield f"Not audited: {', '.join(audit.table.not_audited)}."


def _counted_sizes(audit: Audit) -> str:
    return ", ".join(f"{units.shape(size)} ({units.counted(n, 'row')})" for size, n in audit.sizes.most_common())


def _column_notes(audit: Audit, column: PrintedColumn) -> Iterator[str]:
    found = audit.conventions_of(column)
    if len(found) > 1:
        listed = ", ".join(f"{convention_text(c)} ({units.counted(n, 'row')})" for c, n in found.most_common())
        yield f"The column {column.heading!r} has numbers by different rules: {listed}."
    explained = [c.explained for c in audit.cells if c.cell.column is column and c.explained]
    other = {e.rule.per_mac for e in explained} - {0, column.per_mac}
    if column.per_mac and other and len({e.rule.per_mac for e in explained}) == 1:
        printed, meant = ("FLOPs", "MACs") if column.per_mac == 2 else ("MACs", "FLOPs")
        yield (
            f"The column {column.heading!r} has {meant}: a multiply-accumulate counts as {other.pop()}. "
            f"The {printed} are {'twice' if printed == 'FLOPs' else 'half'} as many."
        )


def _row_notes(audit: Audit, row: RowResult) -> Iterator[str]:
    name, record = row.traced.row.name, row.traced.record
    parts = [
        f"has {c.cell.column.heading} by {convention_text(c.explained.convention)}, most of the column by "
        f"{convention_text(c.convention)}"
        for c in row.other_rules
        if c.explained and c.convention
    ]
    if row.other_size:
        parts.insert(0, f"comes out at {units.shape(row.other_size)}, not at the stated {units.shape(row.traced.size)}")
    if len(row.sizes) > 1:
        parts.insert(0, f"has numbers from different input sizes: {', '.join(map(units.shape, row.sizes))}")
    if parts:
        yield f"{name} {'; '.join(parts)}.{' The row mixes conventions.' if row.mixed else ''}"
    for cell in row.cells:
        c = cell.by_convention
        if c is not None and cell.best is not None and c.convention != cell.best.convention:
            yield (
                f"{name}, {cell.cell.column.heading}: by the rule of the column, {convention_text(c.convention)}, "
                f"it is {computed_text(cell, c)}, {_change(c)}."
            )
    if record.status in STATUS_MEANINGS:
        yield f"{name}, {record.label}: {STATUS_MEANINGS[record.status]}"
    if not record.complete:
        yield incomplete_note(record)


# -- records --------------------------------------------------------------------------------------


def cell_record(row: RowResult, cell: CellResult) -> dict[str, Any]:
    """The result of one printed number as a flat record."""
    best, printed = cell.best, cell.cell.printed
    return {
        "line": row.traced.row.line,
        "network": row.traced.row.name,
        "spec": row.traced.row.spec,
        "status": row.traced.record.status,
        "column": cell.cell.column.heading,
        "quantity": str(cell.cell.column.quantity),
        "printed": printed.text,
        "printed_value": float(printed.value),
        "unit": printed.unit,
        "stated_input": units.shape(row.traced.size),
        "outcome": cell.outcome.name.lower(),
        "rule": convention_text(best.convention) if best else "",
        "input": _input_text(best) if best else "",
        "computed": float(best.value) if best else None,
        "computed_unit": best.unit.name if best else "",
        "difference": float(best.difference) if best else None,
        "also": [convention_text(c.convention) for c in cell.others],
        "column_rule": convention_text(cell.convention) if cell.convention else "",
    }


def _column_record(audit: Audit, column: PrintedColumn) -> dict[str, Any]:
    found = audit.conventions_of(column)
    return {
        "column": column.heading,
        "quantity": str(column.quantity),
        "rules": {convention_text(c): n for c, n in found.most_common()},
    }


def _row_record(row: RowResult) -> dict[str, Any]:
    return {
        "line": row.traced.row.line,
        "network": row.traced.row.name,
        "spec": row.traced.row.spec,
        "stated_input": units.shape(row.traced.size),
        "inputs": [units.shape(size) for size in row.sizes],
        "other_rules": [c.cell.column.heading for c in row.other_rules],
        "mixed": row.mixed,
    }
