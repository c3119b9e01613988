"""Design spaces: the candidates, their rows, the journal, the processes and the front."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import CHECKOUT, quick
from torch import nn

import cspprof
from cspprof.analysis.constraints import parse_constraints
from cspprof.analysis.pareto import pareto_optimal
from cspprof.core.errors import CspprofError
from cspprof.sweeps import versions
from cspprof.sweeps.candidate import Row, trace_candidate
from cspprof.sweeps.child import Child, Limits
from cspprof.sweeps.export import export_rows
from cspprof.sweeps.front import Objective, front
from cspprof.sweeps.journal import JournalError, SqliteJournal, TextJournal, open_journal
from cspprof.sweeps.space import Space, expand_models, parse_grid, parse_sizes, parse_values, take

# -- the space -------------------------------------------------------------------------------------


def test_the_last_axis_varies_fastest_and_each_combination_occurs_once() -> None:
    space = Space(["a", "b"], parse_grid(["gamma=0.25:0.75:0.25", "fusion=csp,last"]))
    assert len(space) == 2 * 3 * 2
    assert [c.spec for c in space][:3] == [
        "a,gamma=0.25,fusion=csp",
        "a,gamma=0.25,fusion=last",
        "a,gamma=0.5,fusion=csp",
    ]
    assert len({c.spec for c in space}) == 12
    assert [c.position for c in space] == list(range(12))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1:4", [1, 2, 3, 4]),
        ("0.25:0.75:0.125", [0.25, 0.375, 0.5, 0.625, 0.75]),
        ("0.1:0.3:0.1", [0.1, 0.2, 0.3]),
        ("csp,first,csp", ["csp", "first"]),
        ("(3,4),(5,6)", [(3, 4), (5, 6)]),
        ("4:1:-1", [4, 3, 2, 1]),
        ("True,None", [True, None]),
    ],
)  # fmt: skip
def test_values_of_an_axis(text: str, values: list[Any]) -> None:
    assert parse_values(text, "--grid x") == values


@pytest.mark.parametrize("text", ["1:4:0", "4:1", "0:1:1e-9", "a:b", ",", "1:inf"])
def test_values_that_are_refused(text: str) -> None:
    with pytest.raises(CspprofError):
        parse_values(text, "--grid x")


def test_sizes() -> None:
    assert parse_sizes("224,256x320") == [(224, 224), (256, 320)]
    assert parse_sizes("192:256:32") == [(192, 192), (224, 224), (256, 256)]
    for text in ("0", "2x3x4", "x", "1.5"):
        with pytest.raises(CspprofError):
            parse_sizes(text)


def test_shards_are_disjoint_and_together_the_space() -> None:
    axes = parse_grid(["a=1:7", "b=1:5"])
    shards = [list(Space(["m"], axes, shard=(i, 3))) for i in (1, 2, 3)]
    assert sorted(c.position for shard in shards for c in shard) == list(range(35))


def test_a_sample_is_the_same_for_the_same_seed_and_in_order() -> None:
    axes = parse_grid(["a=1:100", "b=1:100"])
    first, again, other = (list(Space(["m"], axes, sample=50, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert len({c.spec for c in first}) == 50
    assert [c.position for c in first] == sorted(c.position for c in first)


def test_too_large_spaces_are_refused_unless_sampled() -> None:
    axes = parse_grid([f"{name}=1:1000" for name in "abc"])
    with pytest.raises(CspprofError, match="1,000,000,000 candidates"):
        Space(["m"], axes)
    assert len(Space(["m"], axes, sample=10)) == 10


def test_an_endless_generator_is_refused_unless_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(take(itertools.count(), 3)) == [0, 1, 2]
    monkeypatch.setattr("cspprof.sweeps.space.MOST_ITEMS", 10)
    with pytest.raises(CspprofError, match="more than 10 items"):
        list(take(itertools.count(), None))


def test_globs_name_the_models_of_libraries() -> None:
    assert expand_models(["timm:resnet50*,num_classes=3"])[0] == "timm:resnet50,num_classes=3"
    assert {"csp_resnext50", "csp_darknet53"} <= set(expand_models(["csp_*"]))
    with pytest.raises(CspprofError, match="no model matches"):
        expand_models(["timm:nothing_like_this*"])


# -- constraints and the front ---------------------------------------------------------------------


def test_constraints() -> None:
    first, second = parse_constraints(["macs<=2 G and top1 > 3M"], ["top1"])
    assert (first.excess_of(2_000_000_000), first.excess_of(3_000_000_000)) == (0, 0.5)
    assert second.excess_of(3_000_001) == 0 < second.excess_of(3_000_000) < 1e-9
    assert first.excess_of(None) == float("inf")
    with pytest.raises(CspprofError, match="cannot read the constraint 'macs'"):
        parse_constraints(["macs"])


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_the_front_is_that_of_the_definition(width: int) -> None:
    choose = random.Random(width)
    points = [tuple(choose.randint(0, 12) for _ in range(width)) for _ in range(400)]
    maximized = [bool(choose.randint(0, 1)) for _ in range(width)]

    def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        gains = [(p - q) if m else (q - p) for p, q, m in zip(a, b, maximized, strict=True)]
        return min(gains) >= 0 and max(gains) > 0

    assert pareto_optimal(points, maximized) == [
        i for i, point in enumerate(points) if not any(dominates(other, point) for other in points)
    ]


def row(position: int, status: str = "ok", error: str = "", at_least: tuple[str, ...] = (), **values: float) -> Row:
    return Row(position.to_bytes(16), position, f"m{position}", {"a": position}, "1x3x8x8", status, values, at_least,
               error, 0.5, "cspprof 1")  # fmt: skip


def test_rows_without_numbers_take_no_part_in_the_front() -> None:
    rows = [
        row(0, macs=4, params=4), row(1, macs=2, params=8), row(2, macs=8, params=8), row(3, "failed", "no"),
        row(4, macs=1), row(5, at_least=("macs",), macs=1, params=1), row(6, macs=100, params=1),
    ]  # fmt: skip
    best = front(lambda: iter(rows), [Objective("macs", False), Objective("params", False)],
                 parse_constraints(["macs<50"]))  # fmt: skip
    assert [r.position for r in best.optimal] == [1, 0]
    assert [p.label for p in best.dominated] == ["m2 a=2"]
    assert (best.count, best.unmet, best.unknown, dict(best.failures)) == (7, 2, 1, {("failed", "no"): 1})


def test_if_no_row_meets_the_constraints_the_nearest_is_named() -> None:
    rows = [row(0, macs=400), row(1, macs=60), row(2, macs=80)]
    best = front(lambda: iter(rows), [Objective("macs", False)], parse_constraints(["macs<=50"]))
    assert best.nearest is not None
    assert best.nearest.position == 1


# -- the journal -----------------------------------------------------------------------------------


def test_a_front_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = random.Random(1)
    rows = [row(i, macs=choose.randint(0, 99), params=choose.randint(0, 99)) for i in range(500)]
    objectives = [Objective("macs", False), Objective("params", True)]
    whole = front(lambda: iter(rows), objectives, [])
    monkeypatch.setattr("cspprof.sweeps.front.PIECE", 7)
    monkeypatch.setattr("cspprof.sweeps.front.MOST_POINTS", 100)
    pieces = front(lambda: iter(rows), objectives, [])
    assert pieces.optimal == whole.optimal
    assert 50 - len(whole.optimal) < len(pieces.dominated) <= 100 < len(whole.dominated)


@pytest.fixture(params=[SqliteJournal, TextJournal])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_rows_come_back_as_they_were_written_and_only_once(kind: Any, tmp_path: Path) -> None:
    journal = kind(tmp_path / "j")
    rows = [row(2, macs=2**70, moc=1.5), row(1, "failed", "no\nhint"), row(0, macs=3, at_least=("macs",))]
    journal.add(rows)
    journal.add([row(0, macs=99)])
    journal.close()
    again = kind(tmp_path / "j")
    assert list(again.rows()) == sorted(rows, key=lambda r: r.position)
    assert again.missing([rows[0].key, b"x" * 16]) == {b"x" * 16}


def test_a_row_without_numbers_is_replaced_and_one_with_numbers_is_not(kind: Any, tmp_path: Path) -> None:
    journal = kind(tmp_path / "j")
    journal.add([row(0, macs=1), row(1, "failed", "no"), row(2, "timeout", "slow")])
    keys = [row(i).key for i in range(4)]
    assert journal.missing(keys) == {keys[3]}
    assert journal.missing(keys, ["failed", "memory"]) == {keys[1], keys[3]}
    again = kind(tmp_path / "j")
    again.add([row(0, "failed", "no"), row(1, macs=2), row(2, "timeout", "slower")])
    assert list(kind(tmp_path / "j").rows()) == [row(0, macs=1), row(1, macs=2), row(2, "timeout", "slower")]
    assert again.missing(keys, ["failed", "timeout"]) == {keys[2], keys[3]}


def test_two_sweeps_may_write_one_journal(kind: Any, tmp_path: Path) -> None:
    journals = [kind(tmp_path / "j") for _ in range(2)]
    for i in range(20):
        journals[i % 2].add([row(i, macs=i), row(i // 2, macs=i // 2)])
    assert [r.position for r in kind(tmp_path / "j").rows()] == list(range(20))


def test_a_torn_line_of_a_text_journal_is_ignored(tmp_path: Path) -> None:
    journal = TextJournal(tmp_path / "j")
    journal.add([row(i, macs=i) for i in range(3)])
    part = next((tmp_path / "j").glob("*.jsonl"))
    whole = part.read_bytes()
    for cut in range(1, len(whole) // 3, 7):
        part.write_bytes(whole[:-cut])
        assert [r.position for r in TextJournal(tmp_path / "j").rows()] == [0, 1]
    part.write_bytes(whole.replace(b"m2", b"m9"))
    assert len(list(TextJournal(tmp_path / "j").rows())) == 2


def test_a_journal_of_a_later_version_and_another_file_are_refused(tmp_path: Path) -> None:
    SqliteJournal(tmp_path / "later").close()
    with sqlite3.connect(tmp_path / "later") as database:
        database.execute("PRAGMA user_version = 99")
    (tmp_path / "text").write_text("hello, this is no journal" * 100)
    with sqlite3.connect(tmp_path / "other") as database:
        database.execute("CREATE TABLE mine (x)")
    for name, message in [("later", "later version"), ("text", "cannot open"), ("other", "no journal of cspprof")]:
        with pytest.raises(JournalError, match=message):
            open_journal(tmp_path / name)


def test_a_network_file_system_gets_a_journal_of_text_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cspprof.sweeps.journal.file_system", lambda path: "nfs4")
    assert isinstance(open_journal(tmp_path / "j"), TextJournal)


# -- one candidate ---------------------------------------------------------------------------------

VERSIONS = "cspprof 1"


def candidate(spec: str, **axes: Any) -> Any:
    return next(iter(Space([spec], axes)))


def test_the_numbers_of_a_candidate_are_those_of_a_profile() -> None:
    made = trace_candidate(candidate("csp_peleenet", fusion=["last"], size=[(192, 192)]), VERSIONS)
    profile = cspprof.profile("csp_peleenet,fusion=last", (1, 3, 192, 192))
    assert (made.status, made.input) == ("ok", "1x3x192x192")
    assert made.values["macs"] == profile.total("macs")
    assert made.values["cio_cspnet"] == profile.total("cio_cspnet")


def test_an_axis_of_the_conversion_converts_the_network() -> None:
    made = trace_candidate(candidate("densenet121", **{"convert.gamma": [0.5]}), VERSIONS)
    assert made.values["macs"] == cspprof.profile("csp_densenet121").total("macs")
    refused = trace_candidate(candidate("darknet_ref", **{"convert.gamma": [0.5]}), VERSIONS)
    assert refused.status == "refused"
    assert "no stage can be converted" in refused.error


def test_a_device_of_the_space_is_that_of_its_traces() -> None:
    made = trace_candidate(next(iter(Space(["resnet10"], {"size": [(32, 32)]}, device="cpu"))), VERSIONS)
    assert made.values["macs"] == cspprof.profile("resnet10", (1, 3, 32, 32)).total("macs")


def test_published_accuracies_are_numbers_of_the_zoo() -> None:
    assert trace_candidate(candidate("csp_resnext50"), VERSIONS).values["top1"] == 77.9


# -- processes -------------------------------------------------------------------------------------

ODD = """
import os, signal, sys, time
from torch import empty, nn

