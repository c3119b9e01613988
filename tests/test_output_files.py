"""Files that commands write: the ending sets the format, no file of another kind is replaced, each one is named."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ONE_CONV, Result, quick

import cspprof
from cspprof.core.errors import OutputError
from cspprof.gate.formats import FORMATS
from cspprof.render import RENDERERS, render
from cspprof.report.layer_tables import Breakdown
from cspprof.report.profile import CIO_METRICS, profile_report

pytestmark = pytest.mark.slow

Run = Callable[..., Result]

ENDINGS = (
    ".csv, .explorer.json, .htm, .html, .json, .md, .netron.json, .node-data.json, .node-mapping.json, "
    ".parquet, .tex, .txt"
)

FOREIGN = {
    "train.py": "import torch\n",
    "package.json": '{\n  "name": "web"\n}\n',
    "README.md": "# My network\n\n| a | b |\n| --- | --- |\n",
    "requirements.txt": "torch\ncspprof\n",
    "data.csv": "id,label\n1,cat\n",
    "paper.tex": "\\documentclass{article}\n",
    "index.html": "<!DOCTYPE html><title>Our quarter</title>\n",
    "cat.parquet": "no parquet",
    "net.explorer.json": '{"label": "mine"}',
    "net.netron.json": '{"nodes": []}',
    "net.node-data.json": '{"name": "mine"}',
    "net.node-mapping.json": '{"type": "sync_navigation"}',
}
"""Files of other programs by name, one for every format and a Python file."""


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path().iterdir()}


# -- endings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.xlsx", "x.tsv", "x", "x.json.gz", "x.jpg", "train.py", "x.json.bak"])
def test_an_ending_without_a_format_is_refused_with_the_endings(run: Run, name: str) -> None:
    got = run("cio", "resnet10", "-o", name)
    assert (got.code, got.out, contents()) == (2, "", {})
    assert f"no format has the ending of {name}\n  Use one of these endings: {ENDINGS}" in got.err
    if hint := re.search(r"name the format: (.*)", got.err):
        assert run("cio", "resnet10", *shlex.split(hint[1])).code == 0
        assert list(contents()) == [name]


@pytest.mark.parametrize("name", ["b.png", "B.SVG", "b.pdf"])
@pytest.mark.parametrize("options", [(), ("--format", "json")])
def test_an_image_is_refused_by_commands_that_draw_none(run: Run, name: str, options: tuple[str, ...]) -> None:
    got = run("bottleneck", "resnet10", "-o", name, *options)
    assert (got.code, got.out, contents()) == (2, "", {})
    assert f"{name} is the name of an image, and this command writes none\n  Charts: cspprof plot KIND SPEC" in got.err


@pytest.mark.parametrize(
    ("format_name", "name"), [("json", "x.csv"), ("csv", "x.json"), ("rich", "x.md"), ("json", "net.py")]
)
def test_a_format_is_not_written_under_the_ending_of_another(run: Run, format_name: str, name: str) -> None:
    got = run("cio", "resnet10", "--format", format_name, "-o", name)
    assert (got.code, contents()) == (2, {})
    hint = re.search(r"Write: (-o .*)", got.err)
    assert hint is not None
    assert run("cio", "resnet10", "--format", format_name, *shlex.split(hint[1])).code == 0


@pytest.mark.parametrize(("format_name", "name"), [("json", "x.log"), ("csv", "x.tsv"), ("model-explorer", "x.json")])
def test_a_named_format_takes_a_free_ending(run: Run, format_name: str, name: str) -> None:
    assert run("cio", "resnet10", "--format", format_name, "-o", name).code == 0
    assert list(contents()) == [name]


def test_the_name_of_a_saved_profile_is_refused(run: Run) -> None:
    got = run("cio", "resnet10", "-o", "net.profile.json")
    assert (got.code, contents()) == (2, {})
    assert "Write it with: cspprof profile SPEC --save net.profile.json" in got.err
    assert run("profile", "resnet10", "--save", "net.profile.json").code == 0


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("x.json", "x.profile.json"),
        ("x.profile", "x.profile.json"),
        ("x", "x.profile.json"),
        ("x.json.gz", "x.profile.json.gz"),
        ("x.pt", "x.profile.json"),
        ("sub/a b.json", "sub/a b.profile.json"),
    ],
)
def test_another_name_of_a_saved_profile_is_refused_with_the_right_one(run: Run, name: str, advice: str) -> None:
    Path("sub").mkdir()
    got = run("profile", "resnet10", "--save", name)
    assert got.code == 2
    hint = re.search(r"Write: (--save .*)", got.err)
    assert hint is not None
    assert shlex.split(hint[1]) == ["--save", advice]
    assert run("profile", "resnet10", *shlex.split(hint[1])).code == 0
    assert Path(advice).is_file()


# -- existing files -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_program_is_not_replaced(run: Run, name: str) -> None:
    Path(name).write_text(FOREIGN[name])
    got = run("cio", "resnet10", "-o", name)
    assert (got.code, got.out) == (2, "")
    if name != "train.py":
        kind = "a report" if name == "index.html" else "an output"
        assert f"{name} exists and is not {kind} of cspprof\n  Name another file: -o FILE" in got.err
    assert Path(name).read_text() == FOREIGN[name]


@pytest.mark.parametrize("name", ["train.py", "model.onnx"])
def test_convert_replaces_only_code_and_graphs_that_it_wrote(run: Run, name: str) -> None:
    foreign = b"\x08\x08\x12\x07pytorch" if name == "model.onnx" else FOREIGN["train.py"].encode()
    Path(name).write_bytes(foreign)
    got = run("convert", "resnet10", "-o", name)
    assert (got.code, got.out) == (2, "")
    assert f"{name} exists and is not an output of cspprof\n  Name another file: -o FILE" in got.err
    assert Path(name).read_bytes() == foreign
    Path(name).unlink()
    assert run("convert", "resnet10", "-o", name).err.endswith(f"wrote {name}\n")
    assert run("convert", "resnet10", "-o", name).err.endswith(f"replaced {name}\n")


def test_convert_checks_the_names_of_saved_profiles_before_it_converts(run: Run) -> None:
    got = run("convert", "resnet10", "--save", "a.txt", "b.profile.json")
    assert (got.code, got.out, contents()) == (2, "", {})
    assert "Write: --save a.profile.json" in got.err


@pytest.mark.parametrize("format_name", RENDERERS.names())
def test_no_format_replaces_a_file_of_another_program_or_of_another_format(format_name: str) -> None:
    is_own = RENDERERS.get(format_name).is_own
    assert not [name for name, text in FOREIGN.items() if is_own(text.encode())]


@pytest.mark.parametrize(
    "format_name", [n for n in RENDERERS.names() if n not in ("netron", "node-data", "node-mapping")]
)
def test_each_format_recognizes_its_own_output_and_no_other_one(format_name: str) -> None:
    if format_name == "parquet":
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    report = profile_report("cio", [cspprof.profile("resnet10")], CIO_METRICS, "macs", Breakdown())
    head = render(format_name, report)[:8192]
    recognizing = [name for name in RENDERERS.names() if RENDERERS.get(name).is_own(head)]
    assert recognizing == [format_name]


COMMANDS = """\
profile resnet10
cio resnet10 --layers
profile resnet10 --by kind
profile resnet10 --depth 1
bottleneck resnet10
whatif resnet10 --size 64
models --family vgg
models --family vgg --papers
metrics
explain moc
explain cio
explain gamma
explain conventions
explain closed-form
cache info
plot fig7 resnet10
plot pareto resnet10 vgg16 --y cio
plot stages resnet10 resnet50
plot memory resnet10
plot roofline resnet10
plot closed-form
closed-form
closed-form --list
closed-form dense --c 8 --m 2 --d 4
closed-form --c 8 --m 2 --d 4 --over gamma
closed-form dense --c 8 --m 2 --d 4 --check
verify resnet10
reproduce fig8
check
check --format json=x.json --format markdown=x.md --format csv=x.csv
check --format gitlab=x.gitlab --format junit=x.xml --format sarif=x.sarif --format concise=x.log
check --format bencher=x.bencher --format github-action-benchmark=x.benchmark --format github=x.github
baseline show
""".splitlines()


@pytest.mark.parametrize("command", quick(COMMANDS, {"profile resnet10", "metrics", "explain cio", COMMANDS[-2]}))
def test_a_command_replaces_its_own_output(run: Run, command: str) -> None:
    Path("net.py").write_text(ONE_CONV.format(imports="", width=8))
    assert run("init").code == 0
    assert run("check", "--update-baseline").code == 0
    files = ["-o x.csv", "-o x.json", "-o x.md", "-o x.tex", "-o x.txt"] if not command.startswith("check") else [""]
    for verb in ("wrote", "replaced"):
        for file in files:
            got = run(*command.split(), *file.split())
            assert got.code == 0, got.err
            if file:
                assert f"{verb} {file[3:]}\n" in got.err
    for file in re.findall(r"=(\S+)", command):
        assert Path(file).stat().st_size


@pytest.mark.parametrize("kind", FORMATS.names())
def test_a_verdict_does_not_replace_a_file_of_another_program(run: Run, kind: str) -> None:
    Path("net.py").write_text(ONE_CONV.format(imports="", width=8))
    assert run("init").code == 0
    before = contents()["net.py"]
    got = run("check", "--format", f"{kind}=net.py")
    assert (got.code, got.out) == (2, "")
    assert f"net.py exists and is not an output of cspprof\n  Name another file: --format {kind}=FILE" in got.err
    assert contents()["net.py"] == before


def test_a_saved_profile_replaces_only_a_saved_profile(run: Run) -> None:
    for name in ("a.profile.json", "b.profile.json.gz"):
        Path(name).write_text("mine")
        refused = run("profile", "resnet10", "--save", name)
        assert refused.code == 2
        assert f"{name} exists and is not a saved profile of cspprof\n  Name another file: --save FILE" in refused.err
        assert Path(name).read_text() == "mine"
        with pytest.raises(OutputError, match="is not a saved profile"):
            cspprof.profile("resnet10").save(name)
        Path(name).unlink()
        for verb in ("wrote", "replaced"):
            assert f"{verb} {name}\n" in run("profile", "resnet10", "--save", name).err


@pytest.mark.slow
@pytest.mark.parametrize("image", ["x.png", "x.svg", "x.pdf"])
def test_a_chart_replaces_only_a_chart_and_the_data_of_a_chart(run: Run, image: str) -> None:
    pytest.importorskip("matplotlib")
    Path("x.csv").write_text(FOREIGN["data.csv"])
    refused = run("plot", "fig7", "resnet10", "-o", image)
    assert refused.code == 2
    assert "x.csv exists and is not the data of a chart of cspprof" in refused.err
    assert contents() == {"x.csv": FOREIGN["data.csv"].encode()}
    Path("x.csv").unlink()
    assert run("plot", "fig7", "resnet10", "-o", image).err.startswith(f"wrote {image} and x.csv\n")
    assert run("plot", "fig7", "resnet10", "-o", image).err.startswith(f"replaced {image} and x.csv\n")
    Path(image).write_bytes(b"\x89PNG\r\n\x1a\n a photo" if image == "x.png" else b"<svg>a drawing</svg>")
    assert f"{image} exists and is not a chart of cspprof" in run("plot", "fig7", "resnet10", "-o", image).err


def test_an_empty_file_and_a_device_can_be_written(run: Run) -> None:
    Path("x.json").touch()
    assert run("metrics", "-o", "x.json").code == 0
    written = run("metrics", "-o", "/dev/null")
    assert (written.code, written.out, written.err) == (0, "", "")


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_a_dash_is_standard_output(run: Run, name: str) -> None:
    assert run("metrics", "--format", "csv", "-o", name) == run("metrics", "--format", "csv")
    assert contents() == {}


def test_a_link_stays_a_link_and_its_file_is_written(run: Run) -> None:
    Path("x.csv").symlink_to("y.csv")
    assert run("metrics", "-o", "x.csv").code == 0
    assert (Path("x.csv").is_symlink(), Path("y.csv").read_text()[:5]) == (True, "name,")
