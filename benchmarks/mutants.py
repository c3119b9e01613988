"""Change one operator, number or condition of the code that counts, and look whether a test fails.

    python benchmarks/mutants.py [--sample N] [--seed N] [--jobs N] [--json FILE] [PART ...]

The changes are those of cosmic-ray (`pip install cosmic-ray`). The parts are the formulas, the rules of operations, the
metrics, the rules of the gate and the closed forms. Each has some thousand possible changes and each needs one run of
its tests, so `--sample` takes so many of each part, at random; 0 takes all. The changes are made in a copy of the
checkout. What no test notices is printed as a diff. The exit code is 1 if the tests notice less than 90 %.

Left out is what no test can notice: changes in type annotations, which Python does not evaluate here, `==` in place of
`is` and the reverse (the operands are members of enumerations and short texts), and arguments that only refuse mistakes
of ours (`strict=True`, `frozen=True`, `slots=True`).
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

CHECKOUT = Path(__file__).resolve().parent.parent
GOAL = 0.9
SAME = ("Eq_Is", "Is_Eq", "NotEq_IsNot", "IsNot_NotEq")
"""The ends of the names of operators that replace an equality by an identity, or the reverse."""
GUARDS = ("strict", "frozen", "slots")
"""Arguments that only refuse mistakes."""
SECONDS = 300
"""After which a run of tests counts as failed: the change made a loop endless."""


class Part(NamedTuple):
    """Files, and the tests that must notice a change in them."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


PARTS = {
    "formulas": Part(
        ("cspprof/core/formulas.py", "cspprof/core/units.py"),
        ("test_formulas.py", "test_units.py", "test_ops.py", "test_closed_form.py"),
    ),
    "ops": Part(
        ("cspprof/ops/*.py",),
        ("test_ops.py", "test_operators.py", "test_training.py", "test_indexing.py"),
    ),
    "metrics": Part(
        ("cspprof/metrics/*.py",),
        (
            "test_metrics.py", "test_metric_options.py", "test_conventions.py", "test_training.py",
            "test_lower_bounds.py", "test_peer_counts.py", "test_comparison.py", "test_indexing.py", "test_darknet.py",
        ),
    ),
    "gate": Part(
        ("cspprof/gate/rules.py", "cspprof/gate/checking.py"),
        ("test_gate_rules.py", "test_gate.py", "test_gate_config.py", "test_gate_formats.py", "test_cio_share.py"),
    ),
    "closed-forms": Part(("cspprof/csp/closed_form/*.py",), ("test_closed_form.py", "test_reproduction.py")),
}  # fmt: skip


class Mutant(NamedTuple):
    """One change, as cosmic-ray names it."""

    file: str
    operator: str
    arguments: dict[str, Any]
    occurrence: int
    start: tuple[int, int]
    end: tuple[int, int]


class Outcome(NamedTuple):
    """Whether the tests noticed a change; else the change."""

    killed: bool
    diff: str


def mutants(part: Part) -> Iterator[Mutant]:
    """All changes of the files of a part that a test can notice."""
    from cosmic_ray.commands.init import init
    from cosmic_ray.work_db import use_db

    files = [path.relative_to(CHECKOUT) for pattern in part.files for path in sorted(CHECKOUT.glob(pattern))]
    with tempfile.TemporaryDirectory() as folder, use_db(str(Path(folder) / "session")) as session:
        init([CHECKOUT / file for file in files], session, {})
        found = [mutation for item in session.work_items for mutation in item.mutations]
    left_out = {str(CHECKOUT / file): unnoticed_ranges(CHECKOUT / file) for file in files}
    for m in found:
        in_code = not any(start <= m.start_pos < end for start, end in left_out[str(m.module_path)])
        if in_code and not m.operator_name.endswith(SAME):
            file = Path(m.module_path).relative_to(CHECKOUT).as_posix()
            yield Mutant(file, m.operator_name, m.operator_args, m.occurrence, m.start_pos, m.end_pos)


def unnoticed_ranges(path: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where the type annotations and the guards of a file begin and end: lines from 1, columns from 0."""
    nodes: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.AnnAssign | ast.arg):
            nodes.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes.append(node.returns)
        elif isinstance(node, ast.keyword) and node.arg in GUARDS:
            nodes.append(node.value)
    return [((n.lineno, n.col_offset), (n.end_lineno or 0, n.end_col_offset or 0)) for n in nodes if n is not None]


def copy_checkout(folder: Path) -> None:
    """Copy the files that git knows."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True).stdout
    for name in names.decode().split("\0"):
        if name and (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)


def command(tests: Sequence[str]) -> str:
    """The run of tests. It ends with the first that fails."""
    paths = [f"tests/{name}" for name in tests if (CHECKOUT / "tests" / name).exists()]
    return shlex.join([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *paths])


def enter_copy(folder: Path) -> None:
    """Give this process a copy of the checkout as its current folder, from which its tests import."""
    mine = folder / str(os.getpid())
    mine.mkdir()
    copy_checkout(mine)
    os.chdir(mine)


def outcome(tests: Sequence[str], mutant: Mutant) -> Outcome:
    """Make a change in the copy that is the current folder, run the tests, and take the change back."""
    from cosmic_ray.mutating import mutate_and_test
    from cosmic_ray.work_item import MutationSpec

    spec = MutationSpec(
        mutant.file, mutant.operator, mutant.occurrence, mutant.start, mutant.end, mutant.arguments
    )  # fmt: skip
    result = mutate_and_test([spec], command(tests), SECONDS)
    if result.test_outcome is None:
        raise SystemExit(f"cosmic-ray made no change: {mutant}")
    return Outcome(result.is_killed, result.diff or "")


def run(name: str, sample: int, jobs: int, choose: random.Random) -> dict[str, Any]:
    """Try changes of one part, print those that survive, and return the counts."""
    part = PARTS[name]
    candidates = list(mutants(part))
    chosen = choose.sample(candidates, sample) if 0 < sample < len(candidates) else candidates
    survivors: list[str] = []
    with tempfile.TemporaryDirectory(prefix="cspprof-mutants-") as folder:
        place = Path(folder)
        with ProcessPoolExecutor(jobs, initializer=enter_copy, initargs=(place,)) as pool:
            clean = pool.submit(subprocess.run, shlex.split(command(part.tests)), check=False).result()
            if clean.returncode:
                raise SystemExit(f"the tests of {name} fail without a change")
            for done in pool.map(partial(outcome, part.tests), chosen):
                if not done.killed:
                    survivors.append(done.diff)
                    print(done.diff, flush=True)
    return {
        "part": name, "possible": len(candidates), "tried": len(chosen), "survived": len(survivors),
        "survivors": survivors,
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--sample", type=int, default=60, help="changes of each part; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    names = options.parts or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"no part {unknown[0]!r}; there are: {', '.join(PARTS)}")
    choose = random.Random(options.seed)
    results = []
    for name in names:
        results.append(run(name, options.sample, options.jobs, choose))
        tried, survived = results[-1]["tried"], results[-1]["survived"]
        print(f"{name}: {tried - survived} of {tried} noticed ({results[-1]['possible']} possible)", flush=True)
    tried, survived = (sum(r[key] for r in results) for key in ("tried", "survived"))
    print(f"{tried - survived} of {tried} noticed: {(tried - survived) / max(tried, 1):.1%}")
    if options.json:
        options.json.write_text(json.dumps({"seed": options.seed, "parts": results}, indent=2) + "\n")
    return 1 if tried - survived < GOAL * tried else 0


if __name__ == "__main__":
    sys.exit(main())
