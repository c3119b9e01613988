"""A model prepared for counting: a structural copy in the mode of the trace, eager, with its weights on the device and
in the dtype of the trace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from cspprof.core.errors import TraceError
from cspprof.isolation.model_copy import ModelCopy
from cspprof.isolation.torch_state import TorchState
from cspprof.isolation.user_memory import alias, like
from cspprof.modules.module_tree import ModuleTree
from cspprof.operands.tensor_meta import torch_dtype
from cspprof.operands.tensor_subclasses import empty_on_meta, refuse_fake

KNOWN_TRAIN = frozenset({"torch", "torchvision", "timm"})
"""Packages in which a `train()` that a class defines changes no cost beyond the flag."""


class PreparedModel:
    """The copy that runs instead of the model."""

    def __init__(self, copies: ModelCopy, stand_ins: dict[int, torch.Tensor]) -> None:
        self.modules = copies.modules
        """The copies of the modules of the tree, in its order."""
        self.model: nn.Module = copies.modules[0]
        self.stand_ins = stand_ins
        """What the copy holds instead of each parameter and buffer, by the id of the original."""
        self.tensors = copies.tensors
        """All tensors that the copy holds."""


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


def refuse_optimized(modules: list[nn.Module], paths: list[str]) -> None:
    """Raise TraceError for a scripted module that `torch.jit.optimize_for_inference` has given operations of oneDNN,
    which the interpreter of TorchScript runs itself: a dispatch mode does not see them."""
    for module, path in zip(modules, paths, strict=True):
        if isinstance(module, torch.jit.ScriptModule) and module._c._has_method("forward"):
            operations = str(module.inlined_graph)
            if "prim::mkldnn_" in operations or "MKLDNN" in operations:
                raise TraceError(
                    f"{f'layer {path!r}' if path else 'the model'} was optimized for inference, and TorchScript runs "
                    "its convolutions where a trace does not see them",
                    "Profile the module before it is passed to torch.jit.optimize_for_inference.",
                )


@contextmanager
def prepared_model(tree: ModuleTree, train: bool, dtype: str | None, device: str) -> Iterator[PreparedModel]:
    """The copy of the model that a trace runs. Neither the model nor its tensors are moved or changed."""
    originals = [held.tensor for held in (*tree.parameters, *tree.buffers)]
    stand_ins = {id(tensor): _tensor_of_copy(tensor, dtype, device) for tensor in originals}
    state = TorchState()
    copies = ModelCopy(tree.modules, [(tensor, stand_ins[id(tensor)]) for tensor in originals], alias)
    tree.index.update({id(module): i for i, module in enumerate(copies.modules)})
    try:
        set_mode(tree, copies, train)
        make_eager(copies, device)
        yield PreparedModel(copies, stand_ins)
    finally:
        state.restore()
        copies.release()


def set_mode(tree: ModuleTree, copies: ModelCopy, train: bool) -> None:
    """Set the flag that `model.train(train)` sets, without calling a method of the user. The tree lists exceptions."""
    for module in copies.modules:
        if isinstance(module, torch.jit.ScriptModule):
            if module._c.hasattr("training"):  # a frozen module has no mode
                module._c.setattr("training", train)
            continue
        cls, attributes = type(module), vars(module)
        changed = attributes.get("training") is not train
        attributes["training"] = train
        compiled = "_orig_mod" in module._modules  # its property returns the mode of the module inside
        if hasattr(cls, "training") and not compiled and bool(module.training) is not train:  # a property
            tree.modes_not_set.add(cls)
        elif changed and cls.train is not nn.Module.train and cls.__module__.partition(".")[0] not in KNOWN_TRAIN:
            tree.own_train.add(cls)


def _tensor_of_copy(tensor: torch.Tensor, dtype: str | None, device: str) -> torch.Tensor:
    """An alias of a parameter or buffer of the model; if its device or dtype is not that of the trace, a stand-in.

    Stand-ins on meta have no data. A buffer of integers stays where it is: a forward may need the values of an index
    table.
    """
    plain = type(tensor) is nn.Parameter or type(tensor) is torch.Tensor
    if plain and dtype is None and (device != "meta" or tensor.is_meta):
        return alias(tensor)
    if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
        return tensor
    floating = tensor.is_floating_point()
    if not floating and not isinstance(tensor, (nn.Parameter, FakeTensor)):
        return alias(tensor)
    kind = torch_dtype(dtype) if dtype is not None and floating else tensor.dtype
    if device == "meta" and not (tensor.is_meta and kind == tensor.dtype):
        return like(tensor, empty_on_meta(tensor, kind))
    if device != "meta":
        refuse_fake(tensor, "a parameter or buffer")
    return alias(tensor) if kind == tensor.dtype else like(tensor, tensor.detach().to(kind))


def make_eager(copies: ModelCopy, device: str) -> None:
    """Run compiled functions as they were written, and attention layers as separate operations.

    On a CPU torch has a fused operation for a whole attention layer, which has no MACs of its own. The two settings of
    torch belong to the process, so each changes only where the model may need it. `TorchState` restores them.
    """
    attention = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
    if device != "meta" and any(isinstance(module, attention) for module in copies.created):
        torch.backends.mha.set_fastpath_enabled(False)
    # Setting a stance imports torch._dynamo, so only where something can be compiled. flex_attention compiles itself
    # when it is called.
    if not sys.modules.keys().isdisjoint(("torch._dynamo", "torch.nn.attention.flex_attention")):
        torch.compiler.set_stance("force_eager")
