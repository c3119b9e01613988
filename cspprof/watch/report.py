"""The answer to a save as a report: totals before and now, the layers that changed, and the rules of the project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cspprof.analysis.comparison import Comparison, Delta, adds_up
from cspprof.analysis.structural_hash import structural_hash
from cspprof.core.record import Record
from cspprof.gate.checking import Verdict
from cspprof.gate.report import verdict_report
from cspprof.metrics import METRICS, NEITHER_IS_BETTER, Amount
from cspprof.report.changes import layers_table, lower_is_better
from cspprof.report.metric_labels import metric_label, title_of
from cspprof.report.model_table import exact_total
from cspprof.report.notes import cio_notes, model_notes
from cspprof.report.profile import short_metrics, with_conv_share
from cspprof.report.tables import Cell, Column, Report, Table, change_of, text

MOST_LAYERS = 5


@dataclass(frozen=True)
class Baseline:
    """The second reference of a model, beside its last version: its first version, or the recorded baseline."""

    name: str
    """`the start` or `the baseline`."""
    totals: Mapping[str, Amount]

    @classmethod
    def of_start(cls, record: Record, metrics: Sequence[str]) -> Baseline:
        """The totals of the first version: every metric that is registered now, and `metrics`."""
        return cls("the start", {name: METRICS.get(name).total(record) for name in (*METRICS.names(), *metrics)})


@dataclass(frozen=True)
class Answer:
    """A version of a model, and what it is compared with."""

    record: Record
    number: int
    """1 for the first version. A save that changes nothing makes no new version."""
    before: Record | None
    """The last version; None for the first one."""
    baseline: Baseline
    metrics: Sequence[str] = ()
    """The metrics that a user has chosen; empty for one of each kind."""
    verdict: Verdict | None = None
    notes: Sequence[str] = field(default_factory=tuple)


def answer_report(answer: Answer) -> Report:
    """The report of an answer."""
    record, before = answer.record, answer.before
    compared = [record] if before is None else [before, record]
    metrics = with_conv_share(answer.metrics or short_metrics(compared), compared)
    notes = list(answer.notes)
    if before is None or model_notes(before) != model_notes(record):
        notes += [*model_notes(record), *(cio_notes([record]) if set(metrics) & CIO else [])]
    tables = [_totals(answer, metrics)]
    if before is not None:
        unchanged = all(_same(metric, before, record) for metric in metrics)
        if before.inputs != record.inputs:
            notes.insert(0, f"the input changed: {_inputs(before)} before, {_inputs(record)} now")
        if unchanged:
            notes.insert(0, _unchanged_note(before, record))
        elif (changed := _layers(before, record, metrics)) is not None:
            tables.append(changed)
    if answer.verdict is not None:
        rules = verdict_report(answer.verdict, why=False)
        title = f"Rules of {answer.verdict.config.name}"
        tables += [table._replace(title=table.title or title) for table in rules.tables]
        notes += rules.notes
    return Report(tables, [], {}, tuple(dict.fromkeys(notes)))


CIO = {"cio_cspnet", "cio_hardnet"}


def _same(metric: str, before: Record, record: Record) -> bool:
    return METRICS.get(metric).total(before) == METRICS.get(metric).total(record)


def _unchanged_note(before: Record, record: Record) -> str:
    if structural_hash(before) == structural_hash(record):
        return "no number changed"
    return "the structure changed, with the same totals"


def _totals(answer: Answer, metrics: Sequence[str]) -> Table:
    """One row per metric: before and now, the change from the last version, and the change from the baseline."""
    record, before, baseline = answer.record, answer.before, answer.baseline
    from_baseline = baseline.name != "the start" or before is not None
    columns, rows = [Column("")], [[text(metric_label(metric))] for metric in metrics]
    if before is not None:
        columns += [Column("before", numeric=True), Column("now", numeric=True), Column("change", numeric=True)]
        for row, metric in zip(rows, metrics, strict=True):
            last = METRICS.get(metric).total(before)
            row += [exact_total(before, metric), exact_total(record, metric), _change(metric, last, record)]
    else:
        columns.append(Column("now", numeric=True))
        for row, metric in zip(rows, metrics, strict=True):
            row.append(exact_total(record, metric))
    if from_baseline:
        columns.append(Column(f"since {baseline.name}", numeric=True))
        for row, metric in zip(rows, metrics, strict=True):
            row.append(_change(metric, baseline.totals.get(metric), record))
    title = f"{record.label} on {_inputs(record)}" if before is None else f"{record.label}, version {answer.number}"
    return Table(title, columns, rows)


def _inputs(record: Record) -> str:
    return ", ".join(map(str, record.inputs))


def _change(metric: str, before: Amount | None, record: Record) -> Cell:
    """The relative change of a total from `before`; `–` if that is not known."""
    if metric in NEITHER_IS_BETTER:
        return text("")
    if before is None:
        return text("–")
    now = METRICS.get(metric).total(record)
    delta = Delta(record.model, record.model, metric, before.value, now.value, before.missed, now.missed)
    return change_of(delta, lower_is_better(metric, [record]))


def _layers(before: Record, record: Record, metrics: Sequence[str]) -> Table | None:
    """The layers that changed most, in MACs or else in the first of the metrics that changed; None if none has."""
    comparison = Comparison((before, record))
    for metric in sorted(metrics, key=lambda metric: metric != "macs"):
        if adds_up(metric) and not _same(metric, before, record) and (changed := comparison.by_layer(metric)):
            pair = [before, record]
            title = f"Layers that changed most: {title_of(metric, pair)}"
            better = lower_is_better(metric, pair)
            return layers_table(title, metric, changed[:MOST_LAYERS], ("before", "now"), better)
    return None
