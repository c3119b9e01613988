"""Which gradients reach which layers unchanged: closed counts, and autograd itself on small networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

import pytest
import torch
from jsonschema import validate
from torch import nn

import cspprof
from cspprof.csp.gradient_reuse import GradientReuse
from cspprof.report.gradient_reuse import paths_text
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


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Backward passes of tiny layers, which threads only slow down."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


@pytest.mark.parametrize(
    "name", quick(NETWORKS, ("dense, nested", "csp, slice", "first, conv", "copies", "shared head"))
)
@pytest.mark.usefixtures("one_thread")
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


# -- what passes a gradient on -------------------------------------------------------------------------


class Sum(nn.Module):
    """Two layers whose outputs are combined, and two readers of the result."""

    def __init__(self, combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.c, self.d = nn.LazyConv2d(4, 1), nn.LazyConv2d(4, 1)
        self.combine = combine

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.combine(self.a(x), self.b(x))
        return self.c(y) * self.d(y)


def layers_of_c(combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> set[str]:
    """The layers that the gradient of the layer behind the combination reaches."""
    model = Sum(combine)
    model(torch.randn(1, 3, 8, 8))
    reuse = of(model)
    return {reuse.layers[i].path for g in reuse.gradients if g.name == "c" for i in g.layers}


@pytest.mark.parametrize(
    ("combine", "layers"),
    [
        (lambda a, b: a + b, {"a", "b"}),
        (lambda a, b: a.add_(b), {"a", "b"}),
        (lambda a, b: torch.cat([a, b]), {"a", "b"}),
        (lambda a, b: torch.stack([a, b]).flatten(0, 1), {"a", "b"}),
        (lambda a, b: torch.cat([a[:, :4], b[:, 4:]], 1), {"a", "b"}),
        (lambda a, b: nn.functional.pad(a, (1, 1)) + nn.functional.pad(b, (1, 1)), {"a", "b"}),
        (lambda a, b: nn.functional.pixel_shuffle(a, 2) + nn.functional.pixel_shuffle(b, 2), {"a", "b"}),
        (lambda a, b: a.transpose(2, 3).contiguous() + b.flip(3), {"a", "b"}),
        (lambda a, b: a + 1 + b, {"a", "b"}),
        (lambda a, b: nn.functional.dropout(a + b, 0.5, training=False), {"a", "b"}),
        (lambda a, b: a - b, {"a"}),  # the other one is negated
        (lambda a, b: torch.add(a, b, alpha=2), {"a"}),  # … or doubled
        (lambda a, b: a + b.mean((2, 3), keepdim=True), {"a"}),  # … or summed
        (lambda a, b: a + 2 * b, {"a", "b"}),  # the product follows a layer alone: it belongs to it
        (lambda a, b: a + nn.functional.interpolate(b, size=8), {"a", "b"}),
        (lambda a, b: a + nn.functional.pad(b, (1, 1, 0, 0), mode="reflect")[..., 1:-1], {"a", "b"}),
        (lambda a, b: a * b, set()),
        (lambda a, b: torch.maximum(a, b), set()),
        (lambda a, b: nn.functional.dropout(a + b, 0.5, training=True), set()),
        (lambda a, b: (a + b).relu(), set()),
        (lambda a, b: nn.functional.interpolate(a + b, scale_factor=2), set()),
        (lambda a, b: nn.functional.max_pool2d(torch.cat([a, b], 1), 2), set()),
        (lambda a, b: nn.functional.pad(a + b, (1, 1, 0, 0), mode="reflect"), set()),
    ],
)
def test_operations_pass_a_gradient_on_or_compute_another(
    combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], layers: set[str]
) -> None:
    assert layers_of_c(combine) == layers


def tanh_gelu(x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.04 * x**3)))
    return y


@pytest.mark.parametrize(
    "function",
    [lambda x: x * x.sigmoid(), lambda x: x.mul_(x.sigmoid()), lambda x: x * nn.functional.softplus(x).tanh(),
     lambda x: x * nn.functional.relu6(x + 3) / 6, tanh_gelu, lambda x: x * x, lambda x: x + x, lambda x: x + x.relu()],
)  # fmt: skip
def test_an_activation_of_several_operations_is_one(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """As ONNX graphs write SiLU: it belongs to the layer in front of it, and behind an addition it is an operation."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Conv2d(3 if i == 0 else 8, 8, 1) for i in range(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = function(self.a(x) * 1)
            z = function(y + self.b(y))
            return self.c(z) * self.d(z)

    reuse = of(Net())
    reached = {la.path: len(la.gradients) for la in reuse.layers}
    assert reached["a"] == 2  # of b, and of the function behind the addition
    assert reached["b"] in (1, 2)
    assert reuse.total.paths == 4


