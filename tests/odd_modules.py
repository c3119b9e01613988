"""Modules whose forward, attributes or hooks are unusual, each by a name. All take a tensor of shape (2, 4)."""

from __future__ import annotations

import collections
import copy
import functools
import itertools
import random
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize

MODULES: dict[str, Callable[[], nn.Module]] = {}


def odd(make: Any) -> Any:
    """Register a class of modules, or a function that makes one, under its name."""
    MODULES[make.__name__] = make
    return make


class Net(nn.Module):
    """A linear layer, a batch norm and a dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()

    def forward(self, x: Any) -> Any:
        return self.drop(self.norm(self.fc(x)))


MODULES["Net"] = Net

# -- weights --------------------------------------------------------------------------------------


@odd
class AttributesOfWeights(Net):
    """Keeps a history and a moving average with a weight."""

    def __init__(self) -> None:
        super().__init__()
        weight: Any = self.fc.weight
        weight.history, weight.average, weight.owner = [], torch.zeros(4, 4), self

    def forward(self, x: Any) -> Any:
        weight: Any = self.fc.weight
        weight.history.append(x.shape)
        weight.average.add_(1)
        weight.owner.steps = 1
        return super().forward(x)


@odd
def weight_norm() -> nn.Module:
    return parametrizations.weight_norm(nn.Linear(4, 4))


@odd
def weight_norm_by_a_hook() -> nn.Module:
    return nn.utils.weight_norm(nn.Linear(4, 4))  # type: ignore[no-untyped-call]


@odd
def spectral_norm() -> nn.Module:
    return parametrizations.spectral_norm(nn.Linear(4, 4))


@odd
def spectral_norm_by_a_hook() -> nn.Module:
    return nn.utils.spectral_norm(nn.Linear(4, 4))


@odd
def pruned() -> nn.Module:
    from torch.nn.utils import prune

    return prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5)


@odd
def parametrized() -> nn.Module:
    class Symmetric(nn.Module):
        def forward(self, w: Any) -> Any:
            return w.triu() + w.triu(1).T

    return nn.Sequential(parametrize.register_parametrization(nn.Linear(4, 4), "weight", Symmetric()))


@odd
class TiedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight

    def forward(self, x: Any) -> Any:
        return self.b(self.a(x))


@odd
class MaxNorm(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 4)

    def forward(self, x: Any) -> Any:
        self.weight.data = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=0.1)
        return super().forward(x)


@odd
class ClampedInPlace(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 4)

    def forward(self, x: Any) -> Any:
        self.weight.data.clamp_(-0.01, 0.01)
        self.bias.data[:2].zero_()
        return super().forward(x)


@odd
class ClampedWithoutGradients(MaxNorm):
    def forward(self, x: Any) -> Any:
        with torch.no_grad():
            self.weight.mul_(0.5).add_(1)
            torch.clamp(self.bias, 0, 1, out=self.bias)
            torch._foreach_mul_([self.weight, self.bias], 2)
        return nn.Linear.forward(self, x)


@odd
class SetsData(MaxNorm):
    def forward(self, x: Any) -> Any:
        self.weight.data = self.weight.data.clone() * 2
        with torch.no_grad():
            self.weight.set_(self.weight.clone())
            self.weight.mul_(3)
        return nn.Linear.forward(self, x)


@odd
class ResizesWeight(Net):
    def forward(self, x: torch.Tensor) -> Any:
        self.fc.weight.data.resize_(8, 4)
        return x @ self.fc.weight.t()


@odd
class FlipsRequiresGrad(Net):
    def forward(self, x: Any) -> Any:
        self.fc.weight.requires_grad_(not self.fc.weight.requires_grad)
        self.norm.requires_grad_(False)
        return super().forward(x)


@odd
class AccumulatesGradients(Net):
    def __init__(self) -> None:
        super().__init__()
        self.fc.weight.grad = torch.ones(4, 4)

    def forward(self, x: Any) -> Any:
        with torch.enable_grad():
            self.fc(x).sum().backward()
        self.fc.bias.grad = None
        return super().forward(x)


@odd
class ReplacesParameters(Net):
    def forward(self, x: Any) -> Any:
        self.fc.weight = nn.Parameter(self.fc.weight * 2)
        self.fc.bias = None
        del self.norm.weight
        self.norm.weight = None
        return super().forward(x)


class OwnParameter(nn.Parameter):
    """A class of parameters."""


@odd
class ParametersOfAnOwnClass(Net):
    def __init__(self) -> None:
        super().__init__()
        self.fc.weight = OwnParameter(torch.ones(4, 4))
        self.fc.weight.note = ["kept"]

    def forward(self, x: Any) -> Any:
        assert type(self.fc.weight) is OwnParameter
        assert self.fc.weight.note == ["kept"]
        return super().forward(x)


@odd
class LoadsAStateDict(Net):
    def forward(self, x: Any) -> Any:
        state = {k: torch.zeros_like(v) for k, v in self.state_dict().items()}
        self.load_state_dict(state)
        return super().forward(x)


@odd
class InitializesItself(Net):
    def forward(self, x: Any) -> Any:
        self.fc.reset_parameters()
        nn.init.zeros_(self.norm.weight)
        self.norm.reset_running_stats()
        return super().forward(x)


@odd
class OptimizesItself(Net):
    def __init__(self) -> None:
        super().__init__()
        self.optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    def forward(self, x: Any) -> Any:
        with torch.enable_grad():
            loss = self.fc(x).sum()
            self.optimizer.zero_grad()
            loss.backward()
        self.optimizer.step()
        return super().forward(x)


@odd
class MaxNormEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 4, max_norm=0.1)
        self.register_buffer("rows", torch.tensor([0, 2]))

    def forward(self, x: Any) -> Any:
        return x + self.table(self.rows)


# -- buffers and attributes -----------------------------------------------------------------------


@odd
class ReassignsBuffers(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(4))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long), persistent=False)

    def forward(self, x: Any) -> Any:
        self.average = self.average * 0.9 + x.mean(0)
        self.steps += 1
        return super().forward(x) + self.average


@odd
class RegistersInForward(Net):
    def forward(self, x: Any) -> Any:
        self.register_buffer("late", torch.zeros(4), persistent=False)
        self.register_parameter("more", nn.Parameter(torch.zeros(4)))
        self.add_module("act", nn.ReLU())
        self.fc.register_forward_hook(lambda m, a, y: y * 2)
        return self.act(super().forward(x) + self.late + self.more)


@odd
class DeletesAttributes(Net):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.unused = "a", nn.Linear(1, 1)

    def forward(self, x: Any) -> Any:
        del self.text, self.unused
        return super().forward(x)


@odd
class ReplacesASubmodule(Net):
    def forward(self, x: Any) -> Any:
        x = super().forward(x)
        self.fc = nn.Linear(4, 3)
        self.norm = nn.Identity()
        return super().forward(x)


@odd
class CountsItsCalls(Net):
    def __init__(self) -> None:
        super().__init__()
        self.calls, self.history = 0, [0]
        self.ids = itertools.count()

    def forward(self, x: Any) -> Any:
        self.calls += 1
        self.history.append(self.calls)
        self.fc.last = x
        return super().forward(x)


@odd
class Caches(Net):
    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[Any, Any] = {"old": [1]}
        self.queue: Any = collections.deque([1, 2], maxlen=2)
        self.names = {"a"}
        self.groups: Any = collections.defaultdict(list, {"x": [1]})
        self.order: Any = collections.OrderedDict(a=1)

    def forward(self, x: Any) -> Any:
        self.cache[x.shape] = x
        self.cache["old"].append(x)
        self.queue.append(x)
        self.names.add("b")
        self.groups["y"].append(x)
        self.groups["x"].clear()
        self.order["b"] = 2
        self.order.move_to_end("a")
        assert self.queue.maxlen == 2
        return super().forward(x)


class Attributes(dict[str, Any]):
    """A dict with its items as attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


