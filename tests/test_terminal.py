"""Tables in a terminal: padding, narrow terminals, colors, notes, and what a command imports."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CHECKOUT, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from cspprof.core.record import Calls, Kind, Layer, OpSpec, Record, Storage, TensorSpec
from cspprof.profiles import Profile
from cspprof.render import Canvas, render
from cspprof.render.terminal import PIPED_WIDTH, rich_text
from cspprof.report.layer_tables import Breakdown
from cspprof.report.profile import profile_report
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


def text_of(*rows: list[str], header: list[str], numeric: int = 1, width: int | None = None) -> list[str]:
    """The lines of a table whose last `numeric` columns are numbers."""
    columns = [Column(h, i >= len(header) - numeric) for i, h in enumerate(header)]
    table = Table("", columns, [[Cell(c, c) for c in row] for row in rows])
    return rich_text(Report([table], [], {}), Canvas(width)).splitlines()


def test_text_is_left_aligned_and_numbers_are_right_aligned() -> None:
    lines = text_of(["conv1", "conv 3×3", "1,234"], ["stage1.0.conv", "linear", "5"], header=["layer", "kind", "MACs"])
    assert lines == [
        "layer          kind       MACs",
        "──────────────────────────────",
        "conv1          conv 3×3  1,234",
        "stage1.0.conv  linear        5",
    ]


def test_the_unit_of_numbers_is_below_the_title() -> None:
    lines = text_of(["a", "5"], header=["layer", "CIO (CSPNet) [elements]"])
    assert lines[:3] == ["              CIO", "         (CSPNet)", "layer  [elements]"]
    assert text_of(["a", "b"], header=["layer", "kind (of it)"], numeric=0)[0] == "layer  kind (of it)"


def test_text_wraps_at_spaces_and_numbers_do_not_wrap() -> None:
    lines = text_of(["a", "grouped conv 3×3", "63.0 MiB"], header=["layer", "kind", "traffic"], width=29)
    assert lines == [
        "layer  kind           traffic",
        "─────────────────────────────",
        "a      grouped conv  63.0 MiB",
        "       3×3",
    ]


def test_layer_paths_and_shapes_never_break() -> None:
    lines = text_of(["stage1.blocks.0", "1×64×128×128", "1,234"], header=["layer", "in", "MACs"], width=31)
    assert lines == ["stage1.blocks.0", "  in 1×64×128×128", "  MACs 1,234"]


def test_a_terminal_too_narrow_for_columns_gets_one_block_per_row() -> None:
    lines = text_of(["conv1", "1,234", "63.0 MiB"], header=["layer", "MACs", "traffic"], numeric=2, width=19)
    assert lines == ["conv1", "  MACs 1,234", "  traffic 63.0 MiB"]


def test_wide_characters_take_two_columns() -> None:
    lines = text_of(["ｂ", "1"], ["cc", "2"], header=["a", "n"])
    assert lines[2:] == ["ｂ  1", "cc  2"]


def test_good_changes_are_green_and_bad_changes_are_red() -> None:
    change = Table("", [Column("")], [[Cell(-1, "less", True)], [Cell(1, "more", False)], [Cell(0, "same")]])
    *_, less, more, same = rich_text(Report([change], [], {}), Canvas(80, color=True)).splitlines()
    assert (less, more, same) == ("\x1b[32mless\x1b[0m", "\x1b[31mmore\x1b[0m", "same")


def test_notes_follow_the_tables() -> None:
    table = Table("Title", [Column("a")], [[Cell(1, "1")]])
    lines = rich_text(Report([table], [], {}, ["first", "second"]), Canvas()).splitlines()
    assert lines == ["Title", "a", "─", "1", "", "note: first", "note: second"]


@settings(max_examples=25, deadline=None)
@given(REPORTS, st.sampled_from([None, 40, 80, 120]))
def test_color_changes_no_character(report: Report, width: int | None) -> None:
    plain, colored = rich_text(report, Canvas(width)), rich_text(report, Canvas(width, color=True))
    without_codes = re.sub(r"\x1b\[[\d;]*m", "", colored)
    assert [line.rstrip() for line in without_codes.splitlines()] == plain.splitlines()


@settings(max_examples=25, deadline=None)
@given(REPORTS, st.sampled_from([40, 80, 120]))
def test_every_cell_is_complete_at_every_width(report: Report, width: int) -> None:
    """Only white space is added, removed or changed."""

    def characters(lines: str) -> list[str]:
        return sorted(re.sub(r"[\s─]", "", lines))

    narrow = characters(rich_text(report, Canvas(width)))
    cells = "".join(cell.text for table in report.tables for row in table.rows for cell in row)
    for character in set(cells) - set(" "):
        assert narrow.count(character) >= cells.count(character)


def test_a_pipe_gets_one_line_per_row() -> None:
    lines = text_of(["x" * (PIPED_WIDTH // 2), "1"], header=["layer", "MACs"])
    assert len(lines) == 3


@pytest.mark.parametrize("arguments", [["cio", "{}", "{}", "--format", "json"], ["--help"]])
def test_json_and_help_import_neither_rich_nor_torch_nor_matplotlib(
    arguments: list[str], chain: Profile, tmp_path: Path
) -> None:
    saved = str(chain.save(tmp_path / "chain.profile.json"))
    program = (
        "import sys\nfrom cspprof.cli import main\n"
        f"try:\n    main({[a.format(saved) for a in arguments]!r})\nexcept SystemExit:\n    pass\n"
        "print(sorted({'rich', 'torch', 'matplotlib', 'pandas', 'sympy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("width", [None, 12])
def test_a_name_of_a_file_cannot_control_the_terminal(width: int | None) -> None:
    name = "conv\x1b[31m\x9b2J"
    table = Table(name, [Column(name, False), Column("MACs", True)], [[Cell(name, name), Cell(1, "1")]])
    text = rich_text(Report([table], [], {}, [name]), Canvas(width))
    assert not {"\x1b", "\x9b"} & set(text)
    assert "x1b" in text


@pytest.mark.parametrize("name", ["rich", "markdown", "latex", "csv", "html", "json"])
def test_a_name_stays_on_its_line_in_every_format(name: str) -> None:
    """A line break, an ANSI sequence in seven and in eight bits, markup of rich, a mark that reverses text."""
    layers = [Layer("", "Net", 0, 1, 0), Layer("a\n\x1b[31m\x9b1m[red]b[/red]\u2028\u202ec", "Conv", 1, 1, 0)]
    call = OpSpec("x.op\r\n", Kind.ELEMENTWISE, (TensorSpec((1, 2)),), (), (TensorSpec((1, 2)),))
    record = Record(
        "net\n.onnx", "net.onnx", (TensorSpec((1, 2)),), tuple(layers), (call,), Calls([0], [1], [0, 1]),
        (Storage(0, "in\nput", "input", TensorSpec((1, 2))),), 0, (1,), ("a note on a\nb",),
    )  # fmt: skip
    report = profile_report("profile", [record], ["macs"], "macs", Breakdown(layers=True))
    text = render(name, report).decode()
    assert not [c for c in text if not c.isprintable() and c != "\n"]
    assert "net" in text
    assert name == "html" or not [line for line in text.splitlines() if line.strip().startswith(("b", ".onnx"))]


def test_a_name_in_an_error_stays_on_its_line(run: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\nclass Fails(nn.Module):\n    def forward(self, x): raise ValueError('\\x1b[31m')\n"
        "def net():\n    m = nn.Sequential()\n    m.add_module('a\\nb', Fails())\n    return m\n"
    )
    result = run("profile", f"{file}:net", "--input", "1x3")
    assert result.code == 2
    assert r"layer 'a\nb'" in result.err
    assert "\x1b" not in result.err
