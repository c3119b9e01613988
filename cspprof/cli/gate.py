"""The commands of the CI gate: check, baseline, init.

A command imports the gate, and with it pydantic, when it runs.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter, print_notes, write_bytes
from cspprof.core.errors import CspprofError, OutputError, UnknownNameError
from cspprof.core.files import check_replaceable, check_writable, write_atomically
from cspprof.core.printable import log_lines, printable
from cspprof.core.registry import suggestion

if TYPE_CHECKING:
    from cspprof.gate.checking import Verdict
    from cspprof.gate.config import Config
    from cspprof.gate.formats import VerdictFormat

ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", metavar="PATH", help="The configuration, or its folder. Default: the nearest above."),
]
REPORT_FORMATS = ("rich", "markdown", "json", "csv", "latex", "parquet")
"""Formats of reports in which a verdict can be written. `cspprof.gate.formats` has those of CI systems."""
baseline_app = typer.Typer(
    no_args_is_help=True,
    help="Show the recorded baseline, or what changed in it. To record it: cspprof check --update-baseline",
)


def load_config(path: Path | None) -> Config:
    """The project's configuration. Raises CspprofError if there is none."""
    from cspprof.gate.config import find, load

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
            help="Output format, and the file to write; repeatable: rich, markdown, json, csv, latex, parquet, "
            "concise, github, gitlab, junit, sarif, bencher, github-action-benchmark.",
        ),
    ] = None,
    why: Annotated[bool, typer.Option("--why", help="Show the layers that cause a failure.")] = False,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="REV", help="Compare with the code of this git revision, not the baseline."),
    ] = None,
    update_baseline: Annotated[
        bool, typer.Option("--update-baseline", help="Record the current numbers, and show what changed.")
    ] = False,
) -> None:
    """Check models against the project's rules.

    Exit code 0: all rules hold; 1: a rule fails; 2: no rule fails, but something could not be measured.
    """
    from cspprof.cli.measure import clear_progress, show_progress
    from cspprof.gate.checking import check, update
    from cspprof.gate.report import changes_report, verdict_report
    from cspprof.gate.revision import measured_revision

    if against is not None and update_baseline:
        raise CspprofError("--against compares, --update-baseline records", "Give one of them.")
    writers = [_writer(text) for text in formats or ["rich"]]
    report_writers = [writer for writer in writers if isinstance(writer, ReportWriter)]
    if update_baseline and len(report_writers) < len(writers):
        formats_text = ", ".join(REPORT_FORMATS)
        raise CspprofError("--update-baseline prints changes, not a verdict", f"Use one of: {formats_text}")
    project = load_config(config)
    if update_baseline:
        changed, notes = update(project, models or ())
        report = changes_report(changed, f"Recorded in {project.baseline.name}", notes)
        for report_writer in report_writers:
            report_writer.write(report)
        return
    with measured_revision(project, against, models or ()) if against is not None else nullcontext() as reference:
        try:
            verdict = check(project, models or (), reference=reference, progress=show_progress())
        finally:
            clear_progress()
    if not any(isinstance(writer, ReportWriter) or writer.format.shows_notes for writer in writers):
        print_notes(verdict.notes)
    for writer in writers:
        if isinstance(writer, ReportWriter):
            writer.write(verdict_report(verdict, why))
        else:
            write_bytes(writer.format(verdict).encode(), writer.path)
    _write_job_summary(verdict)
    raise typer.Exit(verdict.exit_code)


@dataclass(frozen=True, slots=True)
class _VerdictWriter:
    """A format of CI systems, and the file to write; without a file, standard output."""

    format: VerdictFormat
    path: Path | None


def _writer(text: str) -> ReportWriter | _VerdictWriter:
    """The writer for `KIND` or `KIND=FILE`. Raises UnknownNameError, or OutputError if the file cannot be written."""
    from cspprof.gate.formats import FORMATS

    kind, _, file = text.partition("=")
    path = Path(file) if file else None
    if kind in REPORT_FORMATS:
        return ReportWriter(kind, path)
    if kind not in FORMATS:
        raise UnknownNameError(f"no format named {kind!r}", suggestion(kind, [*REPORT_FORMATS, *FORMATS.names()]))
    if path is not None:
        check_writable(path)
        check_replaceable(path, FORMATS.get(kind).is_own, option=f"--format {kind}=FILE")
    return _VerdictWriter(FORMATS.get(kind), path)


def _write_job_summary(verdict: Verdict) -> None:
    """In a GitHub job, append the verdict to the summary of the job."""
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if not file:
        return
    from cspprof.gate.formats.github import cut_summary
    from cspprof.gate.report import verdict_report
    from cspprof.render import render

    path = Path(file)
    text = "## cspprof\n\n" + render("markdown", verdict_report(verdict, why=True)).decode()
    try:
        before = path.read_bytes() if path.is_file() else b""
        write_atomically(path, before + cut_summary(text, len(before)))
    except (OSError, OutputError) as error:  # the verdict is valid without a summary
        print(log_lines(f"note: cannot write the summary of the job: {error}"), file=sys.stderr)


@baseline_app.command("show")
def show_command(config: ConfigPath = None, format: o.Format = None, output: o.Output = None) -> None:
    """Show the numbers in the baseline."""
    from cspprof.gate.baseline import read
    from cspprof.gate.report import baseline_report

    writer, project = ReportWriter(format, output), load_config(config)
    models = read(project.baseline)
    if models is None:
        raise _no_baseline(project)
    writer.write(baseline_report(models, project.baseline.name))


@baseline_app.command("diff")
def diff_command(
    revision: Annotated[
        str, typer.Argument(metavar="[REV]", help="A commit, branch or tag of git.", show_default="HEAD")
    ] = "HEAD",
    config: ConfigPath = None,
    format: o.Format = None,
    output: o.Output = None,
) -> None:
    """Show what changed in the baseline since a git revision."""
    from cspprof.gate.baseline import changed_totals, parse, read
    from cspprof.gate.report import changes_report
    from cspprof.gate.revision import file_at

    writer, project = ReportWriter(format, output), load_config(config)
    now = read(project.baseline)
    if now is None:
        raise _no_baseline(project)
    content = file_at(project.baseline, revision)
    notes = [f"{revision} has no {project.baseline.name}"] if content is None else []
    before = {} if content is None else parse(content, f"{project.baseline.name} at {revision}")
    title = f"{project.baseline.name} since {revision}"
    writer.write(changes_report(changed_totals(before, now), title, notes))


def _no_baseline(project: Config) -> CspprofError:
    return CspprofError(f"there is no {project.baseline.name} yet", "Record one: cspprof check --update-baseline")


def init_command() -> None:
    """Write a commented cspprof.toml with the models of this project. An existing configuration is not overwritten."""
    from cspprof.gate.init import write_config

    path, models = write_config(Path.cwd())
    targets = ", ".join(model.target for model in models) or "none found"
    print(printable(f"{path.name} written; models: {targets}"))
    todo = "check their inputs in it, then record their" if models else "name one in it, then record its"
    print(f"Next: {todo} numbers: cspprof check --update-baseline")
