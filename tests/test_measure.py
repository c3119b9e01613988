"""`cspprof measure`: the table, the saved file, and everything that must not give a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import CHECKOUT
from jsonschema import validate
from onnx_models import node, save_graph, value

from cspprof.core.errors import CspprofError
from cspprof.core.relative_error import relative_error
from cspprof.measure import engines as engine_registry
from cspprof.measure.denormals import flushes_denormals
from cspprof.measure.engine_process import EngineProcess, unsupported_nodes
from cspprof.measure.engines import ENGINES, engines_named
from cspprof.measure.engines.network import EngineError, Prepared, save_arrays
from cspprof.measure.machine import Machine, cpus_for
from cspprof.measure.parity import check_parity
from cspprof.measure.report import NO_DIFFERENCE, measurement_report
from cspprof.measure.result import EngineRun, MeasuredModel, Measurement, Timing
from cspprof.measure.session import Session, refuse_without_memory
from cspprof.measure.worker import MEMORY_HINT, OUT_OF_MEMORY, _respond, short_reason
from cspprof.measure.worker_process import WorkerProcess
from cspprof.profiles import Profile
from cspprof.render import render
from cspprof.render.page.document import html_page

SCHEMA = json.loads((resources.files("cspprof") / "schemas" / "measured-1.schema.json").read_text())
GRAPH_ENGINES = ("onnxruntime", "opencv", "opencv-classic", "openvino")

NETS = """\
import torch
from torch import nn

class Net(nn.Module):
    example_input_shape = (1, 3, 16, 16)

    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        return self.last(self.norm(self.conv(x)).relu())

class Constant(Net):
    def forward(self, x):
        return super().forward(x) * 0 + 1

