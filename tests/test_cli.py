"""The command line: tables, JSON and CSV, output to terminals and pipes, and error messages."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import CHECKOUT, Result

import cspprof
from cspprof import __version__
from cspprof.cli import COMMANDS, main
from cspprof.metrics import METRICS
from cspprof.profiles import Profile

Run = Callable[..., Result]
SCHEMA = json.loads((resources.files("cspprof") / "schemas" / "cio-1.schema.json").read_text())


def shell(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `python -m cspprof` in a new process."""
    return subprocess.run(
        [sys.executable, "-m", "cspprof", *arguments], capture_output=True, text=True, check=False, **options
    )


# -- tables ---------------------------------------------------------------------------------------

HEADLINE = """\
                              resnext50  csp_resnext50   change
───────────────────────────────────────────────────────────────
input                       1×3×256×256    1×3×256×256
depth per stage                 3-4-6-3        3-3-5-2  differs
params                       22,252,328     20,557,480   −7.6 %
conv weights                 22,190,784     20,499,136   −7.6 %
MACs                      5,055,135,744  3,964,616,704  −21.6 %
BFLOPs                           10.110          7.929  −21.6 %
CIO (HarDNet) [elements]     32,967,656     31,198,184   −5.4 %
CIO (CSPNet) [elements]      34,411,496     32,642,024   −5.1 %
MoC [MACs/element]              153.336        127.078  −17.1 %
peak memory                    12.0 MiB       8.00 MiB  −33.3 %

Where the change in CIO (CSPNet) comes from
stage    resnext50  csp_resnext50  difference
─────────────────────────────────────────────
stem     2,555,904      2,555,904           0
stage1  11,796,480     13,631,488  +1,835,008
stage2  10,485,760      8,650,752  −1,835,008
stage3   7,340,032      5,898,240  −1,441,792
stage4   2,097,152      1,769,472    −327,680
head       136,168        136,168           0
total   34,411,496     32,642,024  −1,769,472
"""


def test_cio_of_resnext50_and_csp_resnext50(run: Run) -> None:
    got = run("cio", "resnext50", "csp_resnext50")
    assert got.code == 0
    assert got.out.startswith(HEADLINE)
    assert "note: resnext50 has stages 3-4-6-3, csp_resnext50 3-3-5-2" in got.out
    assert got.err == ""


def test_note_on_less_compute_and_more_traffic(run: Run) -> None:
    got = run("cio", "darknet53", "csp_darknet53")
    assert "−29.6 %" in got.out
    assert "+43.6 %" in got.out
    assert "note: csp_darknet53 lowers compute and raises CIO." in got.out


def test_readme_shows_the_output_of_the_command(run: Run) -> None:
    shown = (
        (CHECKOUT / "README.md").read_text().split("```\n$ cspprof cio resnext50 csp_resnext50\n")[1].split("```")[0]
    )
    got = run("cio", "resnext50", "csp_resnext50").out
    blocks = shown.strip("\n").split("\n\n")
    assert "…" in blocks, "the README marks what it leaves out"
    for block in blocks:
        assert block == "…" or block in got


# -- JSON -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout), pytest.raises(SystemExit, match="0"):
        main(["cio", "resnext50", "csp_resnext50", "--format", "json"])
    parsed: dict[str, Any] = json.loads(stdout.getvalue())
    return parsed


