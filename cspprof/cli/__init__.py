"""The command line: parse options, call one library function, print, choose the exit code.

Exit codes: 0 yes or done, 1 the answer is no, 2 there is no answer, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Container, Sequence
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer

from cspprof._version import __version__
from cspprof.cli.streams import fail, speak_utf8
from cspprof.core.errors import CspprofError


class Command(NamedTuple):
    """Where a command is, and what the list of commands says of it."""

    room: str
    """The module in this package; imported when the command is called."""
    name: str
    """Its function, or the group of further commands."""
    summary: str


COMMANDS = {
    "profile": Command("profile", "profile_command", "Every number of each model."),
    "cio": Command("profile", "cio_command", "Convolutional input/output, and where a change comes from."),
    "flops": Command("profile", "flops_command", "MACs, FLOPs and BFLOPs by the published rules."),
    "compare": Command("profile", "compare_command", "Models side by side in every number."),
    "bottleneck": Command("profile", "bottleneck_command", "The largest layers, their share of the whole."),
    "whatif": Command("whatif", "whatif_command", "One model at other sizes, batches and dtypes."),
    "plot": Command("plot", "plot_command", "Pictures: bottlenecks, traffic, memory, rooflines."),
    "report": Command("report", "report_command", "One page with everything, for a browser."),
    "verify": Command("verify", "verify_command", "A second opinion: fvcore and torch's own counter."),
    "reproduce": Command("reproduction", "reproduce_command", "The published figures, computed again."),
    "closed-form": Command("closed_form", "closed_form_command", "CIO, MACs and weights of a block as a formula."),
    "models": Command("models", "models_command", "The zoo: every network with its totals."),
    "metrics": Command("models", "metrics_command", "Every number with its unit."),
    "explain": Command("models", "explain_command", "What a number is, and what it is not."),
    "check": Command("gate", "check_command", "Hold models against the project's rules."),
    "init": Command("gate", "init_command", "Write cspprof.toml, a commented start."),
    "baseline": Command("gate", "baseline_app", "What was recorded, and how that changed."),
    "cache": Command("cache", "app", "What is remembered between runs; forget it."),
}


def application(wanted: Container[str] = COMMANDS) -> typer.Typer:
    """The command line, in which the commands not wanted are only listed: each costs the import of what it needs."""
    app = typer.Typer(
        name="cspprof",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # help in boxes takes as long to import as everything else together
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    app.callback()(_options)
    for name, command in COMMANDS.items():
        if name not in wanted:
            app.command(name, help=command.summary)(_listed)
            continue
        found: Any = getattr(import_module(f"cspprof.cli.{command.room}"), command.name)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name, short_help=command.summary)
        else:
            app.command(name, short_help=command.summary)(found)
    return app


def _listed() -> None:
    raise AssertionError("a command that was not wanted has run")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"cspprof {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Trace anew, whatever is remembered; see cspprof cache.")
    ] = False,
) -> None:
    """Where a CNN's compute and memory traffic go, layer by layer, and whether a refactor made it better."""
    return None


ANYWHERE = ("--debug", "--no-cache")
"""Options of all commands: they may stand before the command or behind it."""


def _unforeseen(error: Exception) -> CspprofError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CspprofError(f"cannot write: {error.strerror}", "Make room, or write elsewhere.")
    return CspprofError(f"{type(error).__name__}: {error}", "This is a bug in cspprof; --debug shows where.")


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Never shows a traceback, unless --debug stands among the arguments."""
    speak_utf8()
    given = list(sys.argv[1:] if arguments is None else arguments)
    given.sort(key=lambda argument: argument not in ANYWHERE)
    debug = "--debug" in given
    try:
        application(_wanted(given))(given, prog_name="cspprof")
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
        fail(_unforeseen(error))
        code = 2
    if code == 130:
        print("interrupted", file=sys.stderr)
    sys.exit(code)


def _wanted(given: list[str]) -> Container[str]:
    """The command that is asked for; the shell, which completes from options too, is told of all."""
    if "_CSPPROF_COMPLETE" in os.environ:
        return COMMANDS
    return [argument for argument in given if not argument.startswith("-")][:1]
