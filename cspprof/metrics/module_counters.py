"""Conventions of tools that hang hooks on modules: what a class is called decides what is counted.

Most look up the exact class (a subclass is another one), and look at nothing but the module's input, output and
parameters. What a forward computes with functions is seen where a tool also replaces those.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod

from cspprof.core.record import CONVOLUTIONS, Kind, OpSpec
from cspprof.metrics.conventions import Module, convention
from cspprof.metrics.operation_counters import has_bias, has_weight, name_of, source


def torch_class(class_name: str) -> str:
    """`Conv2d` for torch's own class of that name, else empty."""
    return class_name.rpartition(".")[2] if class_name.startswith("torch.nn.modules.") else ""


# -- torchinfo ------------------------------------------------------------------------------------


@convention(
    "torchinfo",
    tool="torchinfo.summary",
    counts="mult-adds",
    per_mac=1,
    of="module",
    holds="where a module without submodules returns what its last operation wrote",
)
def torchinfo(module: Module) -> int | None:
    """Parameters of modules without submodules: weights and biases of a class called Conv… times the positions of
    its output, of other classes times the batch alone, of recurrent layers times the output's first two dimensions.
    Tokens do not multiply a linear layer, and what has no weights counts as nothing."""
    if not module.leaf or not module.params:
        return 0
    plain = sum(p.numel for name, p in module.params.items() if name in ("weight", "bias"))
    other = sum(p.numel for name, p in module.params.items()
                if name not in ("weight", "bias") and ("weight" in name or "bias" in name))  # fmt: skip
    convolves = "Conv" in module.class_name.rpartition(".")[2]
    total = 0
    for ops in module.calls():
        if not ops or not ops[-1].writes:
            return None
        out = ops[-1].writes[0].shape
        total += plain * (prod(out[:1] + out[2:]) if convolves else prod(out[:1])) + other * prod(out[:2])
    return total


# -- thop -----------------------------------------------------------------------------------------

NORMS = ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "LayerNorm", "InstanceNorm1d", "InstanceNorm2d",
         "InstanceNorm3d")  # fmt: skip
CONVS = ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
RESIZE_PRICES = {"nearest": 1, "linear": 5, "bilinear": 11, "bicubic": 259}


@convention(
    "thop",
    tool="thop.profile",
    counts="MACs",
    per_mac=1,
    of="module",
    holds="without recurrent layers and layers shared between modules",
)
def thop(module: Module) -> int | None:
    """By exact class: MACs of convolutions and linear layers, 4 for each element of a batch, layer or instance norm
    (2 without weights), average pooling 1 for each output, adaptive average pooling the window and 1, softmax and
    resizing a price of their own. What is no module of torch's (attention, functions, group norm, SiLU) counts as
    nothing; a transposed convolution is counted as if it were a plain one."""
    cls = torch_class(module.class_name)
    if cls in ("RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell") or (cls and module.layer.shared_with):
        return None
    return sum(_thop(cls, op) for op in module.ops)


