"""Conventions of tools that see operations, by dispatch modes, JIT traces or patched functions."""

from __future__ import annotations

from math import floor

from cspprof.core.formulas import broadcast
from cspprof.core.record import CONVOLUTIONS, Kind, OpSpec, TensorSpec
from cspprof.metrics.compute import SIXTEENTHS, bflops_darknet, darknet_printed_bflops, flops, macs
from cspprof.metrics.conventions import convention

convention("macs", tool="cspprof; torchvision's _ops, in units of 10⁹", counts="MACs", per_mac=1)(macs)
convention("flops", tool="cspprof, two for each MAC", counts="FLOPs", per_mac=2)(flops)


@convention("darknet", tool="Darknet's loader", counts="BFLOPs", per_mac=2, scale=10**9, printed=darknet_printed_bflops)
def darknet(op: OpSpec) -> int | None:
    """`bflops_darknet` in whole FLOPs: the sum of Darknet's loader over convolutions, max pooling, local average
    pooling and shortcuts."""
    sixteenths = bflops_darknet(op)
    return None if sixteenths is None else sixteenths // SIXTEENTHS


PRODUCTS = frozenset({"mm", "bmm", "matmul"})
"""Products of two operands that the tools count. No tool counts mv, dot and outer."""


def aten_name(op: OpSpec) -> str:
    """The name of an ATen operation without the in-place underscore: `relu` of `aten.relu_`; empty for others. A
    product in place keeps it: `addmm_`, which no tool counts."""
    if not op.target.startswith("aten."):
        return ""
    return op.name if op.kind is Kind.MATMUL else op.name.rstrip("_")


def composite(op: OpSpec) -> str:
    """The composite operation that this one is a part of: `einsum`; empty if there is none."""
    return str(op.attrs.get("within", ("",))[0]).removeprefix("aten.")


def first_tensor(op: OpSpec) -> TensorSpec:
    """The first activation, or the first weight of an operation without activations."""
    return (*op.reads, *op.weights)[0]


def has_weight(op: OpSpec) -> bool:
    """Whether a normalization scales by weights."""
    return op.attrs.get("weight", True) is not None and bool(op.weights)


def has_bias(op: OpSpec) -> bool:
    """Whether a convolution or linear layer adds a bias, which is then its second weight."""
    return len(op.weights) > 1


def operands(op: OpSpec) -> tuple[TensorSpec, TensorSpec] | None:
    """The left and right operand of a product. A record separates activations from weights, so their order follows
    from the shapes; None if both orders fit and differ."""
    tensors = (*op.reads, *op.weights)
    if len(tensors) != 2:
        return None
    if len(op.reads) != 1 or tensors[0] == tensors[1]:
        return tensors[0], tensors[1]
    fitting = [(a, b) for a, b in (tensors, tensors[::-1]) if _fits(a.shape, b.shape, op.writes[0].shape)]
    return fitting[0] if len(fitting) == 1 else None


def _fits(left: tuple[int, ...], right: tuple[int, ...], out: tuple[int, ...]) -> bool:
    """Whether left @ right has the shape `out`. A vector acts as a matrix of one row or column."""
    rows, columns = left[-2:-1], right[-1:] if len(right) > 1 else ()
    if left[-1] != (right[-2] if len(right) > 1 else right[0]):
        return False
    try:
        return out == (*broadcast(left[:-2], right[:-2]), *rows, *columns)
    except ValueError:
        return False


def matrix_product_macs(op: OpSpec) -> int | None:
    """MACs of a matrix product; 0 if the right operand is a vector, which the tools do not count. None if unknown."""
    pair = operands(op)
    if pair is None:
        return None
    return op.macs if len(pair[1].shape) > 1 else 0


PACKED_ATTENTION = frozenset({"_varlen_attn", "_varlen_attn_out", "_flash_attention_forward",
                              "_efficient_attention_forward"})  # fmt: skip

# -- torch's own counter --------------------------------------------------------------------------


@convention(
    "flop_counter",
    tool="torch.utils.flop_counter.FlopCounterMode",
    version="torch 2.14.1",
    counts="flops",
    per_mac=2,
    validity="on the meta device, where torch decomposes attention and recurrent layers into products that it counts",
)
def flop_counter(op: OpSpec) -> int | None:
    """2·MACs of convolutions, linear layers, matrix products and attention. Products with a vector on the right,
    bilinear layers and deformable convolutions count as zero."""
    if op.kind in (Kind.RECURRENT, Kind.ATTENTION):
        return 2 * (op.macs or 0)
    if op.macs is None and op.name in PACKED_ATTENTION:  # torch takes every sequence as long as the longest
        return None
    if op.kind is Kind.CUSTOM:
        return int(op.attrs["flops"]) if "flops" in op.attrs else 0
    if op.kind in CONVOLUTIONS:
        return 2 * (op.macs or 0) if op.target.startswith("aten.") else 0
    name = aten_name(op)
    if name in ("linear", "addmm", "baddbmm"):
        return 2 * (op.macs or 0)
    if name in PRODUCTS:
        macs = matrix_product_macs(op)
        return None if macs is None else 2 * macs
    return 0


# -- fvcore ---------------------------------------------------------------------------------------


