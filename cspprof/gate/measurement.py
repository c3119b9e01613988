"""The exact metrics of a model and of its layers, which rules compare: from a record, or read from a baseline."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from cspprof.analysis.layer_rows import RowGroup, group_by_path
from cspprof.analysis.module_summary import peak_path
from cspprof.analysis.structural_hash import structural_hash
from cspprof.core.errors import CspprofError
from cspprof.core.inputs import parse_inputs
from cspprof.core.record import Kind, OpSpec, Record
from cspprof.gate.config import Config, Model, Problem
from cspprof.metrics import METRICS, Amount, Sum
from cspprof.metrics.names import resolve_metric
from cspprof.profiles import Profile, profile_spec
from cspprof.sources import Request

LAYER_METRICS = ("macs", "cio_cspnet")
"""The metrics that are always measured layer by layer; those of the rules are added."""


@dataclass(frozen=True, slots=True)
class LayerMeasurement:
    """The metrics of one layer: a row of the profile, by its path."""

    operation: str
    """`conv2d 1x64x56x56 -> 1x64x56x56, kernel 3x3, groups 32`."""
    amounts: Mapping[str, Amount]
    class_name: str = ""
    """The user's class that contains the layer: its own class or, if torch defines that, the class around it."""
    file: str = ""
    """The file of that class, relative to the project; empty if it is not known."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The metrics of one model and of its layers."""

    name: str
    convention: str
    inputs: tuple[str, ...]
    structure: str
    """The structural hash: operations, shapes and connections, without the names of layers."""
    totals: Mapping[str, Amount]
    layers: Mapping[str, LayerMeasurement]
    """By path, in execution order."""
    uncounted: Mapping[str, int] = field(default_factory=dict)
    """The operations that the MACs miss, with their number of calls."""
    versions: Mapping[str, str] = field(default_factory=dict)
    recorded_by: str = ""
    """`pytest` if a test recorded it, and no configuration names it."""
    peak_path: str = ""
    """The layer during which most memory is alive; empty if it is unknown, as in baselines of older versions."""
    deployed: bool = False
    """Whether it is the deployed form of the model that was measured."""

    def total(self, metric: str) -> Fraction | None:
        amount = self.totals.get(metric)
        return None if amount is None else amount.exact

    def missed(self, metric: str, path: str = "") -> int:
        """The number of operations that the value of a metric misses, of the model or of a layer: their part is
        unknown."""
        if not path:
            amount = self.totals.get(metric)
            missed = 0 if amount is None else amount.missed
            return max(missed, sum(self.uncounted.values())) if metric == "macs" else missed
        return sum(a.missed for name, a in self._amounts_below(path, metric) if a is not None)

    @property
    def conv_share(self) -> float | None:
        """The share of the MACs that CIO sees; None if it is unknown or was not recorded."""
        share = self.total("conv_share")
        return None if share is None else float(share)

    def paths(self) -> list[str]:
        """The paths of all layers and of the modules around them, in order."""
        paths: dict[str, None] = {}
        for path in self.layers:
            names = path.split(".")
            paths.update(dict.fromkeys(".".join(names[:n]) for n in range(1, len(names) + 1)))
        return list(paths)

    def matching_paths(self, glob: str) -> list[str]:
        return [path for path in self.paths() if layer_matches(glob, path)]

    def layer_total(self, path: str, metric: str) -> Fraction | None:
        """The value of a layer, or of all layers in a module; None if none of them has the metric."""
        total: Amount | None = None
        for _, amount in self._amounts_below(path, metric):
            if amount is not None:
                total = amount if total is None else total + amount  # type: ignore[operator]
        return None if total is None else total.exact

    def _amounts_below(self, path: str, metric: str) -> Iterator[tuple[str, Amount | None]]:
        """The layer `path` and the layers in it, each with its value of a metric."""
        for name, layer in self.layers.items():
            if name == path or name.startswith(path + "."):
                yield name, layer.amounts.get(metric)


def layer_matches(glob: str, path: str) -> bool:
    """Whether a layer glob matches a path: `*` and `?` match within a name, `**` also across dots.

    >>> layer_matches("stage?.*.conv", "stage1.0.conv"), layer_matches("stage*", "stage1.0")
    (True, False)
    >>> layer_matches("stage1.**", "stage1.0.conv")
    True
    """
    parts = _glob_parts(glob)
    reached = parts.past_stars(1)
    for character in path:
        in_name = 0 if character == "." else -1
        stays = reached & (parts.any | parts.any_in_name & in_name)
        goes_on = reached & (parts.literal.get(character, 0) | parts.one & in_name)
        reached = parts.past_stars(stays | goes_on << 1)
    return bool(reached >> parts.count & 1)


