"""Memory traffic: CIO by two rules and of all computing operations, MoC, and the bytes of all operations."""

from __future__ import annotations

from cspprof.core.record import COMPUTE, CONVOLUTIONS, POOLS, Kind, OpSpec
from cspprof.metrics.amounts import Ratio
from cspprof.metrics.definition import metric
from cspprof.metrics.unknown_ops import may_be_convolution, may_be_pool


@metric(
    "cio_hardnet",
    unit="elements",
    title="CIO (HarDNet)",
    is_not="measured DRAM traffic (no cache, no fusion, no weights), or a number of bytes (cio_bytes)",
    paper="Chao et al. 2019, section 3: Σ (c_in·w_in·h_in + c_out·w_out·h_out); quoted at 224×224",
)
def cio_hardnet(op: OpSpec) -> int | None:
    """Convolutional input/output: input plus output elements of every convolution, including 1×1 projections and
    depthwise convolutions. A concatenated input counts in full at every read. Linear layers do not count."""
    if may_be_convolution(op):
        return None
    return _input_output(op) if op.kind in CONVOLUTIONS else 0


@metric(
    "cio_cspnet",
    unit="elements",
    title="CIO (CSPNet)",
    is_not="measured DRAM traffic, or the rule of the HarDNet paper, which excludes pooling",
    paper="the rule that reproduces both numbers of Wang et al. 2019, Fig. 8; quoted at 256×256",
)
def cio_cspnet(op: OpSpec) -> int | None:
    """Input plus output elements of every convolution and of every pooling layer (max, average, global average).
    Concatenation, shortcuts, softmax, normalization and activations do not count."""
    if may_be_convolution(op) or may_be_pool(op):
        return None
    return _input_output(op) if op.kind in CONVOLUTIONS or op.kind in POOLS else 0


@metric(
    "cio_bytes",
    unit="bytes",
    title="CIO bytes",
    is_not="traffic_bytes, which counts every operation",
)
def cio_bytes(op: OpSpec) -> int | None:
    """CIO by the rule of HarDNet, in bytes: each element has the size of its dtype."""
    if may_be_convolution(op):
        return None
    return op.reads[0].nbytes + op.writes[0].nbytes if op.kind in CONVOLUTIONS else 0


@metric(
    "moc",
    unit="MACs/element",
    title="MoC",
    is_not="arithmetic intensity in FLOPs per byte, or the mean of the ratios of the layers",
    paper="Chao et al. 2019, section 3: MACs over CIO",
    zero=Ratio(0, 0),
)
def moc(op: OpSpec) -> Ratio | None:
    """MACs of convolutions divided by their CIO (rule of HarDNet); both are summed before the division. A low value
    means that memory traffic bounds the layer."""
    if op.kind in CONVOLUTIONS:
        return None if op.macs is None else Ratio(op.macs, _input_output(op))
    return None if may_be_convolution(op) else Ratio(0, 0)


@metric(
    "cio_all",
    unit="elements",
    title="CIO (all)",
    is_not="HarDNet's CIO, which counts convolutions only (cio_hardnet), or traffic_bytes, which counts weights and "
    "all operations",
    paper="this project: the rule of Chao et al. 2019, section 3, for every operation that computes",
)
def cio_all(op: OpSpec) -> int | None:
    """Input plus output elements of every operation that has MACs: convolutions, linear layers, matrix products,
    attention and recurrent layers. Weights do not count. All activations that the operation reads count: both
    operands of a matrix product, and query, key, value and a computed mask of a fused attention, whose scores stay
    inside. Attention that is written as two products also writes and reads its scores. Equal to cio_hardnet if all
    operations with MACs are convolutions of one input."""
    if op.macs is None and op.kind not in COMPUTE:
        return None
    return 0 if op.macs == 0 else sum([tensor.numel for tensor in op.reads + op.writes])


@metric(
    "conv_share",
    unit="fraction",
    title="MACs that CIO sees",
    is_not="a share of the time or of the traffic",
    zero=Ratio(0, 0),
)
def conv_share(op: OpSpec) -> Ratio | None:
    """MACs of convolutions divided by the MACs of the model: the part of the network that CIO describes. CIO says
    little about a network whose share is under one half; read traffic_bytes or cio_all instead."""
    if op.macs is None or may_be_convolution(op):
        return None
    return Ratio(op.macs if op.kind in CONVOLUTIONS else 0, op.macs)


@metric(
    "traffic_bytes",
    unit="bytes",
    title="traffic",
    is_not="the traffic of an engine that fuses or caches: it is the upper bound without any reuse",
)
def traffic_bytes(op: OpSpec) -> int:
    """Bytes that the operations read (activations and weights) and write, if they run one by one without fusion. An
    in-place operation reads and writes. A lookup (embedding, gather, advanced indexing) reads the elements that it
    looks up, at most the whole table. A scatter in place writes the elements at its indices, and reads them only if it
    adds to them. Views and allocations without initialization count as zero."""
    if op.kind is Kind.VIEW or (op.kind is Kind.DATA and op.name.removeprefix("new_").startswith("empty")):
        return 0
    total = sum([tensor.nbytes for tensor in op.reads + op.weights + op.writes])
    if (table := op.attrs.get("table_bytes")) is not None:
        total += op.attrs["bytes_read"] - table
        total += op.attrs["bytes_written"] - table if "bytes_written" in op.attrs else 0
    return total


def _input_output(op: OpSpec) -> int:
    return op.reads[0].numel + op.writes[0].numel
