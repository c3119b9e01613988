"""The command line: parse the options, call the library, write the result, set the exit code.

Exit codes: 0 for success, 1 if a check failed, 2 for an error, 130 if interrupted.
"""

from __future__ import annotations

import errno
import io
import os
import shlex
import sys
import traceback
from collections import Counter
from collections.abc import Container, Sequence
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from cspprof._version import __version__
from cspprof.core.errors import EXIT_HINT, CspprofError, exception_chain
from cspprof.core.printable import log_lines
from cspprof.core.registry import suggestion


class Command(NamedTuple):
    """Where the code of a command is, and its line in the list of commands."""

    module: str
    """The module in this package. It is imported only if the command is called."""
    function: str
    """The function of the command, or the Typer object of a group of commands."""
    summary: str


COMMANDS = {
    "summary": Command("summary", "summary_command", "The tree of modules with the cost of each."),
    "profile": Command("profile", "profile_command", "What each model costs, and its largest layers."),
    "cio": Command("profile", "cio_command", "Convolutional input/output, and where a change comes from."),
    "flops": Command("profile", "flops_command", "MACs, FLOPs and BFLOPs by the published rules."),
    "compare": Command("profile", "compare_command", "Models side by side in every metric."),
    "bottleneck": Command("bottleneck", "bottleneck_command", "The largest layers and their share of the total."),
    "convert": Command("convert", "convert_command", "Make a network cross stage partial."),
    "gradients": Command("gradients", "gradients_command", "How many layers each gradient updates."),
    "advise": Command("advise", "advise_command", "What to change in a network, each change traced."),
    "watch": Command("watch", "watch_command", "What each save of a file changes in a model."),
    "whatif": Command("whatif", "whatif_command", "One model at other sizes, batch sizes and dtypes."),
    "measure": Command("measure", "measure_command", "The time of models on real engines, beside what they cost."),
    "calibrate": Command("calibrate", "calibrate_command", "Measure this machine, so that times can be predicted."),
    "sweep": Command("sweep", "sweep_command", "Every candidate of a design space, and the best of them."),
    "plot": Command("plot", "plot_command", "Charts: bottlenecks, traffic, memory, rooflines."),
    "report": Command("report", "report_command", "One HTML page with every metric, chart and layer."),
    "verify": Command("verify", "verify_command", "Compare the MACs with fvcore and torch's FlopCounterMode."),
    "reproduce": Command("reproduce", "reproduce_command", "Compute the published figures again, beside the papers."),
    "audit": Command("audit", "audit_command", "How the printed numbers of a paper's table were counted."),
    "closed-form": Command("closed_form", "closed_form_command", "CIO, MACs and weights of a block as a formula."),
    "models": Command("models", "models_command", "The zoo: every network with its totals."),
    "metrics": Command("models", "metrics_command", "Every metric with its unit."),
    "explain": Command("models", "explain_command", "The definition of a metric, a convention or γ."),
    "check": Command("gate", "check_command", "Check models against the project's rules."),
    "init": Command("gate", "init_command", "Write a commented cspprof.toml."),
    "baseline": Command("gate", "baseline_app", "Show the recorded baseline, or what changed in it."),
    "cache": Command("cache", "app", "Show or clear the cache of profiles."),
    "doctor": Command("doctor", "doctor_command", "Versions and state of this installation, for a bug report."),
}


class _CommandGroup(TyperGroup):
    """A group whose commands can exit only with their own exit codes."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names. Raises CspprofError if there is none: it may be a model."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            similar = suggestion(name, COMMANDS)
            if not similar.startswith("Did you mean"):
                similar = f"If it is a model: cspprof profile {shlex.quote(name)}\nThe commands: cspprof --help"
            raise CspprofError(f"no command is named {name!r}", similar)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Call the command. Raises CspprofError if the code of a model exits the program: typer raises no SystemExit
        here, and a check that did not end must not look like one that passed."""
        try:
            return super().invoke(ctx)
        except SystemExit as exit_:
            if isinstance(exit_.code, int) and exit_.code > 128:  # a signal such as SIGTERM ends the command
                raise
            raise CspprofError(
                f"the code of a model exited the program: sys.exit({exit_.code!r})", EXIT_HINT
            ) from exit_


