"""The candidates of a design space: SPECs with every combination of the values of some axes.

An axis is an option of the factory (`gamma`), an option of the conversion (`convert.gamma`), or one of `size`, `batch`
and `dtype`.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple, TypeVar

from cspprof.core.errors import CspprofError
from cspprof.core.inputs import SHOWN
from cspprof.core.literals import parse_literal
from cspprof.core.registry import suggestion
from cspprof.core.units import shortened
from cspprof.core.validation import MAX_GLOB
from cspprof.sources import source_of
from cspprof.sources.spec import parse, parse_option, split_at_commas
from cspprof.zoo import catalog

T = TypeVar("T")
MOST_VALUES = 10_000
"""Values of one axis."""
MOST_CANDIDATES = 10_000_000
MOST_ITEMS = 1_000_000
"""Items of a generator."""
MOST_COMBINATIONS = 2**63 - 1
"""Candidates of a space from which a sample is taken."""
MAX_NUMBER = 1e18
"""The bounds of a range, and the lengths of an input."""
CONVERSION_OPTIONS = ("stages", "gamma", "fusion", "split", "recipe", "round")
SHARDS = "The first of four is --shard 1/4"
RUN_AXES = ("size", "batch", "dtype")
"""Axes that are no option of the factory."""


class Candidate(NamedTuple):
    """One point of a space."""

    position: int
    """Its place in the order of the space."""
    spec: str
    """The SPEC, with the options of the factory."""
    size: tuple[int, int] | None = None
    """Height and width of the input; None for that of the model."""
    batch: int | None = None
    inputs: tuple[str, ...] = ()
    """Whole inputs as `--input` takes them."""
    dtype: str | None = None
    device: str | None = None
    conversion: tuple[tuple[str, Any], ...] = ()
    """Options of the conversion to a cross stage partial network. Empty: the network is traced as it is."""
    axes: tuple[tuple[str, Any], ...] = ()
    """The value of each axis."""

    def key(self, versions: str) -> bytes:
        """A hash of everything on which the row of the candidate depends: its options, and the versions of the code."""
        content = [self.spec, self.size, self.batch, self.inputs, self.dtype, self.device, self.conversion, versions]
        return hashlib.sha256(json.dumps(content).encode()).digest()[:16]


@dataclass(frozen=True, slots=True)
class Space:
    """The product of the models and the axes, in a fixed order: the last axis varies fastest."""

    models: Sequence[str]
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    device: str | None = None
    """The device of the traces; None for meta, then the CPU if a model needs values."""
    sample: int | None = None
    """The number of candidates, chosen at random with `seed`; None for all."""
    seed: int = 0
    shard: tuple[int, int] = (1, 1)
    """(i, n): every n-th candidate, from the i-th on."""

    def __post_init__(self) -> None:
        if not self.models:
            raise CspprofError("the space has no model", "Name one: cspprof sweep csp_peleenet --grid gamma=0.25,0.5")
        if self.full_size > MOST_CANDIDATES and self.sample is None:
            raise CspprofError(
                f"the space has {self.full_size:,} candidates, the most is {MOST_CANDIDATES:,}",
                "Choose some at random: --sample 10000",
            )
        if self.full_size > MOST_COMBINATIONS:
            raise CspprofError(
                f"the space has 10^{len(str(self.full_size)) - 1} candidates or more, too many for a sample",
                "Give the axes fewer values.",
            )
        part, parts = self.shard
        if not 1 <= part <= parts:
            raise CspprofError(f"there is no shard {part} of {parts}", SHARDS)
        if self.sample is not None and not 1 <= self.sample <= MOST_CANDIDATES:
            which = "is empty" if self.sample < 1 else f"is too large: the most is {MOST_CANDIDATES:,}"
            raise CspprofError(f"a sample of {self.sample} {which}", "Write for example: --sample 1000")

    @property
    def full_size(self) -> int:
        """The number of combinations, before a sample is taken."""
        product = len(self.models)
        for values in self.axes.values():
            product *= len(values)
        return product

    @property
    def positions(self) -> Sequence[int]:
        """The positions of the candidates in the full product, in ascending order."""
        chosen: Sequence[int] = range(self.full_size)
        if self.sample is not None and self.sample < self.full_size:
            chosen = sorted(random.Random(self.seed).sample(chosen, self.sample))
        part, parts = self.shard
        return chosen[part - 1 :: parts]

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Candidate]:
        return (self._at(position) for position in self.positions)

    def _at(self, position: int) -> Candidate:
        rest, places = position, {}
        for name in reversed(list(self.axes)):
            rest, places[name] = divmod(rest, len(self.axes[name]))
        return self.candidate(rest, places)

    def candidate(self, model: int, places: Mapping[str, int]) -> Candidate:
        """The candidate of the model and of the values at these places in their lists."""
        position = model
        for name, values_of_axis in self.axes.items():
            position = position * len(values_of_axis) + places[name]
        values = {name: self.axes[name][places[name]] for name in self.axes}
        conversion = {n.removeprefix("convert."): v for n, v in values.items() if n.startswith("convert.")}
        options = [
            f"{n}={_literal(v)}" for n, v in values.items() if n not in RUN_AXES and not n.startswith("convert.")
        ]
        return Candidate(
            position, ",".join([self.models[model], *options]), values.get("size"), values.get("batch"), self.inputs,
            values.get("dtype"), self.device, tuple(conversion.items()), tuple(values.items()),
        )  # fmt: skip

    def description(self) -> str:
        """The space as one line of JSON, without sample and shard: equal spaces have equal descriptions."""
        return json.dumps({"models": list(self.models), "axes": {k: list(v) for k, v in self.axes.items()},
                           "inputs": self.inputs, "device": self.device})  # fmt: skip


def _literal(value: Any) -> str:
    """A value as the options of a SPEC write it."""
    return value if isinstance(value, str) and value.isidentifier() else repr(value)


def parse_grid(texts: Iterable[str]) -> dict[str, list[Any]]:
    """The axes of `--grid NAME=VALUES`, where the values are a list `csp,first` or a range `0.25:0.75:0.125`.

    >>> parse_grid(["gamma=0.25:0.75:0.25", "fusion=csp,first"])
    {'gamma': [0.25, 0.5, 0.75], 'fusion': ['csp', 'first']}
    """
    axes: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip()
        if not equals or not values.strip() or not name.replace(".", "_").isidentifier():
            raise CspprofError(
                f"cannot read --grid {shortened(text, SHOWN)!r}", "Write for example: --grid gamma=0.25:0.75:0.125"
            )
        if name in axes:
            raise CspprofError(f"the axis {name} appears twice", "Write all its values in one --grid.")
        axes[name] = parse_values(values, f"--grid {name}")
    return axes


def axis_values(name: str, values: Any) -> list[Any]:
    """The values of an axis that is given in Python or TOML: a list, one value, or a text as `--grid` takes it."""
    if isinstance(values, str):
        return parse_values(values, name)
    chosen = [tuple(v) if isinstance(v, list) else v for v in listed(values)]
    if not chosen or len(chosen) > MOST_VALUES or not _is_plain(chosen, (list, tuple, dict)):
        what = "has no value" if not chosen else "has a value that is no finite number, text, list or dict"
        what = f"has {len(chosen):,} values, the most is {MOST_VALUES:,}" if len(chosen) > MOST_VALUES else what
        name = shortened(name, SHOWN)
        raise CspprofError(f"the axis {name} {what}", "Write for example: gamma = [0.25, 0.5]")
    return chosen


def listed(value: Any) -> list[Any]:
    """The items of a list or tuple; one other value as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def take(items: Iterable[T], sample: int | None) -> Iterator[T]:
    """The items of a generator that may be endless: raises CspprofError if there are too many and no `sample`."""
    for i, item in enumerate(items):
        if i >= MOST_ITEMS and sample is None:
            raise CspprofError(f"the space has more than {MOST_ITEMS:,} items", "Limit it: sample=1000")
        if sample is not None and i >= sample:
            return
        yield item


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """The sizes of `--size 224,256x320` or of a range `192:320:32`, as height and width. Raises CspprofError."""
    values = parse_values(text, "--size") if ":" in text else [part.strip() for part in text.split(",")]
    sizes = []
    for value in values:
        numbers = [int(n) if re.fullmatch("[0-9]{1,18}", n) else 0 for n in re.split("[x×]", str(value))]
        if len(numbers) > 2 or min(numbers) < 1:
            raise CspprofError(
                f"cannot read the size {shortened(str(value), SHOWN)!r}", "Write for example: --size 224,256x320"
            )
        sizes.append((numbers[0], numbers[-1]))
    return list(dict.fromkeys(sizes))


