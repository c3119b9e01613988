"""Files from anyone: a file loads and gives numbers, or is refused with the file, the place in it, and a hint."""

from __future__ import annotations

import gzip
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Result, quick
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_calibration import calibration
from test_measure import measurement
from test_sweep import row
from torch import nn

from cspprof import profile
from cspprof.analysis.structural_hash import structural_hash
from cspprof.core import json_text
from cspprof.core.child_process import ChildProcess
from cspprof.core.errors import CspprofError, ProfileError
from cspprof.core.files import read_limited
from cspprof.core.import_path import import_path
from cspprof.core.json_text import parse_json
from cspprof.core.record import Record
from cspprof.core.validation import Count, Seconds, validated
from cspprof.gate import baseline, config
from cspprof.gate.measurement import layer_matches
from cspprof.gate.toml_lines import key_lines
from cspprof.measure.calibration.calibration_file import Calibration
from cspprof.measure.report import measurement_report
from cspprof.measure.result import Measurement
from cspprof.metrics import METRICS
from cspprof.metrics.definition import CONVENTIONS
from cspprof.profiles import Profile
from cspprof.render import render
from cspprof.storage import cache, profile_file
from cspprof.sweeps.journal import JournalError, SqliteJournal, TextJournal
from cspprof.sweeps.space_file import read_space_file

HOSTILE_INPUTS = Path(__file__).parents[2] / "shared" / "hostile_inputs"
Run = Callable[..., Result]
Path_ = tuple[str | int, ...]


def changed(document: Any, path: Path_, value: Any) -> Any:
    """A copy of the document with another value at a place."""
    copy = json.loads(json.dumps(document))
    place = copy
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return copy


def refusal(document: Any) -> str:
    """The message with which a saved profile is refused."""
    with pytest.raises(ProfileError) as refused:
        profile_file.from_bytes(json.dumps(document).encode(), "x.profile.json")
    assert refused.value.hint
    return refused.value.message


# -- saved profiles -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("params",), 1.0, "params: expected `int`, got `float`"),
        (("params",), True, "params: expected `int`, got `bool`"),
        (("specs", 0, 6), -1, "specs[0].macs: expected `int` >= 0"),
        (("specs", 0, 6), 1.5, "specs[0].macs: expected `int | null`, got `float`"),
        (("specs", 0, 6), 2**63, "specs[0].macs: expected `int` <= 9223372036854775807"),
        (("specs", 0, 1), "convolution", "specs[0].kind: invalid enum value 'convolution'"),
        (("specs", 0, 2), [99], "specs[0] refers to entry 99 of 4"),
        (("specs", 0, 4), [], "specs[0] (aten.conv2d): an operation of the kind conv reads and writes tensors"),
        (("specs", 0, 5, "kernel"), [0, 3], "specs[0] (aten.conv2d): kernel[0]: expected `int` >= 1"),
        (("specs", 0, 5, "groups"), 0, "specs[0] (aten.conv2d): groups: expected `int` >= 1"),
        (("specs", 0, 5, "dim"), 2**63, "specs[0].dim is an integer of more than 64 bits"),
        (("tensors", 0, 0, 1), "3" * 9, "tensors[0][0][1]: expected `int`, got `str`"),
        (("tensors", 0, 0), [2**40, 2**40], "tensors[0] has 4,835,703,278,458,516,698,824,704 bytes"),
        (("tensors", 0, 0), [1] * 65, "tensors[0][0]: expected `array` of length <= 64"),
        (("layers", "path", 0), "a", "the first layer is not the model"),
        (("layers", "depth", 0), 1, "the first layer is not the model"),
        (("layers", "depth", 1), 2, "layer 1 (a) has depth 2 after a layer of depth 0"),
        (("layers", "class"), [0, 1, 2], "layers.path has 4 entries and layers.class has 3"),
        (("layers", "class", 0), 4, "layers.class refers to entry 4 of 3"),
        (("layers", "frozen"), {"4": 1}, "layers.frozen has the key '4', which is the number of no layer"),
        (("layers", "path", 1), "a" * 10_001, "layers.path[1]: expected `str` of length <= 10000"),
        (("roles", 0), "weight", "roles[0]: invalid enum value 'weight'"),
        (("storages", "id", 1), 0, "two storages have the same id"),
        (("calls", "spec", 0), 3, "a call names a spec that does not exist"),
        (("calls", "layer", 0), -1, "a call names a layer that does not exist"),
        (("calls", "storage", 0), 9, "operation 0 (aten.conv2d) reads storage 9 before it is written"),
        (("calls", "required"), [4, 0, 0], "call 0 (aten.conv2d) requires the gradient of an operand"),
        (("outputs",), [-1], "outputs[0]: expected `int` >= 0"),
        (("backward",), [None], "specs has 3 entries and backward has 1"),
        (("backward", 0), [[[1, [2]]], [], False, False], "its backward pass names the tensor 2"),
        (("sources",), {"a.B": "/etc/passwd"}, "the file of a.B is '/etc/passwd', which is no path inside a project"),
        (("sources",), {"a.B": "../x.py"}, "which is no path inside a project"),
        (("sources",), {"a.B": "c:x.py"}, "which is no path inside a project"),
        (("tool",), ["1"], "tool: expected `object`, got `array`"),
    ],
)  # fmt: skip
def test_a_profile_with_a_wrong_value_is_refused_with_its_place(
    chain: Profile, path: Path_, value: Any, message: str
) -> None:
    document = profile_file.to_dict(replace(chain, layers=tuple(x._replace(params=0) for x in chain.layers)))
    document["backward"] = [None] * 3
    found = refusal(changed(document, path, value))
    assert found.startswith("x.profile.json is damaged: ")
    assert message in found


