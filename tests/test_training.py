"""A training step from the record: MACs, saved bytes and peak memory, against torch's own autograd."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from importlib import resources
from math import prod
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import torch.nn.functional as F
from conftest import CHECKOUT, quick
from test_timm import ARCHITECTURES
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

import cspprof
from cspprof.analysis.checkpointing import checkpoint_candidates
from cspprof.core.errors import CspprofError
from cspprof.metrics import METRICS
from cspprof.metrics.training import overwritten_saves, unknown_saves
from cspprof.metrics.training import train_macs as train_macs_of
from cspprof.metrics.training_memory import training_memory
from cspprof.operands.pytree import tensors_in
from cspprof.profiles import Profile
from cspprof.report.training import training_report

ZOO = (CHECKOUT / "cspprof" / "data" / "zoo_names.txt").read_text().split()
IMAGE = (2, 4, 8, 8)
SCHEMA = json.loads((resources.files("cspprof") / "schemas" / "training-1.schema.json").read_text())
Run = Callable[..., Any]

# -- oracles ----------------------------------------------------------------------------------------


class FusedAttention(TorchFunctionMode):
    """On meta, attention by the CPU's fused kernel, under the conditions of the CPU."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not F.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        return self.attention(*args, **(kwargs or {}))

    def attention(
        self, q: Any, k: Any, v: Any, attn_mask: Any = None, dropout_p: float = 0.0, *args: Any, **kw: Any
    ) -> Any:
        is_causal, scale = kw.get("is_causal", *args[:1]) if args else kw.get("is_causal", False), kw.get("scale")
        differentiable_mask = attn_mask is not None and attn_mask.requires_grad
        rows = all(t.stride(-1) == 1 for t in (q, k, v))
        if dropout_p or q.dim() != 4 or differentiable_mask or not rows:
            return F.scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=scale)
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return kernel(q, k, v, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]


def conv_backward_flops(
    grad: Any, x: Any, w: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, more: Any,
    groups: int, mask: Any, out_shape: Any = None, **kwargs: Any,
) -> int:  # fmt: skip
    """FlopCounterMode takes the weight of a grouped convolution as a dense one (torch 2.14)."""
    return 2 * prod(w[1:]) * prod(x if transposed else grad) * (mask[0] + mask[1])


def counted_macs(model: nn.Module, x: torch.Tensor) -> int:
    """MACs of a real forward and backward pass, by FlopCounterMode."""
    mapping = {torch.ops.aten.convolution_backward: conv_backward_flops}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        parts = [t for t in tensors_in(model(x)) if t.requires_grad]
        torch.stack([t.sum() for t in parts]).sum().backward()
    return counter.get_total_flops() // 2