Pair = collections.namedtuple("Pair", "layer scale")


@odd
class OwnContainers(Net):
    def __init__(self) -> None:
        super().__init__()
        self.settings = Attributes(scale=2, layers=[self.fc])
        self.pair = Pair(self.fc, 3)
        self.space = types.SimpleNamespace(count=0, layer=self.fc)

    def forward(self, x: Any) -> Any:
        self.settings.scale += 1
        self.space.count += 1
        assert self.pair.layer is self.fc is self.space.layer is self.settings.layers[0]
        return super().forward(x) * self.settings.scale


@dataclass
class State:
    """State that a forward changes."""

    steps: int = 0
    values: list[Any] = field(default_factory=list)


class Slotted:
    """An object without a `__dict__`."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


@odd
class HoldsObjects(Net):
    def __init__(self) -> None:
        super().__init__()
        self.state, self.slotted = State(), Slotted()
        self.totals = np.zeros(2)

    def forward(self, x: Any) -> Any:
        self.state.steps += 1
        self.state.values.append(x)
        self.slotted.count += 1
        self.totals += 1
        return super().forward(x)


@odd
class HoldsATensor(Net):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(4)

    def forward(self, x: Any) -> Any:
        self.scale[1:].mul_(2)
        self.scale.data = self.scale.data + 1
        return super().forward(x) * self.scale


# -- modules that refer to modules ----------------------------------------------------------------


@odd
class ModulesInContainers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.listed = [nn.Linear(4, 4), nn.BatchNorm1d(4)]
        self.named = {"act": nn.ReLU(), "deep": [(nn.Linear(4, 4),)]}
        self.registered = nn.ModuleDict({"a": nn.Linear(4, 4)})
        self.also = {self.registered["a"]: 1}

    def forward(self, x: Any) -> Any:
        for layer in (*self.listed, self.named["act"], *self.named["deep"][0], *self.also):
            x = layer(x)
            layer.seen = True
        return x


@odd
def forward_by_a_closure() -> nn.Module:
    net = Net()

    def forward(x: Any) -> Any:
        net.seen = True
        net.fc.weight.data = net.fc.weight.data * 2
        return net.drop(net.fc(x))

    net.forward = forward  # type: ignore[method-assign]
    return net


@odd
def forward_by_a_default() -> nn.Module:
    net = Net()
    net.forward = lambda x, layer=net.fc: layer(x) + setattr_(layer, "seen", x)  # type: ignore[method-assign,misc]
    return net


def setattr_(owner: Any, name: str, value: Any) -> int:
    """Set an attribute within an expression."""
    setattr(owner, name, value)
    return 0


@odd
class BoundMethods(Net):
    def __init__(self) -> None:
        super().__init__()
        self.run = self.compute
        self.add = [].append
        self.table = {"fc": self.fc.forward, "other": self.compute}

    def compute(self, x: Any) -> Any:
        self.seen = x
        return super().forward(x)

    def forward(self, x: Any) -> Any:
        self.add(1)
        return self.run(self.table["fc"](x))


@odd
def method_of_another_class() -> nn.Module:
    def forward(self: Any, x: Any) -> Any:
        self.seen = True
        return self.fc(x)

    net = Net()
    net.forward = types.MethodType(forward, net)  # type: ignore[method-assign]
    return net


@odd
def partial_forward() -> nn.Module:
    def forward(net: Any, scale: int, x: Any) -> Any:
        net.seen = True
        return net.fc(x) * scale

    net = Net()
    net.forward = functools.partial(forward, net, 2)  # type: ignore[method-assign]
    return net


@odd
class CachedMethod(Net):
    def __init__(self) -> None:
        super().__init__()
        self.table = functools.lru_cache(self.make_table)

    def make_table(self, n: int) -> Any:
        self.made = n
        return torch.arange(n).float()

    def forward(self, x: Any) -> Any:
        return super().forward(x) + self.table(4)


@odd
class WeakParent(Net):
    def __init__(self) -> None:
        super().__init__()
        self.fc.parent = weakref.ref(self)
        self.known: Any = weakref.WeakKeyDictionary({self.fc: 1})
        self.fc.forward = types.MethodType(lambda fc, x: fc.parent().compute(x), self.fc)  # type: ignore[method-assign]

    def compute(self, x: Any) -> Any:
        self.seen = self.known[self.fc]
        return F.linear(x, self.fc.weight)


@odd
class Cyclic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.child = Net()
        self.child.parent = self
        self.scale = 2
        self.child.fc.register_forward_hook(self.scaled)

    def scaled(self, module: Any, args: Any, y: Any) -> Any:
        self.seen = y
        return y * self.child.parent.scale

    def forward(self, x: Any) -> Any:
        return self.child(x)


class Runner:
    """Runs a module."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.runs = net, 0

    def run(self, x: Any) -> Any:
        self.runs += 1
        self.net.seen = x
        return self.net.fc(x)


