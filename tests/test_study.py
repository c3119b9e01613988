"""The study of measured times in reports/: its page follows from the committed measurements."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pytest
import study
from conftest import CHECKOUT
from timing_study import counters, dram, measurement, results
from timing_study.networks import Network, networks
from timing_study.page import page
from timing_study.predictors import PREDICTORS, predictions, score

from cspprof.core.kinds import Kind
from cspprof.measure.calibration.fit import Sample
from cspprof.metrics import value_of
from cspprof.profiles import profile_spec

REPORTS = CHECKOUT / "reports"


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((REPORTS / "study.json").read_text())
    return document


@pytest.fixture(scope="module")
def table() -> list[results.Row]:
    return results.parse_csv((REPORTS / "study.csv").read_text())


# -- the committed study ------------------------------------------------------------------------------


def test_the_page_follows_from_the_table_and_the_measurements(
    table: list[results.Row], measured: dict[str, Any]
) -> None:
    assert page(table, measured) == (REPORTS / "study.md").read_text()


def test_the_table_has_each_measured_time(table: list[results.Row], measured: dict[str, Any]) -> None:
    short = {item.network.name for item in measurement.short_batch().items}
    times = {(e, name, size): ms for e, name, size, ms, *_ in measured["times"] if name not in short}
    in_table = {(e, r["name"], r["size"]): r[f"{e}_ms"] for r in table for e in results.ENGINES if r[f"{e}_ms"]}
    assert in_table == times


def test_counts_of_the_table_are_those_of_a_new_trace(table: list[results.Row], measured: dict[str, Any]) -> None:
    """For two networks, one of them with accesses by ZigZag; the slow test compares all of them."""
    chosen = {"csp_peleenet", "timm:regnetx_032"}
    part = measured | {"times": [row for row in measured["times"] if row[1] in chosen]}
    new = {results.key(r): r for r in results.rows(part)}
    assert len(new) == 4
    for row in table:
        if row["name"] in chosen:
            of_row = {k: v for k, v in new[results.key(row)].items() if not k.endswith(("_roofline", "_calibrated"))}
            assert of_row == {k: row[k] for k in of_row}


@pytest.mark.slow
def test_the_whole_table_follows_from_the_measurements(
    table: list[results.Row], measured: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the predictions, whose last digits may differ between processors. The everyday test covers the caches."""
    monkeypatch.setattr(results, "CACHES", {})
    new = {results.key(r): r for r in results.rows(measured)}
    assert list(new) == [results.key(r) for r in table]
    for row in table:
        for column, value in new[results.key(row)].items():
            assert value == (pytest.approx(row[column], rel=5e-3) if isinstance(value, float) else row[column])


def test_the_study_covers_what_it_promises(table: list[results.Row]) -> None:
    names = {row["name"] for row in table}
    assert len(names) >= 40
    assert {row["source"] for row in table} == {"zoo", "timm", "converted"}
    assert min(Counter(row["name"] for row in table).values()) == 2  # resolutions
    for engine in measurement.ENGINES_FOR_ALL:
        assert len(results.timed(table, engine)) > 0.95 * len(table)
    assert len(results.timed(table, "opencv")) >= 20


def test_files_are_small() -> None:
    assert (REPORTS / "study.json").stat().st_size < 1_000_000
    assert (REPORTS / "study.csv").stat().st_size < 200_000


# -- networks and batches -----------------------------------------------------------------------------


def test_every_network_is_measured_once_at_each_size_beside_its_plain_network() -> None:
    chosen = networks()
    items = [(b.name, i.network.name, i.size) for b in measurement.batches(chosen)[1:] for i in b.items]
    assert Counter((name, size) for _, name, size in items) == Counter((n.name, s) for n in chosen for s in n.sizes)
    batch_of = {(name, size): batch for batch, name, size in items}
    for network in chosen:
        for size in network.sizes:
            assert not network.plain or batch_of[network.name, size] == batch_of[network.plain, size]


def test_every_csp_network_of_the_zoo_with_a_plain_twin_is_part_of_the_study() -> None:
    from cspprof.zoo import catalog

    plain_of = {n.name: n.plain for n in networks()}
    for name in catalog():
        twin = catalog().get(name).twin
        assert not twin or plain_of[name] == twin


class FakeRun:
    """A run whose reference network takes the next of these times."""

    times: ClassVar[list[float]] = []
    ran: ClassVar[list[str]] = []

    def __init__(self, batch: measurement.Batch, rounds: int) -> None:
        self.batch = batch

    def run(self) -> dict[str, Any]:
        self.ran.append(self.batch.name)
        return {"times": [["torch", measurement.REFERENCE.name, 160, self.times.pop(0)]]}


