"""How fast cspprof is, in ratios: to the bare forward that it follows and to other counters, measured in one run.

`python benchmarks/run.py [--quick] [--rounds N] [--peers NAME…] [--json FILE] [MODEL…]`. In each round all tools take
turns, each in a process of its own, and all sections follow one another; tables show medians over rounds, the last one
each goal round by round. Times are the processor's, which a busy machine disturbs least, or the clock's where several
threads make that the shorter. Other counters are those of the extra `bench`; one that is not installed, or that fails,
has no figure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from goals import Round, goals, medians
from tables import MACS, tables

WORKLOAD = Path(__file__).with_name("workload.py")
MODELS = tuple(MACS)
PEERS = ("FlopCounterMode", "fvcore", "torchinfo", "ptflops", "thop", "calflops", "torchprofile", "torchlens")
LARGE = ("resnext50", "timm:convnext_xxlarge", "decoder-70b")
GENERATED = ("chain", "dense")


def measured(what: str, model: str) -> dict[str, Any] | None:
    """One process of `workload.py`; None where it fails."""
    done = subprocess.run([sys.executable, WORKLOAD, what, model], capture_output=True, text=True, check=False)
    return None if done.returncode else json.loads(done.stdout.strip().splitlines()[-1])


def by_model(what: str, models: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    return {model: one for model in models if (one := measured(what, model)) is not None}


def counted(models: tuple[str, ...], peers: tuple[str, ...], turns: int) -> dict[str, dict[str, Any]]:
    """By model and tool. What every ratio is of, cspprof and the bare forward, has several turns."""
    found = {}
    for model in models:
        runs = []
        for tools in (("cspprof", "bare", *peers), *[("cspprof", "bare")] * (turns - 1)):
            runs.append({tool: one for tool in tools if (one := measured(tool, model)) is not None})
            if not {"cspprof", "bare"} <= runs[-1].keys():
                raise SystemExit(f"no measurement of {model}")
        found[model] = medians(runs)
    return found


def commands(repeated: int = 7) -> dict[str, float]:
    """Whole processes: `python -c "import torch"`, an answer with nothing cached, the same remembered, help. The median
    of several turns."""
    cli = [sys.executable, "-m", "cspprof"]
    runs = {
        "import torch": [sys.executable, "-c", "import torch"],
        "cspprof cio resnext50 csp_resnext50, nothing cached": [*cli, "cio", "resnext50", "csp_resnext50"],
        "the same again, remembered": [*cli, "cio", "resnext50", "csp_resnext50"],
        "cspprof --help": [*cli, "--help"],
    }
    times = defaultdict(list)
    # An installed package has its bytecode; a checkout gets it in the first turn, which does not count.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(repeated + 1):
        # The cache of the user's profiles lies apart: a file that appears beside a model is a reason to trace again.
        with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as folder:
            for name, command in runs.items():
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run(
                    command, check=True, capture_output=True, env={**variables, "XDG_CACHE_HOME": cache}, cwd=folder
                )
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                times[name].append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return {name: statistics.median(t[1:]) for name, t in times.items()}


def one_round(models: tuple[str, ...], peers: tuple[str, ...]) -> Round:
    return Round(
        counting=counted(models, peers, turns=3),
        building=by_model("build", models),
        commands=commands(),
        memory=by_model("memory", LARGE),
        growth={network: one["sizes"] for network, one in by_model("growth", GENERATED).items()},
        replay=by_model("replay", models),  # of the networks whose records say enough
    )


def versions(names: tuple[str, ...]) -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": version("torch"), "timm": version("timm")}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """The tables, and everything measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=[])
    parser.add_argument("--quick", action="store_true", help="one model, two peers, one round: within a minute")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="*", metavar="NAME", choices=PEERS, default=PEERS, help="all by default")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    models = tuple(options.models) or (MODELS[:1] if options.quick else MODELS)
    peers = PEERS[:2] if options.quick else tuple(options.peers)
    document: dict[str, Any] = {
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "versions": versions(("cspprof", *PEERS[1:])),
    }
    print(json.dumps(document))
    rounds = document["rounds"] = []
    for number in range(1 if options.quick else options.rounds):
        rounds.append(Round(counting=counted(models, peers, 1)) if options.quick else one_round(models, peers))
        print(f"round {number + 1} is done", file=sys.stderr)
        if options.json:
            options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    tables(rounds, peers)
    goals(rounds)


if __name__ == "__main__":
    main()
