"""A value that misses operations says so: `?` in a row, `≥` in a total, in every format. Unknown is not zero."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Result

import cspprof
from cspprof.analysis.comparison import Comparison, Delta
from cspprof.core.record import Calls, Kind, Layer, OpSpec, Storage, TensorSpec
from cspprof.gate import baseline
from cspprof.gate.config import Rule
from cspprof.gate.measurement import measure
from cspprof.gate.rules import Outcome, evaluate
from cspprof.metrics import METRICS, Peak, Ratio, Sum
from cspprof.profiles import Profile
from cspprof.render import render
from cspprof.render.page.document import html_page
from cspprof.report.charts import draw
from cspprof.report.layer_tables import Breakdown
from cspprof.report.profile import profile_report
from cspprof.report.tables import change, share

Run = Callable[..., Result]
X = TensorSpec((1, 8, 4, 4))
WINDOW = {"kernel": (1, 1), "groups": 1}
CONV = OpSpec("aten.conv2d", Kind.CONV, (X,), (TensorSpec((8, 8, 1, 1)),), (X,), WINDOW, macs=8 * 8 * 16)
RELU = OpSpec("aten.relu", Kind.ACTIVATION, (X,), (), (X,), elementwise=128)
CUSTOM = OpSpec("mylib.scan", Kind.UNKNOWN, (X,), (TensorSpec((8, 8)),), (X,), macs=None)
FORMULA = OpSpec("mylib.timed", Kind.CUSTOM, (X,), (), (X,), {"flops": 200}, macs=100)
QR = OpSpec("aten.linalg_qr", Kind.UNKNOWN, (X,), (), (X,), macs=None)
POOL = OpSpec("aten.new_pool2d", Kind.UNKNOWN, (X,), (), (X,), macs=None)


def chain(*specs: OpSpec, name: str = "net") -> Profile:
    """A model that runs these operations one after the other, each in a module `b.0`, `b.1` …, from module 1 on in `b`;
    the first is in a module of its own."""
    paths = ["a", *(f"b.{i}" for i in range(len(specs) - 1))]
    layers = (Layer("", "Net", 0, 1, 0), Layer("a", "A", 1, 1, 0), Layer("b", "B", 1, 1, 0))
    layers += tuple(Layer(path, "C", 2, 1, 0) for path in paths[1:])
    index = {layer.path: i for i, layer in enumerate(layers)}
    storages, used = [Storage(0, "input", "input", X)], list[int]()
    for i, spec in enumerate(specs):
        weights = [1000 + 10 * i + j for j in range(len(spec.weights))]
        storages += [Storage(w, f"{paths[i]}.w", "parameter", t) for w, t in zip(weights, spec.weights, strict=True)]
        used += [i, *weights, i + 1]
    calls = Calls(list(range(len(specs))), [index[path] for path in paths], used)
    params = sum(w.numel for spec in specs for w in spec.weights)
    return Profile(name, name, (X,), layers, specs, calls, tuple(storages), params)


ODD = chain(CONV, CUSTOM, RELU, CONV, name="odd")
WHOLE = chain(CONV, RELU, RELU, CONV, name="whole")

# -- values ---------------------------------------------------------------------------------------


def test_amounts_count_the_calls_that_they_miss() -> None:
    assert Sum(3) + Sum(4, missed=2) == Sum(7, missed=2)
    assert Sum(3, missed=1) * 5 == Sum(15, missed=5)
    assert (Peak(3, 1) + Peak(9)).missed == 1
    assert Ratio(1, 2).value == 0.5
    assert Ratio(1, 2, missed=1).value is None  # it can be larger or smaller


@pytest.mark.parametrize(
    ("unknown", "missed_by"),
    [
        (CUSTOM, {"macs", "flops", "bflops", "bflops_cspnet", "bflops_darknet", "bottleneck_macs", "cio_all",
                  "cio_hardnet", "cio_cspnet", "cio_bytes", "activations", "conv_weights", "params_darknet"}),
        (FORMULA, {"bflops_darknet", "cio_hardnet", "cio_cspnet", "cio_bytes", "activations"}),
        (QR, {"macs", "flops", "bflops", "bflops_cspnet", "bflops_darknet", "bottleneck_macs", "cio_all"}),
        (POOL, {"macs", "flops", "bflops", "bflops_cspnet", "bflops_darknet", "bottleneck_macs", "cio_all",
                "cio_cspnet"}),
        (RELU, set()),
    ],
    ids=lambda value: value.target if isinstance(value, OpSpec) else "",
)  # fmt: skip
def test_each_metric_misses_only_what_can_belong_to_it(unknown: OpSpec, missed_by: set[str]) -> None:
    totals = {name: METRICS.get(name).total(chain(CONV, unknown)) for name in METRICS}
    assert {name for name, a in totals.items() if a.missed and a.value is not None} == missed_by
    unknown_ratios = {name for name, a in totals.items() if a.missed and a.value is None}
    # MoC is a ratio of convolutions, the others are shares of all MACs
    assert ("moc" in unknown_ratios) == ("cio_hardnet" in missed_by)
    assert ({"balance", "bottleneck_share"} <= unknown_ratios) == ("macs" in missed_by)


def test_a_row_is_counted_zero_or_unknown() -> None:
    frame = ODD.to_pandas()
    assert frame["macs"].isna().tolist() == frame["cio_cspnet"].isna().tolist() == [False, True, False, False]
    assert frame["macs"].dropna().tolist() == [1024, 0, 1024]
    assert str(frame["macs"].dtype) == "Int64"  # exact integers, not floats
    assert (ODD.total("macs"), ODD.missed("macs"), ODD.missed("params")) == (2048, 1, 0)
    document = json.loads(render("json", profile_report("cio", [ODD], ["macs"], "macs", Breakdown())))
    assert [(r["macs"], r["cio_hardnet"]) for r in document["models"][0]["layers"]] == [
        (1024, 256), (None, None), (0, 0), (1024, 256),
    ]  # fmt: skip


def test_a_change_of_lower_bounds_is_a_bound() -> None:
    deltas = {
        (d.base, d.model): d for a, b in ((ODD, WHOLE), (WHOLE, ODD)) for d in Comparison((a, b)).deltas(["macs"])
    }
    assert (deltas["odd", "whole"].bound, deltas["odd", "whole"].relative) == ("≤", 0)
    assert (deltas["whole", "odd"].bound, deltas["whole", "odd"].relative) == ("≥", 0)
    both = Delta.of(ODD, ODD, "macs")
    assert (both.bound, both.relative) == ("?", None)
    assert Delta.of(ODD, WHOLE, "params").bound == ""  # shapes are known


def test_only_a_certain_change_is_good_or_bad() -> None:
    assert [change(r, True, "≥").good for r in (-0.1, 0.1)] == [None, False]
    assert [change(r, True, "≤").good for r in (-0.1, 0.1)] == [True, None]
    assert [change(r, True).good for r in (-0.1, 0.1)] == [True, False]
    assert change(None, True, "?").text == "?"
    assert (share(1, 4, 0, 1).text, share(1, 4, 1, 1).text, share(1, 4).text) == ("≤ 25.0 %", "?", "25.0 %")


# -- formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [Breakdown(), Breakdown(layers=True), Breakdown(depth=1), Breakdown(by="kind")])
@pytest.mark.parametrize("format_name", ["rich", "markdown", "latex"])
def test_tables_mark_totals_and_rows(format_name: str, how: Breakdown) -> None:
    mark = r"$\geq$" if format_name == "latex" else "≥"
    text = render(format_name, profile_report("cio", [ODD], ["macs", "cio_hardnet", "moc"], "macs", how)).decode()
    assert f"{mark} 2,048" in text
    assert f"{mark} 512" in text
    assert "?" in text  # MoC, and the row of the operation


def test_a_module_that_misses_an_operation_is_a_lower_bound() -> None:
    text = render("rich", profile_report("cio", [ODD], ["macs", "cio_hardnet"], "macs", Breakdown(depth=1))).decode()
    a, b = (next(line.split() for line in text.splitlines() if line.startswith(path)) for path in ("a ", "b "))
    assert a[1:] == ["1", "1,024", "256", "≤", "50.0", "%"]
    assert b[1:] == ["3", "≥", "1,024", "≥", "256", "?"]


def test_csv_names_the_lower_bounds_and_leaves_unknown_rows_empty() -> None:
    def rows(how: Breakdown) -> list[dict[str, str]]:
        report = profile_report("cio", [ODD], ["macs", "cio_hardnet", "params"], "macs", how)
        return list(csv.DictReader(io.StringIO(render("csv", report).decode())))

    (total,) = rows(Breakdown())
    assert (total["macs"], total["at_least"]) == ("2048", "macs cio_hardnet")
    assert [(r["macs"], r["cio_hardnet"]) for r in rows(Breakdown(layers=True))][:3] == [
        ("1024", "256"), ("", ""), ("0", "0"),
    ]  # fmt: skip
    assert [r["at_least"] for r in rows(Breakdown(depth=1))] == ["", "macs cio_hardnet"]


def test_json_names_the_lower_bounds() -> None:
    document = json.loads(render("json", profile_report("cio", [WHOLE, ODD], ["macs"], "macs", Breakdown())))
    whole, odd = document["models"]
    assert (whole["at_least"], whole["conv_share"]) == ([], 1)
    assert {"macs", "cio_hardnet", "cio_cspnet"} <= {*odd["at_least"]}
    assert (odd["moc"], odd["conv_share"], odd["cio_all"]) == (None, None, 512)
    bounds = {d["metric"]: d["bound"] for d in document["deltas"]}
    assert (bounds["macs"], bounds["cio_cspnet"], bounds["moc"], bounds["params"]) == (
        "at_least", "at_least", "at_least", None,
    )  # fmt: skip


def test_tables_of_changes_mark_stages_and_layers() -> None:
    text = render("rich", profile_report("cio", [WHOLE, ODD], ["macs"], "macs", Breakdown())).decode()
    assert "≥ 0 %" in text
    total = next(line for line in text.splitlines() if line.startswith("total"))
    assert total.split() == ["total", "2,048", "≥", "2,048", "≥", "0"]
    layer = next(line for line in text.splitlines() if line.startswith("b.0"))
    assert layer.split() == ["b.0", "–", "?", "≥", "0"]


def test_the_page_marks_cards_tables_and_stages() -> None:
    page = html_page([ODD, WHOLE])
    assert page.count("≥ 2,048") >= 3  # the card, the metrics, the changes
    assert "<td>?" in page
    assert "CIO ≥ 512" in page


@pytest.mark.parametrize(("kind", "options"), [("fig7", {"metric": "macs"}), ("fig8", {}), ("bottleneck", {})])
def test_charts_say_what_they_do_not_show(kind: str, options: dict[str, Any]) -> None:
    chart = draw(kind, [ODD], **options)
    assert "≥" in chart.panels[0].title
    assert "operations without a rule (1 of odd)" in chart.caption


def test_pareto_leaves_out_models_of_which_a_metric_is_only_bounded() -> None:
    chart = draw("pareto", [ODD, WHOLE, chain(CONV, name="small")], x="macs", y="params")
    assert {m.label for s in chart.panels[0].series for m in s.marks if m.label} == {"whole", "small"}
    assert chart.notes == ["not shown, macs unknown: odd."]


def test_notebooks_and_print_mark_totals() -> None:
    assert "≥ 2,048" in ODD._repr_html_()
    assert "≥ 2,048" in str(ODD)
    assert "≥ 512" in str(ODD)  # CIO


def test_operations_with_a_formula_alone_are_named_beside_cio(run: Run, tmp_path: Path) -> None:
    file = str(chain(CONV, FORMULA).save(tmp_path / "net.profile.json"))
    shown = run("cio", file).out
    assert "≥ 256" in shown
    assert "mylib.timed (1) may be convolutions" in shown
    assert json.loads(run("cio", file, "--format", "json").out)["models"][0]["complete"] is True


def test_netron_and_model_explorer_mark_nodes_and_the_model(tmp_path: Path) -> None:
    calls = Calls(ODD.calls.spec, ODD.calls.layer, ODD.calls.storage, ["n0", "n1", "n2", "n3"])
    named = replace(ODD, calls=calls)
    report = profile_report("cio", [named], ["macs"], "macs", Breakdown())
    items = json.loads(render("netron", report))
    values = {(i["target"], i["name"]): i["value"] for i in items["metrics"]}
    assert (values["n0", "MACs"], values["n1", "MACs"], values["n2", "MACs"]) == ("1,024", "?", "0")
    assert (values["n1", "CIO (HarDNet)"], values["", "MACs"]) == ("?", "≥ 2,048")
    assert any("incomplete" in i["value"] for i in items["metadata"] if i["name"] == "note")
    graph = json.loads(render("model-explorer", report))["graphs"][0]
    assert graph["groupNodeAttributes"][""]["MACs"] == "≥ 2,048"
    node = {a["key"]: a["value"] for a in graph["nodes"][2]["attrs"]}
    assert (node["MACs"], node["share of MACs"]) == ("?", "?")
    assert json.loads(render("node-data", report))["results"].keys() == {"n0", "n2", "n3"}


# -- the gate -------------------------------------------------------------------------------------


def outcome(record: Profile, **keys: Any) -> list[Outcome]:
    rule = Rule.model_validate({"id": "r", "metric": "macs", **keys})
    metrics = ("macs", "cio_cspnet", "params", "moc")
    return [r.outcome for r in evaluate(rule, measure(record.model, record, "cspnet", metrics))]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"max": 2047}, Outcome.FAILS),  # the lower bound exceeds the limit
        ({"max": 2048}, Outcome.UNKNOWN),
        ({"metric": "cio", "max": 511}, Outcome.FAILS),
        ({"metric": "cio", "max": "1 G"}, Outcome.UNKNOWN),
        ({"metric": "params", "max": "1 k"}, Outcome.HOLDS),
        ({"metric": "traffic_bytes", "max": "1 MB"}, Outcome.HOLDS),
        ({"metric": "peak_bytes", "max": "1 MB"}, Outcome.HOLDS),
        ({"metric": "moc", "max": "0.001"}, Outcome.UNKNOWN),  # a ratio has no bound
        ({"metric": "bottleneck_share", "max": "1%"}, Outcome.UNKNOWN),
        ({"max_share": "1%"}, Outcome.UNKNOWN),
        ({"layer": "a", "max": 1024}, Outcome.HOLDS),  # this layer misses nothing
        ({"layer": "b", "max": 1024}, Outcome.UNKNOWN),
        ({"layer": "b", "max": 1023}, Outcome.FAILS),
        ({"layer": "b.0", "max": "1 G"}, Outcome.UNKNOWN),
        ({"layer": "b.0", "metric": "moc", "max": "1"}, Outcome.UNKNOWN),
    ],
)
def test_a_rule_on_a_lower_bound_fails_or_is_unknown(keys: dict[str, Any], expected: Outcome) -> None:
    assert outcome(ODD, **keys) == [expected]


def test_messages_of_the_gate_say_at_least() -> None:
    rule = Rule.model_validate({"id": "r", "metric": "macs", "max": 1000})
    (result,) = evaluate(rule, measure("odd", ODD, "cspnet", ["macs"]))
    assert result.message == "macs of odd is at least 2,048; the limit is 1,000, exceeded by at least 1,048"
    assert result.at_least


def test_a_lower_bound_is_no_base() -> None:
    odd, whole = (measure(p.model, p, "cspnet", ["macs"]) for p in (ODD, WHOLE))
    (result,) = evaluate(Rule.model_validate({"id": "r", "metric": "macs", "max_increase": "0%"}), whole, odd, "odd")
    assert (result.outcome, result.message) == (Outcome.UNKNOWN, "odd has operations without a rule: mylib.scan (1)")
    rule = Rule.model_validate({"id": "r", "metric": "params", "max_increase": "0%"})
    assert evaluate(rule, whole, odd, "odd")[0].outcome is Outcome.HOLDS


def test_a_baseline_keeps_what_a_total_misses() -> None:
    measured = measure("net", chain(CONV, FORMULA), "cspnet", ["macs", "cio_cspnet"])
    read = baseline.parse(baseline.dump({"net": measured}), "x")["net"]
    assert read.totals == measured.totals
    assert read.totals["cio_cspnet"] == Sum(256, missed=1)
    assert read.totals["macs"] == Sum(1124)


# -- user-defined metrics --------------------------------------------------------------------------


@pytest.fixture
def half() -> Iterator[None]:
    @cspprof.metric("test_half", unit="elements")
    def half_known(op: OpSpec) -> int | None:
        """Elements, if the operation is known."""
        return None if op.kind is Kind.UNKNOWN else op.writes[0].numel

    yield
    METRICS.remove("test_half")


@pytest.mark.usefixtures("half")
def test_a_metric_of_a_user_is_marked_if_it_returns_none() -> None:
    assert METRICS.get("test_half").total(ODD) == Sum(3 * 128, missed=1)
    assert "≥ 384" in render("rich", profile_report("profile", [ODD], ["test_half"], "macs", Breakdown())).decode()


def test_a_formula_of_the_user_gives_its_own_flops_and_half_of_them_as_macs() -> None:
    odd = OpSpec("mylib.timed", Kind.CUSTOM, (X,), (), (X,), {"flops": 201}, macs=101)
    plain = chain(CONV)
    with_formula = chain(CONV, odd)
    assert with_formula.total("flops") - plain.total("flops") == 201
    assert with_formula.total("macs") - plain.total("macs") == 101
    assert plain.total("flops") == 2 * plain.total("macs")
