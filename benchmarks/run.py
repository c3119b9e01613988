"""How fast cspprof is, in ratios: to the bare forward that it follows and to other counters, measured in one run.

`python benchmarks/run.py [--quick] [--rounds N] [--json FILE] [MODEL…]`. Every figure is the median over rounds in
which all tools take turns, each in a process of its own; times are the processor's, which a busy machine disturbs
least, or the clock's where several threads make that the shorter. Other counters are those of the extra `bench`; one
that is not installed, or that fails, has no figure.
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
from math import exp, log
from pathlib import Path
from typing import Any

WORKLOAD = Path(__file__).with_name("workload.py")
MACS = {
    "resnext50": 3_870_818_304,
    "csp_resnext50": 3_035_889_664,
    "csp_darknet53": 5_002_567_680,
    "timm:densenet201": 4_291_365_888,
    "timm:convnext_base": 15_354_729_472,
    "timm:vit_base_patch16_224": 17_563_828_224,
    "timm:swin_tiny_patch4_window7_224": 4_490_566_656,
    "timm:efficientnet_b0": 385_814_752,
    "timm:mobilenetv3_large_100": 216_589_760,
    "timm:regnety_032": 3_176_482_752,
}
"""At 224×224: the sums of products layer by layer, which agree with half of torch's FlopCounterMode."""
QUICK = ("resnext50",)
PEERS = ("FlopCounterMode", "fvcore", "torchinfo", "ptflops", "thop", "calflops", "torchprofile", "torchlens")
LARGE = ("resnext50", "timm:convnext_xxlarge", "decoder-70b")
GENERATED = ("chain", "dense")
SECONDS = ("totals", "save", "save alone", "load", "check", "check whole")
Results = dict[str, dict[str, list[dict[str, Any]]]]


def measured(what: str, model: str) -> dict[str, Any] | None:
    """One process of `workload.py`; None where it fails."""
    done = subprocess.run([sys.executable, WORKLOAD, what, model], capture_output=True, text=True, check=False)
    return None if done.returncode else json.loads(done.stdout.strip().splitlines()[-1])


def gather(models: list[str], tools: list[str], rounds: int) -> Results:
    """By model and tool, a measurement for each round."""
    found: Results = {m: defaultdict(list) for m in models}
    for _ in range(rounds):
        for model in models:
            for tool in tools:
                if (one := measured(tool, model)) is not None:
                    found[model][tool].append(one)
    return found


def median(found: list[dict[str, Any]], key: str) -> float | None:
    return statistics.median(f[key] for f in found) if found else None


def mean(ratios: list[float]) -> float:
    """Geometric."""
    return exp(sum(map(log, ratios)) / len(ratios)) if ratios else float("nan")


def row(cells: list[str]) -> str:
    return "".join(c.ljust(52) if i == 0 else c.rjust(17) for i, c in enumerate(cells))


def counting(found: Results, tools: list[str]) -> dict[str, Any]:
    """The table of counters, and its ratios."""
    peers = [t for t in tools if t not in ("cspprof", "bare")]
    print("\nFirst trace: seconds, then × cspprof's (and by how much the MACs are off, where they are)")
    print(row(["model", "cspprof", "/ bare", "again", "/ bare", *peers]))
    kept: dict[str, Any] = {}
    for model, of in found.items():
        ours, bare = of["cspprof"], of["bare"]
        first, again = median(ours, "first"), median(ours, "again")
        if first is None or again is None or not bare:
            raise SystemExit(f"no measurement of {model}")
        ratios = {"first": first / median(bare, "first"), "again": again / median(bare, "again")}
        cells = [f"{first:.4f}{_off(ours, model)}", f"{ratios['first']:.3f}", f"{again:.4f}", f"{ratios['again']:.3f}"]
        for peer in peers:
            theirs = median(of[peer], "first")
            cells.append("–" if theirs is None else f"{theirs / first:.1f}×{_off(of[peer], model)}")
            if theirs is not None:
                ratios[peer] = theirs / first
        print(row([model, *cells]))
        kept[model] = {"ratios": ratios, "runs": of}
    means = {k: mean([m["ratios"][k] for m in kept.values() if k in m["ratios"]]) for k in ("first", "again", *peers)}
    cells = ["", f"{means['first']:.3f}", "", f"{means['again']:.3f}", *(f"{means[p]:.1f}×" for p in peers)]
    print(row(["geometric mean", *cells]))
    return {"models": kept, "means": means}


