"""How long a profile takes beside a bare forward and beside other counters, as ratios measured in one run.

    python benchmarks/run.py [--quick] [--counters] [--rounds N] [--peers NAME…] [--json FILE] [MODEL…]

Each measurement has a process of its own (`workload.py`). In each round all tools take turns; the tables show medians
over the rounds. Times are CPU time, which other processes on the machine disturb least, or wall time where several
threads make it shorter. The other counters come with the extra `bench`; one that is not installed, or that fails on a
model, shows a dash.
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
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
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
"""At 224×224: products summed layer by layer, equal to half of what torch's FlopCounterMode counts."""
PEERS = ("FlopCounterMode", "fvcore", "torchinfo", "ptflops", "thop", "calflops", "torchprofile", "torchlens")
LARGE = ("resnext50", "timm:convnext_xxlarge", "decoder-70b")
GENERATED = ("chain", "dense")
CLI = [sys.executable, "-m", "cspprof"]
COMMANDS = {
    "import torch": [sys.executable, "-c", "import torch"],
    "cspprof cio resnext50 csp_resnext50, not cached": [*CLI, "cio", "resnext50", "csp_resnext50"],
    "the same, cached": [*CLI, "cio", "resnext50", "csp_resnext50"],
    "cspprof --help": [*CLI, "--help"],
}

Measured = dict[str, Any]


def measure(what: str, model: str) -> Measured | None:
    """The result of one process of `workload.py`; None if it fails."""
    done = subprocess.run([sys.executable, WORKLOAD, what, model], capture_output=True, text=True, check=False)
    return None if done.returncode else json.loads(done.stdout.strip().splitlines()[-1])


def measure_each(what: str, models: Iterable[str]) -> dict[str, Measured]:
    return {model: result for model in models if (result := measure(what, model)) is not None}


def measure_counters(model: str, peers: tuple[str, ...]) -> dict[str, Measured]:
    """By tool. Cspprof and the bare forward, which every ratio refers to, have three turns."""
    turns = [measure_each_tool(model, tools) for tools in (("cspprof", "bare", *peers), *[("cspprof", "bare")] * 2)]
    if not all({"cspprof", "bare"} <= turn.keys() for turn in turns):
        raise SystemExit(f"no measurement of {model}")
    return medians(turns)


def measure_each_tool(model: str, tools: Iterable[str]) -> dict[str, Measured]:
    return {tool: result for tool in tools if (result := measure(tool, model)) is not None}


def measure_commands(turns: int = 7) -> dict[str, float]:
    """CPU seconds of whole processes. Commands are cached only by an installed release of cspprof."""
    times = defaultdict(list)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(turns + 1):
        with tempfile.TemporaryDirectory() as folder:
            for name, command in COMMANDS.items():
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                env = environment | {"CSPPROF_CACHE_DIR": str(Path(folder) / "cache")}
                subprocess.run(command, check=True, capture_output=True, env=env, cwd=folder)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                times[name].append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return {name: statistics.median(seconds[1:]) for name, seconds in times.items()}  # the first turn compiles


def medians(results: list[Any]) -> Any:
    """One nested result with the median of each figure over the results that have it."""
    if isinstance(results[0], dict):
        names = dict.fromkeys(name for result in results for name in result)
        return {name: medians([result[name] for result in results if name in result]) for name in names}
    if isinstance(results[0], list):
        return [medians(list(items)) for items in zip(*results, strict=True)]
    return statistics.median(results)


def row(*cells: str) -> str:
    return "".join(cell.ljust(52) if i == 0 else cell.rjust(17) for i, cell in enumerate(cells))


