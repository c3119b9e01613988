"""Conventions of tools that see operations: dispatch modes, JIT traces, patched functions."""

from __future__ import annotations

from math import floor

from cspprof.core.formulas import broadcast
from cspprof.core.record import CONVOLUTIONS, Kind, OpSpec, TensorSpec
from cspprof.metrics.compute import SIXTEENTHS, bflops_darknet, darknet_prints, flops, macs
from cspprof.metrics.conventions import convention

convention("macs", tool="cspprof; torchvision's _ops in 10⁹", counts="MACs", per_mac=1)(macs)
convention("flops", tool="cspprof, two for each MAC", counts="FLOPs", per_mac=2)(flops)


@convention("darknet", tool="Darknet's loader", counts="BFLOPs", per_mac=2, scale=10**9, printed=darknet_prints)
def darknet(op: OpSpec) -> int | None:
    """The number `bflops_darknet`, to whole FLOPs: what Darknet's loader adds up for convolutions, max pooling, local
    average pooling and shortcuts."""
    sixteenths = bflops_darknet(op)
    return None if sixteenths is None else sixteenths // SIXTEENTHS


PRODUCTS = frozenset({"mm", "bmm", "matmul"})
"""Products of two operands; torch's mv, dot and outer are others, and no counter knows them."""


def name_of(op: OpSpec) -> str:
    """The operation without the in-place underscore: `relu` of `aten.relu_`; empty for what is not torch's own."""
    return op.name.rstrip("_") if op.target.startswith("aten.") else ""


def within(op: OpSpec) -> str:
    """The composite call that the operation is a part of: `einsum`; empty where it was called for itself."""
    return str(op.attrs.get("within", ("",))[0]).removeprefix("aten.")


def source(op: OpSpec) -> TensorSpec:
    """What the operation works on: its first activation, or what stands in that place."""
    return (*op.reads, *op.weights)[0]


def has_weight(op: OpSpec) -> bool:
    """Whether a normalisation scales by learned weights."""
    return op.attrs.get("weight", True) is not None and bool(op.weights)


def has_bias(op: OpSpec) -> bool:
    """Whether a convolution or linear layer adds a bias: its last weight is a vector beside the matrix or kernel."""
    return len(op.weights) > 1


def operands(op: OpSpec) -> tuple[TensorSpec, TensorSpec] | None:
    """Left and right of a product. A record keeps activations and weights apart, so the order of one of each is
    found again by the shapes; None where both orders fit and differ."""
    tensors = (*op.reads, *op.weights)
    if len(tensors) != 2:
        return None
    if len(op.reads) != 1 or tensors[0] == tensors[1]:
        return tensors[0], tensors[1]
    fitting = [(a, b) for a, b in (tensors, tensors[::-1]) if _fits(a.shape, b.shape, op.writes[0].shape)]
    return fitting[0] if len(fitting) == 1 else None


def _fits(left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...]) -> bool:
    """Whether left @ right has the shape `out`; a vector is a matrix of one row or column that is dropped again."""
    rows, columns = left[-2:-1], right[-1:] if len(right) > 1 else ()
    if left[-1] != (right[-2] if len(right) > 1 else right[0]):
        return False
    try:
        return out == (*broadcast(left[:-2], right[:-2]), *rows, *columns)
    except ValueError:
        return False


def seen_as_matrices(op: OpSpec) -> int | None:
    """MACs of a product by a counter of matrix products: one with a vector on the right is none of those."""
    pair = operands(op)
    if pair is None:
        return None
    return op.macs if len(pair[1].shape) > 1 else 0


# -- torch's own counter --------------------------------------------------------------------------


@convention(
    "flop_counter",
    tool="torch.utils.flop_counter.FlopCounterMode",
    counts="flops",
    per_mac=2,
    holds="on the meta device, where attention and recurrent layers are taken apart into products that it sees",
)
def flop_counter(op: OpSpec) -> int | None:
    """2·MACs of convolutions, linear layers, products of matrices and attention. Products with a vector on the
    right, bilinear and deformable layers count as nothing."""
    if op.kind in (Kind.RECURRENT, Kind.ATTENTION):
        return 2 * (op.macs or 0)
    if op.kind is Kind.CUSTOM:
        return int(op.attrs["flops"]) if "flops" in op.attrs else 0
    if op.kind in CONVOLUTIONS:
        return 2 * (op.macs or 0) if op.target.startswith("aten.") else 0
    name = name_of(op)
    if name in ("linear", "addmm", "baddbmm"):
        return 2 * (op.macs or 0)
    if name in PRODUCTS:
        seen = seen_as_matrices(op)
        return None if seen is None else 2 * seen
    return 0


# -- fvcore ---------------------------------------------------------------------------------------


