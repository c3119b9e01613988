"""How fast a trace is, as a ratio to the bare forward that it follows and to other counters, in one run.

`python benchmarks/trace_speed.py [MODEL…]` with zoo, `timm:` or `torchvision:` names. Each figure is the median of
interleaved repeats in one process, after a first round that is printed by itself.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import cspprof
from cspprof.trace import trace

SHAPE = (1, 3, 224, 224)
MODELS = ("resnext50", "csp_resnext50", "csp_darknet53", "torchvision:densenet121")
REPEATS = 5


def built(name: str) -> nn.Module:
    """The network on meta, in eval mode."""
    with torch.device("meta"):
        if name.startswith("timm:"):
            import timm

            return timm.create_model(name.removeprefix("timm:")).eval()
        if name.startswith("torchvision:"):
            from torchvision import models

            return models.get_model(name.removeprefix("torchvision:"), weights=None).eval()
        from cspprof.zoo import catalog

        return catalog().get(name).factory().eval()


def bare(model: nn.Module) -> None:
    """A forward on meta with nothing recorded."""
    with torch.inference_mode():
        model(torch.empty(SHAPE, device="meta"))


def flop_counter(model: nn.Module) -> None:
    """Torch's own counter on meta."""
    with torch.no_grad(), FlopCounterMode(display=False):
        model(torch.empty(SHAPE, device="meta"))


def ours(model: nn.Module) -> None:
    """The whole profile and every registered total."""
    from cspprof.metrics import METRICS

    p = trace(model, SHAPE)
    for name in METRICS.names():
        p.total(name)


def fvcore(name: str) -> Callable[[nn.Module], None]:
    """Fvcore's count, which needs real weights."""
    from fvcore.nn import FlopCountAnalysis

    real = built(name).to_empty(device="cpu")

    def count(model: nn.Module) -> None:
        analysis = FlopCountAnalysis(real, torch.zeros(SHAPE))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()

    return count


def timed(work: Callable[[nn.Module], None], model: nn.Module) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work(model)
    return time.perf_counter() - start


def main(names: list[str]) -> None:
    """One row a model: our time, and the others' as multiples of it."""
    warnings.simplefilter("ignore")
    print(f"cspprof {cspprof.__version__}, torch {torch.__version__}; seconds, then how many times longer others take")
    print(f"{'model':28}{'first':>8}{'repeated':>10}{'bare':>8}{'FlopCounter':>13}{'fvcore':>8}")
    for name in names:
        model = built(name)
        works = [ours, bare, flop_counter, fvcore(name)]
        first = timed(ours, model)
        times: list[list[float]] = [[] for _ in works]
        for _ in range(REPEATS):
            for found, work in zip(times, works, strict=True):
                found.append(timed(work, model))
        own, *others = map(statistics.median, times)
        ratios = "".join(f"{t / own:{w}.1f}×" for t, w in zip(others, (7, 12, 7), strict=True))
        print(f"{name:28}{first:8.4f}{own:10.4f}{ratios}")


if __name__ == "__main__":
    main(sys.argv[1:] or list(MODELS))
