"""Which gradients reach which layers unchanged: closed counts, and autograd itself on small networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

import pytest
import torch
from torch import nn

import cspprof
from cspprof.csp.gradient_reuse import GradientReuse
from tests.conftest import Result, quick

Run = Callable[..., Result]
SCHEMA = json.loads((resources.files("cspprof") / "schemas" / "gradients-1.schema.json").read_text())


class Layer(nn.Sequential):
    """A convolution with batch norm and activation behind it."""

    def __init__(self, c_in: int, c_out: int, k: int = 3, stride: int = 1, act: type[nn.Module] = nn.SiLU) -> None:
        super().__init__(nn.Conv2d(c_in, c_out, k, stride, k // 2), nn.BatchNorm2d(c_out), act())


class PreActivation(nn.Sequential):
    """Batch norm and activation in front of a convolution."""

    def __init__(self, c_in: int, c_out: int, k: int = 3) -> None:
        super().__init__(nn.BatchNorm2d(c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, k, 1, k // 2))


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(Layer(3, 8), nn.AvgPool2d(2), Layer(8, 8), nn.Dropout(0.1), nn.ReLU(), Layer(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return y


class Dense(nn.Module):
    """A stem, `m` dense layers of one convolution each, and a transition. The concatenations are nested, or each reads
    all earlier maps."""

    def __init__(self, m: int, *, nested: bool = True, layer: type[nn.Module] = Layer) -> None:
        super().__init__()
        self.stem = Layer(3, 8)
        self.layers = nn.ModuleList(layer(8 + 4 * i, 4) for i in range(m))
        self.transition = layer(8 + 4 * m, 6, 1)
        self.nested = nested

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = [self.stem(x)]
        for layer in self.layers:
            joined = torch.cat(maps, 1)
            maps = [joined, layer(joined)] if self.nested else [*maps, layer(joined)]
        y: torch.Tensor = self.transition(torch.cat(maps, 1))
        return y


class PartialDense(nn.Module):
    """A dense block of which half of the base bypasses the layers, with the transitions of a fusion (Fig. 3)."""

    def __init__(self, m: int, fusion: str, *, split: str = "slice", transposed: bool = False) -> None:
        super().__init__()
        self.stem = Layer(3, 8)
        self.bypass = Layer(8, 4, 1) if split == "conv" else None
        self.main = Layer(8, 4, 1) if split == "conv" else None
        self.layers = nn.ModuleList(Layer(4 + 4 * i, 4) for i in range(m))
        c = 4 + 4 * m
        self.inner = Layer(c, 6, 1) if fusion in ("csp", "last") else None
        joined = 4 + (6 if self.inner else c)
        self.outer = Layer(joined, 8, 1) if fusion in ("csp", "first") else None
        self.next = Layer(8 if self.outer else joined, 8, 3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        if self.bypass is not None and self.main is not None:
            bypass, main = self.bypass(x), self.main(x)
        else:
            bypass, main = x.chunk(2, 1)
        for layer in self.layers:
            main = torch.cat([main, layer(main)], 1)
        if self.inner is not None:
            main = self.inner(main)
        x = torch.cat([main, bypass], 1)
        if self.outer is not None:
            x = self.outer(x)
        y: torch.Tensor = self.next(x)
        return y


class Residual(nn.Module):
    """`m` residual blocks of two layers, with or without an activation behind each addition."""

    def __init__(self, m: int, act: bool) -> None:
        super().__init__()
        self.stem = Layer(3, 8)
        self.first = nn.ModuleList(Layer(8, 4, 1) for _ in range(m))
        self.second = nn.ModuleList(Layer(4, 8) for _ in range(m))
        self.acts = nn.ModuleList(nn.Softplus() for _ in range(m)) if act else None
        self.last, self.beside = Layer(8, 4, 3, 2), Layer(8, 4, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for i, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            x = x + second(first(x))
            if self.acts is not None:
                x = self.acts[i](x)
        y: torch.Tensor = self.last(x) + self.beside(x)
        return y


class PartialResidual(nn.Module):
    """The detection head of a partial residual network: an upsampled map is added to some channels of a larger map."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = Layer(3, 8), Layer(8, 8, 3, 2)
        self.reduce, self.up = Layer(8, 4, 1), nn.Upsample(scale_factor=2)
        self.head, self.other = Layer(4, 4), Layer(8, 4)
        self.predict = nn.ModuleList([nn.Conv2d(4, 5, 1), nn.Conv2d(4, 5, 1), nn.Conv2d(4, 5, 1)])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        large = self.large(x)
        small = self.reduce(self.small(large))
        joined = self.up(small) + large[:, :4]
        return self.predict[0](small), self.predict[1](self.head(joined)), self.predict[2](self.other(large))


