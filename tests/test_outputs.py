"""Output formats: LaTeX, Parquet, Netron and Model Explorer. Text tables are tested in test_terminal."""

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
from cspprof.report.layer_tables import Breakdown
from cspprof.report.profile import CIO_METRICS, profile_report
from cspprof.report.tables import Cell, Column, Report, Table, text

Run = Callable[..., Result]


def report(*profiles: Profile) -> Report:
    return profile_report("cio", profiles, CIO_METRICS, "cio_cspnet", Breakdown(layers=True))


# -- LaTeX --------------------------------------------------------------------------------------------


def test_latex_tables_use_booktabs(run: Run) -> None:
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
def test_latex_escapes(raw: str, printed: str) -> None:
    assert escape(raw) == printed


def test_latex_output_is_ascii() -> None:
    r = report(cspprof.profile("resnext50"), cspprof.profile("csp_resnext50"))
    assert render("latex", r).decode().isascii()


def test_latex_escapes_cells() -> None:
    cells = [Cell("a & b", "a & b"), text(r"\\ \end{tabular}")]
    source = render("latex", Report([Table("", [Column("x"), Column("y", numeric=True)], [cells])], [], {})).decode()
    (row,) = [line for line in source.splitlines() if "a " in line]
    assert row.replace(r"\&", "").count("&") == 1
    assert source.count(r"\end{tabular}") == 1


# -- Parquet ------------------------------------------------------------------------------------------


def test_parquet_has_the_csv_records_with_types(chain: Profile, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: it is in the extra parquet")
    r = report(chain)
    table = parquet.read_table(io.BytesIO(render("parquet", r)))
    assert table.to_pylist() == list(r.records)
    assert str(table.schema.field("macs").type) == "int64"
    assert str(table.schema.field("moc").type) == "double"
    assert render("parquet", r) == render("parquet", r)


def test_parquet_integers_beyond_64_bits() -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: it is in the extra parquet")
    report = Report([], [{"macs": 2**70 + 1}, {"macs": None}, {"path": "x"}], {})
    rows = parquet.read_table(io.BytesIO(render("parquet", report))).to_pylist()
    assert [None if r["macs"] is None else int(r["macs"]) for r in rows] == [2**70 + 1, None, None]


def test_parquet_without_pyarrow_names_the_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cspprof.render.registry.find_spec", lambda name: None)
    result = run("cio", "resnet50", "-o", "x.parquet")
    assert (result.code, result.out) == (2, "")
    assert "needs the library pyarrow" in result.err
    assert 'pip install "cspprof[parquet]"' in result.err


def test_parquet_is_not_written_to_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: it is in the extra parquet")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    result = run("cio", "resnet50", "--format", "parquet")
    assert (result.code, result.out) == (2, "")
    assert "a terminal cannot show the format parquet" in result.err


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        ("a.json", "json"),
        ("a.netron.json", "netron"),
        ("a.explorer.json", "model-explorer"),
        ("a.node-data.json", "node-data"),
        ("a.node-mapping.json", "node-mapping"),
        ("A.TEX", "latex"),
        ("a.parquet", "parquet"),
        ("a.docx", None),
    ],
)
def test_format_of_a_file_name(name: str, format_name: str | None) -> None:
    assert format_of(Path(name)) == format_name


# -- dataflow edges --------------------------------------------------------------------------------------------


def test_edges_connect_the_last_writer_with_the_reader(chain: Profile) -> None:
    all_edges = [(e.source, e.target, str(e.tensor)) for e in edges(chain)]
    assert all_edges == [(INPUT, 0, "1×3×4×4"), (0, 1, "1×8×4×4"), (1, 2, "1×8×4×4"), (2, 3, "1×8×4×4")]


def test_concat_reads_from_two_producers() -> None:
    profile = cspprof.profile("csp_resnext50")
    all_edges = list(edges(profile))
    assert all(e.source < e.target for e in all_edges)
    concats = [op for op in profile.ops if op.kind == "concat"]
    assert len(concats) == 4
    for op in concats:
        assert len({e.source for e in all_edges if e.target == op.index}) == 2


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


