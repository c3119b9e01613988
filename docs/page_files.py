"""Writing generated pages. A test runs each generator with `--check`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_or_check(pages: Mapping[Path, str], arguments: list[str]) -> int:
    """Write the texts of these files, and return 0. With `--check`, only return 1 unless all files are current."""
    if "--check" in arguments:
        return int(any(not file.exists() or file.read_text(encoding="utf-8") != text for file, text in pages.items()))
    for file, text in pages.items():
        file.write_text(text, encoding="utf-8")
    return 0
