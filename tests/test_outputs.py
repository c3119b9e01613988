"""Formats beside the terminal's: LaTeX, Parquet, and files that Netron and Model Explorer show on their graphs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result

import cspprof
from cspprof.core.dataflow import INPUT, edges
from cspprof.core.errors import OutputError
from cspprof.profiles import Profile
from cspprof.render import RENDERERS, format_of, render
from cspprof.render.latex import escape
from cspprof.report.profile import CIO_METRICS, Breakdown, profile_report
from cspprof.report.tables import Cell, Column, Report, Table, text

Run = Callable[..., Result]


def answer(*profiles: Profile) -> Report:
    return profile_report("cio", profiles, CIO_METRICS, "cio_cspnet", Breakdown(layers=True))


# -- LaTeX --------------------------------------------------------------------------------------------


def test_latex_is_a_booktabs_table_of_the_same_cells(run: Run) -> None:
    lines = run("flops", "resnet50", "--format", "latex").out.splitlines()
    assert [line.strip() for line in lines if "rule" in line][:3] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert f"    MACs & {cspprof.profile('resnet50').total('macs'):,} \\\\" in lines
    assert r"    input & 1$\times$3$\times$256$\times$256 \\" in lines
    assert all(line.count(r"\begin{") == 0 or line.strip().startswith((r"\begin", "%")) for line in lines)
    for name in ("table", "tabular"):
        assert sum(f"\\begin{{{name}}}" in x for x in lines) == sum(f"\\end{{{name}}}" in x for x in lines) == 2


@pytest.mark.parametrize(
    ("raw", "printed"),
    [
        (r"a_b\c", r"a\_b\textbackslash{}c"),
        ("50 % of {x} & $y", r"50 \% of \{x\} \& \$y"),
        ("#1 ~ ^2", r"\#1 \textasciitilde{} \textasciicircum{}2"),
        ("<script>", r"\textless{}script\textgreater{}"),
        ("[elements]", "{[}elements{]}"),
        ("−5.1 %", r"$-$5.1 \%"),
        ("two\nlines", "two lines"),
    ],
)
def test_latex_prints_what_the_table_says(raw: str, printed: str) -> None:
    assert escape(raw) == printed


def test_every_sign_of_our_own_tables_is_one_that_latex_knows() -> None:
    found = answer(cspprof.profile("resnext50"), cspprof.profile("csp_resnext50"))
    assert render("latex", found).decode().isascii()


def test_a_cell_cannot_end_its_row() -> None:
    cells = [Cell("a & b", "a & b"), text(r"\\ \end{tabular}")]
    made = render("latex", Report([Table("", [Column("x"), Column("y", numeric=True)], [cells])], [], {})).decode()
    (row,) = [line for line in made.splitlines() if "a " in line]
    assert row.replace(r"\&", "").count("&") == 1
    assert made.count(r"\end{tabular}") == 1


# -- Parquet ------------------------------------------------------------------------------------------


def test_parquet_has_the_rows_of_csv_with_types(chain: Profile, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: it is in the extra parquet")
    found = answer(chain)
    table = parquet.read_table(io.BytesIO(render("parquet", found)))
    assert table.to_pylist() == list(found.records)
    assert str(table.schema.field("macs").type) == "int64"
    assert str(table.schema.field("moc").type) == "double"
    assert render("parquet", found) == render("parquet", found)


def test_parquet_keeps_integers_past_64_bits() -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: it is in the extra parquet")
    report = Report([], [{"macs": 2**70 + 1}, {"macs": None}, {"path": "x"}], {})
    rows = parquet.read_table(io.BytesIO(render("parquet", report))).to_pylist()
    assert [None if r["macs"] is None else int(r["macs"]) for r in rows] == [2**70 + 1, None, None]


def test_parquet_without_its_library_names_the_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cspprof.render.registry.find_spec", lambda name: None)
    result = run("cio", "resnet50", "-o", "x.parquet")
    assert (result.code, result.out) == (2, "")
    assert "takes the library pyarrow" in result.err
    assert "pip install 'cspprof[parquet]'" in result.err


def test_parquet_is_not_written_to_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: it is in the extra parquet")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    result = run("cio", "resnet50", "--format", "parquet")
    assert (result.code, result.out) == (2, "")
    assert "no text for a terminal" in result.err


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        ("a.json", "json"),
        ("a.netron.json", "netron"),
        ("a.explorer.json", "model-explorer"),
        ("a.node-data.json", "node-data"),
        ("A.TEX", "latex"),
        ("a.parquet", "parquet"),
        ("a.docx", None),
    ],
)
def test_the_longest_known_ending_chooses_the_format(name: str, format_name: str | None) -> None:
    assert format_of(Path(name)) == format_name


# -- edges --------------------------------------------------------------------------------------------


def test_edges_go_from_the_last_writer_to_the_reader(chain: Profile) -> None:
    found = [(e.source, e.target, str(e.tensor)) for e in edges(chain)]
    assert found == [(INPUT, 0, "1×3×4×4"), (0, 1, "1×8×4×4"), (1, 2, "1×8×4×4"), (2, 3, "1×8×4×4")]


def test_every_read_of_the_pair_has_a_writer_before_it() -> None:
    profile = cspprof.profile("csp_resnext50")
    found = list(edges(profile))
    assert all(e.source < e.target for e in found)
    concats = [op for op in profile.ops if op.kind == "concat"]
    assert len(concats) == 4
    for op in concats:
        assert len({e.source for e in found if e.target == op.index}) == 2


# -- Netron and Model Explorer ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def onnx_profile(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    """conv 3→8 named /a/Conv, an activation without a name, conv 8→8 named /b/Conv, on 4×4."""
    onnx = pytest.importorskip("onnx", reason="the library onnx is not installed: it is in the extra onnx")
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["p"], name="/a/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("Conv", ["q", "w"], ["y"], name="/b/Conv", pads=[1, 1, 1, 1]),
    ]
    weights = [
        helper.make_tensor(name, number, shape, [0.0] * (shape[0] * shape[1] * 9))
        for name, shape in (("v", (8, 3, 3, 3)), ("w", (8, 8, 3, 3)))
    ]
    ends = [helper.make_tensor_value_info(n, number, (1, c, 4, 4)) for n, c in (("x", 3), ("y", 8))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=8), path)
    return cspprof.profile(str(path))


def test_a_netron_attachment_names_the_nodes_of_the_graph(onnx_profile: Profile) -> None:
    made: dict[str, Any] = json.loads(render("netron", answer(onnx_profile)))
    assert made["signature"] == "netron:attachment"
    items = [*made["metadata"], *made["metrics"]]
    assert all(item.keys() == {"kind", "target", "name", "value"} for item in items)
    assert {i["target"] for i in items if i["kind"] == "node"} == {"/a/Conv", "/b/Conv"}
    first = {i["name"]: i["value"] for i in made["metrics"] if i["target"] == "/a/Conv"}
    assert first["MACs"] == f"{3 * 8 * 9 * 16:,}"
    assert first["CIO (CSPNet)"] == f"{3 * 16 + 8 * 16} elements"
    whole = {i["name"]: i["value"] for i in made["metrics"] if i["kind"] == "model"}
    assert whole["MACs"] == f"{(3 + 8) * 8 * 9 * 16:,}"
    assert [i["value"] for i in made["metadata"] if i["kind"] == "model"] == [
        "operations left out, without a name that is theirs alone: 1"
    ]


def test_node_data_is_the_number_asked_for_by_node(onnx_profile: Profile) -> None:
    made = json.loads(render("node-data", answer(onnx_profile)))
    assert made["results"] == {"/a/Conv": {"value": 176}, "/b/Conv": {"value": 256}}
    assert [stop["stop"] for stop in made["gradient"]][:: len(made["gradient"]) - 1] == [0.0, 1.0]


def test_names_of_nodes_outlive_saving(onnx_profile: Profile, tmp_path: Path) -> None:
    again = Profile.load(onnx_profile.save(tmp_path / "net.profile.json"))
    assert list(again.calls.name) == ["/a/Conv", "", "/b/Conv"]
    assert render("netron", answer(again)) == render("netron", answer(onnx_profile))


@pytest.mark.parametrize("format_name", ["netron", "node-data"])
def test_a_model_whose_nodes_have_no_names_is_refused(format_name: str, chain: Profile) -> None:
    with pytest.raises(OutputError, match="has no names for the nodes of its graph"):
        render(format_name, answer(chain))
    with pytest.raises(OutputError, match="shows the graph of one model; this answer is about 2"):
        render(format_name, answer(chain, chain))


def test_model_explorers_graph_is_the_record(chain: Profile) -> None:
    made = json.loads(render("model-explorer", answer(chain)))
    (graph,) = made["graphs"]
    nodes = {n["id"]: n for n in graph["nodes"]}
    assert list(nodes) == ["input", "0", "1", "2", "output"]
    assert [e["sourceNodeId"] for e in nodes["2"]["incomingEdges"]] == ["1"]
    assert {a["key"]: a["value"] for a in nodes["2"]["attrs"]}["CIO (CSPNet) [elements]"] == "256"
    assert nodes["2"]["style"] == {"backgroundColor": "#c75a00", "textColor": "#ffffff"}
    assert "style" not in nodes["1"]


def test_model_explorers_graph_nests_modules_and_refers_to_its_own_nodes() -> None:
    made = json.loads(render("model-explorer", answer(cspprof.profile("csp_resnext50"))))
    nodes = made["graphs"][0]["nodes"]
    ids = [n["id"] for n in nodes]
    assert len(set(ids)) == len(ids)
    assert {e["sourceNodeId"] for n in nodes for e in n.get("incomingEdges", ())} <= set(ids)
    assert any(n["namespace"].startswith("stage1/") for n in nodes)


@pytest.mark.parametrize("format_name", ["netron", "node-data", "model-explorer"])
def test_an_answer_about_no_model_has_no_graph(format_name: str, run: Run) -> None:
    result = run("metrics", "--format", format_name)
    assert (result.code, result.out) == (2, "")
    assert "about no" in result.err


@pytest.mark.parametrize("format_name", RENDERERS.names())
def test_a_format_gives_the_same_bytes_again(format_name: str, onnx_profile: Profile) -> None:
    assert render(format_name, answer(onnx_profile)) == render(format_name, answer(onnx_profile))