def test_json_matches_its_schema(document: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(document, SCHEMA)


def test_json_contains_exact_integers(document: dict[str, Any]) -> None:
    plain, csp = document["models"]
    assert document["schema"] == "cspprof.cio/1"
    assert plain["inputs"] == [[1, 3, 256, 256]]
    assert (plain["macs"], plain["flops"]) == (5_055_135_744, 10_110_271_488)
    assert plain["cio"] == {"hardnet": 32_967_656, "cspnet": 34_411_496}
    assert csp["cio"] == {"hardnet": 31_198_184, "cspnet": 32_642_024}
    assert (plain["depths"], csp["depths"]) == ([3, 4, 6, 3], [3, 3, 5, 2])
    delta = next(d for d in document["deltas"] if d["metric"] == "cio_cspnet")
    assert (delta["base"], delta["model"]) == ("resnext50", "csp_resnext50")
    assert (delta["base_value"], delta["value"]) == (34_411_496, 32_642_024)
    assert round(delta["relative"], 4) == -0.0514
    assert any("3-4-6-3" in note for note in csp["notes"])


def test_json_layers_sum_to_the_totals(document: dict[str, Any]) -> None:
    for m in document["models"]:
        for key, total in (
            ("macs", m["macs"]), ("params", m["params"]),
            ("cio_hardnet", m["cio"]["hardnet"]), ("cio_cspnet", m["cio"]["cspnet"]),
        ):  # fmt: skip
            assert sum(row[key] for row in m["layers"]) == total


@pytest.mark.parametrize("command", ["profile", "flops", "compare", "bottleneck", "models", "metrics", "explain"])
def test_json_output_of_each_command(run: Run, command: str) -> None:
    arguments = {"models": ("--family", "vgg"), "metrics": (), "explain": ("moc",)}.get(
        command, ("resnet50", "csp_resnet50")
    )
    got = run(command, *arguments, "--format", "json")
    parsed = json.loads(got.out)
    assert parsed["schema"] == f"cspprof.{command}/1"
    if command in ("profile", "flops", "compare"):
        jsonschema.validate(parsed, SCHEMA)


def test_models_lists_totals(run: Run) -> None:
    listed = json.loads(run("models", "--family", "yolo", "--format", "json").out)["models"]
    assert [(m["name"], m["status"], m["metrics"]["macs"]) for m in listed] == [
        ("yolov3_tiny", "published", 2_782_480_896),
        ("yolov3_tiny_prn", "published", 1_730_430_208),
    ]
    shown = run("models", "--family", "yolo", "--sort", "cio_hardnet").out
    assert "2,782,480,896   5.565" in shown
    assert shown.index("8,889,907") < shown.index("8,284,211")
    flat = list(csv.DictReader(io.StringIO(run("models", "--family", "yolo", "--sort", "params", "-f", "csv").out)))
    assert [row["conv_weights"] for row in flat] == ["8845488", "4930096"]


def test_models_with_papers_traces_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cspprof.cli.models.profile_spec", lambda *_, **__: pytest.fail("traced"))
    out = run("models", "--papers").out
    assert {line.split()[0] for line in out.splitlines()[2:] if line and not line.startswith("note")} >= {
        "csp_peleenet_efm", "vgg16", "thundernet_snet49", "hardnet39ds",
    }  # fmt: skip
    assert "reading: our best reconstruction" in out


def test_unknown_operation_is_null_in_json_and_named_in_a_note(run: Run, tmp_path: Path) -> None:
    from cspprof.core.record import Calls, Kind, Layer, OpSpec, Storage, TensorSpec

    x = TensorSpec((1, 4))
    unknown = OpSpec("mylib.thing", Kind.UNKNOWN, (x,), (), (x,), macs=None)
    p = Profile("odd", "odd", (x,), (Layer("", "Odd", 0, 1, 0),), (unknown,), Calls([0], [0], [0, 1]),
                (Storage(0, "input", "input", x),), params=0)  # fmt: skip
    file = str(p.save(tmp_path / "odd.profile.json"))
    model = json.loads(run("cio", file, "--format", "json").out)["models"][0]
    assert (model["complete"], model["uncounted"]) == (False, {"mylib.thing": 1})
    assert model["layers"][0]["macs"] is None
    assert model["layers"][0]["path"] == "thing"
    shown = run("cio", file)
    assert "≥ 0" in shown.out
    assert "no rule for mylib.thing (1)" in shown.out
    strict = run("cio", file, "--strict")
    assert (strict.code, strict.out) == (2, "")
    assert "no rule for mylib.thing (1)" in strict.err


# -- other inputs ---------------------------------------------------------------------------------


def test_whatif_traces_each_size_batch_and_dtype(run: Run) -> None:
    arguments = ("--size", "64,96x128", "--batch", "1,2", "--dtype", "float16", "--metric", "macs")
    results = json.loads(run("whatif", "resnet10", *arguments, "--format", "json").out)["results"]
    assert [r["input"] for r in results] == [[1, 3, 64, 64], [1, 3, 96, 128], [2, 3, 64, 64], [2, 3, 96, 128]]
    for r in results:
        shape = "x".join(map(str, r["input"]))
        alone = run("flops", "resnet10", "--input", shape, "--dtype", "float16", "--format", "json").out
        assert r["macs"] == json.loads(alone)["models"][0]["macs"]
        assert r["dtype"] == "float16"


def test_whatif_builds_the_model_once_for_all_sizes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from pathlib import Path\nfrom torch import nn\n\n"
        "def Net():\n"
        "    with Path(__file__).with_name('built.txt').open('a') as file:\n"
        "        file.write('built\\n')\n"
        "    return nn.Conv2d(3, 4, 3)\n"
    )
    assert run("whatif", f"{tmp_path}/net.py:Net", "--size", "8,16,32", "--batch", "1,2").code == 0
    built = (tmp_path / "built.txt").read_text().split()
    assert len(built) == 2, "once for its default input, and once for all variations"


