"""SPECs: the grammar, and every source of models and profiles."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Result
from hypothesis import given, settings
from hypothesis import strategies as st

import cspprof
from cspprof.core.errors import SourceError
from cspprof.core.record import TensorSpec
from cspprof.profiles import Profile, profile_spec
from cspprof.sources import Request, parse

NET = """
    from torch import nn
    from sibling import WIDTH

    class Net(nn.Module):
        def __init__(self, width=WIDTH, act=None):
            super().__init__()
            self.conv = nn.Conv2d(3, width, 3)
        def forward(self, x):
            return self.conv(x)

    class Needy(Net):
        def __init__(self, depth, width):
            super().__init__(width)

    class Own(Net):
        example_input_shape = (1, 3, 9, 9)

    made = Net(2)
    def build(**options):
        return Net(**options)
    def nothing():
        return None
    def broken():
        raise KeyError("weights")
    number = 3
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "sibling.py").write_text("WIDTH = 4\n")
    file = tmp_path / "net.py"
    file.write_text(textwrap.dedent(NET))
    return file


# -- the grammar ----------------------------------------------------------------------------------


def test_options_are_literals_or_strings() -> None:
    spec = parse("csp_peleenet,fusion=last,depths=(3,4,8,6),gamma=0.25,se=True,act='a,b'")
    assert spec.target == "csp_peleenet"
    assert spec.options == {"fusion": "last", "depths": (3, 4, 8, 6), "gamma": 0.25, "se": True, "act": "a,b"}


values = st.one_of(st.integers(), st.booleans(), st.none(), st.text("abcxyz,'\"()[]"), st.floats(allow_nan=False))
nested = st.recursive(values, lambda v: st.one_of(st.lists(v), st.tuples(v, v), st.dictionaries(st.text("ab"), v)))


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text("abc_", min_size=1), nested, max_size=4))
def test_options_written_by_python_are_parsed_unchanged(options: dict[str, object]) -> None:
    if any(v != v or v in (float("inf"), float("-inf")) for v in options.values() if isinstance(v, float)):
        return
    text = ",".join(["net", *(f"{k}={v!r}" for k, v in options.items())])
    if "inf" not in text:
        assert parse(text).options == options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no model"),
        ("net,width", "cannot read the option 'width'"),
        ("net,a=1,a=2", "the option 'a' appears twice"),
        ("net,d=(1,2", "is not closed"),
        ("net,d=1)", "is not closed"),
    ],
)
def test_wrong_grammar_is_refused(text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ("cfg=/home/somebody/nets/tiny.yaml", "cfg=tiny.yaml"),
        ("cfg='/home/somebody/nets/tiny.yaml'", "cfg=tiny.yaml"),
        ("cfg=file:///home/somebody/nets/tiny.yaml", "cfg=tiny.yaml"),
        (r"cfg=C:\Users\somebody\tiny.yaml", "cfg=tiny.yaml"),
        ("cfgs=('/home/somebody/a.yaml', 'b.yaml')", "cfgs=('a.yaml', 'b.yaml')"),
        ("cfg={'path': '/home/somebody/a.yaml'}", "cfg={'path': 'a.yaml'}"),
        ("cfg=nets/tiny.yaml", "cfg=nets/tiny.yaml"),
        ("depths=(3,4)", "depths=(3,4)"),
        ("act='relu'", "act='relu'"),
    ],
)
def test_a_profile_contains_no_absolute_path_of_an_option(tmp_path: Path, option: str, shown: str) -> None:
    assert parse(f"resnet50,{option},width=4").portable_text == f"resnet50,{shown},width=4"
    (tmp_path / "net.py").write_text(
        "from torch import nn\nexample_input_shape = (1, 3, 4, 4)\ndef f(**options):\n    return nn.Conv2d(3, 1, 1)\n"
    )
    p = profile_spec(f"{tmp_path}/net.py:f,{option}")
    assert (p.model, p.source) == (f"net.py:f,{shown}",) * 2
    assert "somebody" not in p.save(tmp_path / "x.profile.json").read_text()


# -- factories ------------------------------------------------------------------------------------


