"""Reports: the predicted latency of models, and what a calibration found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cspprof.core import units
from cspprof.core.errors import CspprofError
from cspprof.measure.calibration.calibration_file import Calibration, calibration_rows
from cspprof.measure.calibration.kernels import KERNELS, RUN, Shape
from cspprof.measure.calibration.prediction import KernelTime, LatencyPrediction
from cspprof.measure.machine import BUSY_SHARE
from cspprof.measure.report import TIME_SECTION
from cspprof.metrics import value_of
from cspprof.report.metric_labels import model_fields
from cspprof.report.notes import model_notes
from cspprof.report.tables import Cell, Column, PageSection, Report, Table, at_least, integer, text

PARTS = ("compute", "memory", "overhead")
TOP = 10
"""Kernels in the table if the command does not choose a number."""


class Listing(NamedTuple):
    """Which rows follow the totals: the slowest kernels, all kernels in execution order, or groups of them."""

    layers: bool = False
    top: int | None = None
    depth: int | None = None
    by: str | None = None

    @property
    def is_grouped(self) -> bool:
        return self.depth is not None or self.by is not None


# -- predictions --------------------------------------------------------------------------------------


def prediction_report(predictions: Sequence[LatencyPrediction], listing: Listing, notes: Sequence[str]) -> Report:
    """The predicted latency of each model with its error, and where the time goes."""
    lists = [_rows(p, listing) for p in predictions]
    tables = [
        _total_table(predictions),
        *(_list_table(p, rows, listing) for p, rows in zip(predictions, lists, strict=True)),
    ]
    records = [_total_record(p) for p in predictions]
    if listing != Listing():
        records = [
            {**model_fields(p.record), **_row_record(row, p.seconds), "fused": ", ".join(row.fused)}
            for p, rows in zip(predictions, lists, strict=True) for row in rows
        ]  # fmt: skip
    document = {
        "schema": "cspprof.prediction/1",
        "predictions": [
            {**_total_record(p), "run_ms": p.run_seconds * 1e3, "fusions": p.fusion.text(),
             "layers": [_row_record(_row_of(k), p.seconds) for k in p.kernels]}
            for p in predictions
        ],
    }  # fmt: skip
    found = [note for p in predictions for note in (*model_notes(p.record), *_missed_notes(p))]
    profiles = [p.record for p in predictions]
    return Report(
        tables, records, document, [*notes, *found], profiles, "macs", section=PageSection(TIME_SECTION, tables)
    )


def calibration_notes(calibration: Calibration, fusions: str) -> list[str]:
    """The notes on predictions by a calibration."""
    error = calibration.error
    families = len({p.family for p in error.predictions})
    found = [
        f"{calibration.label}: predicted times of {units.counted(len(error.predictions), 'network')} of {families} "
        f"families, each left out of the fit, are off by {units.share(error.median)} (median) and by at most "
        f"{units.share(abs(error.worst.error))} ({error.worst.name}){_rank_text(error.spearman)}.",
        f"assumed of {calibration.engine}: {fusions}; channels are padded to multiples of "
        f"{calibration.shape.block}{_cache_text(calibration.shape)}.",
    ]
    return found + busy_notes(calibration)


def _cache_text(shape: Shape) -> str:
    if shape.cache_bytes is None:
        return ""
    return f"; activations of a kernel beyond {units.nbytes(shape.cache_bytes)} take longer"


def busy_notes(calibration: Calibration) -> list[str]:
    share = calibration.other_cpu_share
    if share is None or share <= BUSY_SHARE:
        return []
    return [
        f"the machine was busy when {calibration.engine} was calibrated: other processes used {units.share(share)} of "
        "its CPUs. End them, then calibrate again."
    ]


def _rank_text(spearman: float | None) -> str:
    return "" if spearman is None else f"; rank correlation {spearman:.3f}"


def hardware_notes(title: str, source: str) -> list[str]:
    """The notes on estimates from published peak rates."""
    return [
        f"{title}: {source}.",
        f"{title}: an estimate at the published peak rates, without overhead and without caches, and with batch norm, "
        "activations and sums computed in the convolution before them. Its error is unknown: nothing was measured on "
        "this hardware. Real times are mostly longer.",
    ]


def _missed_notes(prediction: LatencyPrediction) -> list[str]:
    if not prediction.missed:
        return []
    kinds = sorted({k.kind for k in prediction.kernels if k.seconds is None})
    return [
        f"{prediction.record.label}: the time of {units.counted(prediction.missed, 'operation')} is unknown "
        f"({', '.join(kinds)}), so the total is a lower bound."
    ]


def _total_table(predictions: Sequence[LatencyPrediction]) -> Table:
    first = predictions[0]
    columns = [
        Column("model", shortens=True), Column("latency ms", numeric=True), Column("error", numeric=True),
        Column("range ms", numeric=True, priority=2), Column("img/s", numeric=True, priority=3),
        *([Column("time ratio", numeric=True)] if len(predictions) > 1 else []),
        *(Column(part, numeric=True, priority=1) for part in PARTS),
        Column("MACs", numeric=True, priority=4),
    ]  # fmt: skip
    rows = []
    for p in predictions:
        record = _total_record(p)
        latency, images = _number(record["latency_ms"], 4), _number(record["images_per_s"])
        known = not p.missed and not first.missed and first.seconds > 0
        ratio = p.seconds / first.seconds if known else None
        row = [text(p.record.label), at_least(latency) if p.missed else latency, _error_cell(p.error)]
        row += [Cell(record["low_ms"], _range_text(record)), images._replace(text=images.text.replace("?", "–"))]
        row += [Cell(ratio, "?" if ratio is None else f"{ratio:.3f}")] if len(predictions) > 1 else []
        row += [_share(record[f"{part}_share"]) for part in PARTS]
        rows.append([*row, integer(value_of(p.record, "macs"))])
    return Table(f"Predicted time of one forward pass: {first.machine}", columns, rows)


def _number(value: float | None, digits: int = 3) -> Cell:
    return Cell(value, "?" if value is None else units.significant(value, digits))


def _share(value: float | None) -> Cell:
    return Cell(value, "?" if value is None else units.share(value))


def _error_cell(error: float | None) -> Cell:
    return Cell(None, "unknown") if error is None else Cell(error, f"± {units.share(error)}")


def _range_text(record: dict[str, Any]) -> str:
    if record["low_ms"] is None:
        return "–"
    return f"{units.significant(record['low_ms'], 3)} to {units.significant(record['high_ms'], 3)}"


def _total_record(p: LatencyPrediction) -> dict[str, Any]:
    """The numbers of one prediction; times in milliseconds."""
    low, high = p.range or (None, None)
    shares = {"compute": 0.0, "memory": 0.0, "overhead": p.run_seconds}
    for kernel in p.kernels:
        if kernel.seconds is not None:
            shares[kernel.limit] += kernel.seconds
    images = p.record.inputs[0].shape[0] if p.record.inputs and p.record.inputs[0].shape else 1
    return {
        **model_fields(p.record),
        "machine": p.machine,
        "engine": p.engine or None,
        "latency_ms": p.seconds * 1e3,
        "at_least": bool(p.missed),
        "error": p.error,
        "low_ms": None if low is None else p.seconds * low * 1e3,
        "high_ms": None if high is None else p.seconds * high * 1e3,
        "images_per_s": images / p.seconds if p.seconds and not p.missed else None,
        **{f"{name}_share": value / p.seconds if p.seconds else 0.0 for name, value in shares.items()},
        "missed": p.missed,
    }


class _Row(NamedTuple):
    """A kernel, or a group of kernels."""

    path: str
    fused: tuple[str, ...]
    kind: str
    seconds: float | None
    error: float | None
    limit: str
    kernels: int = 1


def _row_of(kernel: KernelTime) -> _Row:
    return _Row(kernel.path, kernel.fused, kernel.kind, kernel.seconds, kernel.error, kernel.limit)


def _rows(prediction: LatencyPrediction, listing: Listing) -> list[_Row]:
    if listing.is_grouped:
        return _groups(prediction, listing)[: listing.top]
    rows = [_row_of(kernel) for kernel in prediction.kernels]
    if listing.layers and listing.top is None:
        return rows
    return sorted(rows, key=lambda row: -(row.seconds or 0.0))[: listing.top or TOP]


def _groups(prediction: LatencyPrediction, listing: Listing) -> list[_Row]:
    """Sums over the kernels of one kind or one module, the slowest group first."""
    if listing.by == "stage":
        raise CspprofError("predicted times are not grouped by stage", "Write --by kind, or --depth 1 for modules.")

    def by_kind(kernel: KernelTime) -> str:
        return kernel.kind

    def by_module(kernel: KernelTime) -> str:
        return ".".join(kernel.path.split(".")[: listing.depth]) if listing.depth else prediction.record.model

    key: Callable[[KernelTime], str] = by_kind if listing.by == "kind" else by_module
    groups: dict[str, list[KernelTime]] = {}
    for kernel in prediction.kernels:
        groups.setdefault(key(kernel), []).append(kernel)
    rows = []
    for name, parts in groups.items():
        known = [k.seconds for k in parts if k.seconds is not None]
        seconds = sum(known) if known else None
        error = parts[0].error if listing.by == "kind" else None
        limits = {limit: sum(k.seconds or 0.0 for k in parts if k.limit == limit) for limit in {k.limit for k in parts}}
        limit = max(limits, key=lambda name: (limits[name], name))
        rows.append(_Row(name, (), "" if listing.by != "kind" else name, seconds, error, limit, len(parts)))
    return sorted(rows, key=lambda row: -(row.seconds or 0.0))


def _list_table(prediction: LatencyPrediction, rows: Sequence[_Row], listing: Listing) -> Table:
    grouped = listing.is_grouped
    names = [Column("kind" if listing.by == "kind" else "module" if grouped else "layer", shortens=True)]
    if grouped:
        names.append(Column("kernels", numeric=True))
    else:
        names += [Column("kind"), Column("computes too", shortens=True, priority=3)]
    columns = [
        *names, Column("ms", numeric=True), Column("error", numeric=True, priority=1), Column("share", numeric=True),
        Column("mostly", priority=2),
    ]  # fmt: skip
    shown = []
    for row in rows:
        record = _row_record(row, prediction.seconds)
        middle = [integer(row.kernels)] if grouped else [text(row.kind), text(", ".join(row.fused))]
        numbers = [_number(record["latency_ms"]), _error_cell(row.error), _share(record["share"])]
        shown.append([text(row.path), *middle, *numbers, text(row.limit)])
    return Table(f"{_list_title(listing)}: {prediction.record.label}", columns, shown)


def _list_title(listing: Listing) -> str:
    if listing.is_grouped:
        return "Time by kind" if listing.by == "kind" else "Time by module"
    return "Time of each layer" if listing.layers and listing.top is None else "The slowest layers"


def _row_record(row: _Row, total: float) -> dict[str, Any]:
    seconds = row.seconds
    return {
        "path": row.path,
        "fused": list(row.fused),
        "kind": row.kind,
        "latency_ms": None if seconds is None else seconds * 1e3,
        "error": row.error,
        "share": None if seconds is None or not total else seconds / total,
        "limit": row.limit,
        "kernels": row.kernels,
    }


# -- calibrations -------------------------------------------------------------------------------------


def calibration_report(calibrations: Sequence[Calibration], files: Sequence[str]) -> Report:
    """Each calibration: its error, the predictions behind it, and the rates."""
    columns = [
        Column("engine"), Column("threads", numeric=True), Column("networks", numeric=True),
        Column("median error", numeric=True), Column("largest error", numeric=True),
        Column("rank correlation", numeric=True), Column("block", numeric=True, priority=2),
        Column("seconds", numeric=True, priority=1), Column("file", shortens=True, priority=3),
    ]  # fmt: skip
    rows = []
    for c, file in zip(calibrations, files, strict=True):
        worst, spearman = abs(c.error.worst.error), c.error.spearman
        rows.append([
            text(f"{c.engine} {c.version}"), integer(c.threads), integer(len(c.samples) + len(c.references)),
            Cell(c.error.median, units.share(c.error.median)), Cell(worst, units.share(worst)),
            Cell(spearman, "–" if spearman is None else f"{spearman:.3f}"), integer(c.shape.block),
            Cell(c.seconds, f"{c.seconds:.0f}"), text(file),
        ])  # fmt: skip
    machine = calibrations[0].machine
    tables = [Table(f"Calibration of {machine.label}", columns, rows)]
    tables += [table for c in calibrations for table in (_error_table(c), _rate_table(c))]
    notes = [note for c in calibrations for note in (*busy_notes(c), *_skipped_notes(c))]
    return Report(
        tables,
        [row for c in calibrations for row in calibration_rows(c)],
        {"schema": "cspprof.calibrations/1", "calibrations": [c.document() for c in calibrations]},
        notes,
        hints=[f"Predict: cspprof profile SPEC --machine calibrated --engine {calibrations[0].engine}"
               f" --threads {calibrations[0].threads}"],
    )  # fmt: skip


def _skipped_notes(calibration: Calibration) -> list[str]:
    return [f"{calibration.engine}, {name}: not measured: {reason.partition(chr(10))[0]}"
            for name, reason in calibration.skipped.items()]  # fmt: skip


def _error_table(calibration: Calibration) -> Table:
    """Networks of families that took no part in the fit."""
    columns = [Column("network"), Column("family"), Column("predicted ms", numeric=True),
               Column("measured ms", numeric=True), Column("error", numeric=True)]  # fmt: skip
    rows = [
        [text(p.name), text(p.family), *(Cell(s * 1e3, units.significant(s * 1e3, 4)) for s in (p.seconds, p.measured)),
         Cell(p.error, units.change(p.error))]
        for p in calibration.error.predictions
    ]  # fmt: skip
    return Table(f"{calibration.engine}: each family predicted without it", columns, rows)


def _rate_table(calibration: Calibration) -> Table:
    """The rate of each unit of work, in the unit that people know."""
    rows = []
    for unit, seconds in calibration.rates.items():
        kind, _, name = unit.rpartition(": ")
        error = calibration.kind_errors.get(kind)
        rows.append([text(kind or "all"), text(name), Cell(seconds, _rate_text(name, seconds)),
                     Cell(error, "" if error is None else units.share(error))])  # fmt: skip
    columns = [Column("kernels"), Column("work"), Column("rate", numeric=True), Column("median error", numeric=True)]
    return Table(f"{calibration.engine}: rates", columns, rows)


def _rate_text(name: str, seconds: float) -> str:
    if name in (RUN, KERNELS):
        return f"{units.significant(seconds * 1e6, 3)} µs each"
    if not seconds:
        return "no time"
    if name.endswith("elements") or name == "weights":
        return f"{units.significant(4e-9 / seconds, 3)} GB/s"
    what = "GMAC/s" if name.endswith("macs") else "Gop/s"
    return f"{units.significant(1e-9 / seconds, 3)} {what}"
