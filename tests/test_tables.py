"""Tables: what fits in a terminal, columns, the layer of the peak, stages, and the table of a paper."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Result, quick, trace
from table_snapshots import COMMANDS, snapshots
from torch import nn

import cspprof
from cspprof.analysis.module_summary import peak_path
from cspprof.analysis.stages import stage_depths, stage_labels
from cspprof.core.errors import UnknownNameError
from cspprof.core.units import short_count
from cspprof.metrics import METRICS
from cspprof.render import Canvas
from cspprof.render.fit_table import fit, least_width
from cspprof.render.terminal import rich_text
from cspprof.report.layer_tables import Breakdown, split_columns
from cspprof.report.tables import Cell, Column, Report, Table

Run = Callable[..., Result]


def records(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# -- what fits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "command", "output"), quick(snapshots(), 8))
def test_a_command_prints_its_snapshot(
    run: Run, monkeypatch: pytest.MonkeyPatch, width: int, command: str, output: str
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    printed = run(*command.split()).out
    assert printed == output
    if "--format" not in command:
        assert max(map(len, printed.splitlines())) <= width


def test_every_command_has_its_snapshots() -> None:
    assert {command for _, command, _ in snapshots()} == {*COMMANDS}


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_list_of_layers_has_about_one_line_per_layer(run: Run, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run("profile", "resnet50", "--layers").out.splitlines()
    layers = len(cspprof.profile("resnet50").to_pandas())
    assert layers < len(lines) < 1.3 * layers + 30
    assert max(map(len, lines)) <= width


def table(*columns: Column, rows: int = 1, text: str = "12345678") -> Table:
    cells = [Cell(text, text) if c.shortens else Cell(1, text) for c in columns]
    return Table("", columns, [cells] * rows)


def test_columns_get_a_place_in_the_order_of_their_priorities() -> None:
    wide = table(Column("a"), Column("b", True, 3), Column("c", True, 1), Column("d", True, 2))
    for width, headers, left_out in ((38, "abcd", []), (37, "acd", ["b"]), (27, "ac", ["b", "d"]), (5, "a", [*"bcd"])):
        fitted, missing = fit(wide, width)
        assert ("".join(c.header for c in fitted.columns), missing) == (headers, left_out)


def test_a_narrow_column_gets_the_place_that_a_wider_one_cannot_use() -> None:
    rows = [[Cell(1, "1" * 10), Cell(1, "1" * 30), Cell(1, "22")]]
    fitted, missing = fit(Table("", [Column("a"), Column("b", True, 1), Column("c", True, 2)], rows), 20)
    assert ([c.header for c in fitted.columns], missing) == (["a", "c"], ["b"])


def test_paths_are_shortened_to_24_characters_and_numbers_never() -> None:
    path = "encoder.layers.encoder_layer_11.self_attention.out_proj"
    long = Table("", [Column("layer", shortens=True), Column("n", True)], [[Cell(path, path), Cell(1, "123,456")]])
    assert least_width(long) == 55 + 2 + 7
    fitted, missing = fit(long, 40)
    assert (fitted.rows[0][0].text, fitted.rows[0][1].text, missing) == (
        "encoder.la…f_attention.out_proj",
        "123,456",
        [],
    )
    assert len(fit(long, 10)[0].rows[0][0].text) == 24


def test_names_of_models_above_numbers_are_shortened_and_their_status_stays() -> None:
    name = "timm:vit_base_patch16_224.augreg_in21k (reading)"
    fitted, _ = fit(Table("", [Column(""), Column(name, True, shortens=True)], [[Cell("", ""), Cell(1, "5")]]), 20)
    assert "…" in fitted.columns[1].header
    assert fitted.columns[1].header.endswith(" (reading)")
    assert least_width(fitted) <= 20


def test_a_note_names_the_columns_that_are_left_out() -> None:
    wide = table(Column("a", name="a"), Column("b [ops]", True, 1, "b"))
    text = rich_text(Report([wide], [], {}), Canvas(12))
    assert " ".join(text.split()).endswith(
        "note: 12 characters leave no place for: b. --columns NAME,NAME chooses columns, -o FILE.csv or a wider "
        "terminal shows all."
    )
    assert "note" not in rich_text(Report([wide], [], {}), Canvas(None))


@pytest.mark.parametrize(("width", "headings"), [
    (100, ["module", "output", "params", "MACs", "CIO", "memory"]),
    (80, ["module", "output", "params", "MACs"]),
    (60, ["module", "params", "MACs"]),
])  # fmt: skip
def test_the_tree_of_modules_has_one_line_per_module(
    run: Run, monkeypatch: pytest.MonkeyPatch, width: int, headings: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    tree = run("summary", "resnet50", "--depth", "2").out.split("\n\n")[0].splitlines()
    assert tree[0].split() == headings
    assert len(tree) == 2 + sum(layer.depth <= 2 for layer in cspprof.profile("resnet50").layers)
    assert max(map(len, tree)) <= width


# -- --all and --columns --------------------------------------------------------------------------


def test_profile_prints_one_metric_of_each_kind_and_all_prints_every_metric(run: Run) -> None:
    short, everything = run("profile", "resnet10").out, run("profile", "resnet10", "--all").out
    rows = [line.split("  ")[0] for line in short.split("\n\n")[0].splitlines()[4:]]
    assert rows == ["params", "MACs", "CIO (CSPNet) [elements]", "traffic", "peak memory", ""]
    for metric in METRICS.names():
        assert f"\n{METRICS.get(metric).title}" in everything
    assert "note: --all prints every metric" in short
    assert "--all" not in everything


def test_json_and_csv_of_profile_are_complete_without_all(run: Run) -> None:
    short, everything = (run("profile", "resnet10", *o, "--format", "json").out for o in ([], ["--all"]))
    assert short == everything
    assert json.loads(short)["models"][0]["metrics"].keys() == {*METRICS.names()}
    for options in ([], ["--layers"]):
        assert run("profile", "resnet10", *options, "--format", "csv").out == run(
            "profile", "resnet10", *options, "--all", "--format", "csv"
        ).out  # fmt: skip


def test_columns_choose_the_columns_of_tables_and_csv(run: Run) -> None:
    got = run("profile", "resnet10", "--columns", "kind,live_bytes,cio", "--format", "csv").out
    assert list(records(got)[0]) == ["model", "status", "path", "kind", "live_bytes", "cio_cspnet"]
    assert [int(r["live_bytes"]) for r in records(got)] == cspprof.profile("resnet10").to_pandas()[
        "live_bytes"
    ].tolist()
    printed = run("cio", "resnet10", "--by", "stage", "--columns", "macs,operations").out
    assert [line.split() for line in printed.split("\n\n")[1].splitlines()[1:4:2]] == [
        ["stage", "MACs", "operations"], ["stem", "154,140,672", "4"],
    ]  # fmt: skip
    hardnet = run("cio", "resnet10", "--convention", "hardnet", "--columns", "cio", "--format", "csv").out
    assert list(records(hardnet)[0])[-1] == "cio_hardnet"


def test_unknown_columns_are_refused_with_the_known_ones(run: Run) -> None:
    got = run("profile", "resnet10", "--columns", "kind,knid")
    assert (got.code, got.out) == (2, "")
    assert "no column named 'knid' in a table of layers\n  Did you mean: kind?" in got.err
    for name in ("balance", "operations", ""):
        with pytest.raises(UnknownNameError):
            split_columns(name, Breakdown(layers=True))
    assert split_columns("macs, macs,layer", Breakdown(layers=True)) == ("layer", "macs")


# -- memory ---------------------------------------------------------------------------------------


class Wide(nn.Module):
    """The second convolution reads 64 and writes 256 elements of 4 bytes; no other operation has more alive."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 1)
        self.second = nn.Conv2d(4, 16, 1)
        self.third = nn.Conv2d(16, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(self.first(x)))