def test_a_factory_in_a_file_with_a_sibling(net: Path) -> None:
    before = list(sys.path)
    p = profile_spec(f"{net}:Net", Request(inputs=(1, 3, 8, 8)))
    assert (p.model, p.total("macs")) == ("net.py:Net", 27 * 4 * 36)
    assert sys.path == before
    assert str(net.parent) not in json.dumps([p.source, p.model, *p.notes])


@pytest.mark.parametrize(("what", "width"), [("Net,width=5", 5), ("build,width=6", 6), ("made", 2)])
def test_a_factory_is_a_class_a_function_or_a_module(net: Path, what: str, width: int) -> None:
    assert profile_spec(f"{net}:{what}", Request(inputs=(1, 3, 8, 8))).total("macs") == 27 * 36 * width


def test_the_default_input_is_declared_or_noted(net: Path) -> None:
    own, assumed = profile_spec(f"{net}:Own"), profile_spec(f"{net}:Net")
    assert (own.inputs[0].shape, own.notes) == ((1, 3, 9, 9), ())
    assert assumed.inputs[0].shape == (1, 3, 224, 224)
    assert assumed.notes == ("no input given for net.py:Net: 1x3x224x224 assumed (--input changes it)",)


def test_a_factory_in_an_importable_module(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(net.parent)
    monkeypatch.setattr(sys, "path", sys.path)
    assert profile_spec("net:Net", Request(inputs=(1, 3, 8, 8))).total("macs") == 27 * 4 * 36


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("Nat", r"has no 'Nat'\nDid you mean: .*Net"),
        ("Net,wdth=3", r"unexpected keyword argument 'wdth'\nIt accepts: width=4, act=None"),
        ("Needy", r"missing a required argument: 'depth'\nGive depth, width: .*net.py:Needy,depth=…,width=…"),
        ("nothing", "returns an object of type NoneType, not a torch.nn.Module"),
        ("number", "is a int, not a class, function or module"),
        ("made,width=3", "is already a module and takes no options"),
        ("broken", r"failed: KeyError: 'weights' \(net.py, line \d+\)"),
    ],
)
def test_errors_of_a_factory(net: Path, what: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        profile_spec(f"{net}:{what}")


def test_errors_of_an_import(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def f(:\n")
    (tmp_path / "raises.py").write_text("import nowhere_at_all\n")
    with pytest.raises(SourceError, match=r"bad.py, line 1: invalid syntax"):
        profile_spec(f"{tmp_path}/bad.py:f")
    with pytest.raises(SourceError, match="ModuleNotFoundError: No module named 'nowhere_at_all'"):
        profile_spec(f"{tmp_path}/raises.py:f")
    with pytest.raises(SourceError, match="there is no file"):
        profile_spec(f"{tmp_path}/missing.py:f")
    with pytest.raises(SourceError, match="there is no module 'nowhere_at_all'"):
        profile_spec("nowhere_at_all:f")


def test_relative_imports_of_siblings(tmp_path: Path) -> None:
    (tmp_path / "widths.py").write_text("W = 5\n")
    text = "from torch import nn\nfrom .widths import W\ndef f(): return nn.Conv2d(3, W, 1)\n"
    (tmp_path / "net.py").write_text(text)
    before = set(sys.modules)
    assert profile_spec(f"{tmp_path}/net.py:f").params == 20
    assert "widths" not in sys.modules
    assert not {m for m in set(sys.modules) - before if m.startswith("cspprof_user")}


@pytest.mark.parametrize("how", ["from widths import W", "from .widths import W", "from pkg.widths import W"])
def test_two_folders_keep_their_own_siblings(tmp_path: Path, how: str) -> None:
    for folder, width in (("old", 1), ("new", 100)):
        (tmp_path / folder / "pkg").mkdir(parents=True)
        for widths in ("widths.py", "pkg/widths.py"):
            (tmp_path / folder / widths).write_text(f"W = {width}\n")
        (tmp_path / folder / "net.py").write_text(f"from torch import nn\n{how}\ndef f(): return nn.Conv2d(3, W, 1)\n")
    for folder, params in (("old", 4), ("new", 400), ("old", 4)):
        assert profile_spec(f"{tmp_path}/{folder}/net.py:f").params == params


def test_a_sibling_runs_once_and_library_modules_stay_imported(tmp_path: Path) -> None:
    (tmp_path / "counted.py").write_text("import sys, wave\nsys.counted_runs = getattr(sys, 'counted_runs', 0) + 1\n")
    (tmp_path / "net.py").write_text("import counted\nfrom torch import nn\ndef f(): return nn.Conv2d(3, 1, 1)\n")
    try:
        for _ in range(2):
            profile_spec(f"{tmp_path}/net.py:f")
        assert sys.counted_runs == 1  # type: ignore[attr-defined]
    finally:
        del sys.counted_runs  # type: ignore[attr-defined]
    assert "wave" in sys.modules


def test_class_names_contain_no_path(net: Path) -> None:
    assert profile_spec(f"{net}:Net").layers[0].class_name == "cspprof_user.net.Net"


@pytest.mark.parametrize("where", ["file", "class"])
def test_the_input_can_be_declared_by_the_file_or_class_of_the_factory(tmp_path: Path, where: str) -> None:
    line = "example_input_shape = (1, 3, 9, 9)"
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        + (f"{line}\n" if where == "file" else "")
        + "class Make:\n"
        + (f"    {line}\n" if where == "class" else "")
        + "    @staticmethod\n    def small(): return nn.Conv2d(3, 1, 1)\n"
    )
    p = profile_spec(f"{tmp_path}/net.py:Make.small")
    assert (p.inputs[0].shape, p.notes) == ((1, 3, 9, 9), ())
    with pytest.raises(SourceError, match=r"Did you mean: small\?"):
        profile_spec(f"{tmp_path}/net.py:Make.smal")


@pytest.mark.parametrize(
    ("value", "notes"),
    [
        ("torch.ones(1).item()", ()),
        ("torch.linspace(0, 1, 3).tolist()", ()),
        ("int(torch.ones(1))", ()),
        (
            "torch.nn.Linear(1, 1).weight.item()",
            ("built with real weights: the factory needs values while it builds",),
        ),
    ],
)
def test_a_factory_that_reads_values_is_built_with_them(tmp_path: Path, value: str, notes: tuple[str, ...]) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nexample_input_shape = (1, 3, 4, 4)\n"
        f"def f():\n    {value}\n    made = torch.nn.Conv2d(3, 1, 1)\n"
        f"    assert made.weight.is_meta is {not notes}\n    return made\n"
    )
    before = torch.get_rng_state()
    p = profile_spec(f"{tmp_path}/net.py:f")
    assert (p.params, p.notes) == (4, notes)
    assert torch.equal(torch.get_rng_state(), before)


def test_system_exit_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "net.py").write_text("def f():\n    raise SystemExit('bye')\n")
    with pytest.raises(SourceError, match=r"leaves.py failed: SystemExit: 3 \(leaves.py, line 1\)"):
        profile_spec(f"{tmp_path}/leaves.py:f")
    with pytest.raises(SourceError, match=r"failed: SystemExit: bye \(net.py, line 2\)") as raised:
        profile_spec(f"{tmp_path}/net.py:f")
    assert isinstance(raised.value.__cause__, SystemExit)


