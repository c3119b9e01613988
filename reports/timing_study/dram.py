"""Traffic to memory by two models, beside CIO: a small cache of our own, and a published model of accelerators.

**The cache** is fully associative, replaces the least recently used tile, and is written back. A tile is one row of a
map with all its channels, or 64 KiB of weights. Kernels are those of an engine that fuses (`onnxruntime`). A kernel
computes its output in blocks of rows; for each block it reads all its weights, then for each output row the input rows
under its window, and writes the row. A block has so many rows that they and their inputs take half of the cache.
Tensors that no later kernel reads leave the cache without being written. Traffic is what is fetched and written back.

**ZigZag** (Mei et al. 2021, package `zigzag-dse`) searches the loop order of one convolution on an accelerator for the
least energy and counts the accesses of each of its memories. Each layer starts and ends in DRAM: keeping a map on the
chip between two layers is outside of that model.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from cspprof.core.dataflow import INPUT
from cspprof.core.files import write_atomically
from cspprof.core.kinds import CONVOLUTIONS, POOLS, Kind
from cspprof.core.record import OpSpec, Record, TensorSpec
from cspprof.measure.calibration.kernels import FUSIONS, kernels

WEIGHT_TILE = 2**16
"""Bytes."""


class Cache:
    """A least-recently-used cache of tiles. `traffic` is the bytes fetched and written back so far."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.traffic = 0.0
        self._tiles: OrderedDict[tuple[int, int], tuple[float, bool]] = OrderedDict()
        """Bytes that are present, and whether they were written, by tensor and number of the tile."""
        self._used = 0.0
        self._numbers: dict[int, set[int]] = {}
        """The numbers of the tiles of each tensor that may be present."""

    def read(self, tile: tuple[int, int], size: float) -> None:
        """Read `size` bytes of a tile; those that are not present are fetched."""
        present, dirty = self._tiles.pop(tile, (0.0, False))
        self.traffic += max(size - present, 0.0)
        self._keep(tile, present, max(size, present), dirty)

    def write(self, tile: tuple[int, int], size: float) -> None:
        present, _ = self._tiles.pop(tile, (0.0, False))
        self._keep(tile, present, max(size, present), True)

    def _keep(self, tile: tuple[int, int], before: float, size: float, dirty: bool) -> None:
        self._tiles[tile] = size, dirty
        self._numbers.setdefault(tile[0], set()).add(tile[1])
        self._used += size - before
        while self._used > self.capacity and self._tiles:
            _, (evicted, was_written) = self._tiles.popitem(last=False)
            self._used -= evicted
            self.traffic += evicted if was_written else 0.0

    def drop(self, tensor: int) -> None:
        """Forget a tensor that is not read again."""
        for number in self._numbers.pop(tensor, ()):
            self._used -= self._tiles.pop((tensor, number), (0.0, False))[0]

    def flush(self, tensors: Sequence[int]) -> None:
        """Write back what was written of these tensors: the outputs of the model."""
        self.traffic += sum(size for (tensor, _), (size, dirty) in self._tiles.items() if dirty and tensor in tensors)


def cache_traffic(record: Record, capacity: int) -> float:
    """Bytes between a cache of `capacity` bytes and memory in one forward pass."""
    cache = Cache(capacity)
    # a kernel that adds the output of another one runs after it
    parts = sorted(kernels(record, FUSIONS["onnxruntime"]), key=lambda kernel: kernel.calls[-1])
    accesses = [_accesses(record, kernel.calls) for kernel in parts]
    last_use: dict[int, int] = {}
    for i, access in enumerate(accesses):
        for tensor, _ in (*access.reads, *access.writes):
            last_use[tensor] = i
    for i, access in enumerate(accesses):
        _run(cache, access)
        for tensor, _ in (*access.reads, *access.writes):
            if last_use[tensor] == i and tensor not in record.outputs:
                cache.drop(tensor)
    cache.flush(record.outputs)
    return cache.traffic


class _Access(NamedTuple):
    """What a kernel reads and writes: storages with the tensors in them."""

    spec: OpSpec
    reads: list[tuple[int, TensorSpec]]
    writes: list[tuple[int, TensorSpec]]
    weight_bytes: int
    weights: int
    """The storage of the first weight."""


