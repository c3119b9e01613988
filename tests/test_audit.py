"""A paper's table audited: the rule of each printed number, rows and columns that mix rules, and wrong tables."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

import jsonschema
import pytest
from conftest import ONE_CONV, Result, conv_spec, relu_spec

import cspprof
from cspprof.core.errors import CspprofError
from cspprof.core.record import Kind, Record, TensorSpec
from cspprof.papers.audit import Audit, Outcome, TracedRow, audit_table, common_sizes, likely_sizes
from cspprof.papers.paper_table import Quantity, parse_paper_table, read_paper_table, units_named
from cspprof.papers.published import published_tables
from cspprof.report.audit import audit_report
from cspprof.storage.profile_file import packaged_resnet50

Run = Callable[..., Result]
SCHEMA = json.loads((resources.files("cspprof") / "schemas" / "audit-1.schema.json").read_text())


def audited(text: str, *records: Record, others: Record | None = None) -> Audit:
    """The audit of a table whose rows have these records, and a record at another size for each."""
    table = parse_paper_table(text.encode(), "t.csv")
    other = {} if others is None else {others.inputs[0].shape[-2:]: others}
    return audit_table(table, [TracedRow(row, r, r, other) for row, r in zip(table.rows, records, strict=True)])


def one(heading: str, printed: str, record: Record) -> tuple[str, Outcome]:
    """The rule under which a single printed number comes out, and the outcome."""
    (cell,) = audited(f"model;input;{heading}\nx;224;{printed}", record).cells
    assert cell.best is not None
    return cell.best.rule.name + (" in MiB" if cell.best.unit.binary else ""), cell.outcome


# -- which rule -----------------------------------------------------------------------------------

RESNET50 = [
    # 25,557,032 parameters, 53,120 of them in batch norms and 1,000 biases; 2,049,000 in the classifier
    ("params (M)", "25.6", "params"),
    ("params (M)", "25.56", "params"),
    ("params", "25,557,032", "params"),
    ("params (M)", "25.503", "conv_weights"),
    ("params", "25,503,912", "params without norms"),
    ("params", "25,556,032", "params without biases"),
    ("params (M)", "25.61", "params_darknet"),
    ("params (M)", "23.5", "params without classifier"),
    # The totals of the tools themselves
    ("FLOPs", "4.1 G", "macs"),
    ("GFLOPs", "4.09", "macs"),
    ("GFLOPs", "8.2", "flops"),
    ("MACs (G)", "8.178", "flops"),
    ("FLOPs", "4.1115 G", "fvcore"),
    ("FLOPs (M)", "4133.7", "thop"),
    ("GFLOPs", "8.2675", "2·thop"),
    ("Mult-Adds (B)", "4.1324", "ptflops"),
    ("MACs", "4,089,185,256", "ptflops_aten"),
    ("MACs", "4100300288", "torchprofile"),
    ("FLOPs (G)", "8.24977", "torchlens"),
    ("FLOPs (G)", "4.087", "MACs of convolutions"),
    # 4 · 25,557,032 bytes of weights; buffers of 4 · 53,120 + 8 · 53 bytes; a peak of 9,633,792 bytes
    ("memory (MB)", "102.2", "weights"),
    ("memory (MB)", "97.49", "weights in MiB"),
    ("model size (MB)", "97.70", "weights and buffers in MiB"),
    ("memory", "51.1 MB", "weights in float16"),
    ("memory (MiB)", "9.19", "peak_bytes in MiB"),
    ("memory (MB)", "9.63", "peak_bytes"),
    # HarDNet's rule: 21.776 M; with max pooling (64·112² + 64·56²) and average pooling (2048·7² + 2048) 22.88
    ("CIO (M)", "21.78", "cio_hardnet"),
    ("CIO (M)", "22.88", "cio_cspnet"),
    ("activations (M)", "11.1", "activations"),
]
"""Printed numbers of ResNet-50 at 224×224, and the rule that was used."""


def test_the_rule_behind_each_printed_number_of_resnet50_is_found() -> None:
    record = packaged_resnet50()
    assert [(h, p, *one(h, p, record)) for h, p, _ in RESNET50] == [(*c, Outcome.EXACT) for c in RESNET50]


@pytest.mark.parametrize(
    ("heading", "printed", "rule", "outcome"),
    [
        ("FLOPs (G)", "4.0", "macs", Outcome.TRUNCATED),
        ("params (M)", "25", "params", Outcome.TRUNCATED),
        ("FLOPs (G)", "3.80", "MACs of convolutions", Outcome.NOT_EXPLAINED),  # 4.087, +7.6 %
        ("params (M)", "12.5", "params without classifier", Outcome.NOT_EXPLAINED),
    ],
)
def test_a_number_is_truncated_in_print_or_has_a_nearest_rule(
    heading: str, printed: str, rule: str, outcome: Outcome
) -> None:
    assert one(heading, printed, packaged_resnet50()) == (rule, outcome)


# -- what does not fit together -------------------------------------------------------------------


@pytest.fixture
def at(chain: Record) -> Callable[[int], Record]:
    """Two 3×3 convolutions on n×n: 792·n² MACs, 27·n² elements of CIO, 792 parameters."""
    return lambda n: replace(
        chain, specs=(conv_spec(3, 8, n), relu_spec(8, n), conv_spec(8, 8, n)), inputs=(TensorSpec((1, 3, n, n)),)
    )


def test_a_row_at_another_input_size_is_pointed_at(at: Callable[[int], Record]) -> None:
    text = "model,input,MACs (M)\na,256,51.90\nb,256,51.9\nc,256,39.74"  # 792·256² and 792·224²
    audit = audited(text, at(256), at(256), at(256), others=at(224))
    assert audit.explained
    assert [row.other_size for row in audit.rows] == [None, None, (224, 224)]
    assert (audit.mixed, audit.sizes) == (True, {(256, 256): 2, (224, 224): 1})
    notes = audit_report(audit).notes
    assert (
        "The rows come from different input sizes: 256×256 (2 rows), 224×224 (1 row). They cannot be compared." in notes
    )
    assert "c comes out at 224×224, not at the stated 256×256." in notes


def test_other_sizes_are_tried_only_where_a_number_needs_them(at: Callable[[int], Record]) -> None:
    """The third number is 792·224². The fourth comes out as FLOPs, so that common sizes are not tried for it."""
    text = "model,input,MACs (M)\na,256,51.90\nb,224,39.7\nc,256,39.74\nd,256,103.81"
    rows = audited(text, at(256), at(224), at(256), at(256)).rows
    assert [likely_sizes(row, rows) for row in rows] == [[], [], [(224, 224)], [(224, 224)]]
    assert [common_sizes(row, rows)[:2] for row in rows] == [[], [], [(224, 224), (288, 288)], []]


def test_a_row_that_mixes_input_sizes_is_pointed_at(at: Callable[[int], Record]) -> None:
    audit = audited("model,input,MACs (M),CIO (M)\na,256,39.74,1.769", at(256), others=at(224))  # 27·256²
    assert (audit.explained, audit.rows[0].mixed, audit.rows[0].other_size) == (True, True, None)
    expected = "a has numbers from different input sizes: 224×224, 256×256. The row mixes conventions."
    assert expected in audit_report(audit).notes


def test_a_row_with_another_rule_than_its_column_is_pointed_at(at: Callable[[int], Record]) -> None:
    """The second network prints FLOPs where the others print MACs, and parameters like the others."""
    text = "model,input,params (k),FLOPs (M)\na,256,0.792,51.90\nb,256,0.792,103.81\nc,256,0.792,51.9"
    audit = audited(text, at(256), at(256), at(256))
    assert [(row.mixed, [c.cell.column.heading for c in row.other_rules]) for row in audit.rows] == [
        (False, []), (True, ["FLOPs (M)"]), (False, []),
    ]  # fmt: skip
    notes = audit_report(audit).notes
    assert "b has FLOPs (M) by flops, most of the column by macs. The row mixes conventions." in notes
    assert "The column 'FLOPs (M)' has numbers by different rules: macs (2 rows), flops (1 row)." in notes


def test_a_column_of_macs_that_is_named_flops_is_pointed_at(at: Callable[[int], Record]) -> None:
    notes = audit_report(audited("model,input,FLOPs (M)\na,256,51.90", at(256))).notes
    assert "The column 'FLOPs (M)' has MACs: a multiply-accumulate counts as 1. The FLOPs are twice as many." in notes
    assert audit_report(audited("model,input,MACs (M)\na,256,51.90", at(256))).notes == [
        "1 printed number: 1 exact to the printed digit"
    ]


def test_the_rule_of_the_column_explains_a_row_before_other_rules_do(at: Callable[[int], Record]) -> None:
    """51.9 M is macs of all three, and each of several tools; the third row is fvcore's by its last digit alone."""
    audit = audited("model,input,MACs (M)\na,256,51.9\nb,256,51.9", at(256), at(256))
    assert {c.best.rule.name for c in audit.cells if c.best} == {"macs"}
    assert all("fvcore" in [o.rule.name for o in c.others] for c in audit.cells)


