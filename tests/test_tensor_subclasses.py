"""Tensor subclasses that run operations themselves: what is computed inside them counts, once, in every trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import trace
from networks import Function
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

import cspprof
from cspprof.core.errors import TraceError

DEVICES = pytest.mark.parametrize("device", ["meta", "cpu"])
MACS, PARAMS = 2 * 16 * 8 + 2 * 8 * 4, 16 * 8 + 8 + 8 * 4 + 4
"""Of `mlp` on two rows."""


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))


class WithMlp(nn.Module):
    """Calls a function with `mlp` and the input."""

    def __init__(self, function: Callable[[nn.Module, torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.net = mlp()

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.net, x)


# -- wrappers -------------------------------------------------------------------------------------


class Wrapper(torch.Tensor):
    """Runs each operation on the tensor in it, and keeps that as an attribute."""

    elem: torch.Tensor

    @staticmethod
    def __new__(cls, elem: torch.Tensor) -> Wrapper:
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, elem.size(), strides=elem.stride(), dtype=elem.dtype, device=elem.device
        )
        made.elem = elem
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def unwrap(t: Any) -> Any:
            return t.elem if isinstance(t, cls) else t

        out = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs or {}))
        return tree_map(lambda t: cls(t) if isinstance(t, torch.Tensor) else t, out)


class FlatWrapper(Wrapper):
    """Can be rebuilt around another tensor."""

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["elem"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], context: None, size: Any, stride: Any) -> FlatWrapper:
        return FlatWrapper(inner["elem"])  # type: ignore[return-value]


class MatrixOnly(FlatWrapper):
    """Knows the parts of a linear layer, which it receives outside of a trace, and not the composite operation."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.linear.default, torch.ops.aten.matmul.default):
            raise NotImplementedError(func)
        return super().__torch_dispatch__(func, types, args, kwargs)

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], context: None, size: Any, stride: Any) -> FlatWrapper:
        return MatrixOnly(inner["elem"])  # type: ignore[return-value]


class Int4(torch.Tensor):
    """A quantized weight: two values in each byte, and a scale for each row. A linear layer dequantizes it."""

    packed: torch.Tensor
    scale: torch.Tensor

    @staticmethod
    def __new__(cls, packed: torch.Tensor, scale: torch.Tensor) -> Int4:
        shape = (packed.shape[0], 2 * packed.shape[1])
        made = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, shape, dtype=scale.dtype, device=packed.device
        )
        made.packed, made.scale = packed, scale
        return made  # type: ignore[no-any-return]

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["packed", "scale"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], context: None, size: Any, stride: Any) -> Int4:
        return Int4(inner["packed"], inner["scale"])

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            x, weight, bias = args
            low, high = weight.packed & 15, weight.packed >> 4
            values = torch.stack([low, high], -1).reshape(weight.shape).to(x.dtype) * weight.scale[:, None]
            return F.linear(x, values, bias)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return Int4(func(args[0].packed), func(args[0].scale))
        raise NotImplementedError(func)


