"""A cfg as a module that runs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from cspprof.core.errors import SourceError
from cspprof.sources.darknet import convolutions, heads, pools, wiring  # noqa: F401  (they register their layers)
from cspprof.sources.darknet.cfg import Section
from cspprof.sources.darknet.heads import Head
from cspprof.sources.darknet.layers import LAYERS, Built, Place, Shape, Tensor


class Darknet(nn.Module):
    """The layers of a cfg in their order, named as Darknet numbers them: `0_convolutional`, `1_maxpool`, ….

    (N, c, h, w) -> the detection heads' maps as a tuple, or what the last layer gives, (N, n, 1, 1) for a classifier.
    A map is kept no longer than some layer still reads it.
    """

    def __init__(self, layers: Sequence[tuple[str, Built]]) -> None:
        super().__init__()
        self.reads = [built.reads for _, built in layers]
        found = [i for i, (_, built) in enumerate(layers) if isinstance(built.module, Head)]
        self.returned = found or [len(layers) - 1]
        for i, (kind, built) in enumerate(layers):
            self.add_module(f"{i}_{kind}", built.module)
        last = {i: reader for reader, reads in enumerate(self.reads) for i in reads}
        self.dropped: list[list[int]] = [[] for _ in layers]
        for i, reader in last.items():
            if i not in self.returned:
                self.dropped[reader].append(i)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        maps = {-1: x if x.dim() == 4 else x.flatten(1)[:, :, None, None]}
        del x
        for i, module in enumerate(self.children()):
            maps[i] = module(*[maps[j] for j in self.reads[i]])
            for j in self.dropped[i]:
                del maps[j]
        found = tuple(maps[i] for i in self.returned)
        return found[0] if len(found) == 1 else found


def native_input(net: Section) -> tuple[int, ...]:
    """(1, c, h, w) of `[net]`, or (1, inputs) where it names no image. Raises SourceError where it says neither."""
    size = tuple(net.number(key, 0, least=0) for key in ("channels", "height", "width"))
    if all(size):
        return (1, *size)
    inputs = net.number("inputs", 0, least=0)
    if inputs:
        return (1, inputs)
    missing = [key for key, n in zip(("channels", "height", "width"), size, strict=True) if not n]
    raise net.error(f"[net] says no {' and no '.join(missing)}", "Write for example width=416, height=416, channels=3")


RECURRENT = frozenset({"rnn", "gru", "lstm", "crnn", "conv_lstm", "history"})
"""Darknet's layers that keep a state from one time step to the next; a network of one image has none."""


def build(sections: Sequence[Section], image: Shape) -> tuple[Darknet, tuple[str, ...]]:
    """The network for an image of shape (c, h, w), and notes. Raises SourceError with the line of what is wrong."""
    _refuse_unknown(sections)
    built: list[Built] = []
    notes: list[str] = []
    shape = image
    for i, section in enumerate(sections):
        made = LAYERS.get(section.type)(Place(section, i, shape, built, notes))
        built.append(made)
        shape = made.shape
    names = [section.type for section in sections]
    return Darknet(list(zip(names, built, strict=True))), tuple(notes)


def _refuse_unknown(sections: Sequence[Section]) -> None:
    unknown = [s for s in sections if s.type not in LAYERS]
    if unknown:
        named = ", ".join(f"[{s.type}] in line {s.line}" for s in unknown[:5])
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        recurrent = unknown[0].type in RECURRENT
        hint = "Recurrent sections are not read." if recurrent else LAYERS.suggest(unknown[0].type)
        raise SourceError(
            f"{unknown[0].file} has layers that cspprof does not know: {named}{more}",
            f"{hint} Nothing was counted, since a part would be missing.",
        )