def test_whatif_names_the_input_that_fails(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\nclass Net(nn.Sequential):\n    example_input_shape = (1, 3, 4, 4)\n"
        "    def __init__(self):\n        super().__init__(nn.Flatten(), nn.Linear(48, 2))\n"
    )
    got = run("whatif", f"{tmp_path}/net.py:Net", "--size", "4,5", "--format", "csv")
    assert got.code == 2
    assert [row["macs"] for row in csv.DictReader(io.StringIO(got.out))] == ["96", ""]
    assert re.search(r"note: 1×3×5×5: .*Linear.* failed", got.err)


@pytest.mark.parametrize("arguments", [("--size", "64"), ("--batch", "2"), ("--dtype", "float16")])
def test_whatif_on_a_saved_profile_is_refused(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    file = str(tmp_path / "net.profile.json")
    assert run("profile", "resnet10", "--save", file).code == 0
    got = run("whatif", file, *arguments)
    assert (got.code, got.out) == (2, "")
    hint = f"whatif resnet10 {' '.join(arguments)}"
    assert f"Trace the model again: cspprof {hint}\n" in got.err
    assert run(*hint.split()).code == 0


def test_whatif_on_a_saved_profile_shows_the_input_that_it_has(run: Run, tmp_path: Path) -> None:
    file = str(tmp_path / "net.profile.json")
    assert run("profile", "resnet10", "--save", file).code == 0
    assert run("whatif", file, "--size", "256", "--batch", "1").out == run("whatif", "resnet10").out


def test_another_input_of_a_profile_saved_in_python_is_refused_with_the_python_call(run: Run, tmp_path: Path) -> None:
    from torch import nn

    file = tmp_path / "net.profile.json"
    cspprof.profile(nn.Conv2d(3, 4, 3), (1, 3, 8, 8)).save(file)
    got = run("cio", str(file), "--input", "1x3x16x16")
    assert got.code == 2
    assert "Profile the module again in Python: cspprof.profile(Conv2d(), …).save('x.profile.json')" in got.err


# -- other formats --------------------------------------------------------------------------------


def test_csv_has_one_row_per_model_or_layer(run: Run) -> None:
    models = list(csv.DictReader(io.StringIO(run("cio", "resnet50", "csp_resnet50", "--format", "csv").out)))
    assert [(r["model"], r["cio_cspnet"]) for r in models] == [
        ("resnet50", "25950184"),
        ("csp_resnet50", "23694312"),
    ]
    layers = list(csv.DictReader(io.StringIO(run("cio", "resnet50", "--layers", "--format", "csv").out)))
    assert sum(int(r["cio_cspnet"]) for r in layers) == 25_950_184


def test_markdown_table(run: Run) -> None:
    lines = run("flops", "resnet50", "--format", "markdown").out.splitlines()
    assert lines[0] == "|  | resnet50 |"
    assert lines[1] == "| --- | ---: |"
    assert r"| largest layer \[MACs\] | 150,994,944 |" in lines or any("largest layer" in line for line in lines)


@pytest.mark.parametrize("by", ["kind", "stage"])
def test_groups_sum_to_the_total(run: Run, by: str) -> None:
    rows = list(csv.DictReader(io.StringIO(run("cio", "csp_resnext50", "--by", by, "--format", "csv").out)))
    assert sum(int(r["macs"]) for r in rows) == 3_964_616_704
    assert sum(int(r["params"]) for r in rows) == 20_557_480


def test_depth_sums_layers_into_modules(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("cio", "resnet50", "--depth", "1", "--format", "csv").out)))
    assert [r["module"] for r in rows] == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    assert sum(int(r["cio_hardnet"]) for r in rows) == 24_574_464