class Plain(torch.Tensor):
    """Replaces ReLU by a product of the tensor with a square matrix of ones, and overrides no operation."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.relu:
            return args[0] @ torch.ones(args[0].shape[-1], args[0].shape[-1], device=args[0].device)
        return super().__torch_function__(func, types, args, kwargs or {})


def with_parameters(wrap: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """`mlp` whose parameters are wrapped."""
    model = mlp()
    for layer in (model[0], model[2]):
        for name in ("weight", "bias"):
            value = getattr(layer, name).detach()
            setattr(layer, name, nn.Parameter(wrap(value), requires_grad=False))
    return model


def quantized() -> nn.Module:
    model = mlp()
    for layer in (model[0], model[2]):
        rows, columns = layer.weight.shape
        packed = torch.zeros(rows, columns // 2, dtype=torch.uint8)
        layer.weight = nn.Parameter(Int4(packed, torch.ones(rows)), requires_grad=False)
    return model


@DEVICES
@pytest.mark.parametrize("wrap", [Wrapper, FlatWrapper, MatrixOnly])
def test_wrapped_parameters_inputs_and_activations_count_like_plain_ones(device: str, wrap: Any) -> None:
    x = torch.ones(2, 16)
    inside = WithMlp(lambda net, x: net(wrap(x)))
    for model, inputs in ((with_parameters(wrap), x), (mlp(), [wrap(x)]), (inside, x)):
        for _ in range(2):
            p = trace(model, inputs, device=device)
            assert (p.total("macs"), p.total("params"), p.complete) == (MACS, PARAMS, True)
            assert p.total("conv_weights") == 16 * 8 + 8 * 4
            assert p.total("peak_bytes") == 4 * (2 * 16 + 2 * 8)
        model(*inputs) if isinstance(inputs, list) else model(inputs)  # runs as before


@DEVICES
def test_a_subclass_that_overrides_functions_keeps_them(device: str) -> None:
    def plain(t: torch.Tensor) -> torch.Tensor:
        return t.as_subclass(Plain)

    x = torch.ones(2, 16)
    inside = WithMlp(lambda net, x: net(plain(x)))
    for model, inputs in ((with_parameters(plain), x), (mlp(), [plain(x)]), (inside, x)):
        p = trace(model, inputs, device=device)
        assert (p.total("macs"), p.total("params"), p.complete) == (MACS + 2 * 8 * 8, PARAMS, True)
        assert p.ops[0].reads[0].storage == next(s.id for s in p.storages if s.role == "input")


@DEVICES
def test_the_tensor_taken_out_of_a_wrapper_is_the_one_that_was_computed(device: str) -> None:
    p = trace(WithMlp(lambda net, x: net(Wrapper(x)).elem * 2), (2, 16), device=device)
    assert p.total("macs") == MACS
    assert p.ops[-1].reads[0].storage == p.ops[-2].writes[0].storage


@DEVICES
def test_a_quantized_parameter_has_the_elements_that_it_stands_for(device: str) -> None:
    p = trace(quantized(), (2, 16), device=device)
    assert (p.total("macs"), p.total("params"), p.complete) == (MACS, PARAMS, True)
    stored = {s.name: s.spec.numel for s in p.storages if s.role == "parameter" and "uint8" in s.spec.dtype}
    assert stored == {"0.weight": 16 * 8 // 2, "2.weight": 8 * 4 // 2}


@DEVICES
def test_a_wrapper_of_two_tensors_computes_both(device: str) -> None:
    two_tensor = pytest.importorskip("torch.testing._internal.two_tensor")
    p = trace(with_parameters(lambda t: two_tensor.TwoTensor(t, t.clone())), (2, 16), device=device)
    assert (p.total("macs"), p.total("params")) == (2 * MACS, PARAMS)


def test_a_wrapper_that_cannot_be_rebuilt_on_meta_is_refused() -> None:
    from torch.masked import masked_tensor

    x = masked_tensor(torch.ones(2, 4), torch.ones(2, 4) > 0)
    model = Function(lambda x: (x * x).sum(1).to_tensor(0) * 2)
    with pytest.raises(TraceError, match=r"MaskedTensor cannot be made without values\n.*--device cpu"):
        trace(model, [x])
    first, second = (trace(model, [x], device="cpu") for _ in range(2))
    assert [op.target for op in first.ops] == [op.target for op in second.ops]
    assert first.complete


# -- shapes only ----------------------------------------------------------------------------------


@DEVICES
def test_what_a_forward_runs_on_fake_tensors_is_not_work(device: str) -> None:
    def forward(net: nn.Module, x: torch.Tensor) -> Any:
        with FakeTensorMode() as mode:
            width = (torch.empty(5, 7) @ torch.empty(7, 4)).shape[1]
        later = mode.from_tensor(torch.empty(3, 3, device=x.device))
        return net(x)[:, :width] * (later @ later).shape[0]

    p = trace(WithMlp(forward), (2, 16), device=device)
    assert p.total("macs") == MACS
    assert p.complete


@DEVICES
def test_tracing_a_function_into_a_graph_is_not_work_and_running_the_graph_is(device: str) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    p = trace(WithMlp(lambda net, x: make_fx(net)(x)(x)), (2, 16), device=device)
    assert p.total("macs") == MACS


@DEVICES
@pytest.mark.parametrize("transform", [torch.vmap, torch.func.functionalize])
def test_functions_that_torch_transforms_count_once(device: str, transform: Any) -> None:
    assert trace(WithMlp(lambda net, x: transform(net)(x)), (2, 16), device=device).total("macs") == MACS


def test_a_mode_of_the_caller_takes_no_part_in_the_trace() -> None:
    with FakeTensorMode():
        model = mlp()
        assert trace(model, (2, 16)).total("macs") == MACS
    p = trace(model, (2, 16))
    assert (p.total("macs"), p.total("params")) == (MACS, PARAMS)
    with FakeTensorMode() as mode:
        x = mode.from_tensor(torch.empty(2, 16))
    assert trace(mlp(), [x]).total("macs") == MACS


class PassFunctions(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **kwargs or {})


class PassOperations(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **kwargs or {})


def products(p: cspprof.Profile) -> list[tuple[Any, ...]]:
    """Each operation with MACs. (Under `torch.func.jvp` a linear layer is a view and a product.)"""
    return [(op.macs, op.layer, op.writes) for op in p.ops if op.macs]


CALLERS = {
    "function mode": PassFunctions,
    "dispatch mode": PassOperations,
    "torch's counter": partial(FlopCounterMode, display=False),
    "device": partial(torch.device, "cpu"),
    "meta": partial(torch.device, "meta"),
    "inference": torch.inference_mode,
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
}


@pytest.mark.parametrize("caller", CALLERS)
def test_what_is_active_around_a_profile_changes_no_number(caller: str) -> None:
    model = mlp()
    expected = products(trace(model, (2, 16)))
    with CALLERS[caller]():
        p, zoo = trace(model, (2, 16)), cspprof.profile("resnet10")
    assert products(p) == expected
    assert zoo.total("macs") == cspprof.profile("resnet10").total("macs")


TRANSFORMS = {
    "vmap": torch.vmap,
    "grad": lambda f: torch.func.grad(lambda x: f(x).sum()),
    "functionalize": torch.func.functionalize,
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x,), (x,))[0],
    "vmap of grad": lambda f: torch.vmap(torch.func.grad(f)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_function_that_torch_transforms_may_profile(name: str) -> None:
    model = mlp()
    expected = products(trace(model, (2, 16)))
    found = []

    def function(x: torch.Tensor) -> torch.Tensor:
        found.append((products(trace(model, (2, 16))), cspprof.profile("resnet10").total("macs")))
        return x * 2

    assert TRANSFORMS[name](function)(torch.ones(3)).tolist() == [2, 2, 2]
    assert found == [(expected, cspprof.profile("resnet10").total("macs"))]


def test_fake_weights_and_inputs_have_no_values_on_a_real_device() -> None:
    with FakeTensorMode():
        model, x = mlp(), torch.empty(2, 16)
    with pytest.raises(TraceError, match="a parameter or buffer is a FakeTensor, which has no values"):
        trace(model, (2, 16), device="cpu")
    with pytest.raises(TraceError, match="an input is a FakeTensor"):
        trace(mlp(), [x], device="cpu")


# -- torch.distributed ----------------------------------------------------------------------------

distributed = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")


@pytest.fixture
def mesh() -> Iterator[Callable[[int], Any]]:
    """Makes a mesh of that many processes. Only this one exists: the others are those of the `fake` backend."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def make(processes: int) -> Any:
        backend, store = ("gloo", dist.HashStore()) if processes == 1 else ("fake", FakeStore())
        dist.init_process_group(backend, store=store, rank=0, world_size=processes)
        return init_device_mesh("cpu", (processes,))

    yield make
    if dist.is_initialized():
        dist.destroy_process_group()


