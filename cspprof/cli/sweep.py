"""The command `sweep`: every candidate of a design space, and the best of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cspprof.analysis.constraints import parse_constraints
from cspprof.cli import options as o
from cspprof.cli.completion import complete_metric, complete_metrics, complete_spec
from cspprof.cli.output import ReportWriter, print_notes, print_written, writing
from cspprof.core.errors import CspprofError
from cspprof.core.files import check_replaceable, check_writable
from cspprof.core.inputs import parse_device
from cspprof.core.units import parse_quantity
from cspprof.metrics.names import split_metrics
from cspprof.papers.accuracy import ACCURACIES
from cspprof.render import RENDERERS, format_of
from cspprof.report.tables import Report
from cspprof.sweeps.candidate import Row, retried_statuses
from cspprof.sweeps.child import Limits
from cspprof.sweeps.front import goal_of, number_name
from cspprof.sweeps.result import IMAGES, Sweep
from cspprof.sweeps.search import Search
from cspprof.sweeps.space import Space, expand_models, parse_grid, parse_shard, parse_sizes, parse_values
from cspprof.sweeps.space_file import read_space_file
from cspprof.sweeps.sweep import run_sweep

Specs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SPEC...]",
        help="Models as in cspprof profile SPEC, or globs: 'timm:resnet*', 'torchvision:*', 'csp_*'. Without any, the "
        "rows of --journal are shown.",
        show_default=False,
        autocompletion=complete_spec,
    ),
]
ALL_ROWS = (".csv", ".parquet", ".html")


def sweep_command(
    specs: Specs = None,
    grid: Annotated[
        list[str] | None,
        typer.Option("--grid", metavar="NAME=VALUES", help="An axis: an option of the factory, or convert.gamma and "
                     "other options of the conversion: gamma=0.25:0.75:0.125, fusion=csp,last. Repeat for more."),
    ] = None,
    space: Annotated[
        Path | None, typer.Option("--space", metavar="FILE", help="Read models, axes and objectives from a TOML file.")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", metavar="SIZES", help="An axis: 224,320x256 or 192:320:32.")
    ] = None,
    batch: Annotated[str | None, typer.Option("--batch", metavar="BATCHES", help="An axis: 1,8.")] = None,
    input: o.Input = None,
    device: o.Device = None,
    where: Annotated[
        list[str] | None, typer.Option("--where", metavar="METRIC<=N", help='Constraints: "bflops<=1 and cio<=12M".')
    ] = None,
    minimize: Annotated[
        list[str] | None,
        typer.Option("--minimize", metavar="METRIC", help="An objective; repeatable. Default: macs and cio_cspnet.",
                     autocompletion=complete_metric),
    ] = None,
    maximize: Annotated[
        list[str] | None,
        typer.Option("--maximize", metavar="METRIC", help="An objective, such as moc or top1; repeatable.",
                     autocompletion=complete_metric),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="METRICS", help="Further columns: params,peak_bytes.",
                     autocompletion=complete_metrics),
    ] = None,
    sample: Annotated[
        int | None, typer.Option("--sample", metavar="N", help="Only N candidates, chosen at random.")
    ] = None,
    search: Annotated[
        str | None,
        typer.Option("--search", metavar="SAMPLER", help="Let Optuna choose: tpe, nsga2, gp or random."),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, metavar="N", help="Candidates that --search tries.")] = 200,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="Of --sample and --search.")] = 0,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Only the I-th of N equal parts, for batch systems.")
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option("--journal", metavar="FILE", help="The file of all rows. A second run goes on with it. Default: a "
                     "file in the folder of the cache."),
    ] = None,
    extend: Annotated[bool, typer.Option("--extend", help="Add another space to the journal.")] = False,
    merged: Annotated[
        list[Path] | None, typer.Option("--merge", metavar="FILE", help="Add the rows of another journal; repeatable.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, metavar="N", help="Processes. Default: one per processor.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="ADDRESS", help="Run on a Dask cluster: tcp://host:8786.")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="S", help="Seconds for one candidate.")
    ] = 300,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="BYTES", help="Memory for one candidate: 4GiB. Linux only.")
    ] = None,
    retry: Annotated[
        list[str] | None,
        typer.Option("--retry", metavar="STATUSES", help="Run candidates again whose row has one of these statuses: "
                     "failed, timeout, memory, crashed, or all."),
    ] = None,
    tracker: Annotated[
        list[str] | None,
        typer.Option("--tracker", metavar="TRACKER", help="Send each row to a tracker too: mlflow:sqlite:///mlflow.db, "
                     "tensorboard:runs. Repeatable."),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", metavar="FILE", help="rows.csv or rows.parquet: all rows; front.png, .svg or "
                     ".pdf: the figure; page.html: candidates to explore; or the front in another format. Repeatable."),
    ] = None,
    format: o.Format = None,
) -> None:  # fmt: skip
    """Trace every candidate of a design space once, and print the Pareto-optimal ones.

    Rows are written to a journal as they are finished: a run that is interrupted or killed goes on where it was, with
    the same command.
    """
    destinations = _destinations(output or [], format)
    file = read_space_file(space) if space is not None else {}
    models = [*file.get("models", ()), *(specs or ())]
    device = parse_device(device) if device else None
    chosen = _space(models, grid, size, batch, input, device, sample, seed, shard, file)
    goal = goal_of(
        _names(minimize or file.get("minimize")), _names(maximize or file.get("maximize")),
        parse_constraints(where or file.get("where", ()), ACCURACIES), split_metrics(metric),
    )  # fmt: skip
    limits = Limits(timeout, int(parse_quantity(memory).value) if memory is not None else None)
    total = 0 if chosen is None else len(chosen) if search is None else min(trials, len(chosen))
    with _progress(total) as on_rows:
        result = run_sweep(chosen, goal, journal=journal, extend=extend, merged=merged or (), workers=workers,
                           scheduler=scheduler, limits=limits, on_rows=on_rows,
                           retried=retried_statuses(retry or ()), trackers=tracker or (),
                           search=Search(search, trials, seed) if search is not None else None)  # fmt: skip
    report = result.report()
    for destination in destinations:
        destination.write(result, report)
    if not any(destination.prints_notes for destination in destinations):
        print_notes(report.notes)


def _space(
    specs: list[str], grid: list[str] | None, size: str | None, batch: str | None, inputs: list[str] | None,
    device: str | None, sample: int | None, seed: int, shard: str | None, file: dict[str, Any],
) -> Space | None:  # fmt: skip
    """The space of the options and the file; None without a model."""
    axes = {**file.get("grid", {}), **parse_grid(grid or ())}
    if size is not None:
        axes["size"] = parse_sizes(size)
    if batch is not None:
        axes["batch"] = parse_values(batch, "--batch")
    if not specs:
        return None
    return Space(expand_models(specs), axes, tuple(inputs or ()), device, sample, seed, parse_shard(shard))


def _names(texts: list[str] | None) -> list[str]:
    return [number_name(part.strip()) for text in texts or () for part in text.split(",")]


@contextmanager
def _progress(total: int) -> Iterator[Callable[[list[Row]], None]]:
    """Show on a terminal's standard error what is done; yields the function that receives the finished rows."""
    if not sys.stderr.isatty() or not total:
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    started = time.monotonic()
    done = failed = 0
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("tracing", total=total)

        def show(rows: list[Row]) -> None:
            nonlocal done, failed
            done += len(rows)
            failed += sum(row.status != "ok" for row in rows)
            rate = done / (time.monotonic() - started)
            bar.update(task, advance=len(rows), description=f"{rate:.1f} per second, {failed} without numbers")

        yield show


