"""The module paths that exporters write into the nodes of a graph, as a layer table."""

from __future__ import annotations

import re

from onnx import NodeProto

from cspprof.core.record import Layer

MAX_LEVELS = 64
MAX_PATH = 1_000
MAX_MODULES = 100_000
"""Levels and characters of the path of a module, and modules of a graph. Nodes beyond belong to the root."""


class ModulePaths:
    """Numbers the modules of a graph in order of appearance; 0 is the root."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {"": 0}
        self.classes: dict[str, str] = {}

    def layer_of(self, node: NodeProto) -> int:
        """The number of the module that contains the node. New modules are added with their parents."""
        path = self._path(node)
        if path not in self.numbers:
            parts = path.split(".")
            if len(parts) > MAX_LEVELS or len(path) > MAX_PATH or len(self.numbers) > MAX_MODULES:
                return 0
            for i in range(1, len(parts) + 1):
                self.numbers.setdefault(".".join(parts[:i]), len(self.numbers))
        return self.numbers[path]

    def layers(self) -> tuple[Layer, ...]:
        return tuple(
            Layer(path, self.classes.get(path, ""), path.count(".") + 1 if path else 0, 1, 0) for path in self.numbers
        )

    def _path(self, node: NodeProto) -> str:
        """`layer1.0.conv1`, from the scopes in the metadata of torch's newer exporter or from a node name such as
        `/layer1/layer1.0/conv1/Conv`."""
        metadata = {p.key: p.value for p in node.metadata_props}
        if "pkg.torch.onnx.name_scopes" in metadata:
            scopes = _string_list(metadata["pkg.torch.onnx.name_scopes"])
            classes = _string_list(metadata.get("pkg.torch.onnx.class_hierarchy", ""))
            self.classes.update(zip(scopes[:-1], classes, strict=False))
            return scopes[-2] if len(scopes) > 1 else ""
        if not node.name.startswith("/"):
            return ""
        path: list[str] = []
        for part in node.name.split("/")[1:-1]:
            if path and part.startswith(f"{path[-1]}."):
                path[-1] = part
            else:
                path.append(part)
        return ".".join(path)


def _string_list(text: str) -> list[str]:
    """The strings of a list that is written as in Python."""
    return [a or b for a, b in re.findall(r"'([^'\\]*)'|\"([^\"\\]*)\"", text)]
