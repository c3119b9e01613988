"""Layers with weights: convolutions, full connections, convolutions with weights of their own at every place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cspprof.sources.darknet import ops
from cspprof.sources.darknet.layers import Built, Place, Tensor, blurring, layer, row, shown


class Conv(nn.Conv2d):
    """A convolution of Darknet's size: its output does not know of dilation, so the border makes up for it."""

    extra = 0
    """Rows and columns that are added behind the map, or cut off where negative."""

    def padded(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, self.extra, 0, self.extra)) if self.extra else x

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._conv_forward(self.padded(x), self.weight, self.bias)
        return y


class BinaryWeights(Conv):
    """Weights of two values: their signs, at the mean size of each filter."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean((1, 2, 3), keepdim=True)
        y: Tensor = self._conv_forward(self.padded(x), torch.where(self.weight > 0, scale, -scale), self.bias)
        return y


class Xnor(Conv):
    """Weights and input of two values; see `ops.xnor_conv`."""

    def forward(self, x: Tensor) -> Tensor:
        padding, dilation = int(self.padding[0]), self.dilation[0]
        y = ops.xnor_conv(self.padded(x), self.weight, list(self.stride), padding, dilation)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


@layer("convolutional", "conv")
def convolutional(at: Place) -> Built:
    s = at.section
    if not s.has("filters"):
        at.notes.append(f"line {s.line}: [{s.type}] has no filters and gets 1, as in Darknet")
    filters, size = s.number("filters", 1, least=1), s.number("size", 1, least=1)
    strides, blurred = at.strides(), s.number("antialiasing", 0)
    padding = size // 2 if s.flag("pad") else s.number("padding", 0, least=0)
    dilation = 1 if size == 1 else s.number("dilation", 1, least=1)
    groups = 1 if s.flag("xnor") else max(s.number("groups", 1), 1)
    for name, n in (("the map before it has", at.shape[0]), ("filters is", filters)):
        if n % groups:
            raise s.error(
                f"[{s.type}] {name} {n} channels, which {groups} groups do not divide", "Change groups.", "groups"
            )
    kind = Xnor if s.flag("xnor") else BinaryWeights if s.flag("binary") else Conv
    own = (1, 1) if blurred else strides
    normed = s.flag("batch_normalize") or s.flag("cbn")
    conv = kind(at.shape[0], filters, size, own, padding * dilation, dilation, groups, bias=not normed)
    conv.extra = (dilation - 1) * (size - 1 - 2 * padding)
    norm = nn.BatchNorm2d(filters) if normed else None
    if s.has("share_index"):
        _share(at, conv, norm)
    height, width = at.windows(size, 2 * padding, own)
    act = at.activation("logistic")
    after, height, width = blurring(at, blurred, strides, height, width)
    return Built(
        row(("conv", conv), ("norm", norm), ("act", act), ("blur", after)), (filters, height, width), at.previous
    )


def _share(at: Place, conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> None:
    """Take the weights of another convolutional layer; strides and dilation stay one's own."""
    index = at.resolve_first("share_index")
    module = at.before[index].module
    other = getattr(module, "conv", None)
    if not isinstance(other, nn.Conv2d) or other.weight.shape != conv.weight.shape:
        raise at.section.error(
            f"share_index: layer {index} has no weights of shape {shown(tuple(conv.weight.shape))}",  # type: ignore
            "Name a convolutional layer with the same filters, size and channels.",
            "share_index",
        )
    conv.weight = other.weight
    if conv.bias is not None and other.bias is not None:
        conv.bias = other.bias
    theirs = getattr(module, "norm", None)
    if norm is not None and theirs is not None:
        norm.weight, norm.bias = theirs.weight, theirs.bias
        norm.running_mean, norm.running_var = theirs.running_mean, theirs.running_var


class Connected(nn.Module):
    """Every input value to every output value: (N, c, h, w) -> (N, n, 1, 1)."""

    def __init__(self, inputs: int, outputs: int, normed: bool, act: nn.Module | None) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=not normed)
        self.norm = nn.BatchNorm1d(outputs) if normed else None
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.flatten(1))
        y = y if self.norm is None else self.norm(y)
        y = y if self.act is None else self.act(y)
        return y[:, :, None, None]


@layer("connected", "conn")
def connected(at: Place) -> Built:
    c, h, w = at.shape
    outputs = at.section.number("output", 1, least=1)
    module = Connected(c * h * w, outputs, at.section.flag("batch_normalize"), at.activation("logistic"))
    return Built(module, (outputs, 1, 1), at.previous)


class Local(nn.Module):
    """A convolution with weights of its own at every place: (N, c_in, H, W) -> (N, c_out, H′, W′)."""

    def __init__(self, c_in: int, filters: int, size: int, stride: int, padding: int, places: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.stride, self.padding, self.places = size, stride, padding, places
        count = places[0] * places[1]
        self.weight = nn.Parameter(torch.randn(count, filters, c_in * size * size) * 0.01)
        self.bias = nn.Parameter(torch.zeros(filters, *places))

    def forward(self, x: Tensor) -> Tensor:
        columns = F.unfold(x, self.size, padding=self.padding, stride=self.stride)  # (N, c_in·k², places)
        y = torch.bmm(self.weight, columns.permute(2, 1, 0))  # (places, filters, N)
        shaped: Tensor = y.permute(2, 1, 0).unflatten(2, self.places)
        return shaped + self.bias


@layer("local")
def local(at: Place) -> Built:
    s = at.section
    filters, size, stride = s.number("filters", 1, least=1), s.number("size", 1, least=1), at.strides()[0]
    padding = size // 2 if s.flag("pad") else 0
    places = at.windows(size, 2 * padding, (stride, stride))
    conv = Local(at.shape[0], filters, size, stride, padding, places)
    return Built(row(("local", conv), ("act", at.activation("logistic"))), (filters, *places), at.previous)
