"""The command `measure`: the time of models on real engines."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter, check_save, print_written, writing
from cspprof.core.errors import CspprofError, pip_install
from cspprof.core.printable import printable
from cspprof.measure.engines import ENGINES, engines_named, not_installed
from cspprof.measure.layer_report import with_layers
from cspprof.measure.machine import require_psutil
from cspprof.measure.report import measurement_report
from cspprof.measure.result import Measurement
from cspprof.measure.session import ROUNDS, Progress, Session
from cspprof.report.tables import Report
from cspprof.storage.measured_file import SUFFIX, is_own


def measure_command(
    specs: o.Specs,
    engine: Annotated[
        str | None,
        typer.Option("--engine", metavar="NAMES", help=f"{', '.join(ENGINES)}; several with commas. Default: torch "
                     "and the others that are installed, without torch-compile, torch-cuda and opencv-classic."),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", help="Rounds; each adds samples of every model.")]
    = ROUNDS,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", help="Threads of each engine. Default: one per core.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only say which engine can run which model. Exit code 1: one cannot.")
    ] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also profile each layer, after the timed runs: shares of the time, "
                           "traffic as executed, and what was fused.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also say why each model differs from the first one: compute, traffic, "
                           "concatenation, layout changes … Includes --layers.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Save everything as x.measured.json, a SPEC.")
    ] = None,
    format: o.Format = None, output: o.Output = None, input: o.Input = None,
) -> None:  # fmt: skip
    """Measure the time and the peak memory of one forward pass of each model on each engine.

    A SPEC x.measured.json prints a saved measurement again. Exit code 2: a model could not be measured; 130:
    interrupted, and what was measured is printed and saved.
    """
    writer = ReportWriter(format, output)
    if save is not None:
        check_save(save, SUFFIX, "a measurement", is_own)
    if any(spec.endswith(SUFFIX) for spec in specs):
        writer.write(_report(_saved(specs), layers, explain))
        return
    if check and (layers or explain):
        raise CspprofError("--check measures no time, so there are no layers to show", "Leave out --check.")
    if explain and len(specs) < 2:
        raise CspprofError(
            "--explain compares two models or more",
            f"Name another one, or see the layers of this one: cspprof measure {shlex.quote(specs[0])} --layers",
        )
    engines = engines_named(engine)
    require_psutil()
    if engine is None:
        for name in not_installed():
            extra = ENGINES.get(name).extra
            print(f"note: {name} is not installed: {pip_install(extra)}", file=sys.stderr)
    session = Session(specs, engines, input or (), threads, rounds, show_progress(), layers or explain)
    try:
        result = session.run(check)
    finally:
        clear_progress()
    if save is not None:
        written = writing(save)
        result.save(save)
        print_written(written)
    writer.write(_report(result, layers, explain))
    if result.interrupted:
        raise typer.Exit(130)
    if result.has_failures:
        raise typer.Exit(1 if check else 2)


def _report(measurement: Measurement, layers: bool, explain: bool) -> Report:
    """The report with the tables that the options name. Raises CspprofError if a saved file has no profile for them."""
    report = measurement_report(measurement)
    if not layers and not explain:
        return report
    if not measurement.layer_profiles and not measurement.interrupted:
        option = "--explain" if explain else "--layers"
        words = ["cspprof", "measure", *(m.spec for m in measurement.models), option]
        raise CspprofError("this measurement has no profile per layer", f"Measure again: {shlex.join(words)}")
    return with_layers(report, measurement, explain)


def _saved(specs: list[str]) -> Measurement:
    if len(specs) > 1:
        raise CspprofError("a saved measurement is printed alone", f"Name one file: cspprof measure {specs[0]}")
    return Measurement.load(Path(specs[0]))


def show_progress() -> Progress:
    """Show one line of progress on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda text, done, steps: None
    return lambda text, done, steps: print(
        f"\r\x1b[K{done}/{steps} {printable(text)}", end="", file=sys.stderr, flush=True
    )


def clear_progress() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
