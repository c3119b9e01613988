"""The baseline: what every model measured when it was last recorded, in one JSON file that git can merge.

Keys are sorted and every number has a line of its own, so that two branches which changed different models, or
different layers of one, merge without a conflict. An exact ratio is kept as its two halves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cspprof.core.errors import CspprofError
from cspprof.core.files import display_path, write_atomically
from cspprof.gate.measurement import Measured, Part
from cspprof.metrics import METRICS, Amount, Peak, Ratio, Sum

SCHEMA = "cspprof.baseline/1"
RECORD = "cspprof check --update-baseline"
CONFLICT = ("<<<<<<< ", ">>>>>>> ", "||||||| ")
"""What git begins a line with, where it could not merge."""


class BaselineError(CspprofError):
    """A baseline that cannot be read."""


class NewerBaselineError(BaselineError):
    """A baseline that a newer cspprof wrote; writing over it would lose what that knew."""


Models = Mapping[str, Measured]


def read(path: Path) -> dict[str, Measured] | None:
    """The recorded models by name; None where nothing was recorded yet. Raises BaselineError."""
    try:
        return parse(path.read_bytes(), display_path(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BaselineError(
            f"cannot read {display_path(path)}: {error.strerror}", "Name another: baseline = …"
        ) from None


def parse(data: bytes, name: str) -> dict[str, Measured]:
    """What `dump` wrote; `name` is what an error calls it."""
    text = data.decode(errors="replace")
    if any(mark in text for mark in CONFLICT):
        for number, line in enumerate(text.splitlines(), 1):
            if line.startswith(CONFLICT):
                raise BaselineError(
                    f"{name}:{number}: an unresolved merge conflict", f"Record what the merged code costs: {RECORD}"
                )
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BaselineError(f"{name} is not JSON: {error}", f"Restore it from git, or record anew: {RECORD}") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        kind, _, version = str(schema).partition("/")
        if kind == SCHEMA.partition("/")[0] and version.isdecimal() and int(version) > 1:
            raise NewerBaselineError(
                f"{name} has schema {schema!r}, which is newer than this cspprof; it reads {SCHEMA!r}",
                "Upgrade: pip install --upgrade cspprof",
            )
        raise BaselineError(f"{name} is no baseline: its schema is {schema!r}, not {SCHEMA!r}", f"Record one: {RECORD}")
    try:
        return {model: _measured(model, entry) for model, entry in document["models"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BaselineError(
            f"{name} is damaged: {type(error).__name__} {error}", f"Restore it from git, or record anew: {RECORD}"
        ) from None


def dump(models: Models) -> bytes:
    """The file's content; the same models give the same bytes."""
    document = {"schema": SCHEMA, "models": {name: _entry(m) for name, m in models.items()}}
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write(path: Path, models: Models) -> None:
    """Replace the baseline, whole or not at all."""
    write_atomically(path, dump(models))


def _entry(m: Measured) -> dict[str, Any]:
    return {
        "convention": m.convention,
        "inputs": list(m.inputs),
        "structure": m.structure,
        "totals": {name: _written(a) for name, a in m.totals.items()},
        "layers": {
            path: {"is": part.form, **{name: _written(a) for name, a in part.amounts.items()}}
            for path, part in m.parts.items()
        },
        "versions": dict(m.versions),
        **({"by": m.by} if m.by else {}),
    }


def _written(amount: Amount) -> Any:
    if isinstance(amount, Ratio):
        return {"over": amount.numerator, "under": amount.denominator}
    if isinstance(amount, Sum) and amount.scale != 1:
        return {"over": amount.n, "under": amount.scale}
    return amount.n


def _measured(name: str, entry: Mapping[str, Any]) -> Measured:
    totals = {m: _amount(m, v) for m, v in entry["totals"].items()}
    return Measured(
        name, entry["convention"], tuple(entry["inputs"]), str(entry["structure"]), totals, _parts(entry["layers"]), {},
        entry["versions"], entry.get("by", ""),
    )  # fmt: skip


def _parts(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, Part]:
    return {
        path: Part(part["is"], {m: _amount(m, v) for m, v in part.items() if m != "is"})
        for path, part in layers.items()
    }


def _amount(metric: str, value: Any) -> Amount:
    """As the metric combines; one that is no longer registered is kept as it is written."""
    zero = METRICS.get(metric).zero if metric in METRICS else Sum(0)
    if isinstance(value, dict):
        over, under = int(value["over"]), int(value["under"])
        return Sum(over, under) if isinstance(zero, Sum) and under else Ratio(over, under)
    if not isinstance(value, int):
        raise ValueError(f"{metric} is {value!r}, not a whole number")
    return Peak(value) if isinstance(zero, Peak) else Sum(value)


@dataclass(frozen=True, slots=True)
class Change:
    """One number of one model in two recordings; a side that does not have it is None."""

    model: str
    metric: str
    before: Amount | None
    after: Amount | None


def changes(before: Models, after: Models, metrics: Iterable[str] | None = None) -> list[Change]:
    """Every total that differs, by model and metric."""
    wanted = None if metrics is None else set(metrics)
    found = []
    for model in sorted({*before, *after}):
        old, new = ((side[model].totals if model in side else {}) for side in (before, after))
        names = sorted({*old, *new}) if wanted is None else sorted({*old, *new} & wanted)
        found += [Change(model, m, old.get(m), new.get(m)) for m in names if old.get(m) != new.get(m)]
    return found


def restructured(before: Measured, after: Measured) -> bool:
    """Whether another network is computed although every recorded number stayed the same."""
    same = all(after.totals.get(m) == a for m, a in before.totals.items() if m in after.totals)
    return same and before.structure != after.structure


def reformed(before: Measured, after: Measured) -> list[tuple[str, str, str]]:
    """Layers that do something else than before: path, then and now; empty where one side has none."""
    paths = dict.fromkeys([*after.parts, *before.parts])
    forms = [(p, *(side.parts[p].form if p in side.parts else "" for side in (before, after))) for p in paths]
    return [(path, then, now) for path, then, now in forms if then != now]
