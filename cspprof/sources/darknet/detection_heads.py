"""The detection heads `[yolo]`, `[Gaussian_yolo]`, `[region]` and `[detection]`, which map the outputs of the last
convolution to their ranges. The network returns the outputs of its heads."""

from __future__ import annotations

from math import prod

import torch
from torch import nn

from cspprof.sources.darknet.functions import Tensor
from cspprof.sources.darknet.layers import BuiltLayer, LayerContext, layer, shape_text


class DetectionHead(nn.Module):
    """The base class of all heads. A head keeps the shape."""


class BoxHead(DetectionHead):
    """A sigmoid for the `logistic` values of each box, and a softmax over its last `classes` values if `softmax`.

    (N, boxes·values, H, W), same shape out. All other values stay as they are.
    """

    def __init__(self, boxes: int, logistic: tuple[slice, ...], classes: int, softmax: bool = False) -> None:
        super().__init__()
        self.boxes, self.logistic, self.classes, self.softmax = boxes, logistic, classes, softmax

    def forward(self, x: Tensor) -> Tensor:
        values = x.unflatten(1, (self.boxes, -1))
        parts, start = [], 0
        for part in self.logistic:
            parts += [values[:, :, start : part.start], values[:, :, part].sigmoid()]
            start = part.stop
        rest = values[:, :, start:]
        parts.append(rest.softmax(2) if self.softmax and self.classes else rest)
        return torch.cat([p for p in parts if p.shape[2]], 2).flatten(1, 2)

    def extra_repr(self) -> str:
        return f"{self.boxes} boxes a cell, {self.classes} classes"


def _boxes_and_classes(ctx: LayerContext) -> tuple[int, int]:
    """Boxes of a cell (the length of `mask`, else `num`) and classes."""
    s = ctx.section
    boxes = len(s.integers("mask")) if s.text("mask") else s.integer("num", 1, minimum=1)
    return boxes, s.integer("classes", 20, minimum=0)


def _check_channels(ctx: LayerContext, boxes: int, values: int, keys: str) -> None:
    if ctx.shape[0] != boxes * values:
        raise ctx.section.error(
            f"[{ctx.section.type}] needs {boxes}·{values} = {boxes * values} channels ({keys}), "
            f"but the map before it is {shape_text(ctx.shape)}",
            f"Write filters={boxes * values} in the layer before it, or change {keys}.",
        )


@layer("yolo")
def yolo(ctx: LayerContext) -> BuiltLayer:
    """Logistic: x, y, objectness and classes, but not w and h. With `new_coords` the previous layer has done it."""
    boxes, classes = _boxes_and_classes(ctx)
    _check_channels(ctx, boxes, classes + 5, "classes and mask")
    logistic = () if ctx.section.flag("new_coords") else (slice(0, 2), slice(4, classes + 5))
    return BuiltLayer(BoxHead(boxes, logistic, classes), ctx.shape)


@layer("Gaussian_yolo")
def gaussian_yolo(ctx: LayerContext) -> BuiltLayer:
    """A mean and a deviation for each coordinate (Choi et al. 2019). Logistic: all but the means of w and h."""
    boxes, classes = _boxes_and_classes(ctx)
    _check_channels(ctx, boxes, classes + 9, "classes and mask")
    logistic = (slice(0, 4), slice(5, 6), slice(7, classes + 9))
    return BuiltLayer(BoxHead(boxes, logistic, classes), ctx.shape)


@layer("region")
def region(ctx: LayerContext) -> BuiltLayer:
    """YOLOv2. Logistic: x, y and objectness."""
    s = ctx.section
    boxes, coords = s.integer("num", 1, minimum=1), s.integer("coords", 4, minimum=2)
    classes = s.integer("classes", 20, minimum=0)
    _check_channels(ctx, boxes, classes + coords + 1, "classes, coords and num")
    logistic = (slice(0, 2), slice(coords, coords + 1))
    return BuiltLayer(BoxHead(boxes, logistic, classes, s.flag("softmax") or s.has("tree")), ctx.shape)


class GridHead(DetectionHead):
    """YOLOv1: the values of a grid as a fully connected layer gives them, those of all classes first."""

    def __init__(self, cells: int, classes: int, softmax: bool) -> None:
        super().__init__()
        self.cells, self.classes, self.softmax = cells, classes, softmax

    def forward(self, x: Tensor) -> Tensor:
        if not (self.softmax and self.classes):
            return x
        values = x.flatten(1)
        count = self.cells * self.classes
        classes = values[:, :count].unflatten(1, (self.cells, self.classes)).softmax(2).flatten(1)
        return torch.cat([classes, values[:, count:]], 1).view(x.shape)


@layer("detection")
def detection(ctx: LayerContext) -> BuiltLayer:
    s = ctx.section
    side, num = s.integer("side", 7, minimum=1), s.integer("num", 1, minimum=1)
    classes, coords = s.integer("classes", 1, minimum=0), s.integer("coords", 1, minimum=1)
    values = side * side * ((1 + coords) * num + classes)
    if prod(ctx.shape) != values:
        raise s.error(
            f"[detection] needs {values} values (side, num, coords, classes), but the layer before it gives "
            f"{prod(ctx.shape)}",
            f"Write output={values} in the layer before it.",
        )
    return BuiltLayer(GridHead(side * side, classes, s.flag("softmax")), ctx.shape)
