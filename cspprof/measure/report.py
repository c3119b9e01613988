"""The table of a measurement: times with intervals, ratios, memory, and what the records say beside them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from cspprof.core import units
from cspprof.measure.machine import BUSY_SHARE
from cspprof.measure.result import EngineRun, Measurement, Timing
from cspprof.report.notes import cio_notes
from cspprof.report.tables import Cell, Column, PageSection, Report, Table, text

NO_DIFFERENCE = "no difference that this machine can show"
NO_TIME = "no time: see the note"
WIDE = 0.05
"""Half width of an interval, relative to the median. Above it, more rounds are offered."""
UNRELIABLE = 0.05
"""Difference of an A/A pair. Above it, the machine is too noisy for most comparisons."""

COLUMNS = (
    Column("engine"),
    Column("model", shortens=True),
    Column("ms median [95 %]", numeric=True),
    Column("min ms", numeric=True, priority=3),
    Column("img/s", numeric=True, priority=2),
    Column("peak RSS", numeric=True, priority=4),
    Column("time ratio [95 %]", numeric=True),
    Column("MACs ratio", numeric=True, priority=1),
    Column("CIO ratio", numeric=True, priority=1),
)
TIME_SECTION = "Time of a forward pass"
"""The section of the HTML page with measured or predicted times."""


def measurement_report(measurement: Measurement) -> Report:
    """The report of a session that measured times, or that only checked which engine runs which model."""
    table = _check_table(measurement) if measurement.checked_only else _time_table(measurement)
    return Report(
        [table],
        measurement.rows(),
        measurement.document,
        notes=notes(measurement),
        section=PageSection(TIME_SECTION, [table]),
        profiles=[m.record for m in measurement.models],
        hints=hints(measurement),
    )


# -- tables -----------------------------------------------------------------------------------------


def _time_table(measurement: Measurement) -> Table:
    rows = [_row(measurement, t, measurement.row(t)) for t in measurement.listed()]
    return Table(f"One forward pass on {measurement.machine.label}, {_threads(measurement)}", COLUMNS, rows)


def _threads(measurement: Measurement) -> str:
    return units.counted(measurement.threads, "thread")


def _row(measurement: Measurement, timing: Timing, record: dict[str, Any]) -> list[Cell]:
    name = measurement.models[timing.model].record.label
    if record["median_ms"] is None:
        reason = NO_TIME if timing.failure else "interrupted before its first round"
        return [
            text(timing.engine),
            text(name),
            Cell(None, "–"),
            *[text("")] * 3,
            Cell(None, reason, False),
            *_costs(record),
        ]
    return [
        text(timing.engine),
        text(name),
        Cell(record["median_ms"], _interval(record["median_ms"], record["low_ms"], record["high_ms"])),
        Cell(record["min_ms"], units.significant(record["min_ms"], 4)),
        Cell(record["images_per_s"], units.significant(record["images_per_s"], 3)),
        Cell(record["peak_bytes"], units.nbytes(record["peak_bytes"]) if record["peak_bytes"] else "–"),
        _ratio_cell(record, timing is measurement.base(timing.engine)),
        *_costs(record),
    ]  # fmt: skip


def _ratio_cell(record: dict[str, Any], is_base: bool) -> Cell:
    if record["ratio"] is None:
        return Cell(None, "–")
    if is_base:
        return Cell(1.0, "1")
    if not record["differs"]:
        return Cell(record["ratio"], NO_DIFFERENCE)
    shown = f"{record['ratio']:.3f} [{record['ratio_low']:.3f}, {record['ratio_high']:.3f}]"
    return Cell(record["ratio"], shown, record["ratio"] < 1)


def _interval(value: float, low: float, high: float) -> str:
    return f"{units.significant(value, 4)} [{units.significant(low, 4)}, {units.significant(high, 4)}]"


def _costs(record: dict[str, Any]) -> list[Cell]:
    ratios = (record["macs_ratio"], record["cio_ratio"])
    return [Cell(r, "–" if r is None else f"{r:.3f}") for r in ratios]


def _check_table(measurement: Measurement) -> Table:
    """Which engine runs which model, with the error of its output or the reason."""
    columns = (
        Column("engine"), Column("model", shortens=True), Column("runs"), Column("relative error", numeric=True),
        Column("peak RSS", numeric=True, priority=1), Column("reason"),
    )  # fmt: skip
    rows = []
    for t in measurement.listed():
        runs = not t.failure
        error = Cell(t.error, "–" if t.error is None else f"{t.error:.1e}")
        peak = Cell(t.peak_bytes, units.nbytes(t.peak_bytes) if t.peak_bytes else "–")
        rows.append([
            text(t.engine), text(measurement.models[t.model].record.label), Cell(runs, "yes" if runs else "no", runs),
            error, peak, text(t.failure.partition("\n")[0]),
        ])  # fmt: skip
    return Table(f"Engines on {measurement.machine.label}", columns, rows)


# -- notes ------------------------------------------------------------------------------------------


def notes(measurement: Measurement) -> list[str]:
    """Notes on noise, failures, the engines, and the preparation of the models."""
    found = [] if measurement.checked_only else _session_notes(measurement)
    found += _grouped(_failure_notes(measurement))
    found += [_engine_note(engine) for engine in measurement.engines if engine.versions]
    found += _grouped(_model_notes(measurement))
    return list(dict.fromkeys([*found, *cio_notes([m.record for m in measurement.models])]))


def _failure_notes(measurement: Measurement) -> Iterator[tuple[str, str]]:
    """A label and a note for each failure, each hint, and each remark on a model in an engine."""
    for t in measurement.listed():
        model = measurement.models[t.model]
        label = f"{t.engine}, {model.record.label}"
        is_of_model = bool(t.failure) and t.failure in (model.failure, model.export.get("failure"))
        failed = model.record.label if is_of_model else label
        yield from ((failed, line) for line in (*t.failure.splitlines(), *(t.hint or "").splitlines()))
        yield from ((label, f"{note}.") for note in t.notes)
        if any(t.rounds) and not t.stable:
            yield label, "the times were not stable after the warm-up."


def _model_notes(measurement: Measurement) -> Iterator[tuple[str, str]]:
    """A label and a note for each fact of a preparation."""
    for model in measurement.models:
        yield from ((model.record.label, f"{note}.") for note in model.notes)
        if model.export.get("exporter"):
            opset = ", ".join(f"{domain} {version}" for domain, version in model.export["opset"].items())
            yield model.record.label, f"ONNX by {model.export['exporter']}, opset {opset}."
        yield from ((model.record.label, reason) for reason in model.export.get("refused", ()))


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Notes with the labels to which they apply: `resnet18; resnet34: ONNX by …`."""
    labels: dict[str, dict[str, None]] = {}
    for label, note in pairs:
        labels.setdefault(note, {})[label] = None
    return [f"{'; '.join(names)}: {note}" for note, names in labels.items()]


