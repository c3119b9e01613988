"""The fuzzer of `benchmarks/`: it changes inputs in repeatable ways, and finds readers that fail."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import onnx
import pytest
from onnx_models import graph_of, node, value

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MODULES = ("fuzz", "fuzz_formats", "fuzz_mutations", "fuzz_worker")


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield import_module("fuzz")
    for name in MODULES:
        sys.modules.pop(name, None)


BROKEN = """
import fuzz_formats, fuzz_worker
from cspprof.core.errors import CspprofError

def read(text):
    if "x" in text:
        raise IndexError("list index out of range")
    if "y" in text:
        while True:
            pass
    if "z" in text:
        import os
        os.abort()
    if "m" in text:
        bytearray(2 << 30)
    if "h" in text:
        raise CspprofError("no hint")
    if "r" in text:
        raise CspprofError("refused", "Write a.")

fuzz_formats.FORMATS["quantity"] = fuzz_formats.FORMATS["quantity"]._replace(read=read)
fuzz_worker.SECONDS = 0.5
fuzz_worker.main()
"""
"""A worker with a reader that fails in each way."""


def test_each_way_to_fail_is_a_finding(fuzz: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_worker.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    started: Callable[..., Any] = fuzz.ChildProcess
    monkeypatch.setattr(fuzz, "ChildProcess", lambda module, **options: started("broken_worker", **options))
    reader = fuzz.Reader("quantity", [b"a"])
    found = {text: reader.outcome(text.encode()) for text in ("a", "r", "x", "h", "m", "y", "z", "a2")}
    small = fuzz.minimized(reader, b"aaaa x aaaa", found["x"])
    reader.close()
    assert [found[text]["outcome"] for text in ("a", "r", "a2")] == ["value", "refused", "value"]
    kinds = [found[text]["kind"] for text in ("x", "h", "m", "y", "z")]
    assert kinds == ["IndexError", "error without message or hint", "MemoryError", "hang", "crash"]
    assert small == b"x"


def test_the_same_seed_gives_the_same_inputs(fuzz: Any) -> None:
    formats = import_module("fuzz_formats").FORMATS
    for name in ("cfg", "onnx", "config", "spec", "grid"):
        seeds = formats[name].seeds()
        first, again = (list(islice(fuzz.mutants(name, seeds, 7), 60)) for _ in range(2))
        assert first == again
        assert first[: len(seeds)] == seeds
        assert len(set(first)) > 40
        assert set(islice(fuzz.mutants(name, seeds, 8), 60)) != set(first)


def test_an_archive_that_is_damaged_is_tried_as_it_is(fuzz: Any) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.json", "[1, 2]")
    whole = buffer.getvalue()
    sizes = whole.rindex(b"PK\x01\x02") + 20  # of the entry in the directory of the archive, compressed and not
    damaged = whole[:sizes] + b"\xff\xff\0\0" * 2 + whole[sizes + 8 :]
    with zipfile.ZipFile(io.BytesIO(damaged)) as archive, pytest.raises(EOFError):
        archive.read("a.json")
    tried = list(islice(fuzz.mutants("pt2", [damaged], 7), 60))
    assert tried.count(damaged) > 20


def test_documents_are_changed_at_every_depth(fuzz: Any) -> None:
    mutations = import_module("fuzz_mutations")
    changed = [{"a": [1, "x", {"b": 2.5}], "c": None} for _ in range(200)]
    for i, document in enumerate(changed):
        mutations.mutate_document(Random(i), document)
    original = {"a": [1, "x", {"b": 2.5}], "c": None}
    assert sum(d != original for d in changed) > 150
    for change in (
        lambda d: "a" not in d,
        lambda d: d.get("c") is not None,
        lambda d: isinstance(d.get("a"), list) and d["a"][1:] == original["a"][1:] and d["a"] != original["a"],
        lambda d: isinstance(d.get("a"), list) and d["a"][:2] == [1, "x"] and d["a"][2:] != original["a"][2:],
    ):
        assert any(change(d) for d in changed)


def test_messages_are_changed(fuzz: Any) -> None:
    mutations = import_module("fuzz_mutations")
    model = onnx.helper.make_model(graph_of([node("Relu", "x")], [value("x", [1])], [value("y")]))
    messages = {mutations.mutate_message(Random(i), model, [model]) for i in range(100)}
    assert len(messages) > 50
    assert any(onnx.load_from_string(m).graph.node for m in messages)


def test_a_run_prints_the_inputs_of_each_format(
    fuzz: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fuzz.py", "--inputs", "40", "--format", "quantity,where", "--json", "x.json"])
    assert fuzz.main() == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["quantity"][0] == rows["where"][0] == "40"
    written = json.loads((tmp_path / "x.json").read_text())["formats"]["where"]
    assert (written["inputs"], written["findings"], written["values"] + written["refused"]) == (40, 0, 40)
    assert not (tmp_path / "findings").exists()


@pytest.mark.slow
def test_every_format_reads_its_seeds(fuzz: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    read = import_module("fuzz_worker").outcome
    for name, kind in import_module("fuzz_formats").FORMATS.items():
        if name not in ("spec", "sizes"):  # their seeds name missing files, or belong to one of several grammars
            outcomes = [read(name, seed, tmp_path) for seed in kind.seeds()]
            assert {outcome["outcome"] for outcome in outcomes} == {"value"}, name
