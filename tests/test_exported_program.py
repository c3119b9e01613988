"""Exported programs: the same record as the module from which they were exported."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Result, quick
from torch import nn
from torch._higher_order_ops import map as control_flow_map
from torch._higher_order_ops import scan, while_loop

import cspprof
from cspprof.core.errors import SourceError, TraceError
from cspprof.core.inputs import parse_inputs
from cspprof.sources.exported_program.expressions import SymbolicSize, parse_expression
from cspprof.sources.exported_program.json_values import MalformedError


class Net(nn.Module):
    """A convolution that runs twice, a keyword argument, and a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.conv(self.conv(self.stem(x)))
        return {"a": y * scale, "b": y.mean((2, 3))}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    side = torch.export.Dim("side", min=4, max=64)
    exported = torch.export.export(
        Net().eval(), (torch.randn(1, 3, 8, 8),), {"scale": torch.ones(1)},
        dynamic_shapes={"x": {2: side, 3: side}, "scale": None},
    )  # fmt: skip
    torch.export.save(exported, path)
    return path


def exported(
    model: nn.Module, path: Path, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, **how: Any
) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model, args, kwargs, **how), path)
    return path


TOTALS = ("macs", "cio_hardnet", "cio_cspnet", "params", "traffic_bytes", "peak_bytes")


def totals(profile: Any) -> dict[str, Any]:
    return {name: profile.total(name) for name in TOTALS}


def rows(profile: Any) -> list[tuple[Any, ...]]:
    """The operations with MACs: layer, target, shapes, MACs."""
    return [
        (op.layer, op.target, [t.shape for t in op.reads], [t.shape for t in op.writes], op.macs)
        for op in profile.ops
        if op.macs
    ]


def test_program_has_the_totals_of_its_model(program: Path) -> None:
    exported = cspprof.profile(str(program))
    exported.self_check()
    model = cspprof.profile(Net(), {"x": (1, 3, 8, 8), "scale": (1,)})
    assert exported.complete
    assert totals(exported) == totals(model)
    assert exported.total("macs") == (27 * 4 + 2 * 4 * 4) * 64
    assert (exported.model, exported.source) == ("net.pt2", "net.pt2")


def test_modules_keep_their_names_classes_and_calls(program: Path) -> None:
    profile = cspprof.profile(str(program))
    layers = {layer.path: layer for layer in profile.layers}
    assert list(layers) == ["", "stem", "stem.0", "stem.1", "stem.2", "conv"]
    assert layers["stem.0"].class_name == "torch.nn.modules.conv.Conv2d"
    assert layers[""].class_name.endswith("Net")
    assert layers["conv"].calls == 2
    assert next(op.layer for op in profile.ops if op.kind == "conv") == "stem.0"


def test_dynamic_dimensions_accept_another_input(program: Path, run: Callable[..., Result]) -> None:
    larger = cspprof.profile(str(program), parse_inputs(["1x3x16x16", "scale=1"]))
    assert larger.total("macs") == 4 * cspprof.profile(str(program)).total("macs")
    result = run("cio", str(program), "--input", "1x3x8x9", "--input", "scale=1")
    assert result.code == 2
    assert "two sizes that must be equal (s" in " ".join(result.err.split())
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["1x3x2x2", "scale=1"], "and it may be from 4 to 64"),
        (["1x4x8x8", "scale=1"], "a size of x is 4, and the program was exported for 3"),
        (["1x3x8x8:float16", "scale=1"], "the argument x has the dtype float32, not float16"),
        (["3x8x8", "scale=1"], "the argument x is a tensor with 4 dimensions"),
        (["1x3x8x8"], "the argument 'scale' is missing"),
        (["1x3x8x8", "scale=1", "mask=1"], "it has no argument 'mask'"),
        (["1x3x8x8", "1"], "2 positional arguments are given, and it takes 1"),
    ],
)
def test_input_that_does_not_fit_is_refused_with_what_fits(given: list[str], message: str, program: Path) -> None:
    with pytest.raises(TraceError) as refused:
        cspprof.profile(str(program), parse_inputs(given))
    assert message in refused.value.message
    assert (refused.value.hint or "").startswith("It takes x: 1x3xs")


