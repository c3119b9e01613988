"""The sections that read feature maps of several layers or none: `[route]`, `[shortcut]`, `[scale_channels]`, `[sam]`,
`[implicit]`. None has a MAC."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cspprof.core.units import shortened
from cspprof.sources.darknet.cfg import SHOWN
from cspprof.sources.darknet.functions import Function, Tensor
from cspprof.sources.darknet.layers import BuiltLayer, LayerContext, layer, shape_text


class Route(nn.Module):
    """The concatenation of the inputs, or of channel group `group` of `groups` of each input."""

    def __init__(self, groups: int, group: int) -> None:
        super().__init__()
        self.groups, self.group = groups, group

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.groups > 1:
            inputs = tuple(x.chunk(self.groups, 1)[self.group] for x in inputs)
        return inputs[0] if len(inputs) == 1 else torch.cat(inputs, 1)

    def extra_repr(self) -> str:
        return f"group {self.group} of {self.groups}" if self.groups > 1 else ""


@layer("route")
def route(ctx: LayerContext) -> BuiltLayer:
    s = ctx.section
    inputs = ctx.source_layers("layers")
    shapes = [ctx.built[i].shape for i in inputs]
    groups, group = s.integer("groups", 1, minimum=1), s.integer("group_id", 0, minimum=0)
    if group >= groups:
        raise s.error(f"[route] group_id={group} of {groups} groups", f"Write 0 to {groups - 1}.", "group_id")
    if len({shape[1:] for shape in shapes}) > 1:
        maps = ", ".join(f"layer {i} {shape_text(shape)}" for i, shape in zip(inputs, shapes, strict=True))
        raise s.error(f"[route] joins maps of different sizes: {maps}", "Make their sizes equal first.", "layers")
    for i, (c, *_) in zip(inputs, shapes, strict=True):
        if c % groups:
            what = f"[route] {groups} groups do not divide the {c} channels of layer {i}"
            raise s.error(what, "Change groups.", "groups")
    channels = sum(shape[0] for shape in shapes) // groups
    return BuiltLayer(Route(groups, group), (channels, *shapes[0][1:]), inputs)


def resized_like(x: Tensor, like: Tensor) -> Tensor:
    """`x` in the shape of `like`, as the first shortcut of Darknet adds unequal maps.

    Missing channels are zero and surplus ones are dropped. A larger map is subsampled; the elements of a smaller one
    are spread, with zeros between them.
    """
    step, spread = max(x.shape[2] // like.shape[2], 1), max(like.shape[2] // x.shape[2], 1)
    if step > 1:
        x = x[:, :, ::step, ::step]
    if spread > 1:
        wide = x.new_zeros(*x.shape[:2], x.shape[2] * spread, x.shape[3] * spread)
        wide[:, :, ::spread, ::spread] = x
        x = wide
    missing = [size - own for size, own in zip(like.shape, x.shape, strict=True)]
    return F.pad(x, (0, missing[3], 0, missing[2], 0, missing[1])) if any(missing) else x


class Shortcut(nn.Module):
    """The sum of the previous map and others. With `weights`, each map has a weight, or one for every channel."""

    def __init__(self, inputs: int, channels: int, weights: str, normalization: str, act: nn.Module | None) -> None:
        super().__init__()
        self.normalization = normalization
        count = {"none": 0, "per_channel": channels}.get(weights, 1)
        self.weights = nn.Parameter(torch.ones(inputs, count, 1, 1)) if count else None
        self.act = act

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        if self.weights is None:
            y = x + resized_like(others[0], x)
            for other in others[1:]:
                y = y + resized_like(other, x)
        else:
            w = self._normalized(self.weights)
            y = x * w[0]
            for i, other in enumerate(others, 1):
                y = torch.addcmul(y, resized_like(other, x), w[i])
        return y if self.act is None else self.act(y)

    def _normalized(self, w: Tensor) -> Tensor:
        if self.normalization in ("relu", "avg_relu"):
            return w.relu() / (w.relu().sum(0) + 1e-4)
        return w.softmax(0) if self.normalization == "softmax" else w


WEIGHTS_TYPES = ("none", "per_feature", "per_layer", "per_channel")


@layer("shortcut")
def shortcut(ctx: LayerContext) -> BuiltLayer:
    s = ctx.section
    weights = s.text("weights_type", "none")
    if weights not in WEIGHTS_TYPES:
        choice = ", ".join(WEIGHTS_TYPES)
        shown = shortened(weights, SHOWN)
        raise s.error(f"[shortcut] weights_type={shown} is unknown", f"Write one of: {choice}", "weights_type")
    inputs = (ctx.index - 1, *ctx.source_layers("from"))
    normalization = s.text("weights_normalization", "none")
    module = Shortcut(len(inputs), ctx.shape[0], weights, normalization, ctx.activation("linear"))
    return BuiltLayer(module, ctx.shape, inputs)


def _scaled(ctx: LayerContext, broadcast: bool) -> BuiltLayer:
    """The map of layer `from` times the previous one."""
    source = ctx.source_layer("from")
    shape = ctx.built[source].shape
    fits = all(n in ((1, m) if broadcast else (m,)) for n, m in zip(ctx.shape, shape, strict=True))
    if not fits:
        raise ctx.section.error(
            f"[{ctx.section.type}] cannot scale layer {source} {shape_text(shape)} by {shape_text(ctx.shape)}",
            "Give one value for each channel, or a map of the same shape.",
            "from",
        )
    act = ctx.activation("linear")
    module = Function("scale", lambda scale, x: x * scale if act is None else act(x * scale))
    return BuiltLayer(module, shape, (ctx.index - 1, source))


@layer("scale_channels")
def scale_channels(ctx: LayerContext) -> BuiltLayer:
    return _scaled(ctx, broadcast=True)


@layer("sam")
def sam(ctx: LayerContext) -> BuiltLayer:
    return _scaled(ctx, broadcast=False)


class Implicit(nn.Module):
    """Learned values that depend on no input (YOLOR, Wang et al. 2021): (N, filters, atoms, 1)."""

    def __init__(self, filters: int, atoms: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(1, filters, atoms, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.values.expand(x.shape[0], -1, -1, -1)


@layer("implicit")
def implicit(ctx: LayerContext) -> BuiltLayer:
    filters, atoms = ctx.section.integer("filters", 128, minimum=1), ctx.section.integer("atoms", 1, minimum=1)
    ctx.check_size("its values", filters, atoms)
    return BuiltLayer(Implicit(filters, atoms), (filters, atoms, 1))
