"""Detection heads: what the last convolution says of boxes, brought to their ranges."""

from __future__ import annotations

from math import prod

import torch
from torch import nn

from cspprof.sources.darknet.layers import Built, Place, Tensor, layer, shown


class Head(nn.Module):
    """Boxes of a grid cell; the shape stays. What a detector returns are its heads."""


class Boxes(Head):
    """(N, boxes·values, H, W): of each box the values in `logistic` through a sigmoid, the `classes` last ones
    through a softmax where asked, the others as they are."""

    def __init__(self, boxes: int, logistic: tuple[slice, ...], classes: int, softmax: bool) -> None:
        super().__init__()
        self.boxes, self.logistic, self.classes, self.softmax = boxes, logistic, classes, softmax

    def forward(self, x: Tensor) -> Tensor:
        values = x.unflatten(1, (self.boxes, -1))
        parts, at = [], 0
        for part in self.logistic:
            parts += [values[:, :, at : part.start], values[:, :, part].sigmoid()]
            at = part.stop
        rest = values[:, :, at:]
        parts.append(rest.softmax(2) if self.softmax and self.classes else rest)
        return torch.cat([p for p in parts if p.shape[2]], 2).flatten(1, 2)

    def extra_repr(self) -> str:
        return f"{self.boxes} boxes a cell, {self.classes} classes"


def _boxes(at: Place) -> int:
    """Boxes a cell: as many as `mask` lists, else `num`."""
    if at.section.text("mask"):
        return len(at.section.numbers("mask", most=10_000))
    return at.section.number("num", 1, least=1)


def _check(at: Place, boxes: int, values: int, from_keys: str) -> None:
    if at.shape[0] != boxes * values:
        raise at.section.error(
            f"[{at.section.type}] wants {boxes}·{values} = {boxes * values} channels ({from_keys}); "
            f"the map before it is {shown(at.shape)}",
            f"Write filters={boxes * values} in the layer before it, or change {from_keys}.",
        )


@layer("yolo")
def yolo(at: Place) -> Built:
    """Of x, y, w, h, objectness and classes all but w and h are logistic; with new_coords the layer before did it."""
    boxes, classes = _boxes(at), at.section.number("classes", 20, least=0)
    _check(at, boxes, classes + 5, "classes and mask")
    logistic = () if at.section.flag("new_coords") else (slice(0, 2), slice(4, classes + 5))
    return Built(Boxes(boxes, logistic, classes, softmax=False), at.shape, at.previous)


@layer("Gaussian_yolo")
def gaussian_yolo(at: Place) -> Built:
    """As yolo, with a mean and a deviation for each coordinate (Choi et al. 2019): all logistic but the means of w
    and h."""
    boxes, classes = _boxes(at), at.section.number("classes", 20, least=0)
    _check(at, boxes, classes + 9, "classes and mask")
    logistic = (slice(0, 4), slice(5, 6), slice(7, classes + 9))
    return Built(Boxes(boxes, logistic, classes, softmax=False), at.shape, at.previous)


@layer("region")
def region(at: Place) -> Built:
    """YOLOv2: x, y and objectness are logistic, the classes compete where `softmax`."""
    s = at.section
    boxes, classes, coords = (
        s.number("num", 1, least=1),
        s.number("classes", 20, least=0),
        s.number("coords", 4, least=2),
    )
    _check(at, boxes, classes + coords + 1, "classes, coords and num")
    logistic = (slice(0, 2), slice(coords, coords + 1))
    return Built(Boxes(boxes, logistic, classes, s.flag("softmax") or s.has("tree")), at.shape, at.previous)


class Grid(Head):
    """YOLOv1: the values of a side×side grid as the full connection gave them, classes first."""

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
def detection(at: Place) -> Built:
    s = at.section
    side, num = s.number("side", 7, least=1), s.number("num", 1, least=1)
    classes, coords = s.number("classes", 1, least=0), s.number("coords", 1, least=1)
    wanted = side * side * ((1 + coords) * num + classes)
    if prod(at.shape) != wanted:
        raise s.error(
            f"[detection] wants {wanted} values (side, num, coords, classes); the layer before gives {prod(at.shape)}",
            f"Write output={wanted} in the layer before it.",
        )
    return Built(Grid(side * side, classes, s.flag("softmax")), at.shape, at.previous)
