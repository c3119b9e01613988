"""Names of models, layers, operations, rules and files that a stranger has chosen, in every output: they change no
structure, nothing in them is active, and nothing in them is invisible. Each output is read back with a parser that is
not ours."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import Result, conv_spec
from markdown_it import MarkdownIt
from test_gate_formats import result, verdict

from cspprof.cli.completion import complete_spec
from cspprof.core.errors import CspprofError
from cspprof.core.printable import printable
from cspprof.core.record import Calls, Kind, Layer, OpSpec, Storage, TensorSpec
from cspprof.gate.causes import Cause
from cspprof.gate.checking import Verdict
from cspprof.gate.config import Problem
from cspprof.gate.formats import FORMATS
from cspprof.gate.init import Factory, config_text, find_models
from cspprof.gate.report import verdict_report
from cspprof.profiles import Profile
from cspprof.render import RENDERERS, Canvas, render
from cspprof.render.latex import SPECIAL
from cspprof.render.matplotlib_chart import draw_figure, image_bytes
from cspprof.report.chart_model import Axis, Chart, Mark, Panel, ReferenceLine, Series
from cspprof.report.charts import chart_report, draw
from cspprof.report.layer_tables import Breakdown
from cspprof.report.profile import profile_report
from cspprof.report.tables import Report
from cspprof.results import Comparison

Run = Callable[..., Result]

HOSTILE = (
    "\x1b[2Jescape\x1b]8;;http://evil\x07link", "\x9b31meight bits\x9d0;title\x9c",
    "nul\x00backspace\x08bell\x07del\x7f",
    "bidi\u202egpj\u2066x\u2069\u200f\u061c", "zero\u200bwidth\ufeff\u00ad\u2060\u200d", "tags\U000e0041\U000e0001",
    "blank\u3164\u115f\u2800\ufe0f\U000e0100", "half\ud800 \udcff", "no character\ufffe\uffff\U0010ffff",
    "a\n::error::owned", "a\r\n\r\n| x | y |\n| --- | --- |\n# b", "line\u2028separators\u2029\x85\x0b\x0c\x1c",
    "tab\ttab",
    "  ::add-mask::x", "##[error]x ##vso[task.setvariable variable=a]b ##teamcity[c]",
    "pipe|pipe`code`", "</td></table><script>alert(1)</script><img src=x onerror=alert(1)>", "\"' onmouseover='x' a=\"",
    "]]>", "-->", "&#x202e;&lt;b&gt;&amp;", "{{ 7 * 7 }}{% raw %}", "$\\frac{1}{0}$", "$\\href{javascript:x}{y}$ $$",
    "_start ^ \\ & % # ~ {}", "\\end{tabular}\\input{x}^^5c", "[1pt] of a row", "*star of a row",
    "[red]x[/red][link=y]z",
    '=HYPERLINK("http://evil";"x")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\uff1d1+1",
    "[x](http://evil) ![x](http://evil/x) [x]: y", "**b** __b__ ~~s~~ <b>", "http://evil/ https://evil www.evil",
    "@somebody o/r#12 a@b", "# heading", "- list", "+ list", "1. list", "2) list", "---", "===", "> quote", "~~~",
    "a/b/c", "../../x", "%SRCROOT%%25%0A::error::x", "$(touch x)`touch x`", "{old}{0}",
)  # fmt: skip
HARMLESS = tuple(f"layer{i}" for i in range(len(HOSTILE)))
LAYERS = tuple(name.replace(".", "·") for name in HOSTILE)
"""The hostile names as names of layers: a dot separates the modules of a path."""
MODEL = " ".join(HOSTILE).replace(" [", "[").replace(" (", "(")
"""All of them as the name of a model. A terminal breaks the heading of a column before a bracket."""


def invisible(text: str) -> list[str]:
    """The characters of a text that cannot be seen, by their categories in Unicode."""
    blank = "\u115f\u1160\u3164\uffa0\u2800\u034f"
    return [
        c
        for c in text
        if (unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") and c not in "\n\t")
        or c in blank
        or "VARIATION SELECTOR" in unicodedata.name(c, "")
    ]


def record(names: tuple[str, ...], model: str) -> Profile:
    """A 1×1 convolution for each name, in a layer, a stage, a node and a class of this name; and an operation without a
    rule whose name is that of the model."""
    n, x = len(names), TensorSpec((1, 2, 4, 4))
    unknown = OpSpec(f"x.{model}", Kind.UNKNOWN, (x,), (), (x,), macs=None)
    storages = [s for i in range(n) for s in (n + i if i else 0, 1 + i, n + 1 + i)]
    return Profile(
        model=model, source=model, inputs=(x,),
        layers=(Layer("", model, 0, 1, 0), *(Layer(name, f"x.{name}", 1, 1, 4, stage=name) for name in names)),
        specs=(conv_spec(2, 2, 4, k=1), unknown),
        calls=Calls([*[0] * n, 1], [*range(1, n + 1), 0], [*storages, 2 * n, 2 * n + 1], name=(*names, "")),
        storages=(Storage(0, model, "input", x),
                  *(Storage(1 + i, names[i], "parameter", TensorSpec((2, 2, 1, 1))) for i in range(n))),
        params=4 * n, outputs=(2 * n + 1,), notes=tuple(f"{name} is a note" for name in names) + names,
    )  # fmt: skip


def reports(names: tuple[str, ...], model: str) -> Report:
    """Every layer of the model, and a chart of the layers."""
    profile = record(names, model)
    chart = draw("bottleneck", [profile], top=5)
    report = profile_report("profile", [profile], ["macs"], "macs", Breakdown(layers=True))
    return replace(report, charts=[replace(chart, kind="own")])


@pytest.fixture(scope="module")
def hostile() -> Report:
    return reports(LAYERS, MODEL)


@pytest.fixture(scope="module")
def harmless() -> Report:
    return reports(HARMLESS, "net")


# -- what the parsers see -------------------------------------------------------------------------


class Elements(HTMLParser):
    """The elements of a page, their attributes, comments and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.comments: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {f"{tag} {name}" for name, _ in attrs}
        self.links |= {
            str(value) for name, value in attrs if name in ("href", "src") and not str(value).startswith("#")
        }

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def page_structure(text: str) -> Any:
    """The numbers of elements, without those in charts that depend on the lengths of names."""
    page = Elements(text)
    assert page.comments == []
    assert page.links <= {"data:,"}
    by_length = ("text", "tspan", "wbr", "g", "path", "use")
    return {t: n for t, n in page.tags.items() if t not in by_length}, page.attributes - {"text class", "tspan dx"}


