"""Write the gallery in this folder: `python reports/make.py`. With `--check`, list stale files and exit with 1.

Tables and chart data are compared byte by byte. Images and the HTML report are compared only under the library versions
in `versions.json`, because another version may draw a line differently. `learning.py` writes `learning.md`, and
`spaces.py` and `study.py` write `spaces.md` and `study.md`.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

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
LIBRARIES = ("jinja2", "matplotlib", "numpy", "pillow", "torch")
"""Their versions determine the bytes of an image or appear on the page."""
MOST_BYTES = 300_000
"""The size of an image in this folder."""
PAIR = ("resnext50", "csp_resnext50")
TABLES = {"table1": "Table 1", "table3": "Table 3"}
CHARTS_WITH_PRINTED_FIGURES = ("fig7", "fig8")
PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    **{kind: (kind, {}) for kind in CHARTS},
    "training-memory": ("memory", {"training": True}),
}
"""The kind and the options of each chart, by the name of its files."""
INTRODUCTION = """# Reports

The cost figures of the CSPNet paper, recomputed. `python reports/make.py` writes this folder; a test checks that it is
current. The `.csv` beside each image has exactly the data of the image.
"""


@cache
def chart(name: str) -> Chart:
    """The chart of its default models, the networks of the paper."""
    kind, options = PICTURES[name]
    return cspprof.plot(kind, **options)


@cache
def reproduction() -> Reproduction:
    return cspprof.reproduce("all")


def table(name: str) -> str:
    """One published table as Markdown, with every printed figure beside the computed value."""
    whole = reproduction()
    part = Reproduction(
        tuple(f for f in whole.figures if f.table.name == name),
        tuple(r for r in whole.related if r[0].name == name),
    )
    return render("markdown", reproduction_report(part)).decode()


def readme() -> str:
    """Every image and table, with its caption and notes."""
    parts = [INTRODUCTION]
    for name, (kind, _) in PICTURES.items():
        c = chart(name)
        lines = "".join(f"- {line}\n" for line in (c.caption, *c.notes, f"Data: [{name}.csv]({name}.csv)"))
        parts.append(f"## {name}: {c.title}\n\n![{CHARTS.get(kind).summary}]({name}.png)\n\n{lines}")
        if name in CHARTS_WITH_PRINTED_FIGURES:
            parts.append(table(name))
    parts += [f"## {title}\n\n{table(name)}" for name, title in TABLES.items()]
    parts.append(f"## Does a converted network still learn?\n\n{(HERE / 'learning.md').read_text(encoding='utf-8')}")
    parts.append(
        "## Design spaces\n\n[γ × fusion × width × resolution of CSPPeleeNet and CSPResNeXt-50, and all of timm]"
        "(spaces.md), with their Pareto fronts\n"
    )
    parts.append("## Does theory predict the time of a network?\n\n[Measured times of 78 networks](study.md)\n")
    parts.append("## All printed figures\n\n[Every printed cost figure beside the computed value](reproduction.md)\n")
    parts.append(f"## HTML report\n\n[{' and '.join(PAIR)} in one file](report.html), to download.\n")
    return "\n".join(parts)


def data_files() -> Iterator[tuple[str, bytes]]:
    """Name and content of every text file."""
    for name in PICTURES:
        yield f"{name}.csv", csv_text(chart(name).records).encode()
    for name in TABLES:
        yield f"{name}.md", table(name).encode()
    yield "reproduction.md", render("markdown", reproduction_report(reproduction()))
    yield "reproduction.csv", render("csv", reproduction_report(reproduction()))
    yield "README.md", readme().encode()


def images() -> Iterator[tuple[str, bytes]]:
    """Name and content of every image, and of the HTML report."""
    for name in PICTURES:
        yield f"{name}.png", small_png(image_bytes(chart(name), "png"))
    yield "report.html", html_page([cspprof.profile(name) for name in PAIR]).encode()


def small_png(image: bytes) -> bytes:
    """The image; one of more than `MOST_BYTES` with 64 colors, which a chart does not exceed visibly."""
    if len(image) <= MOST_BYTES:
        return image
    out = io.BytesIO()
    Image.open(io.BytesIO(image)).convert("RGB").quantize(64).save(out, "png", optimize=True)
    return out.getvalue()


def versions() -> dict[str, str]:
    return {name: version(name) for name in LIBRARIES}


def stale_files(folder: Path, with_images: bool) -> Iterator[str]:
    """The names of files that differ from the current output."""
    for files in (data_files, images) if with_images else (data_files,):
        for name, content in files():
            if not (folder / name).is_file() or (folder / name).read_bytes() != content:
                yield name


def main(arguments: list[str]) -> int:
    recorded = HERE / "versions.json"
    if arguments == ["--check"]:
        same_versions = recorded.is_file() and json.loads(recorded.read_text()) == versions()
        stale = list(stale_files(HERE, with_images=same_versions))
        for name in stale:
            print(f"reports/{name} is stale: run python reports/make.py", file=sys.stderr)
        return 1 if stale else 0
    for files in (data_files, images):
        for name, content in files():
            (HERE / name).write_bytes(content)
    recorded.write_text(json.dumps(versions(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
