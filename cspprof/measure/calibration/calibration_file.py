"""`Calibration`: what one engine on one machine was measured to do, as plain data, and the files of this machine.

There is one file for each engine and number of threads, in the user's folder for data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from cspprof.core.errors import CspprofError, ProfileError
from cspprof.core.files import check_replaceable, read_limited, write_atomically
from cspprof.core.json_text import MAX_BYTES, parse_json
from cspprof.core.validation import Name, Positive, Seconds, Share, Text, validated
from cspprof.measure.calibration.fit import Prediction, PredictionError, Rates, Sample
from cspprof.measure.calibration.kernels import Shape
from cspprof.measure.engines import ENGINES
from cspprof.measure.machine import Machine, cpu_name, default_threads

SCHEMA = "cspprof.calibration/1"
SUFFIX = ".calibration.json"


@dataclass
class Calibration:
    """The seconds per unit of work of one engine, what they were fitted to, and how far predictions were off."""

    engine: str
    threads: int
    machine: Machine
    date: str
    """UTC, in ISO 8601."""
    versions: dict[str, str]
    """cspprof, the engine and its libraries."""
    settings: dict[str, Any]
    shape: Shape
    """The block of channels, and the size of the cache, which fit the times best."""
    rates: Rates
    """Seconds per unit of work."""
    error: PredictionError
    """On families of networks that took no part in the fit."""
    kind_errors: dict[str, float]
    """For each kind of kernel, the median absolute error on short networks that mostly consist of it."""
    samples: list[Sample] = field(default_factory=list)
    """Short networks for calibration."""
    references: list[Sample] = field(default_factory=list)
    """Networks of the zoo."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Networks that were not measured, each with the reason."""
    seconds: float = 0.0
    """How long the calibration took."""
    other_cpu_share: float | None = None
    """Share of the CPUs that other processes used meanwhile."""

    @property
    def label(self) -> str:
        """`onnxruntime 1.32.0, 2 threads, calibrated on 2026-11-30 on Xeon …`."""
        threads = f"{self.threads} thread" + ("" if self.threads == 1 else "s")
        return f"{self.engine} {self.version}, {threads}, calibrated on {self.date[:10]} on {self.machine.cpu}"

    @property
    def version(self) -> str:
        """The version of the engine itself."""
        return self.versions.get(ENGINES.get(self.engine).packages[0], "of unknown version")

    def document(self) -> dict[str, Any]:
        """The JSON document of the file."""
        error = self.error
        return {
            "schema": SCHEMA,
            **{k: v for k, v in vars(self).items() if k not in ("machine", "shape", "error", "samples", "references")},
            **self.shape._asdict(),
            "machine": asdict(self.machine),
            "error": {
                "median": error.median,
                "spearman": error.spearman,
                "networks": [asdict(p) for p in error.predictions],
            },
            "samples": [asdict(s) for s in self.samples],
            "references": [asdict(s) for s in self.references],
        }

    def save(self, path: Path) -> None:
        """Write the file. Raises OutputError, also if the file exists and is no calibration."""
        check_replaceable(path, is_own, "a calibration", "--save FILE")
        text = json.dumps(self.document(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        write_atomically(path, text.encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a file that `save` wrote. Raises ProfileError."""
        again = "Calibrate again: cspprof calibrate"
        try:
            document = parse_json(read_limited(path, MAX_BYTES))
        except FileNotFoundError:
            raise ProfileError(f"there is no file {path}", f"Make one: cspprof calibrate --save {path}") from None
        except OSError as error:
            raise ProfileError(f"cannot read {path}: {error.strerror or error}", "Name another file.") from None
        except ValueError as error:
            raise ProfileError(f"{path} is not a calibration: {error}", again) from None
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != SCHEMA:
            raise ProfileError(f"{path} has schema {schema!r}; this version reads {SCHEMA!r}", again)
        try:
            read = validated(document, CalibrationDocument)
        except ValueError as error:
            raise ProfileError(f"{path} is damaged: {error}", again) from None
        values = {name: getattr(read, name) for name in CalibrationDocument.__struct_fields__}
        shape = Shape(values.pop("block"), values.pop("cache_bytes"))
        return cls(**values | {"shape": shape, "error": PredictionError(read.error.networks)})


class ErrorDocument(Struct):
    """The error of predictions; `median` and `spearman` in a file follow from the networks."""

    networks: Annotated[tuple[Prediction, ...], Meta(min_length=1)]


class CalibrationDocument(Struct):
    """The document of a file; see `Calibration`."""

    engine: Name
    threads: Positive
    machine: Machine
    date: Name
    versions: dict[Name, Name]
    settings: dict[Name, Any]
    block: Positive
    cache_bytes: Positive | None
    rates: dict[Name, Seconds]
    error: ErrorDocument
    kind_errors: dict[Name, Share]
    samples: list[Sample]
    references: list[Sample]
    skipped: dict[Name, Text] = {}
    seconds: Seconds = 0.0
    other_cpu_share: Share | None = None


def is_own(head: bytes) -> bool:
    """Whether a file that starts with these bytes is a calibration."""
    return head.startswith(b'{"schema":"cspprof.calibration/')


# -- the files of this machine ------------------------------------------------------------------------


def folder() -> Path:
    """The folder of the calibrations: `CSPPROF_CALIBRATION_DIR`, else in the user's own folder for data."""
    chosen = os.environ.get("CSPPROF_CALIBRATION_DIR")
    if chosen:
        return Path(chosen)
    from platformdirs import user_data_path

    return user_data_path("cspprof", appauthor=False) / "calibration"


def stored_path(engine: str, threads: int) -> Path:
    return folder() / f"{engine}-{threads}{SUFFIX}"


def stored() -> Iterator[tuple[str, int, Path]]:
    """Engine, threads and path of each calibration in the folder, in the order of their names."""
    for path in sorted(folder().glob(f"*{SUFFIX}")):
        engine, _, threads = path.name.removesuffix(SUFFIX).rpartition("-")
        if engine in ENGINES and threads.isdecimal():
            yield engine, int(threads), path


def find(engine: str | None, threads: int | None) -> Calibration:
    """The calibration of this machine: without an engine, that of ONNX Runtime or else the first one; without threads,
    with one per core.

    Raises CspprofError if there is none, or if it was made on another machine or for another version of the engine.
    """
    if engine is not None:
        ENGINES.get(engine)
    wanted = default_threads() if threads is None else threads
    found = list(stored())
    fitting = [(e, n, p) for e, n, p in found if n == wanted and engine in (None, e)]
    if not fitting:
        raise _missing(engine, threads, wanted, [(e, n) for e, n, _ in found])
    fitting.sort(key=lambda entry: entry[0] != "onnxruntime")
    calibration = Calibration.load(fitting[0][2])
    check_machine(calibration)
    return calibration


def _missing(engine: str | None, threads: int | None, wanted: int, found: Sequence[tuple[str, int]]) -> CspprofError:
    words = (f" --engine {engine}" if engine else "") + (f" --threads {threads}" if threads else "")
    name = f" of {engine}" if engine else ""
    hints = [f"Measure it, in about two minutes: cspprof calibrate{words}"]
    hints += [f"There is one for: --engine {e} --threads {n}" for e, n in found]
    return CspprofError(
        f"this machine has no calibration{name} for {wanted} thread{'' if wanted == 1 else 's'}", "\n".join(hints)
    )


def check_machine(calibration: Calibration, cpu: str | None = None, versions: Mapping[str, str] | None = None) -> None:
    """Raise CspprofError if the calibration was made on another CPU, or for another version of its engine than the
    installed one. `cpu` and `versions` are those of this machine by default."""
    again = f"Calibrate again: cspprof calibrate --engine {calibration.engine} --threads {calibration.threads}"
    cpu = cpu_name() if cpu is None else cpu
    if calibration.machine.cpu != cpu:
        raise CspprofError(
            f"the calibration of {calibration.engine} was made on {calibration.machine.cpu}, and this machine is {cpu}",
            f"{again}\nOr use it for that machine: --machine {stored_path(calibration.engine, calibration.threads)}",
        )
    engine = ENGINES.get(calibration.engine)
    if versions is None:
        versions = {} if engine.missing() else engine.versions()
    for package in engine.packages[:1]:  # the others only write the graph
        if package in versions and versions[package] != calibration.versions.get(package):
            raise CspprofError(
                f"the calibration is of {package} {calibration.versions.get(package)}, and {versions[package]} is "
                "installed",
                again,
            )


def calibration_rows(calibration: Calibration) -> list[dict[str, Any]]:
    """One row for each unit of work, with its time."""
    shared = {"engine": calibration.engine, "threads": calibration.threads, "date": calibration.date}
    return [{**shared, "unit": unit, "seconds_per_unit": rate} for unit, rate in calibration.rates.items()]