def markdown_structure(text: str) -> Any:
    """The tokens of a document. Texts of a line are one token, empty comments none."""
    kinds = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        kinds.append(token.type)
        for child in token.children or ():
            assert child.type != "html_inline" or child.content == "<!-- -->"
            kinds += [child.type] if child.type not in ("text", "html_inline") else []
    assert not re.search(r"(https?|ftp)://|\bwww\.|@\w|#[0-9]", text), "GitHub makes links of these by itself"
    assert not re.search(r"(?<!\\)[$&]", text), "GitHub reads mathematics and entities"
    return kinds


def csv_structure(text: str) -> Any:
    rows = list(csv.reader(io.StringIO(text, newline="")))
    for cell in (cell for row in rows for cell in row):
        assert cell[:1] not in tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20") or re.fullmatch(r"-?[\d.]+", cell), cell
    return [[cell if re.fullmatch(r"-?[\d.]+", cell) else "text" for cell in row] for row in rows]


def latex_structure(text: str) -> Any:
    """Commands and characters with a meaning in TeX, without those that stand for a character of a name."""
    tokens = re.findall(r"\\[A-Za-z]+|\\.|[&#^~_%]", text.partition("\n")[2])
    characters = {token for value in SPECIAL.values() for token in re.findall(r"\\[A-Za-z]+|\\.", value)}
    assert not re.search(r"^ *[*\[]", text, re.MULTILINE), "a star or bracket would belong to the end of the row before"
    return [token for token in tokens if token not in characters]


def text_structure(text: str) -> Any:
    assert not re.search(r"^\s*::|##(vso|teamcity)?\[", text, re.MULTILINE), "commands of CI systems"
    return len(text.splitlines())


def explorer_structure(text: str) -> Any:
    (graph,) = json.loads(text)["graphs"]
    assert not any(invisible(a["value"]) for node in graph["nodes"] for a in node.get("attrs", ()))
    return [
        (n["id"], n["namespace"].count("/"), n.get("incomingEdges"), len(n.get("attrs", ()))) for n in graph["nodes"]
    ]


def json_structure(value: Any) -> Any:
    if isinstance(value, dict):
        return len(value), list(map(json_structure, value.values()))
    return list(map(json_structure, value)) if isinstance(value, list) else type(value)


