"""Kill commands at random moments, and look whether anything is torn or lost.

    python benchmarks/kills.py [--times N] [--seed N] [--json FILE] [SCENARIO ...]

Each scenario is a command that writes: the journal of a sweep, the cache, a saved profile, a baseline, a page. The
command is started, and killed after a random part of the time that it needs. Then what it has written must be complete:
the version before or the one after, and never a part of a row or of a file. A sweep is started again until it ends; its
rows must equal those of a sweep that nothing killed. The exit code is 1 if anything is torn or lost.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cspprof
from cspprof.core.errors import CspprofError
from cspprof.sweeps.journal import open_journal

NET = """
import time
from torch import nn

class Net(nn.Module):
    example_input_shape = (1, 3, 32, 32)

    def __init__(self, width=4):
        super().__init__()
        time.sleep(0.1)
        self.layers = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3))

    def forward(self, x):
        return self.layers(x)
"""

CONFIG = """
[models.first]
target = "resnet10"

[models.second]
target = "net.py:Net"

[[rules]]
id = "macs"
metric = "macs"
max_increase = "0%"
"""

Check = Callable[[Path, bool], str | None]
"""Takes a folder, and whether the command ended by itself. Returns the fault found there, as text, or None."""


class Scenario(NamedTuple):
    """A command that is killed."""

    arguments: tuple[str, ...]
    check: Check
    victim: str = "command"
    """`command`, or `child`: one of the processes that it has started."""
    sent: signal.Signals = signal.SIGKILL


def sweep_is_whole(folder: Path, ended: bool) -> str | None:
    """Each row of the journal is a row of the undisturbed sweep; if the sweep has ended, its table is the same one."""
    expected = {int(row["width"]): row for row in _rows(folder / "undisturbed.csv")}
    path = folder / "rows.sweep"
    if path.exists():
        journal = open_journal(path)
        try:
            rows = list(journal.rows())
        finally:
            journal.close()
        for row in rows:
            if str(row.values.get("macs")) != expected[row.axes["width"]]["macs"]:
                return f"row {row.axes} has {row.values.get('macs')} MACs"
        if len({row.key for row in rows}) < len(rows):
            return "a candidate has two rows"
    if ended:
        if list(expected.values()) != _rows(folder / "rows.csv"):
            return "the table differs from that of the undisturbed sweep"
        for file in folder.glob("rows.*"):
            file.unlink()
    return None


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return [{k: v for k, v in row.items() if k not in ("seconds", "origin")} for row in csv.DictReader(file)]


def profile_is_whole(folder: Path, ended: bool) -> str | None:
    """The saved profile is complete, or it does not exist."""
    path = folder / "net.profile.json"
    if not path.exists():
        return "the profile is missing" if ended else None
    total = cspprof.Profile.load(path).total("macs")
    path.unlink()
    return None if total == cspprof.profile("resnet10").total("macs") else f"the profile has {total} MACs"


def cache_is_whole(folder: Path, ended: bool) -> str | None:
    """Each entry of the cache is complete. What a killed command has left under another name is never read."""
    for path in (folder / "cache" / "records").glob("*.profile.json.gz"):
        cspprof.Profile.load(path)
        path.unlink()
    return None


def baseline_is_whole(folder: Path, ended: bool) -> str | None:
    """The baseline is the one before, which has one model, or the one after, which has two."""
    path = folder / "cspprof-baseline.json"
    before = (folder / "before.json").read_bytes()
    if not path.exists():
        return "the baseline is gone"
    now = path.read_bytes()
    path.write_bytes(before)
    if now == before:
        return "the baseline was not written" if ended else None
    return None if now == (folder / "after.json").read_bytes() else "the baseline is neither the old nor the new one"


def page_is_whole(folder: Path, ended: bool) -> str | None:
    """The page is complete, or it does not exist."""
    path = folder / "page.html"
    if not path.exists():
        return "the page is missing" if ended else None
    text = path.read_text()
    path.unlink()
    return None if text.rstrip().endswith("</html>") else "the page has no end"


SWEEP = ("sweep", "net.py:Net", "--grid", "width=1:24", "--workers", "2", "--journal", "rows.sweep", "-o", "rows.csv")
SCENARIOS = {
    "sweep": Scenario(SWEEP, sweep_is_whole),
    "sweep-worker": Scenario(SWEEP, sweep_is_whole, victim="child"),
    "sweep-ctrl-c": Scenario(SWEEP, sweep_is_whole, sent=signal.SIGINT),
    "profile": Scenario(("profile", "resnet10", "--no-cache", "--save", "net.profile.json"), profile_is_whole),
    "cache": Scenario(("cio", "resnet10"), cache_is_whole),
    "baseline": Scenario(("check", "--update-baseline"), baseline_is_whole),
    "report": Scenario(("report", "resnet10", "csp_resnet10", "--no-cache", "-o", "page.html"), page_is_whole),
}


def start(folder: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "cspprof", *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**os.environ, "CSPPROF_CACHE_DIR": str(folder / "cache")}, start_new_session=True,
    )  # fmt: skip


def prepare(name: str, folder: Path) -> float:
    """Write the files of a scenario, and run its command once without a kill. Returns the seconds that it needs."""
    (folder / "net.py").write_text(NET)
    (folder / "cspprof.toml").write_text(CONFIG.replace('[models.second]\ntarget = "net.py:Net"\n', ""))
    if name == "baseline":
        _finish(start(folder, SCENARIOS[name].arguments))
        (folder / "before.json").write_bytes((folder / "cspprof-baseline.json").read_bytes())
    (folder / "cspprof.toml").write_text(CONFIG)
    began = time.monotonic()
    _finish(start(folder, SCENARIOS[name].arguments))
    seconds = time.monotonic() - began
    if name == "baseline":
        (folder / "after.json").write_bytes((folder / "cspprof-baseline.json").read_bytes())
        (folder / "cspprof-baseline.json").write_bytes((folder / "before.json").read_bytes())
    if name.startswith("sweep"):
        (folder / "rows.csv").rename(folder / "undisturbed.csv")
    for left in (*folder.glob("rows.*"), *folder.glob("*.profile.json"), *folder.glob("*.html")):
        left.unlink()
    return seconds


def _finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    if process.returncode:
        raise SystemExit(errors.decode())


def children(pid: int) -> list[int]:
    """The processes that a process has started. It needs the program `pgrep`."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def kill(scenario: Scenario, folder: Path, delay: float) -> tuple[bool, bool]:
    """Start the command and kill its victim after `delay` seconds. Returns whether a signal was sent, and whether the
    command ended by itself and with success."""
    process = start(folder, scenario.arguments)
    time.sleep(delay)
    victims = children(process.pid)[:1] if scenario.victim == "child" else [process.pid]
    sent = False
    if process.poll() is None:
        for pid in victims:
            os.kill(pid, scenario.sent)
            sent = True
    process.communicate(timeout=300)
    return sent, process.returncode == 0