def _thop(cls: str, op: OpSpec) -> int:
    if cls in CONVS and op.kind in CONVOLUTIONS:
        c_in = source(op).shape[1]
        return op.writes[0].numel * (c_in // int(op.attrs["groups"])) * prod(op.weights[0].shape[2:])
    if cls == "Linear" and op.kind is Kind.LINEAR:
        return op.macs or 0
    if cls in NORMS and op.kind is Kind.NORM:
        return source(op).numel * (4 if has_weight(op) else 2)
    if cls in ("AvgPool1d", "AvgPool2d", "AvgPool3d") and op.kind is Kind.AVG_POOL:
        return op.writes[0].numel
    if cls.startswith("AdaptiveAvgPool") and op.kind is Kind.AVG_POOL:
        n = int(cls[-2])
        window = Fraction(prod(source(op).shape[-n:]), prod(op.writes[0].shape[-n:]))
        return int((window + 1) * op.writes[0].numel)
    if cls == "Softmax" and op.kind is Kind.SOFTMAX:
        n = source(op).shape[int(op.attrs["dim"])]
        return source(op).numel // n * (3 * n - 1)
    if cls.startswith("Upsampl") and op.kind is Kind.RESIZE:
        mode = name_of(op).removeprefix("upsample_").rstrip("123d")
        return op.writes[0].numel * RESIZE_PRICES.get(mode, 0)
    return source(op).numel if cls == "PReLU" and name_of(op) == "prelu" else 0


# -- ptflops --------------------------------------------------------------------------------------

ACTIVATIONS = ("ReLU", "PReLU", "ELU", "LeakyReLU", "ReLU6", "GELU")
FUNCTIONS = frozenset({"relu", "prelu", "elu", "gelu", "silu"})
"""Replaced in torch.nn.functional, so that a module of torch's that calls one counts a second time."""
SELF_ATTENTION = ("torch.nn.modules.activation.MultiheadAttention", "timm.layers.attention.Attention",
                  "timm.models.vision_transformer.Attention")  # fmt: skip


@convention(
    "ptflops",
    tool="ptflops.get_model_complexity_info",
    counts="MACs",
    per_mac=1,
    of="module",
    holds="for a batch of one, without recurrent layers; it sees torch.softmax, a.matmul(b) and a.mul(b), not the same "
    "by operator: a product or softmax is taken as seen in modules of torch and torchvision only, a.mul(b) nowhere",
)
def ptflops(module: Module) -> int | None:
    """By exact class: MACs and biases of convolutions and linear layers, 2 for each element of a norm (1 without
    weights), 1 for each of an activation, pooling or resizing; attention modules as a whole. Functions are counted
    too, so ReLU, GELU and pooling layers of torch count twice. Additions and multiplications by operator are not
    seen."""
    cls = torch_class(module.class_name)
    if cls in ("RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell") or (cls and module.layer.shared_with):
        return None
    total = sum(_by_function(module.class_name, op) for op in module.ops)
    if any(c in SELF_ATTENTION for c in module.around):
        return total  # a module that is counted as a whole hides what is in it
    if module.class_name in SELF_ATTENTION:
        return total + _self_attention(module)
    return total + sum(_by_class(cls, op) for op in module.ops)


def _by_class(cls: str, op: OpSpec) -> int:
    if (cls in CONVS and op.kind in CONVOLUTIONS) or (cls == "Linear" and op.kind is Kind.LINEAR):
        return (op.macs or 0) + (op.writes[0].numel if has_bias(op) else 0)
    if (cls in NORMS or cls == "GroupNorm") and op.kind is Kind.NORM:
        # a layer norm says elementwise_affine where the others say affine
        return source(op).numel * (2 if has_weight(op) and cls != "LayerNorm" else 1)
    if cls in ACTIVATIONS and op.kind is Kind.ACTIVATION:
        return op.writes[0].numel
    if "Pool" in cls and op.kind in (Kind.MAX_POOL, Kind.AVG_POOL):
        return source(op).numel
    return op.writes[0].numel if cls == "Upsample" and op.kind is Kind.RESIZE else 0


def _by_function(class_name: str, op: OpSpec) -> int:
    name = name_of(op)
    if name in FUNCTIONS or (op.kind in (Kind.MAX_POOL, Kind.AVG_POOL) and "pool" in name):
        return source(op).numel
    if op.kind is Kind.RESIZE and name.startswith("upsample"):
        return op.writes[0].numel
    if not class_name.startswith(("torch.", "torchvision.")):
        return 0
    if name == "softmax":
        return source(op).numel
    return (op.macs or 0) if name in ("matmul", "mm", "bmm") else 0


def _self_attention(module: Module) -> int:
    """Projections (torch's own class only; timm's are submodules, which it hides), products and softmax."""
    total = 0
    for op in module.ops:
        if op.kind is not Kind.ATTENTION:
            continue
        batch, heads, length, width = source(op).shape
        dim = heads * width
        total += batch * (length * dim + heads * length * length * (2 * width + 1))
        if torch_class(module.class_name):
            bias = 3 * length * dim if "in_proj_bias" in module.params else 0
            total += batch * (3 * length * dim * dim + bias + length * dim * (dim + 1))
    return total


# -- torchlens ------------------------------------------------------------------------------------

FOR_EACH_OUTPUT = {
    "add": 1, "sub": 1, "rsub": 1, "mul": 1, "div": 1, "neg": 1, "abs": 1, "clamp": 1, "maximum": 1, "minimum": 1,
    "relu": 1, "relu6": 1, "hardtanh": 1, "leaky_relu": 1, "prelu": 1, "threshold": 1, "masked_fill": 1, "where": 1,
    "pow": 2, "sqrt": 2, "rsqrt": 2, "exp": 8, "log": 8, "sin": 8, "cos": 8, "erf": 8, "tanh": 6, "sigmoid": 4,
    "hardsigmoid": 3, "hardswish": 4, "silu": 5, "mish": 8, "gelu": 14, "elu": 9, "celu": 9, "selu": 10, "softplus": 9,
    "softmax": 5, "log_softmax": 6, "batch_norm": 5, "layer_norm": 5, "group_norm": 5, "instance_norm": 5,
    "rms_norm": 5, "grid_sampler": 4,
}  # fmt: skip
FREE_OF_CHARGE = frozenset({Kind.VIEW, Kind.CONCAT, Kind.EMBEDDING, Kind.DATA})


@convention(
    "torchlens",
    tool="torchlens, flops of the forward",
    counts="flops",
    per_mac=2,
    of="module",
    holds="for plain convolutional networks in which no dropout layer is called; windows given as one number",
)
def torchlens(module: Module) -> int | None:
    """2·MACs and biases of convolutions, linear layers and products, and besides a price for each element: 1 for
    ReLU, additions and multiplications, 5 for normalisation and softmax, 4 to 14 for other activations; pooling costs
    the window's side (not its area) for each output, global pooling 1 for each input."""
    if torch_class(module.class_name).endswith("Dropout"):
        return None  # counted even where it is off; a record of nothing done does not say how large it was
    counts = [_torchlens(op) for op in module.ops]
    return None if None in counts else sum(n or 0 for n in counts)


def _torchlens(op: OpSpec) -> int | None:
    name = name_of(op)
    if op.kind in CONVOLUTIONS or name in ("linear", "addmm", "baddbmm"):
        return 2 * (op.macs or 0) + (op.writes[0].numel if has_bias(op) or name in ("addmm", "baddbmm") else 0)
    if op.kind is Kind.MATMUL:
        return 2 * (op.macs or 0)
    if op.kind is Kind.ATTENTION:
        return 2 * (op.macs or 0) + 6 * op.elementwise
    if name in FOR_EACH_OUTPUT:
        return FOR_EACH_OUTPUT[name] * op.writes[0].numel
    if name.startswith("adaptive_") or name in ("mean", "sum"):
        return source(op).numel
    if name.startswith(("max_pool", "avg_pool")):
        sides = set(op.attrs["kernel"])
        return op.writes[0].numel * sides.pop() if len(sides) == 1 else None
    return 0 if op.kind in FREE_OF_CHARGE else None
