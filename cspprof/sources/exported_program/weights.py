"""The tensors of an exported program: views of the bytes in the archive. Nothing is unpickled."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import torch
from torch import nn

from cspprof.sources.exported_program.archive import Archive
from cspprof.sources.exported_program.graph import Program, TensorValue, check_path, tensor_value
from cspprof.sources.exported_program.json_values import MalformedError, field, shorten

PICKLED = "its weights are pickled, as torch 2.7 and earlier versions wrote them: they are not read"


class HeldTensor(NamedTuple):
    """A tensor of the model: `kind` is `parameter`, `buffer` or `constant`."""

    kind: str
    path: str
    tensor: torch.Tensor


def read_weights(
    archive: Archive, name: str, program: Program, device: str
) -> tuple[list[HeldTensor], tuple[str, ...]]:
    """The parameters, buffers and constants of the program `name`, and notes for its record.

    Tensors of older files, whose data are pickled, are on meta. Then parameters that the graph does not use are
    missing, and another `device` than meta, on which a trace needs values, is an error. Raises MalformedError.
    """
    configs = [f"data/weights/{name}_weights_config.json", f"data/constants/{name}_constants_config.json"]
    kinds = {target: kind for kind, target in program.weights.values()}
    if configs[0] not in archive:
        if device != "meta":
            raise MalformedError(PICKLED, "Trace without values, on the default device.")
        return _from_shapes(program), (f"{PICKLED}; weights that the graph does not use are not counted",)
    reader = _TensorReader(archive, "cpu" if device == "meta" else device)
    held = []
    for config, folder, other_kind in zip(configs, ("weights", "constants"), ("buffer", "constant"), strict=True):
        for path, entry in field(archive.json(config), "config", dict, config).items():
            check_path(path)
            is_parameter = field(entry, "is_param", bool, path)
            kind = kinds.get(path, "parameter" if is_parameter else other_kind)
            held.append(HeldTensor(kind, path, reader.tensor(entry, folder, path, kind == "parameter")))
    return held, ()


def _from_shapes(program: Program) -> list[HeldTensor]:
    """The tensors that the graph uses, on meta, by the shapes that it states."""
    held = []
    for name, (kind, path) in program.weights.items():
        if name not in program.tensors:
            raise MalformedError(f"the shape of {shorten(path)} is missing")
        held.append(HeldTensor(kind, path, _as_parameter(_on_meta(program.tensors[name], path), kind, True)))
    return held


class _TensorReader:
    """Gives tied weights as one object."""

    def __init__(self, archive: Archive, device: str) -> None:
        self.archive = archive
        self.device = device
        self.made: dict[tuple[Any, ...], torch.Tensor] = {}
        self.data: dict[str, torch.Tensor] = {}
        """The bytes of each entry that was read."""
        if "byteorder" in archive and bytes(archive.read("byteorder")) != sys.byteorder.encode():
            raise MalformedError("its weights have another byte order than this machine")

    def tensor(self, entry: Any, folder: str, path: str, is_parameter: bool) -> torch.Tensor:
        file = field(entry, "path_name", str, path)
        if field(entry, "use_pickle", bool, path):
            raise MalformedError(
                f"the tensor {shorten(path)} is pickled ({shorten(file)})",
                "It is not loaded, because that could run code. Export the model with plain tensors.",
            )
        value = tensor_value(field(entry, "tensor_meta", dict, path), path)
        key = (folder, file, is_parameter, *value)
        if key not in self.made:
            tensor = self._read(f"data/{folder}/{file}", value, path).to(self.device)
            self.made[key] = _as_parameter(tensor, "parameter" if is_parameter else "", value.requires_grad)
        return self.made[key]

    def _read(self, entry: str, value: TensorValue, path: str) -> torch.Tensor:
        size = self.archive.size(entry)
        if size < 0:
            raise MalformedError(f"the data of {shorten(path)} are missing: {shorten(entry)}")
        shape, strides, offset = _plain_sizes(value, path)
        if size == 0 and 0 in shape:
            return torch.empty(shape, dtype=value.dtype)
        if size == 0 and self.device == "cpu":  # an export of fake tensors
            return _on_meta(value, path)
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if 0 not in shape and (last + 1) * value.dtype.itemsize > size:
            raise MalformedError(f"the data of {shorten(path)} have {size:,} bytes, too few for its shape")
        if entry not in self.data:
            data = torch.frombuffer(self.archive.read(entry), dtype=torch.uint8)
            if data.data_ptr() % 16:  # an archive that was packed again is not aligned
                data = data.clone()
            self.data[entry] = data
        count = size - size % value.dtype.itemsize
        return self.data[entry][:count].view(value.dtype).as_strided(shape, strides, offset)


def _plain_sizes(value: TensorValue, path: str) -> tuple[list[int], list[int], int]:
    numbers = [size for size in (*value.sizes, *value.strides, value.offset) if isinstance(size, int)]
    if len(numbers) != 2 * len(value.sizes) + 1 or numbers[-1] < 0:
        raise MalformedError(f"the tensor {shorten(path)} of the model has a size that depends on the input")
    return numbers[: len(value.sizes)], numbers[len(value.sizes) : -1], numbers[-1]


def _on_meta(value: TensorValue, path: str) -> torch.Tensor:
    shape, strides, _ = _plain_sizes(value, path)
    return torch.empty_strided(shape, strides, dtype=value.dtype, device="meta")


def _as_parameter(tensor: torch.Tensor, kind: str, requires_grad: bool) -> torch.Tensor:
    if kind != "parameter":
        return tensor
    can = tensor.is_floating_point() or tensor.is_complex()
    return nn.Parameter(tensor, requires_grad=requires_grad and can)
