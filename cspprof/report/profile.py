"""The report of `profile`, `cio`, `flops` and `compare`: totals, changes, where they come from, and layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

from cspprof.analysis.comparison import Comparison, adds_up, format_depths
from cspprof.analysis.headline import OF_CONVOLUTIONS, cio_describes_all, needs_conv_share
from cspprof.analysis.module_summary import peak_path
from cspprof.analysis.stages import stage_depths
from cspprof.core.record import Record
from cspprof.metrics import METRICS, lower_bounds, value_of
from cspprof.metrics.conventions import convention_named
from cspprof.metrics.names import CIO_CONVENTIONS, resolve_metric
from cspprof.report.changes import change_tables, metric_change
from cspprof.report.command_json import json_document
from cspprof.report.layer_tables import Breakdown, largest_layers, layer_table
from cspprof.report.metric_labels import SHORT_METRICS, at_least_field, metric_label, model_fields
from cspprof.report.model_table import (
    complexity_table,
    exact_total,
    largest_layer_table,
    models_table,
    stages_table,
)
from cspprof.report.notes import cio_notes, model_notes, peak_notes
from cspprof.report.receptive_field import field_notes
from cspprof.report.tables import (
    Cell,
    Column,
    PageSection,
    Report,
    Table,
    text,
)

T = TypeVar("T")

CIO_METRICS = ("params", "conv_weights", "macs", "bflops", "cio_hardnet", "cio_cspnet", "moc", "peak_bytes")
FLOPS_METRICS = ("macs", "flops", "bflops", "bflops_cspnet", "bflops_darknet", "params", "conv_weights",
                 "bottleneck_macs", "bottleneck_share", "balance")  # fmt: skip
TRAFFIC_METRICS = ("traffic_bytes", "cio_all", *CIO_METRICS)
"""The metrics of networks that CIO does not describe: those of memory traffic that count every operation come first."""
COMPUTE_UNITS = ("MACs", "FLOPs", "BFLOPs")
MOST_SIDE_BY_SIDE = 3
"""With more models, a table has one row per model instead of one column."""


def profile_report(
    command: str, profiles: Sequence[Record], metrics: Sequence[str], focus: str, how: Breakdown,
    convention: str | None = None, in_records: Sequence[str] = (), hints: Sequence[str] = (),
    chosen: bool = False,
) -> Report:  # fmt: skip
    """Totals of every model, changes from the first model and where they come from, and layers or groups.

    With `convention`, compute is counted in the convention of that tool. The records have also the metrics
    `in_records`. If a user has `chosen` the metrics of several models, LaTeX and Markdown show one row per model.
    """
    notes = [note for p in profiles for note in model_notes(p)]
    if OF_CONVOLUTIONS & {*metrics, focus}:
        notes += cio_notes(profiles)
    if how.top is not None and how.sort is None:
        how = how._replace(sort=focus)
    in_records = in_records or metrics
    if convention is not None:
        in_records, _ = apply_convention(convention, in_records, focus)
        metrics, focus = apply_convention(convention, metrics, focus)
        c = convention_named(convention)
        notes.append(f"{c.title} are those of {c.tool}, {c.unit}: cspprof explain {c.name}")
    with_fields = bool(set(how.field_columns) & set(how.columns))
    if with_fields:
        notes += field_notes(profiles)
    tables = summary_tables(profiles, metrics)
    records = [_total_record(p, with_conv_share(in_records, profiles)) for p in profiles]
    of_models = notes
    many = len(profiles) > MOST_SIDE_BY_SIDE
    if len(profiles) > 1:
        comparison = Comparison(tuple(profiles))
        if adds_up(focus):
            tables += _stages(comparison, focus) if many else change_tables(comparison, focus)
        notes = notes + comparison.notes + (peak_notes(profiles) if "peak_bytes" in metrics else [])
    paper = section = None
    if chosen and len(profiles) > 1 and not how.requested:
        table = complexity_table(profiles, with_conv_share(metrics, profiles))
        shown = notes if len(profiles) == 2 else of_models  # more models have no changes in the table
        paper = Report([table], [], {}, tuple(dict.fromkeys(shown)))
    if not how.requested:
        tables += [largest_layer_table(profiles, focus)] if many else [largest_layers(p, focus) for p in profiles]
    else:
        records = []
        for p in profiles:
            table, rows = layer_table(p, how, metrics, focus, in_records)
            tables.append(table)
            records += rows
        if with_fields:
            section = PageSection("Receptive fields", tables[-len(profiles) :])
    document = partial(json_document, f"cspprof.{command}/1", profiles, convention, metrics, with_fields)
    notes = list(dict.fromkeys(notes))
    return Report(tables, records, document, notes, profiles, focus, hints=hints, section=section, paper=paper)


def apply_convention(convention: str, metrics: Sequence[str], focus: str) -> tuple[list[str], str]:
    """`metrics` and `focus` with the metric of the convention in place of all metrics of compute.

    `focus` stays if the convention has no value per layer.
    """
    compute = [m for m in metrics if METRICS.get(m).unit in (*COMPUTE_UNITS, "fraction")]  # fractions are of MACs
    at = metrics.index(compute[0]) if compute else len(metrics)
    result = [m for m in metrics if m not in compute]
    if convention not in result:
        result.insert(at, convention)
    c = convention_named(convention)
    return result, convention if focus in compute and c.of_op is not None and c.scale == 1 else focus


def cio_metrics(profiles: Sequence[Record]) -> tuple[str, ...]:
    """The metrics of `cio`: those of the paper, or of all memory traffic if CIO does not describe a network."""
    return CIO_METRICS if cio_describes_all(profiles) else TRAFFIC_METRICS


def every_metric(profiles: Sequence[Record]) -> list[str]:
    """Every registered metric; those of all memory traffic first if CIO does not describe a network."""
    first = () if cio_describes_all(profiles) else TRAFFIC_METRICS[:2]
    return list(dict.fromkeys([*first, *METRICS]))


def short_metrics(profiles: Sequence[Record], convention: str | None = None) -> list[str]:
    """One metric of each kind, and the metrics that users registered. CIO is that of the convention; without one of
    CIO, it is left out if it does not describe a network."""
    cio = resolve_metric("cio", convention)
    if convention not in CIO_CONVENTIONS and not cio_describes_all(profiles):
        cio = ""
    builtin = [m for m in (cio if m == "cio_cspnet" else m for m in SHORT_METRICS) if m]
    return builtin + [m for m in METRICS.names() if not METRICS.get(m).builtin]


def with_conv_share(metrics: Sequence[str], profiles: Sequence[Record]) -> list[str]:
    """`metrics` with the share of the MACs that CIO sees behind those of convolutions, where it must be shown."""
    cio = [i for i, m in enumerate(metrics) if m in OF_CONVOLUTIONS and m != "moc"]
    if not cio or "conv_share" in metrics or not any(map(needs_conv_share, profiles)):
        return list(metrics)
    return [*metrics[: cio[-1] + 1], "conv_share", *metrics[cio[-1] + 1 :]]


# -- totals -----------------------------------------------------------------------------------------


def summary_tables(profiles: Sequence[Record], metrics: Sequence[str] | None = None) -> list[Table]:
    """The totals of the models, with the change from the first one: side by side, or one row per model if there are
    more. By default the metrics of `cio`."""
    metrics = with_conv_share(cio_metrics(profiles) if metrics is None else metrics, profiles)
    return [(_side_by_side if len(profiles) <= MOST_SIDE_BY_SIDE else models_table)(profiles, metrics)]


def _stages(comparison: Comparison, metric: str) -> list[Table]:
    table = stages_table(comparison, metric)
    return [] if table is None else [table]


def _side_by_side(profiles: Sequence[Record], metrics: Sequence[str]) -> Table:
    base, *others = profiles
    columns = [Column(""), Column(base.label, numeric=True, shortens=True)]
    for p in others:  # the values of three models matter more than the changes, which a narrow terminal leaves out
        columns += [
            Column(p.label, numeric=True, shortens=True),
            Column("change", numeric=True, priority=int(len(others) > 1)),
        ]
    lines: list[list[Cell]] = []
    facts = [_input_and_depth(p) for p in profiles]
    if all(f["dtype"].text == "float32" for f in facts):
        facts = [{name: cell for name, cell in f.items() if name != "dtype"} for f in facts]
    for name, first in facts[0].items():
        line = [text(name), first]
        for cell in (other[name] for other in facts[1:]):
            known = cell.text != "–" and first.text != "–"
            line += [cell, text("differs" if known and cell.text != first.text else "")]
        lines.append(line)
    for m in metrics:
        line = [text(metric_label(m)), exact_total(base, m)]
        for p in others:
            line += [exact_total(p, m), metric_change(m, base, p)]
        lines.append(line)
        if m == "peak_bytes" and not others and peak_path(base):
            lines.append([text("  at"), text(peak_path(base))])
    return Table("", columns, lines)


def _input_and_depth(record: Record) -> dict[str, Cell]:
    depth = stage_depths(record)
    return {
        "input": text(" + ".join(str(t) for t in record.inputs)),
        "dtype": text(record.dtype),
        "depth per stage": Cell(depth, format_depths(depth) or "–"),
    }


def _total_record(record: Record, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        **model_fields(record),
        "input": " + ".join(map(str, record.inputs)),
        "dtype": record.dtype,
        "depths": format_depths(stage_depths(record)),
        **{m: value_of(record, m) for m in metrics},
        "complete": record.complete,
        **at_least_field(lower_bounds(record, metrics)),
        **({"peak_path": peak_path(record)} if "peak_bytes" in metrics else {}),
    }
