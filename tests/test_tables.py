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