def _off(found: list[dict[str, Any]], model: str) -> str:
    macs = MACS.get(model)
    if macs is None or not found or round(found[0]["macs"]) == macs:
        return ""
    return f" ({found[0]['macs'] / macs - 1:+.1%})"


def beside(what: str, models: list[str], title: str, ours: str, over: str, under: str) -> dict[str, float]:
    """A table of our seconds and of one figure of a workload by another; what has no measurement is left out."""
    print(f"\n{title}")
    kept = {}
    for model in models:
        if (one := measured(what, model)) is not None:
            kept[model] = one[over] / one[under]
            print(row([model, f"{one[ours]:.4f}", f"{kept[model]:.3g}"]))
    print(row(["geometric mean", "", f"{mean(list(kept.values())):.3g}"]))
    return kept


def building(models: list[str]) -> dict[str, float]:
    """Building on meta beside torch's own."""
    title = "Building on meta, / construction under torch.device('meta')"
    return beside("build", models, title, "cspprof", "cspprof", "torch")


def replaying(models: list[str], what: str = "") -> dict[str, float]:
    """A record at another size beside a trace at that size, of the networks whose records say enough."""
    title = f"Replay at another size{what}, and how many times longer a trace takes"
    return beside("replay", models, title, f"replay{what}", f"trace{what}", f"replay{what}")


def commands(rounds: int) -> dict[str, Any]:
    """Whole processes beside `python -c "import torch"`: an answer with nothing cached, the same remembered, help."""
    cli = [sys.executable, "-m", "cspprof"]
    runs = {
        "import torch": [sys.executable, "-c", "import torch"],
        "cspprof cio resnext50 csp_resnext50, nothing cached": [*cli, "cio", "resnext50", "csp_resnext50"],
        "the same again, remembered": [*cli, "cio", "resnext50", "csp_resnext50"],
        "cspprof --help": [*cli, "--help"],
    }
    times = defaultdict(list)
    # An installed package has its bytecode; a checkout gets it in the first round, which does not count.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(max(rounds, 7) + 1):
        # The cache of the user's profiles lies apart: a file that appears beside a model is a reason to trace again.
        with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as folder:
            for name, command in runs.items():
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run(
                    command, check=True, capture_output=True, env={**variables, "XDG_CACHE_HOME": cache}, cwd=folder
                )
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                times[name].append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    found = {name: statistics.median(t[1:]) for name, t in times.items()}
    print("\nCommands, / python -c 'import torch'")
    for name, t in found.items():
        print(row([name, f"{t:.3f}", f"{t / found['import torch']:.3f}"]))
    return found


def memories() -> dict[str, Any]:
    """Peak of the resident set above the imports."""
    print("\nPeak memory above importing torch and the model's library, in MB")
    found = {}
    for model in LARGE:
        if (one := measured("memory", model)) is not None:
            found[model] = one
            print(row([model, f"{one['megabytes']:.1f}", f"{one['params'] / 1e9:.2f} G params"]))
    return found


def growing() -> dict[str, Any]:
    """Networks of a hundred to a hundred thousand operations; linear is the same time for each."""
    kept = {}
    for network in GENERATED:
        if (one := measured("growth", network)) is None:
            continue
        kept[network] = one["sizes"]
        print(
            f"\nGrowth, a generated {network}: µs an operation to trace; seconds for all totals, saving then, saving "
            "when they are not known, loading, checking by the first line, checking the whole; MB"
        )
        for size in one["sizes"]:
            n = size["operations"]
            cells = [f"{size['trace'] / n * 1e6:.1f}", *(f"{size[k]:.3f}" for k in SECONDS)]
            print(row([f"{n:,} operations", *cells, f"{size['megabytes']:.2f}"]))
    return kept


def versions(names: tuple[str, ...]) -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": version("torch"), "timm": version("timm")}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """One table of ratios, and everything measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=[])
    parser.add_argument("--quick", action="store_true", help="one model, two peers, one round: within a minute")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    models = options.models or list(QUICK if options.quick else MACS)
    rounds = 1 if options.quick else options.rounds
    tools = ["cspprof", "bare", *(PEERS[:2] if options.quick else PEERS)]
    machine = {
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "versions": versions(("cspprof", *PEERS[1:])),
    }
    print(json.dumps(machine))
    document = {**machine, "counting": counting(gather(models, tools, rounds), tools)}
    if not options.quick:
        document |= {
            "building": building(models),
            "commands": commands(rounds),
            "memory": memories(),
            "growth": growing(),
            "replay": replaying(models),
            "replay and totals": replaying(models, " and totals"),
        }
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
