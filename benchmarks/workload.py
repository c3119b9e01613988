"""One measurement in a process of its own: `python workload.py WHAT MODEL` prints one line of JSON.

WHAT is `cspprof`, `bare` (a forward on meta that records nothing), another counter, `build`, `memory` or `growth`. The
counter is imported and the model built first. Then the first call of the process is timed and, for cspprof and the
bare forward, the median of nine more calls.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

SHAPE = (1, 3, 224, 224)
Count = Callable[[nn.Module], float]
"""Counts a model and returns what the tool calls its result, in the tool's own unit."""
COUNTERS: dict[str, tuple[Callable[[], Count], float, str]] = {}
"""By name: what imports the counter, what divides its result to give MACs, and the device that it needs."""


def counter(
    name: str, per_mac: float = 1, device: str = "meta"
) -> Callable[[Callable[[], Count]], Callable[[], Count]]:
    def register(function: Callable[[], Count]) -> Callable[[], Count]:
        COUNTERS[name] = (function, per_mac, device)
        return function

    return register


@counter("cspprof")
def cspprof() -> Count:
    """The whole profile and every registered total."""
    from cspprof.metrics import METRICS, value_of
    from cspprof.trace import trace

    def count(model: nn.Module) -> float:
        record = trace(model, SHAPE)
        return float({name: value_of(record, name) for name in METRICS.names()}["macs"])

    return count


@counter("bare")
def bare() -> Count:
    """The forward alone."""

    def count(model: nn.Module) -> float:
        with torch.inference_mode():
            model(torch.empty(SHAPE, device="meta"))
        return 0.0

    return count


@counter("FlopCounterMode", per_mac=2)
def flop_counter() -> Count:
    from torch.utils.flop_counter import FlopCounterMode

    def count(model: nn.Module) -> float:
        mode = FlopCounterMode(display=False)
        with torch.no_grad(), mode:
            model(torch.empty(SHAPE, device="meta"))
        return float(mode.get_total_flops())

    return count


@counter("fvcore", device="cpu")
def fvcore() -> Count:
    from fvcore.nn import FlopCountAnalysis

    def count(model: nn.Module) -> float:
        analysis = FlopCountAnalysis(model, torch.zeros(SHAPE))
        return float(analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())

    return count


@counter("torchinfo")
def torchinfo() -> Count:
    from torchinfo import summary

    return lambda model: float(summary(model, SHAPE, device="meta", verbose=0).total_mult_adds)


@counter("ptflops", device="cpu")
def ptflops() -> Count:
    from ptflops import get_model_complexity_info as info

    return lambda model: float(info(model, SHAPE[1:], as_strings=False, print_per_layer_stat=False)[0] or 0)


@counter("thop", device="cpu")
def thop() -> Count:
    from thop import profile

    return lambda model: float(profile(model, (torch.zeros(SHAPE),), verbose=False)[0])


@counter("calflops", device="cpu")
def calflops() -> Count:
    from calflops import calculate_flops

    return lambda model: float(calculate_flops(model, SHAPE, print_results=False, output_as_string=False)[1])


@counter("torchprofile", device="cpu")
def torchprofile() -> Count:
    from torchprofile import profile_macs

    return lambda model: float(profile_macs(model, torch.zeros(SHAPE)))


@counter("torchlens", device="cpu")
def torchlens() -> Count:
    import torchlens

    return lambda model: float(torchlens.trace(model, torch.zeros(SHAPE)).total_macs_forward)


def factory(name: str) -> Callable[[], nn.Module]:
    """A function that builds a model of the zoo, of timm, or the large decoder."""
    if name.startswith("timm:"):
        import timm

        return lambda: timm.create_model(name.removeprefix("timm:"))
    if name == "decoder-70b":
        return decoder
    from cspprof.zoo import catalog

    return catalog().get(name).factory


