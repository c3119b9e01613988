"""Memory traffic of lookups and scatters: the elements at the indices, not the whole table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import quick, trace
from networks import Function
from torch import nn

import cspprof

DEVICES = pytest.mark.parametrize("device", ["meta", "cpu"])
ROWS, WIDTH, N = 100, 8, 5
ROW, IDS = 4 * WIDTH, 8 * N
"""Bytes of one row, and of N indices."""
TABLE, LOOKED_UP = ROWS * ROW, N * ROW


def table() -> torch.Tensor:
    return torch.zeros(ROWS, WIDTH)


def ids(*shape: int) -> torch.Tensor:
    return torch.zeros(shape or (N,), dtype=torch.int64)


def rows() -> torch.Tensor:
    return torch.zeros(N, WIDTH)


def set_rows(x: torch.Tensor, i: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    x[i] = values
    return x


def set_columns(x: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
    x.t()[:, i] = torch.ones((), device=x.device)
    return x


CASES: list[tuple[str, Callable[..., Any], list[torch.Tensor], int]] = [
    # a lookup reads the indices and the rows, and writes the rows
    ("index_select", lambda x, i: x.index_select(0, i), [table(), ids()], IDS + 2 * LOOKED_UP),
    ("index", lambda x, i: x[i], [table(), ids()], IDS + 2 * LOOKED_UP),
    ("take", lambda x, i: x.take(i), [table(), ids()], IDS + 2 * 4 * N),
    ("gather", lambda x, i: x.gather(0, i), [table(), ids(N, WIDTH)], IDS * WIDTH + 2 * LOOKED_UP),
    ("take_along_dim", lambda x, i: x.take_along_dim(i, 0), [table(), ids(N, WIDTH)], IDS * WIDTH + 2 * LOOKED_UP),
    ("five lookups in a table of one row read the table", lambda x, i: x[i], [rows()[:1], ids()],
     IDS + ROW + LOOKED_UP),
    ("slice_copy", lambda x: torch.slice_copy(x, 0, 0, N), [table()], 2 * LOOKED_UP),
    # a scatter in place reads the indices and the values, and writes the rows
    ("index_copy_", lambda x, i, s: x.index_copy_(0, i, s), [table(), ids(), rows()], IDS + 2 * LOOKED_UP),
    ("x[i] = values", set_rows, [table(), ids(), rows()], IDS + 2 * LOOKED_UP),
    ("index_fill_", lambda x, i: x.index_fill_(0, i, 2.0), [table(), ids()], IDS + LOOKED_UP),
    ("scatter_", lambda x, i, s: x.scatter_(0, i, s), [table(), ids(N, WIDTH), rows()], IDS * WIDTH + 2 * LOOKED_UP),
    ("put_", lambda x, i, s: x.put_(i, s), [table(), ids(), torch.zeros(N)], IDS + 2 * 4 * N),
    # one that adds reads the rows too
    ("index_add_", lambda x, i, s: x.index_add_(0, i, s), [table(), ids(), rows()], IDS + 3 * LOOKED_UP),
    ("index_put_, adding", lambda x, i, s: x.index_put_((i,), s, accumulate=True), [table(), ids(), rows()],
     IDS + 3 * LOOKED_UP),
    ("scatter_add_", lambda x, i, s: x.scatter_add_(0, i, s), [table(), ids(N, WIDTH), rows()],
     IDS * WIDTH + 3 * LOOKED_UP),
    # the copying form reads and writes the whole table
    ("index_add", lambda x, i, s: x.index_add(0, i, s), [table(), ids(), rows()], 2 * TABLE + IDS + LOOKED_UP),
    # which elements a mask selects is a value: the whole table may be written
    ("x[mask] = value", set_rows, [table(), torch.zeros(ROWS, dtype=torch.bool), torch.zeros(1, WIDTH)],
     2 * TABLE + ROWS + ROW),
]  # fmt: skip


@DEVICES
@pytest.mark.parametrize(("function", "inputs", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_traffic_counts_the_elements_at_the_indices(
    device: str, function: Any, inputs: list[torch.Tensor], expected: int
) -> None:
    p = trace(Function(function), inputs, device=device)
    assert p.total("traffic_bytes") == expected
    assert (p.total("macs"), p.complete) == (0, True)


@DEVICES
def test_an_index_of_a_later_dimension(device: str) -> None:
    p = trace(Function(set_columns), [table(), ids()], device=device)
    assert sum(op.attrs["bytes_written"] for op in p.ops if op.target == "aten.index_put_") == LOOKED_UP


@DEVICES
def test_an_embedding_reads_rows(device: str) -> None:
    """16 rows of a table of a million."""
    p = trace(nn.Embedding(10**6, 8, device="meta" if device == "meta" else None), [ids(16)], device=device)
    assert p.total("traffic_bytes") == 16 * (8 + 2 * ROW)
    assert p.total("params") == 8 * 10**6


@DEVICES
def test_a_limit_of_the_norm_reads_and_writes_the_rows_that_are_looked_up(device: str) -> None:
    p = trace(nn.Embedding(ROWS, WIDTH, max_norm=1.0), [ids()], device=device)
    renormalized, looked_up = IDS + 2 * LOOKED_UP, IDS + 2 * LOOKED_UP
    assert p.total("traffic_bytes") == renormalized + looked_up


@DEVICES
def test_a_bag_of_embeddings_reads_each_row_and_writes_their_sum(device: str) -> None:
    p = trace(nn.EmbeddingBag(ROWS, WIDTH), [ids(), torch.tensor([0, 2])], device=device)
    assert p.total("traffic_bytes") == IDS + 2 * 8 + LOOKED_UP + 2 * ROW


EXPORTED = [
    (nn.Embedding(ROWS, WIDTH), (ids(),)),
    (Function(lambda x, i: x[i]), (table(), ids())),
    (Function(lambda x, i: x.gather(0, i)), (table(), ids(N, WIDTH))),
]


@pytest.mark.parametrize(("model", "inputs"), quick(EXPORTED, 1))
def test_an_exported_lookup_has_the_same_traffic(model: nn.Module, inputs: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    file = tmp_path / "lookup.onnx"
    torch.onnx.export(model, inputs, file, dynamo=False)
    p = cspprof.profile(str(file))
    lookups = [op for op in p.ops if op.target.startswith("onnx.Gather")]
    assert len(lookups) == 1
    total = trace(model, list(inputs)).total("traffic_bytes")
    assert cspprof.metrics.METRICS.get("traffic_bytes").of_op(lookups[0].spec) == total  # type: ignore[misc]
