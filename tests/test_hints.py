"""Hints of errors: each is printed in a situation, and what it says to type works.

The hints are collected from the source. `SITUATIONS` prints them and follows them. A hint without a situation is
allowed only as far as `WITHOUT_SITUATION` says; that number only falls.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from conftest import CHECKOUT, ONE_CONV, Result, quick

import cspprof

Run = Callable[..., Result]

PACKAGE = CHECKOUT / "cspprof"


# -- the hints in the source ----------------------------------------------------------------------


@dataclass(frozen=True)
class Hint:
    """A hint in the source: its file, its text with {} for values, and a pattern of what is printed."""

    file: str
    text: str
    pattern: str


@cache
def hints() -> tuple[Hint, ...]:
    """The hints of all `…Error(message, hint)` calls that have fixed words, in the order of the source."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1].endswith("Error"):
                given = node.args[1:2] + [k.value for k in node.keywords if k.arg == "hint"]
                for expression in (part for hint in given for part in _alternatives(hint)):
                    text, pattern = _template(expression)
                    if re.search("[A-Za-z]{2}", text):
                        found.append(Hint(path.relative_to(PACKAGE).as_posix(), text, pattern))
    return tuple(dict.fromkeys(found))


def _alternatives(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.IfExp):
        yield from _alternatives(node.body)
        yield from _alternatives(node.orelse)
    else:
        yield node


def _template(node: ast.expr) -> tuple[str, str]:
    """The text of an expression with {} for values, and a regular expression for its results."""
    if isinstance(node, ast.Constant):
        return str(node.value), re.escape(str(node.value))
    if isinstance(node, ast.JoinedStr):
        parts = [_template(value) for value in node.values]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [_template(node.left), _template(node.right)]
    else:
        return "{}", ".*"
    return "".join(text for text, _ in parts), "".join(pattern for _, pattern in parts)


# -- the situations -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Situation:
    """A command that prints a hint, the words that the hint says to type, and a command with these words."""

    command: str
    words: str
    then: str

    def __str__(self) -> str:
        return self.command


def situations(text: str) -> list[Situation]:
    """One situation per line: the command, the words of the hint, the command that follows them."""
    return [Situation(*(part.strip() for part in line.split(" | "))) for line in text.strip().splitlines()]