def test_netron_attachment(onnx_profile: Profile) -> None:
    document: dict[str, Any] = json.loads(render("netron", report(onnx_profile)))
    assert document["signature"] == "netron:attachment"
    items = [*document["metadata"], *document["metrics"]]
    assert all(item.keys() == {"kind", "target", "name", "value"} for item in items)
    assert {i["target"] for i in items if i["kind"] == "node"} == {"/a/Conv", "/b/Conv"}
    first = {i["name"]: i["value"] for i in document["metrics"] if i["target"] == "/a/Conv"}
    assert first["MACs"] == f"{3 * 8 * 9 * 16:,}"
    assert first["CIO (CSPNet)"] == f"{3 * 16 + 8 * 16} elements"
    whole = {i["name"]: i["value"] for i in document["metrics"] if i["kind"] == "model"}
    assert whole["MACs"] == f"{(3 + 8) * 8 * 9 * 16:,}"
    assert [i["value"] for i in document["metadata"] if i["kind"] == "model"] == [
        "operations without a unique name, not shown: 1"
    ]


def test_node_data_has_the_main_metric_of_each_node(onnx_profile: Profile) -> None:
    document = json.loads(render("node-data", report(onnx_profile)))
    assert document["results"] == {"/a/Conv": {"value": 176}, "/b/Conv": {"value": 256}}
    assert [stop["stop"] for stop in document["gradient"]][:: len(document["gradient"]) - 1] == [0.0, 1.0]


def test_saved_profiles_keep_node_names(onnx_profile: Profile, tmp_path: Path) -> None:
    again = Profile.load(onnx_profile.save(tmp_path / "net.profile.json"))
    assert list(again.calls.name) == ["/a/Conv", "", "/b/Conv"]
    assert render("netron", report(again)) == render("netron", report(onnx_profile))


@pytest.mark.parametrize("format_name", ["netron", "node-data"])
def test_formats_of_named_nodes_reject_other_models(format_name: str, chain: Profile) -> None:
    with pytest.raises(OutputError, match="the nodes of chain have no names"):
        render(format_name, report(chain))
    with pytest.raises(OutputError, match="shows the graph of one model; this report is about 2"):
        render(format_name, report(chain, chain))


def test_model_explorer_graph_of_a_chain(chain: Profile) -> None:
    document = json.loads(render("model-explorer", report(chain)))
    (graph,) = document["graphs"]
    nodes = {n["id"]: n for n in graph["nodes"]}
    assert list(nodes) == ["input", "0", "1", "2", "output"]
    assert [e["sourceNodeId"] for e in nodes["2"]["incomingEdges"]] == ["1"]
    assert {a["key"]: a["value"] for a in nodes["2"]["attrs"]}["CIO (CSPNet) [elements]"] == "256"
    assert nodes["2"]["style"] == {"backgroundColor": "#c75a00", "textColor": "#ffffff"}
    assert "style" not in nodes["1"]


def test_model_explorer_graph_nests_modules() -> None:
    document = json.loads(render("model-explorer", report(cspprof.profile("csp_resnext50"))))
    nodes = document["graphs"][0]["nodes"]
    ids = [n["id"] for n in nodes]
    assert len(set(ids)) == len(ids)
    assert {e["sourceNodeId"] for n in nodes for e in n.get("incomingEdges", ())} <= set(ids)
    assert any(n["namespace"].startswith("stage1/") for n in nodes)


@pytest.mark.parametrize("format_name", ["netron", "node-data", "node-mapping", "model-explorer"])
def test_graph_formats_reject_reports_without_models(format_name: str, run: Run) -> None:
    result = run("metrics", "--format", format_name)
    assert (result.code, result.out) == (2, "")
    assert "about no" in result.err


@pytest.mark.parametrize("format_name", RENDERERS.names())
def test_formats_are_reproducible(format_name: str, onnx_profile: Profile) -> None:
    models = [onnx_profile] * (2 if format_name == "node-mapping" else 1)
    assert render(format_name, report(*models)) == render(format_name, report(*models))
