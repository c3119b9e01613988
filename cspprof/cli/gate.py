"""The CI gate's commands: check, baseline, init. Rooms are imported when they run: no pydantic for `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.output import Outlet
from cspprof.errors import CspprofError

if TYPE_CHECKING:
    from cspprof.gate.loading import Config

ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", metavar="PATH", help="The configuration, or its folder. Default: the nearest one above."),
]
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
        typer.Option("--format", "-f", metavar="KIND[=FILE]", help="How to say it, and where to; repeatable."),
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
    outlets = [_outlet(text) for text in formats or ["rich"]]
    settings = configuration(config)
    if update_baseline:
        changed, notes = update(settings, models or ())
        for outlet in outlets:
            outlet.emit(changes_report(changed, f"Recorded in {settings.baseline.name}", notes))
        return
    recorded = None
    if against is not None:
        from cspprof.gate.against import record_revision

        recorded = record_revision(settings, against, models or ())
    verdict = check(settings, models or (), recorded=recorded)
    for outlet in outlets:
        outlet.emit(verdict_report(verdict, why))
    raise typer.Exit(verdict.exit_code)


def _outlet(text: str) -> Outlet:
    kind, _, file = text.partition("=")
    return Outlet(kind, Path(file) if file else None)


@baseline_app.command("show")
def show_command(config: ConfigPath = None, format: o.Format = None, output: o.Output = None) -> None:
    """The numbers of the last recording."""
    from cspprof.gate.baseline import read
    from cspprof.gate.report import baseline_report

    outlet, settings = Outlet(format, output), configuration(config)
    models = read(settings.baseline)
    if models is None:
        raise _no_baseline(settings)
    outlet.emit(baseline_report(models, settings.baseline.name))


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

    outlet, settings = Outlet(format, output), configuration(config)
    now = read(settings.baseline)
    if now is None:
        raise _no_baseline(settings)
    then = file_at(settings.baseline, revision)
    notes = [f"{revision} has no {settings.baseline.name}"] if then is None else []
    before = {} if then is None else parse(then, f"{settings.baseline.name} at {revision}")
    title = f"{settings.baseline.name} since {revision}"
    outlet.emit(changes_report(changes(before, now), title, notes))


def _no_baseline(settings: Config) -> CspprofError:
    return CspprofError(f"there is no {settings.baseline.name} yet", "Record one: cspprof check --update-baseline")


def init_command() -> None:
    """Write cspprof.toml, a commented start with the models that are found here. Overwrites nothing."""
    from cspprof.gate.starting import start

    path, found = start(Path.cwd())
    names = ", ".join(c.target for c in found) or "none, see its comments"
    print(f"{path.name} written; models: {names}")
    print("Next: check their inputs in it, then record what they cost: cspprof check --update-baseline")