def test_an_operation_that_looks_up_more_than_its_table_is_refused(chain: Profile) -> None:
    document = profile_file.to_dict(chain)
    assert "table_bytes" in refusal(changed(document, ("specs", 1, 5), {"table_bytes": 2**40, "bytes_read": 0}))


def test_masks_of_more_than_64_operands_and_infinite_arguments_are_kept(chain: Profile) -> None:
    first = chain.specs[0]
    many = first._replace(target="aten.cat", kind=type(first.kind).CONCAT, reads=first.reads * 70, weights=(), macs=0,
                          attrs={"value": float("-inf")})  # fmt: skip
    calls = replace(chain.calls, spec=[0], layer=[0], storage=[0] * 70 + [5], required=[2**70 - 1])
    record = replace(chain, specs=(many,), calls=calls, outputs=(5,))
    assert profile_file.from_bytes(profile_file.to_bytes(record, compressed=False), "x") == Record(
        **{name: getattr(record, name) for name in Record.__dataclass_fields__}
    )


def test_a_profile_that_repeats_a_key_is_refused(chain: Profile) -> None:
    text = json.dumps(profile_file.to_dict(chain))
    with pytest.raises(ProfileError, match="an object has the key 'params' twice"):
        profile_file.from_bytes(text.replace('"params"', '"params": 1, "params"', 1).encode(), "x")


def test_a_large_file_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "x.profile.json"
    with file.open("wb") as out:
        out.truncate(json_text.MAX_BYTES + 1)
    with pytest.raises(ProfileError, match=r"cannot read .*: it has more than 67,108,864 bytes"):
        profile_file.load(file)
    with pytest.raises(OSError, match="null"):
        read_limited(Path("a\0b"), 10)


@pytest.mark.parametrize("value", [b"NaN", b"1e999", b'"\\ud800"', b'{"a": 1, "a": 2}', b"[" * 100_000, b"\xff"])
def test_json_that_no_program_should_write_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the messages are those of several libraries
        parse_json(value)


def test_values_are_not_converted() -> None:
    for value in (1.0, True, "1", None, -1, 2**63):
        with pytest.raises(ValueError, match=r"^expected"):
            validated(value, Count)
    for seconds in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match=r"^expected"):
            validated(seconds, Seconds)
    with pytest.raises(ValueError, match=r"^a\[1\]: expected `int`, got `str`$"):
        validated([0, "1"], list[int], "a")


