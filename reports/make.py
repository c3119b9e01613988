"""Makes what is in this folder anew: `python reports/make.py`. With --check it writes nothing and says what is stale.

Tables and the data of figures are compared byte by byte; pictures and the page too, but only under the versions that
made them (`versions.json`), as another version of a library may round a line differently.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

import cspprof
from cspprof.render import render
from cspprof.render.json_csv import csv_text
from cspprof.render.matplotlib_chart import image_bytes
from cspprof.render.page.document import html_page
from cspprof.report.chart_model import Chart
from cspprof.report.charts import CHARTS
from cspprof.report.reproduction import reproduction_report
from cspprof.results import Reproduction

HERE = Path(__file__).parent
DRAWING = ("jinja2", "matplotlib", "numpy", "pillow", "torch")
"""Whose versions decide a picture's bytes, or are told on the page."""
PAIR = ("resnext50", "csp_resnext50")
TABLES = {"table1": "Table 1", "table3": "Table 3"}
BESIDE = ("fig7", "fig8")
"""Pictures of which there are figures in print: they stand below."""
INTRODUCTION = """# Reports

The CSPNet paper's cost figures, recomputed. `python reports/make.py` makes everything here anew; the tests compare it
with what the code gives. Beside every picture lies a `.csv` of exactly what it shows.
"""


@cache
def chart(kind: str) -> Chart:
    """The kind's own example: the networks of the paper."""
    return cspprof.plot(kind)


@cache
def reproduction() -> Reproduction:
    return cspprof.reproduce("all")


def table(name: str) -> str:
    """One table of the paper as Markdown: every figure in print beside ours."""
    found = reproduction()
    part = Reproduction(
        tuple(f for f in found.figures if f.table.name == name),
        tuple(b for b in found.related if b[0].name == name),
    )
    return render("markdown", reproduction_report(part)).decode()


def readme() -> str:
    """Every picture and table, with what has to be known to read it."""
    parts = [INTRODUCTION]
    for kind in CHARTS:
        drawn = chart(kind)
        said = "".join(f"- {line}\n" for line in (drawn.caption, *drawn.notes, f"Data: [{kind}.csv]({kind}.csv)"))
        parts.append(f"## {kind}: {drawn.title}\n\n![{CHARTS.get(kind).summary}]({kind}.png)\n\n{said}")
        if kind in BESIDE:
            parts.append(table(kind))
    parts += [f"## {title}\n\n{table(name)}" for name, title in TABLES.items()]
    parts.append("## All figures in print\n\n[Every cost figure of these papers beside ours](reproduction.md)\n")
    parts.append(f"## In a browser\n\n[{' and '.join(PAIR)}: one page of everything](report.html), to be downloaded.\n")
    return "\n".join(parts)


def data() -> Iterator[tuple[str, bytes]]:
    """Name and content of everything that is text."""
    for kind in CHARTS:
        yield f"{kind}.csv", csv_text(chart(kind).records).encode()
    for name in TABLES:
        yield f"{name}.md", table(name).encode()
    yield "reproduction.md", render("markdown", reproduction_report(reproduction()))
    yield "reproduction.csv", render("csv", reproduction_report(reproduction()))
    yield "README.md", readme().encode()


def pictures() -> Iterator[tuple[str, bytes]]:
    """Name and content of every picture, and of the page about the paper's pair."""
    for kind in CHARTS:
        yield f"{kind}.png", image_bytes(chart(kind), "png")
    yield "report.html", html_page([cspprof.profile(name) for name in PAIR]).encode()


def versions() -> dict[str, str]:
    return {name: version(name) for name in DRAWING}


def stale(folder: Path, with_pictures: bool) -> Iterator[str]:
    """Names of files that are not what the code gives."""
    for made in (data, pictures) if with_pictures else (data,):
        for name, content in made():
            if not (folder / name).is_file() or (folder / name).read_bytes() != content:
                yield name


def main(arguments: list[str]) -> int:
    """Write everything, or with --check say what differs. 0 where nothing does."""
    kept = HERE / "versions.json"
    if arguments == ["--check"]:
        same = kept.is_file() and json.loads(kept.read_text()) == versions()
        old = list(stale(HERE, with_pictures=same))
        for name in old:
            print(f"reports/{name} is stale: run python reports/make.py", file=sys.stderr)
        return 1 if old else 0
    for made in (data, pictures):
        for name, content in made():
            (HERE / name).write_bytes(content)
    kept.write_text(json.dumps(versions(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