SITUATIONS = situations("""
cio resnext5 | resnext50 | cio resnext50
cio qqqq | cspprof models | models --papers
cio regnet_y_400mf | torchvision:regnet_y_400mf | cio torchvision:regnet_y_400mf
cio net.py | net.py:Net | cio net.py:Net
cio net.py: | net.py:Net | cio net.py:Net
cio net.py::Net | net.py:Net | cio net.py:Net
cio nets | nets/net.py:Net | cio nets/net.py:Net
cio ne.py:Net | net.py | cio net.py:Net
cio net.py:Nat | Net | cio net.py:Net
cio nets/net:Net | nets/net.py | cio nets/net.py:Net
cio weights.pth | path/to/file.py:factory | cio net.py:Net
cio net.tflite | net.onnx | cio net.py:Net
cio config.json | path/to/file.py:factory | cio net.py:Net
cio out.json | cspprof profile SPEC --save x.profile.json | profile net.py:Net --save x.profile.json
cio hyper.yaml | path/to/file.py:factory | cio net.py:Net
cio https://example.org/net.py:Net | name it | cio net.py:Net
cio nope:Net | path/to/file.py:factory | cio net.py:Net
cio net.py:Net,width | name=value | cio net.py:Net,width=4
cio net.py:Net,width=4,width=8 | once | cio net.py:Net,width=4
cio net.py:Net,wdth=4 | width | cio net.py:Net,width=4
cio 'net.py:Net,width=(4' | Quote the SPEC | cio 'net.py:Net,width=4'
cio resnet10 --input 3x | --input 1x3x256x256 | cio resnet10 --input 1x3x256x256
cio resnet10 --dtype float12 | float16 | cio resnet10 --dtype float16
cio resnet10 --dtype int8 | --input ids=1x128:int64 | whatif lm.py:Net --input ids=1x128:int64
cio resnet10 --device tpu | cpu | cio net.py:Net --device cpu
cio resnet10 --format jsn | json | cio resnet10 --format json
cio resnet10 --by module | --depth 1 | cio resnet10 --depth 1
cio resnet10 --by kind --depth 1 | one of them | cio resnet10 --by kind
cio resnet10 --layers --by kind | one of them | cio resnet10 --layers
cio resnet10 --sort mac | macs | cio resnet10 --sort macs
cio resnet10 --ascending | --sort moc --ascending | cio resnet10 --sort moc --ascending
cio resnet10 --sort peak_bytes | macs | cio resnet10 --sort macs
cio resnet10 --format json --format csv | once | cio resnet10 --format json
cio resnet10 --convention fvcor | fvcore | cio resnet10 --convention fvcore
compare resnet10 resnet10 --metric moc | cio_cspnet | compare resnet10 resnet10 --metric cio_cspnet
compare resnet10 | cspprof profile resnet10 | profile resnet10
models --papers --sort macs | one of them | models --papers
models --papers --family rnn | darknet | models --papers --family darknet
models --ascending | --sort moc --ascending | models --family vgg --sort moc --ascending
explain gama | gamma | explain gamma
explain moc --model resnet10 | cspprof explain conventions --model SPEC | explain conventions --model resnet10
whatif resnet10 --batch 0 | --batch 1,8 | whatif resnet10 --batch 1,8
whatif resnet10 --size 1x2x3 | --size 256x320 | whatif resnet10 --size 256x320
whatif resnet10 --size 64 --input 1x3x64x64 | --input 1x3x224x224,1x3x256x256 | whatif resnet10 --input 1x3x8x8,1x3x9x9
whatif lm2.py:Net --size 8 | --input 1x128:int64,1x512:int64 | whatif lm2.py:Net --input 1x128:int64,1x512:int64
whatif lm.py:Net --input ids=1x8:int64,1x9:int64 --input mask=1x8,1x9,1x7 | shapes | whatif lm.py:Net --input ids=1x8:int64
profile resnet10 --save x.json | --save x.profile.json | profile resnet10 --save x.profile.json
profile resnet10 net.py:Net --save x.profile.json | one SPEC | profile resnet10 --save x.profile.json
cio resnet10 -o x.xlsx | --format csv -o x.xlsx | cio resnet10 --format csv -o x.xlsx
cio resnet10 -o train.py | .csv | cio resnet10 -o train.csv
cio resnet10 -o b.png | cspprof plot KIND SPEC… -o b.png | plot fig7 resnet10 -o b.png
cio resnet10 -o net.profile.json | cspprof profile SPEC --save net.profile.json | profile net.py:Net --save net.profile.json
cio resnet10 --format json -o x.csv | -o x.json | cio resnet10 --format json -o x.json
cio resnet10 -o mine.csv | -o FILE | cio resnet10 -o x.csv
cio resnet10 -o nets | in that folder | cio resnet10 -o nets/x.csv
cio resnet10 -o nowhere/x.csv | mkdir -p nowhere | cio resnet10 -o x.csv
metrics -o x.html | cspprof report SPEC… -o report.html | report resnet10 -o report.html
metrics --format model-explorer | cspprof profile SPEC -o model.explorer.json | profile resnet10 -o model.explorer.json
cio resnet10 --format netron | model-explorer | cio resnet10 --format model-explorer
report resnet10 -o r.pdf | -o r.html | report resnet10 -o r.html
plot fig77 resnet10 | fig7 | plot fig7 resnet10
plot fig7 resnet10 -o x.jpg | .png | plot fig7 resnet10 -o x.png
plot fig7 resnet10 --top 2 | --metric | plot fig7 resnet10 --metric macs
plot memory resnet10 --metric macs | no options | plot memory resnet10
plot fig7 resnet10 --width wide | page | plot fig7 resnet10 --width page -o x.png
closed-form dens --c 8 --m 2 --d 4 | dense | closed-form dense --c 8 --m 2 --d 4
closed-form dense --c 8 | --m N | closed-form dense --c 8 --m 2 --d 4
closed-form dense --c 8 --m 2 --d 4 --gamma 2 | --gamma 1/2 | closed-form dense --c 8 --m 2 --d 4 --gamma 1/2
closed-form dense --c 8 --m 2 --d 4 --gamma half | --gamma 0.25 | closed-form dense --c 8 --m 2 --d 4 --gamma 0.25
closed-form partial --c 9 --m 2 --d 4 --gamma 1/2 | --gamma | closed-form partial --c 9 --m 2 --d 4 --gamma 1/3
closed-form dense --c 8 --check --over m | one of them | closed-form dense --c 8 --m 2 --d 4 --check
closed-form dense --latex --c 8 | the numbers | closed-form dense --latex
check | cspprof init | init
baseline show --config toml | cspprof check --update-baseline | check --config toml --update-baseline
check --config toml --format jnit=x.xml | junit | check --config toml --format junit=x.xml
check --config toml --update-baseline --format junit | rich | check --config toml --update-baseline --format rich
check --config toml --update-baseline --against main | one of them | check --config toml --update-baseline
cio gone.profile.json | cspprof profile SPEC --save FILE | profile net.py:Net --save gone.profile.json
cio net2.profile.json --train | cspprof profile resnet10 --train --save x.profile.json | profile resnet10 --train --save x.profile.json
verify net2.profile.json | file.py:factory | cio net.py:Net
""")