def test_layers_without_a_convolution() -> None:
    """A batch norm that several layers read, a parameter in a product, and an embedding are layers."""

    class Others(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 8)
            self.norm = nn.LayerNorm(8)
            self.weight = nn.Parameter(torch.randn(8, 8))
            self.linear = nn.Linear(8, 8)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.embedding(tokens)
            y = self.norm(x + self.linear(x))
            return y @ self.weight + self.linear(y)

    reuse = cspprof.gradients(Others(), torch.zeros(2, 5, dtype=torch.long))
    assert {la.path for la in reuse.layers} == {"embedding", "linear", "norm", "matmul"}


def test_a_layer_that_no_output_depends_on_has_no_gradient() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.unused(x)
            y: torch.Tensor = self.used(x)
            return y

    reuse = of(Unused())
    assert {la.path: (len(la.gradients), la.paths) for la in reuse.layers} == {"used": (1, 1), "unused": (0, 0)}


def test_frozen_parameters_are_noted(run: Run) -> None:
    model = Chain().requires_grad_(False)
    assert "parameters are frozen" in str(cspprof.gradients(model, (1, 3, 8, 8)))


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
         ("csp_densenet121", "slice"), ("csp_densenet121,split=conv", "conv"),
         ("csp_peleenet,split=conv", "conv")],
        3,
    ),
)  # fmt: skip
@pytest.mark.parametrize("fusion", ["csp", "first", "last"])
def test_the_fusion_of_every_partial_network_is_recognized(spec: str, split: str, fusion: str) -> None:
    reuse = of(f"{spec},fusion={fusion}")
    splits = [b for b in reuse.bypasses if b.split != "whole"]
    assert len(splits) >= 3
    assert {(b.split, b.fusion) for b in splits} == {(split, fusion)}
    if fusion == "last":
        assert not any(b.shared for b in splits)


def test_partial_stages_beside_plain_ones_are_recognized() -> None:
    assert of("csp_resnet10").total.fusions == ("csp",) * 3


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


# -- files, formats, the command ---------------------------------------------------------------------


@pytest.mark.slow
def test_a_saved_profile_and_an_onnx_graph_have_the_same_gradients(tmp_path: Any, run: Run) -> None:
    model = PartialDense(3, "first").eval()
    shape = (1, 3, 8, 8)
    traced = of(model)
    saved = cspprof.profile(model, shape).save(tmp_path / "x.profile.json")
    graph = tmp_path / "x.onnx"
    torch.onnx.export(model, (torch.zeros(shape),), graph, dynamo=True, verbose=False)
    for path in (saved, graph):
        reuse = cspprof.gradients(str(path))
        assert reuse.total == traced.total
        assert [la.gradients for la in reuse.layers] == [la.gradients for la in traced.layers]


def test_a_darknet_cfg(tmp_path: Any) -> None:
    """Two residual blocks with linear shortcuts, beside a convolution, as in the cfg of CSPDarknet-53."""
    conv = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize={}\npad=1\nstride={}\nactivation=mish\n"
    residual = conv.format(4, 1, 1) + conv.format(4, 3, 1) + "[shortcut]\nfrom=-3\nactivation=linear\n"
    path = tmp_path / "x.cfg"
    path.write_text(
        "[net]\nwidth=16\nheight=16\nchannels=3\n" + conv.format(8, 3, 1)  # 0
        + conv.format(4, 1, 1) + "[route]\nlayers=-2\n" + conv.format(4, 1, 1)  # 1: bypass, 3: main
        + residual + residual + conv.format(4, 1, 1)  # 4 to 9, 10: transition
        + "[route]\nlayers=-1,1\n" + conv.format(8, 1, 1) + conv.format(8, 3, 2)
    )  # fmt: skip
    reuse = cspprof.gradients(str(path))
    assert [(b.split, b.fusion, len(b.shared)) for b in reuse.bypasses] == [("conv", "csp", 1)]
    assert reuse.total.paths == 2**2 + 1