def test_positional_arguments_can_be_given_by_name(program: Path) -> None:
    named = cspprof.profile(str(program), parse_inputs(["x=1x3x8x8", "scale=1"]))
    assert named.total("macs") == cspprof.profile(str(program)).total("macs")


@pytest.mark.parametrize(
    ("spec", "option", "message"),
    [
        ("{},width=3", [], "takes no options"),
        ("{}", ["--train"], "--train cannot change it"),
        ("{}", ["--deploy"], "--deploy cannot change it"),
        ("{}", ["--dtype", "float16"], "--dtype cannot change it"),
    ],
)
def test_option_that_cannot_change_a_program_is_refused(
    spec: str, option: list[str], message: str, program: Path, run: Callable[..., Result]
) -> None:
    result = run("cio", spec.format(program), *option)
    assert result.code == 2
    assert message in result.err


def test_other_files_are_refused(program: Path, tmp_path: Path, run: Callable[..., Result]) -> None:
    checkpoint, cut, missing = tmp_path / "checkpoint.pt2", tmp_path / "cut.pt2", tmp_path / "missing.pt2"
    torch.save(Net().state_dict(), checkpoint)
    cut.write_bytes(program.read_bytes()[:3000])
    for file, message in (
        (checkpoint, "it contains no graph (a checkpoint or TorchScript of torch.save?)"),
        (cut, "it is not an archive (a pickle, or incomplete?)"),
        (missing, "there is no file"),
        (tmp_path / "folder.pt2", "is not a file"),
    ):
        if "folder" in file.name:
            file.mkdir()
        result = run("cio", str(file))
        assert (result.code, result.out) == (2, "")
        assert message in " ".join(result.err.split())
        assert "Traceback" not in result.err


# -- the record of a program equals that of its module -------------------------------------------------


class Nested(nn.Module):
    """Nested inputs and outputs, and arguments that are numbers, flags and text."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(
        self, pair: Any, table: Any, scale: float = 2.0, *, flag: bool = True, mode: str = "up", n: int = 3
    ) -> Any:
        a, (b, c) = pair
        return {"y": self.linear(a) + table["x"] * scale, "rest": [b * n if flag else b, (c, None)]}


class Tied(nn.Module):
    """Tied weights, and a block that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.out = nn.Linear(4, 10, bias=False)
        self.out.weight = self.table.weight
        self.block = nn.Sequential(nn.Linear(4, 4), nn.Flatten(1))

    def forward(self, i: torch.Tensor) -> Any:
        y = self.table(i)
        return self.out(y), self.block(y), self.block(y[:1])


class Constants(nn.Module):
    """Constant tensors, buffers of both kinds, parameters in a list, and a layer that is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.grid = torch.arange(16.0).reshape(4, 4)
        self.index = torch.tensor([0, 2])
        self.register_buffer("offset", torch.ones(4), persistent=False)
        self.register_buffer("rows", torch.tensor([1, 0]))
        self.linear, self.unused = nn.Linear(4, 4), nn.Linear(7, 7)
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(4))])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(4).cumsum(0).to(device="cpu", dtype=torch.float32)
        return self.linear(x)[self.index] @ self.grid + self.offset + x[self.rows] * self.scales[0] + steps


class Mutating(nn.Module):
    """Writes into its buffers and into its input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sum", torch.zeros(4))
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        self.sum += x.mean(0)
        x.mul_(2)
        return self.linear(x) + self.sum


class Regions(nn.Module):
    """Parts without gradients and with autocast, which become graphs within the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        with torch.no_grad():
            z = self.second(y) * 2
        with torch.autocast("cpu", enabled=False):
            return self.third(z) + y


class Resizing(nn.Module):
    """Sizes that are computed from the input's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.interpolate(F.max_pool2d(self.conv(x), 2), size=x.shape[-2:])
        b, c, h, w = y.shape
        return self.linear(y.view(b, c, h * w).transpose(1, 2)).reshape(b, -1)


