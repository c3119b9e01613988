"""What the layers of a cfg share: the registry of builders, and the context that a builder receives.

To support a section type, write one builder and decorate it with `layer("name of the section")`. A builder takes a
`LayerContext` and returns a `BuiltLayer`. Shapes are (c, h, w) of one image, by Darknet's arithmetic. Tensors are
(N, c, h, w) everywhere; a vector is (N, n, 1, 1).

The builders lie in `convolution`, `pooling`, `connections` (route, shortcut, scale_channels, sam, implicit),
`transforms` (upsample, reorg, crop, softmax, batchnorm …) and `detection_heads`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from torch import nn

from cspprof.core.registry import Registry
from cspprof.core.units import shortened
from cspprof.sources.darknet.activations import NAMES, activation
from cspprof.sources.darknet.cfg import SHOWN, Section

Shape = tuple[int, int, int]
MAX_ELEMENTS = 2**60 - 1
"""Elements of a map or of the weights of a layer. With eight bytes each, torch can describe them."""


class BuiltLayer(NamedTuple):
    """The module of a section."""

    module: nn.Module
    shape: Shape
    """Of its output."""
    inputs: tuple[int, ...] | None = None
    """The layers that it reads, -1 for the image. None: the previous layer."""


@dataclass(frozen=True, slots=True)
class LayerContext:
    """A section, and what was built before it."""

    section: Section
    index: int
    """Darknet's number of the layer."""
    shape: Shape
    """The output shape of the previous layer, or the shape of the image."""
    built: Sequence[BuiltLayer]
    """The layers before it."""
    notes: list[str]
    """Notes for the record; a builder may append to it."""

    def source_layers(self, key: str) -> tuple[int, ...]:
        """The absolute numbers of the layers that the option `key` names. Raises SourceError unless all are earlier."""
        return tuple(self._absolute(key, n) for n in self.section.integers(key))

    def source_layer(self, key: str) -> int:
        """The first layer that the option `key` names; Darknet ignores the others."""
        return self._absolute(key, self.section.integers(key)[0])

    def _absolute(self, key: str, n: int) -> int:
        index = n + self.index if n < 0 else n
        if 0 <= index < self.index:
            return index
        what = "comes before the first layer" if index < 0 else "is not an earlier layer, so this would be a cycle"
        choice = f"The earlier layers are 0 to {self.index - 1}, or -1 to -{self.index}."
        raise self.section.error(
            f"layer {self.index}, [{self.section.type}] {key}={n}: layer {index} {what}",
            choice if self.index else "This is the first layer: it cannot read another.",
            key,
        )

    def activation(self, default: str) -> nn.Module | None:
        """The activation of the section; None for `linear`."""
        name = self.section.text("activation", default)
        if name not in NAMES:
            line, shown = self.section.options["activation"][1], shortened(name, SHOWN)
            self.notes.append(f"line {line}: the activation {shown!r} is unknown, so relu is used, as in Darknet")
        return activation(name)

    def check_size(self, what: str, *shape: int) -> None:
        """Raise SourceError if no tensor can have this shape. `what` names the tensor: `its map`."""
        if prod(shape) > MAX_ELEMENTS:
            raise self.section.error(
                f"[{self.section.type}] the shape {shape_text(shape)} of {what} is too large for a tensor",
                "Write smaller numbers in this section, or give a smaller image: --input 1x3x416x416",
            )

    def strides(self) -> tuple[int, int]:
        """(y, x)."""
        stride = self.section.integer("stride", 1, minimum=1)
        return self.section.integer("stride_y", stride, minimum=1), self.section.integer("stride_x", stride, minimum=1)

    def output_size(self, window: int, padding: int, strides: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the output of a square sliding window; `padding` is the sum of both sides.

        Raises SourceError if the window does not fit the map.
        """
        height, width = ((n + padding - window) // s + 1 for n, s in zip(self.shape[1:], strides, strict=True))
        if min(height, width) < 1:
            raise self.section.error(
                f"[{self.section.type}] a window of {window}×{window} does not fit a map of {shape_text(self.shape)}",
                "Give a larger image (--input 1x3x416x416) or write a smaller size.",
            )
        return height, width


LayerBuilder = Callable[[LayerContext], BuiltLayer]
LAYER_BUILDERS: Registry[LayerBuilder] = Registry("Darknet layer")


def layer(*names: str) -> Callable[[LayerBuilder], LayerBuilder]:
    """Register a builder for the sections with these names."""

    def register(builder: LayerBuilder) -> LayerBuilder:
        for name in names:
            LAYER_BUILDERS.add(name, builder)
        return builder

    return register


def shape_text(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def sequential(**modules: nn.Module | None) -> nn.Module:
    """The modules in sequence, without those that are None."""
    result = nn.Sequential()
    for name, module in modules.items():
        if module is not None:
            result.add_module(name, module)
    return result