@dataclass(frozen=True, slots=True)
class _GlobParts:
    """The parts of a layer glob: characters, `?`, `*` and `**`. A set of parts is an integer with a bit for each part.

    A path is matched character by character, with the set of all parts that can be next, so that the time grows only
    with both lengths. A regular expression tries all ways to divide a path among the stars.
    """

    count: int
    literal: Mapping[str, int]
    """The parts that are this character."""
    one: int
    """`?`."""
    any_in_name: int
    """`*`."""
    any: int
    """`**`."""

    def past_stars(self, parts: int) -> int:
        """The parts with those behind stars: a star also matches nothing."""
        while (more := parts | (parts & (self.any | self.any_in_name)) << 1) != parts:
            parts = more
        return parts


@lru_cache
def _glob_parts(glob: str) -> _GlobParts:
    parts = re.findall(r"\*\*|.", glob, re.DOTALL)
    places: dict[str, int] = {}
    for i, part in enumerate(parts):
        places[part] = places.get(part, 0) | 1 << i
    one, any_in_name, any_ = (places.pop(part, 0) for part in ("?", "*", "**"))
    return _GlobParts(len(parts), places, one, any_in_name, any_)


# -- measuring -------------------------------------------------------------------------------------


def layer_metrics(config: Config, name: str) -> list[str]:
    """The metrics to measure layer by layer for a model: those of its rules, and `LAYER_METRICS`."""
    convention = config.models[name].convention
    rules = [rule for rule in config.rules if (rule.applies_to(name) or rule.base == name) and not rule.runs_engine]
    return list(dict.fromkeys([*(resolve_metric(rule.metric, convention) for rule in rules), *LAYER_METRICS]))


def profile_entry(model: Model, folder: Path, *, cache: bool = True) -> Profile:
    """The profile of a model of the configuration in `folder`, where its paths and its import path start.

    With `cache`, the cache of profiles is used. A saved profile is read without torch. Raises CspprofError from the
    source or from the forward.
    """
    request = Request(
        inputs=parse_inputs(model.inputs, model.dtype or "float32"),
        device=model.device,
        dtype=model.dtype,
        train=model.train,
        deploy=model.deploy,
    )
    with contextlib.chdir(os.fspath(folder)):
        return profile_spec(model.target, request, cache=cache)


def measure_models(
    config: Config, names: Iterable[str], records: Mapping[str, Record] = MappingProxyType({})
) -> tuple[dict[str, Measurement], list[Problem]]:
    """The measurements of models by name, and a problem for each model that cannot be measured. `records` has models
    that were traced already."""
    measurements, problems = {}, []
    for name in names:
        model = config.models[name]
        try:
            record = records[name] if name in records else profile_entry(model, config.folder)
            measurements[name] = measure(name, record, model.convention, layer_metrics(config, name))
        except CspprofError as error:
            hint = error.hint or ""
            if "--debug" in hint:  # a check continues with the other models, and shows no traceback
                hint = f"For the traceback: cspprof profile {model.target} --debug"
            if keys := _as_keys(hint):
                hint += f"\nIn {config.name}: {keys}"
            problems.append(config.model_problem(name, error.message, hint))
    return measurements, problems


def _as_keys(hint: str) -> str:
    """The keys of a model in the configuration that mean the same as the options in a hint: one input of each name."""
    by_name: dict[str, str] = {}
    for text in re.findall(r"--input (\S+)", hint):
        by_name.setdefault(re.split(":?=", text)[0] if "=" in text else text, text.rstrip(".,;"))
    inputs = list(by_name.values())
    keys = [f"input = {json.dumps(inputs[0] if len(inputs) == 1 else inputs)}"] if inputs else []
    keys += [f"device = {json.dumps(name)}" for name in re.findall(r"--device (\w+)", hint)]
    return ", ".join(keys)