def test_the_layer_of_the_peak_is_printed_with_it(run: Run, tmp_path: Path) -> None:
    p = trace(Wide(), (1, 4, 4, 4))
    assert (p.total("peak_bytes"), peak_path(p)) == (4 * (64 + 256), "second")
    file = str(p.save(tmp_path / "wide.profile.json"))
    for command in ("profile", "cio"):
        lines = run(command, file).out.splitlines()
        at = next(i for i, line in enumerate(lines) if line.startswith("peak memory"))
        assert (lines[at].split()[-2:], lines[at + 1].split()) == (["1.25", "KiB"], ["at", "second"])
        assert f"Peak memory: {p.label} at second." in run(command, file, file).out
    assert json.loads(run("cio", file, "--format", "json").out)["models"][0]["peak_path"] == "second"
    assert records(run("cio", file, "--format", "csv").out)[0]["peak_path"] == "second"


def test_bottleneck_of_memory_lists_the_largest_moments(run: Run, tmp_path: Path) -> None:
    file = str(trace(Wide(), (1, 4, 4, 4)).save(tmp_path / "wide.profile.json"))
    got = json.loads(run("bottleneck", file, "--metric", "peak_bytes", "--format", "json").out)["models"][0]
    assert got["total"] == 1280
    assert [(r["path"], r["peak_bytes"], r["share"], r["cumulative_share"]) for r in got["layers"]] == [
        ("second", 1280, 1.0, None), ("third", 4 * (256 + 16), 1088 / 1280, None), ("first", 512, 0.4, None),
    ]  # fmt: skip
    assert all(r["kind"] == r["sort"] for r in got["layers"])
    printed = run("bottleneck", file, "--metric", "peak_bytes", "--top", "1").out
    assert "with the most live memory" in printed
    assert "100.0 %" in printed


