"""`cspprof profile SPEC --machine NAME`: the machine that the options name, and the report of its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cspprof.core.errors import CspprofError, UnknownNameError
from cspprof.core.record import Record
from cspprof.core.registry import suggestion
from cspprof.measure.calibration import calibration_file
from cspprof.measure.calibration.calibration_file import SUFFIX, Calibration
from cspprof.measure.calibration.kernels import FUSIONS
from cspprof.measure.calibration.prediction import estimate, predict
from cspprof.measure.calibration.report import Listing, calibration_notes, hardware_notes, prediction_report
from cspprof.papers.hardware import HARDWARE, SYNTAX, Hardware, hardware
from cspprof.report.tables import Report

CALIBRATED = "calibrated"


def machine_named(name: str, engine: str | None, threads: int | None) -> Calibration | Hardware:
    """The calibration or the hardware that `--machine` names. Raises CspprofError with what to type instead."""
    if name == CALIBRATED:
        return calibration_file.find(engine, threads)
    if name.endswith(SUFFIX):
        calibration = Calibration.load(Path(name))
        if engine not in (None, calibration.engine) or threads not in (None, calibration.threads):
            raise CspprofError(
                f"{name} is a calibration of {calibration.engine} with {calibration.threads} threads",
                "Leave out --engine and --threads.",
            )
        return calibration
    if engine is not None or threads is not None:
        option = "--engine" if engine is not None else "--threads"
        raise CspprofError(
            f"{option} chooses a calibration, and --machine {name} is none",
            f"Write --machine {CALIBRATED}, or leave out {option}.",
        )
    if ":" not in name and name not in HARDWARE:
        near = suggestion(name, [CALIBRATED, *HARDWARE])
        known = "" if near.startswith("There are") else f"{near}\n"
        raise UnknownNameError(
            f"no machine named {name!r}",
            f"{known}Known: {CALIBRATED}, {', '.join(HARDWARE)}; or write x{SUFFIX} or {SYNTAX}",
        )
    return hardware(name)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise CspprofError for an option of `profile` that predictions have no use for."""
    for option, value in options.items():
        if value:
            raise CspprofError(
                f"--machine prints predicted times, and {option} has no meaning there",
                "Leave out one of them. Predictions have --layers, --top N, --by kind and --depth N.",
            )


def report_of(machine: Calibration | Hardware, records: Sequence[Record], listing: Listing) -> Report:
    """The predictions of a machine for each record."""
    if isinstance(machine, Hardware):
        predictions = [estimate(record, machine) for record in records]
        return prediction_report(predictions, listing, hardware_notes(machine.title, machine.source))
    predictions = [predict(record, machine) for record in records]
    return prediction_report(predictions, listing, calibration_notes(machine, FUSIONS[machine.engine].text()))