@convention(
    "fvcore",
    tool="fvcore.nn.FlopCountAnalysis",
    counts="flops",
    per_mac=1,
    holds="for what torch.jit.trace follows; a handle that the user sets is not known here",
)
def fvcore(op: OpSpec) -> int | None:
    """MACs of convolutions, linear layers and products, and besides: batch norm 2 for each element (1 without
    weights, 5 in training), other norms 5 (4), adaptive average pooling 1 for each input element, nearest and
    bilinear resizing 1 and 4 for each output element. Attention, recurrent, bilinear and deformable layers
    and baddbmm count as nothing; an einsum is rounded to four digits."""
    part_of = within(op)
    if part_of == "einsum":
        return _einsum(op)
    if part_of:  # it sees the whole call, and knows no other composite
        return 0
    name = name_of(op)
    if op.kind in CONVOLUTIONS and name:
        return 0 if isinstance(op.attrs.get("padding"), str) else op.macs
    if name in ("linear", "addmm"):
        return op.macs
    if name in PRODUCTS:
        pair = operands(op)
        if pair is None or len(pair[1].shape) < 2:  # it raises an error for a @ vector
            return None
        return pair[0].numel * pair[1].shape[-1]
    if name == "batch_norm":
        affine = has_weight(op)
        return source(op).numel * ((5 if affine else 4) if op.attrs.get("training") else 2 if affine else 1)
    if name in ("layer_norm", "group_norm", "instance_norm"):
        return source(op).numel * (5 if has_weight(op) else 4)
    if name == "adaptive_avg_pool2d":
        return source(op).numel
    if name in ("upsample_nearest2d", "upsample_bilinear2d", "grid_sampler"):
        return op.writes[0].numel * (1 if name == "upsample_nearest2d" else 4)
    return 0


EXACT_EINSUMS = frozenset({"abc,abd->acd", "abc,adc->adb"})


def _einsum_size(op: OpSpec) -> int:
    """The product of all index lengths of a call of one or two operands, from the operation that it becomes."""
    alone = "," not in str(op.attrs["within"][1])
    return op.macs or {"mul": op.writes[0].numel, "sum": source(op).numel if alone else 0}.get(name_of(op), 0)


def _einsum(op: OpSpec) -> int:
    """Half of what NumPy's planner prints for the call, which is one too many and has four digits; two equations are
    exact. For one or two operands: of more, NumPy may multiply others first."""
    size = _einsum_size(op)
    if op.macs and _lettered(str(op.attrs["within"][1])) in EXACT_EINSUMS:
        return size
    planned = size if name_of(op) == "mul" else 2 * size
    return floor(float(f"{planned + 1:.3e}") / 2) if planned else 0


def _lettered(equation: str) -> str:
    """The equation with its letters renamed a, b, c … in the order in which they appear."""
    letters = dict.fromkeys(c for c in equation if c.isalpha())
    return equation.replace(" ", "").translate({ord(c): ord("a") + i for i, c in enumerate(letters)})


# -- torchprofile ---------------------------------------------------------------------------------


@convention(
    "torchprofile",
    tool="torchprofile.profile_macs",
    counts="MACs",
    per_mac=1,
    holds="but for products of Python numbers in the forward, which it counts as 1 each, and for plain mm, left out",
)
def torchprofile(op: OpSpec) -> int | None:
    """MACs of convolutions, linear layers, products and attention, and besides: 1 for each element that a
    normalisation with weights, a multiplication, average pooling, a mean or a leaky ReLU writes, 4 for bilinear
    resizing. A transposed convolution counts c_in for every output element. GRU and plain recurrent layers count as
    nothing."""
    name = name_of(op)
    if part_of := within(op):
        return _einsum_size(op) if part_of == "einsum" else 0
    if op.kind is Kind.CONV_TRANSPOSE:
        weight = op.weights[0].shape
        c_in = weight[1] if weight[0] == op.writes[0].shape[1] else weight[0]
        return op.writes[0].numel * c_in * TensorSpec(weight[2:]).numel
    if name in ("linear", "addmm", "addmv", "bmm", "baddbmm", "matmul", "lstm") or op.kind is Kind.ATTENTION:
        return op.macs
    if op.kind is Kind.CONV and name:
        return 0 if isinstance(op.attrs.get("padding"), str) else op.macs
    if name in ("batch_norm", "instance_norm", "layer_norm", "group_norm"):
        return op.writes[0].numel if has_weight(op) else 0
    if name in ("mul", "mean", "leaky_relu") or (op.kind is Kind.AVG_POOL and name):
        return op.writes[0].numel
    if name in ("upsample_bilinear2d", "grid_sampler"):
        mode = op.attrs.get("interpolation_mode", 0) if name == "grid_sampler" else 0
        return op.writes[0].numel * {0: 4, 1: 0, 2: 16}[mode]
    return 0


# -- ptflops, the other back end --------------------------------------------------------------------


@convention(
    "ptflops_aten",
    tool="ptflops, backend='aten'",
    counts="MACs",
    per_mac=1,
    holds="without recurrent layers, which CPU kernels may hide from it",
)
def ptflops_aten(op: OpSpec) -> int | None:
    """MACs of convolutions, linear layers and products, and 1 for each element that a bias is added to. Attention
    on the CPU, baddbmm and products with a vector on the right count as nothing."""
    name = name_of(op)
    if op.kind is Kind.RECURRENT:
        return None
    if (op.kind in CONVOLUTIONS and name) or name in ("linear", "addmm"):
        return (op.macs or 0) + (op.writes[0].numel if has_bias(op) or name == "addmm" else 0)
    if name in PRODUCTS:
        return seen_as_matrices(op)
    return 0


# -- calflops -------------------------------------------------------------------------------------


@convention(
    "calflops",
    tool="calflops.calculate_flops, its MACs",
    counts="MACs",
    per_mac=1,
    holds="for products written torch.matmul; it does not see a @ b, which a record cannot tell from that",
)
def calflops(op: OpSpec) -> int | None:
    """MACs of convolutions, linear layers and torch.matmul. Attention, bmm, einsum and recurrent layers count as
    nothing."""
    name = name_of(op)
    if op.kind is Kind.CONV_TRANSPOSE:  # its rule divides by the groups twice
        return (op.macs or 0) // int(op.attrs.get("groups", 1))
    return op.macs if (op.kind is Kind.CONV and name) or name in ("linear", "matmul", "addmm") else 0