class Net(nn.Module):
    example_input_shape = (1, 3, 8, 8)

    def __init__(self, mode="fine", width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        if mode == "sleep":
            time.sleep(1000)
        if mode == "leave":
            os._exit(3)
        if mode == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if mode == "memory":
            self.big = empty(2**34, device="cpu").fill_(1)
        if mode == "raise":
            raise ValueError("no such mode")
        if mode == "exit":
            sys.exit(0)
        if mode == "print":
            print("noise on standard output")

    def forward(self, x):
        return self.conv(x)
"""

STATUSES = {
    "print": "ok", "sleep": "timeout", "leave": "crashed", "segfault": "crashed", "raise": "failed", "exit": "failed",
    **({"memory": "memory"} if sys.platform == "linux" else {}), "fine": "ok",
}  # fmt: skip


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `odd.py`, which is the current one."""
    (tmp_path / "odd.py").write_text(ODD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_candidate_that_hangs_or_ends_its_process_harms_no_other_one(odd: Path) -> None:
    child = Child(Limits(5, 4 * 2**30))
    try:
        rows = [child.run(c, VERSIONS) for c in Space(["odd.py:Net"], {"mode": list(STATUSES)})]
    finally:
        child.close()
    assert {r.axes["mode"]: r.status for r in rows} == STATUSES
    assert [r.values["macs"] for r in rows if r.status == "ok"] == [27 * 36 * 4] * 2
    assert "5 s" in next(r.error for r in rows if r.status == "timeout")


def sweep(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cspprof", "sweep", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out.decode(), err.decode()


def numbers(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, without the fields that differ between two runs."""
    with path.open() as file:
        return [{k: v for k, v in r.items() if k not in ("seconds", "origin")} for r in csv.DictReader(file)]


SLOW_GRID = ("odd.py:Net", "--grid", "width=1:24", "--workers", "2", "--journal", "j.sweep", "-o", "rows.csv")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The rows of a sweep that nothing kills."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "odd.py").write_text(SLOW_ODD)
    assert finish(sweep(folder, *SLOW_GRID))[0] == 0
    return numbers(folder / "rows.csv")


SLOW_ODD = ODD.replace("super().__init__()", "super().__init__(); time.sleep(0.1)")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["parent", "child", "ctrl-c"])
def test_a_sweep_that_is_killed_goes_on_where_it_was(odd: Path, target: str, undisturbed: list[dict[str, str]]) -> None:
    """The rows equal those of an undisturbed run, and no candidate is traced twice."""
    (odd / "odd.py").write_text(SLOW_ODD)
    choose = random.Random(target)
    for longest in (2, 5, 8):
        process = sweep(odd, *SLOW_GRID)
        time.sleep(choose.uniform(0.5, longest))
        if process.poll() is None:
            victims = children(process.pid) if target == "child" else []
            for victim in victims[:1] if target == "child" else [process.pid]:
                os.kill(victim, signal.SIGINT if target == "ctrl-c" else signal.SIGKILL)
        code, _, err = finish(process)
        if target == "ctrl-c" and code:
            assert (code, err.splitlines()[-1]) == (130, "interrupted")
    before = (odd / "j.sweep").exists() and [r.key for r in open_journal(odd / "j.sweep").rows()]
    code, _, err = finish(sweep(odd, *SLOW_GRID))
    assert code == 0, err
    assert numbers(odd / "rows.csv") == undisturbed
    with (odd / "rows.csv").open() as file:
        origins = [r["origin"] for r in csv.DictReader(file)]
    assert origins.count("remembered") == len(before or [])


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


@pytest.mark.slow
def test_files_of_the_current_folder_hide_no_module_of_a_process(odd: Path) -> None:
    for name in ("random", "json", "pydantic", "cspprof"):
        (odd / f"{name}.py").write_text("raise SystemExit('imported from the current folder')")
    child = Child(Limits())
    try:
        assert child.run(candidate("odd.py:Net"), VERSIONS).status == "ok"
    finally:
        child.close()


@pytest.mark.slow
def test_no_process_stays_after_a_sweep_or_its_end(odd: Path) -> None:
    for sent in (None, signal.SIGKILL, signal.SIGINT):
        process = sweep(odd, "odd.py:Net", "--grid", "width=1:4000", "--workers", "2", "--journal", f"{sent}.sweep")
        while len(found := children(process.pid)) < 2 and process.poll() is None:
            time.sleep(0.05)
        os.kill(process.pid, sent or signal.SIGTERM)
        finish(process)
        end = time.monotonic() + 60
        while any(Path(f"/proc/{pid}").exists() for pid in found) and time.monotonic() < end:
            time.sleep(0.1)
        assert not any(Path(f"/proc/{pid}").exists() for pid in found)


# -- the command -----------------------------------------------------------------------------------


Run = Callable[..., Any]
GRID = ("csp_peleenet", "--grid", "gamma=0.25:0.75:0.25", "--grid", "fusion=csp,last")


@pytest.mark.usefixtures("in_this_process")
def test_the_front_of_a_space(run: Run) -> None:
    result = run("sweep", *GRID, "--minimize", "macs", "--maximize", "top1", "--format", "json")
    document = json.loads(result.out)
    jsonschema.validate(document, json.loads((CHECKOUT / "cspprof/schemas/sweep-1.schema.json").read_text()))
    assert document["candidates"] == 6
    assert [r["axes"] for r in document["front"]] == [
        {"gamma": 0.5, "fusion": "last"}, {"gamma": 0.5, "fusion": "csp"}, {"gamma": 0.25, "fusion": "csp"},
    ]  # fmt: skip
    assert [r["accuracy"]["top1"] for r in document["front"]] == [70.6, 70.9, 71.5]
    assert "2 candidates not shown: an objective is unknown." in result.err
    again = run("sweep", *GRID, "--minimize", "macs", "--maximize", "top1", "--format", "json")
    assert "6 candidates: 0 traced, 6 remembered." in again.err
    assert json.loads(again.out) | {"traced": 6} == document


@pytest.mark.usefixtures("in_this_process")
def test_all_rows_as_csv_and_parquet(run: Run) -> None:
    import pandas

    got = run("sweep", *GRID, "--size", "64,96", "-o", "rows.csv", "-o", "rows.parquet", "-o", "front.png", "-o", "-")
    assert got.code == 0
    assert "wrote rows.csv\n" in got.err
    assert "wrote front.png and front.csv\n" in got.err
    assert (got.out + got.err).count("note: 12 candidates: 12 traced") == 1
    assert got.out.startswith("Pareto-optimal")
    assert not Path("-").exists()
    rows, frame = numbers(Path("rows.csv")), pandas.read_parquet("rows.parquet")
    assert len(rows) == len(frame) == 12
    assert [r["size"] for r in rows[:2]] == ["64x64", "96x96"]
    assert [int(r["macs"]) for r in rows] == frame["macs"].tolist()
    assert str(frame["macs"].dtype) == "int64"


def test_two_outputs_in_one_file_are_refused_before_the_sweep(run: Run) -> None:
    got = run("sweep", *GRID, "-o", "front.png", "-o", "front.csv")
    assert (got.code, got.out) == (2, "")
    assert "two options -o write front.csv" in got.err
    assert not list(Path().glob("front.*"))


def test_each_column_of_parquet_holds_the_values_of_all_pieces_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    monkeypatch.setattr("cspprof.sweeps.export.PIECE", 2)
    values: dict[str, list[Any]] = {"macs": [1, 2, 2**70, 3, 4], "moc": [1, 2, 3, 4, 0.5], "top1": [None] * 4 + [70.5]}
    axes: dict[str, list[Any]] = {
        "gamma": [1, 2, 3, 4, 0.25],
        "error": ["a", "b", "c", "d", 5],
        "n": [1, 2, 3, None, 4],
    }
    known = [{n: v[i] for n, v in values.items() if v[i] is not None} for i in range(5)]
    rows = [row(i, **known[i])._replace(axes={n: v[i] for n, v in axes.items()}) for i in range(5)]
    export_rows(lambda: iter(rows), list(axes), {rows[1].key}, tmp_path / "rows.parquet")
    table = parquet.read_table(tmp_path / "rows.parquet").to_pydict()
    assert {name: table[name] for name in values} == values
    assert [int(n) for n in table["macs"]] == values["macs"]
    assert (table["gamma"], table["axis_error"], table["n"]) == (axes["gamma"], list("abcd5"), axes["n"])
    assert table["origin"] == ["remembered", "traced", *["remembered"] * 3]
    assert table["params"] == [None] * 5


@pytest.mark.usefixtures("in_this_process")
def test_failed_candidates_run_again_if_retried(run: Run) -> None:
    Path("net.py").write_text(ODD.replace('mode == "raise"', 'mode == "raise" and not os.path.exists("flag")'))
    space = ("net.py:Net", "--grid", "mode=fine,raise", "--journal", "j.sweep", "--format", "csv")
    assert "1 candidate without numbers (failed)" in run("sweep", *space).err
    Path("flag").touch()
    for retry, traced in (("timeout,crashed", 0), ("failed", 1), ("all", 0)):
        assert f"2 candidates: {traced} traced" in run("sweep", *space, "--retry", retry).err
    assert "without numbers" not in run("sweep", *space).err


@pytest.mark.usefixtures("in_this_process")
def test_rows_of_changed_code_are_traced_again_and_hide_the_older_ones(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = ("resnet10", "--size", "32,64", "--journal", "j.sweep", "--format", "csv")
    assert "2 candidates: 2 traced" in run("sweep", *space).err
    monkeypatch.setattr("cspprof.sweeps.versions._code", lambda package: " (code changed)")
    assert "2 candidates: 2 traced" in run("sweep", *space).err
    assert "2 candidates: 0 traced" in run("sweep", *space).err
    every = run("sweep", "--journal", "j.sweep", "--format", "csv")
    assert "4 candidates: 0 traced" in every.err
    assert "2 rows of candidates that have another one" in every.err


def test_the_version_of_a_checkout_has_the_hash_of_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_package"
    package.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for code in ("a = 1", "a = 2", "a = 1"):
        (package / "__init__.py").write_text(code)
        versions._code.cache_clear()
        found.append(versions._code("some_package"))
    assert found[0] == found[2] != found[1]
    assert versions._code("timm") == ""
    assert "(code " in versions.versions_of(["resnet10"])


@pytest.mark.usefixtures("in_this_process")
def test_a_space_in_a_file(run: Run) -> None:
    Path("space.toml").write_text(
        'models = ["csp_peleenet"]\nsize = 64\nminimize = "params"\nwhere = "macs<=1 G"\n'
        '[grid]\ngamma = "0.25:0.75:0.25"\nfusion = ["csp", "last"]\n'
    )
    assert json.loads(run("sweep", "--space", "space.toml", "--format", "json").out)["candidates"] == 6
    Path("space.toml").write_text("models = ['a']\ngird = 1\n")
    result = run("sweep", "--space", "space.toml")
    assert (result.code, "gird" in result.err, "grid" in result.err) == (2, True, True)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("csp_peleenet", "--grid", "gama=0.5"), "unexpected keyword argument 'gama'", "gamma=0.5"),
        (("csp_pelenet",), "no model named", "csp_peleenet"),
        (("csp_peleenet", "--grid", "convert.gama=0.5"), "no option gama", "gamma"),
        (("csp_peleenet", "--where", "mac<=3"), "no metric named 'mac'", "macs"),
        (("csp_peleenet", "--minimize", "mac"), "no metric named 'mac'", "macs"),
        (("csp_peleenet", "--shard", "5/4"), "no shard 5 of 4", "1/4"),
        (("csp_peleenet", "--shard", "x"), "cannot read --shard", "1/4"),
        (("csp_peleenet", "--grid", "gamma=0:1:0"), "never ends", "step above 0"),
        (("csp_peleenet", "--scheduler", "tcp://127.0.0.1:9"), "no Dask scheduler", "dask scheduler"),
        (("--journal", "nothing.sweep"), "there is no journal", "SPEC"),
        ((), "no model", "csp_peleenet"),
        (("csp_peleenet", "--search", "tpd"), "no sampler 'tpd'", "tpe"),
        (("csp_peleenet", "-o", "x.docx"), "x.docx", "."),
        (("a.onnx", "--size", "64"), "fixes its input", "--size"),
    ],
)  # fmt: skip
def test_wrong_input(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: Any, message: str, hint: str) -> None:
    monkeypatch.setattr("cspprof.sweeps.executors.CONNECT_SECONDS", 1)
    result = run("sweep", *arguments)
    error = result.err[result.err.index("error:") :]
    assert result.code == 2
    assert message in error.splitlines()[0]
    assert hint in error


@pytest.mark.usefixtures("in_this_process")
def test_a_journal_of_another_space_is_extended_only_if_asked(run: Run) -> None:
    assert run("sweep", "csp_peleenet", "--grid", "gamma=0.5", "--journal", "j.sweep").code == 0
    refused = run("sweep", "csp_peleenet", "--grid", "gamma=0.25", "--journal", "j.sweep")
    assert (refused.code, "--extend" in refused.err) == (2, True)
    assert run("sweep", "csp_peleenet", "--grid", "gamma=0.25", "--journal", "j.sweep", "--extend").code == 0
    assert json.loads(run("sweep", "--journal", "j.sweep", "--format", "json").out)["candidates"] == 2


@pytest.mark.usefixtures("in_this_process")
def test_shards_merge_into_the_whole(run: Run) -> None:
    assert run("sweep", *GRID, "--journal", "whole.sweep", "-o", "whole.csv").code == 0
    for i in (1, 2, 3):
        assert run("sweep", *GRID, "--shard", f"{i}/3", "--journal", f"{i}.sweep").code == 0
    merged = [word for i in (1, 2, 3) for word in ("--merge", f"{i}.sweep")]
    assert run("sweep", *merged, "--journal", "all.sweep", "-o", "all.csv").code == 0
    assert numbers(Path("all.csv")) == numbers(Path("whole.csv"))


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("sampler", quick(["tpe", "nsga2", "random", "gp"], 1))
def test_a_search_finds_most_of_the_front_and_traces_no_candidate_twice(run: Run, sampler: str) -> None:
    space = (*GRID, "--grid", "width=0.5,1.0", "--where", "params<=2.9 M", "--maximize", "moc", "--minimize", "macs")
    found = run("sweep", *space, "--search", sampler, "--trials", "60", "--journal", "s.sweep", "--format", "json")
    every = run("sweep", *space, "--journal", "all.sweep", "--format", "json")
    searched, whole = (json.loads(result.out) for result in (found, every))
    best = {row["model"] for row in whole["front"]}
    assert len(best & {row["model"] for row in searched["front"]}) >= len(best) / 2 > 0
    assert searched["candidates"] == searched["traced"] <= 12
    again = run("sweep", *space, "--search", sampler, "--trials", "5", "--journal", "s.sweep")
    assert "0 traced" in again.out or "1 traced" in again.out


@pytest.mark.usefixtures("in_this_process")
def test_a_search_ends_if_its_sampler_proposes_no_new_candidate(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    space = ("sweep", "resnet10", "--trials", "1000", "--format", "csv")
    for traced in (2, 0):
        found = run(*space, "--size", "32,64", "--search", "random", "--journal", "j.sweep")
        assert f"2 candidates: {traced} traced" in found.err
        assert "trials: every candidate was proposed." in found.err
    monkeypatch.setattr("cspprof.sweeps.search._candidate", lambda trial, space: next(iter(space)))
    for traced in (1, 0):
        found = run(*space, "--size", "32,64,96", "--search", "tpe", "--journal", "s.sweep")
        assert f"1 candidate: {traced} traced" in found.err
        assert "The search ended after 31 trials: tpe proposed no new candidate 30 times in a row." in found.err


def test_modules_of_a_generator_are_traced_one_after_another() -> None:
    class Odd(nn.Module):
        def forward(self, x: Any) -> Any:
            raise ValueError("no")

    modules = (nn.Conv2d(3, width, 1) if width < 3 else Odd() for width in itertools.count(1))
    result = cspprof.sweep(modules, (1, 3, 8, 8), sample=3, minimize=["macs"])
    assert [r.values.get("macs") for r in result.rows()] == [3 * 64, 6 * 64, None]
    assert [r.spec for r in result.front.optimal] == ["Conv2d 0"]
    assert result.to_pandas()["status"].tolist() == ["ok", "ok", "failed"]


# -- a Dask cluster --------------------------------------------------------------------------------


@pytest.fixture
def cluster(odd: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "5s")  # by default a client tries for 30 s
    cluster = Cluster(odd)
    try:
        yield cluster
    finally:
        cluster.close()


class Cluster:
    """A Dask scheduler and its workers, as processes of their own on the loopback interface."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.start_scheduler()

    def start_scheduler(self) -> None:
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", str(self.port))

    def start_worker(self) -> None:
        """Start a worker, and wait until the scheduler knows it."""
        known = self._registered()
        self.workers.append(self._start("worker", self.address, "--nthreads", "1", "--death-timeout", "120"))
        end = time.monotonic() + 120
        while self._registered() == known and time.monotonic() < end:
            time.sleep(0.1)

    def _registered(self) -> int:
        return (self.folder / "scheduler.log").read_text().count("Register worker")

    def _start(self, kind: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", kind, *arguments, "--no-dashboard"]
        with (self.folder / f"{kind}.log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()

    def sweep(self, *arguments: str) -> tuple[int, str, str]:
        return finish(sweep(self.folder, *arguments, "--scheduler", self.address))


@pytest.mark.slow
def test_a_cluster_gives_the_rows_of_this_machine_although_workers_die(cluster: Cluster) -> None:
    ends = "super().__init__(); time.sleep(0.1); width == 7 and os._exit(3)"
    (cluster.folder / "odd.py").write_text(ODD.replace("super().__init__()", ends))
    grid = ("odd.py:Net", "--grid", "width=1:30")
    cluster.start_worker()
    cluster.start_worker()
    process = sweep(cluster.folder, *grid, "--scheduler", cluster.address, "--journal", "j.sweep", "-o", "rows.csv")
    while process.poll() is None and not rows_in(cluster.folder / "j.sweep"):
        time.sleep(0.2)
    cluster.workers[0].kill()
    cluster.start_worker()
    code, _, err = finish(process)
    assert code == 0, err
    rows = numbers(cluster.folder / "rows.csv")
    assert [r["status"] for r in rows] == ["crashed" if width == 7 else "ok" for width in range(1, 31)]
    assert [r["macs"] for r in rows] == ["" if width == 7 else str(27 * 36 * width) for width in range(1, 31)]


@pytest.mark.slow
def test_a_sweep_whose_scheduler_dies_says_so_and_goes_on_with_a_new_one(cluster: Cluster) -> None:
    (cluster.folder / "odd.py").write_text(ODD.replace("super().__init__()", "super().__init__(); time.sleep(0.2)"))
    grid = ("odd.py:Net", "--grid", "width=1:20", "--journal", "j.sweep", "-o", "rows.csv")
    cluster.start_worker()
    process = sweep(cluster.folder, *grid, "--scheduler", cluster.address)
    while process.poll() is None and not rows_in(cluster.folder / "j.sweep"):
        time.sleep(0.2)
    cluster.scheduler.kill()
    cluster.scheduler.wait()
    code, _, err = finish(process)
    assert code == 2
    assert "the scheduler has gone" in err
    assert "run the same command" in err
    found = rows_in(cluster.folder / "j.sweep")
    assert 0 < found < 20
    cluster.start_scheduler()
    cluster.start_worker()
    assert cluster.sweep(*grid)[0] == 0
    with (cluster.folder / "rows.csv").open() as file:
        assert [r["origin"] for r in csv.DictReader(file)].count("remembered") == found


def rows_in(path: Path) -> int:
    """The number of rows that are written."""
    if not path.exists():
        return 0
    with contextlib.suppress(JournalError):
        journal = open_journal(path)
        try:
            return sum(1 for _ in journal.rows())
        finally:
            journal.close()
    return 0


@pytest.mark.slow
def test_a_worker_with_other_versions_is_refused(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.start_worker()
    elsewhere = cluster.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "odd.py").write_text(ODD + "# another version")
    code, _, err = finish(sweep(elsewhere, "odd.py:Net", "--scheduler", cluster.address))
    assert code == 2
    assert "has other packages" in err


@pytest.mark.slow
def test_a_scheduler_without_workers_is_named(cluster: Cluster, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cspprof.sweeps.executors.CONNECT_SECONDS", 2)
    done = run("sweep", "odd.py:Net", "--scheduler", cluster.address)
    assert (done.code, "has no worker" in done.err) == (2, True)
