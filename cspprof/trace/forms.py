"""Layers whose operation is known from their class and settings: a table.

A layer of the table does one operation on its input and its own tensors, and which one depends on nothing but the
settings named there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from torch import nn

from cspprof.trace import asks
from cspprof.trace.asks import Asks

Getter = Callable[[Mapping[str, Any]], tuple[Any, ...]]


class Form:
    """What the operation of a class of layers depends on, besides its input: attributes, parameters and buffers."""

    def __init__(
        self,
        settings: tuple[str, ...] = (),
        parameters: tuple[str, ...] = (),
        buffers: tuple[str, ...] = (),
        *,
        counts: bool = False,
        does: type[nn.Module] | None = None,
        then: tuple[str, ...] = (),
        idle: Callable[[Mapping[str, Any]], bool] | None = None,
        names: str = "",
        asks: Asks | None = None,
    ) -> None:
        self.settings = values_of(*settings)
        self.parameters = values_of(*parameters)
        self.buffers = values_of(*buffers)
        self.counts = counts
        """Whether it counts its batches in training, which is an operation more."""
        self.does = does
        """The class whose forward is the operation, where it is not the layer's own."""
        self.then = then
        """Layers in it that are called on what comes out, one after the other."""
        self.idle = idle
        """Whether a layer of these attributes gives back its input, whatever that is."""
        self.asks = asks
        """Which operation it asks for, where that is known beforehand."""
        self.names = frozenset((*settings, *parameters, *buffers, *then, *names.split(), "F"))
        """Every name that the forward of a class of another library may use; one that uses others is run."""


def values_of(*names: str) -> Getter:
    """The values of these keys, as a tuple."""
    if len(names) > 1:
        return itemgetter(*names)
    return (lambda table: (table[names[0]],)) if names else (lambda table: ())


AFFINE = ("weight", "bias")
NORMALISED = ("training", "momentum", "eps", "track_running_stats")
RUNNING = ("running_mean", "running_var")
CONVOLVED = ("stride", "padding", "dilation", "groups", "padding_mode")

TORCHS_OWN: dict[type[nn.Module], Form] = {
    nn.Identity: Form(idle=lambda own: True),
    nn.Dropout: Form(("training", "p", "inplace"), idle=lambda own: not own["training"]),
    nn.Conv1d: Form(CONVOLVED, AFFINE, asks=asks.convolution(1)),
    nn.Conv2d: Form(CONVOLVED, AFFINE, asks=asks.convolution(2)),
    nn.Conv3d: Form(CONVOLVED, AFFINE, asks=asks.convolution(3)),
    nn.Linear: Form((), AFFINE, asks=asks.linear),
    nn.BatchNorm1d: Form(NORMALISED, AFFINE, RUNNING, counts=True, asks=asks.batch_norm(2, 3)),
    nn.BatchNorm2d: Form(NORMALISED, AFFINE, RUNNING, counts=True, asks=asks.batch_norm(4)),
    nn.BatchNorm3d: Form(NORMALISED, AFFINE, RUNNING, counts=True, asks=asks.batch_norm(5)),
    nn.LayerNorm: Form(("normalized_shape", "eps"), AFFINE, asks=asks.layer_norm),
    nn.GroupNorm: Form(("num_groups", "eps"), AFFINE),
    nn.ReLU: Form(("inplace",), asks=asks.activation("relu")),
    nn.ReLU6: Form(("inplace", "min_val", "max_val")),
    nn.LeakyReLU: Form(("inplace", "negative_slope"), asks=asks.activation("leaky_relu")),
    nn.SiLU: Form(("inplace",), asks=asks.activation("silu")),
    nn.GELU: Form(("approximate",)),
    nn.Hardswish: Form(("inplace",), asks=asks.activation("hardswish")),
    nn.Hardsigmoid: Form(("inplace",), asks=asks.activation("hardsigmoid")),
    nn.Mish: Form(("inplace",), asks=asks.activation("mish")),
    nn.Sigmoid: Form(asks=asks.activation("sigmoid")),
    nn.Tanh: Form(asks=asks.activation("tanh")),
    nn.Softmax: Form(("dim",)),
    nn.MaxPool2d: Form(
        ("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode"), asks=asks.max_pool
    ),
    nn.AvgPool2d: Form(
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
        asks=asks.average_pool,
    ),
    nn.AdaptiveAvgPool2d: Form(("output_size",), asks=asks.adaptive_average_pool),
}
PARTS = ("forward", "_conv_forward", "_check_input_dim")
"""What a layer of the table is made of. One that has a part of its own, by itself or by its class, is run like any
module."""
OWN_PARTS = {kind: [getattr(kind, part, None) for part in PARTS] for kind in TORCHS_OWN}
"""As torch has them."""

OTHERS: dict[str, Form] = {
    "timm.layers.norm.LayerNorm": Form(
        ("normalized_shape", "eps", "_fast_norm"), AFFINE, names="layer_norm fast_layer_norm", asks=asks.layer_norm
    ),
    "timm.layers.norm_act.BatchNormAct2d": Form(
        NORMALISED, AFFINE, RUNNING, counts=True, does=nn.BatchNorm2d, then=("drop", "act"),
        names="_assert ndim num_batches_tracked add_ float batch_norm", asks=asks.batch_norm(4),
    ),
    "timm.layers.activations.GELU": Form(names="gelu", asks=asks.activation("gelu")),
    "timm.layers.activations.Sigmoid": Form(
        ("inplace",), names="sigmoid sigmoid_", asks=asks.activation("sigmoid")
    ),
}  # fmt: skip
"""Of libraries that make most of the networks, by the class's qualified name."""


def form_of(kind: type[nn.Module]) -> Form | None:
    """None for a class that is not known, or whose forward is not the known one."""
    if kind in TORCHS_OWN:
        return TORCHS_OWN[kind] if OWN_PARTS[kind] == [getattr(kind, part, None) for part in PARTS] else None
    form = OTHERS.get(f"{kind.__module__}.{kind.__qualname__}")
    if form is None or (form.does is not None and form_of(form.does) is None):
        return None
    code = getattr(kind.forward, "__code__", None)
    return form if code is not None and form.names.issuperset((*code.co_names, *code.co_freevars)) else None