def test_a_number_of_a_network_with_an_unknown_operation_is_unknown(at: Callable[[int], Record]) -> None:
    record = at(256)
    first = record.specs[0]._replace(kind=Kind.UNKNOWN, macs=None, target="mylib.conv")
    audit = audited(
        "model,input,params (k),MACs (M)\na,256,0.792,99", replace(record, specs=(first, *record.specs[1:]))
    )
    assert [c.outcome for c in audit.cells] == [Outcome.EXACT, Outcome.UNKNOWN]
    assert (audit.explained, audit.unknown) == (False, True)
    assert any("no rule for mylib.conv" in note for note in audit_report(audit).notes)


# -- the shipped example --------------------------------------------------------------------------


def test_the_example_has_the_published_numbers() -> None:
    printed = {
        f.row: f.printed for name in ("table1", "table3") for f in published_tables().get(name).figures if f.recipe
    }
    for row in read_paper_table("example").rows:
        for cell, column in zip(row.cells, ("#Params", "BFLOPs"), strict=True):
            published = printed[f"{row.name}, {column}"]
            assert (cell.printed.value, cell.printed.places) == (published.value, published.places)


@pytest.mark.slow
def test_the_example_mixes_input_sizes_and_rules(run: Run) -> None:
    """Five rows of CSPNet's table are at 224×224, beside the others at 256×256. ResNet-152 is copied from another
    paper: its parameters include batch norm. ResNet-50's 9.74 is known not to come out."""
    got = run("audit", "example", "--format", "json")
    document = json.loads(got.out)
    jsonschema.validate(document, SCHEMA)
    assert (got.code, document["explained"], document["mixed"]) == (1, False, True)
    assert document["counts"] == {"exact": 22, "truncated": 1, "not_explained": 1}
    rows = {row["network"]: row for row in document["rows"]}
    assert [name for name, row in rows.items() if row["inputs"] == ["224×224"]] == [
        "PeleeNet", "MobileNetV2", "CSPMobileNetV2", "EfficientNet-B0", "ResNet-152",
    ]  # fmt: skip
    assert [name for name, row in rows.items() if row["mixed"]] == ["ResNet-152"]
    assert [c["rules"] for c in document["columns"]] == [{"conv_weights": 11, "params": 1}, {"bflops_cspnet": 11}]
    (unexplained,) = (c for c in document["cells"] if c["outcome"] == "not_explained")
    assert (unexplained["network"], unexplained["printed"]) == ("ResNet-50", "9.74 BFLOPs")


