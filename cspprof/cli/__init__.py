"""The command line: parse options, call one library function, print, choose the exit code.

Exit codes: 0 yes or done, 1 the answer is no, 2 there is no answer, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from cspprof._version import __version__
from cspprof.cache import ENABLED
from cspprof.cli import analyse, closed_form, draw, gate, inspect, page, remembering, reproduction, second
from cspprof.cli.output import fail, speak_utf8
from cspprof.errors import CspprofError

app = typer.Typer(
    name="cspprof",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help in boxes takes as long to import as everything else together
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"cspprof {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Trace anew, whatever is remembered; see cspprof cache.")
    ] = False,
) -> None:
    """Where a CNN's compute and memory traffic go, layer by layer, and whether a refactor made it better."""
    ENABLED.set(not no_cache)


for _name, _command in (
    ("profile", analyse.profile_command),
    ("cio", analyse.cio_command),
    ("flops", analyse.flops_command),
    ("compare", analyse.compare_command),
    ("bottleneck", analyse.bottleneck_command),
    ("plot", draw.plot_command),
    ("report", page.report_command),
    ("verify", second.verify_command),
    ("reproduce", reproduction.reproduce_command),
    ("closed-form", closed_form.closed_form_command),
    ("models", inspect.models_command),
    ("metrics", inspect.metrics_command),
    ("explain", inspect.explain_command),
    ("check", gate.check_command),
    ("init", gate.init_command),
):
    app.command(_name)(_command)
app.add_typer(gate.baseline_app, name="baseline")
app.add_typer(remembering.app, name="cache")

ANYWHERE = ("--debug", "--no-cache")
"""Options of all commands: they may stand before the command or behind it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Never shows a traceback, unless --debug stands among the arguments."""
    speak_utf8()
    given = list(sys.argv[1:] if arguments is None else arguments)
    given.sort(key=lambda argument: argument not in ANYWHERE)
    debug = "--debug" in given
    try:
        app(given, prog_name="cspprof")
        code = 0
    except SystemExit as leaving:  # typer's own way out: --help, bad usage, an interrupted command
        code = leaving.code if isinstance(leaving.code, int) else 0
    except KeyboardInterrupt:
        code = 130
    except CspprofError as error:
        if debug:
            raise
        fail(error)
        code = error.exit_code
    except Exception as error:
        if debug:
            raise
        fail(CspprofError(f"{type(error).__name__}: {error}", "This is a bug in cspprof; --debug shows where."))
        code = 2
    if code == 130:
        print("interrupted", file=sys.stderr)
    sys.exit(code)