class Box:
    """Holds a tensor that autograd keeps, for as long as it keeps it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def kept_bytes(model: nn.Module, x: torch.Tensor) -> int:
    """Bytes that autograd keeps after a real forward pass, without parameters, buffers and the input."""
    boxes: list[weakref.ref[Box]] = []

    def pack(tensor: torch.Tensor) -> Box:
        box = Box(tensor)
        boxes.append(weakref.ref(box))
        return box

    outside = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers(), x)}
    with saved_tensors_hooks(pack, lambda box: box.tensor), FusedAttention():
        result = model(x)
    storages = {b.tensor.untyped_storage()._cdata: b.tensor for b in (ref() for ref in boxes) if b is not None}
    del result
    return sum(t.untyped_storage().nbytes() for key, t in storages.items() if key not in outside)


def assert_equal_to_autograd(model: nn.Module, shape: tuple[int, ...], memory: bool = True) -> None:
    model = model.to("meta").train()
    x = torch.zeros(shape, device="meta")
    record = cspprof.profile(model, shape, train=True)
    macs, saved = (METRICS.get(name).total(record) for name in ("train_macs", "saved_bytes"))
    assert (macs.value, macs.missed) == (counted_macs(model, x), 0)
    assert overwritten_saves(record) == []
    if memory:
        assert (saved.value, saved.missed) == (kept_bytes(model, x), 0)


# -- operations -------------------------------------------------------------------------------------


class Functional(nn.Module):
    """A function of the modules `a` and `b`, and of the input."""

    def __init__(self, function: Callable[..., Any], a: nn.Module | None = None, b: nn.Module | None = None) -> None:
        super().__init__()
        self.a, self.b, self.function = a or nn.Conv2d(4, 8, 3, padding=1), b or nn.Conv2d(8, 8, 1), function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.a, self.b, x)


def frozen(model: Functional, *names: str) -> Functional:
    for name in names:
        getattr(model, name).requires_grad_(False)
    return model


def between(function: Callable[[torch.Tensor], torch.Tensor]) -> Functional:
    """Two convolutions with a function or module between them."""
    model = Functional(lambda a, b, x: b(function(a(x))))
    if isinstance(function, nn.Module):
        model.b = nn.Sequential(function, nn.Conv2d(8, 8, 1))
        model.function = lambda a, b, x: b(a(x))
    return model


class Decoder(nn.Module):
    """A block of a decoder language model: token ids, causal attention, a gated MLP, a tied head."""

    def __init__(self, words: int = 100, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.embed, self.norm, self.last = nn.Embedding(words, width), nn.RMSNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.gate, self.down = nn.Linear(width, 256), nn.Linear(128, width)
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ids = x.to(torch.int64)
        h = self.embed(ids)
        n, length, width = h.shape
        q, k, v = self.qkv(self.norm(h)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.out(y.transpose(1, 2).reshape(n, length, width))
        a, b = self.gate(self.last(h)).chunk(2, -1)
        return F.linear(h + self.down(F.silu(a) * b), self.embed.weight)


OPERATIONS: dict[str, Functional] = {
    "a chain": Functional(lambda a, b, x: b(F.relu(a(x)))),
    "the first layer is frozen": frozen(Functional(lambda a, b, x: b(F.relu(a(x)))), "a"),
    "the last layer is frozen": frozen(Functional(lambda a, b, x: b(F.relu(a(x)))), "b"),
    "a layer used twice": Functional(lambda a, b, x: b(b(a(x)))),
    "detached": Functional(lambda a, b, x: b(a(x).detach())),
    "detached and not": Functional(lambda a, b, x: (lambda y: b(y.detach()) + y)(a(x))),
    "batch norm": between(nn.BatchNorm2d(8)),
    "batch norm without statistics": between(nn.BatchNorm2d(8, affine=False, track_running_stats=False)),
    "instance norm": between(nn.InstanceNorm2d(8, affine=True)),
    "group norm": between(nn.GroupNorm(2, 8)),
    "layer norm": between(nn.LayerNorm(8)),
    "rms norm": between(nn.RMSNorm(8)),
    "relu in place": between(lambda y: F.relu(y, inplace=True)),
    "silu in place": between(lambda y: F.silu(y * 2, inplace=True)),
    "relu6 in place": between(lambda y: F.relu6(y * 2, inplace=True)),
    "leaky relu in place": between(lambda y: F.leaky_relu(y * 2, inplace=True)),
    "gelu, sigmoid, softmax": between(lambda y: F.gelu(y).sigmoid().softmax(1)),
    "dropout": between(nn.Dropout(0.1)),
    "dropout of channels": between(nn.Dropout2d(0.1)),
    "pools": between(lambda y: F.avg_pool2d(F.max_pool2d(y, 2), 2)),
    "adaptive pools": between(lambda y: F.adaptive_avg_pool2d(F.adaptive_max_pool2d(y, 4), 1)),
    "resize": between(lambda y: F.interpolate(y, scale_factor=2, mode="bilinear")),
    "views": between(lambda y: torch.cat([y[:, :3], y[:, 3:]], 1).transpose(2, 3)),
    "products of maps": between(lambda y: (y * y.mean(1, keepdim=True) / (y + 1)) ** 2),
    "interpolation by a number": between(lambda y: torch.lerp(y, y.relu(), 0.4)),
    "interpolation by a map": between(lambda y: torch.lerp(y, y.relu(), y.sigmoid())),
    "products with numbers": between(lambda y: torch.addcmul(y * 2, y, y.relu(), value=0.5) / 3 - 1),
    "a weight that is computed": Functional(lambda a, b, x: F.conv2d(x, a.weight - a.weight.mean())),
    "reflection": between(nn.ReflectionPad2d(1)),
    "grouped transposed": Functional(lambda a, b, x: b(a(x)), None, nn.ConvTranspose2d(8, 6, 3, 2, groups=2)),
    "linear of a permuted map": Functional(lambda a, b, x: b(a(x).permute(0, 2, 3, 1)), None, nn.Linear(8, 3)),
    "batched product": Functional(lambda a, b, x: (lambda y: y @ y.transpose(1, 2))(a(x).flatten(2))),
    "einsum": Functional(lambda a, b, x: torch.einsum("nchw,oc->nohw", a(x), b.weight), None, nn.Linear(8, 3)),
    "maximum over a dimension": between(lambda y: y - y.max(1, keepdim=True)[0]),
    "maximum of two": between(lambda y: torch.maximum(y, y.relu() * 2)),
    "powers and roots": between(lambda y: (y.abs() + 1).sqrt() + y.exp().log1p()),
    "logarithm of a softmax": between(lambda y: F.log_softmax(y, 1)),
    "prod and norm": between(lambda y: y * y.prod(1, keepdim=True) + torch.linalg.vector_norm(y, dim=1, keepdim=True)),
    "padding": between(lambda y: F.pad(y, (1, 2, 0, 1))),
    "nearest and bicubic": between(
        lambda y: F.interpolate(F.interpolate(y, scale_factor=2), size=5, mode="bicubic")
    ),
    "mish, hardswish, elu, softplus": between(lambda y: F.softplus(F.elu(F.hardswish(F.mish(y))))),
    "a mask": between(lambda y: torch.where(y > 0, y, 0.0).masked_fill(y > 1, 0.0)),
    "written into a map": Functional(
        lambda a, b, x: (lambda o: (o.__setitem__((slice(None), slice(0, 8)), a(x)), b(o[:, 2:]))[1])(
            torch.zeros(2, 10, 8, 8, device=x.device)
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_macs_and_saved_bytes_are_those_of_autograd(name: str) -> None:
    assert_equal_to_autograd(OPERATIONS[name], IMAGE)


def test_a_decoder_language_model() -> None:
    assert_equal_to_autograd(Decoder(), (2, 16))


class CrossAttention(nn.Module):
    """A block of an encoder-decoder network: torch's own layer, which reads queries and keys of different lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        self.memory = nn.Parameter(torch.zeros(2, 10, 16))

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x, self.memory)