@pytest.fixture
def todo(monkeypatch: pytest.MonkeyPatch) -> list[measurement.Batch]:
    monkeypatch.setattr(measurement, "BatchRun", FakeRun)
    monkeypatch.setattr(FakeRun, "ran", [])
    return [measurement.Batch("a"), measurement.Batch("b"), measurement.Batch("c")]


def test_a_run_continues_after_the_finished_batches(todo: list[measurement.Batch], tmp_path: Path) -> None:
    FakeRun.times = [1.0, 1.0]
    (tmp_path / "b.json").write_text('{"times": []}')
    assert not measurement.measure(todo, tmp_path, seconds=-1)
    assert FakeRun.ran == []
    assert measurement.measure(todo, tmp_path, seconds=60)
    assert FakeRun.ran == ["a", "c"]
    assert measurement.measure(todo, tmp_path, seconds=-1)  # nothing is left


def test_disturbed_batches_are_measured_again_and_the_better_run_is_kept(
    todo: list[measurement.Batch], tmp_path: Path
) -> None:
    FakeRun.times = [1.2, 1.0, 1.3, 1.25, 1.25]  # a, b, c; then again c, which becomes better, and a, which does not
    assert measurement.measure(todo, tmp_path, seconds=60)
    assert FakeRun.ran == ["a", "b", "c", "c", "a"]
    kept = [json.loads((tmp_path / f"{b.name}.json").read_text())["times"][0][3] for b in todo]
    assert kept == [1.2, 1.0, 1.25]


def test_json_has_one_line_for_each_measurement(tmp_path: Path) -> None:
    document = {"rounds": 3, "times": [["torch", "a", 1.5], ["torch", "b", None]]}
    study.write_json(tmp_path / "x.json", document)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == document
    assert '["torch","a",1.5],\n["torch","b",null]\n' in text


# -- scores -------------------------------------------------------------------------------------------


def test_a_prediction_uses_no_network_of_the_same_family() -> None:
    """Two families with other rates: each is predicted by the rate of the other one."""
    samples = [
        Sample(f"{f}{n}", f, n * rate, {"macs": float(n)}) for f, rate in (("a", 1.0), ("b", 3.0)) for n in (1, 2)
    ]
    assert predictions(samples) == pytest.approx({"a1": 3, "a2": 6, "b1": 1, "b2": 2})


def test_scores_by_hand() -> None:
    s = score({"a": 1.0, "b": 4.0, "c": 4.0}, {"a": 1.0, "b": 2.0, "c": 4.0, "without prediction": 9.0})
    assert (s.n, s.mean_error, s.median_error, s.worst, s.worst_ratio) == (3, 1 / 3, 0, "b", 2)
    assert s.spearman == pytest.approx(math.sqrt(0.75))
    assert s.r2 == pytest.approx(1 - 1 / 2)  # one residual of log 2; deviations −log 2, 0, log 2


def row(name: str, ms: float, macs: float = 100, cio: float = 100, plain: str = "") -> results.Row:
    counts = dict.fromkeys(("cio_hardnet", "cio_cspnet", "traffic_bytes", "cache_2mib", "kernels"), cio)
    return {"name": name, "size": 160, "source": "zoo", "plain": plain, "torch_ms": ms, "macs": macs, **counts}


def test_a_pair_differs_beyond_the_smallest_difference() -> None:
    table = [row("a", 10), *(row(f"csp{ms}", ms, plain="a") for ms in (8, 9.5, 10.5, 12))]

    def verdicts(least: float) -> list[str]:
        least_by = {(r["name"], r["size"]): least for r in table}
        return [p["verdict"] for p in results.pairs(table, "torch", least_by)]

    assert verdicts(0.08) == ["faster", "no difference", "no difference", "slower"]
    assert verdicts(0.0) == ["faster", "faster", "slower", "slower"]


def test_the_smallest_difference_is_the_slowdown_of_the_reference_network_in_the_batch() -> None:
    def batch(torch_ms: float, opencv_ms: float, name: str) -> dict[str, Any]:
        reference = measurement.REFERENCE.name
        times = [["torch", reference, 160, torch_ms], ["opencv", reference, 160, opencv_ms], ["torch", name, 160, 1.0]]
        facts = {"date": "", "rounds": 1, "machine": {}, "versions": {}, "engines": {}, "other_cpu_share": 0.0}
        return {**facts, "no_counters": "", "accesses": [], "failures": [], "times": times}

    measured = measurement.merged({"01": batch(10.0, 6.0, "a"), "02": batch(12.0, 5.0, "b")})
    assert measured["slowdowns"] == {"01": {"torch": 0.0, "opencv": 0.2}, "02": {"torch": 0.2, "opencv": 0.0}}
    assert results.least_differences(measured, "torch") == {("a", 160): measurement.DISTURBED, ("b", 160): 0.2}