RULE = '[[rules]]\nid = "budget"\nmetric = "macs"\nmax = "1 G"\n'

EMBEDDING = """\
from torch import nn

class Net(nn.Module):
{shape}
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(10, 16), nn.Linear(16, 10)

    def forward(self, ids, mask=None):
        x = ids if ids.is_floating_point() else self.head(self.embedding(ids))
        return x if mask is None else x * mask[..., None]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the situations name."""
    monkeypatch.chdir(tmp_path)
    net = ONE_CONV.format(imports="", width="width").replace("def __init__(self)", "def __init__(self, width=8)")
    for folder in ("nets", "toml"):
        Path(folder).mkdir()
    for file in ("net.py", "nets/net.py", "toml/net.py"):
        Path(file).write_text(net)
    Path("lm.py").write_text(EMBEDDING.format(shape=""))
    Path("lm2.py").write_text(EMBEDDING.format(shape="    example_input_shape = (1, 4)\n"))
    Path("toml/cspprof.toml").write_text('[models.net]\ntarget = "net.py:Net"\n\n' + RULE)
    Path("weights.pth").touch()
    Path("config.json").write_text("{}")
    Path("hyper.yaml").write_text("width: 4\n")
    Path("mine.csv").write_text("id,label\n1,cat\n")
    Path("out.json").write_text('{\n  "schema": "cspprof.cio/1"\n}\n')
    cspprof.profile("resnet10").save("net2.profile.json")


def hint_of(result: Result) -> str:
    """The hint that a command printed: the indented lines below its error."""
    return "\n".join(line[2:] for line in result.err.partition("error: ")[2].splitlines()[1:] if line.startswith("  "))


def matching(printed: str) -> list[Hint]:
    return [hint for hint in hints() if re.fullmatch(f"(?s:{hint.pattern})", printed)]


FAST = ("--format", "--sort", "--by", "-o x.xlsx", "--ascending", "explain gama")


@pytest.mark.parametrize(
    "situation", quick(SITUATIONS, [s for s in SITUATIONS if any(word in s.command for word in FAST)]), ids=str
)
@pytest.mark.usefixtures("project")
def test_a_hint_says_what_to_type_and_it_works(situation: Situation, run: Run) -> None:
    for library in ("torchvision", "timm"):
        if f"{library}:" in situation.then:
            pytest.importorskip(library, reason="the extra is not installed")
    failed = run(*shlex.split(situation.command))
    assert failed.code == 2
    assert situation.words in hint_of(failed), failed.err
    followed = run(*shlex.split(situation.then))
    assert followed.code == 0, followed.err


# -- every hint has a situation -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_hints_without_a_situation_become_fewer(run: Run) -> None:
    printed = {hint_of(run(*shlex.split(s.command))) for s in SITUATIONS}
    covered = {hint for text in printed for hint in matching(text)}
    missing = Counter(hint.file for hint in hints() if hint not in covered)
    more = {file: n for file, n in missing.items() if n > WITHOUT_SITUATION.get(file, 0)}
    listed = "\n".join(f"{h.file}: {h.text}" for h in hints() if h.file in more and h not in covered)
    assert not more, f"add situations for new hints:\n{listed}"


WITHOUT_SITUATION: dict[str, int] = {}
"""The number of hints in a file that no situation prints yet."""
