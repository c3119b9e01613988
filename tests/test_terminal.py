"""What is only padded looks as what rich lays out, and takes no rich."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECKOUT
from hypothesis import given
from hypothesis import strategies as st

from cspprof.profiles import Profile
from cspprof.render import Canvas
from cspprof.render.aligned import aligned
from cspprof.render.terminal import PIPED_WIDTH, laid_out, rich_text
from cspprof.report.chart_model import Axis, Chart, Mark, Panel, Series
from cspprof.report.tables import Cell, Column, Report, Table

WORDS = ["a", "×", "−7.6 %", "MACs", "CIO (HarDNet) [elements]", "well-known", "1,234,567", "x" * 30, "two  spaces"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    columns = draw(st.lists(st.builds(Column, TEXTS, st.booleans()), min_size=1, max_size=4))
    cells = st.builds(Cell, st.none(), TEXTS, st.sampled_from([True, False, None]))
    rows = draw(st.lists(st.lists(cells, min_size=len(columns), max_size=len(columns)), max_size=3))
    return Table(draw(TEXTS), columns, rows)


REPORTS = st.builds(Report, st.lists(tables(), max_size=3), st.just([]), st.just({}), st.lists(TEXTS, max_size=3))


def plain(text: str) -> list[str]:
    return [line.rstrip() for line in re.sub(r"\x1b\[\d*m", "", text).splitlines()]


@given(REPORTS, st.sampled_from([None, 40, 80, 120]), st.booleans())
def test_padded_columns_are_those_that_rich_lays_out(report: Report, width: int | None, colour: bool) -> None:
    padded = aligned(report, width or PIPED_WIDTH, colour)
    expected = laid_out(report, Canvas(width, colour))
    assert padded is None or plain(padded) == plain(expected)
    if padded is not None and not colour:
        assert padded == expected


AXIS = Axis("x", "x")
BARS = Panel("", AXIS, AXIS, (Series("", "bars", (Mark(0, 1),)),))
ROW = [Cell(1, "MACs"), Cell(2, "1,234")]


@pytest.mark.parametrize(
    ("report", "width"),
    [
        (Report([Table("", [Column("a"), Column("b", True)], [ROW])], [], {}), 10),
        (Report([Table("", [Column("a"), Column("ｂ", True)], [ROW])], [], {}), 80),
        (Report([Table("", [Column("a\tb"), Column("b", True)], [ROW])], [], {}), 80),
        (Report([], [], {}, charts=[Chart("bottleneck", "t", (BARS,))]), 80),
    ],
)  # fmt: skip
def test_what_takes_more_than_padding_is_left_to_rich(report: Report, width: int) -> None:
    """A row that is longer, characters of another width, a chart."""
    assert aligned(report, width, False) is None
    assert rich_text(report, Canvas(width)) == laid_out(report, Canvas(width))


def test_colours_say_what_is_better() -> None:
    change = Table("", [Column("")], [[Cell(-1, "less", True)], [Cell(1, "more", False)], [Cell(0, "same")]])
    _, _, less, more, same = rich_text(Report([change], [], {}), Canvas(80, colour=True)).splitlines()
    assert (less, more, same) == ("\x1b[32mless\x1b[0m", "\x1b[31mmore\x1b[0m", "same")


def test_a_saved_profile_in_a_pipe_takes_neither_rich_nor_what_draws(chain: Profile, tmp_path: Path) -> None:
    saved = chain.save(tmp_path / "chain.profile.json")
    program = f"""
import sys
from cspprof.cli import main
try:
    main(["cio", {str(saved)!r}, {str(saved)!r}])
except SystemExit:
    pass
unwanted = {{"rich", "cspprof.report.chart_model", "cspprof.report.charts", "tempfile", "torch"}}
sys.exit(f"imported: {{unwanted & set(sys.modules)}}" if unwanted & set(sys.modules) else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
