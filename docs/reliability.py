"""Write `reliability.md`: inputs tried, kills survived, mutants noticed, versions passed. With `--check`, exit with 1
unless the page is current.

The numbers come from `reliability/`: what `benchmarks/fuzz.py`, `benchmarks/kills.py` and `benchmarks/mutants.py`
wrote with `--json FILE`, and `versions.toml`.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from page_files import write_or_check

DOCS = Path(__file__).parent
PAGE = DOCS / "reliability.md"
RESULTS = DOCS / "reliability"

INTRODUCTION = """\
# Reliability

What was tried to make cspprof fail, how often, and the command that tries it again. Every fault found this way is
fixed and stays as a test. [What a SPEC may run](security.md) lists the limits of what is read, and what each output
does with hostile names. [What vouches for each number](fidelity.md) is about the numbers themselves.

`python docs/reliability.py` writes this page from the committed results of these commands.
"""

FUZZ = """\
## Inputs

Each input is a valid file or text that was changed at random: bytes, lines, fields, the structure of a graph. It must
give a value, or an error that names the file and says what to do: no traceback, no crash, at most 5 seconds of
processor time and 1 GiB of memory.

    python benchmarks/fuzz.py --minutes 60 --json FILE
"""
KILLS = """\
## Kills

A command that writes is killed (SIGKILL) or interrupted (Ctrl-C) at a random moment. What it has written must be the
version before or the one after, never a part of one, and a sweep that is started again must end with the rows of a
sweep that nothing disturbed.

    python benchmarks/kills.py --json FILE
"""
MUTANTS = """\
## Mutants

A mutant is the code with one operator, number or condition changed. The tests must notice it. The mutants are chosen
at random, with a seed that `docs/reliability/mutants-*.json` state. The goal is 90 % of each row. Tests are added for
what no test noticed, and the next run has other mutants.

    pip install cosmic-ray
    python benchmarks/mutants.py PART --seed N --json FILE
"""
VERSIONS = """\
## Versions

`.ci/run` runs all tests on Python 3.11 with the newest libraries. The runs below were on Linux too, each
in an environment as the sessions of `noxfile.py` make it. The failure on 3.12 and 3.13 was one test that expected
another class of error, and is mended.

    nox --session tests lowest wheel extras
"""
FORMATS = {
    "cfg": "Darknet cfg", "onnx": "ONNX", "pt2": "exported program (.pt2)", "profile": "saved profile",
    "measured": "measured result", "baseline": "baseline", "config": "configuration (TOML)", "space": "space (TOML)",
    "audit": "table for `audit`", "spec": "SPEC", "quantity": "quantity", "input": "`--input`", "where": "`--where`",
    "grid": "`--grid`", "sizes": "input sizes of a sweep",
}  # fmt: skip
SCENARIOS = {
    "sweep": "`sweep`, the command killed", "sweep-worker": "`sweep`, a worker killed",
    "sweep-ctrl-c": "`sweep`, Ctrl-C", "profile": "`profile --save`", "cache": "the cache, written by `cio`",
    "baseline": "`check --update-baseline`", "report": "`report -o page.html`",
}  # fmt: skip
PARTS = {
    "formulas": "formulas of costs and units", "ops": "rules of operations", "metrics": "metrics",
    "gate": "rules of the gate", "closed-forms": "closed forms of blocks",
}  # fmt: skip


def documents(kind: str) -> list[dict[str, Any]]:
    """The results of the runs of one benchmark."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"{kind}*.json"))]


def totals(rows: Iterable[tuple[str, Sequence[int]]]) -> dict[str, list[int]]:
    """The sum of the counts of each name."""
    sums: dict[str, list[int]] = defaultdict(list)
    for name, counts in rows:
        sums[name] = [a + b for a, b in zip(sums[name] or [0] * len(counts), counts, strict=True)]
    return sums


def table(head: str, names: dict[str, str], sums: dict[str, list[int]]) -> str:
    """A table of counts with a row for each name that has any, and one for all of them."""
    if unknown := sums.keys() - names.keys():
        raise ValueError(f"no text for {', '.join(sorted(unknown))}")
    columns = head.count("|")
    lines = [f"| {head} |", f"| --- |{' ---: |' * columns}"]
    rows = [(names[name], sums[name]) for name in names if name in sums]
    rows.append(("**all**", [sum(column) for column in zip(*sums.values(), strict=True)]))
    lines += [f"| {name} | {' | '.join(f'{count:,}' for count in counts)} |" for name, counts in rows]
    return "\n".join(lines) + "\n"


def fuzz_table() -> str:
    counts = (
        (name, (found["inputs"], found["values"], found["refused"], found["findings"]))
        for document in documents("fuzz")
        for name, found in document["formats"].items()
    )
    return table("format | inputs | gave a value | were refused | faults, mended since", FORMATS, totals(counts))


def kills_table() -> str:
    counts = (
        (found["scenario"], (found["kills"], len(found["faults"])))
        for document in documents("kills")
        for found in document["scenarios"]
    )
    return table("what is killed | kills | torn or lost", SCENARIOS, totals(counts))


def mutants_table() -> str:
    counts = (
        (found["part"], (found["possible"], found["tried"], found["tried"] - found["survived"]))
        for document in documents("mutants")
        for found in document["parts"]
    )
    return table("code | possible | tried | noticed", PARTS, totals(counts))


def versions_table() -> str:
    rows = tomllib.loads((RESULTS / "versions.toml").read_text())["run"]
    lines = ["| Python | libraries | tests | passed | failed | skipped |", "| --- | --- | --- | ---: | ---: | ---: |"]
    lines += [
        f"| {r['python']} | {r['libraries']} | {r['what']} | {r['passed']:,} | {r['failed']:,} | {r['skipped']:,} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def page() -> str:
    parts = [
        INTRODUCTION, FUZZ, fuzz_table(), KILLS, kills_table(), MUTANTS, mutants_table(), VERSIONS, versions_table(),
    ]  # fmt: skip
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    return write_or_check({PAGE: page()}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
