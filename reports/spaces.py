"""Sweep three design spaces: `python reports/spaces.py`. It takes about three minutes on two cores. With `--page`, only
the page is written again.

Writes `spaces.md` and, for each space, `space_*.csv` with all candidates and `space_*.png` with the Pareto front. Every
number is exact, so `tests/test_spaces.py` traces some candidates again and derives the page from the CSV files.
"""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cspprof.analysis.pareto import pareto_optimal
from cspprof.core import units

HERE = Path(__file__).parent
TOTALS = ("params", "macs", "cio_cspnet", "traffic_bytes", "peak_bytes")
MOST_ROWS = 12
"""Rows of a table on the page; of a longer front, rows at equal distances."""

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Space:
    """A space, and what its front says."""

    name: str
    title: str
    command: tuple[str, ...]
    axes: tuple[str, ...]
    traffic: str
    """The metric to minimize; MACs are maximized."""
    most_macs: int | None
    question: str

    @property
    def csv(self) -> Path:
        return HERE / f"space_{self.name}.csv"

    @property
    def sweep(self) -> list[str]:
        """The arguments of the command."""
        limit = ["--where", f"macs<={self.most_macs / 1e9:g}G"] if self.most_macs else []
        return ["sweep", *self.command, *limit, "--maximize", "macs", "--minimize", self.traffic]


PARTIAL = ("--grid", "gamma=0.25:0.75:0.125", "--grid", "fusion=csp,first,last", "--grid", "width=0.5:1.5:0.25")
AXES = ("gamma", "fusion", "width", "size")
SPACES = (
    Space(
        "csp_peleenet", "CSPPeleeNet: γ × fusion × width × resolution",
        ("csp_peleenet", *PARTIAL, "--size", "224,320,416"), AXES, "cio_cspnet", None,
        "Which candidate has the least CIO for the MACs that it spends?",
    ),
    Space(
        "csp_resnext50", "CSPResNeXt-50: γ × fusion × width × resolution",
        ("csp_resnext50", *PARTIAL, "--size", "224,256,320"), AXES, "cio_cspnet", None,
        "Which candidate has the least CIO for the MACs that it spends?",
    ),
    Space(
        "timm", "timm: every architecture up to 10 G MACs", ("timm:*",), (), "traffic_bytes", 10_000_000_000,
        "Which architecture has the least traffic for the MACs that it spends? Traffic, not CIO, since many "
        "architectures compute mostly in linear layers and attention. timm's package ships no accuracies, so the "
        "front says nothing about accuracy.",
    ),
)  # fmt: skip


def run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "cspprof", *arguments], check=False)
    if done.returncode:
        sys.exit(f"cspprof {shlex.join(arguments)} exited with {done.returncode}")


def columns(space: Space) -> list[str]:
    return ["model", *space.axes, "input", "status", *TOTALS]


def sweep(space: Space) -> None:
    """Run the command of a space, and write its candidates and its figure."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.csv")
        journal = ("--journal", str(Path(folder, "journal.sweep")))
        run(*space.sweep, *journal, "-o", str(HERE / f"space_{space.name}.png"))
        run(*space.sweep, *journal, "-o", str(rows))
        with rows.open(newline="", encoding="utf-8") as file:
            found = sorted(csv.DictReader(file), key=lambda row: [row[name] for name in columns(space)])
    (HERE / f"space_{space.name}.png").with_suffix(".csv").unlink(missing_ok=True)  # the data of the figure
    with space.csv.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns(space))
        writer.writerows([row[name] for name in columns(space)] for row in found)


def rows_of(space: Space) -> list[Row]:
    """All candidates of a space."""
    with space.csv.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def front(space: Space, rows: Iterable[Row]) -> list[Row]:
    """The Pareto-optimal candidates, by ascending MACs."""
    complete = [row for row in rows if row["status"] == "ok" and row["macs"] and row[space.traffic]]
    allowed = [row for row in complete if space.most_macs is None or int(row["macs"]) <= space.most_macs]
    optimal = pareto_optimal([(int(row["macs"]), int(row[space.traffic])) for row in allowed], [True, False])
    return sorted((allowed[i] for i in optimal), key=lambda row: int(row["macs"]))


def table(space: Space, rows: Sequence[Row]) -> Iterable[str]:
    """The front as Markdown."""
    names = space.axes or ("model",)
    yield "| " + " | ".join([*names, "MACs", "CIO (CSPNet)", "traffic", "params"]) + " |"
    yield "| " + " | ".join(["---"] * len(names) + ["--:"] * 4) + " |"
    step = max(1, -(-len(rows) // MOST_ROWS))
    for row in [*rows[:-1:step], rows[-1]]:
        counts = [units.short_count(int(row[m])) for m in ("macs", "cio_cspnet")]
        cells = [row[name] for name in names]
        numbers = [*counts, units.nbytes(int(row["traffic_bytes"])), units.short_count(int(row["params"]))]
        yield "| " + " | ".join([*cells, *numbers]) + " |"


def on_the_front(space: Space, optimal: Sequence[Row]) -> str:
    """How many Pareto-optimal candidates have each value of each axis."""
    lines = []
    for name in space.axes:
        counts = Counter(row[name] for row in optimal)
        lines.append(f"- {name}: " + ", ".join(f"{value} in {n}" for value, n in counts.most_common()))
    return "\n".join(["Values of the Pareto-optimal candidates:\n", *lines])


def page() -> str:
    """What `spaces.md` says, from the CSV files."""
    introduction = "The command above each figure sweeps the space; `python reports/spaces.py` runs all of them."
    parts = ["# Design spaces\n", f"{introduction}\n"]
    for space in SPACES:
        rows = rows_of(space)
        optimal = front(space, rows)
        ok = sum(row["status"] == "ok" for row in rows)
        failed = f" {len(rows) - ok} could not be built or traced." if ok < len(rows) else ""
        parts.append(f"## {space.title}\n")
        parts.append(f"```sh\ncspprof {shlex.join(space.sweep)} -o front.png\n```\n")
        parts.append(f"![The candidates and the Pareto front](space_{space.name}.png)\n")
        parts.append(f"{space.question}\n")
        shown = " The table shows rows at equal distances." if len(optimal) > MOST_ROWS else ""
        parts.append(f"{len(rows)} candidates.{failed} {len(optimal)} are Pareto-optimal.{shown}\n")
        parts.append("\n".join(table(space, optimal)) + "\n")
        if space.axes:
            parts.append(f"{on_the_front(space, optimal)}\n")
        parts.append(f"All candidates: [{space.csv.name}]({space.csv.name})\n")
    return "\n".join(parts)


if __name__ == "__main__":
    for each in SPACES:
        if "--page" not in sys.argv:
            sweep(each)
    (HERE / "spaces.md").write_text(page(), encoding="utf-8")
