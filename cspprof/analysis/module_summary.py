"""The modules of a record as a tree, each with the cost of everything that ran inside it."""

from __future__ import annotations

from dataclasses import dataclass

from cspprof.analysis.layer_rows import first_read_params, layer_rows, values_by_spec
from cspprof.core.cached import cached
from cspprof.core.record import Layer, Record, TensorSpec
from cspprof.metrics.memory import live_bytes

MOST_MODULES = 40
"""The number of modules that `default_depth` shows at most: they fit on a screen or two."""


@dataclass(frozen=True, slots=True)
class ModuleSummary:
    """A module with the operations of all its calls, submodules included."""

    layer: Layer
    output: TensorSpec | None
    """The first output of the last operation that ran in it; None if none ran."""
    params: int
    """Elements of its parameters, without those that an earlier module owns."""
    frozen: int
    """Those of `params` that need no gradient."""
    macs: int
    """Multiply-accumulates of the operations with a rule."""
    unknown: int
    """The number of calls without a rule."""
    cio: int
    """Input plus output elements of convolutions and pools; see the metric `cio_cspnet`."""
    cio_missed: int
    """The number of calls that may be convolutions or pools and have no rule: `cio` is then a lower bound."""
    traffic: int
    """Bytes that all operations read and write; see the metric `traffic_bytes`."""
    live_bytes: int
    """The largest activation memory that is alive while it runs; 0 if nothing ran."""


@cached
def module_summaries(record: Record) -> tuple[ModuleSummary, ...]:
    """Every module in the order of `record.layers`, in which a module stands before its submodules."""
    layers, calls, specs = record.layers, record.calls, record.specs
    parents = _parents(layers)
    macs, cio, traffic = (values_by_spec(record, m) for m in ("macs", "cio_cspnet", "traffic_bytes"))
    added = ("params", "frozen", "macs", "unknown", "cio", "cio_missed", "traffic")
    sums = {name: [0] * len(layers) for name in (*added, "live")}
    last = [-1] * len(layers)
    for i, layer in enumerate(layers):
        sums["params"][i], sums["frozen"][i] = layer.params, layer.frozen
    if not any(sums["params"]):
        sums["params"] = _params_by_reader(record)
    for i, (index, layer_index, live) in enumerate(zip(calls.spec, calls.layer, live_bytes(record), strict=True)):
        spec = specs[index]
        sums["macs"][layer_index] += macs[index] or 0
        sums["unknown"][layer_index] += spec.macs is None
        sums["cio"][layer_index] += cio[index] or 0
        sums["cio_missed"][layer_index] += cio[index] is None
        sums["traffic"][layer_index] += traffic[index]
        sums["live"][layer_index] = max(sums["live"][layer_index], live)
        if spec.writes:
            last[layer_index] = i
    for i in range(len(layers) - 1, 0, -1):  # a submodule stands behind its module
        parent = parents[i]
        for name in added:
            sums[name][parent] += sums[name][i]
        sums["live"][parent] = max(sums["live"][parent], sums["live"][i])
        last[parent] = max(last[parent], last[i])
    return tuple(
        ModuleSummary(
            layer,
            specs[calls.spec[last[i]]].writes[0] if last[i] >= 0 else None,
            *(column[i] for column in sums.values()),
        )
        for i, layer in enumerate(layers)
    )


def _params_by_reader(record: Record) -> list[int]:
    """Elements of the parameters that each module reads first. For records of graphs, whose modules own none."""
    params = [0] * len(record.layers)
    for call, elements in first_read_params(record, range(len(record.calls.spec))).items():
        params[record.calls.layer[call]] += elements
    return params


def _parents(layers: tuple[Layer, ...]) -> list[int]:
    """The position of the module around each module; −1 for the model."""
    parents: list[int] = []
    at_depth: dict[int, int] = {}
    for i, layer in enumerate(layers):
        parents.append(at_depth.get(layer.depth - 1, 0) if i else -1)
        at_depth[layer.depth] = i
    return parents


def default_depth(record: Record) -> int:
    """The largest depth at which at most `MOST_MODULES` modules are listed, at least 1."""
    depths = sorted(layer.depth for layer in record.layers)
    deepest = depths[-1] if depths else 0
    return next((d for d in range(deepest, 1, -1) if sum(x <= d for x in depths) <= MOST_MODULES), 1)


def peak_path(record: Record) -> str:
    """The path of the first operation during which the activation memory is largest, as in a table of layers; empty
    without operations."""
    rows = layer_rows(record)
    return max(rows, key=lambda r: (r.live_bytes, -r.index)).path if rows else ""