def test_sort_and_top(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(
        run("cio", "darknet53", "--sort", "macs", "--top", "3", "--format", "csv").out)))  # fmt: skip
    assert len(rows) == 3
    assert [int(r["macs"]) for r in rows] == [301_989_888] * 3


def test_bottleneck_of_several_models(run: Run) -> None:
    got = json.loads(run("bottleneck", "resnet50", "darknet53", "--top", "2", "--format", "json").out)
    assert [m["model"] for m in got["models"]] == ["resnet50", "darknet53"]
    assert [row["path"] for row in got["models"][1]["layers"]] == ["stage1.down.conv", "stage1.blocks.0.conv2.conv"]


def test_file_name_ending_sets_the_format(run: Run, tmp_path: Path) -> None:
    for name, start in (("a.json", "{"), ("a.csv", "model,"), ("a.md", "|  |"), ("a.txt", "      ")):
        got = run("cio", "resnet50", "-o", str(tmp_path / name))
        assert (got.code, got.out) == (0, "")
        assert (tmp_path / name).read_text().startswith(start)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.json", "a.md", "a.txt"]


def test_input_batch_and_dtype(run: Run) -> None:
    one = json.loads(run("cio", "resnet50", "--input", "1x3x224x224", "--format", "json").out)["models"][0]
    eight = json.loads(run("cio", "resnet50", "--input", "8x3x224x224", "--dtype", "float16", "--format", "json").out)[
        "models"
    ][0]
    assert eight["macs"] == 8 * one["macs"]
    assert eight["cio"]["cspnet"] == 8 * one["cio"]["cspnet"]
    assert eight["dtype"] == "float16"
    assert eight["metrics"]["cio_bytes"] == 4 * one["metrics"]["cio_bytes"]


def test_compare_with_a_saved_profile(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "before.profile.json"
    assert run("profile", "resnext50", "--save", str(file)).code == 0
    assert "−5.1 %" in run("cio", str(file), "csp_resnext50").out


@pytest.mark.parametrize("name", METRICS.names())
def test_explain_prints_the_definition(run: Run, name: str) -> None:
    out = " ".join(run("explain", name).out.split())
    assert METRICS.get(name).definition.split(".")[0][:40] in out


# -- terminals and pipes --------------------------------------------------------------------------


@pytest.mark.slow
def test_pipe_gets_the_same_bytes_with_any_terminal() -> None:
    plain = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "FORCE_COLOR", "NO_COLOR")}
    wide = shell("cio", "resnet50", env=plain | {"TERM": "xterm-256color"})
    dumb = shell("cio", "resnet50", env=plain | {"TERM": "dumb", "NO_COLOR": "1"})
    assert wide.stdout == dumb.stdout
    assert "\x1b" not in wide.stdout
    assert all(line == line.rstrip() for line in wide.stdout.splitlines())