def _accesses(record: Record, calls: Sequence[int]) -> _Access:
    """A fused kernel reads what its operations read from outside of it, and writes what its last operation writes."""
    inside: set[int] = set()
    reads: list[tuple[int, TensorSpec]] = []
    ops = [record.ops[i] for i in calls]
    for op in ops:
        reads += [(t.storage, s) for t, s in zip(op.reads, op.spec.reads, strict=True) if t.storage not in inside]
        inside |= {t.storage for t in op.writes}
    writes = [(t.storage, s) for t, s in zip(ops[-1].writes, ops[-1].spec.writes, strict=True)]
    lead = ops[0]
    nbytes = sum(t.nbytes for t in lead.spec.weights)
    return _Access(lead.spec, reads, writes, nbytes, lead.weights[0].storage if lead.weights else INPUT)


def _run(cache: Cache, access: _Access) -> None:
    out = access.writes[0][1] if access.writes else None
    rows = _rows(out) if out is not None else 1
    moved = sum(t.nbytes for _, t in (*access.reads, *access.writes))
    block = max(1, int(rows * min(1.0, cache.capacity / 2 / moved))) if moved else rows
    for start in range(0, rows, block):
        for i, size in enumerate(_weight_tiles(access.weight_bytes)):
            cache.read((-2 - access.weights, i), size)
        for row in range(start, min(start + block, rows)):
            for tensor, spec in access.reads:
                for at in _input_rows(access.spec, row, rows, _rows(spec)):
                    cache.read((tensor, at), spec.nbytes / _rows(spec))
            for tensor, spec in access.writes:
                if row < _rows(spec):
                    cache.write((tensor, row), spec.nbytes / _rows(spec))


def _rows(tensor: TensorSpec) -> int:
    """The height of a map (N, C, H, W); 1 for other tensors."""
    return tensor.shape[2] if len(tensor.shape) == 4 else 1


def _weight_tiles(nbytes: int) -> Iterator[int]:
    for start in range(0, nbytes, WEIGHT_TILE):
        yield min(WEIGHT_TILE, nbytes - start)