STRUCTURES: dict[str, Callable[[str], Any]] = {
    "rich": text_structure,
    "markdown": markdown_structure,
    "csv": csv_structure,
    "latex": latex_structure,
    "html": page_structure,
    "json": lambda text: json_structure(json.loads(text)),
    "model-explorer": explorer_structure,
    "netron": lambda text: {key: len(value) for key, value in json.loads(text).items() if key == "metadata"},
    "node-data": lambda text: json.loads(text)["gradient"],
    "node-mapping": lambda text: json.loads(text)["mappingEntries"],
}


@pytest.mark.parametrize("name", [name for name in RENDERERS.names() if name != "parquet"])
def test_hostile_names_change_no_structure_of_a_report(name: str, hostile: Report, harmless: Report) -> None:
    if name == "rich":  # the caption of a chart has more lines if names are longer
        hostile, harmless = replace(hostile, charts=()), replace(harmless, charts=())
    if name in ("node-mapping", "html"):
        hostile, harmless = (replace(r, profiles=[*r.profiles] * 2) for r in (hostile, harmless))
    text = render(name, hostile).decode()
    assert invisible(text) == []
    nodes = sum("\n" in layer for layer in LAYERS)  # Netron and node data leave out names of several lines
    structure, expected = STRUCTURES[name](text), STRUCTURES[name](render(name, harmless).decode())
    if name == "netron":
        assert structure["metadata"] == expected["metadata"] - 2 * nodes
    else:
        assert structure == expected


def test_hostile_names_in_color_and_in_a_narrow_terminal(hostile: Report) -> None:
    for canvas in (Canvas(40, True), Canvas(200, True), Canvas(40)):
        text = re.sub(r"\x1b\[[\d;]*m", "", render("rich", hostile, canvas).decode())
        assert invisible(text) == []
        assert not re.search(r"^\s*::", text, re.MULTILINE)


def test_json_has_the_exact_names_and_parquet_all_that_are_unicode(hostile: Report) -> None:
    document = json.loads(render("json", hostile))
    assert document["models"][0]["model"] == MODEL
    assert {layer["path"] for layer in document["models"][0]["layers"]} >= set(LAYERS)
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: it is in the extra parquet")
    paths = parquet.read_table(io.BytesIO(render("parquet", hostile))).column("path").to_pylist()
    assert set(paths) >= {name for name in LAYERS if name.isprintable() or "\x1b" in name}


def test_a_slash_in_the_name_of_a_module_does_not_nest_in_model_explorer() -> None:
    (graph,) = json.loads(render("model-explorer", reports(("a/b.conv", "c.d.conv"), "net")))["graphs"]
    assert [node["namespace"] for node in graph["nodes"]][1:3] == ["a%2Fb", "c/d"]


def test_csv_keeps_numbers_and_marks_formulas() -> None:
    records = [{"=a": -5, "b": "-5.1", "c": -1e-9, "d": "=1", "e": "-1%", "f": "−5 %", "g": "-x", "h": None}]
    rows = list(csv.reader(render("csv", Report([], records, {})).decode().splitlines()))
    assert rows == [["'=a", *"bcdefgh"], ["-5", "-5.1", "-1e-09", "'=1", "-1%", "−5 %", "'-x", ""]]


def test_hostile_names_in_a_notebook(hostile: Report, harmless: Report) -> None:
    def table(report: Report) -> Elements:
        text = Comparison((Profile.of(report.profiles[0]), Profile.of(report.profiles[0])))._repr_html_()
        assert invisible(text) == []
        assert text.startswith('<table class="tex2jax_ignore mathjax_ignore">')  # no `$…$` becomes mathematics
        return Elements(text)

    found, expected = table(hostile), table(harmless)
    assert (found.tags, found.attributes, found.links) == (expected.tags, expected.attributes, set())


def test_a_saved_profile_keeps_the_names(hostile: Report, tmp_path: Path) -> None:
    saved = Profile.of(hostile.profiles[0]).save(tmp_path / "x.profile.json")
    names = [layer.path for layer in Profile.load(saved).layers]
    assert names == ["", *(name.encode(errors="backslashreplace").decode() for name in LAYERS)]


def test_repr_and_str_of_a_profile_and_of_an_error_stay_visible(hostile: Report) -> None:
    profile = Profile.of(hostile.profiles[0])
    error = CspprofError("no layer " + "\n".join(HOSTILE), "Use another: " + "\n".join(HOSTILE))
    for text in (repr(profile), str(profile), repr(hostile.charts[0]), str(error)):
        assert invisible(text) == []
        assert not re.search(r"^\s*::", text, re.MULTILINE)
    assert error.message.endswith(HOSTILE[-1])  # the exact text, for programs


