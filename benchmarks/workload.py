"""One measurement in a process of its own: `python workload.py WHAT MODEL` prints one line of JSON.

WHAT is `cspprof`, `bare` (a forward on meta with nothing recorded), another counter, `build`, `memory`, `growth` or
`replay`. A counter is imported and the model built first; then it is called: the first call of the process is one
figure, for cspprof and the bare forward the median of nine more another.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
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
    from cspprof.metrics import METRICS
    from cspprof.trace import trace

    def count(model: nn.Module) -> float:
        profile = trace(model, SHAPE)
        return float({name: profile.total(name) for name in METRICS.names()}["macs"])

    return count


@counter("bare")
def bare() -> Count:
    """Nothing is counted."""

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
    """What builds a model of the zoo, of timm, or the large decoder."""
    if name.startswith("timm:"):
        import timm

        return lambda: timm.create_model(name.removeprefix("timm:"))
    if name == "decoder-70b":
        return decoder
    from cspprof.zoo import catalog

    return catalog().get(name).factory


def decoder(width: int = 8192, hidden: int = 28_672, depth: int = 80, heads: int = 64, groups: int = 8) -> nn.Module:
    """A language model of seventy thousand million parameters: grouped attention, gated feed-forward layers."""

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


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Of the processor, or of the clock where that is less, and what came out."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = work()
    return min(time.process_time() - cpu, time.perf_counter() - wall), found


def count(what: str, name: str, repeated: int = 9) -> dict[str, Any]:
    tool, per_mac, device = COUNTERS[what]
    function = tool()
    with torch.device(device):  # one that computes needs what the model computes with: tables of indices, masks
        model = factory(name)().eval()
    first, found = seconds(partial(function, model))
    counted = {"first": first, "macs": found / per_mac}
    if what in ("cspprof", "bare"):
        counted["again"] = sorted(seconds(partial(function, model))[0] for _ in range(repeated))[repeated // 2]
    return counted


def build(name: str) -> dict[str, Any]:
    """Building on meta, ours and torch's, interleaved."""
    from cspprof.sources.skip_init import weightless

    make = factory(name)
    times: dict[str, list[float]] = {"cspprof": [], "torch": []}
    for _ in range(6):
        for who, place in (("cspprof", weightless()), ("torch", torch.device("meta"))):
            with place:
                times[who].append(seconds(make)[0])
    return {who: sorted(found[1:])[2] for who, found in times.items()}


def memory(name: str) -> dict[str, Any]:
    """Peak of the resident set above that after importing torch and the model's own library, in MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    from cspprof.api import profile
    from cspprof.metrics import METRICS

    make = factory(name)
    if name == "decoder-70b":
        from cspprof.sources.skip_init import weightless
        from cspprof.trace import trace

        with weightless():
            model = make()
        found = trace(model, torch.empty(1, 2048, dtype=torch.long, device="meta"))
    else:
        found = profile(name)
    for metric in METRICS.names():
        found.total(metric)
    return {"megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, "params": found.params}


def chain(operations: int) -> nn.Module:
    """Convolution, norm and activation, over and over."""
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


LARGEST = 100_000
"""Operations of a generated network."""


def growth(name: str, passes: int = 3) -> dict[str, Any]:
    """Seconds for networks of a hundred to a hundred thousand operations: the medians of several passes, in each of
    which all sizes take turns."""
    from cspprof.sources.skip_init import weightless

    with weightless():
        models = [
            {"chain": chain, "dense": Dense}[name](n).eval() for n in (100, 1_000, 12_500, 25_000, 50_000, 100_000)
        ]
    lived(name, models[0])  # to warm up
    found = zip(*[[lived(name, model) for model in models] for _ in range(passes)], strict=True)
    return {"sizes": [{key: sorted(one[key] for one in of)[passes // 2] for key in of[0]} for of in found]}


def lived(name: str, model: nn.Module) -> dict[str, float]:
    """A trace, all totals, saving then and when they are not known, loading, and what a check asks of a saved profile:
    of its first line, and of the whole. A small network is traced as often as makes as many operations as the largest
    has: the processor changes its pace by a half within seconds, and all sizes are to have the same share of either."""
    from cspprof.glance import glance_at

    from cspprof.gate.measurement import measured
    from cspprof.metrics import METRICS
    from cspprof.storage.profile_file import from_bytes, to_bytes
    from cspprof.trace import trace

    def checked(read: Callable[[bytes, str], Any], data: bytes) -> Any:
        found = measured(name, read(data, name), "cspnet")
        return found.totals, found.structure()

    def traced_often() -> None:
        for _ in range(often):
            trace(model, (1, 16, 32, 32))

    often = max(1, round(LARGEST / sum(1 for _ in model.modules())))
    traced, _ = seconds(traced_often)
    profile = trace(model, (1, 16, 32, 32))
    totals, _ = seconds(partial(list, map(profile.total, METRICS.names())))
    saving, data = seconds(partial(to_bytes, profile, compressed=True))
    saving_alone, _ = seconds(partial(to_bytes, replace(profile), compressed=True))
    loading, again = seconds(partial(from_bytes, data, name))
    (check, found), (whole, expected) = (seconds(partial(checked, read, data)) for read in (glance_at, from_bytes))
    if again != profile or found != expected:
        raise SystemExit("what was saved is not what was loaded")
    return {
        "operations": len(profile.calls.spec), "trace": traced / often, "totals": totals, "save": saving,
        "save alone": saving_alone, "load": loading, "check": check, "check whole": whole,
        "megabytes": len(data) / 1e6,
    }  # fmt: skip


def replay(name: str, passes: int = 3) -> dict[str, Any]:
    """Seconds for a network at sizes that it was not at before: traced one after another, and replayed one after
    another from the record of another size; and what people then ask of either. Passes take turns."""
    from cspprof.replay import replay as replayed

    from cspprof.trace import trace

    with torch.device("meta"):
        model = factory(name)().eval()
    record = trace(model, SHAPE)
    replayed(record, (1, 3, 256, 256))  # what is prepared once for a record
    shapes = [(1, 3, size, size + 32) for size in (288, 320, 352, 384, 416, 448, 480)]
    times: dict[str, list[float]] = {"trace": [], "replay": [], "trace and totals": [], "replay and totals": []}
    for _ in range(passes):
        found = []
        for who, make in (("trace", partial(trace, model)), ("replay", partial(replayed, record))):
            made = [seconds(partial(make, shape)) for shape in shapes]
            found.append([profile for _, profile in made])
            asked = [
                seconds(partial(list, map(profile.total, ("macs", "cio_hardnet", "peak_bytes"))))[0]
                for profile in found[-1]
            ]
            times[who] += [taken for taken, _ in made]
            times[f"{who} and totals"] += [taken + more for (taken, _), more in zip(made, asked, strict=True)]
        if found[0] != found[1]:
            raise SystemExit("what was replayed is not what was traced")
    return {who: sorted(taken)[len(taken) // 2] for who, taken in times.items()}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    what, name = sys.argv[1:]
    import timm  # noqa: F401  in every process, so that none has an advantage

    sections = {"build": build, "memory": memory, "growth": growth, "replay": replay}
    result = sections[what](name) if what in sections else count(what, name)
    print("\n" + json.dumps(result))