def _input_rows(spec: OpSpec, row: int, rows: int, input_rows: int) -> range:
    """The rows of an input that an output row needs: those under the window, or the same part of the map."""
    if rows == 1 or input_rows == 1:
        return range(input_rows)
    if spec.kind in CONVOLUTIONS | POOLS and spec.kind is not Kind.CONV_TRANSPOSE and input_rows >= rows:
        stride, kernel = -(-input_rows // rows), _kernel_height(spec)
        first = row * stride - kernel // 2
        return range(max(first, 0), min(first + kernel, input_rows))
    return range(row * input_rows // rows, max((row + 1) * input_rows // rows, row * input_rows // rows + 1))


def _kernel_height(spec: OpSpec) -> int:
    kernel = tuple(spec.attrs.get("kernel", ())) or (1,)
    return int(kernel[0])


# -- ZigZag -------------------------------------------------------------------------------------------

ACCELERATORS = ("tpu_like", "eyeriss_like")
"""Accelerators that come with ZigZag: one with 2 MiB for maps, and one with 1 MiB for maps and 64 KiB for weights."""
ZIGZAG_NETWORKS = (
    "resnet50", "csp_resnet50", "resnext50", "csp_resnext50", "darknet53", "csp_darknet53", "peleenet", "csp_peleenet",
    "mobilenet_v2_darknet", "csp_mobilenet_v2", "densenet121", "csp_densenet121", "vgg16",
)  # fmt: skip
ZIGZAG_SIZE = 256


class Conv(NamedTuple):
    """A convolution as ZigZag describes it."""

    groups: int
    c: int
    """Input channels of a group."""
    k: int
    """Output channels of a group."""
    height: int
    width: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    stride: int
    padding: tuple[int, int]

    @property
    def cio(self) -> int:
        """Elements that it reads and writes."""
        return self.groups * (self.c * self.height * self.width + self.k * self.out_height * self.out_width)


def convolutions(record: Record) -> list[Conv]:
    """The 2-d convolutions of a record in execution order."""
    found = []
    for op in record.ops:
        if op.kind is not Kind.CONV or len(op.spec.writes[0].shape) != 4:
            continue
        (_, c, h, w), (_, k, oh, ow) = op.spec.reads[0].shape, op.spec.writes[0].shape
        groups, (kh, kw) = int(op.spec.attrs.get("groups", 1)), op.spec.weights[0].shape[2:]
        stride = max(round(h / oh), 1)
        padding = max((oh - 1) * stride + kh - h, 0), max((ow - 1) * stride + kw - w, 0)
        found.append(Conv(groups, c // groups, k // groups, h, w, oh, ow, (kh, kw), stride, padding))
    return found


class DramAccess(NamedTuple):
    """Elements that a convolution moves between DRAM and chip: maps (read and written), weights."""

    maps: int
    weights: int


def zigzag_access(conv: Conv, accelerator: str) -> DramAccess:
    """What ZigZag counts for the least energy that it finds. Needs the packages zigzag-dse and six."""
    import zigzag
    from zigzag.api import get_hardware_performance_zigzag

    inputs = Path(zigzag.__file__).parent / "inputs"
    mapping = inputs / "mapping" / (f"{accelerator}.yaml" if accelerator == "tpu_like" else "default.yaml")
    logging.disable(logging.WARNING)
    with TemporaryDirectory() as folder:
        *_, found = get_hardware_performance_zigzag(
            [_workload(conv)], str(inputs / "hardware" / f"{accelerator}.yaml"), str(mapping), opt="energy",
            lpf_limit=4, nb_spatial_mappings_generated=1, dump_folder=folder, loma_show_progress_bar=False,
        )  # fmt: skip
    words = {str(operand): levels[-1] for operand, levels in found[0][0].memory_word_access.items()}
    per_word = 8  # words of 64 bits, elements of 8 bits
    moved = {name: sum(_four_directions(level)) * per_word for name, level in words.items()}
    return DramAccess(moved["I"] + moved["O"], moved["W"])


def _four_directions(level: Any) -> list[int]:
    """The words read and written, up and down, of one memory."""
    return [int(v) for v in level.data.values()] if hasattr(level, "data") else [int(v) for v in level]


def _workload(conv: Conv) -> dict[str, Any]:
    """A layer in ZigZag's format: 8-bit elements, 16-bit partial sums."""
    return {
        "id": 0, "name": "conv", "operator_type": "Conv",
        "equation": "O[b][g][k][oy][ox]+=W[g][k][c][fy][fx]*I[b][g][c][iy][ix]",
        "dimension_relations": [f"ix={conv.stride}*ox+1*fx", f"iy={conv.stride}*oy+1*fy"],
        "loop_dims": ["B", "G", "K", "C", "OY", "OX", "FY", "FX"],
        "loop_sizes": [1, conv.groups, conv.k, conv.c, conv.out_height, conv.out_width, *conv.kernel],
        "operand_precision": {"W": 8, "I": 8, "O": 16, "O_final": 8},
        "operand_source": {"I": 0, "W": 0},
        "pr_loop_dims": ["IY", "IX"], "pr_loop_sizes": [conv.height, conv.width],
        "padding": [[p // 2, p - p // 2] for p in conv.padding],
    }  # fmt: skip


def zigzag_table(records: Sequence[Record], path: Path) -> list[list[Any]]:
    """For each different convolution of the records its fields, then maps and weights on each accelerator.

    It takes about a second for each; finished ones are kept in the file at `path`.
    """
    table: list[list[Any]] = json.loads(path.read_text()) if path.exists() else []
    known = {_conv(row) for row in table}
    todo = [conv for conv in dict.fromkeys(c for r in records for c in convolutions(r)) if conv not in known]
    for i, conv in enumerate(todo):
        counts = [n for accelerator in ACCELERATORS for n in zigzag_access(conv, accelerator)]
        table.append([*conv, *counts])
        if i % 20 == 19 or conv is todo[-1]:
            print(f"ZigZag: {i + 1} of {len(todo)} convolutions", flush=True)
            write_atomically(path, json.dumps(table).encode())
    return table


def _conv(row: Sequence[Any]) -> Conv:
    return Conv._make(tuple(v) if isinstance(v, list) else v for v in row[: len(Conv._fields)])


def zigzag_access_of(table: Sequence[Sequence[Any]]) -> dict[Conv, dict[str, DramAccess]]:
    """The rows of `zigzag_table` by convolution and accelerator."""
    found = {}
    for row in table:
        counts = row[len(Conv._fields) :]
        found[_conv(row)] = {a: DramAccess(*counts[2 * i : 2 * i + 2]) for i, a in enumerate(ACCELERATORS)}
    return found
