"""The command `calibrate`: what this machine needs for each unit of work, so that times can be predicted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.measure import clear_progress, show_progress
from cspprof.cli.output import ReportWriter, check_save, print_written, writing
from cspprof.core.errors import CspprofError, pip_install
from cspprof.core.files import check_writable
from cspprof.measure.calibration.calibration_file import SUFFIX, Calibration, is_own, stored_path
from cspprof.measure.calibration.report import calibration_report
from cspprof.measure.calibration.session import CalibrationSession
from cspprof.measure.engines import ENGINES, engines_named
from cspprof.measure.engines.network import EngineError
from cspprof.measure.machine import require_psutil


def calibrate_command(
    engine: Annotated[
        str | None,
        typer.Option("--engine", metavar="NAMES", help=f"{', '.join(ENGINES)}; several with commas. Default: "
                     "onnxruntime if it is installed, else torch."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", help="Threads of each engine. Default: one per core.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Write x.calibration.json instead of the file of this "
                                  "machine, for --machine x.calibration.json.")
    ] = None,
    format: o.Format = None, output: o.Output = None,
) -> None:  # fmt: skip
    """Measure short networks and networks of the zoo on an engine, and fit the time of each unit of work.

    It takes about two minutes per engine. Afterwards, cspprof profile SPEC --machine calibrated predicts times.
    """
    writer = ReportWriter(format, output)
    names = engines_named(engine) if engine is not None else [_default_engine()]
    if save is not None:
        _check_save(save, names)
    require_psutil()
    calibrations, files = [], []
    for name in names:
        session = CalibrationSession(name, threads, show_progress())
        path = save or stored_path(name, session.threads)
        if save is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            check_writable(path)
        try:
            calibration = session.run()
        except EngineError as error:
            clear_progress()
            raise CspprofError(f"{name}: {error.message}", error.hint) from error
        finally:
            clear_progress()
        print_written(_save(calibration, path))
        calibrations.append(calibration)
        files.append(str(path))
    writer.write(calibration_report(calibrations, files))


def _default_engine() -> str:
    if not ENGINES.get("onnxruntime").missing():
        return "onnxruntime"
    print(f"note: onnxruntime is not installed: {pip_install('measure')}", file=sys.stderr)
    return "torch"


def _save(calibration: Calibration, path: Path) -> str:
    written = writing(path)
    calibration.save(path)
    return written


def _check_save(path: Path, engines: list[str]) -> None:
    """Raise CspprofError if a calibration cannot be saved there."""
    if len(engines) > 1:
        raise CspprofError("--save writes the calibration of one engine", f"Write --engine {engines[0]}")
    check_save(path, SUFFIX, "a calibration", is_own)