def test_the_data_frame_has_every_number_of_a_layer() -> None:
    p = trace(nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), nn.ReLU()), (1, 4, 8, 8))
    frame = p.to_pandas()
    of_layers = {m for m in METRICS.names() if METRICS.get(m).of_op is not None}
    assert of_layers | {"params", "live_bytes"} <= {*frame.columns}
    conv, relu = frame.iloc[0], frame.iloc[1]
    assert (conv["kernel"], conv["stride"], conv["padding"], conv["dilation"]) == ((3, 3), (2, 2), (1, 1), (1, 1))
    assert (conv["groups"], conv["op"], conv["dtype"]) == (2, "conv2d", "float32")
    assert conv["class"] == "torch.nn.modules.conv.Conv2d"
    assert (conv["live_bytes"], conv["traffic_bytes"]) == (4 * (256 + 128), 4 * (256 + 128 + 8 * 2 * 9 + 8))
    assert frame["groups"].isna().tolist() == [False, True]
    assert relu["kernel"] is None
    assert frame["live_bytes"].tolist() == p.live_bytes
    for metric in of_layers:
        if METRICS.get(metric).additive:
            assert frame[metric].sum() == pytest.approx(p.total(metric))


# -- stages and dtype -----------------------------------------------------------------------------


class LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(3))
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 50)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def test_the_stages_of_a_transformer_are_its_blocks() -> None:
    p = trace(LanguageModel(), torch.zeros(1, 8, dtype=torch.int64))
    assert list(dict.fromkeys(stage_labels(p))) == [
        "embedding", "layers.0", "layers.1", "layers.2", "norm", "head",
    ]  # fmt: skip
    assert list(stage_depths(p)) == [3]


def test_stages_of_networks_with_several_resolutions_stay_resolutions() -> None:
    def block(c: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1))

    p = trace(nn.Sequential(block(4), block(4), nn.MaxPool2d(2), block(4), block(4)), (1, 4, 8, 8))
    assert list(dict.fromkeys(stage_labels(p))) == ["8×8", "4×4"]


def test_the_dtype_of_the_weights_is_shown_for_token_ids(run: Run, tmp_path: Path) -> None:
    p = trace(LanguageModel(), torch.zeros(1, 8, dtype=torch.int64), dtype="bfloat16")
    assert p.dtype == "bfloat16"
    printed = run("profile", str(p.save(tmp_path / "lm.profile.json"))).out
    assert next(line for line in printed.splitlines() if line.startswith("dtype")).endswith("  bfloat16")
    assert trace(LanguageModel(), torch.zeros(1, 8, dtype=torch.int64)).dtype == "float32"
    assert trace(nn.Flatten(), torch.zeros(1, 8, dtype=torch.int64)).dtype == "int64"


