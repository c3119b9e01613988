"""`Measurement`: what a session measured, as plain data, and its file `*.measured.json`.

Times are samples in seconds, one list per round. Medians, intervals and ratios are computed from them when they are
shown. Each model has its record, so later commands can use the file as a SPEC.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from cspprof.core.files import check_replaceable, write_atomically
from cspprof.core.json_text import json_bytes
from cspprof.core.record import Record
from cspprof.core.validation import Count, Name, Positive, Seconds, Share, Text, validated
from cspprof.measure.engines.network import SKIPPED
from cspprof.measure.explain import Explanation, explained_difference
from cspprof.measure.layers import LayerProfile
from cspprof.measure.machine import Machine
from cspprof.measure.statistics import Estimate, is_difference, least_difference, median_estimate, ratio_estimate
from cspprof.measure.statistics import least as least_of
from cspprof.metrics import value_of
from cspprof.storage import measured_file, profile_file
from cspprof.storage.measured_file import SCHEMA


@dataclass
class EngineRun:
    """An engine as it was configured in this session."""

    name: Name
    versions: dict[Name, Name] = field(default_factory=dict)
    settings: dict[Name, Any] = field(default_factory=dict)
    """The settings that its `configure` returned, with `pinned_to` (CPUs, or null) and `denormals_flushed`."""
    failure: Text = ""
    """Why it could not start; empty if it did."""
    hint: Text | None = None


@dataclass
class MeasuredModel:
    """A model of the session."""

    name: str
    spec: str
    inputs: list[str]
    """Values of `--input`; empty for the model's own input."""
    record: Record
    export: dict[str, Any] = field(default_factory=dict)
    """Exporter, opset and number of nodes of the ONNX graph; `failure` if there is none."""
    notes: list[str] = field(default_factory=list)
    failure: str = ""
    hint: str | None = None

    @property
    def images(self) -> int:
        """The batch size: the first dimension of the first input."""
        inputs = self.record.inputs
        return inputs[0].shape[0] if inputs and inputs[0].shape else 1


Sample = Annotated[float, Meta(ge=1e-12, le=1e12)]
"""A measured time in seconds."""
MAX_SAMPLES = 100_000
"""The samples in a file. The bootstrap draws each of them a thousand times."""


@dataclass
class Timing:
    """One model on one engine. `again` marks the second copy of a model that makes up the A/A pair of its engine."""

    engine: Name
    model: Count
    """Index in `Measurement.models`."""
    again: bool = False
    rounds: list[list[Sample]] = field(default_factory=list)
    """Samples in seconds for one forward pass."""
    runs_per_sample: Positive = 1
    warm_up_runs: list[Count] = field(default_factory=list)
    """Forward passes before the samples of each round."""
    stable: bool = True
    """Whether the times were stable after every warm-up."""
    error: Share | None = None
    """Largest relative error of an output; None if it was not compared."""
    peak_bytes: Count | None = None
    """Peak resident memory of a process that loaded this model only and ran it twice."""
    engine_bytes: Count | None = None
    """Peak resident memory of that process before it loaded the model."""
    load_seconds: Seconds | None = None
    notes: list[Text] = field(default_factory=list)
    failure: Text = ""
    hint: Text | None = None


