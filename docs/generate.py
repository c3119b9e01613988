"""Rewrites the parts of the documentation that are generated; `--check` only says whether they are current."""

from __future__ import annotations

import sys
from pathlib import Path

from cspprof.metrics import METRICS, Metric

PAGE = Path(__file__).parent / "semantics.md"
BEGIN, END = "<!-- numbers: begin -->", "<!-- numbers: end -->"


def numbers() -> str:
    """A section per registered number: the text that `cspprof explain NAME` prints."""
    return "\n".join(_section(name, m) for name, m in METRICS.items())


def _section(name: str, m: Metric) -> str:
    lines = [f"### `{name}`: {m.title} ({m.unit})\n", f"{m.definition}\n"]
    if m.is_not:
        lines.append(f"*It is not* {m.is_not}.\n")
    if m.paper:
        lines.append(f"Source: {m.paper}.\n")
    return "\n".join(lines)


def page() -> str:
    """The whole page with its generated part renewed."""
    old = PAGE.read_text()
    before, rest = old.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{numbers()}\n{END}{after}"


def main(arguments: list[str]) -> int:
    new = page()
    if "--check" in arguments:
        return int(new != PAGE.read_text())
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
