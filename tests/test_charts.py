"""Chart data: the exact numbers of every mark, and charts that have no data. Drawing is tested in test_plot."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cspprof
from cspprof.core.errors import CspprofError
from cspprof.papers.accuracy import PUBLISHED, published_accuracy
from cspprof.papers.hardware import HARDWARE, hardware
from cspprof.profiles import Profile
from cspprof.report.chart_model import Chart
from cspprof.report.charts import CHARTS, draw
from cspprof.report.charts.execution_order import thin


@cache
def traced(spec: str, *shape: int) -> Profile:
    return cspprof.profile(spec, shape or None)


def chart_of(kind: str, *specs: str, **options: Any) -> Chart:
    return draw(kind, [traced(s) for s in specs], **options)


def rows(chart: Chart, **wanted: str) -> list[dict[str, Any]]:
    return [r for r in chart.records if all(r.get(k) == v for k, v in wanted.items())]


# -- single charts ----------------------------------------------------------------------------------


def test_fig8_bars_add_up_to_the_published_cio() -> None:
    chart = chart_of("fig8", "resnext50", "csp_resnext50")
    for model, cio in (("resnext50", 34_411_496), ("csp_resnext50", 32_642_024)):
        assert sum(r["cio_cspnet"] for r in rows(chart, panel=model)) == cio
    assert [p.title for p in chart.panels] == [
        "resnext50: CIO 34.4 M elements",
        "csp_resnext50: CIO 32.6 M elements (−5.1 %)",
    ]
    assert chart.panels[0].x == chart.panels[1].x  # the same scale
    assert chart.panels[0].y == chart.panels[1].y


def test_small_totals_are_not_rounded_to_0() -> None:
    from torch import nn

    (panel,) = draw("fig8", [net(nn.Conv2d(3, 4, 1))]).panels
    assert panel.title == "net: CIO 448 elements"


def test_fig7_peaks_and_reductions() -> None:
    """The peak of PeleeNet at 416×416 is 0.3544 BFLOPs, in the first transition."""
    profiles = [traced(s, 1, 3, 416, 416) for s in ("peleenet", "csp_peleenet")]
    chart = draw("fig7", profiles)
    plain, partial = chart.panels
    assert plain.lines[-1].value == 354_418_688
    assert plain.lines[-1].text == "peak 0.3544 BFLOPs"
    assert partial.lines[-1].value == 271_351_808
    assert partial.lines[-1].text == "peak 0.2714 BFLOPs\n−23.4 % from peleenet"
    assert partial.lines[0].value == plain.lines[-1].value
    assert sum(m.y for m in plain.series[0].marks) == 2 * profiles[0].total("macs")


def test_bottleneck_shares_add_up_to_1() -> None:
    chart = chart_of("bottleneck", "csp_darknet53", top=5)
    largest = rows(chart, panel="largest")
    assert [r["macs"] for r in largest] == sorted((r["macs"] for r in largest), reverse=True)
    assert len(largest) == 5
    assert sum(r["macs"] for r in rows(chart, panel="layers")) == traced("csp_darknet53").total("macs")
    cumulative = [r["share_so_far"] for r in rows(chart, panel="share")]
    assert cumulative == sorted(cumulative)
    assert cumulative[-1] == 1
    assert [s.text for s in chart.panels[0].spans] == ["stem", "stage1", "stage2", "stage3", "stage4", "stage5", "head"]


def test_equal_layers_are_highlighted_alike_and_counted() -> None:
    from torch import nn

    five = net(nn.Conv2d(3, 4, 1), *(nn.Conv2d(4, 4, 1) for _ in range(4)))

    def highlighted(top: int) -> tuple[str, set[int], str]:
        chart = draw("bottleneck", [five], top=top)
        series, *_ = chart.panels[0].series
        return series.name, {int(m.x) for m in series.marks}, chart.caption.partition("each.")[2]

    assert highlighted(2) == ("largest 4", {2, 3, 4, 5}, " Listed: 2 of 4 equal layers.")
    assert highlighted(4) == ("largest 4", {2, 3, 4, 5}, "")
    assert highlighted(5) == ("largest 5", {1, 2, 3, 4, 5}, "")
    chart = chart_of("bottleneck", "csp_darknet53")
    assert "Listed last: 4 of 22 equal layers." in chart.caption
    assert "stage1.down.conv and 5 equal, 4.6 % of MACs each." in chart.caption
    assert "csp_darknet53 at stage1.down.conv and 5 equal." in chart_of("fig7", "csp_darknet53").caption


def test_stages_waterfall_ends_at_the_total_change() -> None:
    chart = chart_of("stages", "resnext50", "csp_resnext50")
    steps = sorted((r for r in chart.records if "step" in r), key=lambda r: r["step"])
    assert [(r["label"], r["cio_cspnet"]) for r in steps] == [
        ("stem", 0), ("stage1", 1_835_008), ("stage2", -1_835_008), ("stage3", -1_441_792), ("stage4", -327_680),
        ("head", 0), ("total", -1_769_472),
    ]  # fmt: skip
    assert "3-4-6-3" in chart.notes[0]


def test_roofline_shows_every_layer_below_the_roof() -> None:
    chart = chart_of("roofline", "peleenet", hardware=["gtx1080ti", "mychip:500:25.6"])
    assert [p.name for p in chart.panels] == ["peleenet on gtx1080ti", "peleenet on mychip"]
    points = rows(chart, panel="peleenet on mychip", series="peleenet")
    assert sum(r["macs"] for r in points) == traced("peleenet").total("macs")
    for r in points:
        assert r["gmacs_per_s"] == min(500, 25.6 * r["macs_per_byte"])
        assert r["bound"] == "upper"
    assert not rows(chart, bound="upper", series="roof")
    assert "an upper bound of the speed of a layer, not a measurement" in chart.caption
    assert (chart.panels[0].y.label, chart.panels[0].x.label) == ("upper bound [GMACs/s]", "MACs per byte of traffic")
    stem = points[0]  # 1×3×224×224 to 1×32×112×112 through 32×3×3×3 weights, 4 bytes each
    assert stem["macs_per_byte"] == 10_838_016 / (4 * (150_528 + 864 + 401_408))


def test_hardware_peaks_equal_the_data_sheets() -> None:
    """In TFLOPS; a MAC is two FLOPs."""
    sheets = {"a100": 19.5, "gtx1080ti": 11.34, "t4": 8.1, "rtx4090": 82.6, "jetson-tx2": 0.665, "jetson-nano": 0.236}
    for name, tflops in sheets.items():
        assert HARDWARE.get(name).gmacs * 2 / 1000 == pytest.approx(tflops, rel=0.006)


def test_pareto_front() -> None:
    chart = chart_of("pareto", "resnet50", "resnext50", "csp_resnext50", "darknet53", x="macs", y="top1")
    front = {r["label"] for r in rows(chart, series="Pareto-optimal")}
    assert front == {"csp_resnext50"}  # 77.9 % is the most, and 3.96 G MACs the least
    assert {(r["macs"], r["top1"]) for r in rows(chart, series="dominated")} >= {(5_055_135_744, 77.8)}


def test_a_front_of_one_model_has_no_line() -> None:
    chart = chart_of("pareto", "resnet50", "resnext50", "csp_resnext50", "darknet53", x="macs", y="top1")
    assert [s.name for s in chart.panels[0].series] == ["Pareto-optimal", "dominated"]


def test_pareto_lists_models_without_a_published_accuracy() -> None:
    chart = chart_of("pareto", "resnet50", "resnext50", "vgg16")
    assert chart.notes == ["not shown, top1 unknown: vgg16."]
    with pytest.raises(CspprofError, match="known for 1 of these"):
        chart_of("pareto", "resnet50", "vgg16")


def test_published_accuracy_depends_on_input_and_options() -> None:
    assert published_accuracy(traced("csp_peleenet,fusion=csp,gamma=0.5")) == PUBLISHED["csp_peleenet", 224]
    assert published_accuracy(traced("csp_peleenet,gamma=0.3")) is None
    assert published_accuracy(traced("peleenet", 1, 3, 416, 416)) is None


def test_published_accuracies_belong_to_zoo_networks_at_their_native_inputs() -> None:
    from cspprof.zoo import catalog

    for spec, size in PUBLISHED:
        assert catalog().get(spec.split(",")[0]).input[2:] == (size, size)
        if "," not in spec:
            assert published_accuracy(traced(spec)) == PUBLISHED[spec, size]


def test_fusion_equals_the_printed_figures() -> None:
    entry = CHARTS.get("fusion")
    chart = draw("fusion", [traced(s) for s in entry.default])
    printed = {r["label"]: (r["change"], r["top1"]) for r in rows(chart, series="as printed")}
    assert printed["csp γ=0.5"] == (-0.13, 70.9)
    assert printed["first γ=0.5"] == (-0.26, 69.2)
    ours = {r["label"]: r["change"] for r in rows(chart, series="our networks")}
    assert ours["last γ=0.5"] == pytest.approx(-0.213, abs=0.0005)
    assert ours["last γ=0.25"] == pytest.approx(-0.111, abs=0.0005)


def test_fusion_of_different_networks_has_their_names_and_no_printed_cost() -> None:
    """Printed costs are relative to the plain network of the family, not to any first model."""
    chart = draw("fusion", [traced(s) for s in ("resnet50", "csp_resnet50", "peleenet", "csp_peleenet")])
    names = [m.label for m in chart.panels[0].series[0].marks]
    assert names == ["resnet50", "csp_resnet50", "peleenet", "csp_peleenet (reading)"]
    assert [s.name for s in chart.panels[1].series] == ["our networks"]
    assert "Hollow" not in chart.caption


def test_fusion_of_any_network_with_the_option() -> None:
    entry = CHARTS.get("fusion")
    specs = entry.specs(["csp_resnet50"])
    assert specs[0] == "csp_resnet50,fusion=none"
    chart = draw("fusion", [traced(s) for s in specs])
    assert [m.label for m in chart.panels[0].series[0].marks] == ["plain", "first γ=0.5", "last γ=0.5", "csp γ=0.5"]


def test_memory_peaks_equal_the_metric() -> None:
    chart = chart_of("memory", "resnext50", "csp_resnext50")
    peaks = [r["live_bytes"] for r in rows(chart, series="peak")]
    assert peaks == [12 * 2**20, 8 * 2**20] == [traced(m).total("peak_bytes") for m in ("resnext50", "csp_resnext50")]


def test_closed_form_savings_of_real_stages() -> None:
    chart = draw("closed-form", [], c=64, m=6, d=32)
    at_half = {r["label"].split(" (")[0]: round(100 * r["saving"], 1) for r in rows(chart, panel="stages")}
    assert [at_half[f"PeleeNet stage {i}"] for i in (1, 2, 3, 4)] == [16.7, 30.8, 32.0, 41.0]
    assert [at_half[f"DenseNet-121 stage {i}"] for i in (1, 2, 3, 4)] == [18.2, 19.0, 19.5, 32.7]
    assert (at_half["DenseNet-201 stage 3"], at_half["DenseNet-201 stage 4"]) == (12.3, 31.5)
    curve = rows(chart, series="c=64, m=6, d=32")
    assert (curve[0]["saving"], curve[0]["gamma"], curve[-1]["gamma"]) == (0, 0, 1)


# -- all charts ------------------------------------------------------------------------------------


@cache
def example(kind: str) -> Chart:
    entry = CHARTS.get(kind)
    specs = ("peleenet", "csp_peleenet") if kind in ("fig7", "memory", "roofline") else entry.default
    return chart_of(kind, *specs)


@pytest.mark.parametrize("kind", CHARTS)
def test_records_have_one_row_per_mark_and_line(kind: str) -> None:
    chart = example(kind)
    count = sum(len(s.marks) for p in chart.panels for s in p.series) + sum(len(p.lines) for p in chart.panels)
    assert len(chart.records) == count


@pytest.mark.parametrize("kind", CHARTS)
def test_marks_and_lines_are_within_the_axes(kind: str) -> None:
    for panel in example(kind).panels:
        for mark in (m for s in panel.series for m in s.marks):
            assert panel.x.low <= mark.x <= panel.x.high
            assert panel.y.low <= mark.base + mark.y <= panel.y.high
        for line in panel.lines:
            axis = panel.x if line.axis == "x" else panel.y
            assert axis.low <= line.value <= axis.high


@given(st.lists(st.integers(1, 1000), max_size=80), st.integers(1, 30))
def test_thinning_keeps_the_largest_value_and_the_order(values: list[int], most: int) -> None:
    thinned, n = thin(values, int, most)
    assert len(thinned) <= most
    assert [i for i, _ in thinned] == sorted({i for i, _ in thinned})
    assert max((v for _, v in thinned), default=0) == max(values, default=0)
    assert all(values[i] == v for i, v in thinned)
    assert n <= 1 or len(values) > most


# -- limits and errors ------------------------------------------------------------------------------


def net(*layers: Any) -> Profile:
    from torch import nn

    return cspprof.profile(nn.Sequential(*layers), (1, 3, 8, 8), name="net")


def test_neighbors_share_bars_in_a_model_of_2000_layers() -> None:
    from torch import nn

    deep = net(*(nn.Conv2d(3, 3, 1) for _ in range(1999)), nn.Conv2d(3, 5, 1))
    for kind in ("fig7", "fig8", "bottleneck", "memory"):
        chart = draw(kind, [deep])
        assert "net has 2,000 layers here: each bar is the largest of 4 neighbors." in chart.caption
        assert max(len(s.marks) for s in chart.panels[0].series) <= 600
    assert draw("fig7", [deep]).panels[0].series[0].marks[-1].y == 2 * 3 * 5 * 64  # the largest is still there
    assert len(draw("roofline", [deep]).panels[0].series[1].marks) == 2000


def test_charts_of_one_layer() -> None:
    from torch import nn

    one = net(nn.Conv2d(3, 4, 1))
    for kind in ("fig7", "fig8", "bottleneck", "memory", "roofline"):
        assert draw(kind, [one]).records


def test_charts_without_data_raise() -> None:
    from torch import nn

    idle = net(nn.ReLU())
    for kind in ("fig7", "bottleneck", "roofline"):
        with pytest.raises(CspprofError, match="net has no layer with"):
            draw(kind, [idle])
    with pytest.raises(CspprofError, match="net has no layer with CIO"):
        draw("fig8", [idle])
    with pytest.raises(CspprofError, match="no stage differs in CIO"):
        draw("stages", [idle, idle])
    with pytest.raises(CspprofError, match="net has no BFLOPs"):
        draw("fusion", [idle, idle])
    with pytest.raises(CspprofError, match="known for 0 of these models"):
        draw("pareto", [idle, idle])


@pytest.mark.parametrize(
    ("kind", "specs", "options", "message"),
    [
        ("fig7", ["peleenet"] * 12, {}, "fig7 shows 1 to 6 models, not 12\nGive at most 6 SPECs"),
        ("stages", ["peleenet"], {}, "stages shows 2 to 5 models, not 1"),
        ("bottleneck", ["peleenet"] * 2, {}, "bottleneck shows 1 model, not 2"),
        ("closed-form", ["peleenet"], {}, "closed-form shows no models, not 1"),
        ("fig8", ["peleenet"], {"hardware": ["t4"]}, "fig8 has no option --hardware\nIt has no options."),
        ("bottleneck", ["peleenet"], {"metric": "moc"}, "moc is no sum over layers"),
        ("bottleneck", ["peleenet"], {"top": 0}, "top=0 shows no layer"),
        ("stages", ["peleenet"] * 2, {"metric": "peak_bytes"}, "a change of peak_bytes cannot be split"),
        ("closed-form", [], {"m": 0}, "c=64, m=0, d=32 is no dense block"),
        (
            "roofline",
            ["peleenet"],
            {"hardware": ["gtx1080"]},
            "no hardware named 'gtx1080'\nKnown: i9-9900k, gtx1080ti",
        ),
        ("fig9", [], {}, "no chart named 'fig9'"),
    ],
)
def test_invalid_models_and_options(kind: str, specs: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(CspprofError) as raised:
        chart_of(kind, *specs, **options)
    assert message in str(raised.value)


@pytest.mark.parametrize("text", ["x:1", "x:0:5", "x:nan:5", "x:5:-1", ":5:5", "x:5:inf", "x:a:b"])
def test_invalid_hardware(text: str) -> None:
    with pytest.raises(CspprofError, match="cannot parse the hardware"):
        hardware(text)