@dataclass
class Measurement:
    """A session: the machine, the engines, the models, and every sample."""

    machine: Machine
    date: str
    """UTC, in ISO 8601."""
    threads: int
    rounds: int
    """The number of rounds that the session should have."""
    load_average: float | None
    """Processes that ran or waited, in the minute before the session; None if the system does not say."""
    engines: list[EngineRun] = field(default_factory=list)
    models: list[MeasuredModel] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    finished_rounds: int = 0
    other_cpu_share: float | None = None
    """Share of the CPUs that other processes used while the samples were taken."""
    interrupted: bool = False
    checked_only: bool = False
    """Whether the session only checked which engine can run which model."""
    versions: dict[str, str] = field(default_factory=dict)
    layer_profiles: list[LayerProfile] = field(default_factory=list)
    """Empty unless the session profiled layers."""

    @property
    def has_failures(self) -> bool:
        """Whether an engine failed on a model. An engine that this machine lacks, such as a GPU, is no failure if
        another engine ran."""
        failures = [t.failure for t in self.timings if t.failure]
        skipped = [failure for failure in failures if failure.startswith(SKIPPED)]
        return len(failures) > len(skipped) or (bool(skipped) and len(skipped) == len(self.timings))

    def timing(self, engine: str, model: int, again: bool = False) -> Timing | None:
        """The timing of a model on an engine; None if the session has none."""
        return next((t for t in self.timings if (t.engine, t.model, t.again) == (engine, model, again)), None)

    def of_engine(self, engine: str) -> Iterator[Timing]:
        """The timings on one engine without that of the second copy, in the order of the models."""
        return (t for t in self.timings if t.engine == engine and not t.again)

    def median(self, timing: Timing) -> Estimate | None:
        """The median time of a forward pass in seconds; None without samples."""
        return median_estimate(timing.rounds) if any(timing.rounds) else None

    def ratio(self, timing: Timing) -> Estimate | None:
        """The median time divided by that of the first measured model on the same engine; None without samples."""
        base = self.base(timing.engine)
        if base is None or not any(timing.rounds):
            return None
        if timing is base:
            return Estimate(1.0, 1.0, 1.0)
        return ratio_estimate(base.rounds, timing.rounds)

    def base(self, engine: str) -> Timing | None:
        """The timing of the first model on the engine; None if it has no samples."""
        first = next(self.of_engine(engine), None)
        return first if first is not None and any(first.rounds) else None

    def same_model_ratio(self, engine: str) -> Estimate | None:
        """The ratio of the A/A pair of an engine: one model, loaded twice; None if it was not measured."""
        again = next((t for t in self.timings if t.engine == engine and t.again and any(t.rounds)), None)
        first = self.timing(engine, again.model) if again is not None else None
        if again is None or first is None or not any(first.rounds):
            return None
        return ratio_estimate(first.rounds, again.rounds)

    def least_difference(self, engine: str) -> float | None:
        """The smallest relative difference that may be claimed on an engine; None if there is no A/A pair."""
        same = self.same_model_ratio(engine)
        return None if same is None else least_difference(same)

    # -- rows -------------------------------------------------------------------------------------

    def listed(self) -> list[Timing]:
        """The timings in the order of the table: by engine, then by model."""
        return [t for engine in self.engines for t in self.of_engine(engine.name)]

    def rows(self) -> list[dict[str, Any]]:
        return [self.row(timing) for timing in self.listed()]

    def row(self, timing: Timing) -> dict[str, Any]:
        """The numbers of one timing; times in milliseconds, None where there is no value. Ratios are relative to the
        first model on the same engine."""
        model, first = self.models[timing.model], self.models[0]
        median, ratio = self.median(timing), self.ratio(timing)
        least = self.least_difference(timing.engine)
        is_base = timing is self.base(timing.engine)
        return {
            "engine": timing.engine,
            "model": model.name,
            "spec": model.spec,
            "median_ms": median.value * 1e3 if median else None,
            "low_ms": median.low * 1e3 if median else None,
            "high_ms": median.high * 1e3 if median else None,
            "min_ms": least_of(timing.rounds) * 1e3 if median else None,
            "images_per_s": model.images / median.value if median else None,
            "samples": sum(map(len, timing.rounds)),
            "peak_bytes": timing.peak_bytes,
            "ratio": ratio.value if ratio else None,
            "ratio_low": ratio.low if ratio else None,
            "ratio_high": ratio.high if ratio else None,
            "least_difference": least,
            "differs": None if ratio is None or least is None or is_base else is_difference(ratio, least),
            "macs_ratio": _quotient(model.record, first.record, "macs"),
            "cio_ratio": _quotient(model.record, first.record, "cio_cspnet"),
            "error": timing.error,
            "failure": timing.failure,
        }

    # -- layers -----------------------------------------------------------------------------------

    def explanations(self) -> list[Explanation]:
        """Why each other model differs from the first one, for every engine that timed and profiled both."""
        found = []
        for engine in self.engines:
            base, profiles = self.base(engine.name), self._timed_profiles(engine.name)
            if base is None or base.model not in profiles:
                continue
            for timing in self.of_engine(engine.name):
                first, other = self.median(base), self.median(timing)
                if timing is base or first is None or other is None or timing.model not in profiles:
                    continue
                found.append(
                    explained_difference(
                        (self.models[base.model].record, self.models[timing.model].record),
                        (profiles[base.model], profiles[timing.model]),
                        (first.value, other.value),
                    )
                )
        return found

    def _timed_profiles(self, engine: str) -> dict[int, LayerProfile]:
        """The profile of each model with the setting that was timed: the first one of the engine."""
        found: dict[int, LayerProfile] = {}
        for profile in self.layer_profiles:
            if profile.engine == engine and not profile.failure:
                found.setdefault(profile.model, profile)
        return found

    # -- the file ---------------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """The JSON document of the file."""
        models = [
            {**{k: v for k, v in vars(m).items() if k != "record"}, "record": profile_file.to_dict(m.record)}
            for m in self.models
        ]
        own = {
            k: v
            for k, v in vars(self).items()
            if k not in ("machine", "engines", "models", "timings", "layer_profiles")
        }
        layers = {
            "layer_profiles": [asdict(p) for p in self.layer_profiles],
            "explanations": [asdict(e) for e in self.explanations()],
        }  # fmt: skip
        return {
            "schema": SCHEMA,
            **own,
            "machine": asdict(self.machine),
            "engines": [asdict(e) for e in self.engines],
            "timings": [asdict(t) for t in self.timings],
            "models": models,
            "results": self.rows(),
            **(layers if self.layer_profiles else {}),
        }

    def save(self, path: Path) -> None:
        """Write the file. Raises OutputError, also if the file exists and is no measurement."""
        check_replaceable(path, measured_file.is_own, "a measurement", "--save FILE")
        text = json.dumps(self.document(), ensure_ascii=False, separators=(",", ":"))
        write_atomically(path, json_bytes(text + "\n"))

    @classmethod
    def load(cls, path: Path) -> Measurement:
        """Read a file that `save` wrote. Raises ProfileError."""
        document = measured_file.load(path)
        try:
            return _measurement(validated(document, MeasuredDocument))
        except ValueError as error:
            raise measured_file.damaged(path, error) from None


