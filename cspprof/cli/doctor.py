"""The command `doctor`: what a bug report must say about this installation. It imports neither torch nor an extra."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cspprof._version import __version__
from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter
from cspprof.core.errors import CspprofError
from cspprof.core.units import counted, nbytes
from cspprof.measure.calibration import calibration_file
from cspprof.measure.machine import available_cpus, cpu_name
from cspprof.report.tables import Cell, Column, Report, Table, text
from cspprof.sources.cache_keys import installation, is_release
from cspprof.storage import cache
from cspprof.sweeps import journal

FOR_DEVELOPERS = ("test", "bench", "docs", "all")
"""Extras that are not listed."""
MODULES = {"opencv-python-headless": "cv2", "mlflow-skinny": "mlflow"}
"""The module of a package whose name is another one. Another package may contain the same module."""
VARIABLES = re.compile(
    "CSPPROF_.*|TIMM_.*|WATCHFILES_.*|CUDA_VISIBLE_DEVICES|OMP_NUM_THREADS|COLUMNS|TERM|(NO|FORCE)_COLOR"
)
"""Environment variables that change what cspprof does or prints."""


def doctor_command(format: o.Format = None, output: o.Output = None) -> None:
    """Print versions, extras, the cache, calibrations and journals of this installation, for a bug report.

    Paths begin with ~ in place of your home folder. Look through the output before you publish it.
    """
    writer = ReportWriter(format, output)
    writer.write(_report(_document()))


# -- facts ------------------------------------------------------------------------------------------


def _document() -> dict[str, Any]:
    """The JSON contract `cspprof.doctor/1`."""
    required, extras = _requirements()
    return {
        "schema": "cspprof.doctor/1",
        "cspprof": {"version": __version__, "installation": _kind_of_installation()},
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cpus": len(available_cpus()),
        "packages": {name: _version(name) for name in required},
        "extras": {extra: {name: _version(name) for name in names} for extra, names in extras.items()},
        "cache": _cache_state(),
        "calibrations": {"folder": _short(calibration_file.folder()), "entries": list(_calibrations())},
        "journals": {"folder": _short(_journal_folder()), "entries": list(_journals())},
        "environment": {k: _short(v) for k, v in sorted(os.environ.items()) if VARIABLES.fullmatch(k)},
    }


def _kind_of_installation() -> str:
    """`release`, `development version`, or `checkout`, whose files can change under one version."""
    installed = installation("cspprof")
    if installed is None:
        return "checkout"
    return "release" if is_release(installed) else "development version"


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """The names of the required packages, and those of each extra: of a checkout as its `pyproject.toml` lists them,
    else as they were installed."""
    file = Path(__file__).parents[2] / "pyproject.toml"
    if file.is_file() and (project := tomllib.loads(file.read_text(encoding="utf-8"))["project"])["name"] == "cspprof":
        lines = list(project["dependencies"])
        lines += [
            f'{line}; extra == "{e}"' for e, listed in project["optional-dependencies"].items() for line in listed
        ]
    else:
        try:
            lines = requires("cspprof") or []
        except PackageNotFoundError:
            lines = []
    required: list[str] = []
    extras: dict[str, list[str]] = {}
    for line in lines:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        extra = re.search(r"extra == [\"']([\w-]+)", line)
        if extra is None:
            required.append(name)
        elif extra[1] not in FOR_DEVELOPERS and name != "cspprof":
            extras.setdefault(extra[1], []).append(name)
    return required, extras


def _version(package: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "of another package" if find_spec(MODULES.get(package, package)) is not None else None


def _cache_state() -> dict[str, Any]:
    folder, entries = cache.folder(), cache.entries()
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    return {
        "folder": _short(folder), "profiles": len(entries), "bytes": sum(entry.nbytes for entry in entries),
        "limit": cache.LIMIT, "writable": os.access(nearest, os.W_OK),
    }  # fmt: skip


def _calibrations() -> Iterator[dict[str, Any]]:
    """The calibrations of this machine, each with the reason why it cannot be used."""
    for engine, threads, path in calibration_file.stored():
        entry = {"engine": engine, "threads": threads, "date": None, "problem": None}
        try:
            calibration = calibration_file.Calibration.load(path)
            entry["date"] = calibration.date
            calibration_file.check_machine(calibration)
        except CspprofError as error:
            entry["problem"] = _short(error.message)
        yield entry


def _journal_folder() -> Path:
    return journal.default_path("").parent


def _journals() -> Iterator[dict[str, Any]]:
    """The journals of sweeps for which the user named no file, each with its rows by status or its problem."""
    for path in sorted(_journal_folder().glob("*.sweep")):
        entry: dict[str, Any] = {"name": path.name, "bytes": None, "rows": None, "problem": None}
        try:
            files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
            entry["bytes"] = sum(file.stat().st_size for file in files)
            entry["rows"] = journal.rows_by_status(path)
        except (CspprofError, OSError, sqlite3.Error, ValueError) as error:
            entry["problem"] = _short(getattr(error, "message", "") or str(error))
        yield entry


def _short(path: Path | str) -> str:
    """The text with ~ in place of the home folder: a bug report names no user."""
    home = str(Path.home())
    return str(path).replace(home, "~") if len(home) > 1 else str(path)


# -- the report -------------------------------------------------------------------------------------

Line = tuple[str, str, bool | None]
"""A name, what was found, and whether that is good; None if it is neither."""


def _report(found: Mapping[str, Any]) -> Report:
    parts = {"versions": _version_lines(found), "extras": _extra_lines(found), "state": _state_lines(found)}
    tables = [
        Table("", [Column(part), Column("")], [[text(name), Cell(value, value, good)] for name, value, good in lines])
        for part, lines in parts.items()
    ]
    records = [
        {"part": part, "name": name.strip(), "value": value}
        for part, lines in parts.items()
        for name, value, _ in lines
    ]
    return Report(tables, records, dict(found))


def _version_lines(found: Mapping[str, Any]) -> list[Line]:
    cspprof, cpus = found["cspprof"], counted(found["cpus"], "CPU")
    lines: list[Line] = [
        ("cspprof", f"{cspprof['version']}, {cspprof['installation']}", None),
        ("Python", found["python"], None),
        ("system", f"{found['system']}, {found['cpu']}, {cpus}", None),
    ]
    for name, number in found["packages"].items():
        lines.append((name, number or "not installed", None if number else False))
    return lines


def _extra_lines(found: Mapping[str, Any]) -> list[Line]:
    lines: list[Line] = []
    for name, packages in found["extras"].items():
        missing = [package for package, number in packages.items() if number is None]
        texts = [f"{package} {number}" for package, number in packages.items() if number is not None]
        texts += [f"missing: {', '.join(missing)}"] if missing else []
        lines.append((name, ", ".join(texts), None if missing else True))
    return lines


def _state_lines(found: Mapping[str, Any]) -> list[Line]:
    state, calibrations, journals = found["cache"], found["calibrations"], found["journals"]
    size = f"{counted(state['profiles'], 'profile')}, {nbytes(state['bytes'])} of {nbytes(state['limit'])}"
    writable = "" if state["writable"] else ", not writable"
    lines: list[Line] = [("cache", f"{state['folder']}: {size}{writable}", bool(state["writable"]))]
    lines.append(("calibrations", f"{calibrations['folder']}: {len(calibrations['entries'])}", None))
    for entry in calibrations["entries"]:
        name = f"  {entry['engine']}, {counted(entry['threads'], 'thread')}"
        lines.append((name, entry["problem"] or f"of {entry['date'][:10]}", entry["problem"] is None))
    lines.append(("journals", f"{journals['folder']}: {len(journals['entries'])}", None))
    for entry in journals["entries"]:
        lines.append((f"  {entry['name']}", entry["problem"] or _rows(entry), entry["problem"] is None))
    return [*lines, *((name, value, None) for name, value in found["environment"].items())]


def _rows(entry: Mapping[str, Any]) -> str:
    rows = ", ".join(f"{n} {status}" for status, n in entry["rows"].items()) or "no rows"
    return f"{rows}, {nbytes(entry['bytes'])}"