# -- the command and Python -----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `net.py:Net`, one 1×1 convolution of 3 to 8 channels: 24·h·w MACs, 32 parameters."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(ONE_CONV.format(imports="", width=8))
    return tmp_path


ODD = """\
import torch
from net import Net as Plain

class Net(Plain):
    def forward(self, x):
        return torch.linalg.eig(self.conv(x)[0])[0]
"""
"""A network with an operation that has no rule."""


def table(text: str) -> str:
    Path("t.csv").write_text(text)
    return "t.csv"


def test_a_number_that_is_far_off_has_a_factor_and_no_percentage(run: Run, folder: Path) -> None:
    """The 32 parameters take 64 bytes in float16, the rule that comes nearest to both printed numbers."""
    head = "model,input,model size\n"
    assert "nearest: +220.0 %" in run("audit", table(head + "net.py:Net,16,20 B")).out
    assert "nearest: 32 times" in run("audit", table(head + "net.py:Net,16,2 B")).out


def test_exit_codes(run: Run, folder: Path) -> None:
    head = "model,input,params (k),MACs (k)\n"
    assert run("audit", table(head + "net.py:Net,16,0.032,6.144")).code == 0
    assert run("audit", table(head + "net.py:Net,16,0.032,7.5")).code == 1
    assert run("audit", table(head + "net.py:Nat,16,0.032,7.5")).code == 2
    (folder / "odd.py").write_text(ODD)
    unknown = run("audit", table(head + "odd.py:Net,8,0.032,9"))
    assert (unknown.code, "unknown" in unknown.out) == (2, True)
    assert run("audit", table("model,params (k)\nnet.py:Net,0.032"), "--size", "16").code == 0