def test_a_decoder_that_attends_to_an_encoder() -> None:
    """The bytes on the CPU: on meta, torch does not use the fused kernel inside its own layers."""
    model, shape = CrossAttention(), (2, 12, 16)
    kept = kept_bytes(model, torch.zeros(shape))
    assert_equal_to_autograd(model, shape, memory=False)
    assert cspprof.profile(model, shape, train=True).total("saved_bytes") == kept


RECURRENT = {
    "lstm, bidirectional": lambda: nn.LSTM(64, 16, 2, bidirectional=True),
    "lstm, three layers with projections": lambda: nn.LSTM(64, 16, 3, proj_size=8),
    "gru, three layers": lambda: nn.GRU(64, 16, 3),
    "rnn, three layers": lambda: nn.RNN(64, 16, 3),
    "rnn, bidirectional": lambda: nn.RNN(64, 16, 3, bidirectional=True),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_have_the_macs_of_autograd_and_unknown_memory(name: str) -> None:
    net = Functional(lambda a, b, x: a(b(x.flatten(2)))[0], RECURRENT[name](), nn.Linear(64, 64))
    assert_equal_to_autograd(net, IMAGE, memory=False)
    saved = METRICS.get("saved_bytes").total(cspprof.profile(net, IMAGE, train=True))
    assert saved.missed == 1


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_operations_that_keep_unknown_tensors_are_counted_by_name(calls: int) -> None:
    net = nn.Sequential(*(Functional(lambda a, b, x: a(x)[0], nn.GRU(4, 4), nn.Identity()) for _ in range(calls)))
    assert unknown_saves(cspprof.profile(net, (5, 2, 4), train=True)) == {"aten.gru": calls}


@pytest.mark.parametrize("name", quick(ZOO, ["peleenet", "csp_resnet50"]))
def test_networks_of_the_zoo(name: str) -> None:
    from cspprof.sources import Request, open_model

    with open_model(name, Request()) as loaded:
        shape = loaded.inputs if isinstance(loaded.inputs[0], int) else loaded.inputs[0]
        assert_equal_to_autograd(loaded.module, (2, *shape[1:]))


@pytest.mark.parametrize("name", quick(ARCHITECTURES, ["levit_conv_128s"]))
def test_architectures_of_timm(name: str) -> None:
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    with torch.device("meta"):
        model = timm.create_model(name)
    assert_equal_to_autograd(model, (2, *model.default_cfg["input_size"]))


def test_numbers_of_two_convolutions_by_hand() -> None:
    """3→8 and 8→4 channels, 3×3, on 8×8 maps without padding: 6×6 and 4×4. The first needs no gradient of the image."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    record = cspprof.profile(model, (1, 3, 8, 8))
    first, second = 3 * 9 * 8 * 36, 8 * 9 * 4 * 16
    assert record.total("train_macs") == 2 * first + 3 * second
    assert record.total("saved_bytes") == 8 * 36 * 4  # the output of the ReLU, which the second convolution also keeps


# -- memory -----------------------------------------------------------------------------------------


def measured_peak(model: nn.Module, x: torch.Tensor, optimizer: torch.optim.Optimizer) -> int:
    """The peak of torch's CPU allocator in the second training step, with what exists before it."""

    def step() -> None:
        y = model(x)
        y.sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    live = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    state = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    return peak + sum(t.nbytes for t in (*model.parameters(), *model.buffers(), x, *state))


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 1e-9),
    "momentum": lambda p: torch.optim.SGD(p, 1e-9, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-9),
}