# -- reading a file ---------------------------------------------------------------------------------


class Export(Struct):
    """Facts about the ONNX graph of a model."""

    exporter: Name = ""
    opset: dict[Name, Count] = {}
    failure: Text = ""
    refused: list[Text] = []


class ModelEntry(Struct):
    """A model in the document; see `MeasuredModel`."""

    name: Name
    spec: Text
    inputs: list[Text]
    record: dict[str, Any]
    export: dict[str, Any] = {}
    notes: list[Text] = []
    failure: Text = ""
    hint: Text | None = None


class MeasuredDocument(Struct):
    """The document of a file; see `Measurement`."""

    machine: Machine
    date: Name
    threads: Positive
    rounds: Count
    load_average: Share | None
    engines: list[EngineRun]
    models: list[ModelEntry]
    timings: list[Timing]
    finished_rounds: Count = 0
    other_cpu_share: Share | None = None
    interrupted: bool = False
    checked_only: bool = False
    versions: dict[Name, Name] = {}
    layer_profiles: list[LayerProfile] = []


def _measurement(document: MeasuredDocument) -> Measurement:
    """The measurement in a document. Raises ValueError if its parts do not fit together."""
    models = []
    for i, entry in enumerate(document.models):
        validated(entry.export, Export, f"models[{i}].export")
        own = {name: getattr(entry, name) for name in ModelEntry.__struct_fields__}
        models.append(MeasuredModel(**own | {"record": measured_file.record_of(entry.record, i)}))
    for name in ("timings", "layer_profiles"):
        for i, part in enumerate(getattr(document, name)):
            if part.model >= len(models):
                raise ValueError(f"{name}[{i}].model is {part.model}, and there are {len(models)} models")
            if part.engine not in [engine.name for engine in document.engines]:
                raise ValueError(f"{name}[{i}].engine is {part.engine[:40]!r}, which is none of engines")
    if sum(len(samples) for timing in document.timings for samples in timing.rounds) > MAX_SAMPLES:
        raise ValueError(f"timings have more than {MAX_SAMPLES:,} samples")
    for i, profile in enumerate(document.layer_profiles):
        calls = len(models[profile.model].record.calls.spec)
        for k, node in enumerate(profile.nodes):
            if max([*node.calls, *node.belongs_to], default=-1) >= calls:
                raise ValueError(f"layer_profiles[{i}].nodes[{k}] names a call that its model does not have")
    return Measurement(**{n: getattr(document, n) for n in MeasuredDocument.__struct_fields__} | {"models": models})


def _quotient(record: Record, base: Record, metric: str) -> float | None:
    """The value of a metric divided by that of the base; None if one is unknown or the base is 0."""
    value, divisor = value_of(record, metric), value_of(base, metric)
    return None if value is None or not divisor else value / divisor
