"""Trackers of a sweep: what MLflow and TensorBoard read back, and that a row is logged once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cspprof.sweeps.candidate import Row
from cspprof.sweeps.journal import open_journal
from cspprof.sweeps.trackers import open_tracker, tracking

MACS = 4_089_184_257
"""Odd, so that single precision cannot hold it."""


def row(i: int, status: str = "ok") -> Row:
    values = {"macs": MACS + i, "moc": 1.5, "params": 7} if status == "ok" else {}
    axes, error = {"width": i, "size": (32, 64)}, "" if status == "ok" else "no"
    return Row(bytes([i] * 16), i, f"net:N,width={i}", axes, "1x3x32x64", status, values, ("params",), error, 0.5, "v1")


def tensorboard_runs(folder: Path) -> dict[str, dict[str, float]]:
    """The scalars of each run, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    found = {}
    for run in folder.iterdir():
        events = EventAccumulator(str(run)).Reload()
        tags = [tag for tag in events.Tags()["tensors"] if not tag.startswith("_hparams_")]
        found[run.name] = {tag: make_ndarray(events.Tensors(tag)[0].tensor_proto).item() for tag in tags}
    return found


def test_tensorboard_holds_exact_numbers_and_the_axes(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    for _ in range(2):  # a second process knows what the first one has logged
        tracker = open_tracker(f"tensorboard:{tmp_path}")
        tracker.log([row(1), row(2), row(3, "failed")])
        tracker.log([row(1)])
    runs = tensorboard_runs(tmp_path)
    assert [runs[name] for name in sorted(runs)] == [
        {"macs": MACS + i, "moc": 1.5, "params_at_least": 7} for i in (1, 2)
    ]
    first = next(run for run in tmp_path.iterdir() if "width=1" in run.name)
    content = EventAccumulator(str(first)).Reload().SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    choices = HParamsPluginData.FromString(content).session_start_info.hparams
    assert choices["width"].number_value == 1
    assert {name: choices[name].string_value for name in ("spec", "input", "size")} == {
        "spec": "net:N,width=1", "input": "1x3x32x64", "size": "32x64",
    }  # fmt: skip


@pytest.mark.slow
def test_mlflow_has_one_run_per_row_with_its_last_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    tracker = open_tracker("mlflow:sqlite:///m.db")
    tracker.log([row(1), row(2, "failed")])
    client = MlflowClient("sqlite:///m.db")
    experiment = client.get_experiment_by_name("cspprof").experiment_id
    client.create_run(experiment, tags={"cspprof.key": row(3).key.hex()})  # as a process that was killed leaves it
    for _ in range(2):
        tracker = open_tracker("mlflow:sqlite:///m.db")
        tracker.log([row(1), row(2), row(3), row(4, "timeout")])
    runs = {run.data.params["width"]: run for run in client.search_runs([experiment])}
    assert len(client.search_runs([experiment])) == len(runs) == 4
    assert {width: run.info.status for width, run in runs.items()} == {
        "1": "FINISHED", "2": "FINISHED", "3": "FINISHED", "4": "FAILED"
    }  # fmt: skip
    assert runs["1"].data.metrics == {"macs": MACS + 1, "moc": 1.5, "params_at_least": 7}
    assert runs["1"].data.params == {"spec": "net:N,width=1", "input": "1x3x32x64", "width": "1", "size": "32x64"}
    assert (runs["4"].data.metrics, runs["4"].data.tags["cspprof.error"]) == ({}, "no")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.db"]


GRID = ("resnet10", "--size", "32,64,96", "--journal", "j.sweep", "--tracker", "tensorboard:runs", "--format", "csv")


@pytest.mark.usefixtures("in_this_process")
def test_a_tracker_that_fails_half_way_loses_no_row(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("cspprof.sweeps.trackers.tensorboard_runs.TensorBoardRuns._write", full_disk)
        result = run("sweep", *GRID)
    assert result.code == 0
    assert "The tracker tensorboard:runs has failed: OSError: [Errno 28] No space left on device." in result.err
    assert len(list(open_journal(Path("j.sweep")).rows())) == 3
    for _ in range(2):
        assert "3 candidates: 0 traced, 3 remembered." in run("sweep", *GRID).err
        assert sorted(name.rpartition("-")[0] for name in tensorboard_runs(Path("runs"))) == [
            f"resnet10_size={size}x{size}" for size in (32, 64, 96)
        ]


def full_disk(*arguments: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        ("mlfow:x", "there is no tracker 'mlfow'"),
        ("mlflow", "the tracker mlflow has no place"),
        ("tensorboard:file", "cannot write file"),
        ("mlflow:sqlite:///none/m.db", "unable to open database file"),
        ("mlflow:sqlite:///file", "file is not a database"),
    ],
)  # fmt: skip
def test_a_tracker_that_cannot_be_used_is_an_error_before_the_first_trace(
    run: Callable[..., Any], tracker: str, message: str
) -> None:
    Path("file").write_text("text" * 1000)
    result = run("sweep", "resnet10", "--journal", "j.sweep", "--tracker", tracker)
    assert (result.code, message in result.err) == (2, True), result.err
    assert not list(open_journal(Path("j.sweep")).rows())


def test_a_tracker_logs_beside_the_sweep_and_is_finished_at_its_end(tmp_path: Path) -> None:
    notes: list[str] = []
    with tracking([f"tensorboard:{tmp_path}"] * 2, notes) as send:
        send(row(i) for i in range(50))
    assert (len(list(tmp_path.iterdir())), notes) == (50, [])
