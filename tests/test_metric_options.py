"""Metric names and the options that choose, sort and convert metrics: --metric, --sort, --ascending, --convention."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result

import cspprof
from cspprof.core.errors import CspprofError
from cspprof.metrics import METRICS
from cspprof.metrics.names import split_metrics

Run = Callable[..., Result]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# -- cio and compute ------------------------------------------------------------------------------


def test_cio_is_a_metric_name_in_python() -> None:
    p, csp = cspprof.profile("resnext50"), cspprof.profile("csp_resnext50")
    assert p.total("cio") == p.total("cio_cspnet") == 34_411_496
    assert p.total("compute") == p.total("macs")
    (delta,) = cspprof.compare(p, csp).deltas(["cio"])
    assert (delta.base_value, delta.value) == (34_411_496, 32_642_024)
    assert sum(c.difference for c in cspprof.compare(p, csp).by_stage("cio")) == 32_642_024 - 34_411_496
    chart = cspprof.plot("bottleneck", p, metric="cio")
    assert chart.records == cspprof.plot("bottleneck", p, metric="cio_cspnet").records


def test_cio_is_found_and_suggested_but_not_listed() -> None:
    assert METRICS.get("cio").name == "cio_cspnet"
    assert "cio" not in METRICS.names()
    with pytest.raises(CspprofError, match="Did you mean: cio"):
        METRICS.get("cioo")


@pytest.mark.parametrize(
    ("convention", "metric"), [((), "cio_cspnet"), (("--convention", "cspnet"), "cio_cspnet"),
                               (("--convention", "hardnet"), "cio_hardnet"), (("--convention", "fvcore"), "cio_cspnet")]
)  # fmt: skip
def test_the_convention_says_which_metric_cio_is(run: Run, convention: tuple[str, ...], metric: str) -> None:
    by_name = run("cio", "resnet10", "--sort", "cio", "--metric", "cio", *convention, "--format", "csv")
    assert by_name.code == 0
    values = [int(row[metric]) for row in rows(by_name.out)]
    assert values == sorted(values, reverse=True)
    assert sum(values) == {"cio_cspnet": 4_786_152, "cio_hardnet": 3_442_152}[metric]


@pytest.mark.parametrize(
    "arguments",
    [
        ("bottleneck", "resnet10", "--metric"), ("compare", "resnet10", "vgg16", "--metric"),
        ("profile", "resnet10", "--layers", "--sort"), ("flops", "resnet10", "--sort"),
        ("models", "--family", "vgg", "--sort"), ("whatif", "resnet10", "--size", "64", "--metric"),
        ("plot", "fig7", "resnet10", "--metric"), ("plot", "pareto", "resnet10", "vgg16", "--y"),
    ],
    ids=lambda a: " ".join(a),
)  # fmt: skip
def test_cio_is_a_metric_name_in_every_command(run: Run, arguments: tuple[str, ...]) -> None:
    short, long = run(*arguments, "cio"), run(*arguments, "cio_cspnet")
    assert (short.code, short.out) == (0, long.out)


def test_explain_cio_names_the_metrics_that_it_stands_for(run: Run) -> None:
    explained = json.loads(run("explain", "cio", "--format", "json").out)
    assert explained["stands_for"].startswith("cio_cspnet, or cio_hardnet with the convention hardnet")
    assert "convolution" in explained["definition"]
    assert "stands_for" not in json.loads(run("explain", "cio_cspnet", "--format", "json").out)


# -- --metric -------------------------------------------------------------------------------------


def test_a_list_of_metrics_is_the_rows_of_the_table(run: Run) -> None:
    for options in (("--metric", "params,cio,peak_bytes"), ("--metric", "params", "--metric", "cio, peak_bytes")):
        got = run("cio", "resnet10", "vgg16", *options)
        table = got.out.split("\n\n")[0].splitlines()
        assert [line.split("  ")[0] for line in table[4:]] == ["params", "CIO (CSPNet) [elements]", "peak memory"]


@pytest.mark.parametrize("command", ["profile", "cio", "flops", "compare"])
def test_metrics_are_the_columns_of_csv(run: Run, command: str) -> None:
    got = run(command, "resnet10", "vgg16", "--metric", "macs,fvcore,macs", "--format", "csv")
    first, second = rows(got.out)
    assert [key for key in first if key not in ("model", "status", "input", "dtype", "depths", "complete")] == [
        "macs", "fvcore",
    ]  # fmt: skip
    assert (first["macs"], second["macs"]) == ("1136119808", str(cspprof.profile("vgg16").total("macs")))


def test_a_chosen_total_of_another_tool_is_in_json(run: Run) -> None:
    document = json.loads(run("compare", "resnet10", "vgg16", "--metric", "macs,fvcore", "--format", "json").out)
    assert document["models"][0]["metrics"]["fvcore"] == cspprof.profile("resnet10").total("fvcore")
    assert {"fvcore", "macs"} <= {d["metric"] for d in document["deltas"]}
    assert "fvcore" not in json.loads(run("cio", "resnet10", "--format", "json").out)["models"][0]["metrics"]


def test_the_first_metric_that_adds_up_is_split_into_layers(run: Run) -> None:
    out = run("compare", "resnet10", "vgg16", "--metric", "peak_bytes,moc,params,macs").out
    assert "Where the change in params comes from" in out
    assert "Largest layers of vgg16 by params" in out
    refused = run("compare", "resnet10", "vgg16", "--metric", "moc")
    assert (refused.code, refused.out) == (2, "")


def test_params_of_layers_add_up(run: Run) -> None:
    document = json.loads(run("bottleneck", "resnet10", "--metric", "params", "--top", "99", "--format", "json").out)
    assert sum(row["params"] for row in document["models"][0]["layers"]) == document["models"][0]["total"] == 5_244_968


def test_unknown_names_in_a_list_are_refused(run: Run) -> None:
    got = run("profile", "resnet10", "--metric", "macs,parms")
    assert (got.code, got.out) == (2, "")
    assert "no metric named 'parms'\n  Did you mean: params" in got.err


def test_split_metrics_keeps_the_order_and_drops_repetitions() -> None:
    assert split_metrics(["macs, cio", "cio_cspnet", "params"]) == ["macs", "cio_cspnet", "params"]
    assert split_metrics(["compute,cio,fvcore"], "fvcore") == ["fvcore", "cio_cspnet"]
    assert split_metrics(None) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("bottleneck", "resnet10", "--metric", "macs", "--sort", "cio"),
        ("cio", "resnet10", "--sort", "macs", "--sort", "params"),
        ("cio", "resnet10", "-f", "csv", "--format", "json"),
        ("plot", "fig7", "peleenet", "--metric", "macs", "--metric", "cio"),
        ("cache", "info", "-f", "csv", "-f", "csv"),
        ("closed-form", "dense", "--c", "8", "--c", "16"),
    ],
    ids=lambda a: " ".join(a),
)  # fmt: skip
def test_an_option_with_one_value_is_refused_twice(run: Run, arguments: tuple[str, ...]) -> None:
    got = run(*arguments)
    assert (got.code, got.out) == (2, "")
    assert "occurs 2 times\n  Give it once." in got.err


# -- --ascending ----------------------------------------------------------------------------------


def test_ascending_sort_lists_the_smallest_first_and_missing_values_last(run: Run) -> None:
    def moc(*options: str) -> list[float | None]:
        listed = rows(run("profile", "resnet10", "--sort", "moc", *options, "--format", "csv").out)
        return [float(row["moc"]) if row["moc"] else None for row in listed]

    down, up = moc(), moc("--ascending")
    known = [value for value in up if value is not None]
    assert known == sorted(known)
    assert up == [*known, *[None] * (len(up) - len(known))]
    assert down == [*reversed(known), *[None] * (len(up) - len(known))]
    assert moc("--ascending", "--top", "2") == known[:2]


def test_ascending_bottleneck_and_models(run: Run) -> None:
    listed = json.loads(
        run("bottleneck", "resnet10", "--metric", "moc", "--ascending", "--top", "3", "--format", "json").out
    )["models"][0]["layers"]
    assert [row["moc"] for row in listed] == sorted(row["moc"] for row in listed)
    shown = run("bottleneck", "resnet10", "--sort", "moc", "--ascending")
    assert shown.out.startswith("Smallest layers of resnet10 by MoC")
    families = rows(run("models", "--family", "yolo", "--sort", "macs", "--ascending", "--format", "csv").out)
    assert [row["name"] for row in families] == ["yolov3_tiny_prn", "yolov3_tiny"]


@pytest.mark.parametrize("command", [("profile", "resnet10"), ("models", "--family", "yolo")])
def test_ascending_without_sort_is_refused(run: Run, command: tuple[str, ...]) -> None:
    got = run(*command, "--ascending")
    assert got.code == 2
    assert "--ascending needs a metric to sort by\n  Write for example: --sort moc --ascending" in got.err
    assert run(*command, "--sort", "moc", "--ascending").code == 0


def test_models_sort_by_the_total_of_another_tool(run: Run) -> None:
    listed = json.loads(run("models", "--family", "vgg", "--sort", "fvcore", "--format", "json").out)["models"]
    assert listed[0]["metrics"]["fvcore"] == cspprof.profile("vgg16").total("fvcore")


# -- whatif ---------------------------------------------------------------------------------------

LANGUAGE_MODEL = """\
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(10, 16), nn.Linear(16, 10)

    def forward(self, ids, mask=None):
        x = self.head(self.embedding(ids))
        return x if mask is None else x * mask[..., None]
