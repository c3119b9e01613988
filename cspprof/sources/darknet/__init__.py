"""A network written as a Darknet `.cfg`: read (`cfg`), built layer by layer, run as a module (`network`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cspprof.core.errors import SourceError
from cspprof.core.files import shown
from cspprof.core.inputs import arguments
from cspprof.sources.build import fixed_seed
from cspprof.sources.darknet.cfg import read
from cspprof.sources.darknet.network import build, native_input
from cspprof.sources.spec import LoadedModel, Request, Spec


@contextmanager
def open_model(spec: Spec, request: Request) -> Iterator[LoadedModel]:
    """The network, built for `--input` or for the size that `[net]` names."""
    if spec.options:
        raise SourceError(f"{spec.target} is a cfg and takes no options", f"Write only: {spec.target}")
    path = Path(spec.target)
    sections, notes = read(path)
    net, *layers = sections
    shape = native_input(net) if request.inputs is None else _asked(spec, request.inputs)
    image = (shape[1], *(shape[2:] or (1, 1)))
    with fixed_seed(), torch.device(request.device or "meta"):
        module, more = build(layers, image)  # type: ignore[arg-type]
    yield LoadedModel(module, shape, path.name, shown(path), notes + more)


def _asked(spec: Spec, inputs: Any) -> tuple[int, ...]:
    """The one shape that `--input` gives."""
    shapes: list[tuple[int, ...]] = []
    arguments(inputs, lambda given: shapes.append(tuple(given.shape)))
    if len(shapes) != 1 or len(shapes[0]) not in (2, 4) or 0 in shapes[0]:
        raise SourceError(f"{spec.target} reads one image", "Write for example --input 1x3x416x416")
    return shapes[0]
