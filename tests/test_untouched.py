"""A trace leaves everything that a model reaches as it was, and the state of torch, of Python and of other threads."""

from __future__ import annotations

import collections
import gc
import random
import sys
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo  # so that the first trace does not import it
from conftest import quick
from odd_modules import MADE_BY_TORCH, MODULES, REFUSED, REFUSED_ON_META
from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from cspprof.core.errors import TraceError
from cspprof.trace import trace

MODES = pytest.mark.parametrize(
    ("device", "train"), quick([("meta", False), ("cpu", True), ("meta", True), ("cpu", False)], 2)
)


def global_state() -> dict[str, Any]:
    """The settings of torch and Python that a trace may touch, and the random state."""
    hooks = {k: list(v) for k, v in vars(nn.modules.module).items() if k.startswith("_global") and hasattr(v, "items")}
    return {
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "dispatch modes": _get_current_dispatch_mode_stack(),
        "function modes": torch.overrides._get_current_function_mode_stack(),
        "excluded keys": str(torch._C._dispatch_tls_local_exclude_set()),
        "included keys": str(torch._C._dispatch_tls_local_include_set()),
        "autocast": [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
        "defaults": (torch.get_default_dtype(), torch.get_default_device()),
        "hooks": hooks,
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "stance": getattr(sys.modules.get("torch._dynamo.eval_frame"), "_stance", None),
        "collector": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "warnings": list(warnings.filters),
        "random": (torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())),
    }


def snapshot(root: Any) -> list[tuple[str, Any]]:
    """Everything that an object reaches: the identity of each object with its path, and the values of tensors.

    Held alive by the snapshot, so that no identity is used again.
    """
    found: list[tuple[str, Any]] = []
    kept: dict[int, Any] = {}

    def visit(path: str, value: Any) -> None:
        found.append((path, id(value)))
        if id(value) in kept or isinstance(value, (type, types.ModuleType)):
            return
        kept[id(value)] = value
        if isinstance(value, UninitializedParameter):
            return
        if isinstance(value, torch.Tensor):
            plain = value.detach()
            found.append((path + ":values", plain.tolist() if not plain.is_meta else None))
            facts = (value.dtype, tuple(value.shape), value.requires_grad, value._version, value.data_ptr())
            found.append((path + ":facts", facts))
            visit(path + ".grad", value.grad if value.is_leaf else None)
        elif isinstance(value, torch.Generator):
            found.append((path + ":state", value.get_state().tolist()))
        elif isinstance(value, random.Random):
            found.append((path + ":state", value.getstate()))
        elif isinstance(value, np.random.Generator):
            found.append((path + ":state", repr(value.bit_generator.state)))
        elif isinstance(value, np.ndarray):
            found.append((path + ":values", value.tolist()))
        elif isinstance(value, (int, float, str)):
            found.append((path + ":value", value))
        if isinstance(value, (dict, weakref.WeakKeyDictionary)):
            for i, (key, item) in enumerate(list(value.items())):
                found.append((f"{path}.key{i}", id(key)))
                visit(f"{path}[{i}]", item)
        elif isinstance(value, (list, tuple, collections.deque)):
            for i, item in enumerate(value):
                visit(f"{path}[{i}]", item)
        elif isinstance(value, (set, frozenset)):
            found.append((path + ":items", sorted(map(id, value))))
        if isinstance(value, types.MethodType):
            visit(path + ".__self__", value.__self__)
        if isinstance(value, types.FunctionType):
            for i, cell in enumerate(value.__closure__ or ()):
                visit(f"{path}.cell{i}", cell.cell_contents)
        if isinstance(value, torch.jit.ScriptModule):
            for name, item in (*value.named_parameters(), *value.named_buffers()):
                found.append((f"{path}.{name}", item.tolist()))
            found.append((path + ":modes", [m._c.getattr("training") for m in value.modules()
                                            if m._c.hasattr("training")]))  # fmt: skip
        elif type(value).__module__.partition(".")[0] != "torch" or isinstance(value, (nn.Module, torch.Tensor)):
            for name, item in list(getattr(value, "__dict__", {}).items()):
                visit(f"{path}.{name}", item)
        for name in getattr(type(value), "__slots__", ()):
            if hasattr(value, name) and name != "__weakref__":
                visit(f"{path}.{name}", getattr(value, name))

    visit("model", root)
    return [*found, ("objects", list(kept.values()))]


def assert_untouched(model: nn.Module, profile: Callable[[], Any]) -> None:
    before, state = snapshot(model), global_state()
    profile()
    assert global_state() == state
    assert snapshot(model)[:-1] == before[:-1]


def profile_odd(name: str, model: nn.Module, device: str, train: bool) -> None:
    if name == "Interrupted":
        with pytest.raises(KeyboardInterrupt):
            trace(model, (2, 4), device=device, train=train)
    elif name in REFUSED or (name in REFUSED_ON_META and device == "meta"):
        with pytest.raises(TraceError):
            trace(model, (2, 4), device=device, train=train)
    else:
        assert sum(spec.macs or 0 for spec in trace(model, (2, 4), device=device, train=train).specs) >= 0


@MODES
@pytest.mark.parametrize("name", MODULES)
def test_an_odd_module_is_untouched(name: str, device: str, train: bool) -> None:
    model = MODULES[name]()
    assert_untouched(model, lambda: profile_odd(name, model, device, train))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@MODES
@pytest.mark.parametrize("name", MADE_BY_TORCH)
def test_a_module_that_torch_made_is_untouched(name: str, device: str, train: bool) -> None:
    model = MADE_BY_TORCH[name]()
    assert_untouched(model, lambda: profile_odd(name, model, device, train))


def test_the_copy_of_a_module_is_not_destroyed_by_its_own_method() -> None:
    model: Any = MODULES["OwnDel"]()
    gc.collect()  # models of other tests
    before = list(model.deleted)
    trace(model, (2, 4))
    gc.collect()
    assert model.deleted == before
