"""A model prepared for counting: in eval mode, eager, with its weights on the device and in the dtype of the trace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.parameter import is_lazy

from cspprof.core.errors import TraceError
from cspprof.trace.isolation import isolation
from cspprof.trace.module_tree import ModuleTree
from cspprof.trace.tensor_meta import torch_dtype
from cspprof.trace.tensor_subclasses import empty_on_meta, refuse_fake

Replacements = dict[int, torch.Tensor]
"""The stand-in of each replaced parameter or buffer, by the id of the original."""


def unwrap_compiled(model: nn.Module) -> nn.Module:
    """The module that `torch.compile` wrapped, or the module itself. Raises TraceError for anything else."""
    if not isinstance(model, nn.Module):
        raise TraceError(
            f"a {type(model).__name__} is not a torch.nn.Module",
            "Pass a module, or a SPEC such as 'resnext50' or 'torchvision:resnet50'.",
        )
    while isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
        model = inner
    return model


@contextmanager
def prepared_model(tree: ModuleTree, train: bool, dtype: str | None, device: str) -> Iterator[Replacements]:
    """Prepare the model, and restore it afterwards. Yields what `weights_on` yields."""
    with isolation(tree):
        for module in tree.modules:
            vars(module).pop("_compiled_call_impl", None)  # Module.compile() of torch 2.13 and 2.14 uses it
        set_mode(tree, train)
        with weights_on(tree, dtype, device) as replacements, eager():
            yield replacements


def set_mode(tree: ModuleTree, train: bool) -> None:
    """What `model.train(train)` does: it sets a flag, unless a class overrides `train` or `__setattr__`."""
    classes: set[Any] = set(map(type, tree.modules))
    if all(c.train is nn.Module.train and c.__setattr__ is nn.Module.__setattr__ for c in classes):
        for module in tree.modules:
            vars(module)["training"] = train
    else:
        with suppress(NotImplementedError):  # an exported module keeps the mode of its export
            tree.model.train(train)


@contextmanager
def weights_on(tree: ModuleTree, dtype: str | None, device: str) -> Iterator[Replacements]:
    """Replace parameters and floating buffers by stand-ins on the device and in the dtype of the trace.

    On meta the stand-ins have no data, and the model's own tensors are not moved. Yields the stand-ins.
    """
    target = None if dtype is None else torch_dtype(dtype)
    on_meta = device == "meta"
    made: Replacements = {}
    replaced: list[tuple[dict[str, Any], str, torch.Tensor]] = []

    def needs_stand_in(tensor: Any) -> bool:
        if not isinstance(tensor, torch.Tensor) or is_lazy(tensor):
            return False
        if isinstance(tensor, FakeTensor):
            return True
        if not tensor.is_floating_point() and not isinstance(tensor, nn.Parameter):
            return False  # a forward may need the values of an index table
        other_device = on_meta and not tensor.is_meta
        return other_device or (target is not None and tensor.is_floating_point() and tensor.dtype != target)

    def stand_in(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            kind = target if target is not None and tensor.is_floating_point() else tensor.dtype
            if not on_meta:
                refuse_fake(tensor, "a parameter or buffer")
            new = empty_on_meta(tensor, kind) if on_meta else tensor.detach().to(kind)
            if isinstance(tensor, nn.Parameter) and not isinstance(new, nn.Parameter):
                new = nn.Parameter(new, tensor.requires_grad)
            made[id(tensor)] = new
        return made[id(tensor)]

    missing = any(needs_stand_in(held.tensor) for held in (*tree.parameters, *tree.buffers))
    try:
        for module in tree.modules if missing else ():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # its tables are not Python objects; its weights are recorded where they are
            tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for table in tables:
                for name in [name for name, tensor in table.items() if needs_stand_in(tensor)]:
                    replaced.append((table, name, table[name]))
                    table[name] = stand_in(table[name])
        for items in tree.containers if made else ():
            if type(items) is list:  # recurrent layers keep their parameters in a list too; `isolation` restores it
                items[:] = [made.get(id(item), item) for item in items]
        yield made
    finally:
        for table, name, tensor in reversed(replaced):
            table[name] = tensor


@contextmanager
def eager() -> Iterator[None]:
    """Run compiled submodules as they were written, and attention layers as separate operations.

    On a CPU torch has a fused operation for a whole attention or encoder layer, which has no MACs of its own.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # Setting a stance imports torch._dynamo, so only where something can be compiled. flex_attention compiles
        # itself when it is called.
        compiles = not sys.modules.keys().isdisjoint(("torch._dynamo", "torch.nn.attention.flex_attention"))
        with torch.compiler.set_stance("force_eager") if compiles else nullcontext():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