class OptionsOnceCommand(TyperCommand):
    """A command that refuses an option with one value that occurs twice: the last value would silently win."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # as in shell completion
            _, _, occurrences = self.make_parser(ctx).parse_args(args=list(args))
            for parameter, n in Counter(occurrences).items():
                if n > 1 and isinstance(parameter, TyperOption) and not (parameter.is_flag or parameter.multiple):
                    raise CspprofError(f"{max(parameter.opts, key=len)} occurs {n} times", "Give it once.")
        return super().parse_args(ctx, args)


def application(names: Container[str] = COMMANDS) -> typer.Typer:
    """The command line with the named commands. The others are listed in the help, but their modules are not imported:
    importing all of them takes longer than many commands."""
    app = typer.Typer(
        name="cspprof",
        cls=_CommandGroup,
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # boxed help doubles the import time
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    app.callback()(_global_options)
    for name, command in COMMANDS.items():
        if name not in names:
            app.command(name, help=command.summary)(_not_imported)
            continue
        target: Any = getattr(import_module(f"cspprof.cli.{command.module}"), command.function)
        if isinstance(target, typer.Typer):
            for registered in target.registered_commands:
                registered.cls = OptionsOnceCommand
            app.add_typer(target, name=name, short_help=command.summary)
        else:
            app.command(name, cls=OptionsOnceCommand, short_help=command.summary)(target)
    return app


def _not_imported() -> None:
    raise AssertionError("this command was only listed, not imported")


def _print_version(requested: bool) -> None:
    if requested:
        print(f"cspprof {__version__}")
        raise typer.Exit


def _global_options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Trace every model, and neither read nor write the cache of profiles.")
    ] = False,
) -> None:
    """Where a CNN's compute and memory traffic go, layer by layer, and whether a refactor made it better."""
    if no_cache:
        from cspprof.storage.cache import disabled

        context.with_resource(disabled())


GLOBAL_OPTIONS = ("--debug", "--no-cache")
"""Options of all commands. They are accepted before and after the name of the command."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. It exits with the exit code, and prints a traceback only with `--debug`."""
    _set_utf8()
    argv = list(sys.argv[1:] if arguments is None else arguments)
    argv.sort(key=lambda argument: argument not in GLOBAL_OPTIONS)  # typer accepts them only before the command
    debug = "--debug" in argv
    try:
        application(_called_commands(argv))(argv, prog_name="cspprof")
        code = 0
    except SystemExit as exit_:  # raised by typer: --help, wrong usage, an interrupted command
        code = exit_.code if isinstance(exit_.code, int) else 2
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        if debug:
            print(log_lines("".join(traceback.format_exception(error))), end="", file=sys.stderr)
        replaced = exception_chain(error)[1:]
        if any(isinstance(e, KeyboardInterrupt) for e in replaced) and not isinstance(error, CspprofError):
            code = 130  # a library raised an error of its own while it handled the interruption
        else:
            shown = as_cspprof_error(error)
            print_error(shown)
            code = shown.exit_code
    if code == 130:
        print("interrupted", file=sys.stderr)
    sys.exit(code)


def _called_commands(argv: list[str]) -> Container[str]:
    """The name of the command in `argv` or, in shell completion, in front of the word that is completed."""
    if "_CSPPROF_COMPLETE" in os.environ:
        line = os.environ.get("_TYPER_COMPLETE_ARGS", os.environ.get("COMP_WORDS", ""))
        words, current = line.split(), os.environ.get("COMP_CWORD", "")
        end = int(current) if current.isdecimal() else len(words) - (not line.endswith(" "))
        argv = words[1:end]
    return [argument for argument in argv if not argument.startswith("-")][:1]


def _set_utf8() -> None:
    """Write standard output in UTF-8 in every locale: tables contain × and −, and a pipe always gets the same bytes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


def print_error(error: CspprofError) -> None:
    """Print the message and the hint to standard error."""
    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    label = "\x1b[31merror:\x1b[0m" if color else "error:"
    message, *hint = error.texts
    print(f"{label} {message}", file=sys.stderr)
    for line in "".join(hint).splitlines():
        print(f"  {line}", file=sys.stderr)


def as_cspprof_error(error: Exception) -> CspprofError:
    if isinstance(error, CspprofError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CspprofError(f"cannot write: {error.strerror}", "Free some space, or write to another disk.")
    return CspprofError(f"{type(error).__name__}: {error}", "This is a bug in cspprof. --debug shows the traceback.")