def test_a_damaged_entry_of_the_cache_is_traced_again(
    chain: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSPPROF_CACHE_DIR", str(tmp_path))
    record = Record(**{name: getattr(chain, name) for name in Record.__dataclass_fields__})
    entry = tmp_path / "records" / "key.profile.json.gz"
    document = profile_file.to_dict(record)
    for content in (
        b"",
        b"\x1f\x8b",
        b"[" * 100_000,
        gzip.compress(json.dumps(changed(document, ("layers", "path", 0), "a")).encode()),
        gzip.compress(json.dumps(changed(document, ("params",), "1")).encode()),
    ):
        entry.parent.mkdir(exist_ok=True)
        entry.write_bytes(content)
        assert cache.cached_record(lambda: "key", lambda: record) == record
        assert profile_file.load(entry) == record


# -- measurements, calibrations, baselines ------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("timings", 0, "rounds", 0, 0), -1.0, "timings[0].rounds[0][0]: expected `float` >= "),
        (("timings", 0, "model"), 1, "timings[0].model is 1, and there are 1 models"),
        (("timings", 0, "engine"), "torch", "timings[0].engine is 'torch', which is none of engines"),
        (("models", 0, "record", "params"), 1.5, "models[0].record: params: expected `int`, got `float`"),
        (("models", 0, "export"), {"opset": [1]}, "models[0].export.opset: expected `object`, got `array`"),
        (("machine", "cpu"), 3, "machine.cpu: expected `str`, got `int`"),
    ],
)  # fmt: skip
def test_a_measurement_with_a_wrong_value_is_refused_with_its_place(
    chain: Profile, tmp_path: Path, path: Path_, value: Any, message: str
) -> None:
    file = tmp_path / "x.measured.json"
    file.write_text(json.dumps(changed(measurement(chain, [[1.0]]).document(), path, value)))
    with pytest.raises(ProfileError, match="is damaged") as refused:
        Measurement.load(file)
    assert message in refused.value.message


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("rates", "kernels"), -1.0, "rates[...]: expected `float` >= 0.0"),
        (("error", "networks"), [], "error.networks: expected `array` of length >= 1"),
        (("block",), 0, "block: expected `int` >= 1"),
    ],
)
def test_a_calibration_with_a_wrong_value_is_refused_with_its_place(
    tmp_path: Path, path: Path_, value: Any, message: str
) -> None:
    file = tmp_path / "x.calibration.json"
    file.write_text(json.dumps(changed(calibration().document(), path, value)))
    with pytest.raises(ProfileError, match="is damaged") as refused:
        Calibration.load(file)
    assert message in refused.value.message


BASELINE = {
    "schema": "cspprof.baseline/1",
    "models": {
        "net": {
            "convention": "cspnet",
            "inputs": ["1x3x8x8:float32"],
            "structure": "00",
            "totals": {"macs": 3, "moc": {"over": 3, "under": 2}},
            "layers": {"a": {"is": "conv2d", "macs": 3}},
            "versions": {"cspprof": "1"},
        }
    },
}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("totals", "macs"), 1.9, "models.net.totals.macs: expected `int`, got `float`"),
        (("totals", "macs"), {"over": 1.9, "under": 1}, "models.net.totals.macs.over: expected `int`, got `float`"),
        (("totals", "macs"), -1, "models.net.totals.macs: expected `int` >= 0"),
        (("layers", "a", "macs"), True, "models.net.layers.a.macs: expected `int`, got `bool`"),
        (("layers", "a", "is"), None, "models.net.layers.a.is: expected `str`, got `null`"),
        (("inputs", 0), 1, "models.net.inputs[0]: expected `str`, got `int`"),
    ],
)
def test_a_baseline_with_a_wrong_value_is_refused_with_its_place(path: Path_, value: Any, message: str) -> None:
    assert baseline.parse(json.dumps(BASELINE).encode(), "b.json")["net"].totals
    with pytest.raises(baseline.BaselineError, match="is damaged") as refused:
        baseline.parse(json.dumps(changed(BASELINE, ("models", "net", *path), value)).encode(), "b.json")
    assert message in refused.value.message


# -- configurations -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 200_000, "line 1: more than 16 levels"),
        (".".join("a" * 200_000) + " = 1", "line 1: more than 16 levels"),
        ("\n[" + ".".join("a" * 20) + "]", "line 2: more than 16 levels"),
        ("a = " + "1" * 5000, "is not TOML"),
        ("tool.cspprof = 3", "tool.cspprof is no table"),
        ("tool = 3", r"has no \[tool.cspprof\]"),
        ("#" * (1 << 20) + "\n", "it has more than 1,048,576 bytes"),
    ],
)
def test_a_configuration_beyond_the_limits_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text(text)
    with pytest.raises(CspprofError, match=message):
        config.load(file)


