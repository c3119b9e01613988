"""What the layers of a cfg have in common: for each section type a builder, and the module that it builds.

A builder takes the `Place` of its section and returns the module, what it reads and the shape that it gives. Shapes
are (c, h, w) for one image, by Darknet's arithmetic; tensors are (N, c, h, w) throughout, vectors (N, n, 1, 1). To
add a type, write a builder and decorate it with `layer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from cspprof.core.registry import Registry
from cspprof.sources.darknet import ops
from cspprof.sources.darknet.activations import NAMES, activation
from cspprof.sources.darknet.cfg import Section

Tensor = torch.Tensor
Shape = tuple[int, int, int]


class Built(NamedTuple):
    """A layer that is ready: its module, the shape that it gives, and the layers that it reads (-1: the input)."""

    module: nn.Module
    shape: Shape
    reads: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a section stands: its number, the shape before it, all layers built before it."""

    section: Section
    index: int
    shape: Shape
    before: Sequence[Built]
    notes: list[str]

    @property
    def previous(self) -> tuple[int, ...]:
        return (self.index - 1,)

    def resolve(self, key: str) -> tuple[int, ...]:
        """The layers that `key` names, counted from the start. Raises SourceError for one that is not before this."""
        return tuple(self._one(key, n) for n in self.section.numbers(key, most=10_000))

    def resolve_first(self, key: str) -> int:
        """The first layer that `key` names; Darknet passes over the others."""
        return self._one(key, self.section.numbers(key, most=10_000)[0])

    def _one(self, key: str, n: int) -> int:
        index = n + self.index if n < 0 else n
        if 0 <= index < self.index:
            return index
        what = "comes before the first layer" if index < 0 else "is not before it: that would be a cycle"
        only = f"The layers before it are 0 to {self.index - 1}, or -1 to -{self.index}."
        raise self.section.error(
            f"layer {self.index}, [{self.section.type}] {key}={n}: layer {index} {what}",
            only if self.index else "It is the first layer: there is none before it.",
            key,
        )

    def activation(self, default: str) -> nn.Module | None:
        name = self.section.text("activation", default)
        if name not in NAMES:
            line = self.section.options["activation"][1]
            self.notes.append(f"line {line}: Darknet knows no activation {name!r} and takes relu, as is done here")
        return activation(name)

    def strides(self) -> tuple[int, int]:
        """(y, x)."""
        stride = self.section.number("stride", 1, least=1)
        return self.section.number("stride_y", stride, least=1), self.section.number("stride_x", stride, least=1)

    def windows(self, size: int, padding: int, strides: tuple[int, int]) -> tuple[int, int]:
        """Places of a window over the map before it. Raises SourceError where the map is too small for one."""
        height, width = ((n + padding - size) // s + 1 for n, s in zip(self.shape[1:], strides, strict=True))
        if min(height, width) < 1:
            raise self.section.error(
                f"[{self.section.type}] a window of {size}×{size} does not fit a map of {shown(self.shape)}",
                "Trace a larger image (--input 1x3x416x416), or make the window smaller.",
            )
        return height, width


LAYERS: Registry[Callable[[Place], Built]] = Registry("Darknet layer")
Builder = Callable[[Place], Built]


def layer(*names: str) -> Callable[[Builder], Builder]:
    """Register a builder under the section names that Darknet knows it by."""

    def register(builder: Builder) -> Builder:
        for name in names:
            LAYERS.add(name, builder)
        return builder

    return register


def shown(shape: Shape) -> str:
    return "×".join(map(str, shape))


def row(*parts: tuple[str, nn.Module | None]) -> nn.Module:
    """The given parts in a row, absent ones left out."""
    made = nn.Sequential()
    for name, part in parts:
        if part is not None:
            made.add_module(name, part)
    return made


class Call(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, name: str, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)

    def extra_repr(self) -> str:
        return self.name


def blurring(
    at: Place, blurred: int, strides: tuple[int, int], height: int, width: int
) -> tuple[nn.Module | None, int, int]:
    """With antialiasing the layer itself runs at stride 1, and a blur takes the strides."""
    if not blurred:
        return None, height, width
    size, padding = (2, 0) if blurred == 2 else (3, 1)
    module = Call(f"{size}×{size}, stride {strides}", lambda x: ops.blur(x, size, list(strides)))
    return module, (height + 2 * padding - size) // strides[0] + 1, (width + 2 * padding - size) // strides[1] + 1