def small_models() -> dict[str, tuple[nn.Module, tuple[Any, ...], dict[str, Any]]]:
    image, tokens = torch.randn(1, 3, 16, 16), torch.randn(2, 5, 16)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2)
    pair = (torch.randn(2, 4), [torch.randn(2, 4), torch.randn(1)])
    return {
        "tied": (Tied(), (torch.zeros(2, 3, dtype=torch.int64),), {}),
        "constants": (Constants(), (torch.randn(4, 4),), {}),
        "mutating": (Mutating(), (torch.randn(2, 4),), {}),
        "regions": (Regions(), (torch.randn(2, 4),), {}),
        "resizing": (Resizing(), (image,), {}),
        "recurrent": (nn.LSTM(16, 8, 2, batch_first=True, bidirectional=True), (tokens,), {}),
        "attention": (encoder, (tokens,), {}),
        "bfloat16": (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)).bfloat16(), (pair[0].bfloat16(),), {}),
        "nested": (Nested(), (pair, {"x": torch.randn(4)}), {"flag": False, "n": 5, "scale": 3.0}),
    }


@pytest.mark.parametrize("name", small_models())
def test_record_equals_that_of_the_module(name: str, tmp_path: Path) -> None:
    model, args, kwargs = small_models()[name]
    file = exported(model.eval(), tmp_path / "model.pt2", args, kwargs)
    program = cspprof.profile(str(file))
    program.self_check()
    # A module gets its inputs by name; numbers are part of its own default values.
    names = dict(zip(("pair", "table"), args, strict=False)) | kwargs if name == "nested" else list(args)
    module = cspprof.profile(model, names)
    assert rows(program) == rows(module)
    assert program.total("macs") == module.total("macs") > 0
    assert program.total("params") == module.total("params")
    assert [t.shape for t in program.inputs] == [t.shape for t in module.inputs]


def test_operations_on_constants_are_those_of_the_program(tmp_path: Path) -> None:
    """Finding out how large a constant would be adds nothing to the record."""
    file = exported(Constants().eval(), tmp_path / "model.pt2", (torch.randn(4, 4),))
    targets = [op.target.removeprefix("aten.") for op in cspprof.profile(str(file)).ops]
    assert targets == ["arange", "cumsum", "to", "linear", "index", "matmul", "add", "index", "mul", "add", "add"]


NETWORKS = ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "swin_t", "densenet121", "regnet_y_400mf",
            "efficientnet_b0", "vit_b_32", "googlenet", "maxvit_t", "convnext_tiny", "squeezenet1_1"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", quick(NETWORKS, 3))
