"""Compare the predicted peak memory of a training step with that of torch's CPU allocator in a real one.

`python benchmarks/training_peak.py [--csv FILE] [--size N] [SPEC…]`

Without a SPEC: all networks of the zoo, and the timm architectures that `tests/test_timm.py` lists, with a batch of 2
and plain SGD. `--csv` adds rows to the file, and leaves out the networks that it has. The exit code is 1 if a peak
differs by more than 5 %.
"""

from __future__ import annotations

import argparse
import ast
import csv
import gc
import sys
from pathlib import Path

import torch
from torch import nn

from cspprof.operands.pytree import tensors_in

CHECKOUT = Path(__file__).resolve().parents[1]
BATCH = 2
TOLERANCE = 0.05
COLUMNS = ("network", "input", "predicted", "measured", "difference", "reason")
"""The reason is written by hand, for a difference of more than 5 %."""


def training_step(model: nn.Module, x: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step with the sum of all outputs as the loss."""
    parts = [t for t in tensors_in(model(x)) if t.requires_grad]
    gradients = [torch.ones_like(t) for t in parts]
    torch.autograd.backward(parts, gradients)
    del parts, gradients
    optimizer.step()
    optimizer.zero_grad()


def measured_peak(model: nn.Module, x: torch.Tensor, optimizer: torch.optim.Optimizer) -> int:
    """The peak of torch's CPU allocator in a training step, with what exists before it, in bytes. The optimizer must
    have its state."""
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        training_step(model, x, optimizer)
    live = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    state = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    return peak + sum(t.nbytes for t in (*model.parameters(), *model.buffers(), x, *state))


def architectures() -> list[str]:
    """The timm architectures that the tests use."""
    tree = ast.parse((CHECKOUT / "tests" / "test_timm.py").read_text())
    (found,) = [
        n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "ARCHITECTURES"
    ]
    return [f"timm:{name}" for name in ast.literal_eval(found)]


def networks() -> list[str]:
    return [*(CHECKOUT / "cspprof" / "data" / "zoo_names.txt").read_text().split(), *architectures()]


def build(spec: str, size: int | None = None) -> tuple[nn.Module, tuple[int, ...]]:
    """The network with weights, in training mode, and the shape of its input: its own one, or size×size."""
    if spec.startswith("timm:"):
        import timm

        model = timm.create_model(spec.removeprefix("timm:"))
        channels, *own = model.default_cfg["input_size"]
        return model.train(), (BATCH, channels, *([size, size] if size else own))
    from cspprof.zoo import catalog

    entry = catalog().get(spec)
    return entry.factory().train(), (BATCH, entry.input[1], *([size, size] if size else entry.input[2:]))


def compare(spec: str, size: int | None = None) -> tuple[int, int, tuple[int, ...]]:
    """The predicted and the measured peak in bytes, and the shape of the input."""
    import cspprof
    from cspprof.metrics.training_memory import training_memory

    model, shape = build(spec, size)
    predicted = training_memory(cspprof.profile(model, shape, train=True), "sgd").peak.total
    return predicted, measured_peak(model, torch.randn(shape), torch.optim.SGD(model.parameters(), 1e-9)), shape


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Predicted and measured peaks of training steps.")
    parser.add_argument("specs", nargs="*", metavar="SPEC")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--size", type=int, help="height and width of the input, instead of the network's own")
    options = parser.parse_args(arguments)
    known = set()
    if options.csv is not None and options.csv.exists():
        with options.csv.open(newline="") as file:
            known = {row["network"] for row in csv.DictReader(file)}
    far = 0
    for spec in options.specs or networks():
        if spec in known:
            continue
        predicted, measured, shape = compare(spec, options.size)
        difference = predicted / measured - 1
        far += abs(difference) > TOLERANCE
        print(f"{spec:40} {predicted:>15,} {measured:>15,} {difference:+7.1%}", flush=True)
        if options.csv is not None:
            new = not options.csv.exists()
            with options.csv.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                if new:
                    writer.writerow(COLUMNS)
                writer.writerow([spec, "x".join(map(str, shape)), predicted, measured, f"{difference:.4f}", ""])
    return int(far > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
