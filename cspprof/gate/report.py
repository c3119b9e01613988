"""Verdicts and baselines as reports: pure functions, no printing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

from cspprof.core.units import change, distinct_texts
from cspprof.gate.baseline import Change
from cspprof.gate.causes import SHOWN
from cspprof.gate.checking import Verdict
from cspprof.gate.loading import Problem
from cspprof.gate.measurement import Measured, exact
from cspprof.gate.rules import Cause, Finding, Outcome, difference
from cspprof.metrics import METRICS, Amount
from cspprof.report.tables import Cell, Column, Report, Table, text

SCHEMA = "cspprof.check/1"
NONE = Cell(None, "–")


def status(finding: Finding) -> str:
    """What a list calls it: FAIL, warn, ok, or ? where nobody can say."""
    if finding.outcome is Outcome.FAILS:
        return "FAIL" if finding.level == "error" else "warn"
    return "ok" if finding.outcome is Outcome.HOLDS else "?"


def verdict_report(verdict: Verdict, why: bool) -> Report:
    """Every rule with value, limit and difference; what could not be measured; with `why`, where failures come from."""
    tables = [_findings(verdict)] if verdict.findings else []
    told = problems(verdict)
    if told:
        columns = [Column("where"), Column("what"), Column("what to do")]
        tables.append(
            Table("Could not be measured", columns, [[text(p.where), text(p.message), text(p.hint)] for p in told])
        )
    if why:
        tables += [table for f in verdict.failures for table in _why(f)]
    notes = [f"{f.rule}: {f.message}" + (f". {f.hint}" if f.hint else "") for f in verdict.failures]
    return Report(tables, [_record(f) for f in verdict.findings], partial(document, verdict), [*notes, *verdict.notes])


def problems(verdict: Verdict) -> list[Problem]:
    """Everything that has no answer: bad entries, models that failed, rules that could not be judged."""
    unsure = [
        Problem(
            f"{verdict.config.name}:{f.line or 1}", f"rule {f.rule!r} on {f.place}: {f.message}", f.hint, f.line
        )
        for f in verdict.unknown
    ]  # fmt: skip
    return [*verdict.problems, *unsure]


def _findings(verdict: Verdict) -> Table:
    columns = [
        Column("rule"), Column("model"), Column("metric"), Column("value", True), Column("limit", True),
        Column("difference", True), Column(""),
    ]  # fmt: skip
    unsure = [f for f in verdict.findings if f.outcome is Outcome.UNKNOWN]
    held = [f for f in verdict.findings if f.outcome is Outcome.HOLDS]
    return Table("", columns, [_line(f) for f in (*verdict.failures, *unsure, *held)])


def _line(finding: Finding) -> list[Cell]:
    value, limit = numbers(finding)
    good = {Outcome.HOLDS: True, Outcome.FAILS: False, Outcome.UNKNOWN: None}[finding.outcome]
    over = difference(finding)
    signed = f"+{over}" if finding.difference and finding.difference > 0 else over
    return [
        text(finding.rule), text(finding.place), text(finding.metric), _cell(finding.value, value),
        _cell(finding.limit, limit), _cell(finding.difference, signed), Cell(status(finding), status(finding), good),
    ]  # fmt: skip


def numbers(finding: Finding) -> tuple[str, str]:
    """Value and limit as text; two that differ never read the same."""
    if finding.value is None:
        return "", ""
    if finding.limit is None:
        return distinct_texts(finding.value, finding.value, finding.unit)[0], ""
    return distinct_texts(finding.value, finding.limit, finding.unit)


def _cell(value: Fraction | None, shown: str) -> Cell:
    return NONE if value is None else Cell(number(value), shown)


def number(value: Fraction | None) -> int | float | None:
    """As JSON has it: an integer where it is one."""
    if value is None:
        return None
    return value.numerator if value.denominator == 1 else float(value)


def _why(finding: Finding) -> list[Table]:
    """The layers that were changed; and for themselves those that follow, however much they weigh."""
    heading = f"Why {finding.rule} fails on {finding.place}: {METRICS.get(finding.metric).title}"
    own, following = ([c for c in finding.causes if c.follows is follows] for follows in (False, True))
    titled = ((heading, own), (f"{heading}, in layers that only read another input", following))
    return [_causes(title, causes, finding.unit) for title, causes in titled if causes]


def _causes(heading: str, causes: Sequence[Cause], unit: str) -> Table:
    columns = [
        Column("layer"), Column("before", True), Column("now", True), Column("difference", True),
        Column("what it does"), Column("class"),
    ]  # fmt: skip
    lines = [[text(c.layer), *_sides(c, unit), text(forms(c)), text(source(c))] for c in causes[:SHOWN]]
    left = causes[SHOWN:]
    if left:
        rest = sum((c.difference for c in left), Fraction(0))
        lines.append([text(f"{len(left)} more"), NONE, NONE, _cell(rest, _signed(rest, unit)), *[text("")] * 2])
    return Table(heading, columns, lines)


def _sides(cause: Cause, unit: str) -> list[Cell]:
    before = NONE if cause.before is None else _cell(cause.before, _shown(cause.before, unit))
    moved = cause.difference
    return [before, _cell(cause.value, _shown(cause.value, unit)), _cell(moved, _signed(moved, unit))]


def _shown(value: Fraction, unit: str) -> str:
    return distinct_texts(value, value, unit)[0]


def _signed(value: Fraction, unit: str) -> str:
    return ("+" if value > 0 else "") + _shown(value, unit)


def forms(cause: Cause) -> str:
    """What the layer does, and did where that is something else."""
    if cause.form_before and cause.form and cause.form_before != cause.form:
        return f"{cause.form}; was {cause.form_before}"
    return cause.form or f"gone; was {cause.form_before}"


def source(cause: Cause) -> str:
    """`net.py:14 Bottleneck`, as far as it is known."""
    place = f"{cause.file}:{cause.line}" if cause.file and cause.line else cause.file
    return f"{place} {cause.owner}".strip()


def _record(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "level": finding.level,
        "model": finding.model,
        "layer": finding.layer,
        "metric": finding.metric,
        "kind": finding.kind,
        "status": finding.outcome.value,
        "value": number(finding.value),
        "limit": number(finding.limit),
        "difference": number(finding.difference),
        "base": number(finding.reference),
        "base_name": finding.reference_name,
        "message": finding.message,
    }


def document(verdict: Verdict) -> dict[str, Any]:
    """The JSON contract `cspprof.check/1`."""
    return {
        "schema": SCHEMA,
        "config": verdict.config.name,
        "exit_code": verdict.exit_code,
        "findings": [
            _record(f)
            | {
                "hint": f.hint,
                "line": f.line,
                "causes": [
                    {
                        "layer": c.layer, "before": number(c.before), "value": number(c.value),
                        "difference": number(c.difference), "form": c.form, "form_before": c.form_before,
                        "follows": c.follows,
                        "class": c.owner, "file": c.file, "line": c.line,
                    }
                    for c in f.causes
                ],
            }
            for f in verdict.findings
        ],
        "problems": [
            {"where": p.where, "message": p.message, "hint": p.hint, "line": p.line} for p in verdict.problems
        ],
        "notes": list(verdict.notes),
        "models": {
            name: {
                "inputs": list(m.inputs),
                "convention": m.convention,
                "structure": m.structure,
                "complete": not m.uncounted,
                "totals": {metric: number(exact(a)) for metric, a in m.totals.items()},
            }
            for name, m in verdict.measured.items()
        },
    }  # fmt: skip


# -- baselines -------------------------------------------------------------------------------------


def baseline_report(models: Mapping[str, Measured], name: str) -> Report:
    """What a baseline holds: a column for each model."""
    ordered = [models[n] for n in sorted(models)]
    known = [m for m, _ in METRICS.items()]
    metrics = [m for m in known if any(m in x.totals for x in ordered)]
    columns = [Column(""), *(Column(m.name, numeric=True) for m in ordered)]
    rows = [[text("input"), *(text(" + ".join(i.removesuffix(":float32") for i in m.inputs)) for m in ordered)]]
    rows += [[text(metric), *(_amount(metric, m.totals.get(metric)) for m in ordered)] for metric in metrics]
    records = [
        {"model": m.name, "inputs": " + ".join(m.inputs), **{k: number(exact(a)) for k, a in m.totals.items()}}
        for m in ordered
    ]
    document = {
        "schema": "cspprof.baseline-show/1",
        "baseline": name,
        "models": [
            {
                "model": m.name, "inputs": list(m.inputs), "convention": m.convention, "structure": m.structure,
                "versions": dict(m.versions), "totals": {k: number(exact(a)) for k, a in m.totals.items()},
            }
            for m in ordered
        ],
    }  # fmt: skip
    return Report([Table("", columns, rows)], records, document)


def changes_report(changed: Sequence[Change], title: str, notes: Iterable[str] = ()) -> Report:
    """What differs between two recordings; nothing is said in a note."""
    columns = [
        Column("model"),
        Column("metric"),
        *(Column(h, True) for h in ("before", "after", "difference", "change")),
    ]
    rows = []
    records = []
    for c in changed:
        old, new = (None if a is None else exact(a) for a in (c.before, c.after))
        unit = METRICS.get(c.metric).unit if c.metric in METRICS else ""
        texts = ["–" if v is None else _shown(v, unit) for v in (old, new)]
        if old is not None and new is not None:
            texts = list(distinct_texts(old, new, unit))
        step = None if old is None or new is None else new - old
        relative = None if step is None or not old else float(step / old)
        rows.append([
            text(c.model), text(c.metric), Cell(number(old), texts[0]), Cell(number(new), texts[1]),
            NONE if step is None else Cell(number(step), _signed(step, unit)),
            NONE if relative is None else Cell(relative, change(relative)),
        ])  # fmt: skip
        records.append(
            {"model": c.model, "metric": c.metric, "before": number(old), "after": number(new), "relative": relative}
        )
    tables = [Table(title, columns, rows)] if rows else []
    said = list(notes) if rows else ["no number differs", *notes]
    return Report(tables, records, {"schema": "cspprof.baseline-diff/1", "changes": records}, said)


def _amount(metric: str, amount: Amount | None) -> Cell:
    value = None if amount is None else exact(amount)
    return NONE if value is None else Cell(number(value), _shown(value, METRICS.get(metric).unit))
