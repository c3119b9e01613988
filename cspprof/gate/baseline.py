"""The baseline: the measurements that were last recorded, in one JSON file that is committed to git.

Keys are sorted and every number has its own line, so that branches which change different models, or different layers
of one model, merge without a conflict. A ratio is stored as numerator and denominator.

A file can come from anyone. `ModelEntry` has the types and limits of its values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct

from cspprof.analysis.comparison import Bound, bound_of_change
from cspprof.core.errors import CspprofError
from cspprof.core.files import display_path, read_limited, write_atomically
from cspprof.core.json_text import MAX_BYTES, json_bytes, parse_json
from cspprof.core.validation import Count, Name, Text, validated
from cspprof.gate.measurement import LayerMeasurement, Measurement
from cspprof.metrics import METRICS, Amount, Peak, Ratio, Sum

SCHEMA = "cspprof.baseline/1"
UPDATE_COMMAND = "cspprof check --update-baseline"
CONFLICT_MARKERS = (b"<<<<<<< ", b">>>>>>> ", b"||||||| ")
"""Beginnings of lines that git writes into a file that it could not merge."""


class BaselineError(CspprofError):
    """A baseline that cannot be read."""


class NewerBaselineError(BaselineError):
    """A baseline that a newer cspprof wrote. It must not be overwritten, because its new content would be lost."""


Measurements = Mapping[str, Measurement]
"""By the name of the model."""

# -- reading and writing ---------------------------------------------------------------------------


def read(path: Path) -> dict[str, Measurement] | None:
    """The recorded measurements by model; None if there is no file. Raises BaselineError."""
    try:
        return parse(read_limited(path, MAX_BYTES), display_path(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BaselineError(
            f"cannot read {display_path(path)}: {error.strerror}", "Name another: baseline = …"
        ) from None


def parse(data: bytes, name: str) -> dict[str, Measurement]:
    """The measurements in the content of a baseline file. Raises BaselineError, in which `name` stands for the file."""
    for number, line in enumerate(data.splitlines(), 1) if any(marker in data for marker in CONFLICT_MARKERS) else ():
        if line.startswith(CONFLICT_MARKERS):
            raise BaselineError(
                f"{name}:{number}: an unresolved merge conflict", f"Record the merged code: {UPDATE_COMMAND}"
            )
    restore = f"Restore it from git, or record it again: {UPDATE_COMMAND}"
    try:
        document = parse_json(data)
    except ValueError as error:
        raise BaselineError(f"{name} is not JSON: {error}", restore) from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        kind, _, version = str(schema).partition("/")
        if kind == SCHEMA.partition("/")[0] and version.isdecimal() and int(version[:9]) > 1:
            raise NewerBaselineError(
                f"{name} has schema {schema!r}, which is newer than this cspprof; it reads {SCHEMA!r}",
                "Upgrade: pip install --upgrade cspprof",
            )
        message = f"{name} is not a baseline: its schema is {schema!r}, not {SCHEMA!r}"
        raise BaselineError(message, f"Record one: {UPDATE_COMMAND}")
    try:
        entries = validated(document.get("models"), dict[Name, object], "models")
        return {model: _from_json(model, entry) for model, entry in entries.items()}
    except ValueError as error:
        raise BaselineError(f"{name} is damaged: {error}", restore) from None


def dump(models: Measurements) -> bytes:
    """The content of the baseline file. The same measurements give the same bytes."""
    document = {"schema": SCHEMA, "models": {name: _to_json(measurement) for name, measurement in models.items()}}
    return json_bytes(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def write(path: Path, models: Measurements) -> None:
    """Replace the baseline file. If writing fails, the old file stays as it was."""
    write_atomically(path, dump(models))


def _to_json(measurement: Measurement) -> dict[str, Any]:
    return {
        "convention": measurement.convention,
        "inputs": list(measurement.inputs),
        "structure": measurement.structure,
        "totals": {metric: _amount_to_json(a) for metric, a in measurement.totals.items()},
        "layers": {
            path: {"is": layer.operation, **{metric: _amount_to_json(a) for metric, a in layer.amounts.items()}}
            for path, layer in measurement.layers.items()
        },
        "versions": dict(measurement.versions),
        **({"uncounted": dict(measurement.uncounted)} if measurement.uncounted else {}),
        **({"peak_path": measurement.peak_path} if measurement.peak_path else {}),
        **({"deployed": True} if measurement.deployed else {}),
        **({"by": measurement.recorded_by} if measurement.recorded_by else {}),
    }


def _amount_to_json(amount: Amount) -> Any:
    missed = {"missed": amount.missed} if amount.missed else {}
    if isinstance(amount, Ratio):
        return {"over": amount.numerator, "under": amount.denominator, **missed}
    if missed or (isinstance(amount, Sum) and amount.scale != 1):
        return {"over": amount.n, "under": amount.scale if isinstance(amount, Sum) else 1, **missed}
    return amount.n


class AmountEntry(Struct):
    """An amount that is not one integer. Of a ratio, `over` is the numerator."""

    over: Count
    under: Count
    missed: Count = 0


class ModelEntry(Struct):
    """A model in the document. `layers` and `totals` have amounts by the name of the metric."""

    convention: Name
    inputs: tuple[Text, ...]
    structure: Name
    totals: dict[Name, object]
    layers: dict[Name, dict[Name, object]]
    versions: dict[Name, Name]
    uncounted: dict[Name, Count] = {}
    peak_path: Name = ""
    deployed: bool = False
    by: Name = ""


def _from_json(name: str, value: object) -> Measurement:
    place = f"models.{name}"
    entry = validated(value, ModelEntry, place)
    return Measurement(
        name,
        entry.convention,
        entry.inputs,
        entry.structure,
        {metric: _amount_from_json(metric, v, f"{place}.totals.{metric}") for metric, v in entry.totals.items()},
        {path: _layer_from_json(layer, f"{place}.layers.{path}") for path, layer in entry.layers.items()},
        entry.uncounted,
        entry.versions,
        entry.by,
        entry.peak_path,
        entry.deployed,
    )


def _layer_from_json(layer: dict[str, object], place: str) -> LayerMeasurement:
    operation = validated(layer.get("is"), Text, f"{place}.is")
    amounts = {m: _amount_from_json(m, v, f"{place}.{m}") for m, v in layer.items() if m != "is"}
    return LayerMeasurement(operation, amounts)


def _amount_from_json(metric: str, value: object, place: str) -> Amount:
    """The amount, of the type of the metric. A metric that is not registered any more is read by its form."""
    zero = METRICS.get(metric).zero if metric in METRICS else Sum(0)
    if isinstance(value, dict):
        amount = validated(value, AmountEntry, place)
        if isinstance(zero, Ratio) or not amount.under:  # without a denominator the value is unknown
            return Ratio(amount.over, amount.under, amount.missed)
        if isinstance(zero, Peak):
            return Peak(amount.over, amount.missed)
        return Sum(amount.over, amount.under, amount.missed)
    number = validated(value, Count, place)
    return Peak(number) if isinstance(zero, Peak) else Sum(number)


# -- comparing -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TotalChange:
    """A total of a model that differs between two baselines; None on the side that does not have it."""

    model: str
    metric: str
    before: Amount | None
    after: Amount | None

    @property
    def bound(self) -> Bound:
        """Whether the change is exact, a bound, or unknown."""
        return bound_of_change(*(0 if amount is None else amount.missed for amount in (self.before, self.after)))


def changed_totals(before: Measurements, after: Measurements) -> list[TotalChange]:
    """Every total that differs, by model and metric."""
    changes = []
    for model in sorted({*before, *after}):
        old, new = ((side[model].totals if model in side else {}) for side in (before, after))
        changes += [
            TotalChange(model, metric, old.get(metric), new.get(metric))
            for metric in sorted({*old, *new})
            if old.get(metric) != new.get(metric)
        ]
    return changes


def only_structure_changed(before: Measurement, after: Measurement) -> bool:
    """Whether the network changed, and all totals that both sides have are the same."""
    same = all(after.totals.get(metric) == a for metric, a in before.totals.items() if metric in after.totals)
    return same and before.structure != after.structure


def changed_operations(before: Measurement, after: Measurement) -> list[str]:
    """The paths of layers whose operation changed, or that only one side has."""
    paths = dict.fromkeys([*after.layers, *before.layers])

    def operation(side: Measurement, path: str) -> str:
        return side.layers[path].operation if path in side.layers else ""

    return [path for path in paths if operation(before, path) != operation(after, path)]