def parse_values(text: str, option: str) -> list[Any]:
    """The values in a list or a range. Raises CspprofError if it is empty or endless."""
    bounds = text.split(":")
    if len(bounds) in (2, 3) and "," not in text:
        return _range(bounds, text, option)
    parts = [part for part in split_at_commas(text) if part]
    if len(parts) > MOST_VALUES:
        raise CspprofError(
            f"{option} has {len(parts):,} values, the most is {MOST_VALUES:,}",
            "A range is FIRST:LAST:STEP: 0.25:0.75:0.125",
        )
    values = [tuple(v) if isinstance(v, list) else v for v in map(parse_option, parts)]
    if not values or not all(map(_is_plain, values)):
        what = "has a value that is no number, text or tuple" if values else "has no value"
        raise CspprofError(f"{option} {what}", "Write for example: --grid gamma=0.25,0.5")
    return list(dict.fromkeys(values))


def _is_plain(value: Any, containers: type | tuple[type, ...] = tuple) -> bool:
    """Whether a value can be in the journal: a finite number, a text, None, or a container of these."""
    if isinstance(value, containers):
        return all(_is_plain(item, containers) for item in _items(value))
    return value is None or isinstance(value, (int, str)) or (isinstance(value, float) and isfinite(value))


def _items(container: Any) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _range(bounds: Sequence[str], text: str, option: str) -> list[Any]:
    """`0.25:0.75:0.125` and `1:4`, both ends included."""
    shown = shortened(f"{option}={text}", SHOWN)
    try:
        first, last, *rest = (parse_literal(bound.strip()) for bound in bounds)
        step = rest[0] if rest else 1
        if not all(type(n) in (int, float) and abs(n) <= MAX_NUMBER for n in (first, last, step)):
            raise ValueError
        count = int((last - first) / step + 1e-9) + 1
    except ValueError:
        raise CspprofError(f"cannot read {shown}", "A range is FIRST:LAST:STEP: 0.25:0.75:0.125") from None
    except (ZeroDivisionError, OverflowError):
        raise CspprofError(f"{shown} never ends", "Give a step above 0: 0.25:0.75:0.125") from None
    if not 1 <= count <= MOST_VALUES:
        size = f"{count:,}" if count < MAX_NUMBER else "endlessly many"
        many = "is empty" if count < 1 else f"has {size} values, the most is {MOST_VALUES:,}"
        raise CspprofError(f"{shown} {many}", "A range is FIRST:LAST:STEP: 0.25:0.75:0.125")
    values = (first + i * step for i in range(count))
    return [v if isinstance(v, int) else round(v, 9) for v in values]


