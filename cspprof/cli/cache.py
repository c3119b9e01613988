"""The commands on what is remembered between runs: cache info, cache clear."""

from __future__ import annotations

import typer

from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter
from cspprof.core.units import nbytes
from cspprof.report.tables import Cell, Column, Report, Table, integer, text
from cspprof.storage import cache_store as store

app = typer.Typer(no_args_is_help=True, help="What is remembered between runs: how much, and where; forget it.")


@app.command("info")
def info_command(format: o.Format = None, output: o.Output = None) -> None:
    """Where profiles are remembered, how many, and how large that may become."""
    ReportWriter(format, output).write(_report("", store.contents()))


@app.command("clear")
def clear_command(format: o.Format = None, output: o.Output = None) -> None:
    """Forget all profiles."""
    ReportWriter(format, output).write(_report("Forgotten", store.clear()))


def _report(title: str, found: store.Contents) -> Report:
    place = str(store.folder())
    rows = [
        [text("folder"), text(place)],
        [text("questions"), integer(found.questions)],
        [text("profiles"), integer(found.profiles)],
        [text("size"), Cell(found.nbytes, nbytes(found.nbytes))],
        [text("may become"), Cell(store.LIMIT, nbytes(store.LIMIT))],
    ]
    record = {"folder": place, "questions": found.questions, "profiles": found.profiles, "bytes": found.nbytes,
              "limit": store.LIMIT}  # fmt: skip
    return Report([Table(title, [Column(""), Column("", numeric=True)], rows)], [record],
                  {"schema": "cspprof.cache/1", **record})  # fmt: skip