def test_torchvision_network_equals_its_export(name: str, tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torchvision.models.get_model(name).eval()
    program = cspprof.profile(str(exported(model, tmp_path / "model.pt2", (torch.randn(1, 3, 224, 224),))))
    module = cspprof.profile(model, (1, 3, 224, 224))
    assert rows(program) == rows(module)
    assert {t: program.total(t) for t in TOTALS[:4]} == {t: module.total(t) for t in TOTALS[:4]}
    assert program.total("peak_bytes") == module.total("peak_bytes")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet26t", "levit_128s", "pvt_v2_b0", "vit_tiny_patch16_224"])
def test_timm_network_equals_its_export(name: str, tmp_path: Path) -> None:
    model = pytest.importorskip("timm").create_model(name).eval()
    size = model.pretrained_cfg["input_size"]
    program = cspprof.profile(str(exported(model, tmp_path / "model.pt2", (torch.randn(1, *size),))))
    module = cspprof.profile(model, (1, *size))
    assert rows(program) == rows(module)
    assert {t: program.total(t) for t in TOTALS[:4]} == {t: module.total(t) for t in TOTALS[:4]}


class Quantized(nn.Module):
    """A convolution with 8-bit weights, as quantization for export writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(8, 3, 3, 3, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(8))
        self.register_buffer("zero", torch.zeros(8, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ops = torch.ops.quantized_decomposed
        x = ops.quantize_per_tensor(x, 0.1, 0, -128, 127, torch.int8)
        x = ops.dequantize_per_tensor(x, 0.1, 0, -128, 127, torch.int8)
        return F.conv2d(x, ops.dequantize_per_channel(self.weight, self.scale, self.zero, 0, -128, 127, torch.int8))


def test_quantized_program(tmp_path: Path) -> None:
    pytest.importorskip("torch.ao.quantization.fx._decomposed")  # registers the operators
    file = exported(Quantized(), tmp_path / "model.pt2", (torch.randn(1, 3, 8, 8),))
    profile = cspprof.profile(str(file))
    assert profile.total("macs") == 27 * 8 * 36
    assert [op.target.partition(".")[2] for op in profile.ops] == [
        "quantize_per_tensor", "dequantize_per_tensor", "dequantize_per_channel", "conv2d",
    ]  # fmt: skip


def test_sizes_that_depend_on_the_input_follow_it(tmp_path: Path) -> None:
    batch, half = torch.export.Dim("batch", min=1, max=8), torch.export.Dim("half", min=4, max=64)
    file = exported(
        Resizing().eval(), tmp_path / "model.pt2", (torch.randn(2, 3, 16, 16),),
        dynamic_shapes={"x": {0: batch, 2: 2 * half, 3: 2 * half}},
    )  # fmt: skip
    for shape in ((2, 3, 16, 16), (5, 3, 40, 40), (1, 3, 8, 8)):
        assert rows(cspprof.profile(str(file), shape)) == rows(cspprof.profile(Resizing(), shape))
    for shape in ((2, 3, 17, 17), (2, 3, 16, 18), (9, 3, 16, 16), (2, 3, 6, 6)):
        with pytest.raises(TraceError, match=r"^model\.pt2: the input does not fit the exported program: "):
            cspprof.profile(str(file), shape)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, n: int) -> torch.Tensor:
        return self.linear(x)[:n] * n


def test_number_that_may_change_has_the_value_of_the_export(tmp_path: Path) -> None:
    dynamic = {"x": None, "n": torch.export.Dim.DYNAMIC}
    file = exported(Scaled(), tmp_path / "model.pt2", (torch.randn(8, 4), 3), dynamic_shapes=dynamic)
    profile = cspprof.profile(str(file))
    assert profile.total("macs") == 8 * 16
    assert next(op.writes[0].shape for op in profile.ops if op.target == "aten.mul") == (3, 4)


def test_number_other_than_that_of_the_export_is_refused(tmp_path: Path) -> None:
    file = exported(Scaled(), tmp_path / "model.pt2", (torch.randn(8, 4), 3))
    assert cspprof.profile(str(file), [torch.zeros(8, 4), 3]).total("macs") == 8 * 16
    with pytest.raises(TraceError, match="it was exported with 3 where 2 is given"):
        cspprof.profile(str(file), [torch.zeros(8, 4), 2])


class ControlFlow(nn.Module):
    """A linear layer in a branch, in three rounds of a loop, in each step of a scan, or for each slice."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.linear = kind, nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> Any:
        if self.kind == "cond":
            return torch.cond(x.sum() != 0, self.linear, lambda x: x * 2, (x,))
        if self.kind == "while_loop":
            start = (torch.zeros((), dtype=torch.int64), x)
            return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, self.linear(x)), start)[1]
        if self.kind == "scan":
            return scan(lambda c, y: (c + y, self.linear(c + y)), torch.zeros(2, 4), x)
        if self.kind == "map":
            return control_flow_map(self.linear, x)
        inner = lambda y: torch.cond(y.sum() != 0, self.linear, lambda y: y * 2, (y,))  # noqa: E731
        return control_flow_map(inner, x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "rounds"), quick([("while_loop", 15), ("map", 5), ("cond", 5), ("scan", 5), ("map of cond", 5)], 2)
)
def test_branches_and_loops_count_as_in_the_module(kind: str, rounds: int, tmp_path: Path) -> None:
    """On 5 inputs of 2 rows; a loop that is not over slices computes all of them in each round."""
    model = ControlFlow(kind).eval()
    file = exported(model, tmp_path / "model.pt2", (torch.ones(5, 2, 4),))
    for device in ("meta", "cpu") if "cond" not in kind else ("cpu",):
        program, module = cspprof.profile(str(file), device=device), cspprof.profile(model, (5, 2, 4), device=device)
        program.self_check()
        assert program.total("macs") == module.total("macs") == rounds * 2 * 4 * 4
        assert program.total("traffic_bytes") == module.total("traffic_bytes")
        assert program.total("params") == module.total("params") == 20