def tensor_parallel(mesh: Any, width: int) -> nn.Module:
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    model = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 6))
    return parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


@distributed
@DEVICES
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("run_before", [False, True])
def test_tensor_parallel_layers_count_the_local_shards_in_every_trace(
    mesh: Any, device: str, processes: int, run_before: bool
) -> None:
    # DTensor remembers operations by their shapes: a width of its own for each case
    width = 16 + 8 * (1 + processes + 4 * run_before + 8 * (device == "cpu"))
    model = tensor_parallel(mesh(processes), width)
    if run_before:
        model(torch.ones(2, 4))
    before = {name: (p, p.to_local().clone()) for name, p in model.named_parameters()}  # type: ignore[operator]
    local = width // processes
    for _ in range(2):
        p = trace(model, (2, 4), device=device)
        assert p.total("macs") == 2 * 4 * local + 2 * local * 6
        assert p.total("params") == 4 * local + local + local * 6 + 6
        assert p.complete
        assert [op.target for op in p.ops if op.macs] == ["aten.addmm", "aten.addmm"]
    for name, parameter in model.named_parameters():
        same, value = before[name]
        assert parameter is same
        assert torch.equal(parameter.to_local().nan_to_num(), value.nan_to_num())  # type: ignore[operator]
    model(torch.ones(2, 4)).sum().backward()


@distributed
@DEVICES
def test_a_sharded_input_counts_the_local_shard(mesh: Any, device: str) -> None:
    from torch.distributed.tensor import Shard, distribute_module, distribute_tensor

    both = mesh(2)
    model = distribute_module(nn.Sequential(nn.Conv2d(3, 4, 3)), both)
    x = distribute_tensor(torch.zeros(2, 3, 8, 8), both, [Shard(0)])
    for _ in range(2):
        p = trace(model, [x], device=device)
        assert (p.total("macs"), p.total("params")) == (27 * 4 * 36, 27 * 4 + 4)
        assert str(p.inputs[0]) == "1×3×8×8"


@distributed
@DEVICES
@pytest.mark.parametrize("name", ["fully_shard", "FullyShardedDataParallel", "replicate"])
def test_modules_that_torch_distributes_by_hooks_are_refused_and_work_afterwards(
    mesh: Any, device: str, name: str
) -> None:
    import torch.distributed.fsdp as fsdp
    from torch.distributed._composable import replicate

    mesh(1)
    if name == "FullyShardedDataParallel":
        wrap: Any = lambda m: fsdp.FullyShardedDataParallel(m, device_id=torch.device("cpu"))  # noqa: E731
    else:
        wrap = replicate if name == "replicate" else fsdp.fully_shard
    model = nn.Sequential(nn.Linear(4, 4), wrap(nn.Linear(4, 4)))
    with pytest.raises(TraceError, match=rf"layer '1' \(.*\) is distributed by {name}.*\nProfile the model before"):
        trace(model, (2, 4), device=device)
    model(torch.ones(2, 4)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