def expand_models(specs: Sequence[str]) -> list[str]:
    """The SPECs, with globs such as `timm:resnet*`, `torchvision:*` and `csp_*` replaced by the names they match.

    Raises CspprofError if a glob matches nothing.
    """
    models: list[str] = []
    for spec in specs:
        target, comma, options = spec.partition(",")
        if not any(c in target for c in "*?[") or target.endswith((".py", ".cfg", ".onnx", ".pt2", ".json")):
            models.append(spec)
            continue
        if len(target) > MAX_GLOB:
            raise CspprofError(
                f"the glob {shortened(target, SHOWN)!r} has {len(target):,} characters, the most is {MAX_GLOB}",
                "Name the models, or write a shorter glob: csp_*",
            )
        prefix, known = _library(target)
        names = [name for name in known if fnmatch.fnmatchcase(name, target.removeprefix(prefix))]
        if not names:
            raise CspprofError(f"no model matches {target}", suggestion(target.strip("*"), [prefix + n for n in known]))
        models += [f"{prefix}{name}{comma}{options}" for name in names]
    return list(dict.fromkeys(models))


def _library(target: str) -> tuple[str, list[str]]:
    """The prefix of the library that a glob names, and the names of its architectures."""
    if target.startswith("timm:"):
        import timm

        return "timm:", list(timm.list_models())
    if target.startswith("torchvision:"):
        from torchvision.models import list_models

        return "torchvision:", list(list_models())
    return "", [name for name, _ in catalog().items()]


def parse_shard(text: str | None) -> tuple[int, int]:
    """`1/4` -> (1, 4). Raises CspprofError."""
    if text is None:
        return 1, 1
    part, slash, parts = text.partition("/")
    if not (slash and all(re.fullmatch(r"\s*[0-9]{1,9}\s*", number) for number in (part, parts))):
        raise CspprofError(f"cannot read --shard {shortened(text, SHOWN)!r}", SHARDS)
    return int(part), int(parts)


def check_axes(space: Space) -> None:
    """Raise CspprofError if an axis cannot be one: an unknown option of the conversion, or an input axis of a file that
    fixes its input. The options of a factory are checked when it is called."""
    for name in space.axes:
        option = name.removeprefix("convert.")
        if name.startswith("convert.") and option not in CONVERSION_OPTIONS:
            raise CspprofError(f"the conversion has no option {option}", suggestion(option, CONVERSION_OPTIONS))
    if {"size", "batch"} & set(space.axes):
        for model in space.models:
            source = source_of(parse(model))
            if not source.takes_other_inputs:
                raise CspprofError(
                    f"{model} is a {source.name} file, which fixes its input", "Leave out --size and --batch."
                )
            if space.inputs:
                raise CspprofError("--input excludes --size and --batch", "Use one of them.")