def test_the_moments_of_a_small_step_by_hand() -> None:
    """Two linear layers of 2·3 and 3·1 weights and a ReLU, which keeps its output r. The output y stays to the end."""
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
    memory = training_memory(cspprof.profile(net, (1, 2)), "adamw")
    assert (memory.weights, memory.inputs, memory.gradients, memory.optimizer) == (4 * 9, 4 * 2, 4 * 9, 2 * 4 * 9)
    r, y = 4 * 3, 4 * 1
    assert [(m.phase, m.call, m.gradients, m.saved, m.other) for m in memory.moments] == [
        ("forward", 0, 0, 0, r),  # what the ReLU reads
        ("forward", 1, 0, r, r),
        ("forward", 2, 0, r, y),
        ("backward", 2, 4 * 3, r, y + y + r),  # y, its gradient, the gradient of r
        ("backward", 1, 4 * 3, r, y + r + r),  # the gradients of both sides of the ReLU
        ("backward", 0, 4 * 9, 0, y + r),
        ("optimizer", 3, 4 * 9, 0, y + 2 * 4 * 6),  # two copies of the largest parameter
    ]
    assert {m.fixed for m in memory.moments} == {4 * 9 + 4 * 2 + 2 * 4 * 9}
    assert memory.peak.phase == "optimizer"


def test_a_tensor_that_is_kept_is_counted_once_at_each_moment() -> None:
    """h is made by call 0, read by the sum of call 1, which keeps nothing, and kept by the product of call 2. The
    output of the ReLU of call 3 is kept for its own backward pass, and is also the result, which stays to the end."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 32, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.linear(x)
            return ((h + 1) * h).relu()

    memory = training_memory(cspprof.profile(Net(), (1, 2)), "sgd")
    n = 4 * 32
    forward = [(m.saved, m.other) for m in memory.moments if m.phase == "forward"]
    assert forward == [
        (0, n),  # h
        (0, n + n),  # h and h + 1
        (n + n, n),  # the product keeps both; its output
        (n + n + n, n),  # the ReLU keeps its output; what it reads
    ]
    backward = [(m.call, m.saved, m.other) for m in memory.moments if m.phase == "backward"]
    assert backward == [
        (3, n + n + n, n + n),  # the gradients of both sides of the ReLU
        (2, n + n, n + n + n + n),  # the result, the gradient of the product, and those of h + 1 and h
        (1, 0, n + n + n),  # the result, the gradients of h + 1 and h
        (0, 0, n + n),
    ]


def test_the_gradient_of_a_sum_is_shared_until_something_is_added_to_it() -> None:
    """z = (h + a) + h, each of 128 bytes. The gradient of z is also that of y = h + a and of h. The first sum adds to
    the gradient of h, which needs memory of its own as long as the gradient of y exists."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h, self.a = nn.Linear(2, 32, bias=False), nn.Linear(2, 32, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.h(x)
            return h + self.a(x) + h

    memory = training_memory(cspprof.profile(Net(), (1, 2)), "sgd")
    n = 4 * 32
    assert [(m.phase, m.call, m.other) for m in memory.moments if m.phase == "backward"] == [
        ("backward", 3, n + n),  # z, and one gradient of z, y and h
        ("backward", 2, n + n + n),
        ("backward", 1, n + n),
        ("backward", 0, n + n),
    ]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("weights", [16, 3000], ids=["activations dominate", "weights dominate"])
