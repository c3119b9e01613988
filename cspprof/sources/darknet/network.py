"""The network of a cfg as a module."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from cspprof.core.errors import SourceError
from cspprof.sources.darknet import (  # noqa: F401  (each registers its layers)
    connections,
    convolution,
    pooling,
    transforms,
)
from cspprof.sources.darknet.cfg import MAX_INPUTS, Section
from cspprof.sources.darknet.detection_heads import DetectionHead
from cspprof.sources.darknet.functions import Tensor
from cspprof.sources.darknet.layers import LAYER_BUILDERS, BuiltLayer, LayerContext, Shape

RECURRENT = frozenset({"rnn", "gru", "lstm", "crnn", "conv_lstm", "history"})
"""Darknet's layers with a state, which a forward pass of one image does not have. They are not supported."""


class DarknetModel(nn.Module):
    """The layers of a cfg in order, with names that start with Darknet's numbers: `0_convolutional`, `1_maxpool`, ….

    (N, c, h, w) -> a tuple of the outputs of all detection heads; the one output if there is one head; without a head
    the output of the last layer, which is (N, n, 1, 1) for a classifier. An output is freed after its last reader.
    """

    def __init__(self, layers: Sequence[tuple[str, BuiltLayer]]) -> None:
        super().__init__()
        self.inputs = [(i - 1,) if built.inputs is None else built.inputs for i, (_, built) in enumerate(layers)]
        heads = [i for i, (_, built) in enumerate(layers) if isinstance(built.module, DetectionHead)]
        self.returned = heads or [len(layers) - 1]
        for i, (kind, built) in enumerate(layers):
            self.add_module(f"{i}_{kind}", built.module)
        last_reader = {i: reader for reader, inputs in enumerate(self.inputs) for i in inputs}
        self.freed: list[list[int]] = [[] for _ in layers]
        """The outputs that are freed after each layer."""
        for i, reader in last_reader.items():
            if i not in self.returned:
                self.freed[reader].append(i)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        outputs = {-1: x if x.dim() == 4 else x.flatten(1)[:, :, None, None]}
        del x
        for i, module in enumerate(self.children()):
            outputs[i] = module(*[outputs[j] for j in self.inputs[i]])
            for j in self.freed[i]:
                del outputs[j]
        returned = tuple(outputs[i] for i in self.returned)
        return returned[0] if len(returned) == 1 else returned


def native_input(net: Section) -> tuple[int, ...]:
    """The input shape that `[net]` states: (1, c, h, w), or (1, inputs). Raises SourceError if it states neither."""
    size = tuple(net.integer(key, 0, minimum=0) for key in ("channels", "height", "width"))
    if all(size):
        return (1, *size)
    inputs = net.integer("inputs", 0, minimum=0)
    if inputs:
        return (1, inputs)
    missing = [key for key, n in zip(("channels", "height", "width"), size, strict=True) if not n]
    raise net.error(f"[net] has no {' and no '.join(missing)}", "Write for example width=416, height=416, channels=3")


def build_network(sections: Sequence[Section], image: Shape, batch: int = 1) -> tuple[DarknetModel, tuple[str, ...]]:
    """The network for a batch of images of shape (c, h, w), and notes. Raises SourceError with the line of the
    section."""
    _refuse_unknown(sections)
    layers: list[BuiltLayer] = []
    notes: list[str] = []
    shape = image
    inputs = 0
    for i, section in enumerate(sections):
        context = LayerContext(section, i, shape, layers, notes)
        layers.append(LAYER_BUILDERS.get(section.type)(context))
        shape = layers[-1].shape
        context.check_size("its map", batch, *shape)
        inputs += len(layers[-1].inputs or ())
        if inputs > MAX_INPUTS:
            raise section.error(
                f"[{section.type}] the layers up to this one read {inputs:,} maps", f"The limit is {MAX_INPUTS:,}."
            )
    types = [section.type for section in sections]
    return DarknetModel(list(zip(types, layers, strict=True))), tuple(notes)


def _refuse_unknown(sections: Sequence[Section]) -> None:
    unknown = [s for s in sections if s.type not in LAYER_BUILDERS]
    if unknown:
        names = ", ".join(f"[{s.type}] in line {s.line}" for s in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        recurrent = unknown[0].type in RECURRENT
        hint = "Recurrent layers are not supported." if recurrent else LAYER_BUILDERS.suggest(unknown[0].type)
        raise SourceError(
            f"{unknown[0].file} has layers that cspprof does not know: {names}{more}",
            f"{hint} Nothing was counted, because the total would be incomplete.",
        )