# -- many models ----------------------------------------------------------------------------------

MANY = ("resnet10", "vgg16", "peleenet", "csp_peleenet", "darknet53", "resnet50", "csp_resnet50")


@pytest.mark.parametrize(
    ("command", "width", "n"),
    [
        ("compare", 80, 4),
        ("compare", 100, 7),
        *quick([(c, w, 4) for c in ("profile", "cio", "flops") for w in (80, 120)], 1),
    ],
)
def test_four_or_more_models_have_one_row_each(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, width: int, n: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run(command, *MANY[:n]).out.splitlines()
    assert max(map(len, lines)) <= width
    first = [line.split("  ")[0] for line in lines[: lines.index("")]]
    assert first[-n:] == [cspprof.profile(name).label for name in MANY[:n]]
    starts = [line for line in lines if line.startswith("resnet10 ")]
    assert len(starts) == 3, "one row in each table: totals, stages, largest layers"


def test_three_models_stay_side_by_side(run: Run) -> None:
    head = run("compare", *MANY[:3]).out.splitlines()[0].split()
    assert head == ["resnet10", "vgg16", "change", "peleenet", "change"]


def test_rows_of_models_have_totals_and_all_changes_or_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("compare", "resnet50", "csp_resnet50", "resnet50", "resnet10", "--metric", "params,macs,cio,peak_bytes")
    monkeypatch.setenv("COLUMNS", "100")
    lines = run(*command).out.splitlines()
    row = next(line for line in lines if line.startswith("csp_resnet50"))
    cells = ["csp_resnet50", "21.6 M", "−5.1 %", "4.48 G", "−10.3 %", "23.7 M", "−8.7 %", "8.00 MiB", "−33.3 %"]
    assert [c.strip() for c in row.split("  ") if c][: len(cells)] == cells  # 21,607,848 · 4,483,686,400 · 23,694,312
    monkeypatch.setenv("COLUMNS", "60")
    narrow = run(*command).out
    assert "%" not in narrow.partition("\n\n")[0]
    assert "leave no place for" in narrow
    assert "change" in narrow.partition("leave no place for")[2]


def test_stages_of_many_models_add_up_and_stand_in_the_order_of_execution(run: Run) -> None:
    text = run("compare", *MANY, "--metric", "macs", "-f", "markdown").out  # the table of a paper has no stages
    assert "by stage" not in text
    text = run("compare", *MANY, "-f", "markdown").out.partition("by stage**")[2]
    head, _, *rows = [line.strip("| ").split(" | ") for line in text.split("\n\n")[1].splitlines()]
    assert head == ["model", "stem", "stage1", "stage2", "stage3", "stage4", "stage5", "head", "total"]
    assert rows[-2] == ["resnet50", "2.56 M", "8.65 M", "7.60 M", "5.37 M", "1.51 M", "–", "260 k", "26.0 M"]


def test_models_without_common_stages_have_no_table_of_stages(run: Run) -> None:
    out = run("compare", "resnet10", "resnet50", "timm:vit_tiny_patch16_224", "timm:resnet18").out
    assert "by stage" not in out
    assert "Largest layer of each model by traffic" in out


def test_many_models_have_every_metric_in_csv_and_json_and_a_hint_says_so(run: Run) -> None:
    (row, *_) = records(run("compare", *MANY[:4], "-f", "csv").out)
    assert {*METRICS.names()} <= {*row}
    document = json.loads(run("compare", *MANY[:4], "-f", "json").out)
    assert {d["metric"] for d in document["deltas"]} >= {*METRICS.names()}
    assert "--metric NAMES chooses metrics, -o FILE.csv writes all of them." in run("compare", *MANY[:4]).out


def test_notes_on_many_models_name_each_reason_once(run: Run) -> None:
    notes = [line for line in run("compare", *MANY[:6], "-f", "markdown").out.splitlines() if line.startswith("- ")]
    assert sum("depth" in note for note in notes) == 1
    assert "- The inputs differ: resnet10, darknet53, resnet50 on 1×3×256×256 float32; vgg16, peleenet, "\
           "csp\\_peleenet (reading) on 1×3×224×224 float32." in notes  # fmt: skip


@pytest.mark.parametrize("models", [MANY[:2], MANY[:4]])
def test_several_models_can_be_compared_by_peak_memory_alone(run: Run, models: tuple[str, ...]) -> None:
    got = run("profile", *models, "--metric", "peak_bytes")
    assert got.code == 0
    assert "with the most live memory" in got.out


# -- whatif ---------------------------------------------------------------------------------------


def test_whatif_names_the_layer_of_the_peak_once_or_for_each_input(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 64, 3, padding=1)\n"
        "        self.unused = nn.Linear(2, 2)\n\n"
        "    def forward(self, x):\n"
        "        x = self.first(x)\n"
        "        return self.second(x) if x.shape[-1] > 12 else x\n"
    )
    whatif = ("whatif", f"{tmp_path}/net.py:Net", "--input")
    one = " ".join(run(*whatif, "1x3x8x8,1x3x12x12").out.split())
    assert one.endswith("note: Peak memory at first.")
    assert "net.py:Net: 4,678 of its 4,902 parameters are never read by this forward." in one
    both = " ".join(run(*whatif, "1x3x8x8,1x3x12x12,1x3x16x16").out.split())
    assert both.endswith("Peak memory at first for 1×3×8×8, 1×3×12×12; at second for 1×3×16×16.")
    assert both.count("never read") == 2, "the parameters that are not read depend on the input"
    rows = records(run(*whatif, "1x3x8x8,1x3x16x16", "-f", "csv").out)
    assert [row["peak_path"] for row in rows] == ["first", "second"]