def test_the_peak_is_that_of_the_allocator(optimizer: str, weights: int) -> None:
    layers = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(True), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.SiLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, weights))
    x = torch.randn(4, 3, 64, 64)
    predicted = training_memory(cspprof.profile(model, tuple(x.shape), train=True), optimizer).peak.total
    assert predicted == pytest.approx(measured_peak(model, x, OPTIMIZERS[optimizer](model.parameters())), rel=0.05)


class Checkpointed(nn.Module):
    """A model that checkpoints one of its modules."""

    def __init__(self, model: nn.Module, path: str) -> None:
        super().__init__()
        self.model = model
        inner = model.get_submodule(path)
        forward = inner.forward
        inner.forward = lambda x: torch.utils.checkpoint.checkpoint(forward, x, use_reentrant=False)

    def forward(self, x: torch.Tensor) -> Any:
        return self.model(x)


def test_checkpointing_a_module_saves_what_the_table_says() -> None:
    import torch.utils.checkpoint
    import torchvision

    def kept(path: str = "") -> int:
        model = torchvision.models.resnet18().train()
        return kept_by_graph(Checkpointed(model, path) if path else model)

    def kept_by_graph(model: nn.Module) -> int:
        return kept_bytes(model, torch.zeros(2, 3, 64, 64))

    record = cspprof.profile(torchvision.models.resnet18(), (2, 3, 64, 64), train=True)
    candidates = {c.path: c for c in checkpoint_candidates(record)}
    whole = kept()
    assert whole == record.total("saved_bytes")
    for path in ("layer1.1", "layer2"):
        assert whole - kept(path) == candidates[path].saved
    assert candidates["layer1.1"].macs == 2 * 64 * 64 * 9 * 16 * 16 * 2


# -- what the record lacks --------------------------------------------------------------------------


def test_a_saved_profile_has_the_same_numbers(tmp_path: Path) -> None:
    record = cspprof.profile("peleenet", train=True)
    record.save(tmp_path / "x.profile.json.gz")
    loaded = Profile.load(tmp_path / "x.profile.json.gz")
    for name in ("train_macs", "saved_bytes", "train_peak_bytes"):
        assert loaded.total(name) == record.total(name)


def test_the_command_reads_a_saved_profile(tmp_path: Path, run: Run) -> None:
    cspprof.profile("resnet10", train=True).save(tmp_path / "x.profile.json")
    saved = json.loads(run("profile", str(tmp_path / "x.profile.json"), "--training", "-f", "json").out)["models"][0]
    traced = json.loads(run("profile", "resnet10", "--training", "-f", "json").out)["models"][0]
    assert saved["train_peak_bytes"] == traced["train_peak_bytes"]


def test_a_profile_of_an_older_version_has_unknown_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.profile.json"
    cspprof.profile("resnet10").save(path)
    document = json.loads(path.read_text())
    del document["backward"], document["calls"]["required"]
    path.write_text(json.dumps(document))
    record = Profile.load(path)
    assert record.total("macs") > 0
    assert [record.total(name) for name in ("train_macs", "saved_bytes", "train_peak_bytes")] == [None] * 3
    assert train_macs_of(record).missed
    with pytest.raises(CspprofError, match="does not say which of its tensors require a gradient"):
        training_report([record])


def test_a_model_that_cannot_be_differentiated_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).requires_grad_(False)
    with pytest.raises(CspprofError, match="cannot be differentiated: all its parameters are frozen"):
        training_report([cspprof.profile(model, (1, 3, 8, 8))])
    classes = Functional(lambda a, b, x: a(x).argmax(1))
    with pytest.raises(CspprofError, match="no output depends on a parameter that requires a gradient"):
        training_report([cspprof.profile(classes, IMAGE)])