@odd
class RunByAnObject(Net):
    def __init__(self) -> None:
        super().__init__()
        self.runner = Runner(self)

    def forward(self, x: Any) -> Any:
        return self.runner.run(x)


# -- hooks ----------------------------------------------------------------------------------------


@odd
def hooks_that_change_things() -> nn.Module:
    net = Net()

    def before(module: Any, args: Any) -> Any:
        module.seen = args
        module.weight.data = module.weight.data * 2
        return (args[0] + 1,)

    def behind(module: Any, args: Any, kwargs: Any, y: Any) -> Any:
        net.norm.momentum = 0.5
        return y * 2

    net.fc.register_forward_pre_hook(before)
    net.fc.register_forward_hook(behind, with_kwargs=True)
    return net


@odd
class RemovesItsHook(Net):
    def __init__(self) -> None:
        super().__init__()
        self.handle = self.fc.register_forward_pre_hook(lambda m, a: (a[0] * 2,))

    def forward(self, x: Any) -> Any:
        self.handle.remove()
        return super().forward(x)


# -- classes --------------------------------------------------------------------------------------


@odd
class WithSlots(Net):
    __slots__ = ("inner",)

    def __init__(self) -> None:
        super().__init__()
        self.inner = [self.fc]

    def forward(self, x: Any) -> Any:
        self.inner.append(self.norm)
        return self.inner[0](x)