class Copies(nn.Module):
    """Slices, stacks, shuffles, padding, in-place additions and writes into slices."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = Layer(3, 8), Layer(8, 8), Layer(8, 4), Layer(20, 4)
        self.e, self.f = Layer(8, 8), Layer(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.a(x), self.b(self.a(x))
        shuffled = torch.channel_shuffle(torch.stack([a, b], 2).flatten(1, 2), 2)
        x = shuffled.roll(1, 1)[:, ::2].permute(0, 1, 3, 2).contiguous()
        buffer = torch.empty(x.shape[0], 20, *x.shape[2:])
        buffer[:, :8] = x
        buffer[:, 8:12] = self.c(b)
        buffer[:, 12:] = self.e(a)
        b = self.f(b)
        b += a
        b[:, :4] += self.c(a)
        y: torch.Tensor = self.d(buffer) + self.c(b)
        return nn.functional.pad(y, (1, 1))


class SharedHead(nn.Module):
    """One head for two maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.head, self.out = Layer(3, 8), Layer(8, 8, 3, 2), Layer(8, 8), Layer(8, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        large = self.stem(x)
        small = self.down(large)
        return self.out(self.head(large)), self.out(self.head(small))


# -- the gradients that autograd moves ---------------------------------------------------------------

SOURCES = (Layer, PreActivation, nn.Upsample, nn.Softplus)
"""Modules that compute a gradient of their input in the networks above. Everything else there passes gradients on, or
stands behind a layer."""


class Gate(torch.autograd.Function):
    """Returns its input. Backward, it replaces the gradient by noise if it is open, and by zeros if it is closed."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, is_open: Callable[[], bool]) -> torch.Tensor:
        ctx.is_open = is_open
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        return (torch.rand_like(gradient) + 0.5 if ctx.is_open() else torch.zeros_like(gradient)), None


@contextmanager
def gates(model: nn.Module) -> Iterator[tuple[list[str], list[str]]]:
    """Put a gate in front of each source; yields the names of the sources in execution order, and the open ones."""
    names: list[str] = []
    opened: list[str] = []

    def hook(path: str) -> Callable[..., Any]:
        def gate(module: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            n = sum(name.partition(" ")[0] == path for name in names)
            name = f"{path} #{n + 1}" if n else path
            names.append(name)
            return (Gate.apply(args[0], lambda: name in opened),)

        return gate

    handles = []
    for path, module in model.named_modules():
        outermost = not any(path.startswith(f"{p}.") for p, m in model.named_modules() if isinstance(m, SOURCES))
        if outermost and isinstance(module, (*SOURCES, nn.Conv2d)):
            handles.append(module.register_forward_pre_hook(hook(path)))
    try:
        yield names, opened
    finally:
        for handle in handles:
            handle.remove()


def layers_that_move(model: nn.Module, size: int = 8) -> dict[str, set[str]]:
    """By source: the convolutions whose weights get a gradient if the source alone sends one, and no other does."""
    torch.manual_seed(0)
    model.train()
    moved: dict[str, set[str]] = {}
    with gates(model) as (names, opened):
        out = model(torch.randn(2, 3, size, size))
        outputs = [Gate.apply(y, lambda: "output" in opened) for y in ([out] if isinstance(out, torch.Tensor) else out)]
        for name in [*names, "output"]:
            opened[:] = [name]
            model.zero_grad()
            torch.autograd.backward(outputs, [torch.ones_like(y) for y in outputs], retain_graph=True)
            moved[name] = {
                path for path, module in model.named_modules() if isinstance(module, nn.Conv2d)
                and module.weight.grad is not None and bool(module.weight.grad.abs().max() > 1e-12)
            }  # fmt: skip
    return moved


def source_of(model: nn.Module, name: str) -> str:
    """The path of the source that computes a gradient, with the number of its call: `head #2` for `head.0 #2`."""
    path, _, number = name.partition(" [")[0].partition(" #")
    parts = path.split(".")
    prefixes = [".".join(parts[: n + 1]) for n in range(len(parts))]
    found = [p for p in prefixes if p != "output" and isinstance(model.get_submodule(p), (*SOURCES, nn.Conv2d))]
    return (found or [path])[0] + (f" #{number}" if number else "")


def layers_reached(model: nn.Module, size: int = 8) -> dict[str, set[str]]:
    """The same from the record."""
    reuse = cspprof.gradients(model, (2, 3, size, size))
    found: dict[str, set[str]] = {}
    for gradient in reuse.gradients:
        layers = {reuse.layers[i].path for i in gradient.layers}
        found.setdefault(source_of(model, gradient.name), set()).update(layers)
    return found


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "chain": Chain,
    "dense, nested": lambda: Dense(4),
    "dense, flat": lambda: Dense(4, nested=False),
    "dense, norm in front": lambda: Dense(3, layer=PreActivation),
    **{f"{fusion}, {split}": (lambda f=fusion, s=split: PartialDense(3, f, split=s))  # type: ignore[misc]
       for fusion in ("csp", "first", "last") for split in ("slice", "conv")},
    "residual": lambda: Residual(3, act=False),
    "residual with activations": lambda: Residual(3, act=True),
    "partial residual head": PartialResidual,
    "copies": Copies,
    "shared head": SharedHead,
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_layers_that_a_gradient_reaches_are_those_that_autograd_moves(name: str) -> None:
    model = NETWORKS[name]()
    assert layers_reached(model) == layers_that_move(model)


# -- closed counts -----------------------------------------------------------------------------------


def of(model: nn.Module | str, shape: tuple[int, ...] = (1, 3, 8, 8)) -> GradientReuse:
    return cspprof.gradients(model, None if isinstance(model, str) else shape)


def uses_of(reuse: GradientReuse, prefix: str) -> list[int]:
    """The numbers of gradients that reach the layers whose path starts like this, in execution order."""
    return [len(layer.gradients) for layer in reuse.layers if layer.path.startswith(prefix)]


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("layer", [Layer, PreActivation])
@pytest.mark.parametrize("m", [1, 2, 5, 12])
def test_a_dense_block_follows_equation_2(m: int, layer: type[nn.Module], nested: bool) -> None:
    """In the order of the backward pass, layer k is updated by k gradients: w_k' = f(w_k, g_0, ..., g_{k-1})."""
    reuse = of(Dense(m, nested=nested, layer=layer))
    assert uses_of(reuse, "layers.") == [*range(m, 0, -1)]
    assert sum(uses_of(reuse, "layers.")) == m * (m + 1) // 2
    assert uses_of(reuse, "stem") == [m + 1]  # and that of the first layer reaches the base
    assert uses_of(reuse, "transition") == [1]
    # each gradient is used again by the base and by every later layer of the backward pass
    assert [g.reused for g in reuse.gradients] == [0, *range(m + 1), 0]
    assert (reuse.total.gradients, reuse.total.reused) == (m + 3 - 1, m * (m + 1) // 2)
    assert reuse.total.paths == 2**m
    assert reuse.total.shared == m * (m + 1) // 2  # the whole base bypasses the layers


@pytest.mark.parametrize("split", ["slice", "conv"])
@pytest.mark.parametrize("m", [2, 3, 7])
def test_the_four_forms_share_as_much_as_the_paper_says(m: int, split: str) -> None:
    """Everything in the plain block, one gradient in all layers with *first*, one in the transition with *csp*, and
    nothing with *last*."""
    shared = {f: of(PartialDense(m, f, split=split)).total for f in ("first", "csp", "last")}
    assert {f: (s.shared, s.fusions) for f, s in shared.items()} == {
        "first": (m + (split == "conv"), ("first",)),  # with convolutions, the one of the processed part is a layer too
        "csp": (1, ("csp",)),
        "last": (0, ("last",)),
    }
    assert of(Dense(m)).total.shared >= shared["first"].shared > shared["csp"].shared > shared["last"].shared == 0
    assert all(s.paths == 2**m + 1 for s in shared.values())


@pytest.mark.parametrize("fusion", ["csp", "last"])
def test_no_gradient_of_the_bypass_reaches_a_layer_that_a_transition_cuts_off(fusion: str) -> None:
    """Eq. 4: the gradients of both parts are integrated separately."""
    reuse = of(PartialDense(4, fusion))
    (split,) = reuse.bypasses
    layers = [la for la in reuse.layers if la.path.startswith("layers.")]
    assert {n for layer in layers for n in layer.gradients}.isdisjoint(split.bypassed)
    first = of(PartialDense(4, "first"))
    assert all(first.bypasses[0].bypassed <= {*la.gradients} for la in first.layers if la.path.startswith("layers."))


@pytest.mark.parametrize("m", [1, 2, 8])
def test_residual_blocks_without_an_activation_behind_the_addition_reuse_as_dense_ones_do(m: int) -> None:
    reuse = of(Residual(m, act=False))
    assert uses_of(reuse, "first.") == [1] * m
    assert uses_of(reuse, "second.") == [m - i + 1 for i in range(m)]  # of the next blocks, and of two layers behind
    assert reuse.total.shared == m * (m - 1) // 2
    assert reuse.total.paths == 2 * 2**m


def test_an_activation_behind_the_addition_computes_another_gradient() -> None:
    reuse = of(Residual(4, act=True))
    assert uses_of(reuse, "second.") == [1, 1, 1, 1]
    assert reuse.total.shared == 0
    assert reuse.total.paths == 2 * 2**4


def test_partial_residual_head() -> None:
    """The upsampled map and a part of the larger map get the gradient of the same layer."""
    reuse = of(PartialResidual())
    head = next(g for g in reuse.gradients if g.name.startswith("head"))
    assert [reuse.layers[i].path for i in head.layers] == ["large.0"]  # the other reader of the sum is the upsampling
    assert len(next(la for la in reuse.layers if la.path == "large.0").gradients) == 3


def test_a_chain_uses_each_gradient_once() -> None:
    total = of(Chain()).total
    assert (total.layers, total.gradients, total.uses, total.reused, total.most, total.paths) == (3, 3, 3, 0, 1, 1)


def test_calls_with_the_same_weights_are_one_layer() -> None:
    reuse = of(SharedHead())
    assert [la.path for la in reuse.layers] == ["stem.0", "down.0", "head.0", "out.0"]
    assert [len(la.gradients) for la in reuse.layers] == [2, 1, 2, 2]
    assert reuse.layers[3].paths == 2  # one to each output


# -- networks ----------------------------------------------------------------------------------------


def dense_shares(depths: tuple[int, ...]) -> list[int]:
    """A stage of m layers with a transition shares m(m + 1)/2; the last one has none, and shares m(m - 1)/2."""
    return [m * (m + 1) // 2 for m in depths[:-1]] + [depths[-1] * (depths[-1] - 1) // 2]


def stage_numbers(spec: str, field: str) -> list[Any]:
    return [getattr(s, field) for s in of(spec).stages if s.stage.startswith("stage")]


def test_stages_of_densenet_by_fusion() -> None:
    depths = (6, 12, 24, 16)
    assert stage_numbers("densenet121", "shared") == dense_shares(depths) == [21, 78, 300, 120]
    assert stage_numbers("csp_densenet121,fusion=first", "shared") == [*depths]
    assert stage_numbers("csp_densenet121", "shared") == [1, 1, 1, 1]
    assert stage_numbers("csp_densenet121,fusion=last", "shared") == [0, 0, 0, 0]
    assert stage_numbers("densenet121", "paths") == [2**m for m in depths]
    assert stage_numbers("csp_densenet121", "paths") == [2**m + 1 for m in depths]
    assert stage_numbers("csp_densenet121", "fusions") == [("csp",)] * 4


def test_densenet_of_torchvision_concatenates_otherwise_and_has_the_same_gradients() -> None:
    ours, theirs = of("densenet121").total, of("torchvision:densenet121").total
    assert ours == theirs


@pytest.mark.parametrize(
    ("spec", "split"),
    quick(
        [("csp_resnext50", "conv"), ("csp_darknet53", "conv"), ("csp_resnet50", "conv"), ("csp_peleenet", "slice"),
         ("csp_densenet121", "slice"), ("csp_resnet10", "slice"), ("csp_densenet121,split=conv", "conv"),
         ("csp_peleenet,split=conv", "conv")],
        3,
    ),
)  # fmt: skip
@pytest.mark.parametrize("fusion", ["csp", "first", "last"])
def test_the_fusion_of_every_partial_network_is_recognized(spec: str, split: str, fusion: str) -> None:
    if spec == "csp_resnet10":
        pytest.skip("has one fusion") if fusion != "csp" else None
        reuse = of(spec)
    else:
        reuse = of(f"{spec},fusion={fusion}")
    splits = [b for b in reuse.bypasses if b.split != "whole"]
    assert len(splits) >= 3
    assert {(b.split, b.fusion) for b in splits} == {(split, fusion)}
    if fusion == "last":
        assert not any(b.shared for b in splits)


@pytest.mark.slow
def test_splits_of_timm_networks_are_recognized() -> None:
    assert of("timm:cspresnet50").total.fusions == ("csp",) * 4
    assert of("timm:cs3darknet_m").total.fusions == ("first",) * 4


@pytest.mark.parametrize("spec", ["vgg16", "resnet18", "torchvision:googlenet", "torchvision:squeezenet1_0"])
def test_networks_without_a_cross_stage_split_have_none(spec: str) -> None:
    assert of(spec).total.fusions == ()


def test_resnet_reuses_gradients_only_at_projections() -> None:
    """The ReLU behind each addition computes another gradient. A projection and the last convolution beside it share
    one."""
    reuse = of("torchvision:resnet18")
    assert (reuse.total.layers, reuse.total.uses, reuse.total.reused) == (21, 22, 4)
    assert reuse.total.paths == 2**8
