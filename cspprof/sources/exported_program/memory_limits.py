"""How much memory and time an exported program may take: a small file can ask for tensors of any size."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from cspprof.core.errors import TraceError

MOST_CONSTANT_BYTES = 512 << 20
"""The most bytes of values that a run on meta may compute in total."""

MOST_CONSTANT_STEPS = 1 << 33
"""The most scalar steps that a run on meta may compute in products, convolutions, pooling and the like with values."""

READS_OFTEN = re.compile(
    r"conv(?!ert)|pool|mm$|mv$|dot$|matmul|(?<!bi)(?<!tri)linear$|::bilinear|einsum|attention|lstm|gru|rnn|linalg|svd$"
    r"|(?<!s)qr|cholesky|(?<!re)solve|inverse$|matrix_|det$|cdist|pdist|_aa$|lobpcg|cov$|corrcoef|ctc"
)
"""Parts of the names of operators that read an element many times: products, convolutions, pooling, linear algebra."""

MOST_LIVE_BYTES = 8 << 30
"""The most bytes that the tensors of a run on a real device may take together, without the weights."""

CHECKED_BYTES = 16 << 20
"""A result of this size is added to those that are live."""


MOST_REPEATED = 20_000
"""The most operations that the graphs of loops may run. A loop may have no end."""


class RepeatLimit:
    """The limit on what the graphs within a graph run: branches, and the rounds of loops."""

    def __init__(self) -> None:
        self.left = MOST_REPEATED

    def take(self, operations: int = 1) -> None:
        """Raises TraceError if too many operations have run, or would run."""
        self.left -= operations
        if self.left < 0:
            raise TraceError(
                f"the loops of an exported program run more than {MOST_REPEATED:,} operations",
                "Profile the module from which the file was exported, or a shorter input.",
            )

    def check_length(self, sequences: Any) -> None:
        """Raises TraceError if a loop over these tensors has too many rounds."""
        rounds = max((t.shape[0] for t in sequences if isinstance(t, torch.Tensor) and t.dim()), default=0)
        if rounds > self.left:
            self.take(rounds)


class ValueBudget:
    """The limit on operations with values in one run on meta: tables of indices, masks, constants.

    Beyond the limit, operations run on meta too, without values.
    """

    def __init__(self) -> None:
        self.spent = 0
        self.steps = 0

    def limited(self, func: Any, kwargs: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        """The arguments, on meta if an operation whose arguments have values would exceed the budget."""
        tensors = _tensors(kwargs.values())
        if any(t.is_meta for t in tensors):
            return kwargs
        on_meta, made = _result_on_meta(func, kwargs)
        if made is None:
            return kwargs if func._schema.name in NOT_LARGER else on_meta
        cost = sum(t.numel() * t.element_size() for t in (*tensors, *made))
        steps = _most_steps(func, (*tensors, *made))
        if self.spent + cost > MOST_CONSTANT_BYTES or self.steps + steps > MOST_CONSTANT_STEPS:
            return on_meta
        self.spent += cost
        self.steps += steps
        return kwargs


class LiveLimit:
    """The limit on the memory of all values in one run on a real device."""

    def __init__(self, weights: Iterable[Any]) -> None:
        self.weights = _bytes_by_storage(weights).keys()

    def limited(self, func: Any, kwargs: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        """The arguments. Raises TraceError if the result and the values that are live would exceed the limit."""
        _, made = _result_on_meta(func, kwargs)
        needed = sum(t.untyped_storage().nbytes() for t in made or ())
        if needed > CHECKED_BYTES:
            live = sum(n for s, n in _bytes_by_storage(values.values()).items() if s not in self.weights)
            if needed + live > MOST_LIVE_BYTES and not _is_view(func):
                raise TraceError(
                    f"{func._schema.name.replace('::', '.')} needs {needed / 2**30:,.1f} GiB: the tensors of an "
                    f"exported program may take {MOST_LIVE_BYTES >> 30} GiB together on a real device",
                    "Profile the module from which the file was exported.",
                )
        return kwargs


def _most_steps(func: Any, tensors: Iterable[torch.Tensor]) -> int:
    """An upper bound of the steps of an operation that reads elements many times: each element of the largest tensor
    with each of the second largest. 0 for other operations: their time is bounded by their bytes."""
    if not READS_OFTEN.search(func._schema.name.rstrip("_")):
        return 0
    return prod(sorted((t.numel() for t in tensors), reverse=True)[:2])


def _bytes_by_storage(values: Iterable[Any]) -> dict[int, int]:
    return {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in _tensors(values)}


def _is_view(func: Any) -> bool:
    return any(r.alias_info is not None for r in func._schema.returns)


def _tensors(values: Iterable[Any]) -> list[torch.Tensor]:
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return [item for item in flat if isinstance(item, torch.Tensor)]


def _result_on_meta(func: Any, kwargs: dict[str, Any]) -> tuple[dict[str, Any], list[torch.Tensor] | None]:
    """The arguments on meta, and the tensors that the operation makes of them; None if that depends on values."""
    tensors = _tensors(kwargs.values())
    with _disable_current_modes():  # nothing of this is recorded
        on_meta = {name: _on_meta(value) for name, value in kwargs.items()}
        if "device" in kwargs or (not tensors and any(a.name == "device" for a in func._schema.arguments)):
            on_meta["device"] = torch.device("meta")
        try:
            result = func(**on_meta)
        except Exception:  # a shape that depends on values, or arguments that do not fit
            return on_meta, None
    return on_meta, _tensors(result if isinstance(result, (list, tuple)) else [result])


NOT_LARGER = frozenset({
    "aten::nonzero", "aten::argwhere", "aten::masked_select", "aten::index", "aten::_unique2", "aten::unique_dim",
    "aten::unique_consecutive", "aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal",
})  # fmt: skip
"""Operators whose results depend on values and have at most about the size of the arguments."""


def _on_meta(value: Any) -> Any:
    if isinstance(value, list):
        return [_on_meta(item) for item in value]
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return value


def check_count(target: str, outputs: Any, kwargs: dict[str, Any]) -> None:
    """Raise TraceError if an operation would return another number of tensors than the program says.

    Splitting a dimension of 2**40 would make as many tensors.
    """
    split = SPLITS.get(target.removeprefix("torch.ops.aten."))
    tensor = kwargs.get("self", kwargs.get("tensor"))
    if split is None or not isinstance(tensor, torch.Tensor):
        return
    dim = kwargs.get("dim", 0)
    if not isinstance(dim, int) or not -tensor.dim() <= dim < tensor.dim():
        return
    count = split(tensor.shape[dim], kwargs)
    if not isinstance(outputs, list) or len(outputs) != count:
        raise TraceError(
            f"{target} returns {count:,} tensors, and the program has another number of results for it",
            "The file is damaged, or was exported for another input.",
        )


def check_steps(target: str, kwargs: dict[str, Any]) -> None:
    """Raise TraceError if a recurrent operation has more than `MOST_STEPS` steps, which torch runs one by one."""
    name = target.removeprefix("torch.ops.aten.").removesuffix(".input")
    sequence, layers = kwargs.get("input"), kwargs.get("num_layers", 1)
    if name not in RECURRENT or not isinstance(sequence, torch.Tensor) or not isinstance(layers, int):
        return
    steps = layers * max(sequence.shape[:2], default=1)
    if steps > MOST_STEPS:
        raise TraceError(
            f"aten.{name} of an exported program has {steps:,} steps; at most {MOST_STEPS:,} are run",
            "Profile the module from which the file was exported, or a shorter sequence.",
        )


RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
MOST_STEPS = 100_000
"""Layers times positions of a sequence."""


def _parts(size: int, step: Any) -> int:
    return -(-size // step) if isinstance(step, int) and step > 0 and size else 1


SPLITS: dict[str, Callable[[int, dict[str, Any]], int]] = {
    "unbind.int": lambda size, _: size,
    "unbind_copy.int": lambda size, _: size,
    "split.Tensor": lambda size, kwargs: _parts(size, kwargs.get("split_size")),
    "split_copy.Tensor": lambda size, kwargs: _parts(size, kwargs.get("split_size")),
    "unsafe_split.Tensor": lambda size, kwargs: _parts(size, kwargs.get("split_size")),
    "chunk.default": lambda size, kwargs: _parts(size, _parts(size, kwargs.get("chunks"))),
    "unsafe_chunk.default": lambda size, kwargs: _parts(size, _parts(size, kwargs.get("chunks"))),
    "tensor_split.sections": lambda size, kwargs: kwargs.get("sections", 0),
    "hsplit.int": lambda size, kwargs: kwargs.get("sections", 0),
    "vsplit.int": lambda size, kwargs: kwargs.get("sections", 0),
    "dsplit.int": lambda size, kwargs: kwargs.get("sections", 0),
}
"""How many tensors an operator makes of a dimension."""