def test_concordance_counts_couples_of_equal_macs_and_other_cio() -> None:
    table = [row("a", 10, 100, 100), row("b", 9, 105, 50), row("c", 12, 100, 60), row("d", 1, 200, 1)]
    # a–b agrees, a–c does not, b–c agrees; d has other MACs
    assert results.concordance(table, "torch", "cio_cspnet") == (2, 3)


def test_every_predictor_uses_columns_of_the_table(table: list[results.Row]) -> None:
    columns = {c for p in PREDICTORS for c in p.columns} - {"roofline"}
    assert columns <= set(table[0])


# -- traffic to memory --------------------------------------------------------------------------------


def test_a_cache_replaces_the_least_recently_used_tile_and_writes_back_what_was_written() -> None:
    cache = dram.Cache(100)
    cache.read((0, 0), 40)  # fetched: 40
    cache.write((1, 0), 40)  # not fetched
    cache.read((0, 0), 40)  # present
    assert cache.traffic == 40
    cache.read((0, 1), 40)  # fetched; the written tile is the least recently used one, and is written back
    assert cache.traffic == 40 + 40 + 40
    cache.read((0, 0), 40)  # still present
    assert cache.traffic == 120
    cache.drop(0)
    cache.read((0, 0), 10)
    cache.read((0, 0), 40)  # the other 30
    assert cache.traffic == 160


def test_behind_an_infinite_cache_input_weights_and_output_move_once() -> None:
    record = profile_spec("resnet18")
    once = 4 * (3 * 224 * 224 + 1000) + sum(s.spec.nbytes for s in record.storages if s.role == "parameter")
    norms = sum(s.weights[i].nbytes * n for s, n in record.spec_counts if s.kind is Kind.NORM for i in (0, 1))
    assert dram.cache_traffic(record, 2**40) == once - norms  # norms are folded into the convolutions


def test_without_a_cache_each_window_is_fetched_again() -> None:
    record = profile_spec("resnet18")
    traffic = [dram.cache_traffic(record, 2**k) for k in (14, 18, 21, 24)]
    assert traffic == sorted(traffic, reverse=True)
    assert traffic[0] > 4 * (value_of(record, "cio_hardnet") or 0)


def test_convolutions_for_zigzag_have_the_cio_of_the_record() -> None:
    for name in ("resnext50", "mobilenet_v2", "csp_peleenet"):
        record = profile_spec(name)
        assert sum(conv.cio for conv in dram.convolutions(record)) == value_of(record, "cio_hardnet")


def test_accesses_by_zigzag_are_at_least_one_for_each_element(measured: dict[str, Any]) -> None:
    found = dram.zigzag_access_of(measured["zigzag"])
    assert len(found) > 200
    for conv, accesses in found.items():
        weights = conv.groups * conv.c * conv.k * conv.kernel[0] * conv.kernel[1]
        for access in accesses.values():
            assert access.weights > 0.9 * weights  # ZigZag divides unevenly
            assert access.maps >= conv.groups * conv.k * conv.out_height * conv.out_width


def test_counters_count_what_a_running_process_does() -> None:
    """Page faults, which virtual machines count too: 40 MB of new memory for each request."""
    events = ("page-faults",)
    if counters.why_unavailable(events):
        pytest.skip(counters.why_unavailable(events))
    program = "for line in __import__('sys').stdin: bytearray(4096 * 10_000); print(flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:

        def work() -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdout.readline()

        work()
        assert counters.counted(process.pid, lambda: None, events) == 0
        assert counters.counted(process.pid, work, events) > 0
    assert "no-such-event" in counters.why_unavailable(("no-such-event",))


@pytest.mark.slow
def test_a_network_is_measured_end_to_end() -> None:
    """One small network on one engine, with the reference network."""
    item = measurement.Item(Network("n", "squeezenet", "s"), 64, ("onnxruntime",))
    document = measurement.BatchRun(measurement.Batch("x", [item]), rounds=1).run()
    assert [row[:3] for row in document["times"]] == [
        ["onnxruntime", "reference: resnet18", 160], ["onnxruntime", "n", 64],
    ]  # fmt: skip
    assert document["failures"] == []
    assert all(0 < fastest <= median for _, _, _, fastest, median, *_ in document["times"])
    merged = measurement.merged({"01": document, "02": document})
    assert [(row[1], row[-1]) for row in merged["times"]] == [("n", "01"), ("n", "02")]
    assert merged["slowdowns"] == {"01": {"onnxruntime": 0.0}, "02": {"onnxruntime": 0.0}}
