"""The layers that cause a failure: those that changed, with the file and line of their class."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from cspprof.gate.measurement import Measurement, layer_settings

WHY_LAYERS = 10
"""The number of layers that `cspprof check --why` shows for a failure; a last row sums up the others."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A layer that contributes to a failure."""

    layer: str
    value: Fraction
    before: Fraction | None
    """None for a new layer, or if there is nothing to compare with."""
    operation: str
    """Empty for a layer that was removed."""
    operation_before: str = ""
    class_name: str = ""
    file: str = ""
    line: int | None = None
    new: bool = False
    """Whether the model that it is compared with does not have this layer."""

    @property
    def difference(self) -> Fraction:
        return self.value - (self.before or 0)

    @property
    def only_input_changed(self) -> bool:
        """Whether the layer has the same settings as before and reads an input of another shape."""
        before, now = self.operation_before, self.operation
        return bool(before and now) and before != now and layer_settings(before) == layer_settings(now)


def find_causes(
    folder: Path,
    metric: str,
    measurement: Measurement,
    recorded: Measurement | None,
    base: Measurement | None,
    *,
    within: str = "",
    decreased: bool = False,
) -> tuple[Cause, ...]:
    """The layers (of the module `within`) in which `metric` increased, or `decreased`, since `recorded`.

    `recorded` is the same model as it was recorded. If it shares too few layers with the model, `base` is compared, and
    without either all layers are listed by value. Layers that changed come before layers of which only the input
    changed; both are sorted by the size of the difference. Empty for a metric that layers do not have.
    """
    lines = _class_lines(folder, measurement)
    for other in (recorded, base):
        if other is not None and _share_layers(measurement, other):
            causes = [
                cause
                for cause in _layers(metric, measurement, other, within, lines)
                if cause.difference and (cause.difference < 0) == decreased
            ]
            if causes:
                return tuple(sorted(causes, key=lambda cause: (cause.only_input_changed, -abs(cause.difference))))
    return tuple(sorted(_layers(metric, measurement, None, within, lines), key=lambda cause: -cause.value))


def _share_layers(measurement: Measurement, other: Measurement) -> bool:
    """Whether at least half of the layers have the same path in both."""
    return 2 * len(measurement.layers.keys() & other.layers.keys()) >= len(measurement.layers)


def _layers(
    metric: str, measurement: Measurement, other: Measurement | None, within: str, lines: Mapping[str, int]
) -> Iterator[Cause]:
    before = {} if other is None else other.layers
    for path in dict.fromkeys([*measurement.layers, *before]):
        if within and path != within and not path.startswith(within + "."):
            continue
        new, old = measurement.layers.get(path), before.get(path)
        amount, old_amount = (None if layer is None else layer.amounts.get(metric) for layer in (new, old))
        if amount is None and old_amount is None:
            continue
        layer = new or before[path]
        yield Cause(
            layer=path,
            value=Fraction(0) if amount is None else amount.exact or Fraction(0),
            before=None if old_amount is None else old_amount.exact,
            operation="" if new is None else new.operation,
            operation_before="" if old is None else old.operation,
            class_name=layer.class_name.rpartition(".")[2],
            file=layer.file,
            line=lines.get(path),
            new=other is not None and old is None,
        )


def _class_lines(folder: Path, measurement: Measurement) -> dict[str, int]:
    """For each layer, by path: the line on which its class begins, if its file can be read and defines it."""
    classes_in: dict[str, dict[str, int]] = {}
    lines = {}
    for path, layer in measurement.layers.items():
        if not layer.file:
            continue
        if layer.file not in classes_in:
            classes_in[layer.file] = _classes(folder / layer.file)
        # The end of the class's full name is its name within the file: pkg.mod.Outer.Inner -> Outer.Inner
        names = layer.class_name.split(".")
        for i in range(len(names)):
            if (line := classes_in[layer.file].get(".".join(names[i:]))) is not None:
                lines[path] = line
                break
    return lines


def _classes(file: Path) -> dict[str, int]:
    """The line of each class in a file, by its qualified name."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return dict(_nested_classes(tree, ""))


def _nested_classes(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        name = prefix
        if isinstance(child, ast.ClassDef):
            yield f"{prefix}{child.name}", child.lineno
            name = f"{prefix}{child.name}."
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            name = f"{prefix}{child.name}.<locals>."
        yield from _nested_classes(child, name)