@odd
@dataclass(eq=False)
class DataclassModule(nn.Module):
    width: int = 4
    log: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(self.width, self.width)

    def forward(self, x: Any) -> Any:
        self.log.append(1)
        return self.fc(x)


@odd
class OwnGetattr(Net):
    def __getattr__(self, name: str) -> Any:
        return 5 if name == "scale" else super().__getattr__(name)

    def forward(self, x: Any) -> Any:
        self.other = self.scale
        return super().forward(x) * self.scale


@odd
class SetattrRaises(Net):
    def __init__(self) -> None:
        super().__init__()
        self.__dict__["frozen"] = True

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__dict__.get("frozen"):
            raise AttributeError("frozen")
        super().__setattr__(name, value)


@odd
class TrainingProperty(Net):
    @property
    def training(self) -> bool:
        return self.__dict__.get("mode", True)

    @training.setter
    def training(self, mode: bool) -> None:
        self.__dict__["mode"] = mode


@odd
class OwnTrain(Net):
    def train(self, epochs: Any = 10) -> Any:
        raise AssertionError("the training loop was started")


@odd
class OwnEquality(Net):
    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    def __hash__(self) -> int:
        return 1


@odd
class OwnDel(Net):
    deleted: ClassVar[list[int]] = []

    def __del__(self) -> None:
        self.deleted.append(id(self))


# -- random numbers -------------------------------------------------------------------------------


@odd
class HoldsGenerators(Net):
    def __init__(self) -> None:
        super().__init__()
        self.torch_generator = torch.Generator().manual_seed(1)
        self.python_generator, self.numpy_generator = random.Random(1), np.random.default_rng(1)

    def forward(self, x: Any) -> Any:
        draws = self.python_generator.random() + self.numpy_generator.random()
        return super().forward(x) + torch.rand(4, generator=self.torch_generator) + draws


@odd
class DrawsRandomNumbers(Net):
    def forward(self, x: Any) -> Any:
        noise = torch.randn_like(x) + torch.rand(4) + torch.randperm(4) + random.random() + np.random.rand()
        return F.dropout(super().forward(x) + noise, 0.5)