def test_a_long_glob_of_a_rule_is_refused(tmp_path: Path) -> None:
    """Python would search for the end of each bracket to the end of the glob."""
    file = tmp_path / "cspprof.toml"
    rule = f'[[rules]]\nid = "a"\nmax = "1 G"\nmetric = "macs"\nmodel = "{"[" * 50_000}"\n'
    file.write_text(f'[models.net]\ntarget = "chain"\n{rule}')
    (problem,) = config.load(file).problems
    assert problem.message == "rules[0].model: a glob has at most 200 characters, and this one 50,000"
    assert problem.hint == 'Write model = "*"'


def test_one_long_array_takes_no_quadratic_time() -> None:
    text = "x = [\n" + "  1,\n" * 20_000 + "]\ny = 1\n"
    began = time.process_time()
    assert key_lines(text)["y",] == 20_003
    assert time.process_time() - began < 2


def test_statements_end_behind_their_brackets_and_strings() -> None:
    text = '# [\na = """\n[\n""""\nb = [ # ]\n  "]", \'[\',\n]\nc.d = \'\'\'\n"""\'\'\'\n["x]".y]\nz = {a = 1}\n'
    lines = key_lines(text)
    assert [lines[key] for key in (("a",), ("b",), ("c", "d"), ("x]", "y"), ("x]", "y", "z"))] == [2, 5, 8, 10, 11]


def test_a_glob_with_many_stars_takes_no_exponential_time() -> None:
    began = time.process_time()
    assert not layer_matches("**a" * 40 + "b", "a" * 400)
    assert layer_matches("**a" * 40 + "**", "a.b" * 40)
    assert time.process_time() - began < 2


@given(st.text("ab.*?", max_size=7), st.text("ab.", max_size=8))
def test_a_glob_matches_as_a_regular_expression_does(glob: str, path: str) -> None:
    import re

    words = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    pattern = "".join(words.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*|\?)", glob))
    assert layer_matches(glob, path) == (re.fullmatch(pattern, path) is not None)


@pytest.mark.parametrize(
    "text",
    ["models = 3", "models = ['a']\ngrid.x = [[[1]]]", "models = ['a']\nbatch = [true]", "a = " + "[" * 9999,
     "models = ['a']\nsize = '" + "9" * 5000 + "'", "models = ['a']\ngrid.x = '" + "(" * 3000 + ":2'"],
)  # fmt: skip
def test_a_space_file_with_a_wrong_value_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "space.toml").write_text(text)
    with pytest.raises(CspprofError):
        read_space_file(tmp_path / "space.toml")


# -- journals -----------------------------------------------------------------------------------------


def journal_error(action: Callable[[], object]) -> str:
    with pytest.raises(JournalError) as refused:
        action()
    return refused.value.message


def test_a_row_with_a_wrong_value_is_refused(tmp_path: Path) -> None:
    journal = TextJournal(tmp_path / "text")
    journal.add([row(0)._replace(values={"macs": "many"})])  # type: ignore[dict-item]
    assert "[6][...]: expected `int | float`, got `str`" in journal_error(lambda: list(journal.rows()))

    database = SqliteJournal(tmp_path / "x.sweep")
    database.add([row(0, macs=1)])
    assert [r.values for r in database.rows()] == [{"macs": 1}]
    database.close()
    for change in ("numbers = '[]'", "axes = '{'", "status = 'fine'", "position = 'x'", "versions = 9"):
        with sqlite3.connect(tmp_path / "x.sweep") as connection:
            connection.execute(f"UPDATE rows SET {change}")
        database = SqliteJournal(tmp_path / "x.sweep")
        assert "is damaged" in journal_error(lambda: list(database.rows()))  # noqa: B023 - called at once
        database.close()