"""


@pytest.fixture
def language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "lm.py").write_text(LANGUAGE_MODEL)
    monkeypatch.chdir(tmp_path)
    return "lm.py:Net"


@pytest.mark.parametrize(
    "options",
    [
        ("--input", "1x128:int64,1x512:int64"),
        ("--input", "1x128:int64", "--input", "1x512:int64"),
        ("--input", "ids=1x128:int64,1x512:int64", "--input", "mask=1x128,1x512"),
        ("--input", "1x128:int64,1x512:int64", "--device", "cpu"),
        ("--input", "ids=1x128:int64,1x512:int64", "--input", "mask=1x1"),
    ],
    ids=" ".join,
)
def test_whatif_compares_sequence_lengths(run: Run, language_model: str, options: tuple[str, ...]) -> None:
    got = run("whatif", language_model, *options, "--metric", "macs", "--format", "json")
    results = json.loads(got.out)["results"]
    assert [(r["input"], r["macs"]) for r in results] == [([1, 128], 128 * 160), ([1, 512], 512 * 160)]


def test_whatif_combines_shapes_with_batches_and_dtypes(run: Run, language_model: str) -> None:
    got = run("whatif", language_model, "--input", "1x8:int64,1x16:int64", "--batch", "1,3", "--dtype",
              "float16,bfloat16", "--metric", "macs", "--format", "csv")  # fmt: skip
    assert [(r["dtype"], int(r["macs"])) for r in rows(got.out)] == [
        (dtype, n * length * 160) for dtype in ("float16", "bfloat16") for n in (1, 3) for length in (8, 16)
    ]


def test_whatif_takes_values_beside_shapes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\nclass Net(nn.Conv2d):\n    def __init__(self): super().__init__(3, 4, 1)\n"
        "    def forward(self, x, size):\n        return super().forward(nn.functional.interpolate(x, size=size))\n"
    )
    inputs = ("--input", "1x3x8x8,2x3x8x8", "--input", "size:=4,4")
    got = run("whatif", f"{tmp_path}/net.py:Net", *inputs, "--metric", "macs", "--format", "csv")
    assert [int(r["macs"]) for r in rows(got.out)] == [12 * 16, 12 * 16 * 2]


def test_whatif_traces_on_the_named_device(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\nclass Net(nn.Conv2d):\n    example_input_shape = (1, 3, 8, 8)\n"
        "    def __init__(self): super().__init__(3, 4, 1)\n"
        "    def forward(self, x): return super().forward(x) * float(x.sum())\n"
    )
    assert run("whatif", f"{tmp_path}/net.py:Net", "--size", "8,16", "--device", "meta").code == 2
    got = run("whatif", f"{tmp_path}/net.py:Net", "--size", "8,16", "--device", "cpu", "--metric", "macs", "-f", "csv")
    assert [int(r["macs"]) for r in rows(got.out)] == [12 * 64, 12 * 256]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch", "0"), "--batch '0' is not a whole number of 1 or more\n  Write for example: --batch 1,8"),
        (("--batch", ""), "--batch '' is not a whole number of 1 or more"),
        (("--batch", "-1"), "--batch '-1' is not a whole number"),
        (("--size", "0x64"), "--size '0' is not a whole number of 1 or more\n  Write for example: --size 224,256x320"),
        (("--size", "1x2x3"), "--size '1x2x3' has more than two numbers\n  Write one number, or height and width"),
        (("--size", "64", "--input", "1x3x64x64"), "--size and --input exclude each other\n  Write whole shapes"),
        (("--input", "a=1x2,1x3,1x4", "--input", "b=1x2,1x3"), "the input b has 2 shapes, another one has 3"),
        (("--input", "1x"), "cannot read the input '1x'"),
        (("--device", "tpu"), "no device named 'tpu'"),
    ],
)
def test_whatif_refuses_impossible_inputs(run: Run, arguments: tuple[str, ...], message: str) -> None:
    got = run("whatif", "resnet10", *arguments)
    assert (got.code, got.out) == (2, "")
    assert message in got.err


def test_whatif_of_a_model_without_images_names_the_option_for_shapes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\nclass Net(nn.Linear):\n    example_input_shape = (1, 4)\n"
        "    def __init__(self): super().__init__(4, 4)\n"
    )
    got = run("whatif", f"{tmp_path}/net.py:Net", "--size", "8")
    assert got.code == 2
    assert "is not one batch of images (N, C, H, W): 1x4\n  Write the shapes to compare" in got.err
    assert run("whatif", f"{tmp_path}/net.py:Net", "--input", "1x4,8x4").code == 0


def test_whatif_on_a_saved_profile_repeats_the_shapes_in_its_hint(run: Run, tmp_path: Path) -> None:
    file = str(tmp_path / "net.profile.json")
    assert run("profile", "resnet10", "--save", file).code == 0
    got = run("whatif", file, "--input", "1x3x32x32,1x3x64x64")
    hint = "whatif resnet10 --input 1x3x32x32,1x3x64x64"
    assert (got.code, f"Trace the model again: cspprof {hint}\n" in got.err) == (2, True)
    assert run(*hint.split()).code == 0
    assert run("whatif", file, "--input", "1x3x256x256").code == 0


# -- changes of percentages -----------------------------------------------------------------------


def test_the_change_of_a_percentage_is_in_points(run: Run) -> None:
    out = run("compare", "resnet10", "vgg16", "--metric", "bottleneck_share,balance,macs").out
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    base, other = cspprof.profile("resnet10"), cspprof.profile("vgg16")
    for name, metric in (("its share", "bottleneck_share"), ("balance", "balance")):
        step = 100 * (other.total(metric) - base.total(metric))
        assert lines[name].endswith(f"{'+' if step > 0 else '−'}{abs(step):.1f} points")
    assert lines["MACs"].endswith(" %")


# -- what is shown by default, and names that are almost right -------------------------------------


def test_the_convention_sets_the_cio_that_profile_shows_by_default(run: Run) -> None:
    shown = run("profile", "resnet10", "--layers", "--convention", "hardnet").out
    assert ("CIO (HarDNet)" in shown, "CSPNet" in shown) == (True, False)


def test_a_metric_in_capital_letters_is_suggested_and_an_empty_one_ignored(run: Run) -> None:
    assert "Did you mean: macs?" in run("profile", "resnet10", "--metric", "MACs").err
    assert run("profile", "resnet10", "--metric", "macs,") == run("profile", "resnet10", "--metric", "macs")
    assert "no metric is named" in run("profile", "resnet10", "--metric", "").err