def test_networks_are_traced_at_the_stated_size_and_at_others_if_needed(folder: Path) -> None:
    audit = cspprof.audit(table("model,spec,input,MACs\nours,net.py:Net,16,6144\nours,net.py:Net,16,1536"))
    assert [(r["network"], r["rule"], r["input"]) for r in audit.records] == [
        ("ours", "macs", "16×16"), ("ours", "macs", "8×8"),
    ]  # fmt: skip
    assert "8×8" in str(audit)
    assert "8×8" in audit._repr_html_()
    assert [
        r["input"] for r in cspprof.audit(table("model,input,MACs\nnet.py:Net,4x8,\nnet.py:Net,1x3x16x8,3072")).records
    ] == ["16×8"]


def test_every_format(run: Run, folder: Path) -> None:
    table("model,input,params (k),FLOPs (k),top-1,Throughput (img/s)\nnet.py:Net,16,0.032,6.144,70.1,9")
    outputs = {name: run("audit", "t.csv", "--format", name) for name in ("rich", "markdown", "latex", "csv", "json")}
    assert {got.code for got in outputs.values()} == {0}
    jsonschema.validate(json.loads(outputs["json"].out), SCHEMA)
    assert json.loads(outputs["json"].out)["not_audited"] == ["top-1", "Throughput (img/s)"]
    rows = list(csv.DictReader(io.StringIO(outputs["csv"].out)))
    assert [(r["column"], r["rule"], r["outcome"]) for r in rows] == [
        ("params (k)", "params", "exact"), ("FLOPs (k)", "macs", "exact"),
    ]  # fmt: skip
    assert "| net.py:Net | FLOPs (k) | 6.144 k | 6.14400 | macs | 16×16 | exact |" in outputs["markdown"].out
    for name in ("rich", "markdown", "latex"):
        assert "Not audited: top-1, Throughput (img/s)." in outputs[name].out


def test_the_table_itself_is_not_replaced(run: Run, folder: Path) -> None:
    text = "model,input,MACs\nnet.py:Net,16,6144\n"
    got = run("audit", table(text), "-o", "t.csv")
    assert (got.code, Path("t.csv").read_text()) == (2, text)
    assert "t.csv is the table itself" in got.err
    assert [run("audit", "t.csv", "-o", "x.csv").err for _ in range(2)] == ["wrote x.csv\n", "replaced x.csv\n"]


