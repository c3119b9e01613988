"""Layers that join, move, scale or pass on feature maps. They multiply nothing that counts as a MAC."""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import nn

from cspprof.sources.darknet import ops
from cspprof.sources.darknet.layers import Built, Call, Place, Shape, Tensor, layer, shown


class Route(nn.Module):
    """Part `group` of `groups` of each input, side by side."""

    def __init__(self, groups: int, group: int) -> None:
        super().__init__()
        self.groups, self.group = groups, group

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.groups > 1:
            inputs = tuple(x.chunk(self.groups, 1)[self.group] for x in inputs)
        return inputs[0] if len(inputs) == 1 else torch.cat(inputs, 1)

    def extra_repr(self) -> str:
        return f"part {self.group} of {self.groups}" if self.groups > 1 else ""


@layer("route")
def route(at: Place) -> Built:
    s = at.section
    reads = at.resolve("layers")
    shapes = [at.before[i].shape for i in reads]
    groups, group = s.number("groups", 1, least=1), s.number("group_id", 0, least=0)
    if group >= groups:
        raise s.error(f"[route] group_id={group} of {groups} groups", f"Write 0 to {groups - 1}.", "group_id")
    if len({shape[1:] for shape in shapes}) > 1:
        maps = ", ".join(f"layer {i} {shown(shape)}" for i, shape in zip(reads, shapes, strict=True))
        raise s.error(f"[route] joins maps of different sizes: {maps}", "Give them one size first.", "layers")
    for i, shape in zip(reads, shapes, strict=True):
        if shape[0] % groups:
            raise s.error(f"[route] {groups} groups do not divide the {shape[0]} channels of layer {i}", "", "groups")
    channels = sum(shape[0] for shape in shapes) // groups
    return Built(Route(groups, group), (channels, *shapes[0][1:]), reads)


def fitted(x: Tensor, like: Tensor) -> Tensor:
    """`x` cut or filled with zeros to the shape of `like`: overlapping channels are kept, a larger map is subsampled,
    a smaller one spread out (Darknet's first shortcut)."""
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
    """The previous map and others added; with weights, each is scaled first (one weight a map, or one a channel)."""

    def __init__(self, inputs: int, channels: int, weights: str, normalisation: str, act: nn.Module | None) -> None:
        super().__init__()
        self.normalisation = normalisation
        per = {"none": 0, "per_channel": channels}.get(weights, 1)
        self.weights = nn.Parameter(torch.ones(inputs, per, 1, 1)) if per else None
        self.act = act

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        if self.weights is None:
            y = x + fitted(others[0], x)
            for other in others[1:]:
                y = y + fitted(other, x)
        else:
            w = self._normalised(self.weights)
            y = x * w[0]
            for i, other in enumerate(others, 1):
                y = torch.addcmul(y, fitted(other, x), w[i])
        return y if self.act is None else self.act(y)

    def _normalised(self, w: Tensor) -> Tensor:
        if self.normalisation in ("relu", "avg_relu"):
            return w.relu() / (w.relu().sum(0) + 1e-4)
        return w.softmax(0) if self.normalisation == "softmax" else w


WEIGHTS = ("none", "per_feature", "per_layer", "per_channel")


@layer("shortcut")
def shortcut(at: Place) -> Built:
    s = at.section
    weights = s.text("weights_type", "none")
    if weights not in WEIGHTS:
        raise s.error(f"[shortcut] weights_type={weights}", f"There are: {', '.join(WEIGHTS)}", "weights_type")
    reads = (*at.previous, *at.resolve("from"))
    module = Shortcut(
        len(reads), at.shape[0], weights, s.text("weights_normalization", "none"), at.activation("linear")
    )
    return Built(module, at.shape, reads)


def _scaled(at: Place, broadcast: bool) -> Built:
    """The map that `from` names times the one before it."""
    source = at.resolve_first("from")
    shape = at.before[source].shape
    fits = all(n in ((1, m) if broadcast else (m,)) for n, m in zip(at.shape, shape, strict=True))
    if not fits:
        raise at.section.error(
            f"[{at.section.type}] cannot scale layer {source} {shown(shape)} by {shown(at.shape)}",
            "Give one value a channel, or a map of the same shape.",
            "from",
        )
    act = at.activation("linear")
    scale = Call("scale", lambda x, y: y * x if act is None else act(y * x))
    return Built(scale, shape, (*at.previous, source))


@layer("scale_channels")
def scale_channels(at: Place) -> Built:
    return _scaled(at, broadcast=True)


@layer("sam")
def sam(at: Place) -> Built:
    return _scaled(at, broadcast=False)


