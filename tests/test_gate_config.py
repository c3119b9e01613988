"""The configuration of the gate: valid keys, and the error with file, line and key for everything else."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspprof.core.errors import CspprofError
from cspprof.gate.config import Config, config_schema, find, load
from cspprof.gate.toml_lines import key_lines, nearest_line

SCHEMA = json.loads((resources.files("cspprof") / "schemas" / "config-1.schema.json").read_text())

GOOD = """\
[project]
name = "mine"

[tool.cspprof]
baseline = "ci/baseline.json"

[tool.cspprof.models.plain]
target = "net.py:Net"
input = "1x3x64x64"

[tool.cspprof.models.csp]
target = "net.py:CSPNet"
input = ["x=1x3x64x64", "mask=1x8:bool"]
convention = "hardnet"

[[tool.cspprof.rules]]
id = "budget"
model = "csp*"
metric = "cio"
max = "24 M"

[[tool.cspprof.rules]]
id = "drop"
model = "csp"
base = "plain"
min_drop = "5%"
level = "warn"

[[tool.cspprof.rules]]
id = "gain"
metric = "moc"
max_increase = "0%"
ratchet = "2%"
tolerance = 0.5
"""


def write_and_load(folder: Path, text: str, name: str = "pyproject.toml") -> Config:
    path = folder / name
    path.write_text(text)
    return load(path)


def test_load_reads_every_key(tmp_path: Path) -> None:
    config = write_and_load(tmp_path, GOOD)
    assert config.problems == ()
    assert list(config.models) == ["plain", "csp"]
    assert config.models["csp"].inputs == ["x=1x3x64x64", "mask=1x8:bool"]
    assert [(r.id, r.kind, r.level, r.needs_baseline) for r in config.rules] == [
        ("budget", "max", "error", False), ("drop", "min_drop", "warn", False), ("gain", "max_increase", "error", True),
    ]  # fmt: skip
    assert config.rules[0].limit.value == 24_000_000
    assert config.rule_lines == {"budget": 17, "drop": 23, "gain": 30}
    assert config.model_lines == {"plain": 7, "csp": 11}
    assert config.baseline == tmp_path / "ci/baseline.json"


def test_cspprof_toml_and_pyproject_toml_give_the_same_configuration(tmp_path: Path) -> None:
    text = GOOD.partition("[tool.cspprof]\n")[2].replace("tool.cspprof.", "")
    plain = write_and_load(tmp_path, text, "cspprof.toml")
    assert (plain.problems, len(plain.models), len(plain.rules)) == ((), 2, 3)
    assert plain.rule_lines["budget"] == 13
    prefixed = write_and_load(tmp_path, GOOD, "cspprof.toml")
    assert (prefixed.models, prefixed.rules) == (plain.models, plain.rules)


def test_published_schema_matches_the_code_and_rejects_invalid_configurations() -> None:
    assert config_schema() == SCHEMA
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(tomllib.loads(GOOD)["tool"]["cspprof"], SCHEMA)
    for wrong in ({"rules": [{"id": "a"}]}, {"rules": [{"id": "a", "max": 1, "max_share": "1%"}]}, {"modls": {}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, SCHEMA)


MODEL = '[models.net]\ntarget = "net.py:Net"\n\n'
RULE = '[[rules]]\nid = "a"\nmax = 1\n\n'


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ('[[rules]]\nid = "b"\nmax = "24 Q"\n', 3, "rules[1].max: cannot read the quantity '24 Q'", "24 M, 4.09 G"),
        ('[[rules]]\nid = "b"\n\nmetric = "coi"\nmax = 1\n', 4, "rules[1].metric: no metric named 'coi'", "mean: cio"),
        ('[[rules]]\nid = "b"\nmax = 1\nmax_share = "1%"\n', 1, "sets max and max_share", "Give one of: max,"),
        ('[[rules]]\nid = "b"\n', 1, "the rule 'b' sets no limit", "Give one of: max, max_increase"),
        ("[[rules]]\nmax = 1\n", 1, "rules[1].id: this key is required", 'Add it: id = "cio-budget"'),
        ('[[rules]]\nid = "b"\nmaxx = 1\nmax = 1\n', 3, "rules[1].maxx: unknown key", "Did you mean: max?"),
        ('[[rules]]\nid = "a"\nmax = 1\n', 2, "two rules have the id 'a'; the other is on line 5", "id of its own"),
        ('[[rules]]\nid = "b"\nmax_increase = "-5%"\n', 1, "max_increase = '-5%' is negative", "Write min_drop = '5%'"),
        ('[[rules]]\nid = "b"\nmax = "5%"\n', 1, "max = '5%': max is an amount, not a percentage", "max_share"),
        ('[[rules]]\nid = "b"\nmax_share = "24 M"\n', 1, "is not a percentage up to 100%", 'max_share = "20%"'),
        ('[[rules]]\nid = "b"\nmin_drop = "101%"\n', 1, "is more than 100%", "at most 100%"),
        ('[[rules]]\nid = "b"\nmax = 1\nbase = "net"\n', 1, "max does not compare with a base", "Remove base"),
        ('[[rules]]\nid = "b"\nmax = 1\nratchet = true\n', 1, "ratchet compares with the baseline", "max_increase"),
        (
            '[[rules]]\nid = "b"\nmax = 1\nlevel = "eror"\n',
            4,
            "rules[1].level: Input should be 'error', 'warn'",
            "'eror'",
        ),
        ('[models.b]\ntargt = "x"\n', 1, "models.b.target: this key is required", 'target = "net.py:Net"'),
        (
            '[models.b]\ntarget = "x"\ninput = "3x"\n',
            3,
            "models.b.input: cannot read the input '3x'",
            "dimensions joined",
        ),
        ('[models.b]\ntarget = "x"\ninput = 3\n', 3, "models.b.input", "It is 3 now"),
        ('[models.b]\ntarget = "x"\nconvention = "cspent"\n', 3, "no convention named 'cspent'", "cspnet"),
        ('[models.b]\ntarget = "x"\ndtype = "int8"\n', 3, "int8 is not a floating dtype", ""),
        ('[models.b]\ntarget = "x"\ntrain = true\ndeploy = true\n', 1, "train and deploy exclude each other", "one of"),
    ],
)
def test_an_invalid_entry_is_reported_with_its_line_and_the_others_are_kept(
    tmp_path: Path, text: str, line: int, message: str, hint: str
) -> None:
    config = write_and_load(tmp_path, MODEL + RULE + text, "cspprof.toml")
    assert list(config.models) == ["net"]
    assert [r.id for r in config.rules] == ["a"]
    problem = next(p for p in config.problems if message in p.message)
    assert problem.line == line + 7
    assert problem.where == f"cspprof.toml:{line + 7}"
    assert hint in problem.hint
    assert problem.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.cspprof\n", r"pyproject.toml is not TOML: .*line 1"),
        ("a = " + "[" * 100_000, r"pyproject.toml is not TOML: line 1: more than 16 levels"),
        ("[project]\n", r"pyproject.toml has no \[tool.cspprof\]"),
    ],
)
def test_a_file_without_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CspprofError, match=message):
        write_and_load(tmp_path, text)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cspprof.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(CspprofError, match=r"cspprof.toml is not TOML"):
        load(tmp_path / "cspprof.toml")


def test_find_returns_the_nearest_configuration_in_the_same_repository(tmp_path: Path) -> None:
    inner = tmp_path / "packages" / "one" / "src"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(GOOD)
    (inner.parent / "pyproject.toml").write_text('[project]\nname = "one"\n')  # without [tool.cspprof]
    assert find(inner) == tmp_path / "pyproject.toml"
    (inner.parent / "cspprof.toml").write_text(RULE)
    assert find(inner) == inner.parent / "cspprof.toml"
    assert find(tmp_path / "pyproject.toml") == tmp_path / "pyproject.toml"
    (inner / ".git").mkdir()  # the top of another repository
    with pytest.raises(CspprofError, match="no configuration found") as caught:
        find(inner)
    assert caught.value.hint == "Write one with: cspprof init"
    with pytest.raises(CspprofError, match="there is no file"):
        find(tmp_path / "nowhere.toml")


# -- the lines of keys ----------------------------------------------------------------------------

LAYOUT = '''\
# a comment
a.b = 1
text = """
[not.a.table]
x = 1
"""

[one.two]  # a table
"quoted key" = { inner = [1,
  2] }

[[rows]]
k = 1
[[rows]]

k = 2
[rows.sub]
deep = 3
'''


def test_key_lines_gives_the_line_of_each_statement() -> None:
    lines = key_lines(LAYOUT)
    assert {path: lines[path] for path in [
        ("a",), ("a", "b"), ("text",), ("one", "two"), ("one", "two", "quoted key", "inner"), ("rows", 0),
        ("rows", 0, "k"), ("rows", 1), ("rows", 1, "k"), ("rows", 1, "sub", "deep"),
    ]} == {
        ("a",): 2, ("a", "b"): 2, ("text",): 3, ("one", "two"): 8, ("one", "two", "quoted key", "inner"): 9,
        ("rows", 0): 12, ("rows", 0, "k"): 13, ("rows", 1): 14, ("rows", 1, "k"): 16, ("rows", 1, "sub", "deep"): 18,
    }  # fmt: skip
    assert ("not",) not in lines
    assert nearest_line(lines, ("rows", 1, "missing")) == 14
    assert nearest_line(lines, ("nowhere",)) is None


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> set[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {path} | {p for key, inner in entries for p in paths_of(inner, (*path, key))}


NAMES = st.sampled_from(["a", "b", "c", '"d e"'])


@given(st.lists(st.tuples(st.sampled_from(["key", "table", "array", "note"]), NAMES, NAMES), max_size=12))
def test_key_lines_covers_every_key_that_tomllib_finds(parts: list[tuple[str, str, str]]) -> None:
    text = "".join(
        {
            "key": f"{x}.{y} = [\n {{ z = 1 }},\n]\n",
            "table": f"[{x}.{y}]\n",
            "array": f"[[{x}.{y}]]\n",
            "note": "# n\n",
        }[kind]
        for kind, x, y in parts
    )
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # a duplicate key
    lines = key_lines(text)
    assert set(lines) == paths_of(document) - {()}
    for path, line in lines.items():
        last = next(name for name in reversed(path) if isinstance(name, str))
        if last != "z":
            assert last in text.splitlines()[line - 1]
