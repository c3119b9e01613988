"""The CI gate's commands: check, baseline, init. Rooms are imported when they run: no pydantic for `--help`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter, write_bytes
from cspprof.core.errors import CspprofError, OutputError, UnknownNameError
from cspprof.core.files import check_writable, write_atomically

if TYPE_CHECKING:
    from cspprof.gate.checking import Verdict
    from cspprof.gate.loading import Config

ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", metavar="PATH", help="The configuration, or its folder. Default: the nearest above."),
]
TABLES = ("rich", "markdown", "json", "csv", "latex", "parquet")
"""Formats of reports that show a verdict as well; those of CI systems are in `cspprof.gate.formats`."""
baseline_app = typer.Typer(no_args_is_help=True, help="What was recorded, and how that changed.")


def configuration(path: Path | None) -> Config:
    """The project's configuration, found and read."""
    from cspprof.gate.loading import find, load

    return load(find(path))


def check_command(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Only these models of the configuration.", show_default=False),
    ] = None,
    config: ConfigPath = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            metavar="KIND[=FILE]",
            help="How to say it, and where to; repeatable: rich, markdown, json, csv, concise, github, gitlab, junit, "
            "sarif, bencher, github-action-benchmark.",
        ),
    ] = None,
    why: Annotated[bool, typer.Option("--why", help="Show the layers that a failure comes from.")] = False,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="REV", help="Compare with this revision's code, not with the baseline."),
    ] = None,
    update_baseline: Annotated[
        bool, typer.Option("--update-baseline", help="Record what the models measure now, and show what changed.")
    ] = False,
) -> None:
    """Hold models against the project's rules: 0 all hold, 1 one failed, else 2 something could not be measured."""
    from cspprof.gate.checking import check, update
    from cspprof.gate.report import changes_report, verdict_report

    if against is not None and update_baseline:
        raise CspprofError("--against compares, --update-baseline records", "Give one of them.")
    voices = [_voice(text) for text in formats or ["rich"]]
    if update_baseline and not all(isinstance(voice, ReportWriter) for voice in voices):
        raise CspprofError("--update-baseline prints changes, no verdict", f"Take one of: {', '.join(TABLES)}")
    settings = configuration(config)
    if update_baseline:
        changed, notes = update(settings, models or ())
        report = changes_report(changed, f"Recorded in {settings.baseline.name}", notes)
        for voice in voices:
            if isinstance(voice, ReportWriter):
                voice.write(report)
        return
    recorded = None
    if against is not None:
        from cspprof.gate.against import record_revision

        recorded = record_revision(settings, against, models or ())
    verdict = check(settings, models or (), recorded=recorded)
    for voice in voices:
        if isinstance(voice, ReportWriter):
            voice.write(verdict_report(verdict, why))
        else:
            write_bytes(voice.say(verdict).encode(), voice.path)
    _summarise(verdict)
    raise typer.Exit(verdict.exit_code)


@dataclass(frozen=True, slots=True)
class _Voice:
    """A format of verdicts, and the file that it goes to."""

    say: Callable[[Verdict], str]
    path: Path | None


def _voice(text: str) -> ReportWriter | _Voice:
    """`KIND` or `KIND=FILE`, checked before any work is done."""
    from cspprof.gate.formats import FORMATS

    kind, _, file = text.partition("=")
    path = Path(file) if file else None
    if kind in TABLES:
        return ReportWriter(kind, path)
    if kind not in FORMATS:
        known = [*TABLES, *FORMATS.names()]
        near = get_close_matches(kind, known, 3, 0.5)
        hint = f"Did you mean: {', '.join(near)}?" if near else f"There are: {', '.join(known)}"
        raise UnknownNameError(f"no format named {kind!r}", hint)
    if path is not None:
        check_writable(path)
    return _Voice(FORMATS.get(kind), path)


def _summarise(verdict: Verdict) -> None:
    """Add the verdict to the summary of the GitHub job that we run in, if it is one."""
    place = os.environ.get("GITHUB_STEP_SUMMARY")
    if not place:
        return
    from cspprof.gate.formats.summary import fitted
    from cspprof.gate.report import verdict_report
    from cspprof.render import render

    path = Path(place)
    text = "## cspprof\n\n" + render("markdown", verdict_report(verdict, why=True)).decode()
    try:
        before = path.read_bytes() if path.is_file() else b""
        write_atomically(path, before + fitted(text, len(before)))
    except (OSError, OutputError) as error:  # the verdict stands without it
        print(f"note: no summary of the job: {error}", file=sys.stderr)


@baseline_app.command("show")
def show_command(config: ConfigPath = None, format: o.Format = None, output: o.Output = None) -> None:
    """The numbers of the last recording."""
    from cspprof.gate.baseline import read
    from cspprof.gate.report import baseline_report

    writer, settings = ReportWriter(format, output), configuration(config)
    models = read(settings.baseline)
    if models is None:
        raise _no_baseline(settings)
    writer.write(baseline_report(models, settings.baseline.name))


@baseline_app.command("diff")
def diff_command(
    revision: Annotated[
        str, typer.Argument(metavar="[REV]", help="A commit, branch or tag of git.", show_default="HEAD")
    ] = "HEAD",
    config: ConfigPath = None,
    format: o.Format = None,
    output: o.Output = None,
) -> None:
    """What changed in the baseline since another revision of it."""
    from cspprof.gate.baseline import changes, parse, read
    from cspprof.gate.report import changes_report
    from cspprof.gate.revision import file_at

    writer, settings = ReportWriter(format, output), configuration(config)
    now = read(settings.baseline)
    if now is None:
        raise _no_baseline(settings)
    then = file_at(settings.baseline, revision)
    notes = [f"{revision} has no {settings.baseline.name}"] if then is None else []
    before = {} if then is None else parse(then, f"{settings.baseline.name} at {revision}")
    title = f"{settings.baseline.name} since {revision}"
    writer.write(changes_report(changes(before, now), title, notes))


def _no_baseline(settings: Config) -> CspprofError:
    return CspprofError(f"there is no {settings.baseline.name} yet", "Record one: cspprof check --update-baseline")


def init_command() -> None:
    """Write cspprof.toml, a commented start with the models that are found here. Overwrites nothing."""
    from cspprof.gate.init import start

    path, found = start(Path.cwd())
    names = ", ".join(c.target for c in found) or "none, see its comments"
    print(f"{path.name} written; models: {names}")
    print("Next: check their inputs in it, then record what they cost: cspprof check --update-baseline")
