"""`cspprof doctor`: what it says about an installation, and the forms that ask for its output."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import CHECKOUT, Result
from hint_examples import calibrated

import cspprof
from cspprof.cli import doctor
from cspprof.storage import cache
from cspprof.sweeps.journal import SqliteJournal, default_path

Run = Callable[..., Result]
SCHEMA = json.loads((resources.files("cspprof") / "schemas" / "doctor-1.schema.json").read_text())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder that holds the caches and calibrations."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CSPPROF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CSPPROF_CALIBRATION_DIR", str(tmp_path / "calibrations"))
    return tmp_path


def document(run: Run) -> dict[str, Any]:
    printed = run("doctor", "--format", "json")
    assert printed.code == 0
    found: dict[str, Any] = json.loads(printed.out)
    jsonschema.validate(found, SCHEMA)
    return found


def test_versions_and_extras(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the installed packages; an extra without its packages says which are missing."""
    found = document(run)
    assert found["cspprof"]["version"] == cspprof.__version__
    assert found["packages"]["torch"] == version("torch")
    assert found["extras"]["onnx"] == {"onnx": version("onnx")}
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(found["extras"]) == set(project["optional-dependencies"]) - set(doctor.FOR_DEVELOPERS)
    monkeypatch.setattr(doctor, "version", lambda name: "1.0" if name == "torch" else version("no such package"))
    monkeypatch.setattr(doctor, "find_spec", lambda name: object() if name == "cv2" else None)
    found = document(run)
    assert (found["packages"]["torch"], found["packages"]["rich"]) == ("1.0", None)
    assert found["extras"]["measure"]["opencv-python-headless"] == "of another package"
    assert found["extras"]["measure"]["onnxruntime"] is None
    assert "missing: watchfiles" in run("doctor").out


def test_the_requirements_of_an_installed_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pip has written them, in place of those of a checkout."""
    monkeypatch.setattr(tomllib, "loads", lambda text: {"project": {"name": "another"}})
    lines = ["torch>=2.13", 'timm>=1.0; extra == "timm"', 'onnx; extra == "measure"', "ruff; extra == 'test'"]
    lines.append("cspprof[measure]; extra == 'openvino'")
    monkeypatch.setattr(doctor, "requires", lambda name: [*lines, "openvino>=2025.0 ; extra == 'openvino'"])
    extras = {"timm": ["timm"], "measure": ["onnx"], "openvino": ["openvino"]}
    assert doctor._requirements() == (["torch"], extras)


def test_cache_calibrations_and_journals(home: Path, run: Run) -> None:
    """The command lists existing and damaged files. It writes nothing and does not name the home folder."""
    empty = document(run)
    assert (empty["cache"]["profiles"], empty["calibrations"]["entries"], empty["journals"]["entries"]) == (0, [], [])
    assert list(home.iterdir()) == []
    cache.folder().mkdir(parents=True)
    (cache.folder() / "a.profile.json.gz").write_bytes(b"12345")
    (home / "calibrations").mkdir()
    calibrated().save(home / "calibrations" / "torch-1.calibration.json")
    (home / "calibrations" / "onnxruntime-2.calibration.json").write_text("{")
    SqliteJournal(default_path("a space")).close()
    journals = default_path("").parent
    (journals / "damaged.sweep").write_text("not a database")
    found = document(run)
    assert found["cache"] == {
        "folder": "~/cache/records", "profiles": 1, "bytes": 5, "limit": cache.LIMIT, "writable": True
    }  # fmt: skip
    assert found["calibrations"]["folder"] == "~/calibrations"
    damaged, other = found["calibrations"]["entries"]
    assert (damaged["engine"], damaged["threads"]) == ("onnxruntime", 2)
    assert damaged["problem"].startswith("~/calibrations/onnxruntime-2.calibration.json is not a calibration")
    assert other["date"] == calibrated().date
    assert [(entry["rows"], entry["problem"]) for entry in found["journals"]["entries"]] == [
        ({}, None),
        (None, "file is not a database"),
    ]
    printed = run("doctor").out
    assert str(home) not in printed + json.dumps(found)
    assert re.search(r"^cache +~/cache/records: 1 profile, 5 B of 256 MiB$", printed, re.M)


def test_rows_of_a_journal_by_status(home: Path, run: Run) -> None:
    journal = SqliteJournal(default_path("a space"))
    journal.close()
    with sqlite3.connect(journal.path) as database:
        for key, status in enumerate(("ok", "ok", "failed")):
            database.execute(f"INSERT INTO rows (key, status) VALUES (x'0{key}', '{status}')")
    assert document(run)["journals"]["entries"][0]["rows"] == {"failed": 1, "ok": 2}


@pytest.mark.slow
def test_neither_torch_nor_an_extra_is_imported() -> None:
    code = (
        "import sys\nfrom cspprof.cli import main\ntry:\n    main(['doctor'])\nexcept SystemExit:\n    pass\n"
        "sys.exit(str(sorted({'torch', 'numpy', 'onnx', 'onnxruntime', 'cv2', 'psutil', 'mlflow'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.stderr == "[]\n"


def test_the_forms_for_issues_ask_for_it() -> None:
    forms = {
        file.stem: yaml.safe_load(file.read_text()) for file in (CHECKOUT / ".github/ISSUE_TEMPLATE").glob("*.yml")
    }
    assert forms.keys() == {"bug", "number", "idea", "config"}
    for name in ("bug", "number"):
        fields = {field["id"]: field for field in forms[name]["body"]}
        assert "cspprof doctor" in fields["doctor"]["attributes"]["label"]
        assert fields["doctor"]["validations"]["required"] is True
        assert {"name", "description", "body"} <= forms[name].keys()