def test_a_syntax_error_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import wrong\n")
    (tmp_path / "wrong.py").write_text("x = 1\ny = (\n")
    with pytest.raises(SourceError, match=r"wrong.py, line 2: "):
        profile_spec(f"{tmp_path}/net.py:f")


def test_a_forward_that_depends_on_weights_gives_the_same_macs_every_time(net: Path) -> None:
    net.write_text(
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self): super().__init__(4, 4)\n"
        "    def forward(self, x):\n"
        "        for _ in range(int(self.weight.abs().sum().item() * 100)): x = super().forward(x)\n"
        "        return x\n"
    )
    request = Request(inputs=(1, 4), device="cpu")
    totals = {profile_spec(f"{net}:Net", request).total("macs") for _ in range(3)}
    assert len(totals) == 1


# -- names ----------------------------------------------------------------------------------------


def test_an_unknown_name_suggests_similar_names() -> None:
    with pytest.raises(SourceError, match=r"no model named 'resnext5'\nDid you mean: resnext50"):
        profile_spec("resnext5")
    with pytest.raises(SourceError, match="The zoo: cspprof models"):
        profile_spec("qqqqqq")
    with pytest.raises(SourceError, match=r"Name a class or function in it: net.py:Net"):
        profile_spec("net.py")
    with pytest.raises(SourceError, match=r"saved profiles end in .profile.json"):
        profile_spec("x.json")


