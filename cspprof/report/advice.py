"""The report of `advise`: the suggestions for a network, the largest gain first."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from cspprof.core import units
from cspprof.core.record import Record
from cspprof.csp.advice import Suggestion
from cspprof.csp.advice.proposal import OWN_NUMBERS
from cspprof.metrics import HIGHER_IS_BETTER, METRICS
from cspprof.report.metric_labels import model_fields
from cspprof.report.notes import incomplete_note
from cspprof.report.tables import Cell, Column, Report, Table, change, quantity, text

NOTHING = "nothing worth changing"
TRACED, COMPUTED = "traced", "computed from shapes"


def advice_report(record: Record, found: Sequence[Suggestion], top: int | None = None) -> Report:
    """One row for each suggestion: where, what was found, what to change, and the number before and after."""
    shown = list(found[:top])
    records = [suggestion_record(record, rank, s) for rank, s in enumerate(shown, 1)]
    document = {"schema": "cspprof.advise/1", "model": record.model, "status": record.status,
                "source": record.source, "suggestions": records}  # fmt: skip
    notes = [] if record.complete else [incomplete_note(record)]
    if len(found) > len(shown):
        notes.append(f"{len(found) - len(shown)} more suggestions: --top {len(found)}")
    if not shown:
        table = Table(record.label, [Column("advice")], [[text(NOTHING)]])
        return Report([table], records, document, notes, [record])
    for rank, s in enumerate(shown, 1):
        if worse := s.worse(record):
            notes.append(f"{rank}: " + ", ".join(f"{METRICS.get(m).title} {units.change(c)}" for m, c in worse.items()))
    untraced = [s for s in shown if not s.traced]
    for reason in dict.fromkeys(s.reason for s in untraced):
        ranks = ", ".join(str(shown.index(s) + 1) for s in untraced if s.reason == reason)
        notes.append(f"{ranks}: {COMPUTED}, not traced: {reason}")
    numbers = [
        Column("#", numeric=True), Column("where", shortens=True), Column("number"), Column("before", numeric=True),
        Column("after", numeric=True), Column("change", numeric=True), Column("by", priority=1),
    ]  # fmt: skip
    rows = [
        [Cell(rank, str(rank)), text(s.proposal.place), text(title_of_number(s.proposal.metric)),
         _value(s.proposal.metric, s.before), _value(s.proposal.metric, s.after), _change(s),
         text(TRACED if s.traced else COMPUTED)]
        for rank, s in enumerate(shown, 1)
    ]  # fmt: skip
    words = [
        [Cell(rank, str(rank)), text(s.proposal.finding), text(s.proposal.action)] for rank, s in enumerate(shown, 1)
    ]
    tables = [
        Table(f"{record.label}: {units.counted(len(shown), 'suggestion')}", numbers, rows),
        Table("What to change", [Column("#", numeric=True), Column("found"), Column("change")], words),
    ]
    return Report(tables, records, document, notes, [record])


def title_of_number(metric: str) -> str:
    return OWN_NUMBERS[metric][0] if metric in OWN_NUMBERS else METRICS.get(metric).title


def suggestion_record(record: Record, rank: int, s: Suggestion) -> dict[str, Any]:
    """A suggestion as a flat dict: rank, adviser, place, found, change, metric, before, after, gain, by, reason, and
    what gets worse."""
    return {
        **model_fields(record), "rank": rank, "adviser": s.adviser, "place": s.proposal.place,
        "found": s.proposal.finding, "change": s.proposal.action, "metric": s.proposal.metric,
        "before": _plain(s.before), "after": _plain(s.after), "gain": s.gain,
        "by": TRACED if s.traced else COMPUTED, "reason": s.reason,
        "worse": " ".join(f"{m} {units.change(c)}" for m, c in s.worse(record).items()),
    }  # fmt: skip


def _plain(value: Fraction) -> int | float:
    return value.numerator if value.denominator == 1 else float(value)


def _value(metric: str, value: Fraction) -> Cell:
    plain = _plain(value)
    return Cell(plain, units.count(int(plain))) if metric in OWN_NUMBERS else quantity(metric, plain)


def _change(s: Suggestion) -> Cell:
    relative = float((s.after - s.before) / s.before) if s.before else None
    return change(relative, s.proposal.metric not in HIGHER_IS_BETTER)