@pytest.mark.parametrize("columns", ["20", "40", "60", "80", "200"])
def test_narrow_terminal_cuts_no_digit(run: Run, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = run("cio", "resnext50", "csp_resnext50").out
    for number in ("34,411,496", "32,642,024", "5,055,135,744", "−1,769,472"):
        assert number in out
    assert "…" not in out


@pytest.mark.slow
def test_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m cspprof cio resnet50 --layers --format csv"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command} | head -n 1"], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("command", "message"), [
    pytest.param("metrics > /dev/full", "cannot write to standard output: No space left", id="full"),
    pytest.param("metrics >&-", "standard output is closed", id="closed"),
    pytest.param("metrics -o /dev/full", "cannot write /dev/full: No space left", id="file"),
    pytest.param("--version > /dev/full", "cannot write: No space left", id="version"),
    pytest.param("--help > /dev/full", "cannot write: No space left", id="help"),
])  # fmt: skip
def test_failed_write_prints_one_error(command: str, message: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = subprocess.run(f"{sys.executable} -m cspprof {command}", shell=True, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert (done.returncode, done.stderr.count("error:"), "bug" in done.stderr) == (2, 1, False)
    assert message in done.stderr


def test_output_is_utf8_with_any_encoding() -> None:
    plain, ascii_ = (
        shell("metrics", env=os.environ | {"PYTHONIOENCODING": encoding}, encoding="utf-8")
        for encoding in ("utf-8", "ascii")
    )
    assert (ascii_.returncode, ascii_.stdout) == (0, plain.stdout)
    assert not plain.stdout.isascii()


def test_ratio_metric_has_no_share(run: Run) -> None:
    listed = json.loads(run("bottleneck", "resnet50", "--metric", "moc", "--format", "json").out)["models"][0]["layers"]
    assert listed[0]["moc"] > listed[-1]["moc"] > 0
    assert {(row["share"], row["cumulative_share"]) for row in listed} == {(None, None)}


def test_an_error_that_replaces_ctrl_c_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raises_another_error(*args: Any, **kwargs: Any) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise AttributeError("partially initialized module")

    monkeypatch.setattr("cspprof.cli.profile.profile_specs", raises_another_error)
    with pytest.raises(SystemExit) as ended:
        main(["cio", "resnet10"])
    assert (ended.value.code, capsys.readouterr().err) == (130, "interrupted\n")


@pytest.mark.slow
def test_ctrl_c_exits_with_130() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "import time\nfrom cspprof.cli import main, profile\n"
         "profile.profile_specs = lambda *a, **k: (print('ready', flush=True), time.sleep(60))\n"
         "main(['cio', 'resnet50'])"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "interrupted\n")


@pytest.mark.slow
def test_cio_imports_few_modules_besides_torch() -> None:
    program = """
import sys, torch
before = set(sys.modules)
from cspprof.cli import main
try:
    main(["cio", "resnext50", "csp_resnext50", "--format", "json"])
except SystemExit:
    pass
new = {m.split(".")[0] for m in set(sys.modules) - before} | (set(sys.modules) - before)
heavy = {"sympy", "torch._dynamo", "pandas", "matplotlib", "fvcore", "timm", "torchvision", "pydantic"} & new
more = {m for m in set(sys.modules) - before if m.startswith("torch.")}
more -= {"torch.utils._device", "torch._subclasses.schema_check_mode"}
many = len(set(sys.modules) - before)
sys.exit(f"imported: {heavy} {more} {many}" if heavy or more or many > 300 else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cio", "resnext5"), r"no model named 'resnext5'\n  Did you mean: resnext50"),
        (("cio", "resnet50", "--input", "3x"), "cannot read the input '3x'\n  Write dimensions joined by x"),
        (("cio", "resnet50", "--input", "1x4x64x64"), r"layer 'stem.conv.conv' \(Conv2d\) failed at aten.conv2d"),
        (("cio", "resnet50", "--dtype", "float12"), "no dtype named 'float12'\n  There are:"),
        (("cio", "resnet50", "--dtype", "int16"), "int16 is not a floating dtype\n"),
        (
            ("cio", "resnet50", "--input", f"1x3x{10**10}x{10**12}"),
            "more dimensions or bytes than a tensor can have",
        ),
        (
            ("cio", "resnet50", "--sort", "peak_bytes"),
            "peak_bytes is a metric of whole models, not of layers\n  Metrics of layers: macs",
        ),
        (
            ("compare", "resnet50", "resnet50", "--metric", "peak_bytes"),
            "a change of peak_bytes cannot be split into layers",
        ),
        (("compare", "resnet50", "resnet50", "--metric", "moc"), "a change of moc cannot be split into layers"),
        (
            ("compare", "resnet50", "resnet50", "--metric", "bottleneck_macs"),
            "a change of bottleneck_macs cannot be split into layers",
        ),
        (("cio", "resnet50", "--device", "tpu"), "no device named 'tpu'\n  There are: meta, cpu"),
        (("cio", "resnet50", "--format", "yaml"), "no format named 'yaml'"),
        (("cio", "resnet50", "--by", "colour"), "cannot group by 'colour'\n  Group by one of: kind, stage"),
        (("cio", "resnet50", "--sort", "mac"), "no metric named 'mac'\n  Did you mean: macs"),
        (("cio", "resnet50", "--by", "kind", "--depth", "1"), "--by and --depth exclude each other"),
        (("compare", "resnet50"), "at least two models\n  For one model: cspprof profile resnet50"),
        (("bottleneck", "resnet50", "--metric", "balance"), "is a metric of whole models"),
        (("explain", "mock"), "no metric named 'mock'\n  Did you mean: moc"),
        (("explain", "mac"), "no metric named 'mac'\n  Did you mean: macs, moc?"),
        (("explain", "gama"), "no metric named 'gama'\n  Did you mean: gamma?"),
        (("models", "--family", "rnn"), "no family named 'rnn'\n  Families: darknet"),
        (("models", "--sort", "mcas"), "no metric named 'mcas'\n  Did you mean: macs"),
        (("models", "--papers", "--sort", "macs"), "--papers traces no network"),
        (("profile", "resnet50", "--save", "x.json"), "Write: --save x.profile.json"),
        (("cio", "nowhere/x.profile.json"), "there is no file nowhere/x.profile.json"),
        (("cio", "resnet50", "-o", "nowhere/x.json"), "there is no folder nowhere\n  Make it: mkdir -p nowhere"),
        (("cio",), "Missing argument"),
        (("cio", "resnet50", "--colour"), "No such option"),
    ],
)
def test_error_message_and_hint(run: Run, arguments: tuple[str, ...], message: str) -> None:
    got = run(*arguments)
    assert (got.code, got.out) == (2, "")
    assert re.search(message, got.err)
    assert "Traceback" not in got.err


def test_output_path_is_checked_before_tracing(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def trace(*arguments: object) -> None:
        raise AssertionError("the model was traced first")

    monkeypatch.setattr("cspprof.cli.profile.profile_specs", trace)
    got = run("cio", "resnet50", "-o", str(tmp_path))
    assert got.code == 2
    assert "it is a folder" in got.err


def test_failed_write_keeps_the_existing_file(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    old = '{\n  "schema": "cspprof.cio/1"\n}\n'
    target.write_text(old)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    got = run("cio", "resnet50", "-o", str(target))
    assert got.code == 2
    assert "No space left on device" in got.err
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert target.read_text() == old


def test_traceback_is_shown_only_with_debug(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("cspprof.cli.profile.profile_specs", broken)
    got = run("cio", "resnet50")
    assert (got.code, got.err) == (
        2, "error: ZeroDivisionError: oops\n  This is a bug in cspprof. --debug shows the traceback.\n",
    )  # fmt: skip
    debugged = run("cio", "resnet50", "--debug")
    assert debugged.code == 2
    assert debugged.err.startswith("Traceback (most recent call last):")
    assert "ZeroDivisionError: oops" in debugged.err


def test_an_unknown_model_with_debug_exits_with_2_and_shows_where_it_was_raised(run: Run) -> None:
    got = run("cio", "nosuch", "--debug")
    assert got.code == 2
    assert "Traceback" in got.err
    assert "error: no model named 'nosuch'" in got.err


# -- entry points ---------------------------------------------------------------------------------


def test_module_script_and_console_script() -> None:
    expected = f"cspprof {__version__}\n"
    script = Path(sys.executable).parent / "cspprof"
    for command in (
        [sys.executable, "-m", "cspprof"],
        [sys.executable, str(CHECKOUT / "cli.py")],
        *([[str(script)]] if script.exists() else []),
    ):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == expected


@pytest.mark.parametrize("arguments", [["--help"], ["cio", "--help"], ["metrics"], ["explain", "moc"]])
def test_help_and_metrics_import_no_heavy_library(arguments: list[str]) -> None:
    program = f"""
import sys
from cspprof.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
heavy = {{"torch", "pandas", "matplotlib", "numpy", "fvcore", "timm"}} & set(sys.modules)
sys.exit(f"imported: {{heavy}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- the list of commands -------------------------------------------------------------------------


def test_help_lists_all_commands_and_imports_none() -> None:
    program = """
import sys
from cspprof.cli import COMMANDS, main
try:
    main(["--help"])
except SystemExit:
    pass
modules = {f"cspprof.cli.{c.module}" for c in COMMANDS.values()} & set(sys.modules)
sys.exit(f"imported: {modules}" if modules or "rich" in sys.modules or "cspprof.core.record" in sys.modules else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, command in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert command.summary in done.stdout


@pytest.mark.parametrize("name", [n for n in COMMANDS if n not in ("baseline", "cache")])
def test_help_of_each_command(name: str, run: Run) -> None:
    answer = run(name, "--help")
    assert answer.code == 0
    assert answer.out.startswith(f"Usage: cspprof {name} [OPTIONS]")


def test_shell_completion_of_options() -> None:
    environment = {**os.environ, "_CSPPROF_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    environment["COMP_WORDS"] = "cspprof bottleneck --m"
    done = subprocess.run(
        [sys.executable, "-m", "cspprof"], env=environment, capture_output=True, text=True, check=False
    )
    assert "--metric" in done.stdout.split()