@layer("upsample")
def upsample(at: Place) -> Built:
    s = at.section
    stride, scale = s.number("stride", 2), s.real("scale", 1.0)
    c, h, w = at.shape
    if stride == 0 or (stride < 0 and min(h, w) // -stride < 1):
        raise s.error(f"[upsample] stride={stride}", "Write 2 to double the size, -2 to halve it.", "stride")
    if stride > 0:
        module = Call(f"×{stride}", lambda x: _times(F.interpolate(x, scale_factor=float(stride)), scale))
        return Built(module, (c, h * stride, w * stride), at.previous)
    down = -stride  # the values of each window are added
    module = Call(f"÷{down}", lambda x: _times(_window_sums(x, down), scale))
    return Built(module, (c, h // down, w // down), at.previous)


def _window_sums(x: Tensor, size: int) -> Tensor:
    n, c, h, w = x.shape
    x = x[:, :, : h // size * size, : w // size * size]
    return x.reshape(n, c, h // size, size, w // size, size).sum((3, 5))


def _times(x: Tensor, scale: float) -> Tensor:
    return x if scale == 1.0 else x * scale


def _to_depth(x: Tensor, s: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, c, h // s, s, w // s, s).permute(0, 3, 5, 1, 2, 4).reshape(n, c * s * s, h // s, w // s)


def _to_space(x: Tensor, s: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, s, s, c // (s * s), h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // (s * s), h * s, w * s)


def _as_darknet_did(x: Tensor, s: int) -> Tensor:
    """The first reorg reads the map as if it were (c/s², h·s, w·s) and moves space to depth there."""
    n, c, h, w = x.shape
    return _to_depth(x.reshape(n, c // (s * s), h * s, w * s), s).reshape(n, c * s * s, h // s, w // s)


@layer("reorg", "reorg3d")
def reorg(at: Place) -> Built:
    s = at.section
    stride = s.number("stride", 1, least=1)
    c, h, w = at.shape
    area = stride * stride
    if s.flag("reverse"):
        if c % area:
            raise s.error(f"[{s.type}] stride² = {area} does not divide the {c} channels before it", "", "stride")
        return Built(Call("to space", lambda x: _to_space(x, stride)), (c // area, h * stride, w * stride), at.previous)
    if h % stride or w % stride:
        raise s.error(f"[{s.type}] stride {stride} does not divide a map of {shown(at.shape)}", "", "stride")
    old = s.type == "reorg" and c % area == 0
    module = Call("to depth", lambda x: (_as_darknet_did if old else _to_depth)(x, stride))
    return Built(module, (c * area, h // stride, w // stride), at.previous)


@layer("dropout")
def dropout(at: Place) -> Built:
    return Built(nn.Dropout(min(max(at.section.real("probability", 0.2), 0.0), 1.0)), at.shape, at.previous)


@layer("softmax", "soft")
def softmax(at: Place) -> Built:
    s = at.section
    groups, temperature = s.number("groups", 1, least=1), s.real("temperature", 1.0)
    if not temperature:
        raise s.error("[softmax] temperature=0 divides by zero", "Write temperature=1", "temperature")
    if s.flag("spatial"):
        return Built(Call("over channels", lambda x: _times(x, 1 / temperature).softmax(1)), at.shape, at.previous)
    if prod(at.shape) % groups:
        raise s.error(f"[softmax] {groups} groups do not divide {prod(at.shape)} values", "", "groups")

    def over_groups(x: Tensor) -> Tensor:
        rows = _times(x, 1 / temperature).reshape(x.shape[0], groups, -1)
        return rows.softmax(-1).view(x.shape)

    return Built(Call(f"{groups} groups", over_groups), at.shape, at.previous)


@layer("batchnorm")
def batchnorm(at: Place) -> Built:
    return Built(nn.BatchNorm2d(at.shape[0]), at.shape, at.previous)


@layer("normalization", "lrn")
def normalization(at: Place) -> Built:
    s = at.section
    size, alpha, beta, kappa = (
        s.number("size", 5, least=1),
        s.real("alpha", 1e-4),
        s.real("beta", 0.75),
        s.real("kappa", 1),
    )
    return Built(
        Call("across channels", lambda x: ops.response_norm(x, size, alpha, beta, kappa)), at.shape, at.previous
    )


@layer("activation")
def activation_layer(at: Place) -> Built:
    act = at.activation("linear")
    module = nn.Identity() if act is None else Call(at.section.text("activation"), lambda x: act(x.clone()))
    return Built(module, at.shape, at.previous)


@layer("crop")
def crop(at: Place) -> Built:
    """The middle of the map, and its values from 0…1 to −1…1 unless `noadjust`."""
    s = at.section
    height, width = s.number("crop_height", 1, least=1), s.number("crop_width", 1, least=1)
    c, h, w = at.shape
    if height > h or width > w:
        raise s.error(f"[crop] cannot cut {height}×{width} out of {shown(at.shape)}", "Trace a larger image.")
    top, left, adjust = (h - height) // 2, (w - width) // 2, not s.flag("noadjust")

    def middle(x: Tensor) -> Tensor:
        x = x[:, :, top : top + height, left : left + width]
        return x * 2 - 1 if adjust else x

    return Built(Call(f"{height}×{width}", middle), (c, height, width), at.previous)


class Implicit(nn.Module):
    """Learned values that depend on no input (YOLOR, Wang et al. 2021): -> (N, filters, atoms, 1)."""

    def __init__(self, filters: int, atoms: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(1, filters, atoms, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.values.expand(x.shape[0], -1, -1, -1)


@layer("implicit")
def implicit(at: Place) -> Built:
    filters, atoms = at.section.number("filters", 128, least=1), at.section.number("atoms", 1, least=1)
    shape: Shape = (filters, atoms, 1)
    return Built(Implicit(filters, atoms), shape, at.previous)


@layer("cost", "contrastive", "empty", "silence")
def passed_on(at: Place) -> Built:
    """Work of training only."""
    return Built(nn.Identity(), at.shape, at.previous)
