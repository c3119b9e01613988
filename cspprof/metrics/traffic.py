"""Memory traffic: CIO by two rules, MoC, and the bytes of all operations without fusion."""

from __future__ import annotations

from cspprof.core.record import CONVOLUTIONS, POOLS, Kind, OpSpec
from cspprof.metrics.amounts import Ratio
from cspprof.metrics.definition import metric


@metric(
    "cio_hardnet",
    unit="elements",
    title="CIO (HarDNet)",
    is_not="measured DRAM traffic (no cache, no fusion, no weights), or a number of bytes (cio_bytes)",
    paper="Chao et al. 2019, section 3: Σ (c_in·w_in·h_in + c_out·w_out·h_out); quoted at 224×224",
)
def cio_hardnet(op: OpSpec) -> int:
    """Convolutional input/output: input plus output elements of every convolution, including 1×1 projections and
    depthwise convolutions. A concatenated input counts in full at every read. Linear layers do not count."""
    return _input_output(op) if op.kind in CONVOLUTIONS else 0


@metric(
    "cio_cspnet",
    unit="elements",
    title="CIO (CSPNet)",
    is_not="measured DRAM traffic, or the rule of the HarDNet paper, which excludes pooling",
    paper="the rule that reproduces both numbers of Wang et al. 2019, Fig. 8; quoted at 256×256",
)
def cio_cspnet(op: OpSpec) -> int:
    """Input plus output elements of every convolution and of every pooling layer (max, average, global average).
    Concatenation, shortcuts, softmax, normalization and activations do not count."""
    return _input_output(op) if op.kind in CONVOLUTIONS or op.kind in POOLS else 0


@metric(
    "cio_bytes",
    unit="bytes",
    title="CIO bytes",
    is_not="traffic_bytes, which counts every operation",
)
def cio_bytes(op: OpSpec) -> int:
    """CIO by the rule of HarDNet, in bytes: each element has the size of its dtype."""
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
    if op.kind not in CONVOLUTIONS or op.macs is None:
        return None
    return Ratio(op.macs, _input_output(op))


@metric(
    "traffic_bytes",
    unit="bytes",
    title="traffic",
    is_not="the traffic of an engine that fuses or caches: it is the upper bound without any reuse",
)
def traffic_bytes(op: OpSpec) -> int:
    """Bytes that the operations read (activations and weights) and write, if they run one by one without fusion. An
    in-place operation reads and writes. Views and allocations without initialization count as zero."""
    if op.kind is Kind.VIEW or (op.kind is Kind.DATA and op.name.removeprefix("new_").startswith("empty")):
        return 0
    return sum([tensor.nbytes for tensor in op.reads + op.weights + op.writes])


def _input_output(op: OpSpec) -> int:
    return op.reads[0].numel + op.writes[0].numel
