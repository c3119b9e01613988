"""Everything measured, in tables of medians over rounds."""

from __future__ import annotations

from goals import Round, mean, medians

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
SECONDS = ("totals", "save", "save alone", "load", "check", "check whole")


def tables(rounds: list[Round], peers: tuple[str, ...]) -> None:
    found = medians(rounds)
    counting(found, peers)
    if "growth" not in found:
        return
    title = "Building on meta, / construction under torch.device('meta')"
    beside(found["building"], title, "cspprof", "cspprof", "torch")
    commands(found)
    memory(found)
    growth(found)
    for what in ("", " and totals"):
        title = f"Replay at another size{what}, and how many times longer a trace takes"
        beside(found["replay"], title, f"replay{what}", f"trace{what}", f"replay{what}")


def row(cells: list[str]) -> str:
    return "".join(c.ljust(52) if i == 0 else c.rjust(17) for i, c in enumerate(cells))


def counting(found: Round, peers: tuple[str, ...]) -> None:
    """The table of counters."""
    print("\nFirst trace: seconds, then × cspprof's (and by how much the MACs are off, where they are)")
    print(row(["model", "cspprof", "/ bare", "again", "/ bare", *peers]))
    ratios: dict[str, list[float]] = {name: [] for name in ("first", "again", *peers)}
    for model, of in found["counting"].items():
        ours, bare = of["cspprof"], of["bare"]
        cells = []
        for key in ("first", "again"):
            ratios[key].append(ours[key] / bare[key])
            cells += [f"{ours[key]:.4f}", f"{ratios[key][-1]:.3f}"]
        cells[0] += _off(model, ours)
        for peer in peers:
            if peer in of:
                ratios[peer].append(of[peer]["first"] / ours["first"])
            cells.append(f"{ratios[peer][-1]:.1f}×{_off(model, of[peer])}" if peer in of else "–")
        print(row([model, *cells]))
    cells = ["", f"{mean(ratios['first']):.3f}", "", f"{mean(ratios['again']):.3f}"]
    print(row(["geometric mean", *cells, *(f"{mean(ratios[peer]):.1f}×" for peer in peers)]))


def _off(model: str, counted: dict[str, float]) -> str:
    macs = MACS.get(model)
    return "" if macs is None or round(counted["macs"]) == macs else f" ({counted['macs'] / macs - 1:+.1%})"


def beside(found: dict[str, dict[str, float]], title: str, ours: str, over: str, under: str) -> None:
    """A table of our seconds and of one figure by another."""
    print(f"\n{title}")
    ratios = {model: one[over] / one[under] for model, one in found.items()}
    for model, ratio in ratios.items():
        print(row([model, f"{found[model][ours]:.4f}", f"{ratio:.3g}"]))
    print(row(["geometric mean", "", f"{mean(ratios.values()):.3g}"]))


def commands(found: Round) -> None:
    print("\nCommands, / python -c 'import torch'")
    for name, seconds in found["commands"].items():
        print(row([name, f"{seconds:.3f}", f"{seconds / found['commands']['import torch']:.3f}"]))


def memory(found: Round) -> None:
    print("\nPeak memory above importing torch and the model's library, in MB")
    for model, one in found["memory"].items():
        print(row([model, f"{one['megabytes']:.1f}", f"{one['params'] / 1e9:.2f} G params"]))


def growth(found: Round) -> None:
    """Networks of a hundred to a hundred thousand operations; linear is the same time for each."""
    for network, sizes in found["growth"].items():
        print(
            f"\nGrowth, a generated {network}: µs an operation to trace; seconds for all totals, saving then, saving "
            "when they are not known, loading, checking by the first line, checking the whole; MB"
        )
        for size in sizes:
            n = round(size["operations"])
            cells = [f"{size['trace'] / n * 1e6:.1f}", *(f"{size[k]:.3f}" for k in SECONDS), f"{size['megabytes']:.2f}"]
            print(row([f"{n:,} operations", *cells]))