def test_json_follows_its_schema_and_names_layers_and_gradients(run: Run) -> None:
    document = json.loads(run("gradients", "csp_resnet10", "vgg16", "--format", "json").out)
    validate(document, SCHEMA)
    csp, vgg = document["models"]
    assert csp["total"]["fusions"] == ["csp"] * 3
    assert {b["shared"] for b in csp["bypasses"] if b["split"] == "slice"} == {1}
    assert csp["bypasses"][1]["shared_gradients"] == ["stage2.transition.conv"]
    assert vgg["total"]["uses"] == len(vgg["layers"]) == 16
    uses = {(layer["layer"], name) for layer in csp["layers"] for name in layer["gradients"]}
    assert uses == {(name, g["gradient"]) for g in csp["gradients"] for name in g["layers"]}
    assert len(uses) == csp["total"]["uses"] == sum(s["uses"] for s in csp["stages"])


def test_every_format_has_the_stages(run: Run) -> None:
    for name in ("rich", "markdown", "latex", "html"):
        shown = run("gradients", "csp_resnet10", "--format", name)
        assert shown.code == 0
        assert "stage2" in shown.out
        assert "total" in shown.out
    rows = run("gradients", "csp_resnet10", "--format", "csv").out.splitlines()
    assert rows[0] == "model,status,layer,stage,gradients,reused,computed_by"
    assert len(rows) == 1 + of("csp_resnet10").total.layers


def test_the_command_lists_stages_splits_gradients_and_layers(run: Run) -> None:
    shown = run("gradients", "csp_densenet121", "--layers", "--top", "2").out
    for text in ("Gradients of csp_densenet121", "Cross stage splits", "stage1.transition.conv × 1", "2 of 62",
                 "Layers of csp_densenet121", "2^24 + 1", "4 × csp"):  # fmt: skip
        assert text in shown
    assert "used again," not in run("gradients", "csp_densenet121", "--top", "0").out


def test_a_wrong_spec_or_option_is_refused(run: Run) -> None:
    assert (run("gradients", "densnet121").code, run("gradients", "vgg16", "--top", "-1").code) == (2, 2)
    assert "densenet121" in run("gradients", "densnet121").err


def test_a_model_without_layers_has_an_empty_table_and_no_chart() -> None:
    assert of(nn.ReLU()).total.layers == 0
    assert "total" in str(of(nn.ReLU()))
    with pytest.raises(cspprof.errors.CspprofError, match="has no layer with weights"):
        cspprof.plot("gradients", cspprof.profile(nn.ReLU(), (1, 3, 8, 8)))


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0"), (4096, "4,096"), (2**58, "2^58"), (2**58 + 1, "2^58 + 1"), (3 * 10**17, "3.00e+17"),
     (2**130 + 2**100, "1.36e+39")],
)  # fmt: skip
def test_large_numbers_of_paths_are_short(n: int, text: str) -> None:
    assert paths_text(n) == text


def test_chart_has_a_point_for_each_use(run: Run) -> None:
    chart = cspprof.plot("gradients", "csp_densenet121,fusion=first")
    reuse = of("csp_densenet121,fusion=first")
    by_series = {s.name: len(s.marks) for s in chart.panels[0].series}
    assert sum(by_series.values()) == reuse.total.uses == 657
    assert by_series["shared with the bypass"] == reuse.total.shared == 58
    assert "shared with the bypass" in run("plot", "gradients", "csp_resnet10").out


@pytest.mark.slow
def test_convert_shows_the_shared_gradients_of_each_stage(run: Run) -> None:
    for fusion, after in (("first", [6, 12, 24, 16]), ("csp", [1, 1, 1, 1])):
        document = json.loads(run("convert", "densenet121", "--fusion", fusion, "--format", "json").out)
        stages = document["conversions"][0]["stages"]
        assert [s["gradients_shared"] for s in stages] == [21, 78, 300, 120]
        assert [s["gradients_shared_after"] for s in stages] == after


def test_thousands_of_copies_and_parts_are_followed() -> None:
    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            for _ in range(1500):
                x = x + 1
            for _ in range(100):
                x = torch.cat([x[:, :3], x[:, 3:]], 1)
            return x

    total = of(Long()).total
    assert (total.uses, total.paths) == (1, 2**100)


@pytest.mark.slow
def test_networks_of_every_source_have_gradients() -> None:
    """Each layer has a gradient, and the uses by layer and by gradient agree."""
    for spec in ("torchvision:vit_b_16", "torchvision:swin_t", "timm:convnext_tiny", "csp_peleenet_efm", "hardnet68",
                 "csp_darknet53_panet_spp", "thundernet_snet49", "res2netlite72"):  # fmt: skip
        reuse = of(spec)
        assert all(layer.gradients for layer in reuse.layers), spec
        assert reuse.total.uses == sum(g.uses for g in reuse.gradients)