def run(name: str, times: int, choose: random.Random) -> dict[str, Any]:
    """Kill the command of one scenario `times` times."""
    scenario, faults, kills, started = SCENARIOS[name], [], 0, 0
    with tempfile.TemporaryDirectory(prefix="cspprof-kills-") as place:
        folder = Path(place)
        seconds = prepare(name, folder)
        while kills < times and started < 4 * times:
            sent, ended = kill(scenario, folder, choose.uniform(0.05, 1.1 * seconds))
            kills, started = kills + sent, started + 1
            try:
                wrong = scenario.check(folder, ended)
            except CspprofError as error:
                wrong = str(error)
            if wrong:
                faults.append(wrong)
                print(f"{name}: {wrong}", file=sys.stderr)
    return {"scenario": name, "kills": kills, "started": started, "faults": faults}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--times", type=int, default=210, help="kills of all scenarios together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    names = options.scenarios or list(SCENARIOS)
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"no scenario {unknown[0]!r}; there are: {', '.join(SCENARIOS)}")
    choose = random.Random(options.seed)
    results = []
    for name in names:
        results.append(run(name, -(-options.times // len(names)), choose))
        print(f"{name}: {results[-1]['kills']} kills, {len(results[-1]['faults'])} faults", flush=True)
    print(f"{sum(r['kills'] for r in results)} kills, {sum(len(r['faults']) for r in results)} faults")
    if options.json:
        options.json.write_text(json.dumps({"seed": options.seed, "scenarios": results}, indent=2) + "\n")
    return 1 if any(r["faults"] for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
