"""Memory traffic: CIO by two rules, MoC, and the unfused bytes of everything."""

from __future__ import annotations

from operator import attrgetter

from cspprof.core.record import CONVOLUTIONS, POOLS, Kind, OpSpec
from cspprof.metrics import Ratio, metric

NBYTES = attrgetter("nbytes")
STILL = frozenset({Kind.VIEW, Kind.DATA})
"""Kinds of operations of which some move nothing."""


@metric(
    "cio_hardnet",
    unit="elements",
    title="CIO (HarDNet)",
    is_not="measured DRAM traffic: no cache, no fusion, no weights; nor bytes (cio_bytes)",
    paper="Chao et al. 2019, section 3: Σ (c_in·w_in·h_in + c_out·w_out·h_out); quoted at 224×224",
)
def cio_hardnet(op: OpSpec) -> int:
    """Convolutional input/output: input plus output elements of every convolution, 1×1 projections and depthwise
    included. A concatenated input counts in full every time it is read. Linear layers never count."""
    return _input_output(op) if op.kind in CONVOLUTIONS else 0


@metric(
    "cio_cspnet",
    unit="elements",
    title="CIO (CSPNet)",
    is_not="measured DRAM traffic; nor the HarDNet paper's own rule, which leaves pooling out",
    paper="the rule that gives both numbers of Wang et al. 2019, Fig. 8; quoted at 256×256",
)
def cio_cspnet(op: OpSpec) -> int:
    """Input plus output elements of every convolution and of every pooling layer (max, average, global average).
    Concatenation, shortcuts, softmax, normalisation and activation do not count."""
    return _input_output(op) if op.kind in CONVOLUTIONS or op.kind in POOLS else 0


@metric(
    "cio_bytes",
    unit="bytes",
    title="CIO bytes",
    is_not="traffic_bytes, where every operation counts",
)
def cio_bytes(op: OpSpec) -> int:
    """CIO by HarDNet's rule, each element at the size of its dtype."""
    return op.reads[0].nbytes + op.writes[0].nbytes if op.kind in CONVOLUTIONS else 0


@metric(
    "moc",
    unit="MACs/element",
    title="MoC",
    is_not="arithmetic intensity in FLOPs per byte; nor the mean of the layers' ratios",
    paper="Chao et al. 2019, section 3: MACs over CIO",
    zero=Ratio(0, 0),
)
def moc(op: OpSpec) -> Ratio | None:
    """MACs of convolutions divided by their CIO (HarDNet's rule); both are summed before they are divided. A low
    value means a layer bound by memory."""
    if op.kind not in CONVOLUTIONS or op.macs is None:
        return None
    return Ratio(op.macs, _input_output(op))


@metric(
    "traffic_bytes",
    unit="bytes",
    title="traffic",
    is_not="what a fusing or caching engine moves: it is the upper bound of no reuse at all",
)
def traffic_bytes(op: OpSpec) -> int:
    """Bytes that every operation reads (activations and weights) and writes, run one by one without fusion. Views
    and memory that is only set aside are free; an in-place operation reads and writes."""
    if op.kind in STILL and (op.kind is Kind.VIEW or op.name.removeprefix("new_").startswith("empty")):
        return 0
    return sum(map(NBYTES, op.reads + op.weights + op.writes))


def _input_output(op: OpSpec) -> int:
    return op.reads[0].numel + op.writes[0].numel