@pytest.mark.parametrize(
    "spec", ["timm:resnet50,pretrained=True", "torchvision:resnet50,weights=DEFAULT",
             "torchvision:fcn_resnet50,weights_backbone=DEFAULT"],
)  # fmt: skip
def test_trained_weights_are_refused(spec: str) -> None:
    pytest.importorskip(spec.partition(":")[0], reason="the extra is not installed")
    with pytest.raises(SourceError, match=r"requests trained weights, .* never downloaded\nLeave .* out"):
        profile_spec(spec)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_missing_library_names_its_extra(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SourceError, match=rf'pip install "cspprof\[{library}\]"'):
        profile_spec(f"{library}:resnet50")


# -- saved profiles -------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".profile.json", ".profile.json.gz"])
def test_a_saved_profile_is_a_source(tmp_path: Path, ending: str) -> None:
    p = cspprof.profile("resnext50")
    file = p.save(tmp_path / f"x{ending}")
    assert profile_spec(str(file)) == p
    assert p.total("cio_cspnet") == 34_411_496


@pytest.mark.parametrize(
    ("request_", "option", "command"),
    [
        (Request(train=True), "--train", "net.py:f --train"),
        (Request(device="cpu"), "--device", "net.py:f --device cpu"),
        (Request(inputs=(1, 3, 8, 8)), "--input", "net.py:f --input 1x3x8x8"),
        (Request(inputs={"x": TensorSpec((1, 3), "int64")}), "--input", "net.py:f --input x=1x3:int64"),
        (Request(dtype="float16"), "--dtype", "net.py:f --dtype float16"),
        (
            Request(inputs=[TensorSpec((1, 3, 8, 8), "float16")], dtype="float16"),
            "--input",
            "net.py:f --input 1x3x8x8 --dtype float16",
        ),
    ],
)
def test_a_saved_profile_names_the_command_for_another_request(
    tmp_path: Path, chain: Profile, request_: Request, option: str, command: str
) -> None:
    profile = replace(chain, source="net.py:f")
    file = str(profile.save(tmp_path / "x.profile.json"))
    hint = f"Trace the model again: cspprof profile {command} --save x.profile.json"
    for call in (lambda: profile_spec(file, request_), lambda: cspprof.profile(profile, **request_._asdict())):
        with pytest.raises(SourceError, match=f"is a saved profile: {option} cannot change it") as refused:
            call()
        assert refused.value.hint == hint


def test_the_command_for_another_request_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Result]
) -> None:
    monkeypatch.chdir(tmp_path)
    cspprof.profile("squeezenet,num_classes=10").save("x.profile.json")
    refused = run("cio", "x.profile.json", "--input", "1x3x64x64")
    assert refused.code == 2
    command = shlex.split(refused.err.partition("again: ")[2])
    assert run(*command[1:]).code == 0
    assert Profile.load("x.profile.json").inputs == (TensorSpec((1, 3, 64, 64)),)


def test_a_saved_profile_answers_the_request_that_it_was_traced_with(tmp_path: Path, chain: Profile) -> None:
    file = str(chain.save(tmp_path / "x.profile.json"))
    assert profile_spec(file, Request(inputs=(1, 3, 4, 4), dtype="float32")) == chain
    assert cspprof.profile(chain, (1, 3, 4, 4)) is chain


def test_parsing_a_spec_imports_no_library() -> None:
    program = """
import sys
from cspprof.sources import SOURCES, parse
for text in ("resnext50", "timm:resnet50,output_stride=16", "torchvision:r", "x.py:net,d=(3,4)", "x.profile.json"):
    next(s for s in SOURCES if s.matches(parse(text).target))
assert not {"torch", "timm", "torchvision", "numpy", "pandas"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_comparing_saved_profiles_imports_no_torch(tmp_path: Path, chain: Profile) -> None:
    file = chain.save(tmp_path / "x.profile.json")
    program = f"""
import sys
from cspprof.cli import main
try:
    main(["compare", {str(file)!r}, {str(file)!r}, "--layers"])
except SystemExit as leaving:
    assert not leaving.code, leaving.code
heavy = {{"torch", "pandas", "matplotlib", "numpy", "fvcore"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "chain" in done.stdout
