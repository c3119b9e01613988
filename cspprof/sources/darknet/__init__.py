"""A network written as a Darknet `.cfg` file.

`cfg` reads the file, `network` builds a module from it. The builders of its sections are in `convolution`, `pooling`,
`connections`, `transforms` and `detection_heads`; `layers` says how to add one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import torch

from cspprof.core.errors import SourceError
from cspprof.core.files import display_path
from cspprof.core.inputs import Inputs, Value, arguments
from cspprof.sources.build import build_failed
from cspprof.sources.darknet.cfg import read_cfg
from cspprof.sources.darknet.layers import MAX_ELEMENTS, shape_text
from cspprof.sources.darknet.network import DarknetModel, build_network, native_input
from cspprof.sources.private_seed import build_seeded
from cspprof.sources.spec import LoadedModel, Request, Spec


@contextmanager
def open_model(spec: Spec, request: Request) -> Iterator[LoadedModel]:
    """The network, built for the requested input or for the size that `[net]` states. Raises SourceError."""
    if spec.options:
        raise SourceError(f"{spec.target} is a cfg and takes no options", f"Write only: {spec.target}")
    path = Path(spec.target)
    (net, *layers), notes = read_cfg(path)
    shape = native_input(net) if request.inputs is None else _requested_shape(spec, request.inputs)
    height, width = shape[2:] or (1, 1)
    image = (shape[1], height, width)
    if prod(shape) > MAX_ELEMENTS:
        raise SourceError(
            f"{spec.target}: the shape {shape_text(shape)} of the image is too large for a tensor",
            "Write for example --input 1x3x416x416",
        )

    def build() -> tuple[DarknetModel, tuple[str, ...]]:
        with torch.device(request.device or "meta"):
            return build_network(layers, image, shape[0])

    try:
        module, more = build_seeded(build)
    except (RuntimeError, AssertionError) as error:  # no such device, or too little memory on it
        raise build_failed(spec, error, request.device) from error
    yield LoadedModel(module, shape, path.name, display_path(path), notes + more)


def _requested_shape(spec: Spec, inputs: Inputs) -> tuple[int, ...]:
    shapes: list[tuple[int, ...]] = []
    values: list[Value] = []
    arguments(inputs, lambda tensor: shapes.append(tuple(tensor.shape)), values.append)
    if values or len(shapes) != 1 or len(shapes[0]) not in (2, 4) or 0 in shapes[0]:
        raise SourceError(f"{spec.target} takes one image as its input", "Write for example --input 1x3x416x416")
    return shapes[0]