# -- charts ---------------------------------------------------------------------------------------


PICTURED = (*HOSTILE[:10], *HOSTILE[18:26])
LEGEND = PICTURED[-4:]


@pytest.fixture(scope="module")
def chart() -> Chart:
    """Bars and points whose every text is hostile, with a legend."""
    first, math = PICTURED[0], LEGEND[0]
    bars = Series(first, "bars", tuple(Mark(i, 1.0, name, text=name) for i, name in enumerate(PICTURED)))
    points = [Series(n, "points", (Mark(1, 1.0 + i, n, text=n),), i) for i, n in enumerate(LEGEND)]
    names = Axis(first, first, low=-1, high=len(PICTURED), tick_labels=tuple(enumerate(PICTURED)))
    values = Axis("y", math, first, low=0, high=9)
    line = ReferenceLine(0.5, f"two\nlines {first}")
    return Chart(
        first, math,
        (Panel(math, names, values, (bars,), (line,), horizontal=True, height=2),
         Panel(first, Axis("x", "x", high=2), values, tuple(points))),
        first, PICTURED,
    )  # fmt: skip


def test_names_in_a_picture_are_text_and_not_mathematics(chart: Chart) -> None:
    from matplotlib.text import Text

    figure = draw_figure(chart, "page")
    texts = [found for found in figure.findobj(Text) if found.get_text()]
    assert [found.get_text() for found in texts if found.get_parse_math()] == []
    assert [found.get_text() for found in texts if invisible(found.get_text())] == []
    assert "$\\frac{1}{0}$" in {found.get_text() for found in texts}
    legend = figure.axes[-1].get_legend()
    assert legend is not None
    assert [text.get_text().strip() for text in legend.get_texts()] == list(LEGEND)  # one starts with an underscore


@pytest.mark.slow
def test_names_in_an_svg_are_valid_xml(chart: Chart) -> None:
    data = image_bytes(chart, "svg", "page")
    assert invisible(data.decode()) == []
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(data).iter()}
    assert not tags & {"script", "a", "image", "foreignObject"}


def test_hostile_names_in_a_chart_of_the_terminal_and_its_data(chart: Chart) -> None:
    report = chart_report(chart, [])
    for name in ("rich", "csv", "markdown", "latex", "json"):
        text = render(name, report).decode()
        assert invisible(text) == []
        STRUCTURES[name](text)


# -- the gate -------------------------------------------------------------------------------------


NAMES = [name for name in HOSTILE if "half" not in name]
"""A TOML file cannot contain halves of surrogate pairs."""


def gate_verdict(name: str) -> Verdict:
    bad = replace(result(name, 120, model=name, layer=name), message=f"{name} is large", hint=name)
    cause = Cause(name, bad.value, None, name, name, name, "net.py", 3)
    return verdict(replace(bad, causes=(cause,)), problems=(Problem(name, name, name, None),))


@pytest.fixture
def outputs_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """The output of a format for a verdict with each hostile name."""
    monkeypatch.chdir(tmp_path)

    def of(kind: str) -> list[str]:
        texts = [FORMATS.get(kind)(gate_verdict(name)) for name in NAMES]
        assert [invisible(text) for text in texts if invisible(text)] == []
        return texts

    return of


def test_a_workflow_command_has_only_the_fields_of_its_message(outputs_of: Callable[[str], list[str]]) -> None:
    for text in outputs_of("github"):
        *commands, summary = text.removesuffix("\n").split("\n")
        assert len(commands) == 2
        assert all(re.match(r"::error file=[\w.%]+,line=\d+,title=[^:,]*::", line) for line in commands)
        assert re.match(r"\d", summary)


def test_concise_lines_are_no_commands(outputs_of: Callable[[str], list[str]]) -> None:
    assert {text_structure(text) for text in outputs_of("concise")} == {4}


def test_junit_has_the_same_elements_for_every_name(outputs_of: Callable[[str], list[str]]) -> None:
    expected = [e.tag for e in ElementTree.fromstring(FORMATS.get("junit")(gate_verdict("rule"))).iter()]
    for name, text in zip(NAMES, outputs_of("junit"), strict=True):
        root = ElementTree.fromstring(text)
        assert [element.tag for element in root.iter()] == expected
        assert root[0][0].get("classname") == printable(name)


