"""Arithmetic: MACs, FLOPs, three published ways to count BFLOPs, and how MACs spread over the layers."""

from __future__ import annotations

from collections import defaultdict
from struct import pack, unpack

from cspprof.core.record import CONVOLUTIONS, POOLS, Kind, OpSpec, Record
from cspprof.metrics.amounts import Peak, Ratio
from cspprof.metrics.definition import METRICS, metric, value_of
from cspprof.metrics.unknown_ops import may_be_convolution

SIXTEENTHS = 16
"""Darknet divides the 2·MACs of a binary convolution by 32. In sixteenths of a FLOP its total is an integer."""


@metric(
    "macs",
    unit="MACs",
    title="MACs",
    is_not="FLOPs (twice as many), or time: a depthwise convolution has few MACs and can be slow",
    paper="conv: k_h·k_w·(c_in/groups)·c_out·h_out·w_out",
)
def macs(op: OpSpec) -> int | None:
    """Multiply-accumulates of convolutions, linear layers, matrix products, attention and recurrent layers.
    Biases, normalization, activations and pooling are not included. An operation without a rule is reported; it does
    not count as zero. A formula registered with torch gives FLOPs: the MACs of such an operation are half of that,
    rounded up."""
    return op.macs


@metric("flops", unit="FLOPs", title="FLOPs", is_not="MACs, which many tools print under this name")
def flops(op: OpSpec) -> int | None:
    """2·MACs: two floating-point operations for each multiply-accumulate. Other operations are not included. An
    operation with a formula registered with torch counts exactly what the formula gives, an odd number too."""
    if op.macs is None:
        return None
    return int(op.attrs["flops"]) if op.kind is Kind.CUSTOM and "flops" in op.attrs else 2 * op.macs


@metric(
    "bflops",
    unit="BFLOPs",
    title="BFLOPs",
    is_not="the number that Darknet prints (bflops_darknet)",
    scale=10**9,
)
def bflops(op: OpSpec) -> int | None:
    """FLOPs divided by 10⁹."""
    return flops(op)


@metric(
    "bflops_cspnet",
    unit="BFLOPs",
    title="BFLOPs (CSPNet)",
    is_not="bflops: it is the rule behind the tables of the CSPNet and PRN papers",
    paper="Wang et al. 2019, tables 1 to 4",
    scale=10**9,
)
def bflops_cspnet(op: OpSpec) -> int | None:
    """2·MACs, plus size²·c·h_out·w_out of max pooling and local average pooling (one layer in Darknet), divided by
    10⁹. Shortcuts and global average pooling do not count."""
    products = flops(op)
    return None if products is None else products + (op.elementwise if is_local_pool(op) else 0)


def is_local_pool(op: OpSpec) -> bool:
    """Whether the operation pools windows of a feature map, not the whole map."""
    return op.kind in POOLS and (op.kind is Kind.MAX_POOL or not op.attrs.get("global"))


def darknet_printed_bflops(record: Record) -> float | None:
    """BFLOPs of a Darknet cfg and one image as Darknet prints them: added layer by layer in single precision, which
    can change the third decimal. None for any other model."""
    if not record.source.endswith(".cfg") or record.inputs[0].shape[0] != 1:
        return None
    layers: dict[str, int] = defaultdict(int)
    for spec, layer in zip(record.calls.spec, record.calls.layer, strict=True):
        layers[record.layers[layer].path.partition(".")[0]] += bflops_darknet(record.specs[spec]) or 0
    total = 0.0
    for sixteenths in layers.values():
        total = _single(total + _single(sixteenths / (SIXTEENTHS * 10**9)))
    return total


def _single(x: float) -> float:
    """`x` rounded to single precision."""
    return float(unpack("f", pack("f", x))[0])


@metric(
    "bflops_darknet",
    unit="BFLOPs",
    title="BFLOPs (Darknet)",
    is_not="the arithmetic of the whole network: fully connected layers count as zero",
    paper="the loader of AlexeyAB's Darknet",
    scale=SIXTEENTHS * 10**9,
    printed=darknet_printed_bflops,
)
def bflops_darknet(op: OpSpec) -> int | None:
    """The sum of Darknet's loader, divided by 10⁹: 2·MACs of convolutions (1/32 of that for xnor=1, zero for the blur
    of antialiasing), size²·c·h_out·w_out of max pooling and local average pooling, and c·h·w of an addition of two
    feature maps (a shortcut; twice that if the added map has a weight). Linear layers and global average pooling count
    as zero. Tables show the total of a cfg as Darknet prints it, summed in single precision; JSON has the exact
    sum."""
    if op.macs is None or may_be_convolution(op):
        return None
    if op.kind in CONVOLUTIONS:
        if op.attrs.get("blur"):
            return 0
        return op.macs if op.attrs.get("xnor") else SIXTEENTHS * 2 * op.macs
    if is_local_pool(op):
        return SIXTEENTHS * op.elementwise
    return SIXTEENTHS * shortcut_flops(op)


def shortcut_flops(op: OpSpec) -> int:
    """One for each element of a feature map to which another is added; two if the other map is scaled first."""
    if op.kind is not Kind.ELEMENTWISE or (name := op.name.rstrip("_").lower()) not in ("add", "addcmul"):
        return 0
    out = op.writes[0]
    if len(out.shape) != 4 or [t.shape for t in op.reads].count(out.shape) < 2:
        return 0
    return out.numel * (2 if name == "addcmul" else 1)


@metric(
    "activations",
    unit="elements",
    title="conv output",
    is_not="CIO, which includes inputs, or memory",
    paper="Radosavovic et al. 2020, section 2: activations; timm's macts column",
)
def activations(op: OpSpec) -> int | None:
    """Output elements of all convolutions."""
    if may_be_convolution(op):
        return None
    return op.writes[0].numel if op.kind in CONVOLUTIONS else 0


@metric("bottleneck_macs", unit="MACs", title="largest layer", is_not="the slowest layer", zero=Peak(0))
def bottleneck_macs(op: OpSpec) -> int | None:
    """MACs of the operation with the most MACs: the peak in Fig. 7 of Wang et al. 2019."""
    return op.macs


@metric(
    "bottleneck_share", unit="fraction", title="its share", is_not="a share of the time", of="profile", zero=Ratio(0, 0)
)
def bottleneck_share(record: Record) -> Ratio:
    """MACs of the operation with the most MACs, divided by the MACs of the model."""
    total = METRICS.get("macs").total(record)
    return Ratio(int(value_of(record, "bottleneck_macs")), int(total.value or 0), total.missed)


@metric("balance", unit="fraction", title="balance", is_not="hardware utilization", of="profile", zero=Ratio(0, 0))
def balance(record: Record) -> Ratio:
    """Mean MACs of the operations that have MACs, divided by the maximum: 1 if all layers are equal, near 0 if one
    layer dominates."""
    layers = sum(n for spec, n in record.spec_counts if spec.macs)
    total = METRICS.get("macs").total(record)
    return Ratio(int(total.value or 0), layers * int(value_of(record, "bottleneck_macs")), total.missed)