class _Destination:
    """Where the result goes: a figure, all rows, or the front in a format."""

    def __init__(self, path: Path | None, format_name: str | None) -> None:
        self._path = path
        suffix = path.suffix.lower() if path is not None and format_name is None else ""
        self._kind = "image" if suffix in IMAGES else "rows" if suffix in ALL_ROWS else "report"
        if path is None or self._kind == "report":
            self._writer = ReportWriter(format_name, path)
        elif self._kind == "image":
            from cspprof.render.matplotlib_chart import check_image_path

            check_image_path(path)
        else:
            name = format_of(path)
            RENDERERS.get(name or "csv").check(name or "csv")
            check_writable(path)
            check_replaceable(path, RENDERERS.get(name or "csv").is_own)

    @property
    def prints_notes(self) -> bool:
        return self._path is None or self._kind == "report"

    @property
    def files(self) -> list[Path]:
        """The files that are written; the data of a figure stand beside it."""
        if self._path is None:
            return []
        return [self._path, self._path.with_suffix(".csv")] if self._kind == "image" else [self._path]

    def write(self, result: Sweep, report: Report) -> None:
        if self._path is None or self._kind == "report":
            self._writer.write(report)
            return
        written = writing(*self.files)
        result.save(self._path)
        print_written(written)


def _destinations(paths: list[Path], format_name: str | None) -> list[_Destination]:
    """Where each `-o` writes; standard output without any. Raises CspprofError if two would write one file."""
    found = [_Destination(None if path in o.STANDARD_OUTPUT else path, format_name) for path in paths]
    files = [file for destination in found for file in destination.files]
    for file in files:
        if files.count(file) > 1:
            raise CspprofError(f"two options -o write {file}", f"Name another file: -o all_{file.name}")
    return found or [_Destination(None, format_name)]
