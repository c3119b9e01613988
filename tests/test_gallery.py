"""The gallery in reports/ is current."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import CHECKOUT

REPORTS = CHECKOUT / "reports"


@pytest.fixture
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reports", REPORTS / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_gallery_is_current() -> None:
    done = subprocess.run([sys.executable, REPORTS / "make.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_stale_files_are_found(make: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed digit and a missing file, for the data of one chart."""
    monkeypatch.setattr(make, "data_files", lambda: [("closed-form.csv", (REPORTS / "closed-form.csv").read_bytes())])
    shutil.copy(REPORTS / "closed-form.csv", tmp_path)
    assert list(make.stale_files(tmp_path, with_images=False)) == []
    text = (tmp_path / "closed-form.csv").read_text()
    (tmp_path / "closed-form.csv").write_text(text.replace("0.41025641025641024", "0.41025641025641025", 1))
    assert list(make.stale_files(tmp_path, with_images=False)) == ["closed-form.csv"]
    (tmp_path / "closed-form.csv").unlink()
    assert list(make.stale_files(tmp_path, with_images=False)) == ["closed-form.csv"]


def test_the_committed_data_of_one_chart_is_current(make: ModuleType) -> None:
    assert make.csv_text(make.chart("closed-form").records) == (REPORTS / "closed-form.csv").read_text()


def test_links_of_readmes_have_targets() -> None:
    for page in (REPORTS / "README.md", CHECKOUT / "README.md"):
        links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        assert links
        assert all((page.parent / link).exists() for link in links)


def test_images_are_small() -> None:
    images = list(REPORTS.glob("*.png"))
    assert len(images) >= 9
    assert all(p.stat().st_size < 300_000 for p in images)
