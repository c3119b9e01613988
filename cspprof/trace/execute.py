"""Run an operation with torch: on a real device every operation; on meta views, known values, and operations without
an output rule."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from cspprof.isolation.random_numbers import PrivateGenerators
from cspprof.isolation.user_memory import MemoryGuard
from cspprof.operands.operators import Operator
from cspprof.operands.pytree import replace_tensors
from cspprof.operands.tensor_meta import TensorTag, empty_tensor
from cspprof.ops import VALUE_ARGUMENTS
from cspprof.trace.gradients import autograd_included
from cspprof.trace.op_entries import STATISTICS, written_tensors
from cspprof.trace.tensor_registry import TensorRegistry

RETURNS_VALUES = frozenset({"aten._local_scalar_dense", "aten.item", "aten.equal", "aten.is_nonzero"})
"""Operations that return a tensor's values as Python numbers."""

READS_VALUES = frozenset({"aten._pack_padded_sequence", "aten._pad_packed_sequence", "aten.lstm", "aten.gru",
                          "aten.rnn_tanh", "aten.rnn_relu", "aten.tensor_split"})  # fmt: skip
"""Operations with an argument that torch reads on the CPU, wherever the other arguments are: lengths, batch sizes,
indices."""


def values_known(registry: TensorRegistry, tags: list[TensorTag], args: Any, kwargs: Any) -> bool:
    """Whether all values are known during a trace on meta: no argument depends on the model's inputs or parameters."""
    if not registry.values_known(tags):
        return False
    if not tags:
        return str(kwargs.get("device", "cpu")) != "meta"
    devices = (kwargs.get("device", ""), *(a for a in args if isinstance(a, torch.device)))
    return "meta" not in map(str, devices)


def execute(
    registry: TensorRegistry, guard: MemoryGuard, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any],
    tensors: list[torch.Tensor], tags: list[TensorTag], symbolic: bool, generators: PrivateGenerators,
) -> tuple[Any, list[torch.Tensor]]:  # fmt: skip
    """The result, and the tensors that the kernel received: meta tensors if the values are unknown (`symbolic`), else
    the arguments themselves. `guard` protects the tensors of the user that the kernel writes into."""
    if not symbolic:
        if registry.reached_originals:  # the copy's own tensors instead of the model's
            tensors = [registry.originals.get(id(t), t) for t in tensors]
            items = iter(tensors)
            args = replace_tensors(args, items)
            kwargs = {k: replace_tensors(v, items) for k, v in kwargs.items()}
        guard.before_read(tensors)
        for tensor in written_tensors(op, args, kwargs, STATISTICS):
            if registry.tag(tensor).storage in registry.owners:
                guard.before_write(tensor)
        return run(op, args, kwargs, generators), tensors
    all_meta = all(t.is_meta for t in tensors)
    if all_meta and op.returns_views:
        return run(op, args, kwargs), tensors
    known = op.target in RETURNS_VALUES and not any(t.storage in registry.stale for t in tags)
    if known or (op.returns_views and not any(t.is_meta for t in tensors)):
        return run(op, args, kwargs), tensors  # a real parameter: its values, a view of it
    if op.in_place and tags[0].meta.weight:
        # A write into the model's own tensors is recorded and not carried out. Operations on lists return nothing.
        return (args[0] if op.func._schema.returns else None), tensors
    passed = tensors
    if all_meta:
        result = run(op, args, kwargs)
    else:
        reads_values = op.target in READS_VALUES or op.target in VALUE_ARGUMENTS
        passed = [
            t if reads_values and not t.is_floating_point() and registry.tag(t).constant else _on_meta(t, registry)
            for t in tensors
        ]
        items = iter(passed)
        replaced = replace_tensors(args, items)
        result = run(op, replaced, {k: replace_tensors(v, items) for k, v in kwargs.items()})
    if op.in_place and isinstance(result, torch.Tensor) and result.shape == tensors[0].shape:
        result = args[0]
    return result, passed


def run(
    op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], generators: PrivateGenerators | None = None
) -> Any:
    """Call the operator; autograd records it if gradients are enabled. On real tensors random numbers come from
    `generators`."""
    function = partial(generators.run, op) if generators is not None and op.draws else op.func
    if not torch.is_grad_enabled():
        return function(*args, **kwargs)
    with autograd_included():
        return function(*args, **kwargs)


def _on_meta(tensor: torch.Tensor, registry: TensorRegistry) -> torch.Tensor:
    """The tensor if it is on meta, else an empty meta tensor like it."""
    return tensor if tensor.is_meta else empty_tensor(registry.tag(tensor).meta)