class Selecting(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[x.sum(1) > 0] @ x.new_ones(4, 4)


def test_program_that_needs_values_runs_on_the_cpu_with_its_weights(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), Selecting())
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(1)
    file = exported(model, tmp_path / "model.pt2", (torch.randn(8, 4),))
    assert cspprof.profile(str(file), device="cpu").total("macs") == 2 * 8 * 16  # every row is positive


def test_file_of_torch_2_7_is_read_without_its_pickled_weights(program: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.pt2"
    with zipfile.ZipFile(program) as archive, zipfile.ZipFile(old, "w") as to:
        to.writestr("serialized_exported_program.json", archive.read("net/models/model.json"))
        to.writestr("serialized_state_dict.pt", b"a pickle")
        to.writestr("serialized_constants.pt", b"a pickle")
        to.writestr("serialized_example_inputs.pt", b"a pickle")
        to.writestr("version", "8.1")
    profile = cspprof.profile(str(old))
    assert totals(profile) == totals(cspprof.profile(str(program)))
    assert any("its weights are pickled" in note for note in profile.notes)
    with pytest.raises(SourceError, match="its weights are pickled"):
        cspprof.profile(str(old), device="cpu")


def test_compressed_archive_is_read(program: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.pt2"
    with zipfile.ZipFile(program) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as to:
        for name in archive.namelist():
            to.writestr(name, archive.read(name))
    assert totals(cspprof.profile(str(packed))) == totals(cspprof.profile(str(program)))


# -- expressions for sizes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Symbol('s0', positive=True, integer=True)", 6),
        ("Mul(Integer(2), Symbol('s1'))", 10),
        ("s0 + 2*s1 - 1", 15),
        ("(s0 - 1)//2 + s1**2", 27),
        ("FloorDiv(Add(Symbol('s0'), Integer(-7)), Integer(2))", -1),
        ("Mod(s0, 4)", 2),
        ("Max(1, s0, s1)", 6),
        ("-(s1)", -5),
        ("CeilDiv(s0, s1)", 2),
        ("Pow(Symbol('s0'), Integer(2))", 36),
        ("2**3**2", 512),
        ("s2 + 1", None),
        ("Float('0.5', precision=53)", None),
        ("s0 // 0", None),
        ("ToFloat(s0)", None),
        ("GreaterThan(Symbol('u0', integer=True), Integer(2))", None),
        ("s0**s0**s0**s0", None),
        ("Pow(s0, 10000000000)", None),
    ],
)
def test_value_of_an_expression(text: str, value: int | None) -> None:
    assert SymbolicSize(parse_expression(text), None).value({"s0": 6, "s1": 5}) == value


@pytest.mark.parametrize(
    "text",
    ["open('x')", "Symbol('a b')", "(1).__class__", "[x for x in y]", "lambda: 0", "(", "", "s0.a", "Symbol()", "s0 s1",
     "Integer('1')", "__import__('os')", "Symbol('s0', integer=open)('x')", "s0; s1", "Mul(2, *s)", "Symbol(\"s0\")",
     "f(s0)", "s0 if s1 else 2", "'s0'", "9" * 30, "(" * 200 + "1" + ")" * 200, "-" * 5000 + "1", "2**" * 3000 + "2",
     "1%" * 3000 + "2", "1<" * 3000 + "2", "s0+" * 20_000 + "1"],
)  # fmt: skip
def test_expression_beyond_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_expression(text)


@pytest.mark.parametrize(
    ("text", "size", "found"),
    [
        ("2*s0", 8, {"s0": 4}),
        ("2*s0", 7, {}),
        ("3*s0 + 1", 10, {"s0": 3}),
        ("s0**2", 9, None),
        ("s0*s1", 8, None),
    ],
)
def test_symbol_is_solved_from_a_linear_size(text: str, size: int, found: dict[str, int] | None) -> None:
    assert SymbolicSize(parse_expression(text), None).solve(size, {}) == found
