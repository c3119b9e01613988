"""Conventions of other tools against hand arithmetic on ResNet-50 and against the tools themselves."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from importlib import resources
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune as prune
from conftest import Result, quick, trace
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import cspprof
from cspprof.core.errors import UnknownNameError
from cspprof.core.record import Kind, OpSpec, TensorSpec
from cspprof.metrics import CONVENTIONS, METRICS
from cspprof.metrics.conventions import conventions
from cspprof.profiles import Profile
from cspprof.storage.profile_file import packaged_resnet50
from cspprof.zoo import catalog

Run = Callable[..., Result]

TOTALS = {
    "macs": 4_089_184_256,
    "flops": 8_178_368_512,
    "darknet": 8.181598208,
    "flop_counter": 8_178_368_512,
    "fvcore": 4_111_512_576,
    "torchprofile": 4_100_300_288,
    "ptflops_aten": 4_089_185_256,
    "calflops": 4_089_184_256,
    "torchinfo": 4_089_238_376,
    "thop": 4_133_742_592,
    "ptflops": 4_132_436_968,
    "torchlens": 8_249_769_960,
}
"""The total of each convention for ResNet-50 at 224×224."""

NORM, RELU, ADD = 11_113_984, 9_608_704, 5_519_360
"""Output elements of the batch norms, ReLUs and shortcuts of ResNet-50."""
MAX_POOL_IN, MAX_POOL_OUT, AVG_POOL_IN = 64 * 112 * 112, 64 * 56 * 56, 2048 * 7 * 7
"""Input and output elements of its max pooling, input elements of its average pooling."""

DEVIATIONS = {
    "macs": {},
    "flops": {},
    "darknet": {"max pooling": 9 * MAX_POOL_OUT, "add": ADD, "unseen linear": -2 * 2_048_000},
    "flop_counter": {},
    "fvcore": {"batch norm": 2 * NORM, "average pooling": AVG_POOL_IN},
    "torchprofile": {"batch norm": NORM, "average pooling": 2048},
    "ptflops_aten": {"bias": 1000},
    "calflops": {},
    "torchinfo": {"batch norm": 2 * 26_560, "bias": 1000},
    "thop": {"batch norm": 4 * NORM, "average pooling": (49 + 1) * 2048},
    "ptflops": {"batch norm": 2 * NORM, "activations": 2 * RELU, "max pooling": 2 * MAX_POOL_IN,
                "average pooling": 2 * AVG_POOL_IN, "bias": 1000},
    "torchlens": {"batch norm": 5 * NORM, "activations": RELU, "add": ADD, "max pooling": 3 * MAX_POOL_OUT,
                  "average pooling": AVG_POOL_IN, "bias": 1000},
}  # fmt: skip


@pytest.fixture(scope="module")
def resnet50() -> Profile:
    return Profile.of(packaged_resnet50())


# -- ResNet-50 ------------------------------------------------------------------------------------


def test_every_convention_has_an_expected_total() -> None:
    assert TOTALS.keys() == DEVIATIONS.keys() == conventions().keys()
    assert len(set(TOTALS.values())) == 10  # calflops equals macs, flop_counter equals flops


@pytest.mark.parametrize("name", TOTALS)
def test_totals_of_resnet50(resnet50: Profile, name: str) -> None:
    assert resnet50.total(name) == TOTALS[name]
    assert conventions()[name].deviations(resnet50) == Counter(DEVIATIONS[name])


@pytest.mark.parametrize("name", quick(["csp_resnet50", "resnext50", "csp_darknet53"], 1))
@pytest.mark.parametrize("convention", TOTALS)
def test_a_total_is_the_macs_and_the_deviations(name: str, convention: str) -> None:
    p = cspprof.profile(name, (2, 3, 64, 64))
    c = conventions()[convention]
    total = c.total(p)
    assert total.n == c.per_mac * p.total("macs") + c.deviations(p).total()  # type: ignore[union-attr]


def test_the_packaged_example_equals_a_trace(resnet50: Profile) -> None:
    pytest.importorskip("torchvision", reason="the example is torchvision's ResNet-50")
    fresh = cspprof.profile("torchvision:resnet50")
    assert (fresh.specs, fresh.layers, fresh.storages) == (resnet50.specs, resnet50.layers, resnet50.storages)
    for column in ("spec", "layer", "storage"):
        assert list(getattr(fresh.calls, column)) == list(getattr(resnet50.calls, column))


def test_conventions_are_metrics_that_are_not_listed(resnet50: Profile) -> None:
    assert METRICS.get("fvcore") is CONVENTIONS.get("fvcore")
    assert METRICS.get("macs") is not CONVENTIONS.get("macs")
    assert "fvcore" not in METRICS.names()
    assert "fvcore" not in dict(METRICS.items())
    with pytest.raises(UnknownNameError, match="Did you mean: fvcore"):
        METRICS.get("fvcor")


# -- unknown parts --------------------------------------------------------------------------------


def product(left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...], macs: int) -> OpSpec:
    """A product of an activation and a weight. A record does not say which is the left operand."""
    return OpSpec("aten.matmul", Kind.MATMUL, (TensorSpec(left),), (TensorSpec(right),), (TensorSpec(out),), macs=macs)


def test_the_order_of_operands_follows_from_their_shapes() -> None:
    fvcore = conventions()["fvcore"]
    assert fvcore.count(product((2, 3, 5), (5, 7), (2, 3, 7), 210)) == 210
    assert fvcore.count(product((2, 5, 7), (3, 5), (2, 3, 7), 210)) == 3 * 5 * 7  # fvcore ignores the batch
    assert fvcore.count(product((2, 4, 4), (4, 4), (2, 4, 4), 128)) is None
    assert fvcore.group_value([(product((2, 4, 4), (4, 4), (2, 4, 4), 128), 1)]).value is None


def test_a_total_with_an_unknown_part_has_no_value() -> None:
    p = trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout()), (1, 3, 8, 8))
    assert p.total("torchlens") is None  # torchlens counts a dropout in eval mode, which is not recorded
    assert p.total("thop") == 3 * 4 * 64


def test_torchinfo_counts_what_a_mask_keeps_so_a_pruned_module_has_no_total() -> None:
    pruned = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    prune.l1_unstructured(pruned[0], "weight", 0.5)  # torchinfo 1.8.0: 54·36 + 4·36 = 2,088
    p = trace(pruned, (1, 3, 8, 8))
    assert p.total("torchinfo") is None
    assert p.total("macs") == 3 * 9 * 4 * 36
    prune.remove(pruned[0], "weight")
    assert trace(pruned, (1, 3, 8, 8)).total("torchinfo") == (3 * 9 * 4 + 4) * 36


class Product(nn.Module):
    """A module of a user that multiplies its input by a matrix."""

    def __init__(self, product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8, 6))
        self.product = product

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.product(x, self.weight)


def test_ptflops_sees_no_einsum_and_a_matrix_product_only_if_it_is_not_an_operator() -> None:
    """ptflops 0.7.5: 0 for an einsum and for a @ b, 240 for torch.matmul(a, b). A record has one matmul for both."""
    einsum = Product(lambda x, w: torch.einsum("bij,jk->bik", x, w))
    assert trace(einsum, (1, 5, 8)).total("macs") == 5 * 8 * 6
    assert trace(einsum, (1, 5, 8)).total("ptflops") == 0
    for product in (torch.matmul, lambda x, w: x @ w):
        assert trace(Product(product), (1, 5, 8)).total("ptflops") is None
    assert trace(Product(lambda x, w: torch.softmax(x, -1)), (1, 5, 8)).total("ptflops") is None


def test_ptflops_does_not_see_the_activation_that_an_encoder_layer_keeps() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert trace(layer, (1, 5, 8)).total("ptflops") == 3410  # ptflops 0.7.5


# -- fvcore and FlopCounterMode, operation by operation ---------------------------------------------


def ones_on(like: torch.Tensor, *shape: int) -> torch.Tensor:
    return torch.ones(*shape, device=like.device)


OPERATIONS: dict[str, tuple[Callable[..., torch.Tensor], list[tuple[int, ...]]]] = {
    "linear of a vector": (lambda a: F.linear(a, ones_on(a, 3, 4), ones_on(a, 3)), [(4,)]),
    "linear of tokens": (lambda a: F.linear(a, ones_on(a, 3, 4), ones_on(a, 3)), [(2, 5, 4)]),
    "vector @ matrix": (torch.matmul, [(5,), (5, 8)]),
    "mm": (torch.mm, [(3, 5), (5, 8)]),
    "matrix @ batch": (torch.matmul, [(3, 5), (2, 5, 8)]),
    "batches @ batch": (torch.matmul, [(4, 2, 3, 5), (2, 5, 8)]),
    "bilinear": (F.bilinear, [(2, 3), (2, 4), (5, 3, 4)]),
    "outer": (torch.outer, [(3,), (4,)]),
    "addmm": (torch.addmm, [(3, 5), (3, 4), (4, 5)]),
    "addmv": (torch.addmv, [(3,), (3, 4), (4,)]),
    "baddbmm": (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)]),
    "tensordot": (lambda a, b: torch.tensordot(a, b, dims=1), [(3, 5), (5, 3)]),
    "einsum": (lambda a, b: torch.einsum("bchw,khw->bck", a, b), [(3, 5, 13, 11), (17, 13, 11)]),
    "exact einsum": (lambda a, b: torch.einsum("nct,ncp->ntp", a, b), [(7, 11, 13), (7, 11, 17)]),
    "outer einsum": (lambda a, b: torch.einsum("bc,bd->bcd", a, b), [(3, 17), (3, 43)]),
    "einsum of one": (lambda a: torch.einsum("bchw->b", a), [(3, 17, 13, 11)]),
    "transposed convolution": (lambda a, b: F.conv_transpose2d(a, b, groups=2), [(1, 4, 5, 5), (4, 3, 2, 2)]),
    "padding by name": (lambda a, b: F.conv2d(a, b, padding="same"), [(1, 4, 5, 5), (3, 4, 3, 3)]),
    "conv1d": (lambda a, b: F.conv1d(a, b, ones_on(a, 6), padding=1, groups=2), [(1, 4, 5), (6, 2, 3)]),
    "conv3d": (lambda a, b: F.conv3d(a, b), [(2, 4, 5, 5, 5), (6, 4, 3, 3, 3)]),
    "attention": (F.scaled_dot_product_attention, [(1, 2, 5, 4), (1, 2, 7, 4), (1, 2, 7, 4)]),
    "group norm": (lambda a: F.group_norm(a, 2), [(1, 4, 5, 4)]),
    "group norm, affine": (lambda a: F.group_norm(a, 2, ones_on(a, 4), ones_on(a, 4)), [(1, 4, 5, 4)]),
    "instance norm": (F.instance_norm, [(1, 4, 5, 4)]),
    "instance norm, affine": (lambda a: F.instance_norm(a, weight=ones_on(a, 4)), [(1, 4, 5, 4)]),
    "layer norm": (lambda a: F.layer_norm(a, (4,)), [(1, 5, 4)]),
    "layer norm, scaled": (lambda a: F.layer_norm(a, (4,), ones_on(a, 4)), [(1, 5, 4)]),
    "layer norm, shifted": (lambda a: F.layer_norm(a, (4,), None, ones_on(a, 4)), [(1, 5, 4)]),
    "batch norm": (lambda a: F.batch_norm(a, ones_on(a, 4), ones_on(a, 4)), [(2, 4, 5, 4)]),
    "batch norm, affine": (lambda a: F.batch_norm(a, *[ones_on(a, 4)] * 4), [(2, 4, 5, 4)]),
    "batch norm, training": (lambda a: F.batch_norm(a, None, None, training=True), [(2, 4, 5, 4)]),
    "batch norm, training, affine": (
        lambda a: F.batch_norm(a, None, None, ones_on(a, 4), ones_on(a, 4), training=True), [(2, 4, 5, 4)],
    ),
    "rms norm": (lambda a: F.rms_norm(a, (4,)), [(2, 4, 5, 4)]),
    "nearest": (lambda a: F.interpolate(a, scale_factor=2), [(2, 4, 5, 4)]),
    "nearest exact": (lambda a: F.interpolate(a, size=(9, 7), mode="nearest-exact"), [(2, 4, 5, 4)]),
    "bilinear resizing": (lambda a: F.interpolate(a, size=(9, 7), mode="bilinear"), [(2, 4, 5, 4)]),
    "bicubic resizing": (lambda a: F.interpolate(a, size=(9, 7), mode="bicubic"), [(2, 4, 5, 4)]),
    "adaptive pooling": (lambda a: F.adaptive_avg_pool2d(a, (2, 3)), [(2, 4, 5, 4)]),
    "adaptive pooling, 1d": (lambda a: F.adaptive_avg_pool1d(a, 2), [(2, 4, 5)]),
    "average pooling": (lambda a: F.avg_pool2d(a, 2), [(2, 4, 5, 5)]),
    "mean": (lambda a: a.mean((2, 3)), [(2, 4, 5, 5)]),
    "grid sample": (lambda a, b: F.grid_sample(a, b, align_corners=False), [(2, 4, 5, 5), (2, 3, 3, 2)]),
    "grid sample, nearest": (
        lambda a, b: F.grid_sample(a, b, mode="nearest", align_corners=False), [(2, 4, 5, 5), (2, 3, 3, 2)],
    ),
    "multiplication": (lambda a, b: a * b * 3, [(2, 4, 5, 5), (5,)]),
    "leaky ReLU": (F.leaky_relu, [(2, 4, 5, 5)]),
    "leaky ReLU in place": (lambda a: F.leaky_relu(a + 1, inplace=True), [(2, 4, 5, 5)]),
    "multiplication in place": (lambda a, b: (a + 1).mul_(b), [(2, 4, 5, 5), (5,)]),
    "product in place": (lambda a, b, c: (a + 1).addmm_(b, c), [(2, 4), (2, 3), (3, 4)]),
    "products in place": (lambda a, b, c: (a + 1).baddbmm_(b, c), [(5, 2, 4), (5, 2, 3), (5, 3, 4)]),
}  # fmt: skip


class Function(nn.Module):
    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return self.function(*args)


@pytest.fixture
def silence_warnings() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("silence_warnings")
@pytest.mark.parametrize("case", OPERATIONS)
def test_totals_of_one_operation(case: str) -> None:
    from fvcore.nn import FlopCountAnalysis

    function, shapes = OPERATIONS[case]
    model = Function(function)
    p = trace(model, list(shapes))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*(torch.empty(s, device="meta") for s in shapes))
    assert p.total("flop_counter") == counter.get_total_flops()
    inputs = tuple(torch.rand(s) for s in shapes)
    assert p.total("fvcore") == FlopCountAnalysis(model, inputs).total()
    if find_spec("torchprofile") and case != "mm":
        from torchprofile import profile_macs

        assert p.total("torchprofile") == profile_macs(model, inputs)
    if find_spec("ptflops"):
        from ptflops.aten_engine import FlopCounterMode as Ptflops

        with (aten := Ptflops()):
            model(*inputs)
        assert p.total("ptflops_aten") == aten.complexity


# -- the tools of the extra `bench`, network by network ----------------------------------------------

NETWORKS = ["resnet50", "mobilenet_v2", "efficientnet_b0", "densenet121", "vgg16", "convnext_tiny", "vit_b_16"]
CALLS = {
    "torchinfo": "torchinfo.summary(model, (1, 3, 224, 224), verbose=0).total_mult_adds",
    "ptflops": "ptflops.get_model_complexity_info("
    "model, (3, 224, 224), as_strings=False, print_per_layer_stat=False)[0]",
    "ptflops_aten": "ptflops.get_model_complexity_info("
    "model, (3, 224, 224), as_strings=False, print_per_layer_stat=False, backend='aten')[0]",
    "thop": "int(thop.profile(model, (x,), verbose=False)[0])",
    "calflops": "calflops.calculate_flops(model, (1, 3, 224, 224), print_results=False, output_as_string=False)[1]",
    "torchprofile": "torchprofile.profile_macs(model, x)",
}
PRODUCTS_OF_NUMBERS = {("torchprofile", "vit_b_16"): 49}
"""Multiplications of Python numbers in the forward, which the tool counts and a record does not contain."""


@pytest.mark.slow
@pytest.mark.parametrize("convention", CALLS)
def test_totals_of_networks(convention: str) -> None:
    """Each tool runs in its own process, because some replace functions of torch and do not restore all of them."""
    tool = convention.partition("_")[0]
    pytest.importorskip("torchvision", reason="the networks are torchvision's")
    if not find_spec(tool) or (tool == "calflops" and not find_spec("transformers")):
        pytest.skip(f"{tool} or its requirements are not installed (extra bench)")
    program = f"""