def _session_notes(measurement: Measurement) -> list[str]:
    found = []
    if measurement.interrupted:
        found.append(f"interrupted after {measurement.finished_rounds} of {measurement.rounds} rounds.")
    if measurement.other_cpu_share is not None and measurement.other_cpu_share > BUSY_SHARE:
        found.append(
            f"the machine is busy: other processes used {units.share(measurement.other_cpu_share)} of its CPUs"
            f"{_load_text(measurement)}. End them, then measure again."
        )
    for engine in measurement.engines:
        same = measurement.same_model_ratio(engine.name)
        if same is None:
            continue
        least = measurement.least_difference(engine.name) or 0.0
        found.append(
            f"{engine.name}: one model, loaded twice, differs by {units.change(same.value - 1)} "
            f"[{units.change(same.low - 1)}, {units.change(same.high - 1)}]. "
            f"Differences up to {units.share(least)} are not claimed."
        )
        if least > UNRELIABLE:
            found.append(f"{engine.name}: this spread is large. Close other programs, or measure longer with --rounds.")
    return found


def _load_text(measurement: Measurement) -> str:
    if measurement.load_average is None:
        return ""
    return f", and the load average before the session was {measurement.load_average:.1f}"


def _engine_note(engine: EngineRun) -> str:
    """The versions and settings of an engine."""
    versions = ", ".join(f"{name} {version}" for name, version in engine.versions.items())
    settings = ", ".join(f"{key} {_setting(value)}" for key, value in engine.settings.items())
    return f"{engine.name}: {versions}; {settings}."


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return "CPU " + "+".join(map(str, value))
    if value is None or isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def hints(measurement: Measurement) -> list[str]:
    """A command that measures longer, if an interval is wide."""
    wide = [
        t for t in measurement.listed()
        if (median := measurement.median(t)) is not None and median.half_width > WIDE
    ]  # fmt: skip
    if not wide or measurement.interrupted:
        return []
    words = ["cspprof", "measure", *(m.spec for m in measurement.models)]
    words += ["--engine", ",".join(e.name for e in measurement.engines)]
    words += [word for value in measurement.models[0].inputs for word in ("--input", value)]
    command = shlex.join([*words, "--rounds", str(4 * measurement.rounds)])
    return [f"Some intervals are wide. More rounds narrow them: {command}"]