@convention(
    "fvcore",
    tool="fvcore.nn.FlopCountAnalysis",
    version="0.1.5.post20221221",
    counts="flops",
    per_mac=1,
    validity="for models that torch.jit.trace can trace, with fvcore's default handles",
)
def fvcore(op: OpSpec) -> int | None:
    """MACs of convolutions, linear layers and products. Also 2 for each element of a batch norm (1 without weights, 5
    in training), 5 for each element of another norm (4 without weights), 1 for each input element of adaptive average
    pooling, and 1 or 4 for each output element of nearest or bilinear resizing. Attention, recurrent layers, bilinear
    layers, deformable convolutions and baddbmm count as zero. An einsum is rounded to four digits."""
    part_of = composite(op)
    if part_of == "einsum":
        return _einsum(op)
    if part_of:  # fvcore sees the composite itself, and has no rule for others
        return 0
    name = aten_name(op)
    if op.kind in CONVOLUTIONS and name:
        return 0 if isinstance(op.attrs.get("padding"), str) else op.macs
    if name in ("linear", "addmm"):
        return op.macs
    if name in PRODUCTS:
        pair = operands(op)
        if pair is None or len(pair[1].shape) < 2:  # fvcore raises an error if the right operand is a vector
            return None
        return pair[0].numel * pair[1].shape[-1]
    if name == "batch_norm":
        affine = has_weight(op)
        return first_tensor(op).numel * ((5 if affine else 4) if op.attrs.get("training") else 2 if affine else 1)
    if name in ("layer_norm", "group_norm", "instance_norm"):
        return first_tensor(op).numel * (5 if has_weight(op) else 4)
    if name == "adaptive_avg_pool2d":
        return first_tensor(op).numel
    if name in ("upsample_nearest2d", "upsample_bilinear2d", "grid_sampler"):
        return op.writes[0].numel * (1 if name == "upsample_nearest2d" else 4)
    return 0


EXACT_EINSUMS = frozenset({"abc,abd->acd", "abc,adc->adb"})


def _einsum_size(op: OpSpec) -> int:
    """The product of all index lengths of an einsum with one or two operands, from the operation that torch runs."""
    one_operand = "," not in str(op.attrs["within"][1])
    summed = first_tensor(op).numel if one_operand else 0
    return op.macs or {"mul": op.writes[0].numel, "sum": summed}.get(aten_name(op), 0)


def _einsum(op: OpSpec) -> int:
    """Half of the cost that NumPy's planner prints, which is one too large and has four digits; exact for two
    equations. Only for one or two operands: with more, NumPy may multiply them in another order."""
    size = _einsum_size(op)
    if op.macs and _canonical(str(op.attrs["within"][1])) in EXACT_EINSUMS:
        return size
    planned = size if aten_name(op) == "mul" else 2 * size
    return floor(float(f"{planned + 1:.3e}") / 2) if planned else 0


def _canonical(equation: str) -> str:
    """The equation with its letters renamed to a, b, c … in order of appearance."""
    letters = dict.fromkeys(c for c in equation if c.isalpha())
    return equation.replace(" ", "").translate({ord(c): ord("a") + i for i, c in enumerate(letters)})


# -- torchprofile ---------------------------------------------------------------------------------


@convention(
    "torchprofile",
    tool="torchprofile.profile_macs",
    version="0.1.0",
    counts="MACs",
    per_mac=1,
    validity="for models without torch.mm and without products of Python numbers in the forward, which it counts as 1 "
    "each",
)
def torchprofile(op: OpSpec) -> int | None:
    """MACs of convolutions, linear layers, products and attention. Also 1 for each output element of a normalization
    with weights, a multiplication, average pooling, a mean or a leaky ReLU that is not in place, and 4 for each output
    element of bilinear resizing. A transposed convolution counts c_in·k_h·k_w for each output element. GRU and plain
    recurrent layers count as zero, as do operations in place other than a multiplication."""
    name = op.name if op.target.startswith("aten.") else ""
    if part_of := composite(op):
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
    if name in ("mul", "mul_", "mean", "leaky_relu") or (op.kind is Kind.AVG_POOL and name):
        return op.writes[0].numel
    if name in ("upsample_bilinear2d", "grid_sampler"):
        mode = op.attrs.get("interpolation_mode", 0) if name == "grid_sampler" else 0
        return op.writes[0].numel * {0: 4, 1: 0, 2: 16}[mode]
    return 0


# -- ptflops with its aten backend --------------------------------------------------------------------


@convention(
    "ptflops_aten",
    tool="ptflops, backend='aten'",
    version="0.7.5",
    counts="MACs",
    per_mac=1,
    validity="without recurrent layers, whose CPU kernels it may not see",
)
def ptflops_aten(op: OpSpec) -> int | None:
    """MACs of convolutions, linear layers and products, and 1 for each element to which a bias is added. Attention on
    the CPU, baddbmm and products with a vector on the right count as zero."""
    name = aten_name(op)
    if op.kind is Kind.RECURRENT:
        return None
    if (op.kind in CONVOLUTIONS and name) or name in ("linear", "addmm"):
        return (op.macs or 0) + (op.writes[0].numel if has_bias(op) or name == "addmm" else 0)
    if name in PRODUCTS:
        return matrix_product_macs(op)
    return 0


# -- calflops -------------------------------------------------------------------------------------


@convention(
    "calflops",
    tool="calflops.calculate_flops, its MACs",
    version="0.3.2",
    counts="MACs",
    per_mac=1,
    validity="for products written as torch.matmul(a, b). It does not see a @ b, the same operation in a record",
)
def calflops(op: OpSpec) -> int | None:
    """MACs of convolutions, linear layers and torch.matmul. Attention, bmm, einsum and recurrent layers count as
    zero."""
    name = aten_name(op)
    if op.kind is Kind.CONV_TRANSPOSE:  # calflops divides the output channels by the groups twice
        channels = (*op.weights, *op.reads[1:])[0].shape[1]  # of each group
        return (op.macs or 0) // channels * (channels // int(op.attrs.get("groups", 1)))
    return op.macs if (op.kind is Kind.CONV and name) or name in ("linear", "matmul", "addmm") else 0
