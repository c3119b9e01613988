"""The command `watch`: what each save of a file changes in a model."""

from __future__ import annotations

import sys
import traceback
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import typer

from cspprof.cli import as_cspprof_error, print_error
from cspprof.cli import options as o
from cspprof.cli.gate import ConfigPath
from cspprof.cli.output import ReportWriter, write_bytes
from cspprof.cli.specs import each_spec, parse_request
from cspprof.core.errors import CspprofError, pip_install
from cspprof.core.files import display_path
from cspprof.core.printable import log_lines
from cspprof.metrics.names import split_metrics
from cspprof.report.tables import Report


def watch_command(
    context: typer.Context, specs: o.Specs, input: o.Input = None, dtype: o.Dtype = None, device: o.Device = None,
    train: o.Train = False, metric: o.Metrics = None, config: ConfigPath = None,
) -> None:  # fmt: skip
    """Keep running, and print after each save what changed in a model: since the last version, and since the start.

    Every file of the project that the model imports is watched. If the configuration has the SPEC as a target, its
    input is used, its rules are checked, and changes are relative to the recorded baseline. Ctrl-C ends the command
    with exit code 0.
    """
    if find_spec("watchfiles") is None:
        raise CspprofError("watching needs the library watchfiles", f"Install it: {pip_install('watch')}")
    request, metrics, answers = parse_request(input, dtype, device, train), split_metrics(metric), count()
    writer = ReportWriter(None, None)

    def show(report: Report) -> bool:
        return (next(answers) == 0 or write_bytes(b"\n", None)) and writer.write(report)

    def show_error(error: Exception) -> None:
        if context.find_root().params.get("debug"):
            print(log_lines("".join(traceback.format_exception(error))), end="", file=sys.stderr)
        print_error(as_cspprof_error(error))

    try:
        from cspprof.watch.session import Session

        session = Session(each_spec(specs), request, metrics, config, show, show_error)
        session.run(lambda files: print(log_lines(_watching(files)), file=sys.stderr, flush=True))
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the terminal has written ^C


def _watching(files: set[Path]) -> str:
    """`watching blocks.py, net.py; Ctrl-C ends`."""
    return f"watching {', '.join(sorted({display_path(file) for file in files if file.is_file()}))}; Ctrl-C ends"