def measure(name: str, record: Record, convention: str, metrics: Iterable[str] = ()) -> Measurement:
    """Every registered metric of a record, and those in `metrics` also layer by layer."""
    metrics = tuple(dict.fromkeys(metrics))
    return Measurement(
        name,
        convention,
        input_texts(record),
        structural_hash(record),
        {metric: METRICS.get(metric).total(record) for metric in (*METRICS.names(), *metrics)},
        _layers(record, metrics),
        record.uncounted,
        dict(record.tool),
        peak_path=peak_path(record),
        deployed=record.deployed,
    )


def input_texts(record: Record) -> tuple[str, ...]:
    """The inputs of a record as a baseline has them: `1x3x224x224:float32`."""
    return tuple(f"{_shape(t.shape)}:{t.dtype}" for t in record.inputs)


def _layers(record: Record, metrics: Iterable[str]) -> dict[str, LayerMeasurement]:
    classes = _user_classes(record)
    layers = {}
    for group in group_by_path(record):
        amounts = {
            metric: a for metric in metrics if (a := _layer_amount(group, metric)) is not None and (a.exact or a.missed)
        }
        first = group.rows[0].spec
        if amounts or first.kind is Kind.UNKNOWN:
            # The path of a row may end in the name of the operation.
            class_name = classes.get(group.name) or classes.get(group.name.rpartition(".")[0], "")
            file = record.sources.get(class_name, "")
            layers[group.name] = LayerMeasurement(operation_text(first), amounts, class_name, file)
    return layers


def _layer_amount(group: RowGroup, metric: str) -> Amount | None:
    if metric == "params":
        return Sum(group.params)
    registered = METRICS.get(metric)
    return None if registered.of_op is None else registered.group_value((row.spec, 1) for row in group.rows)


def _user_classes(record: Record) -> dict[str, str]:
    """For each module, by path: its class or, for a class of torch, the nearest class around it that is not torch's."""
    classes: dict[str, str] = {}
    for layer in record.layers:
        outer = classes.get(layer.path.rpartition(".")[0], "") if layer.path else ""
        classes[layer.path] = outer if layer.class_name.startswith("torch.") and outer else layer.class_name
    return classes


# -- an operation as text, which a baseline records ------------------------------------------------


def operation_text(spec: OpSpec) -> str:
    """`conv2d 1x64x56x56 -> 1x64x56x56, kernel 3x3, groups 32`; attributes with their default value are left out."""
    reads, writes = (", ".join(_shape(t.shape) for t in tensors) for tensors in (spec.reads, spec.writes))
    parts = [f"{spec.name.strip('_')} {reads} -> {writes}"]
    for name, default in (("kernel", None), ("stride", 1), ("dilation", 1), ("groups", 1)):
        value = spec.attrs.get(name)
        values = value if isinstance(value, (tuple, list)) else (value,)
        if value is not None and any(v != default for v in values):
            parts.append(f"{name} {'x'.join(map(str, values))}")
    return ", ".join(parts)


def _shape(dims: Iterable[int]) -> str:
    return "x".join(map(str, dims)) or "scalar"


def layer_settings(operation: str) -> tuple[str, ...]:
    """The settings of a layer, from its operation text: all that does not follow from the shape of its input.

    The width of a convolution or linear layer is a setting. A depthwise convolution is as wide as its input: its
    setting is the number of outputs for each channel.

    >>> layer_settings("conv2d 1x64x56x56 -> 1x128x28x28, kernel 3x3, stride 2x2")
    ('conv2d', '128', 'kernel 3x3', 'stride 2x2')
    >>> layer_settings("conv2d 1x64x56x56 -> 1x64x56x56, kernel 3x3, groups 64")
    ('conv2d', '1 per channel', 'kernel 3x3')
    """
    name, _, rest = operation.partition(" ")
    reads, _, writes = rest.partition(" -> ")
    output, *others = writes.split(", ")
    attributes = [text for text in others if text[:1].isalpha()]  # the others are shapes of further outputs
    input_dims, output_dims = reads.split(", ")[0].split("x"), output.split("x")
    width: list[str] = []
    if name == "linear":
        width = output_dims[-1:]
    elif name.startswith("conv") and min(len(input_dims), len(output_dims)) > 2:
        width = output_dims[1:2]
        if (depthwise := f"groups {input_dims[1]}") in attributes:
            attributes.remove(depthwise)
            width = [f"{int(output_dims[1]) // int(input_dims[1])} per channel"]
    return name, *width, *attributes