@pytest.mark.parametrize("kind", ["sarif", "gitlab", "bencher", "github-action-benchmark"])
def test_json_for_ci_systems_has_the_same_fields_for_every_name(
    kind: str, outputs_of: Callable[[str], list[str]]
) -> None:
    expected = json_structure(json.loads(FORMATS.get(kind)(gate_verdict("rule"))))
    for text in outputs_of(kind):
        assert json_structure(json.loads(text)) == expected
        if kind == "sarif":
            messages = re.findall(r'"text": (".*")', text)
            assert messages
            assert not any(re.search(r"(?<!\\)\[[^\[\]]*\]\(", json.loads(m)) for m in messages), "a link in a message"


def test_the_summary_of_a_job_has_the_same_tokens_for_every_name() -> None:
    expected = markdown_structure(render("markdown", verdict_report(gate_verdict("rule"), why=True)).decode())
    for name in NAMES:
        text = render("markdown", verdict_report(gate_verdict(name), why=True)).decode()
        assert markdown_structure(text) == expected, name
        assert invisible(text) == []


def test_a_rule_whose_name_has_a_line_break_prints_no_command(
    run: Run, chain: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    chain.save(tmp_path / "x.profile.json")
    (tmp_path / "cspprof.toml").write_text(
        '[models."m\\n::error::owned\\u001b[31m"]\ntarget = "x.profile.json"\n\n[[rules]]\n'
        'id = "r\\n::error::owned\\u202e"\nmetric = "macs"\nmax = 1\n\n[[rules]]\nid = "\\n::add-mask::r"\n'
        'metric = "macs"\nmax_increase = "0%"\n'
    )
    for kind in ("rich", "concise", "markdown", "junit=j.xml"):
        got = run("check", "--why", "--format", kind)
        assert got.code == 1
        for text in (got.out, got.err):
            assert invisible(text) == []
            assert not re.search(r"^\s*::", text, re.MULTILINE)


# -- files that are written for the user ------------------------------------------------------------


def test_init_writes_toml_that_names_the_files_of_the_project(tmp_path: Path) -> None:
    names = ["\x7f\x1b[31m.py", 'a"]\n[[rules]]\nid = "owned.py', "größe.py", "\U0001f600.py", "\\u.py"]
    for name in names:
        (tmp_path / name).write_text("from torch import nn\nclass Größe(nn.Module): pass\n")
    (tmp_path / "half\udcff.py").write_text("from torch import nn\nclass Net(nn.Module): pass\n")
    text = config_text(find_models(tmp_path))
    config = tomllib.loads(text)
    assert sorted(model["target"] for model in config["models"].values()) == sorted(f"{n}:Größe" for n in names)
    assert [rule["id"] for rule in config["rules"]] == ["no-more-cio", "no-more-macs"]
    assert invisible(text) == []
    assert "größe" in tomllib.loads(config_text([Factory("größe.py", "Größe")]))["models"]
    many = [Factory(f"{i}\n[[rules]]\nid = 1\n.py", f"Net{i}") for i in range(20)]
    assert len(tomllib.loads(config_text(many))["rules"]) == 2


def test_completion_offers_no_file_that_a_shell_would_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("fine.cfg", "a$(b).cfg", "a`b`.cfg", "a\\$(b).cfg", "a'b.cfg", 'a"b.cfg', "a\nb.cfg", "a\x1b.cfg"):
        Path(name).touch()
    assert [name for name in complete_spec("") if name.endswith(".cfg")] == ["fine.cfg"]


def test_generated_code_has_the_names_only_in_its_docstring() -> None:
    from torch import nn

    from cspprof.csp.conversion.source_code import source_code

    def parsed(name: str) -> ast.Module:
        return ast.parse(source_code(name, nn.Sequential(), [], ("import os", "os.build()")))

    expected = [type(node) for node in parsed("net").body]
    for name in (*HOSTILE, '"""\nimport os\n"""', "\\", '\\"""', 'x"'):
        module = parsed(name)
        assert [type(node) for node in module.body] == expected
        assert (ast.get_docstring(module, clean=False) or "").startswith(f"{printable(name)} with cross stage")


def test_a_message_that_becomes_longer_when_it_is_made_printable_is_cut() -> None:
    text = str(CspprofError("\t" * 2_000, "\x1b" * 2_000))
    assert len(text) < 2 * 2_001
    assert text.count("…") == 2