def decoder(width: int = 8192, hidden: int = 28_672, depth: int = 80, heads: int = 64, groups: int = 8) -> nn.Module:
    """A language model of 70 billion parameters with grouped attention and gated feed-forward layers."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            size = width // heads
            self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2))
            self.q = nn.Linear(width, width, bias=False)
            self.k, self.v = (nn.Linear(width, groups * size, bias=False) for _ in range(2))
            self.out = nn.Linear(width, width, bias=False)
            self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
            self.down = nn.Linear(hidden, width, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, length, _ = x.shape
            y = self.norms[0](x)
            q, k, v = (f(y).view(n, length, -1, width // heads).transpose(1, 2) for f in (self.q, self.k, self.v))
            y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            x = x + self.out(y.transpose(1, 2).reshape(n, length, width))
            y = self.norms[1](x)
            return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))

    blocks = [Block() for _ in range(depth)]
    return nn.Sequential(
        nn.Embedding(128_256, width), *blocks, nn.RMSNorm(width), nn.Linear(width, 128_256, bias=False)
    )


@contextmanager
def without_weights() -> Iterator[None]:
    """Modules are built on meta, and their weights are not initialized, as for a SPEC."""
    from cspprof.sources.skip_init import SkipInit

    with SkipInit():
        yield


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, or wall seconds if that is less, and the result of `work`."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = work()
    return min(time.process_time() - cpu, time.perf_counter() - wall), found


def count(what: str, name: str, repeated: int = 9) -> dict[str, Any]:
    tool, per_mac, device = COUNTERS[what]
    function = tool()
    with torch.device(device):  # tools that compute need the values of index tables and masks
        model = factory(name)().eval()
    gc.collect()
    gc.freeze()  # else a collection of all that torch imported takes a sixth of a second, by chance in one tool's time
    first, found = seconds(partial(function, model))
    counted = {"first": first, "macs": found / per_mac}
    if what in ("cspprof", "bare"):
        counted["again"] = sorted(seconds(partial(function, model))[0] for _ in range(repeated))[repeated // 2]
    return counted


def build(name: str) -> dict[str, Any]:
    """Build on meta as for a SPEC, and under torch.device alone, in turns."""
    make = factory(name)
    times: dict[str, list[float]] = {"cspprof": [], "torch": []}
    for _ in range(6):
        for who, place in (("cspprof", without_weights()), ("torch", torch.device("meta"))):
            with place:
                times[who].append(seconds(make)[0])
    return {who: sorted(found[1:])[2] for who, found in times.items()}


def memory(name: str) -> dict[str, Any]:
    """The growth of the peak resident set since torch and the model's library were imported, in MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    from cspprof.metrics import METRICS, value_of
    from cspprof.sources import record_of_spec

    make = factory(name)
    if name == "decoder-70b":
        from cspprof.trace import trace

        with without_weights():
            model = make()
        found = trace(model, torch.empty(1, 2048, dtype=torch.long, device="meta"))
    else:
        found = record_of_spec(name)
    for metric in METRICS.names():
        value_of(found, metric)
    return {"megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, "params": found.params}


def chain(operations: int) -> nn.Module:
    """Convolution, norm and activation, repeated."""
    kinds = [lambda: nn.Conv2d(16, 16, 3, padding=1, bias=False), lambda: nn.BatchNorm2d(16), nn.ReLU]
    return nn.Sequential(*(kinds[i % 3]() for i in range(operations)))


class Dense(nn.Module):
    """A DenseNet of blocks of twelve layers, about 50 operations each."""

    def __init__(self, operations: int, depth: int = 12, growth: int = 8, width: int = 16) -> None:
        super().__init__()

        def layer(channels: int) -> nn.Module:
            return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, growth, 3, padding=1))

        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [*(layer(width + growth * i) for i in range(depth)), nn.Conv2d(width + growth * depth, width, 1)]
            )
            for _ in range(max(1, operations // (4 * depth)))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            maps = [x]
            for layer in block:
                maps.append(layer(torch.cat(maps, 1)))
            x = maps[-1]
        return x


def growth(name: str, passes: int = 3) -> dict[str, Any]:
    """Networks of a hundred to a hundred thousand operations: medians of several passes over all sizes."""
    with without_weights():
        build = {"chain": chain, "dense": Dense}[name]
        models = [build(n).eval() for n in (100, 1_000, 12_500, 25_000, 50_000, 100_000)]
    profile_and_save(name, models[0])  # to warm up
    results = zip(*[[profile_and_save(name, model) for model in models] for _ in range(passes)], strict=True)
    return {"sizes": [{key: sorted(one[key] for one in of)[passes // 2] for key in of[0]} for of in results]}


def profile_and_save(name: str, model: nn.Module) -> dict[str, float]:
    """Seconds to trace, to compute all totals, to save and to load; operations; MB of the file."""
    from cspprof.metrics import METRICS, value_of
    from cspprof.storage.profile_file import from_bytes, to_bytes
    from cspprof.trace import trace

    tracing, record = seconds(partial(trace, model, (1, 16, 32, 32)))
    totals, _ = seconds(lambda: [value_of(record, metric) for metric in METRICS.names()])
    saving, data = seconds(partial(to_bytes, record, compressed=True))
    loading, loaded = seconds(partial(from_bytes, data, name))
    if loaded != record:
        raise SystemExit("the loaded record differs from the saved one")
    return {
        "operations": len(record.calls.spec), "trace": tracing, "totals": totals, "save": saving, "load": loading,
        "megabytes": len(data) / 1e6,
    }  # fmt: skip


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    what, name = sys.argv[1:]
    import timm  # noqa: F401  in every process, so that none has an advantage

    sections = {"build": build, "memory": memory, "growth": growth}
    result = sections[what](name) if what in sections else count(what, name)
    print("\n" + json.dumps(result))