def test_a_journal_with_a_view_or_damaged_pages_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.sweep"
    journal = SqliteJournal(file)
    journal.add([row(i, macs=i) for i in range(500)])
    journal.close()
    content = bytearray(file.read_bytes())
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE VIEW endless AS SELECT 1")
    assert "other tables or views" in journal_error(lambda: SqliteJournal(file))
    content[len(content) // 2 :] = bytes(b ^ 255 for b in content[len(content) // 2 :])
    (tmp_path / "y.sweep").write_bytes(content)
    journal = SqliteJournal(tmp_path / "y.sweep")
    assert "is damaged" in journal_error(lambda: list(journal.rows()))
    journal.close()


def test_a_journal_whose_tables_have_names_that_are_no_text_is_refused(tmp_path: Path) -> None:
    content = other_text("journal", tmp_path)
    assert b"CREATE TABLE facts" in content
    file = tmp_path / "x.sweep"
    file.write_bytes(content.replace(b"CREATE TABLE facts", b"CREATE\xdd\xddTABLE facts"))
    assert "cannot open the journal" in journal_error(lambda: SqliteJournal(file))


# -- processes ----------------------------------------------------------------------------------------


def test_no_file_of_the_current_folder_hides_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("msgspec", "typer", "pydantic"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the current folder')")
    (tmp_path / "answers.py").write_text(
        "import msgspec, sys\nfrom cspprof.core.child_process import response_stream\nout = response_stream()\n"
        "for line in sys.stdin: print(line, file=out, flush=True)\n"
    )
    monkeypatch.chdir(tmp_path)
    for first in ("", str(tmp_path)):
        monkeypatch.setattr(sys, "path", [first, *sys.path])
        assert import_path()[-1] == str(tmp_path)
        with ChildProcess("answers") as process:
            assert process.response([1]) == [1]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-m", "cspprof", "check"], env=environment, capture_output=True, text=True)
    assert "no configuration found" in done.stderr


# -- changed files ------------------------------------------------------------------------------------

ODD = (0, 1, -1, 3, 2**31, 2**62, 2**63 - 1, 2**63, 2**70, 1.5, -0.5, 1e300, True, None, "", "x", "é\n", "\x1b[1m", [],
       [0], [1, 2, 3], [2**62] * 2, [[]], {}, {"a": 1}, "conv", "view", "linear", "concat")  # fmt: skip


def places(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def mutant(document: Any, draws: random.Random) -> Any:
    """A copy of the document with one to three odd, missing, repeated or exchanged values."""
    copy = json.loads(json.dumps(document))
    for _ in range(draws.choice((1, 1, 2, 3))):
        paths = [p for p in places(copy) if p and p != ("schema",)] or [("schema",)]
        path = draws.choice(paths)
        parent = copy
        for name in path[:-1]:
            parent = parent[name]
        kind, key = draws.randrange(4), path[-1]
        if kind == 0 and isinstance(parent, list):
            parent.insert(key, parent[key])
        elif kind == 1:
            del parent[key]
        elif kind == 2:
            other = copy
            for name in draws.choice(paths):
                other = other[name]
            parent[key] = json.loads(json.dumps(other))
        else:
            parent[key] = draws.choice(ODD)
    return copy


def mutated_bytes(content: bytes, draws: random.Random) -> bytes:
    """The content with some bytes changed, removed or repeated."""
    data = bytearray(content)
    for _ in range(draws.randint(1, 4)):
        at, n = draws.randrange(len(data)), draws.randint(1, 8)
        data[at : at + n] = draws.choice((b"", bytes(data[at : at + n]) * 2, draws.randbytes(n), b"9" * n))
    return bytes(data)


def use(record: Record) -> None:
    """Compute what commands compute."""
    p = Profile.of(record)
    for name in METRICS.names():
        p.total(name)
    for name in CONVENTIONS.names():
        CONVENTIONS.get(name).deviations(p)
    structural_hash(p)
    _ = p.receptive_fields
    p.to_pandas()
    assert str(p)
    again = profile_file.from_bytes(profile_file.to_bytes(p, compressed=False), "x")
    assert json.dumps(profile_file.to_dict(again)) == json.dumps(profile_file.to_dict(p))


class Mixed(nn.Module):
    """Operations of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 8, 1)) for _ in "ab"]
        )
        self.up, self.attend = nn.Upsample(scale_factor=2), nn.MultiheadAttention(16, 2, batch_first=True)
        self.recurrent, self.norm, self.head = nn.LSTM(16, 4, batch_first=True), nn.LayerNorm(4), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        x = torch.cat([self.up(x), nn.functional.interpolate(x, (8, 8), mode="bilinear")], 1)
        tokens = x.mean((2, 3), keepdim=True).expand(-1, -1, 8, 8)[:, :, ::2].flatten(2).transpose(1, 2)
        tokens = self.attend(tokens, tokens, tokens)[0].softmax(-1)
        return self.head(self.norm(self.recurrent(tokens)[0]).roll(1, 1))


def mixed() -> Any:
    return profile_file.to_dict(profile(Mixed().eval(), (1, 3, 16, 16)))


MUTANTS = 100
many = settings(max_examples=MUTANTS, deadline=None, suppress_health_check=list(HealthCheck))


def load_and_use_profile(file: Path) -> None:
    use(profile_file.load(file))


def load_and_use_measurement(file: Path) -> None:
    loaded = Measurement.load(file)
    render("json", measurement_report(loaded))
    render("rich", measurement_report(loaded))


def load_and_use_configuration(file: Path) -> None:
    config.load(file)


def load_and_use_baseline(file: Path) -> None:
    from cspprof.gate.report import baseline_report

    render("json", baseline_report(baseline.read(file) or {}, "x"))


KINDS = ["profile", "measured", "calibration", "baseline", "toml", "space", "journal"]


@pytest.mark.parametrize("kind", quick(KINDS, ("calibration", "baseline", "toml")))
def test_a_changed_file_loads_or_is_refused(kind: str, chain: Profile, tmp_path: Path) -> None:
    documents: dict[str, Callable[[], list[Any]]] = {
        "profile": lambda: [profile_file.to_dict(chain), mixed()],
        "measured": lambda: [measurement(chain, [[1.0, 1.5], [2.0]], [[1.0]], again=[[1.0]]).document()],
        "calibration": lambda: [calibration().document()],
        "baseline": lambda: [BASELINE],
    }
    uses: dict[str, Callable[[Path], object]] = {
        "profile": load_and_use_profile,
        "measured": load_and_use_measurement,
        "calibration": lambda file: Calibration.load(file).label,
        "baseline": load_and_use_baseline,
        "toml": load_and_use_configuration,
        "space": read_space_file,
        "journal": lambda file: list(SqliteJournal(file).rows()),
    }
    file = tmp_path / f"x.{kind}"
    if kind in documents:
        structures, texts = documents[kind](), [json.dumps(d).encode() for d in documents[kind]()]
    else:
        structures, texts = [], [other_text(kind, tmp_path)]

    @many
    @given(st.integers(0, 2**32), st.booleans())
    def check(seed: int, of_bytes: bool) -> None:
        draws = random.Random(seed)
        if of_bytes or not structures:
            file.write_bytes(mutated_bytes(draws.choice(texts), draws))
        else:
            file.write_text(json.dumps(mutant(draws.choice(structures), draws)))
        with suppress(CspprofError):
            uses[kind](file)

    check()


def other_text(kind: str, folder: Path) -> bytes:
    if kind == "toml":
        return b'baseline = "b.json"\n[models.net]\ntarget = "net.py:Net"\ninput = ["1x3x8x8"]\n[[rules]]\nid = "a"\n' \
            b'metric = "macs"\nmax = "24 M"\nlayer = "a.**"\n[[rules]]\nid = "b"\nmax_increase = "0%"\n'  # fmt: skip
    if kind == "space":
        return b'models = ["csp_peleenet"]\ngrid.gamma = "0.25:0.75:0.125"\nsize = [224, "256x320"]\nbatch = [1, 2]\n'
    journal = SqliteJournal(folder / "y.sweep")
    journal.add([row(i, macs=i) for i in range(20)])
    journal.close()
    return (folder / "y.sweep").read_bytes()


@pytest.mark.skipif(not HOSTILE_INPUTS.is_dir(), reason="the collection of hostile files is not there")
def test_files_that_once_ended_in_a_traceback_load_or_are_refused(tmp_path: Path) -> None:
    for file in sorted(HOSTILE_INPUTS.iterdir()):
        with suppress(CspprofError):
            if file.name.endswith(".profile.json"):
                use(profile_file.load(file))
            elif file.name.startswith("baseline-"):
                baseline.read(file)
            elif file.name.startswith("config-"):
                config.load(file)