def print_counters(results: dict[str, dict[str, Measured]], peers: tuple[str, ...]) -> None:
    print("\nOne trace: seconds, and ÷ the bare forward. Others: their first call ÷ ours (and the error of their MACs)")
    print(row("model", "first", "÷ bare", "repeated", "÷ bare", *peers))
    ratios: dict[str, list[float]] = defaultdict(list)
    for model, by_tool in results.items():
        ours, bare = by_tool["cspprof"], by_tool["bare"]
        cells = []
        for turn in ("first", "again"):
            ratios[turn].append(ours[turn] / bare[turn])
            cells += [f"{ours[turn]:.4f}", f"{ratios[turn][-1]:.3f}"]
        for peer in peers:
            if peer in by_tool:
                ratios[peer].append(by_tool[peer]["first"] / ours["first"])
                error = by_tool[peer]["macs"] / MACS[model] - 1 if model in MACS else 0
                cells.append(f"{ratios[peer][-1]:.1f}×" + (f" ({error:+.1%})" if abs(error) > 1e-9 else ""))
            else:
                cells.append("–")
        print(row(model, *cells))
    means = {name: statistics.geometric_mean(values) for name, values in ratios.items()}
    cells = ["", f"{means['first']:.3f}", "", f"{means['again']:.3f}"]
    print(row("geometric mean", *cells, *(f"{means[peer]:.1f}×" if peer in means else "–" for peer in peers)))


def print_building(results: dict[str, Measured]) -> None:
    print("\nBuilding a model without weights: seconds, and ÷ torch.device('meta')")
    for model, result in results.items():
        print(row(model, f"{result['cspprof']:.4f}", f"{result['cspprof'] / result['torch']:.2f}"))
    mean = statistics.geometric_mean(result["cspprof"] / result["torch"] for result in results.values())
    print(row("geometric mean", "", f"{mean:.2f}"))


def print_commands(results: dict[str, float]) -> None:
    print("\nCommands: CPU seconds, and ÷ python -c 'import torch'")
    for name, seconds in results.items():
        print(row(name, f"{seconds:.3f}", f"{seconds / results['import torch']:.3f}"))


def print_memory(results: dict[str, Measured]) -> None:
    print("\nPeak memory above importing torch and the model's library, in MB")
    for model, result in results.items():
        print(row(model, f"{result['megabytes']:.1f}", f"{result['params'] / 1e9:.2f} G params"))


def print_growth(results: dict[str, Measured]) -> None:
    for network, result in results.items():
        print(
            f"\nA generated network ({network}): µs per operation to trace; seconds for all totals, saving, loading; MB"
        )
        for size in result["sizes"]:
            cells = [f"{size['trace'] / size['operations'] * 1e6:.1f}"]
            cells += [f"{size[name]:.3f}" for name in ("totals", "save", "load")]
            print(row(f"{round(size['operations']):,} operations", *cells, f"{size['megabytes']:.2f}"))


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("cspprof", "torch", "timm", *PEERS[1:]):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def one_round(models: tuple[str, ...], peers: tuple[str, ...], counters_only: bool) -> dict[str, Any]:
    result: dict[str, Any] = {"counters": {model: measure_counters(model, peers) for model in models}}
    if not counters_only:
        result["building"] = measure_each("build", models)
        result["commands"] = measure_commands()
        result["memory"] = measure_each("memory", LARGE)
        result["growth"] = measure_each("growth", GENERATED)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=[])
    parser.add_argument("--quick", action="store_true", help="one model, two peers, one round: about a minute")
    parser.add_argument("--counters", action="store_true", help="only the counters, for docs/comparison.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="*", metavar="NAME", choices=PEERS, default=PEERS, help="default: all")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    models = tuple(options.models) or (tuple(MACS)[:1] if options.quick else tuple(MACS))
    peers = PEERS[:2] if options.quick else tuple(options.peers)
    document: dict[str, Any] = {"machine": platform.machine(), "processors": os.cpu_count(), "versions": versions()}
    print(json.dumps(document))
    rounds = document["rounds"] = []
    for number in range(1 if options.quick else options.rounds):
        rounds.append(one_round(models, peers, options.quick or options.counters))
        print(f"round {number + 1} is done", file=sys.stderr)
        result = document["medians"] = medians(rounds)
        if options.json:
            options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print_counters(result["counters"], peers)
    for name, show in (("building", print_building), ("commands", print_commands), ("memory", print_memory),
                       ("growth", print_growth)):  # fmt: skip
        if name in result:
            show(result[name])


if __name__ == "__main__":
    main()