# -- the table of a paper -------------------------------------------------------------------------

PAPER = ("compare", "resnet10", "vgg16", "peleenet", "--metric", "params,macs,cio,peak_bytes", "--format")


def test_latex_has_one_table_with_one_row_per_model_short_units_caption_and_label(run: Run) -> None:
    latex = run(*PAPER, "latex").out
    assert (latex.count(r"\begin{table}"), latex.count(r"\caption{"), latex.count(r"\label{")) == (1, 1, 1)
    body = latex.split(r"\midrule")[1].split(r"\bottomrule")[0]
    rows = [[cell.strip(" \\\n") for cell in line.split("&")] for line in body.strip().splitlines()]
    assert [row[0] for row in rows] == ["resnet10", "vgg16", "peleenet"]
    assert rows[1][-4:] == ["138 M", "15.5 G", "30.3 M", "24.5 MiB"]  # 138,357,544 · 15,470,264,320 · 30,331,392


def test_markdown_has_the_same_rows_and_csv_has_exact_digits(run: Run) -> None:
    lines = [line for line in run(*PAPER, "markdown").out.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3
    assert lines[3].endswith("| 138 M | 15.5 G | 30.3 M | 24.5 MiB |")
    vgg = records(run(*PAPER, "csv").out)[1]
    assert (vgg["params"], vgg["macs"], vgg["cio_cspnet"]) == ("138357544", "15470264320", "30331392")


def test_a_paper_table_of_two_models_ends_with_the_change(run: Run) -> None:
    lines = run(
        "compare", "resnet50", "csp_resnet50", "--metric", "macs,params", "--format", "markdown"
    ).out.splitlines()
    assert "| change | −10.3 % | −5.1 % |" in lines
    assert lines[0] == "**Complexity of 2 models for an input of 1×3×256×256**"


@pytest.mark.parametrize(
    ("n", "text"),
    [(999, "999"), (1000, "1.00 k"), (999_499, "999 k"), (999_500, "1.00 M"), (25_557_032, "25.6 M"),
     (4_089_184_256, "4.09 G"), (138_357_544, "138 M"), (2 * 10**12, "2.00 T"), (0, "0"), (-1500, "−1.50 k")],
)  # fmt: skip
def test_short_counts_have_three_significant_digits(n: int, text: str) -> None:
    assert short_count(n) == text