class NotInOnnx(Net):
    def forward(self, x):
        y = super().forward(x)
        return torch.special.bessel_j0(y).amax(-1) + torch.linalg.svdvals(y)
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `nets.py`."""
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -- a measurement made by hand ----------------------------------------------------------------------


def measurement(chain: Profile, *series: list[list[float]], again: list[list[float]] | None = None) -> Measurement:
    """Models with these samples on one engine; `again` are those of the second copy of the first model."""
    result = Measurement(Machine("some CPU", 4, 8 << 30, "Linux", "3.11"), "2026-01-02T03:04:05+00:00", 2, 2, 0.1)
    result.engines = [EngineRun("onnxruntime", {"onnxruntime": "1.2"}, {"threads": 2, "pinned_to": [0, 1]})]
    for i, rounds in enumerate(series):
        name = f"net{i}"
        result.models.append(MeasuredModel(name, name, [], renamed(chain, name)))
        result.timings.append(Timing("onnxruntime", i, rounds=rounds, error=1e-6, peak_bytes=100 << 20))
    if again is not None:
        result.timings.append(Timing("onnxruntime", 0, again=True, rounds=again))
    result.finished_rounds = 2
    return result


def renamed(record: Profile, name: str) -> Profile:
    values = {f: getattr(record, f) for f in record.__dataclass_fields__}
    return Profile(**{**values, "model": name, "source": name})


def table_text(result: Measurement) -> str:
    return render("rich", measurement_report(result)).decode()


SECOND = [[1.0] * 4, [1.0] * 4]


def test_a_row_has_median_interval_minimum_rate_memory_and_ratios(chain: Profile) -> None:
    result = measurement(chain, [[0.002] * 3, [0.002] * 3], [[0.001] * 3, [0.001] * 3], again=[[0.002] * 3] * 2)
    first, second = result.rows()
    assert (first["median_ms"], first["low_ms"], first["high_ms"], first["min_ms"]) == (2.0, 2.0, 2.0, 2.0)
    assert (first["images_per_s"], first["ratio"], first["differs"], first["samples"]) == (500.0, 1.0, None, 6)
    assert (second["ratio"], second["ratio_low"], second["differs"]) == (0.5, 0.5, True)
    assert (second["macs_ratio"], second["cio_ratio"], second["least_difference"]) == (1.0, 1.0, 0.0)
    assert "2 [2, 2]" in table_text(result)
    assert "0.500 [0.500, 0.500]" in table_text(result)
    assert "100 MiB" in table_text(result)


def test_below_the_difference_of_the_equal_models_no_difference_is_claimed(chain: Profile) -> None:
    base, slower = [[1.0] * 3] * 2, [[1.02] * 3] * 2
    quiet = measurement(chain, base, slower, again=[[1.01] * 3] * 2)
    assert quiet.rows()[1]["differs"] is True
    noisy = measurement(chain, base, slower, again=[[1.03] * 3] * 2)
    assert noisy.rows()[1]["differs"] is False
    assert NO_DIFFERENCE in table_text(noisy)
    assert NO_DIFFERENCE not in table_text(quiet)
    assert "Differences up to 3.0 % are not claimed." in table_text(noisy)


def test_the_ratio_of_the_first_model_is_exactly_1(chain: Profile) -> None:
    first = measurement(chain, [[1.0, 2.0, 3.0]] * 2).rows()[0]
    assert (first["ratio"], first["ratio_low"], first["ratio_high"]) == (1.0, 1.0, 1.0)


def test_without_a_pair_of_equal_models_no_difference_is_claimed(chain: Profile) -> None:
    result = measurement(chain, [[1.0] * 3] * 2, [[2.0] * 3] * 2)
    assert result.rows()[1]["differs"] is None
    assert NO_DIFFERENCE in table_text(result)


def test_a_wide_interval_offers_more_rounds(chain: Profile) -> None:
    wide = measurement(chain, [[1.0, 2.0, 1.5], [1.2, 2.2, 1.6]])
    assert "cspprof measure net0 --engine onnxruntime --rounds 8" in table_text(wide)
    assert "--rounds 8" not in table_text(measurement(chain, [[1.0] * 3] * 2))


def test_a_busy_machine_is_named(chain: Profile) -> None:
    result = measurement(chain, [[1.0] * 3] * 2)
    result.other_cpu_share, result.load_average = 0.5, 3.25
    assert "the machine is busy: other processes used 50.0 % of its CPUs" in table_text(result)
    assert "the load average before the session was 3.2" in table_text(result)
    result.other_cpu_share = 0.01
    assert "busy" not in table_text(result)


def test_an_interruption_is_named_and_keeps_the_rows_that_have_samples(chain: Profile) -> None:
    result = measurement(chain, [[1.0] * 3], [])
    result.interrupted, result.finished_rounds = True, 1
    assert "interrupted after 1 of 2 rounds." in table_text(result)
    assert "interrupted before its first round" in table_text(result)
    assert "1,000 [1,000, 1,000]" in table_text(result)


def test_a_failure_has_its_reason_and_no_time(chain: Profile) -> None:
    result = measurement(chain, [[1.0] * 3] * 2, [])
    result.timings[1].failure, result.timings[1].hint = "wrong output: a reason", "a hint"
    assert "no time: see the note" in table_text(result)
    assert "onnxruntime, net1: wrong output: a reason" in table_text(result)
    assert "onnxruntime, net1: a hint" in table_text(result)


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        (("", ""), False),
        (("skipped: no GPU", ""), False),
        (("skipped: no GPU", "skipped: no GPU"), True),
        (("wrong output", ""), True),
        (("skipped: no GPU", "wrong output"), True),
    ],
)
def test_an_engine_without_its_device_is_no_failure_if_another_one_ran(
    chain: Profile, failures: tuple[str, str], expected: bool
) -> None:
    result = measurement(chain, SECOND, SECOND)
    for timing, failure in zip(result.timings, failures, strict=True):
        timing.failure = failure
    assert result.has_failures is expected


def test_without_a_time_of_the_first_model_there_are_no_ratios(chain: Profile) -> None:
    result = measurement(chain, [], [[1.0] * 3] * 2)
    assert [row["ratio"] for row in result.rows()] == [None, None]
    assert [row["macs_ratio"] for row in result.rows()] == [1.0, 1.0]


@pytest.mark.parametrize("format_name", ["rich", "json", "csv", "markdown", "latex", "html"])
def test_every_format_shows_a_measurement(chain: Profile, format_name: str) -> None:
    text = render(format_name, measurement_report(measurement(chain, SECOND, SECOND, again=SECOND))).decode()
    assert "net1" in text
    if format_name == "html":
        assert "<h2 id=h-section>Time of a forward pass</h2>" in text
        assert "1,000 [1,000, 1,000]" in text


def test_the_page_of_a_report_without_measurements_has_no_such_section(chain: Profile) -> None:
    assert "Time of a forward pass" not in html_page([chain])


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("std::bad_alloc"),
        EngineError("torch cannot run it: MemoryError: "),
        MemoryError(),
    ],
)
def test_an_allocator_that_fails_says_that_the_model_outgrows_the_memory(error: Exception) -> None:
    def fail() -> dict[str, Any]:
        raise error

    assert _respond(fail, {}) == {"failed": OUT_OF_MEMORY, "hint": MEMORY_HINT}


def test_a_worker_returns_the_reason_and_the_hint_of_an_error() -> None:
    def fail() -> dict[str, Any]:
        raise EngineError("a reason", "a hint")

    assert _respond(fail, {}) == {"failed": "a reason", "hint": "a hint"}


# -- the saved file ----------------------------------------------------------------------------------


def test_a_saved_measurement_is_read_back_and_follows_its_schema(chain: Profile, tmp_path: Path) -> None:
    result = measurement(chain, [[1.0, 1.5], [2.0]], [[1.0]], again=[[1.0]])
    path = tmp_path / "x.measured.json"
    result.save(path)
    document = json.loads(path.read_text())
    validate(document, SCHEMA)
    again = Measurement.load(path)
    assert json.loads(json.dumps(again.document())) == document
    assert table_text(again) == table_text(result)


def test_the_records_of_a_saved_measurement_are_specs(
    chain: Profile, tmp_path: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    measurement(chain, SECOND, SECOND).save(tmp_path / "x.measured.json")
    compared = run("compare", "x.measured.json", "--format", "json")
    assert [m["model"] for m in json.loads(compared.out)["models"]] == ["net0", "net1"]
    one = run("cio", "x.measured.json,model=net1", "--format", "json")
    assert [m["model"] for m in json.loads(one.out)["models"]] == ["net1"]
    assert NO_DIFFERENCE in run("measure", "x.measured.json").out
    csv = run("measure", "x.measured.json", "--format", "csv").out.splitlines()
    assert csv[0].startswith("engine,model,spec,median_ms")
    assert len(csv) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cio", "x.measured.json,model=net"), "has no model 'net'"),
        (("cio", "x.measured.json,name=net0"), "has no option 'name'"),
        (("whatif", "x.measured.json"), "has 2 models"),
        (("cio", "y.measured.json"), "there is no file"),
        (("cio", "broken.measured.json"), "is not a file of measurements"),
        (("cio", "other.measured.json"), "has schema"),
        (("measure", "x.measured.json", "x.measured.json"), "is printed alone"),
        (("measure", "net.py:Net", "--save", "x.json"), "ends in .measured.json"),
        (("measure", "net.py:Net", "--save", "other.measured.json"), "is not a measurement"),
        (("cio", "resnet10", "-o", "x.measured.json"), "--save"),
    ],
)
def test_mistakes_with_saved_measurements_are_named(
    chain: Profile,
    tmp_path: Path,
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    measurement(chain, SECOND, SECOND).save(tmp_path / "x.measured.json")
    (tmp_path / "broken.measured.json").write_text("{")
    (tmp_path / "other.measured.json").write_text('{"schema": "something/1"}')
    result = run(*arguments)
    assert result.code == 2
    assert message in result.err


# -- options and engines -----------------------------------------------------------------------------


def test_an_engine_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_registry, "find_spec", lambda name: None if name == "openvino" else object())
    with pytest.raises(CspprofError, match="the engine openvino needs openvino") as caught:
        engines_named("torch,openvino")
    assert caught.value.hint == (
        'Install what is missing: pip install "cspprof[openvino]"\nOr measure without it: --engine torch'
    )
    assert engines_named(None) == ["torch", "onnxruntime", "opencv"]
    monkeypatch.setattr(engine_registry, "find_spec", lambda name: object() if name == "torch" else None)
    assert engines_named(None) == ["torch"]
    with pytest.raises(
        CspprofError, match="the engine onnxruntime needs onnxruntime and onnx and onnxscript"
    ) as caught:
        engines_named("onnxruntime")
    assert caught.value.hint == 'Install what is missing: pip install "cspprof[measure]"'


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("--engine", "onnxrt"), "no engine named 'onnxrt'", "onnxruntime"),
        (("--engine", ","), "names no engine", "torch"),
        (("--rounds", "0"), "--rounds 0 measures nothing", "N ≥ 1"),
        (("--rounds", "-3"), "--rounds -3 measures nothing", "N ≥ 1"),
        (("--threads", "0"), "--threads 0", "1 ≤ N"),
        (("--threads", "4096"), "--threads 4096", "1 ≤ N"),
    ],
)
def test_impossible_options_are_refused_before_anything_runs(
    run: Callable[..., Any], nets: Path, arguments: tuple[str, ...], message: str, hint: str
) -> None:
    result = run("measure", "nets.py:Net", *arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert hint in result.err


def test_each_engine_has_its_file_and_versions() -> None:
    folder = Path(engine_registry.__file__).parent
    assert {f"{engine.module}.py" for _, engine in ENGINES.items()} | {"__init__.py", "network.py"} == {
        path.name for path in folder.glob("*.py")
    }
    for name in ("torch", *GRAPH_ENGINES):
        assert all(version[0].isdigit() for version in ENGINES.get(name).versions().values())


def test_threads_run_on_different_cpus() -> None:
    assert len(cpus_for(1)) == 1
    with pytest.raises(CspprofError, match="--threads 0"):
        cpus_for(0)


# -- outputs -----------------------------------------------------------------------------------------


def test_the_error_of_outputs_is_relative_to_their_norm() -> None:
    b = numpy.array([3.0, 4.0], numpy.float32)
    assert relative_error([b * numpy.float32(1.5)], [b]) == 0.5
    assert relative_error([b, b * 2], [b, b]) == 1.0
    assert check_parity([b], [b]) == 0.0


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([], "0 tensors instead of 1"),
        ([numpy.zeros((2, 1), numpy.float32)], r"shape \(2, 1\) instead of \(2,\)"),
        ([numpy.array([3.0, numpy.nan], numpy.float32)], "not finite"),
        ([numpy.array([3.0, 4.01], numpy.float32)], "its relative error is 2.0e-03, above the tolerance 1e-04"),
    ],
)
def test_a_wrong_output_is_refused(outputs: list[Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        check_parity(outputs, [numpy.array([3.0, 4.0], numpy.float32)])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : no kernel",
            "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : no kernel",
        ),
        ("Exception from src/a.cpp:1:\nCheck 'x' failed at src/b.cpp:2:\nNo rule for Det-20\n", "No rule for Det-20"),
        ("OpenCV(5.0.0) /io/net.cpp:7: error: (-215:Assertion failed) x", "(-215:Assertion failed) x"),
        ("No compiler found\n\nSet TORCHDYNAMO_VERBOSE=1 for the stack trace", "No compiler found"),
        (
            "OpenCV(5.0.0) /io/a.cpp:1: error: (-2:Unspecified error) in function 'f'\n> Node [Foo]: unknown\n>\n",
            "(-2:Unspecified error) in function 'f' Node [Foo]: unknown",
        ),
        ("", ""),
    ],
)
def test_the_reason_of_an_engine_is_short(text: str, reason: str) -> None:
    assert short_reason(RuntimeError(text)) == f"RuntimeError: {reason}"


def test_a_model_that_needs_more_memory_than_there_is_is_refused(chain: Profile) -> None:
    refuse_without_memory(chain)
    huge = Profile(**{**{f: getattr(chain, f) for f in chain.__dataclass_fields__}, "params": 1 << 50})
    with pytest.raises(EngineError, match=rf"{OUT_OF_MEMORY}: chain needs 4194304.0 GiB"):
        refuse_without_memory(huge)


# -- processes ---------------------------------------------------------------------------------------


def prepared_graph(
    folder: Path, nodes: list[Any], weights: dict[str, Any], expected: Callable[..., Any], **options: Any
) -> Path:
    """A folder as a preparation writes it: a graph from x (1, 2, 4, 4) to y, its input and its correct output."""
    x = numpy.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype(numpy.float32)
    path = folder / "model.onnx"
    save_graph(path, nodes, [value("x", x.shape)], [value("y", options.pop("shape", x.shape))], weights, **options)
    save_arrays(folder / "inputs.npz", [x])
    save_arrays(folder / "outputs.npz", [expected(x)])
    export = {"failure": "", "path": str(path), "inputs": ["x"], "outputs": ["y"]}
    (folder / "model.json").write_text(
        json.dumps({"spec": "net.onnx", "inputs": [], "tolerance": 1e-4, "export": export})
    )
    return folder


def double(x: Any) -> Any:
    return x * 2


SCALE = {"two": numpy.full((1,), 2, numpy.float32)}


@pytest.mark.parametrize(
    "engine", [GRAPH_ENGINES[0], *(pytest.param(e, marks=pytest.mark.slow) for e in GRAPH_ENGINES[1:])]
)
def test_an_engine_runs_a_graph_in_its_own_process(engine: str, tmp_path: Path) -> None:
    folder = prepared_graph(tmp_path, [node("Mul", "x", "two")], SCALE, double, opset=17)
    state, timing = EngineRun(engine), Timing(engine, 0)
    with EngineProcess(state, 1, cpus_for(1)) as process:
        process.start()
        process.check(timing, folder)
        process.load(timing, folder)
        seconds = process.measure(timing, 0.01)
        process.measure(timing, 0.01)
    assert timing.failure == ""
    assert timing.error == 0.0
    assert state.settings["pinned_to"] in (cpus_for(1), None)
    assert timing.peak_bytes > timing.engine_bytes > 10 << 20
    assert [len(samples) >= 5 for samples in timing.rounds] == [True, True]
    assert all(t > 0 for samples in timing.rounds for t in samples)
    assert seconds > 0
    assert (timing.runs_per_sample >= 1, len(timing.warm_up_runs)) == (True, 2)


@pytest.mark.parametrize(
    "engine", [GRAPH_ENGINES[0], *(pytest.param(e, marks=pytest.mark.slow) for e in GRAPH_ENGINES[1:])]
)
def test_a_wrong_graph_gets_no_time(engine: str, tmp_path: Path) -> None:
    """The graph was changed after its output was computed: it multiplies by 2.01 instead of 2."""
    weights = {"two": numpy.full((1,), 2.01, numpy.float32)}
    folder = prepared_graph(tmp_path, [node("Mul", "x", "two")], weights, double, opset=17)
    timing = Timing(engine, 0)
    with EngineProcess(EngineRun(engine), 1, cpus_for(1)) as process:
        process.start()
        process.check(timing, folder)
    assert timing.failure.startswith("wrong output: its relative error is 5.0e-03")
    assert timing.error is None


def test_all_nodes_that_an_engine_cannot_run_are_named_at_once(tmp_path: Path) -> None:
    nodes = [
        node("Strange", "x", outputs=["a"], domain="my.ops", name="first"),
        node("Mul", "x", "two", outputs=["b"], name="good"),
        node("Odd", "b", outputs=["c"], domain="my.ops", name="second"),
        node("Odd", "b", outputs=["d"], domain="my.ops", name="third"),
        node("Sum", "a", "b", "c", "d", name="sum"),
    ]
    folder = prepared_graph(tmp_path, nodes, SCALE, double, opset=17, domains=["my.ops"])
    engine, timing = EngineRun("onnxruntime"), Timing("onnxruntime", 0)
    with EngineProcess(engine, 1, cpus_for(1)) as process:
        process.start()
        process.check(timing, folder)
    assert "my.ops" in timing.failure
    reasons = unsupported_nodes(engine, 1, cpus_for(1), Prepared(folder).graph, tmp_path / "nodes")
    assert [reason.partition(": ")[0] for reason in reasons] == [
        "node 'first' (my.ops.Strange, opset 1)",
        "node 'second' and 1 more (my.ops.Odd, opset 1)",
    ]


def test_denormals_are_flushed_in_the_process_of_an_engine_only(tmp_path: Path) -> None:
    """1e-30 · 1e-10 is denormal in float32."""
    weights = {"tiny": numpy.full((1,), 1e-30, numpy.float32), "small": numpy.full((1,), 1e-10, numpy.float32)}
    nodes = [node("Mul", "x", "tiny", outputs=["a"]), node("Mul", "a", "small")]
    folder = prepared_graph(tmp_path, nodes, weights, lambda x: x * 0, opset=17)
    state, timing = EngineRun("onnxruntime"), Timing("onnxruntime", 0)
    with EngineProcess(state, 1, cpus_for(1)) as process:
        process.start()
        process.check(timing, folder)
    assert not flushes_denormals()
    assert state.settings["denormals_flushed"] is True
    assert timing.error == 0.0


def test_a_process_that_is_killed_says_so_and_the_other_models_continue(tmp_path: Path) -> None:
    folder = prepared_graph(tmp_path, [node("Mul", "x", "two")], SCALE, double, opset=17)
    first, second = Timing("onnxruntime", 0), Timing("onnxruntime", 1)
    with EngineProcess(EngineRun("onnxruntime"), 1, cpus_for(1)) as process:
        process.start()
        process.load(first, folder)
        process.load(second, folder)
        process.measure(first, 0.01)
        os.kill(process._process._process.pid, signal.SIGKILL)
        process.measure(first, 0.01)
        process.measure(second, 0.01)
    assert first.failure == f"{OUT_OF_MEMORY}: the system ended its process (SIGKILL)"
    assert len(first.rounds) == 1  # what was measured before stays
    assert (second.failure, len(second.rounds)) == ("", 1)


def test_an_error_of_a_worker_is_an_engine_error() -> None:
    with WorkerProcess() as process:
        with pytest.raises(EngineError, match="no engine named 'abacus'"):
            process.request("start", engine="abacus", threads=1, cpus=[0])
        assert process.is_running


# -- whole sessions ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_session_measures_user_networks_on_every_engine(nets: Path, run: Callable[..., Any]) -> None:
    result = run(
        "measure", "nets.py:Net", "nets.py:Net,width=32", "--engine", ",".join(("torch", *GRAPH_ENGINES)), "--rounds",
         "2", "--threads", "1", "--format", "json", "--save", "x.measured.json",
    )  # fmt: skip
    assert result.code == 0, result.err
    document = json.loads(result.out)
    validate(document, SCHEMA)
    assert [(r["engine"], r["model"]) for r in document["results"]] == [
        (engine, model) for engine in ("torch", *GRAPH_ENGINES) for model in ("nets.py:Net", "nets.py:Net,width=32")
    ]
    assert all(r["error"] < 1e-5 and r["median_ms"] > 0 and r["peak_bytes"] for r in document["results"])
    assert document["finished_rounds"] == 2
    assert document["models"][0]["export"]["opset"]["ai.onnx"] >= 17
    assert document["models"][0]["notes"] == ["statistics of 1 batch norms set by one forward pass on random input"]
    pairs = [t for t in document["timings"] if t["again"]]
    assert [(t["engine"], t["model"], len(t["rounds"])) for t in pairs] == [
        (e, 0, 2) for e in ("torch", *GRAPH_ENGINES)
    ]
    compared = run("compare", "x.measured.json", "--format", "json")
    assert [m["model"] for m in json.loads(compared.out)["models"]] == ["nets.py:Net", "nets.py:Net,width=32"]


@pytest.mark.slow
def test_torch_compile_runs_or_says_why_not(nets: Path, run: Callable[..., Any]) -> None:
    result = run("measure", "nets.py:Net", "--engine", "torch-compile", "--check", "--format", "csv")
    assert result.code == 0, result.out + result.err


@pytest.mark.slow
def test_check_names_every_reason_and_exits_with_1(nets: Path, run: Callable[..., Any]) -> None:
    result = run("measure", "nets.py:Constant", "nets.py:NotInOnnx", "--engine", "torch,onnxruntime", "--check")
    assert result.code == 1
    assert "the output changes by 0.0e+00 between two random inputs" in result.out.replace("\n", " ")
    assert "aten._linalg_svd" in result.out
    assert "bessel_j0" in result.out


@pytest.mark.slow
def test_an_onnx_file_runs_in_the_engines_and_not_in_torch(nets: Path, run: Callable[..., Any]) -> None:
    save_graph(
        nets / "m.onnx", [node("Mul", "x", "two")], [value("x", (1, 2, 4, 4))], [value("y", (1, 2, 4, 4))], SCALE
    )
    result = run("measure", "m.onnx", "--engine", "torch,onnxruntime,openvino", "--check", "--format", "csv")
    assert result.code == 1
    assert "torch runs modules only" in result.out
    assert result.out.count("m.onnx is an ONNX graph") == 1


@pytest.mark.slow
def test_without_a_gpu_the_cuda_engine_is_skipped_with_the_reason(nets: Path, run: Callable[..., Any]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    result = run("measure", "nets.py:Net", "--engine", "torch-cuda", "--check")
    assert result.code == 1
    assert "skipped: torch was built" in result.out


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured(nets: Path) -> None:
    """The command gets SIGINT in the middle of its rounds, prints and saves, and exits with 130."""
    program = (
        "import signal, sys; from cspprof.cli import main, measure\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background process may ignore it
        "measure.show_progress = lambda: lambda text, *steps: print(text, file=sys.stderr, flush=True)\n"
        "main()"
    )
    options = ["--engine", "onnxruntime", "--rounds", "1000", "--save", "x.measured.json"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, "measure", "nets.py:Net", *options],
        cwd=nets,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert any(line.startswith("round 3 of 1000") for line in process.stderr)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted after" in out
    saved = Measurement.load(nets / "x.measured.json")
    assert saved.interrupted
    assert 2 <= saved.finished_rounds < 1000
    assert saved.rows()[0]["median_ms"] > 0


@pytest.mark.parametrize(("models", "most"), [(["chain"], 10_000), (["chain", "chain"], 6666)])
def test_more_rounds_than_a_file_can_hold_are_refused(models: list[str], most: int) -> None:
    with pytest.raises(CspprofError) as refused:
        Session(models, ["onnxruntime"], rounds=most + 1)
    assert refused.value.hint == f"Write --rounds {most} or less."


def test_many_rounds_have_fewer_samples_each() -> None:
    """A result holds 100,000: a round of one model, which is loaded twice, has 50 up to 1,000 rounds."""
    rounds = (5, 1_000, 2_000, 10_000)
    assert [Session(["resnet10"], ["onnxruntime"], rounds=n).most_samples for n in rounds] == [50, 50, 25, 5]


def test_more_models_than_a_result_can_hold_are_refused() -> None:
    with pytest.raises(CspprofError, match="a round takes at least 100010") as refused:
        Session(["chain"] * 20_001, ["onnxruntime"], rounds=1)
    assert refused.value.hint == "Measure fewer models at a time."


@pytest.mark.slow
def test_an_interruption_during_the_preparation_keeps_the_session(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "_prepare_one", interrupt)
    result = Session(["nets.py:Net"], ["onnxruntime"]).run()
    assert result.interrupted
    assert result.timings == []
    assert "interrupted after 0 of 5 rounds." in table_text(result)
