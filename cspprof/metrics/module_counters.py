"""Conventions of tools that put hooks on modules: the class of a module decides what is counted.

Most tools look up the exact class, so a subclass is not recognized, and use only the module's input, output and
parameters. They see functions that a forward calls only if they also replace those functions.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod

from cspprof.core.record import CONVOLUTIONS, Kind, OpSpec
from cspprof.metrics.conventions import HookedModule, convention
from cspprof.metrics.operation_counters import aten_name, composite, first_tensor, has_bias, has_weight


def torch_class(class_name: str) -> str:
    """`Conv2d` for the class of that name in torch.nn; empty for other classes."""
    return class_name.rpartition(".")[2] if class_name.startswith("torch.nn.modules.") else ""


# -- torchinfo ------------------------------------------------------------------------------------


@convention(
    "torchinfo",
    tool="torchinfo.summary",
    version="1.8.0",
    counts="mult-adds",
    per_mac=1,
    of="module",
    validity="if every module without submodules returns the output of its last operation, and none is pruned: of a "
    "pruned weight torchinfo counts the elements that the mask keeps, which are values",
)
def torchinfo(module: HookedModule) -> int | None:
    """Parameters of modules without submodules. In classes named Conv…, weights and biases count once for each output
    position; in other classes, once for each image of the batch; in recurrent layers, once for each element of the
    first two output dimensions. The tokens of a linear layer do not multiply its count. Modules without weights count
    as zero."""
    if not module.leaf or not module.params:
        return 0
    if any(name.endswith("_orig") and f"{name[:-5]}_mask" in module.buffers for name in module.params):
        return None  # pruned: torchinfo counts the ones in the mask, which are values
    params = sum(p.numel for name, p in module.params.items() if name in ("weight", "bias"))
    recurrent = sum(p.numel for name, p in module.params.items()
                    if name not in ("weight", "bias") and ("weight" in name or "bias" in name))  # fmt: skip
    is_conv = "Conv" in module.class_name.rpartition(".")[2]
    total = 0
    for ops in module.calls():
        if not ops or not ops[-1].writes:
            return None
        out = ops[-1].writes[0].shape
        total += params * prod(out[:1] + out[2:] if is_conv else out[:1]) + recurrent * prod(out[:2])
    return total


# -- thop -----------------------------------------------------------------------------------------

NORMS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LayerNorm", "InstanceNorm1d", "InstanceNorm2d",
         "InstanceNorm3d")  # fmt: skip
CONVS = ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
RESIZE_COSTS = {"nearest": 1, "linear": 5, "bilinear": 11, "bicubic": 259}


@convention(
    "thop",
    tool="thop.profile",
    version="0.1.1.post2209072238",
    counts="MACs",
    per_mac=1,
    of="module",
    validity="without recurrent layers and layers shared between modules",
)
def thop(module: HookedModule) -> int | None:
    """By exact class: MACs of convolutions and linear layers; 4 for each element of a batch, layer or instance norm (2
    without weights); 1 for each output of average pooling; the window size plus 1 for each output of adaptive average
    pooling; fixed costs for softmax and resizing. Attention, functions, group norm and SiLU count as zero. A
    transposed convolution counts as a plain one."""
    cls = torch_class(module.class_name)
    if cls in ("RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell") or (cls and module.layer.shared_with):
        return None
    return sum(_thop(cls, op) for op in module.ops)


def _thop(cls: str, op: OpSpec) -> int:
    if cls in CONVS and op.kind in CONVOLUTIONS:
        c_in = first_tensor(op).shape[1]
        return op.writes[0].numel * (c_in // int(op.attrs["groups"])) * prod(op.weights[0].shape[2:])
    if cls == "Linear" and op.kind is Kind.LINEAR:
        return op.macs or 0
    if cls in NORMS and op.kind is Kind.NORM:
        return first_tensor(op).numel * (4 if has_weight(op) else 2)
    if cls in ("AvgPool1d", "AvgPool2d", "AvgPool3d") and op.kind is Kind.AVG_POOL:
        return op.writes[0].numel
    if cls.startswith("AdaptiveAvgPool") and op.kind is Kind.AVG_POOL:
        n = int(cls[-2])
        window = Fraction(prod(first_tensor(op).shape[-n:]), prod(op.writes[0].shape[-n:]))
        return int((window + 1) * op.writes[0].numel)
    if cls == "Softmax" and op.kind is Kind.SOFTMAX:
        n = first_tensor(op).shape[int(op.attrs["dim"])]
        return first_tensor(op).numel // n * (3 * n - 1)
    if cls.startswith("Upsampl") and op.kind is Kind.RESIZE:
        mode = aten_name(op).removeprefix("upsample_").rstrip("123d")
        return op.writes[0].numel * RESIZE_COSTS.get(mode, 0)
    return first_tensor(op).numel if cls == "PReLU" and aten_name(op) == "prelu" else 0


# -- ptflops --------------------------------------------------------------------------------------

ACTIVATIONS = ("ReLU", "PReLU", "ELU", "LeakyReLU", "ReLU6", "GELU")
FUNCTIONS = frozenset({"relu", "prelu", "elu", "gelu", "silu"})
"""Functions that ptflops replaces in torch.nn.functional, so that modules of torch that call them count twice."""
HOLD_FUNCTIONS = tuple(f"torch.nn.modules.transformer.Transformer{part}Layer" for part in ("Encoder", "Decoder"))
"""Modules that keep their activation as an attribute, which is the function before ptflops replaced it."""
SELF_ATTENTION = ("torch.nn.modules.activation.MultiheadAttention", "timm.layers.attention.Attention",
                  "timm.models.vision_transformer.Attention")  # fmt: skip


@convention(
    "ptflops",
    tool="ptflops.get_model_complexity_info",
    version="0.7.5",
    counts="MACs",
    per_mac=1,
    of="module",
    validity="for a batch of one, without recurrent layers, and without softmax and matrix products in the modules of "
    "a user: ptflops sees F.softmax(a) and torch.matmul(a, b), but not torch.softmax(a) and a @ b, which are the same "
    "operations. The rule assumes that other functions are called as F.relu(a) and a * b, not as torch.relu(a) and "
    "torch.mul(a, b)",
)
def ptflops(module: HookedModule) -> int | None:
    """By exact class: MACs and biases of convolutions and linear layers; 2 for each element of a norm (1 without
    weights); 1 for each element of an activation, pooling or resizing; attention modules as a whole. Functions count
    too, so ReLU, GELU and pooling layers of torch count twice. The operators + and * count as zero."""
    cls = torch_class(module.class_name)
    if cls in ("RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell") or (cls and module.layer.shared_with):
        return None
    counts = [_by_function(module.class_name, op) for op in module.ops]
    if None in counts:
        return None
    total = sum(n or 0 for n in counts)
    if any(c in SELF_ATTENTION for c in module.ancestors):
        return total  # an attention module counts as a whole, so its submodules do not count
    if module.class_name in SELF_ATTENTION:
        return total + _self_attention(module)
    return total + sum(_by_class(cls, op) for op in module.ops)


def _by_class(cls: str, op: OpSpec) -> int:
    if (cls in CONVS and op.kind in CONVOLUTIONS) or (cls == "Linear" and op.kind is Kind.LINEAR):
        return (op.macs or 0) + (op.writes[0].numel if has_bias(op) else 0)
    if (cls in NORMS or cls == "GroupNorm") and op.kind is Kind.NORM:
        # ptflops looks for `affine`, which a layer norm calls `elementwise_affine`
        return first_tensor(op).numel * (2 if has_weight(op) and cls != "LayerNorm" else 1)
    if cls in ACTIVATIONS and op.kind is Kind.ACTIVATION:
        return op.writes[0].numel
    if "Pool" in cls and op.kind in (Kind.MAX_POOL, Kind.AVG_POOL):
        return first_tensor(op).numel
    return op.writes[0].numel if cls == "Upsample" and op.kind is Kind.RESIZE else 0


def _by_function(class_name: str, op: OpSpec) -> int | None:
    """The count of ptflops for a function that it replaces; None if the record does not say how it was called."""
    if composite(op):  # such as an einsum, whose parts no function of Python calls
        return 0
    name = aten_name(op)
    if name in FUNCTIONS and class_name in HOLD_FUNCTIONS:
        return 0
    if name in FUNCTIONS or (op.kind in (Kind.MAX_POOL, Kind.AVG_POOL) and "pool" in name):
        return first_tensor(op).numel
    if op.kind is Kind.RESIZE and name.startswith("upsample"):
        return op.writes[0].numel
    if name not in ("softmax", "matmul", "mm", "bmm", "addmm", "baddbmm"):
        return 0
    if not class_name.startswith(("torch.", "torchvision.")):
        return None
    if name == "softmax":
        return first_tensor(op).numel
    return (op.macs or 0) if name in ("matmul", "mm", "bmm") else 0


def _self_attention(module: HookedModule) -> int:
    """Products and softmax, and in torch's own class the projections. In timm's classes these are submodules, which
    ptflops skips."""
    total = 0
    for op in module.ops:
        if op.kind is not Kind.ATTENTION:
            continue
        batch, heads, length, width = first_tensor(op).shape
        dim = heads * width
        total += batch * (length * dim + heads * length * length * (2 * width + 1))
        if torch_class(module.class_name):
            bias = 3 * length * dim if "in_proj_bias" in module.params else 0
            total += batch * (3 * length * dim * dim + bias + length * dim * (dim + 1))
    return total


# -- torchlens ------------------------------------------------------------------------------------

COST_PER_OUTPUT = {
    "add": 1, "sub": 1, "rsub": 1, "mul": 1, "div": 1, "neg": 1, "abs": 1, "clamp": 1, "maximum": 1, "minimum": 1,
    "relu": 1, "relu6": 1, "hardtanh": 1, "leaky_relu": 1, "prelu": 1, "threshold": 1, "masked_fill": 1, "where": 1,
    "pow": 2, "sqrt": 2, "rsqrt": 2, "exp": 8, "log": 8, "sin": 8, "cos": 8, "erf": 8, "tanh": 6, "sigmoid": 4,
    "hardsigmoid": 3, "hardswish": 4, "silu": 5, "mish": 8, "gelu": 14, "elu": 9, "celu": 9, "selu": 10, "softplus": 9,
    "softmax": 5, "log_softmax": 6, "batch_norm": 5, "layer_norm": 5, "group_norm": 5, "instance_norm": 5,
    "rms_norm": 5, "grid_sampler": 4,
}  # fmt: skip
ZERO_COST = frozenset({Kind.VIEW, Kind.CONCAT, Kind.EMBEDDING, Kind.DATA})


@convention(
    "torchlens",
    tool="torchlens, flops of the forward",
    version="2.36.1",
    counts="flops",
    per_mac=2,
    of="module",
    validity="for convolutional networks that call no dropout layer and whose pooling windows are square",
)
def torchlens(module: HookedModule) -> int | None:
    """2·MACs and biases of convolutions, linear layers and products, plus a cost for each output element: 1 for ReLU,
    additions and multiplications, 5 for normalization and softmax, 4 to 14 for other activations. Pooling costs the
    side of its window (not the area) for each output, global pooling 1 for each input, resizing 4 for each output."""
    if torch_class(module.class_name).endswith("Dropout"):
        return None  # torchlens counts it in eval mode too, where the record has no operation
    counts = [_torchlens(op) for op in module.ops]
    return None if None in counts else sum(n or 0 for n in counts)


def _torchlens(op: OpSpec) -> int | None:
    name = aten_name(op)
    if op.kind in CONVOLUTIONS or name in ("linear", "addmm", "baddbmm"):
        return 2 * (op.macs or 0) + (op.writes[0].numel if has_bias(op) or name in ("addmm", "baddbmm") else 0)
    if op.kind is Kind.MATMUL:
        return 2 * (op.macs or 0)
    if op.kind is Kind.ATTENTION:
        return 2 * (op.macs or 0) + 6 * op.elementwise
    if name in COST_PER_OUTPUT:
        return COST_PER_OUTPUT[name] * op.writes[0].numel
    if name.startswith("adaptive_max"):
        return 2 * first_tensor(op).numel
    if name.startswith("adaptive_") or name in ("mean", "sum"):
        return first_tensor(op).numel
    if op.kind is Kind.RESIZE and name.startswith("upsample"):
        return 4 * op.writes[0].numel
    if name.startswith(("max_pool", "avg_pool")):
        sides = set(op.attrs["kernel"])
        return op.writes[0].numel * sides.pop() if len(sides) == 1 else None
    return 0 if op.kind in ZERO_COST else None
