"""The kernels that an engine runs for a record, and the amounts of work in each: pure functions of the record.

An engine that fuses computes several operations in one kernel: batch norm is folded into the weights of the convolution
before it, and an activation or a sum is computed on the output of a convolution before it is stored. `FUSIONS` states
which of these are assumed for each engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple

from cspprof.core.dataflow import INPUT, edges
from cspprof.core.kinds import CONVOLUTIONS, POOLS, Kind
from cspprof.core.record import OpSpec, Record, TensorSpec

CHEAP_ACTIVATIONS = frozenset({"relu", "relu6", "hardtanh", "clip", "clamp", "leakyrelu", "prelu", "threshold"})
"""Activations without an exponential function, by `plain_name`."""
EXPONENTIAL_ACTIVATIONS = frozenset({
    "sigmoid", "logsigmoid", "tanh", "silu", "swish", "gelu", "mish", "elu", "celu", "selu", "softplus", "erf",
    "quickgelu", "fastgelu",
})  # fmt: skip

HARD_ACTIVATIONS = frozenset({"hardswish", "hardsigmoid"})


class Fusion(NamedTuple):
    """The operations that an engine computes in the kernel of the convolution before them."""

    norms: bool
    """Whether batch norm is folded into the weights of the convolution before it."""
    activations: frozenset[str]
    """Activations of its output, by `plain_name`."""
    sums: bool
    """Whether the sum of its output and another tensor is one of them."""
    pointwise: bool = False
    """Whether consecutive pointwise operations are one kernel."""
    blocked: bool = False
    """Whether convolutions store channels in blocks, so that the layout changes where other operations read them."""

    def text(self) -> str:
        """The assumption in words: `batch norm, activations and sums are computed in the convolution before them`."""
        parts = []
        if self.norms:
            parts.append("batch norm")
        if self.activations:
            parts.append("activations" if self.activations >= EXPONENTIAL_ACTIVATIONS else "simple activations")
        if self.sums:
            parts.append("sums")
        joined = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
        if joined:
            return f"{joined} are computed in the convolution before them"
        if self.pointwise:
            return "consecutive pointwise operations are one kernel"
        return "every operation is a kernel of its own"


_ALL = CHEAP_ACTIVATIONS | EXPONENTIAL_ACTIVATIONS | HARD_ACTIVATIONS
NO_FUSION = Fusion(False, frozenset(), False)
FUSIONS: Mapping[str, Fusion] = {
    "torch": NO_FUSION,
    "torch-cuda": NO_FUSION,
    "torch-compile": Fusion(False, frozenset(), False, pointwise=True),
    "onnxruntime": Fusion(
        True, frozenset({"relu", "relu6", "hardtanh", "clip", "clamp", "leakyrelu", "sigmoid", "tanh", "hardsigmoid"}),
        True, blocked=True,
    ),
    "opencv": Fusion(True, _ALL, True),
    "opencv-classic": Fusion(True, _ALL, True),
    "openvino": Fusion(True, _ALL, True, pointwise=True),
}  # fmt: skip
"""The fusions of each engine, as its documentation and its optimized graphs show them."""
BEST_FUSION = FUSIONS["openvino"]

POINTWISE = frozenset({Kind.NORM, Kind.ACTIVATION, Kind.ELEMENTWISE})


class Kernel(NamedTuple):
    """One or more operations that an engine runs as one kernel."""

    calls: tuple[int, ...]
    """Indices of the calls in the record; the first one leads."""
    kind: str
    """The kind of kernel, with a rate of its own: `conv 3×3 or larger`, `depthwise conv`, `concat` …"""
    work: Mapping[str, float]
    """Amounts of work. Empty if the cost of the operation is unknown."""
    macs: int
    bytes: int
    """Activations and weights that the kernel reads or writes."""


class Shape(NamedTuple):
    """The sizes of an engine and a machine on which the amount of work depends."""

    block: int = 1
    """Channels are padded to multiples of this number."""
    cache_bytes: int | None = None
    """Activations of a kernel beyond this size are counted as far elements too; None if there is no such size."""


UNPADDED = Shape()
"""The shape of an engine of which nothing is known."""


def kernels(record: Record, fusion: Fusion, shape: Shape = UNPADDED) -> list[Kernel]:
    """The kernels of a record in execution order."""
    groups = _groups(record, fusion)
    reordered = layout_changes(record, groups, shape.block) if fusion.blocked else {}
    found = []
    for calls in groups:
        specs = [record.specs[record.calls.spec[i]] for i in calls]
        lead = specs[0]
        moved = _elements(lead) + sum(_extra_elements(spec) for spec in specs[1:])
        weights = sum(t.numel for t in lead.weights)
        work: dict[str, float] = {}
        if all(spec.macs is not None for spec in specs) and lead.kind not in UNPREDICTED:
            work = _work(lead, moved, weights, shape) | _fused_work(specs[1:])
            if calls[0] in reordered:
                work[REORDERED] = float(reordered[calls[0]])
        macs = sum(spec.macs or 0 for spec in specs)
        found.append(Kernel(calls, kernel_kind(lead), work, macs, _bytes(lead, moved)))
    return found


UNPREDICTED = frozenset({Kind.UNKNOWN, Kind.CUSTOM, Kind.GRADIENT, Kind.RECURRENT, Kind.FFT})
"""Kinds that calibration does not measure."""


# -- groups of calls ----------------------------------------------------------------------------------


def _groups(record: Record, fusion: Fusion) -> list[tuple[int, ...]]:
    """The calls of each kernel. A call joins the kernel that made its input if nothing else reads that input."""
    specs = [record.specs[i] for i in record.calls.spec]
    readers: Counter[int] = Counter()
    sources: dict[int, list[int]] = {}
    for edge in edges(record):
        readers[edge.source] += 1
        sources.setdefault(edge.target, []).append(edge.source)
    groups: list[list[int]] = []
    group_of: dict[int, list[int]] = {}
    for i, spec in enumerate(specs):
        if spec.kind is Kind.VIEW:
            continue
        for source in sources.get(i, ()):
            group = group_of.get(source)
            if group is None or group[-1] != source or readers[source] != 1:
                continue
            before = [specs[j] for j in group]
            if _joins(spec, before, fusion) and before[-1].writes[0].shape == spec.writes[0].shape:
                group.append(i)
                break
        else:
            group = [i]
            groups.append(group)
        group_of[i] = group
    return [tuple(group) for group in groups]


def _joins(spec: OpSpec, before: list[OpSpec], fusion: Fusion) -> bool:
    """Whether an operation is computed in the kernel of the operations before it."""
    if not spec.writes or not before[-1].writes:
        return False
    lead, name = before[0], plain_name(spec)
    if lead.kind in CONVOLUTIONS:
        activated = any(s.kind is Kind.ACTIVATION or plain_name(s) in _ALL for s in before[1:])
        if _is_batch_norm(spec):
            return fusion.norms and all(_is_batch_norm(s) for s in before[1:])
        if name in fusion.activations:
            return not activated
        summed = any(s.kind is Kind.ELEMENTWISE and len(s.reads) > 1 for s in before[1:])
        if name in ("add", "sum") and spec.kind is Kind.ELEMENTWISE and len(spec.reads) == 2:
            return fusion.sums and not activated and not summed
        return False
    return (
        fusion.pointwise and spec.kind in POINTWISE and lead.kind in POINTWISE
        and not any(s.kind is Kind.NORM and not _is_batch_norm(s) for s in (spec, *before))
    )  # fmt: skip


def _is_batch_norm(spec: OpSpec) -> bool:
    """Whether a norm has constant statistics, so that it is a factor and a sum for each channel."""
    return spec.kind is Kind.NORM and plain_name(spec) in ("batchnorm", "batchnormalization") and not spec.attrs.get(
        "training", False
    )  # fmt: skip


def plain_name(spec: OpSpec) -> str:
    """The name of the operation, the same for torch and ONNX: `leaky_relu_` and `LeakyRelu` are `leakyrelu`."""
    return spec.name.replace("_", "").lower()


# -- layout -------------------------------------------------------------------------------------------

BLOCKED_ACTIVATIONS = frozenset({"relu", "sigmoid", "tanh"})


def layout_changes(record: Record, groups: Sequence[tuple[int, ...]], block: int) -> dict[int, int]:
    """The elements that are reordered before a kernel runs or, for an output of the model, after it, by the first call
    of the kernel.

    An aligned convolution reads and writes blocks of channels. Pools, sums, concatenations of whole blocks and some
    activations take the layout of their inputs; other operations need the plain layout. A tensor is reordered once for
    all its readers (ONNX Runtime, `nchwc_transformer.cc`).
    """
    lead_of = {call: group[0] for group in groups for call in group}
    tensors_in: dict[int, list[tuple[int, TensorSpec]]] = {group[0]: [] for group in groups}
    outputs: list[tuple[int, TensorSpec]] = []
    for edge in edges(record):
        source = lead_of.get(edge.source, INPUT)
        if edge.target not in lead_of:
            outputs.append((source, edge.tensor))
        elif source != lead_of[edge.target]:
            tensors_in[lead_of[edge.target]].append((source, edge.tensor))
    blocked: dict[int, bool] = {}
    for group in groups:  # the layout of a convolution does not depend on its inputs
        spec = record.specs[record.calls.spec[group[0]]]
        if spec.kind is Kind.CONV:
            blocked[group[0]] = _padded_macs(spec, block)[1] and len(spec.writes[0].shape) == 4
    for call, tensors in tensors_in.items():
        if call not in blocked:
            spec = record.specs[record.calls.spec[call]]
            from_blocks = bool(tensors) and all(blocked.get(source, False) for source, _ in tensors)
            blocked[call] = from_blocks and _keeps_blocks(spec, block)
    found: Counter[int] = Counter()
    reordered = set()
    for call, tensors in tensors_in.items():
        lead = record.specs[record.calls.spec[call]]
        for source, tensor in tensors:
            reads_image = kernel_kind(lead) == "conv of few channels"
            if blocked.get(source, False) != blocked[call] and not reads_image and source not in reordered:
                reordered.add(source)
                found[call] += tensor.numel
    for source, tensor in outputs:
        if blocked.get(source, False) and source not in reordered:
            reordered.add(source)
            found[source] += tensor.numel
    return dict(found)


def _keeps_blocks(spec: OpSpec, block: int) -> bool:
    """Whether an operation that is no convolution can read and write blocks of channels."""
    if spec.kind in POOLS or spec.kind is Kind.RESIZE or _is_batch_norm(spec):
        return True
    if spec.kind is Kind.CONCAT:
        return all(_dim(t, 1) % max(block, 1) == 0 for t in spec.reads) and _concatenates_channels(spec)
    if plain_name(spec) in BLOCKED_ACTIVATIONS:
        return True
    return spec.kind is Kind.ELEMENTWISE and len({t.shape for t in spec.reads}) == 1 and len(spec.reads) > 1


def _concatenates_channels(spec: OpSpec) -> bool:
    return sum(_dim(t, 1) for t in spec.reads) == _dim(spec.writes[0], 1)


def _dim(tensor: TensorSpec, axis: int) -> int:
    return tensor.shape[axis] if len(tensor.shape) > axis else 0


# -- kinds and amounts of work ------------------------------------------------------------------------


def kernel_kind(spec: OpSpec) -> str:
    """The kind of kernel, which has a rate of its own."""
    name = plain_name(spec)
    if spec.kind is Kind.CONV:
        groups, channels = spec.attrs.get("groups", 1), _channels(spec)
        if groups > 1:
            return "depthwise conv" if groups == channels else "grouped conv"
        if channels < FEW_CHANNELS:
            return "conv of few channels"
        return "conv 1×1" if prod(_kernel(spec)) == 1 else "conv 3×3 or larger"
    if spec.kind is Kind.CONV_TRANSPOSE:
        return "transposed conv"
    if spec.kind is Kind.NORM:
        return "batch norm" if _is_batch_norm(spec) else "other norm"
    if spec.kind is Kind.ACTIVATION or (spec.kind is Kind.ELEMENTWISE and name in _ALL):
        if name in HARD_ACTIVATIONS:
            return "hard activation"
        return "exponential activation" if name in EXPONENTIAL_ACTIVATIONS else "simple activation"
    if spec.kind is Kind.AVG_POOL and spec.attrs.get("global"):
        return "global pool"
    return spec.kind.value.replace("_", " ")


FEW_CHANNELS = 8
"""A convolution of fewer input channels, such as those of an image, has a kernel of its own in most engines."""
ALIGNMENT = 4
"""Blocked kernels need input channels in multiples of this number; others run slower."""


def _work(spec: OpSpec, moved: int, weights: int, shape: Shape) -> dict[str, float]:
    """The amounts of work: multiply-accumulates on padded channels, elements moved, elements of weights, scalar
    operations, and one kernel."""
    work: dict[str, float] = {KERNELS: 1.0, "elements": float(moved)}
    if shape.cache_bytes is not None and 4 * moved > shape.cache_bytes:
        work[FAR] = moved - shape.cache_bytes / 4
    if spec.macs:
        macs, aligned = _padded_macs(spec, shape.block)
        work["macs" if aligned else "unaligned macs"] = macs
        work["weights"] = float(weights)
    elif spec.kind in POOLS:
        work["scalar operations"] = float(spec.elementwise)
    return work


def _fused_work(fused: list[OpSpec]) -> dict[str, float]:
    """The elements of activations that a convolution computes on its output; those of ReLU cost nothing."""
    work: dict[str, float] = {}
    for spec in fused:
        name = plain_name(spec)
        if name in _ALL and name != "relu":
            unit = FUSED_CHEAP if name in CHEAP_ACTIVATIONS else FUSED_OTHER
            work[unit] = work.get(unit, 0.0) + spec.writes[0].numel
    return work


def _padded_macs(spec: OpSpec, block: int) -> tuple[float, bool]:
    """The MACs with the channels of a convolution padded, and whether they are aligned for a blocked kernel."""
    macs = float(spec.macs or 0)
    if spec.kind not in CONVOLUTIONS or not spec.reads or not spec.writes or len(spec.writes[0].shape) < 2:
        return macs, True
    groups = int(spec.attrs.get("groups", 1))
    channels, out = _channels(spec), spec.writes[0].shape[1]
    if groups == 1:
        return macs * _padded(out, block) / out, channels < FEW_CHANNELS or channels % ALIGNMENT == 0
    if groups == channels == out:
        return macs * _padded(out, block) / out, channels % ALIGNMENT == 0
    return macs, (channels // groups) % max(block, ALIGNMENT) == 0


def _padded(channels: int, block: int) -> int:
    return -(-channels // block) * block


def _channels(spec: OpSpec) -> int:
    return spec.reads[0].shape[1] if spec.reads and len(spec.reads[0].shape) > 1 else 1


def _kernel(spec: OpSpec) -> tuple[int, ...]:
    return tuple(spec.attrs.get("kernel", ())) or (1,)


def _elements(spec: OpSpec) -> int:
    """Elements of activations that an operation reads and writes."""
    return sum(t.numel for t in spec.reads) + sum(t.numel for t in spec.writes)


def _bytes(lead: OpSpec, moved: int) -> int:
    """Bytes of the activations and weights of a kernel that moves so many elements of activations."""
    tensors = (*lead.reads, *lead.writes)
    elements = sum(t.numel for t in tensors) or 1
    return moved * sum(t.nbytes for t in tensors) // elements + sum(t.nbytes for t in lead.weights)


def _extra_elements(spec: OpSpec) -> int:
    """Elements that an operation reads in addition to the output of the operation into whose kernel it is fused."""
    return sum(t.numel for t in spec.reads) - max((t.numel for t in spec.reads), default=0)


def total_work(record: Record, parts: list[Kernel]) -> dict[str, float]:
    """The amounts of work of a network: `conv 1×1: macs` … over its kernels, and those of one run."""
    total = run_work(record)
    for kernel in parts:
        for name, amount in unit_names(kernel):
            total[name] = total.get(name, 0.0) + amount
    return total


def run_work(record: Record) -> dict[str, float]:
    """The work of calling the engine: one run, and the elements of the inputs and outputs, which are copied or
    allocated."""
    written = {s.id: s.spec.numel for s in record.storages}
    for op in record.ops:
        written |= {t.storage: t.numel for t in op.writes}
    outputs = sum(written.get(storage, 0) for storage in record.outputs)
    return {RUN: 1.0, RUN_ELEMENTS: float(sum(t.numel for t in record.inputs) + outputs)}


RUN = "run"
"""The unit of work that each forward pass has once."""
RUN_ELEMENTS = "run: elements"
KERNELS = "kernels"
FAR = "far elements"
REORDERED = "reordered elements"
FUSED_CHEAP = "elements of simple activations in convolutions"
FUSED_OTHER = "elements of other activations in convolutions"
SHARED = frozenset({KERNELS, FAR, REORDERED, FUSED_CHEAP, FUSED_OTHER})
"""Units of work that take the same time in every kind of kernel."""


def unit_names(kernel: Kernel) -> Iterator[tuple[str, float]]:
    """The amounts of work of a kernel by the name of their unit."""
    for name, amount in kernel.work.items():
        yield (name if name in SHARED else f"{kernel.kind}: {name}"), amount