IN_PLACE: dict[str, Callable[[Any, Any, torch.Tensor], torch.Tensor]] = {
    "an addition to a convolution": lambda a, b, x: a(x).add_(1),
    "ReLU of a sum": lambda a, b, x: b(a(x).add_(1).relu_()),
    "an addition to what ReLU returned": lambda a, b, x: b(a(x).relu().add_(1)),
    "an addition to what ReLU in place returned": lambda a, b, x: b(a(x).relu_().add_(1)),
    "an addition to the input of a convolution": lambda a, b, x: (lambda y: (b(y), y.add_(1))[0])(a(x)),
    "an addition to the input of a frozen layer": lambda a, b, x: (lambda y: (b(y).detach(), y.add_(1))[1])(a(x)),
    "dropout of what is kept": lambda a, b, x: F.dropout(a(x).sigmoid(), 0.5, True, inplace=True),
    "dropout that drops nothing": lambda a, b, x: F.dropout(a(x).sigmoid(), 0.0, True, inplace=True),
    "half of what is kept": lambda a, b, x: (lambda y: (b(y), y[:, :2].zero_())[0])(a(x)),
    "a product of a sum": lambda a, b, x: a(x).add_(1).mul_(2),
    "a product with itself": lambda a, b, x: (lambda y: y.mul_(y.clone()).mul_(y.clone()))(a(x)),
    "a view of a new map": lambda a, b, x: (lambda y: b(y).flatten(1).add_(y.flatten(1)))(a(x)),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_note_says_what_torch_cannot_differentiate_because_it_is_overwritten(name: str) -> None:
    model = Functional(IN_PLACE[name])
    record = cspprof.profile(model, IMAGE, train=True)
    noted = any("torch refuses the backward pass" in note for note in training_report([record]).notes)
    assert noted == refuses_the_backward_pass(model)


def refuses_the_backward_pass(model: nn.Module) -> bool:
    try:
        model(torch.ones(IMAGE)).sum().backward()
    except RuntimeError as error:
        return "modified by an inplace operation" in str(error)
    return False


def test_the_note_names_both_layers() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Sigmoid(), nn.ReLU(inplace=True))
    (note,) = training_report([cspprof.profile(model, IMAGE, train=True)]).notes
    assert "relu_ at 2 overwrites in place what autograd keeps for 1. Use the operation that is not in place." in note


# -- the command ------------------------------------------------------------------------------------


def test_the_page_has_the_bill_with_the_chosen_optimizer(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "step.html"
    assert run("profile", "resnet10", "--training", "--optimizer", "adamw", "-o", str(page)).code == 0
    text = page.read_text()
    assert "<h2 id=h-section>A training step</h2>" in text
    assert "state of the optimizer (adamw)" in text
    assert "Modules of resnet10 to checkpoint" in text


def test_the_command_prints_the_bill(run: Run) -> None:
    printed = run("profile", "resnet10", "--training", "--optimizer", "adamw", "--top", "3").out
    assert "MACs of the training step" in printed
    assert "state of the optimizer (adamw)" in printed
    assert "Modules of resnet10 to checkpoint" in printed
    document = json.loads(run("profile", "resnet10", "--training", "-f", "json", "--optimizer", "adamw").out)
    jsonschema.validate(document, SCHEMA)
    (model,) = document["models"]
    assert model["optimizer_bytes"] == 2 * model["gradient_bytes"]
    assert model["train_macs"] == model["macs"] + sum(row["backward_macs"] for row in model["layers"])
    assert model["saved_bytes"] == sum(row["saved_bytes"] for row in model["layers"])
    peak = model["peak"]
    assert model["train_peak_bytes"] == sum(peak[part] for part in ("fixed", "gradients", "saved", "other"))


def test_the_chart_ends_at_the_gradients_of_all_parameters() -> None:
    chart = cspprof.plot("memory", "resnet10", training=True)
    record = cspprof.profile("resnet10", train=True)
    memory = training_memory(Profile.of(record))
    heights = {series.name: series.marks for series in chart.panels[0].series}
    assert max(mark.y for mark in heights["all memory"]) == memory.peak.total
    assert heights["weights, gradients"][-1].y == memory.weights + memory.inputs + memory.gradients
