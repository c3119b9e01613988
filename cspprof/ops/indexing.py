"""Lookups and scatters: embeddings, gathers, advanced indexing, writes at indices. No MACs.

A lookup reads the elements that it looks up, not the whole table. The indices are values, so each lookup counts, but
all together at most the table. The attributes `table_bytes`, `bytes_read` and `bytes_written` of the operation say how
much of the table moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from cspprof.core import formulas as f
from cspprof.core.backward import Backward
from cspprof.core.kinds import Kind
from cspprof.ops.op_rules import Facts, Operand, Spec, backward, backward_rule, kept, op_rule, register_without_macs


def lookup_facts(kind: Kind, table: Spec, elements: int, elementwise: int = 0, outputs: int | None = None) -> Facts:
    """An operation that reads `elements` elements of `table`."""
    attrs = {"table_bytes": table.nbytes, "bytes_read": _nbytes(table, elements)}
    return Facts(kind, 0, elementwise, attrs, outputs)


def _nbytes(table: Spec, elements: int) -> int:
    return table.nbytes // max(table.numel, 1) * min(elements, table.numel)


# -- embeddings -------------------------------------------------------------------------------------


@op_rule("aten.embedding")
def embedding(weight: Spec, indices: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return lookup_facts(Kind.EMBEDDING, weight, out.numel)


@op_rule("aten.embedding_renorm_")
def embedding_renorm(self: Spec, indices: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """The rows at the indices are read and written."""
    facts = scatter_facts(self, indices.numel * self.shape[-1], True)
    return Facts(Kind.ELEMENTWISE, 0, out.numel, facts.attrs)


@op_rule("aten.embedding_bag", "aten._embedding_bag", "aten._embedding_bag_forward_only")
def embedding_bag(weight: Spec, indices: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """Each row is added to its bag, or compared with it."""
    elements = indices.numel * weight.shape[-1]
    return lookup_facts(Kind.EMBEDDING, weight, elements, elementwise=elements, outputs=1)


@op_rule("quantized.embedding_byte", "quantized.embedding_4bit")
def quantized_embedding(packed: Any, indices: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    table = packed.tensors[0]
    return lookup_facts(Kind.EMBEDDING, table, indices.numel * prod(table.shape[1:]))


@op_rule("quantized.embedding_bag_byte", "quantized.embedding_bag_4bit")
def quantized_embedding_bag(packed: Any, indices: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    table = packed.tensors[0]
    elementwise = indices.numel * out.shape[-1]
    return lookup_facts(Kind.EMBEDDING, table, indices.numel * prod(table.shape[1:]), elementwise)


# -- gathers ----------------------------------------------------------------------------------------

GATHERS = (
    "index index_select gather take take_along_dim _unsafe_index _unsafe_masked_index as_strided_copy diagonal_copy "
    "narrow_copy select_copy slice_copy"
)


@op_rule(*(f"aten.{name}" for name in GATHERS.split()))
def gather(table: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """Each element of the output is one element of the table."""
    return lookup_facts(Kind.DATA, table, out.numel)


# -- scatters ---------------------------------------------------------------------------------------

# The copying forms read the whole input and write the whole output.
register_without_macs(
    Kind.DATA,
    "scatter scatter_add scatter_reduce index_put _index_put_impl _unsafe_index_put index_add index_fill "
    "index_copy index_reduce put _unsafe_masked_index_put_accumulate",
)


def scatter_facts(table: Spec, elements: int, accumulates: bool) -> Facts:
    """Writes of `elements` elements into `table` in place, which are read before that if they are added to."""
    moved = _nbytes(table, elements)
    attrs = {"table_bytes": table.nbytes, "bytes_read": moved if accumulates else 0, "bytes_written": moved}
    return Facts(Kind.DATA, attrs=attrs)


@op_rule("aten.scatter_")
def scatter(
    self: Spec, dim: int, index: Spec, *args: Any, out: Spec, reduce: str | None = None, **kwargs: Any
) -> Facts:
    return scatter_facts(self, index.numel, reduce is not None)


@op_rule("aten.scatter_add_", "aten.scatter_reduce_")
def scatter_add(self: Spec, dim: int, index: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return scatter_facts(self, index.numel, True)


@op_rule("aten.index_add_", "aten.index_reduce_")
def index_add(self: Spec, dim: int, index: Spec, source: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return scatter_facts(self, source.numel, True)


@op_rule("aten.index_copy_")
def index_copy(self: Spec, dim: int, index: Spec, source: Spec, *, out: Spec) -> Facts:
    return scatter_facts(self, source.numel, False)


@op_rule("aten.index_fill_")
def index_fill(self: Spec, dim: int, index: Spec, value: Any, *, out: Spec) -> Facts:
    length = self.shape[dim] if self.shape else 1
    return scatter_facts(self, self.numel // max(length, 1) * index.numel, False)


@op_rule("aten.put_")
def put(self: Spec, index: Spec, source: Spec, accumulate: bool = False, *, out: Spec) -> Facts:
    return scatter_facts(self, index.numel, accumulate)


@op_rule("aten.index_put_", "aten._index_put_impl_")
def index_put(
    self: Spec, indices: Sequence[Spec | None], values: Spec, accumulate: bool = False, *args: Any, out: Spec
) -> Facts:
    """The number of elements that a mask selects depends on its values: then the whole tensor counts."""
    given = [(n, index) for n, index in zip(self.shape, indices, strict=False) if index is not None]
    if any(index.dtype in ("bool", "uint8") for _, index in given):
        return Facts(Kind.DATA)
    indexed = prod(n for n, _ in given)
    places = prod(f.broadcast(*(index.shape for _, index in given)))
    return scatter_facts(self, places * self.numel // max(indexed, 1), accumulate)


# -- backward ---------------------------------------------------------------------------------------


@backward_rule("aten.embedding")
def embedding_gradients(weight: Operand, indices: Operand, *args: Any, out: Operand, **kwargs: Any) -> Backward:
    return backward(kept(indices))


@backward_rule("aten.index", "aten._unsafe_index", "aten.index_put", "aten.index_put_")
def index_gradients(table: Operand, indices: Sequence[Operand | None], *args: Any, out: Operand) -> Backward:
    return backward(*(kept(index) for index in indices))


@backward_rule("aten.index_select")
def index_select_gradients(table: Operand, dim: int, index: Operand, *, out: Operand) -> Backward:
    return backward(kept(index))


@backward_rule("aten.gather")
def gather_gradients(table: Operand, dim: int, index: Operand, *args: Any, out: Operand, **kw: Any) -> Backward:
    return backward(kept(table), kept(index))


@backward_rule("aten.index_add", "aten.index_copy", "aten.scatter", "aten.scatter_add")
def scatter_gradients(table: Operand, dim: int, index: Operand, *args: Any, out: Operand, **kw: Any) -> Backward:
    return backward(kept(index))
