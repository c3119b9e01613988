"""Commands on the cache of profiles: cache info, cache clear."""

from __future__ import annotations

import typer

from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter
from cspprof.core.units import nbytes
from cspprof.report.tables import Cell, Column, Report, Table, integer, text
from cspprof.storage import cache

app = typer.Typer(no_args_is_help=True, help="The cache of profiles: its folder and size; clear it.")


@app.command("info")
def info_command(format: o.Format = None, output: o.Output = None) -> None:
    """Print the folder of the cache, the number of profiles in it, and their size."""
    ReportWriter(format, output).write(_report("", cache.entries()))


@app.command("clear")
def clear_command(format: o.Format = None, output: o.Output = None) -> None:
    """Remove all profiles from the cache."""
    ReportWriter(format, output).write(_report("Removed from the cache", cache.clear()))


def _report(title: str, entries: list[cache.Entry]) -> Report:
    folder, size = str(cache.folder()), sum(entry.nbytes for entry in entries)
    rows = [
        [text("folder"), text(folder)],
        [text("profiles"), integer(len(entries))],
        [text("size"), Cell(size, nbytes(size))],
        [text("limit of the cache"), Cell(cache.LIMIT, nbytes(cache.LIMIT))],
    ]
    record = {"folder": folder, "profiles": len(entries), "bytes": size, "limit": cache.LIMIT}
    table = Table(title, [Column("cache"), Column("value", numeric=True)], rows)
    return Report([table], [record], {"schema": "cspprof.cache/1", **record})
