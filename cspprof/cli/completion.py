"""Shell completion: models, metrics, kinds of charts, names of `explain`, formats. It does not import torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from cspprof.core.inputs import DEVICES, INT8
from cspprof.core.printable import printable
from cspprof.core.tensors import ITEM_SIZES
from cspprof.metrics import CONVENTIONS, METRICS
from cspprof.metrics.definition import DEFAULT_METRICS
from cspprof.metrics.names import CIO_CONVENTIONS
from cspprof.papers.hardware import HARDWARE
from cspprof.render import RENDERERS
from cspprof.sources.spec_mistakes import factories_of, model_files

TOPICS = ("conventions", "gamma", "closed-form")
"""Names besides metrics and conventions that `explain` accepts."""
FILE_ENDINGS = (".py", ".cfg", ".onnx", ".pt2", ".profile.json", ".profile.json.gz")
LIBRARIES = ("timm", "torchvision")
SHELL_SYNTAX = frozenset("\\\"'`$")
"""Names with these characters are not offered: zsh evaluates the list as code."""


def _starting_with(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def complete_spec(incomplete: str) -> list[str]:
    """Networks of the zoo, architectures after `timm:` and `torchvision:`, files, and the classes after `file.py:`."""
    target, colon, name = incomplete.partition(":")
    if colon and target in LIBRARIES:
        return [f"{target}:{n}" for n in _starting_with(name, _architectures(target))]
    if colon:
        return [f"{target}:{n}" for n in _starting_with(name, factories_of(Path(target)))]
    return [*_starting_with(incomplete, [*zoo_names(), *(f"{x}:" for x in LIBRARIES)]), *_paths(incomplete)]


def zoo_names() -> list[str]:
    """The networks of the zoo. The file is generated, because their definitions import torch."""
    return (resources.files("cspprof") / "data" / "zoo_names.txt").read_text(encoding="utf-8").split()


def _architectures(library: str) -> list[str]:
    """The architectures that a library registers, read from its source."""
    registered = re.compile(rb"^@register_model(?:\([^)]*\))?\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
    return sorted(name.decode() for file in model_files(library) for name in registered.findall(file.read_bytes()))


def _paths(incomplete: str) -> list[str]:
    """Folders, and files that can be a SPEC; a Python file ends in a colon, because its class follows."""
    folder, _, start = incomplete.rpartition("/")
    place = Path(folder or ("/" if incomplete.startswith("/") else "."))
    if not place.is_dir():
        return []
    prefix = incomplete[: len(incomplete) - len(start)]
    found = []
    for path in sorted(place.iterdir()):
        offered = path.name == printable(path.name) and SHELL_SYNTAX.isdisjoint(path.name)
        if offered and path.name.startswith(start) and not (path.name.startswith(".") and not start):
            if path.is_dir():
                found.append(f"{prefix}{path.name}/")
            elif path.name.endswith(FILE_ENDINGS):
                found.append(f"{prefix}{path.name}{':' if path.suffix == '.py' else ''}")
    return found


def complete_metric(incomplete: str) -> list[str]:
    return _starting_with(incomplete, [*DEFAULT_METRICS, *METRICS, *CONVENTIONS])


def complete_metrics(incomplete: str) -> list[str]:
    """The last metric of a list: `macs,ci` becomes `macs,cio`."""
    given, comma, last = incomplete.rpartition(",")
    return [f"{given}{comma}{name}" for name in complete_metric(last)]


def complete_axis(incomplete: str) -> list[str]:
    """Metrics, and the published accuracies of `plot pareto`."""
    return [*_starting_with(incomplete, ("top1", "top5")), *complete_metric(incomplete)]


def complete_hardware(incomplete: str) -> list[str]:
    return _starting_with(incomplete, HARDWARE)


def complete_explained(incomplete: str) -> list[str]:
    return [*_starting_with(incomplete, TOPICS), *complete_metric(incomplete)]


def complete_convention(incomplete: str) -> list[str]:
    return _starting_with(incomplete, [*CIO_CONVENTIONS, *CONVENTIONS])


def complete_kind(incomplete: str) -> list[str]:
    """The kinds of charts."""
    from cspprof.report.charts import CHARTS

    return _starting_with(incomplete, CHARTS)


def complete_format(incomplete: str) -> list[str]:
    return _starting_with(incomplete, RENDERERS.names())


def complete_grouping(incomplete: str) -> list[str]:
    return _starting_with(incomplete, ("kind", "stage"))


def complete_device(incomplete: str) -> list[str]:
    return _starting_with(incomplete, DEVICES)


def complete_dtype(incomplete: str) -> list[str]:
    return _starting_with(incomplete, sorted([INT8, *(name for name in ITEM_SIZES if "float" in name)]))


def complete_machine(incomplete: str) -> list[str]:
    return _starting_with(incomplete, ("calibrated", *HARDWARE))
