"""Verdicts and baselines as reports: tables, records for CSV, and JSON documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

from cspprof.analysis.headline import LEAST_SHARE
from cspprof.core.units import change, distinct_texts
from cspprof.gate.baseline import TotalChange
from cspprof.gate.causes import WHY_LAYERS, Cause
from cspprof.gate.checking import Verdict
from cspprof.gate.config import Problem
from cspprof.gate.measurement import Measurement
from cspprof.gate.rules import Outcome, RuleResult, difference_text, metric_remark
from cspprof.metrics import METRICS, Amount
from cspprof.report.command_json import BOUNDS
from cspprof.report.tables import UNKNOWN, Cell, Column, Report, Table, at_least, text

SCHEMA = "cspprof.check/1"
NO_VALUE = Cell(None, "–")

# -- verdicts --------------------------------------------------------------------------------------


def verdict_report(verdict: Verdict, why: bool) -> Report:
    """Every rule with value, limit and difference; what cannot be measured; with `why`, the causes of each failure."""
    tables = [_results_table(verdict)] if verdict.results else []
    problems = all_problems(verdict)
    if problems:
        columns = [Column("where"), Column("what"), Column("what to do")]
        rows = [[text(p.where), text(p.message), text(" ".join(p.hint.splitlines()))] for p in problems]
        tables.append(Table("Could not be measured", columns, rows))
    if why:
        tables += [table for r in verdict.failures for table in _why_tables(r)]
    notes = [f"{r.rule}: {r.message}" + (f". {r.hint}" if r.hint else "") for r in verdict.failures]
    records = [_result_record(r) for r in verdict.results]
    return Report(tables, records, partial(verdict_document, verdict), [*notes, *verdict.notes])


def all_problems(verdict: Verdict) -> list[Problem]:
    """Invalid entries, models that cannot be measured, and rules whose outcome is unknown."""
    name = verdict.config.name
    unknown = [
        Problem(f"{name}:{r.line or 1}", f"rule {r.rule!r} on {r.place}: {r.message}", r.hint, r.line)
        for r in verdict.unknown
    ]
    return [*verdict.problems, *unknown]


def _results_table(verdict: Verdict) -> Table:
    columns = [
        Column("rule"), Column("model"), Column("metric"), Column("value", True), Column("limit", True),
        Column("difference", True), Column(""),
    ]  # fmt: skip
    holding = [r for r in verdict.results if r.outcome is Outcome.HOLDS]
    return Table("", columns, [_result_row(r) for r in (*verdict.failures, *verdict.unknown, *holding)])


def _result_row(result: RuleResult) -> list[Cell]:
    value, limit = value_and_limit(result)
    good = {Outcome.HOLDS: True, Outcome.FAILS: False, Outcome.UNKNOWN: None}[result.outcome]
    if result.conv_share is not None and result.conv_share < LEAST_SHARE:
        good = good and None  # CIO of such a network says little: holding is no success
    difference = difference_text(result)
    if result.difference and result.difference > 0:
        difference = f"+{difference}"
    if result.at_least and difference:
        difference = f"≥ {difference}"
    status = _status(result)
    return [
        text(result.rule), text(result.place), text(result.metric + metric_remark(result)), _cell(result.value, value),
        _cell(result.limit, limit), _cell(result.difference, difference), Cell(status, status, good),
    ]  # fmt: skip


def _status(result: RuleResult) -> str:
    if result.outcome is Outcome.FAILS:
        return "FAIL" if result.level == "error" else "warn"
    return "ok" if result.outcome is Outcome.HOLDS else "?"


def value_and_limit(result: RuleResult) -> tuple[str, str]:
    """Value and limit as text. If they differ, their texts differ."""
    if result.value is None:
        return "", ""
    limit = result.limit
    value, limit_text = distinct_texts(result.value, result.value if limit is None else limit, result.unit)
    return f"≥ {value}" if result.at_least else value, "" if limit is None else limit_text


def value_text(value: Fraction, unit: str) -> str:
    return distinct_texts(value, value, unit)[0]


def signed_text(value: Fraction, unit: str) -> str:
    return ("+" if value > 0 else "") + value_text(value, unit)


def _cell(value: Fraction | None, shown: str) -> Cell:
    return NO_VALUE if value is None else Cell(json_number(value), shown)


def json_number(value: Fraction | None) -> int | float | None:
    """The value for JSON: an int if it is an integer, else a float."""
    if value is None:
        return None
    return value.numerator if value.denominator == 1 else float(value)


def _why_tables(result: RuleResult) -> list[Table]:
    """One table of the layers that changed, and one of those of which only the input changed."""
    if not result.causes:
        return []
    title = f"Why {result.rule} fails on {result.place}: {METRICS.get(result.metric).title}"
    changed = [c for c in result.causes if not c.only_input_changed]
    following = [c for c in result.causes if c.only_input_changed]
    titled = ((title, changed), (f"{title}, in layers of which only the input changed", following))
    return [_causes_table(title, causes, result.unit) for title, causes in titled if causes]


def _causes_table(title: str, causes: Sequence[Cause], unit: str) -> Table:
    columns = [
        Column("layer"), Column("before", True), Column("now", True), Column("difference", True),
        Column("operation"), Column("class"),
    ]  # fmt: skip
    rows = [
        [
            text(c.layer),
            NO_VALUE if c.before is None else _cell(c.before, value_text(c.before, unit)),
            _cell(c.value, value_text(c.value, unit)),
            _cell(c.difference, signed_text(c.difference, unit)),
            text(operation_change(c)),
            text(source_location(c)),
        ]
        for c in causes[:WHY_LAYERS]
    ]
    others = causes[WHY_LAYERS:]
    if others:
        rest = sum((c.difference for c in others), Fraction(0))
        rows.append(
            [text(f"{len(others)} more"), NO_VALUE, NO_VALUE, _cell(rest, signed_text(rest, unit)), text(""), text("")]
        )
    return Table(title, columns, rows)


def operation_change(cause: Cause) -> str:
    """The operation of the layer; and the operation before, if it was another."""
    if cause.operation_before and cause.operation and cause.operation_before != cause.operation:
        return f"{cause.operation}; was {cause.operation_before}"
    return cause.operation or f"removed; was {cause.operation_before}"


def source_location(cause: Cause) -> str:
    """`net.py:14 Bottleneck`, or the parts of it that are known."""
    place = f"{cause.file}:{cause.line}" if cause.file and cause.line else cause.file
    return f"{place} {cause.class_name}".strip()


def _result_record(result: RuleResult) -> dict[str, Any]:
    return {
        "rule": result.rule,
        "level": result.level,
        "model": result.model,
        "layer": result.layer,
        "metric": result.metric,
        "kind": result.kind,
        "status": result.outcome.value,
        "value": json_number(result.value),
        "limit": json_number(result.limit),
        "difference": json_number(result.difference),
        "base": json_number(result.base),
        "base_name": result.base_name,
        "at_least": result.at_least,
        "conv_share": result.conv_share,
        "engine": result.engine,
        "ratio": result.ratio.value if result.ratio else None,
        "ratio_low": result.ratio.low if result.ratio else None,
        "ratio_high": result.ratio.high if result.ratio else None,
        "least_difference": result.least_difference,
        "message": result.message,
    }


def _cause_record(cause: Cause) -> dict[str, Any]:
    return {
        "layer": cause.layer,
        "before": json_number(cause.before),
        "value": json_number(cause.value),
        "difference": json_number(cause.difference),
        "form": cause.operation,
        "form_before": cause.operation_before,
        "follows": cause.only_input_changed,
        "class": cause.class_name,
        "file": cause.file,
        "line": cause.line,
    }


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """The JSON contract `cspprof.check/1`."""
    return {
        "schema": SCHEMA,
        "config": verdict.config.name,
        "exit_code": verdict.exit_code,
        "findings": [
            {**_result_record(r), "hint": r.hint, "line": r.line, "causes": [_cause_record(c) for c in r.causes]}
            for r in verdict.results
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
                "totals": _totals(m),
                "at_least": _lower_bounds(m),
            }
            for name, m in verdict.measurements.items()
        },
    }


def _totals(measurement: Measurement) -> dict[str, int | float | None]:
    return {metric: json_number(amount.exact) for metric, amount in measurement.totals.items()}


def _lower_bounds(measurement: Measurement) -> list[str]:
    """The metrics whose totals are lower bounds, because they miss operations."""
    return [m for m, amount in measurement.totals.items() if amount.missed and amount.exact is not None]


# -- baselines -------------------------------------------------------------------------------------


def baseline_report(models: Mapping[str, Measurement], name: str) -> Report:
    """The content of a baseline: a column for each model."""
    ordered = [models[n] for n in sorted(models)]
    metrics = [metric for metric, _ in METRICS.items() if any(metric in m.totals for m in ordered)]
    columns = [Column(""), *(Column(m.name, numeric=True) for m in ordered)]
    rows = [[text("input"), *(text(" + ".join(i.removesuffix(":float32") for i in m.inputs)) for m in ordered)]]
    rows += [[text(metric), *(_amount_cell(metric, m.totals.get(metric)) for m in ordered)] for metric in metrics]
    records = [{"model": m.name, "inputs": " + ".join(m.inputs), **_totals(m)} for m in ordered]
    document = {
        "schema": "cspprof.baseline-show/1",
        "baseline": name,
        "models": [
            {
                "model": m.name, "inputs": list(m.inputs), "convention": m.convention, "structure": m.structure,
                "versions": dict(m.versions), "totals": _totals(m), "peak_path": m.peak_path or None,
            }
            for m in ordered
        ],
    }  # fmt: skip
    places = ", ".join(f"{m.name} at {m.peak_path}" for m in ordered if m.peak_path)
    return Report([Table("", columns, rows)], records, document, [f"peak memory: {places}"] if places else [])


def _amount_cell(metric: str, amount: Amount | None) -> Cell:
    value = None if amount is None else amount.exact
    if amount is None or value is None:
        return UNKNOWN if amount is not None and amount.missed else NO_VALUE
    cell = _cell(value, value_text(value, METRICS.get(metric).unit))
    return at_least(cell) if amount.missed else cell


def changes_report(changed: Sequence[TotalChange], title: str, notes: Iterable[str] = ()) -> Report:
    """The changed totals of a baseline; without any, a note that says so."""
    columns = [
        Column("model"), Column("metric"), Column("before", True), Column("after", True), Column("difference", True),
        Column("change", True),
    ]  # fmt: skip
    rows, records = [], []
    for c in changed:
        before, after = (None if amount is None else amount.exact for amount in (c.before, c.after))
        texts = list(change_texts(c))
        bound = c.bound
        step = None if before is None or after is None or bound == "?" else after - before
        of_percentage = metric_unit(c.metric) == "fraction"  # a change of a percentage is a difference in points
        relative = None if step is None or not before or of_percentage else float(step / before)
        no_value = UNKNOWN if bound else NO_VALUE
        rows.append([
            text(c.model), text(c.metric), Cell(json_number(before), texts[0]), Cell(json_number(after), texts[1]),
            no_value if step is None else _cell(step, f"{bound} {signed_text(step, metric_unit(c.metric))}".strip()),
            no_value if relative is None else Cell(relative, f"{bound} {change(relative)}".strip()),
        ])  # fmt: skip
        records.append({
            "model": c.model, "metric": c.metric, "before": json_number(before), "after": json_number(after),
            "relative": relative, "bound": BOUNDS[bound],
        })  # fmt: skip
    tables = [Table(title, columns, rows)] if rows else []
    document = {"schema": "cspprof.baseline-diff/1", "changes": records}
    return Report(tables, records, document, list(notes) if rows else ["no number changed", *notes])


def change_texts(changed: TotalChange) -> tuple[str, str]:
    """Both sides as text, with enough digits to differ; `–` for a side that has no value."""
    before, after = (None if amount is None else amount.exact for amount in (changed.before, changed.after))
    unit = metric_unit(changed.metric)
    texts: Sequence[str]
    if before is not None and after is not None:
        texts = distinct_texts(before, after, unit)
    else:
        texts = ["" if value is None else value_text(value, unit) for value in (before, after)]
    old, new = (
        ("?" if amount and amount.missed else "–") if not shown else f"≥ {shown}" if amount and amount.missed else shown
        for amount, shown in zip((changed.before, changed.after), texts, strict=True)
    )
    return old, new


def metric_unit(metric: str) -> str:
    """The unit of a metric; empty if it is not registered any more."""
    return METRICS.get(metric).unit if metric in METRICS else ""