# -- tables that are wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv is empty"),
        ("\n \n", "t.csv is empty"),
        ("model,input,params (M)\n", "t.csv has headings and no rows"),
        ("model,input,params (M)\nx,224,–\n", "t.csv has no printed number"),
        ("model,input,top1\nx,224,70\n", "t.csv has no column of printed costs"),
        ("input,params (M)\n224,3\n", "t.csv has no column for the model"),
        ("model,input,Parms (M)\nx,224,3\n", "t.csv has an unknown column 'Parms (M)'\nDid you mean: params"),
        ("model,input,params (parsec)\nx,224,3\n", "t.csv has an unknown column 'params (parsec)'"),
        ("model,input,GFLOPs (M)\nx,224,3\n", "t.csv has an unknown column 'GFLOPs (M)'"),
        ("model,input,FLOPs,flops\nx,224,3 G,3 G\n", "t.csv has 2 columns 'flops'"),
        ("model,network,input,FLOPs\nx,y,224,3 G\n", "t.csv has 2 columns for the name: model, network"),
        ("model,input,FLOPs\nx,224,12,5\n", "t.csv, line 2 (x): 4 cells under 3 headings"),
        ('model,input,params\nx,224,"12,5"\n', "t.csv, line 2 (x), column 'params': cannot read the number '12,5'"),
        ("model;input;params (M)\nx;224;12,5\n", "line 2 (x), column 'params (M)': cannot read the number '12,5'"),
        ('model,input,params (M)\nx,224,"0,858"\n', "cannot read the number '0,858'"),
        ('model,input,params (M)\nx,224,"12,500"\n', "cannot read the number '12,500'"),  # 12.5 M or 12,500 M?
        ("model,input,params (M)\nx,224,1.234.567\n", "cannot read the number '1.234.567'"),
        ("model,input,params (M)\nx,224,12.5G\n", "column 'params (M)': '12.5G' and the heading have different units"),
        ("model,input,params\nx,224,12.5 MB\n", "line 2 (x), column 'params': unknown unit 'MB' in '12.5 MB'"),
        ("model,input,memory\nx,224,12.5 B\n", "line 2 (x), column 'memory': '12.5 B' is no cost of a network"),
        ("model,input,FLOPs\nx,224,4.1\n", "line 2 (x), column 'FLOPs': '4.1' has no unit"),
        ("model,input,FLOPs\nx,224,0 G\n", "'0 G' is no cost of a network"),
        ("model,input,FLOPs\nx,224,about 3 G\n", "line 2 (x), column 'FLOPs': cannot read 'about 3 G'"),
        ("model,input,FLOPs\nx,224,-3 G\n", "cannot read '-3 G'"),
        ("model,input,FLOPs\nx,,3 G\n", "t.csv, line 2 (x), column 'input': no input size"),
        ("model,FLOPs\nx,3 G\n", "t.csv, line 2 (x), column 'input': no input size"),
        ("model,input,FLOPs\n\nx,big,3 G\n", "t.csv, line 3 (x), column 'input': cannot read the input size 'big'"),
        ("model,input,FLOPs\nx,0,3 G\n", "cannot read the input size '0'"),
        ("model,input,FLOPs\n,224,3 G\n", "t.csv, line 2: the row names no model"),
        ('model,input,FLOPs\n"x,224,3 G\n', "t.csv, line 2: unexpected end of data"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "t.csv is not text in UTF-8"),
        (b"PK\x03\x04\x00\x00", "t.csv is not text in UTF-8"),
        ("model,input,FLOPs\nx,224,3 G\n".encode("utf-16"), "t.csv is not text in UTF-8"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused_with_the_place(text: str | bytes, message: str) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(CspprofError) as refused:
        parse_paper_table(data, "t.csv")
    assert message in str(refused.value)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("heading", "printed", "value"),
    [
        ("params (M)", "12.5", 12_500_000), ("#Params [M]", "12.5M", 12_500_000), ("params", "12.5 B", 12_500_000_000),
        ("FLOPs", "12.5G", 12_500_000_000), ("BFLOPs", "12.5", 12_500_000_000), ("FLOPs", "12.5 B", 12_500_000_000),
        ("MACs", "4.1e9", 4_100_000_000), ("Multi-Adds", '"4,089,184,256"', 4_089_184_256),
        ("FLOPs", "~3 GMac", 3 * 10**9),
        ("GFLOPs", "12.5 B", 12_500_000_000), ("memory", "1.5 kB", 1500), ("memory (GiB)", "2", 2**31),
    ],
)  # fmt: skip
def test_quantities(heading: str, printed: str, value: int) -> None:
    (row,) = parse_paper_table(f"model,input,{heading}\nx,224,{printed}".encode(), "t.csv").rows
    (cell,) = row.cells
    assert cell.printed.value * cell.units[0].scale == value


def test_a_heading_whose_unit_is_not_written_in_one_piece_is_read_or_refused() -> None:
    with pytest.raises(CspprofError, match="has headings and no rows"):
        parse_paper_table(b"model,SPEC,input,Param(M-9", "t.csv")


def test_blank_cells_at_the_end_of_a_line_are_no_columns() -> None:
    text = b"\xef\xbb\xbfmodel,input,MACs,FLOPs,,\nx,224,3 G,,,\n,,,,,\n"
    (row,) = parse_paper_table(text, "t.csv").rows
    assert [cell.printed.text for cell in row.cells] == ["3 G"]


def test_a_megabyte_is_read_in_both_ways_and_a_mebibyte_in_one() -> None:
    assert [u.scale for u in units_named(Quantity.MEMORY, "MB")] == [10**6, 2**20]
    assert [u.scale for u in units_named(Quantity.MEMORY, "MiB")] == [2**20]


def test_an_unknown_network_is_refused_with_its_line_and_the_nearest_names(run: Run, folder: Path) -> None:
    got = run("audit", table("model,input,FLOPs\n\nresnext5,224,3 G"))
    assert got.code == 2
    assert "error: t.csv, line 3 (resnext5): no model named 'resnext5'\n  Did you mean: resnext50" in got.err


def test_columns_can_be_left_out(run: Run, folder: Path) -> None:
    text = table("model,input,MACs,ours?\nnet.py:Net,16,6144,yes")
    assert "t.csv has an unknown column 'ours?'" in run("audit", text).err
    assert run("audit", text, "--ignore", "ours?").code == 0
    assert "has no column 'our' to leave out\n  Did you mean: ours?" in run("audit", text, "--ignore", "our").err