@odd
class Seeds(Net):
    def forward(self, x: Any) -> Any:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        return super().forward(x)


# -- modes of torch, copies, errors ---------------------------------------------------------------


@odd
class Decorated(Net):
    @torch.no_grad()
    def forward(self, x: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x)


@odd
class SetsModes(Net):
    def forward(self, x: Any) -> Any:
        torch.set_grad_enabled(True)
        self.eval()
        self.drop.train()
        return super().forward(x)


@odd
class CopiesItself(Net):
    def forward(self, x: Any) -> Any:
        return copy.deepcopy(self.fc)(x) + copy.copy(self.norm)(x)


@odd
class LowRankAdapter(nn.Module):
    """Replaces the forward of a layer, as adapters do."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 1), nn.Linear(1, 4)
        original = self.base.forward

        def adapted(x: Any) -> Any:
            self.merged = False
            return original(x) + self.b(self.a(x))

        self.base.forward = adapted  # type: ignore[method-assign]

    def forward(self, x: Any) -> Any:
        return self.base(x)


@odd
class Wrapper(nn.Module):
    """Forwards unknown attributes to the module that it wraps, as parallel wrappers do."""

    def __init__(self) -> None:
        super().__init__()
        self.module = Net()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)

    def forward(self, x: Any) -> Any:
        self.module.seen = True
        return self.module(x) + self.fc(x)


@odd
class Raises(Net):
    def forward(self, x: Any) -> Any:
        self.fc.weight.data = self.fc.weight.data * 2
        self.seen = super().forward(x)
        raise ValueError("on purpose")


@odd
class Interrupted(Raises):
    def forward(self, x: Any) -> Any:
        self.norm.running_mean.add_(1)
        self.fc(x)
        torch.set_grad_enabled(True)
        raise KeyboardInterrupt


@odd
class Exits(Raises):
    def forward(self, x: Any) -> Any:
        super().forward(x) if self.seen else None
        raise SystemExit(0)

    seen = False


@odd
class Generates(Net):
    def forward(self, x: Any) -> Iterator[Any]:
        for _ in range(2):
            self.seen = x = self.fc(x)
            yield x


@odd
class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.LazyLinear(4)

    def forward(self, x: Any) -> Any:
        return self.fc(x)


def _convolutions() -> nn.Module:
    """Takes (2, 4) as everything else here does."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3, 4)
    ).eval()


REFUSED = {"Raises", "Exits", "Lazy", "convolutions optimized for inference"}
"""Modules of which a trace raises a TraceError."""
REFUSED_ON_META = {"quantized dynamically"}

# -- made by torch --------------------------------------------------------------------------------

MADE_BY_TORCH: dict[str, Callable[[], nn.Module]] = {
    "scripted": lambda: torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())),
    "scripted inside": lambda: nn.Sequential(torch.jit.script(nn.BatchNorm1d(4)), nn.Linear(4, 4)),
    "traced": lambda: torch.jit.trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.ones(2, 4)),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval())),
    "optimized for inference": lambda: torch.jit.optimize_for_inference(torch.jit.script(nn.Linear(4, 4).eval())),
    "convolutions optimized for inference": lambda: torch.jit.optimize_for_inference(
        torch.jit.trace(_convolutions(), torch.ones(2, 4))
    ),
    "graph module": lambda: torch.fx.symbolic_trace(Net()),
    "quantized dynamically": lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4))),
    "exported": lambda: torch.export.export(nn.Sequential(nn.Linear(4, 4)), (torch.ones(2, 4),)).module(),
    "exported inside": lambda: nn.Sequential(
        torch.export.export(nn.Sequential(nn.Linear(4, 4)), (torch.ones(2, 4),)).module(), nn.Dropout()
    ),
    "compiled": lambda: torch.compile(Net()),
    "compiled inside": lambda: nn.Sequential(torch.compile(Net()), nn.Dropout()),
    "compiled in place": lambda: _compiled_in_place(),
}


def _compiled_in_place() -> nn.Module:
    net = Net()
    net.fc.compile()
    return net
