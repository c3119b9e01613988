"""The public names: each is on the page of the Python API, as stable or provisional."""

from __future__ import annotations

import re
import subprocess
import sys

from conftest import CHECKOUT

import cspprof

PAGE = (CHECKOUT / "docs" / "api.md").read_text(encoding="utf-8")


def test_every_public_name_is_stable_or_provisional() -> None:
    rows = re.findall(r"^\| `(\w+)[^`]*` \| (stable|provisional) \| ", PAGE, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(cspprof.__all__)
    assert {name for name, status in rows if status == "stable"} >= {"profile", "compare", "check", "metric", "Profile"}


def test_every_public_name_exists_and_dir_lists_no_other() -> None:
    assert [name for name in cspprof.__all__ if not hasattr(cspprof, name)] == []
    assert sorted(cspprof.__all__) == sorted(set(cspprof.__all__)) == dir(cspprof)


def test_a_star_import_has_the_public_names() -> None:
    code = "from cspprof import *\nprint(*sorted(name for name in dir() if name[:2] != '__'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == sorted(name for name in cspprof.__all__ if name != "__version__")