import json, sys, torch, torchvision, {tool}
answers = {{}}
for name in {NETWORKS}:
    model, x = torchvision.models.get_model(name, weights=None).eval(), torch.rand(1, 3, 224, 224)
    answers[name] = {CALLS[convention]}
print("\\n" + json.dumps(answers))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    for name in NETWORKS:
        ours = cspprof.profile(f"torchvision:{name}", (1, 3, 224, 224)).total(convention)
        assert ours == answers[name] - PRODUCTS_OF_NUMBERS.get((convention, name), 0), name


@pytest.mark.slow
@pytest.mark.parametrize(("name", "answer"), [("resnet50", 8_249_769_960), ("densenet121", 5_763_332_584)])
def test_torchlens(name: str, answer: int) -> None:
    if not find_spec("torchlens"):
        pytest.skip("torchlens is not installed (extra bench)")
    program = f"""
import torch, torchvision, torchlens
model = torchvision.models.get_model({name!r}, weights=None).eval()
print(int(torchlens.trace(model, torch.rand(1, 3, 224, 224)).total_flops_forward))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) == answer
    assert cspprof.profile(f"torchvision:{name}", (1, 3, 224, 224)).total("torchlens") == answer


# -- the command line ---------------------------------------------------------------------------------


def test_explain_conventions(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    got = run("explain", "conventions")
    assert got.code == 0
    expected = (Path(__file__).parent / "explain_conventions.txt").read_text(encoding="utf-8")
    assert got.out == expected
    assert max(map(len, got.out.splitlines())) <= 80
    for name, answer in TOTALS.items():
        shown = f"{answer:,}" if isinstance(answer, int) else f"{answer:.3f}"
        assert any(line.startswith(f"{name} ") and f" {shown} " in line for line in got.out.splitlines()), name


def test_explain_conventions_of_another_model(run: Run) -> None:
    got = run("explain", "conventions", "--model", "csp_darknet53", "--input", "1x3x64x64", "--format", "json")
    document = json.loads(got.out)
    assert document["schema"] == "cspprof.conventions/1"
    assert document["inputs"] == [[1, 3, 64, 64]]
    ours = cspprof.profile("csp_darknet53", (1, 3, 64, 64))
    assert {c["name"]: c["answer"] for c in document["conventions"]} == {n: ours.total(n) for n in TOTALS}


def test_explain_gamma_lists_both_meanings_and_every_split_network(run: Run) -> None:
    got = run("explain", "gamma")
    text = " ".join(got.out.split())
    assert got.code == 0
    for words in ("bypasses", "partial_ratio", "1 − γ", "section 3.1"):
        assert words in text
    networks = json.loads(run("explain", "gamma", "--format", "json").out)["networks"]
    patterns = [name for row in networks for name in row["network"].replace(" and their detectors", "").split(", ")]
    twins = [name for name, entry in catalog().items() if entry.twin]
    assert [t for t in twins if not any(fnmatch(t, p.replace(" and its detector", "")) for p in patterns)] == []
    for row in networks:  # the stated default is the default of the factory, if it has one
        first = row["network"].split(",")[0].replace("*", "121").replace(" and its detector", "")
        default = signature(catalog().get(first).factory).parameters["gamma"].default
        assert default in (None, 0.5)
        assert row["default"].startswith("1/2") or default is None
    assert run("explain", "gamma", "--model", "resnet50").code == 2


def test_explain_one_convention(run: Run) -> None:
    got = run("explain", "fvcore")
    assert "2 for each element of a batch norm" in " ".join(got.out.split())
    assert "fvcore.nn.FlopCountAnalysis" in got.out
    refused = run("explain", "fvcore", "--model", "resnet50")
    assert refused.code == 2
    assert "cspprof explain conventions --model" in refused.err


def test_totals_by_a_convention(run: Run) -> None:
    got = run("flops", "resnext50", "csp_resnext50", "--convention", "fvcore")
    assert "fvcore flops [1 per MAC]  5,088,952,320  3,995,942,912  −21.5 %" in got.out
    assert "Where the change in fvcore flops comes from" in got.out
    assert "note: fvcore flops are those of fvcore.nn.FlopCountAnalysis, 1 per MAC" in " ".join(got.out.split())
    assert "\nMACs " not in got.out
    assert "FLOPs" not in got.out


@pytest.mark.parametrize("convention", TOTALS)
@pytest.mark.parametrize("command", quick(["cio", "compare", "flops", "profile"], 2))
def test_every_convention_in_every_command(
    run: Run, chain: Profile, tmp_path: Path, command: str, convention: str
) -> None:
    file = str(chain.save(tmp_path / "x.profile.json"))
    specs = [file, file] if command == "compare" else [file]
    got = run(command, *specs, "--convention", convention, "--format", "json")
    document = json.loads(got.out)
    schema = json.loads((resources.files("cspprof") / "schemas" / "cio-1.schema.json").read_text())
    jsonschema.validate(document, schema)
    shown = document["models"][0]["convention"]
    assert (shown["name"], shown["total"]) == (convention, chain.total(convention))
    assert METRICS.get(convention).title in run(command, *specs, "--convention", convention).out


def test_an_unknown_convention_is_refused_before_the_trace(run: Run) -> None:
    got = run("flops", "no_such_model", "--convention", "darkent")
    assert got.code == 2
    assert got.err == "error: no convention named 'darkent'\n  Did you mean: darknet, hardnet?\n"


def test_explain_imports_no_heavy_library() -> None:
    program = """
import sys
from cspprof.cli import main
try:
    main(["explain", "conventions"])
except SystemExit:
    pass
heavy = {"torch", "pandas", "matplotlib", "numpy", "fvcore", "timm"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_parts_of_a_composite_name_it() -> None:
    def forward(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.einsum("ij,jk->ik", a, b) + a @ b

    p = trace(Function(forward), [(3, 4), (4, 5)])
    parts: dict[str, Any] = {op.target: op.attrs.get("within") for op in p.ops if op.kind is Kind.MATMUL}
    assert parts == {"aten.bmm": ("aten.einsum", "ij,jk->ik"), "aten.matmul": None}
