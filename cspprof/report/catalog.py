"""The reports of `models`, `metrics` and `explain`: zoo networks, metric definitions, conventions of other tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cspprof.analysis.headline import NEARLY_ALL
from cspprof.core.record import Record
from cspprof.core.units import shape, signed_terms
from cspprof.metrics import METRICS, lower_bounds, value_of
from cspprof.metrics.conventions import Convention, conventions
from cspprof.report.metric_labels import at_least_field
from cspprof.report.notes import STATUS_MEANINGS, incomplete_note
from cspprof.report.tables import Cell, Column, Report, Table, at_least, quantity, sort_key, text

if TYPE_CHECKING:
    from cspprof.zoo import ModelEntry

# -- metrics ----------------------------------------------------------------------------------------


def metrics_report() -> Report:
    """One row per registered metric."""
    columns = [Column("name"), Column("unit"), Column("definition")]
    rows = [[text(n), text(str(m.unit)), text(m.definition)] for n, m in METRICS.items()]
    records = [
        {"name": n, "title": m.title, "unit": str(m.unit), "definition": m.definition, "is_not": m.is_not,
         "source": m.paper}
        for n, m in METRICS.items()
    ]  # fmt: skip
    return Report([Table("", columns, rows)], records, {"schema": "cspprof.metrics/1", "metrics": records})


STANDS_FOR = {
    "cio": "cio_cspnet, or cio_hardnet with the convention hardnet (--convention hardnet; in rules: convention)",
    "compute": "macs, or the total of another tool with its convention (cspprof explain conventions)",
}
"""The metric that each name means under each convention."""


def explain_metric(name: str) -> Report:
    """One metric: its definition, its unit, what it is not, its source. Raises UnknownNameError."""
    m = METRICS.get(name)
    facts = [("name", name), ("unit", str(m.unit)), ("definition", m.definition)]
    if m.name != name:
        facts.insert(1, ("stands for", STANDS_FOR[name]))
    tool, validity = (m.tool, m.validity) if isinstance(m, Convention) else ("", "")
    optional = (("is not", m.is_not), ("source", m.paper), ("printed by", tool), ("rule is valid", validity))
    facts += [(k, v) for k, v in optional if v]
    table = Table(m.title, [Column(""), Column("")], [[text(k), text(v)] for k, v in facts])
    record = {k.replace(" ", "_"): v for k, v in facts}
    return Report([table], [record], {"schema": "cspprof.explain/1", **record})


GAMMA = {
    "name": "gamma",
    "definition": "The fraction of a stage's base layer that bypasses the blocks of the stage in a cross-stage-partial "
    "network: x0 = [x0′, x0″], γ = |x0′| / |x0|, 0 < γ < 1. The blocks process the other 1 − γ.",
    "smaller": "bypasses less and saves less: gamma=0.25 costs more than gamma=0.5",
    "is_not": 'the processed fraction. "Partial ratio" is used for both: where it means the processed fraction '
    "(partial_ratio in public code), it is 1 − γ",
    "rounding": "γ times the channels, rounded to the nearest integer (ResNeXt: γ times the groups), at least one and "
    "not all",
    "with_it": "fusion=csp|first|last|none: where the 1×1 transitions are (Fig. 3); split=slice|conv: the channels are "
    "sliced, or two 1×1 convolutions of the same tensor make the two parts",
    "source": "Wang et al. 2019, section 3.1 (the partial dense block and its transitions), Fig. 3; Table 1 and Fig. 4 "
    "for the effect of γ and fusion",
    "in_formulas": "cspprof closed-form --c 256 --m 24 --d 32 --gamma 1/4",
}
GAMMA_BY_NETWORK = (
    ("csp_densenet*", "1/2", "x0 of each dense block, sliced"),
    ("csp_peleenet, csp_peleenet_efm, csp_peleenet_gfm", "1/2",
     "x0 of stages 1 to 3, sliced; stage 4 is plain, except with fusion=first"),
    ("csp_resnet10", "1/2", "the output of the strided 3×3 of stages 2 to 4, sliced; stage 1 is plain"),
    ("csp_resnet50, csp_resnext50 and their detectors", "1/2; stage 1: 2/3",
     "the outputs of two 1×1 convolutions of the stage's input, together twice as wide as the blocks; with a given γ, "
     "it holds in every stage, and the blocks are as wide as the processed part"),
    ("csp_darknet53 and its detector", "1/2",
     "the outputs of two 1×1 convolutions of the stage's map, together as wide as the map (stage 1: twice as wide), "
     "in even numbers"),
    ("csp_mobilenet_v2", "none",
     "the authors' network has no γ: half of the expanded maps, each through a depthwise 3×3, bypass the other blocks. "
     "With gamma, split or another fusion, the paper's recipe is applied to the plain network: γ of the output of a "
     "stage's first block bypasses its other blocks; stages of one block are plain"),
)  # fmt: skip
"""The network, the default γ, and the tensor that γ divides."""


def explain_gamma() -> Report:
    """The bypassed fraction γ: its definition, and what it divides in each network."""
    facts = Table("γ, the bypassed fraction", [Column(""), Column("")],
                  [[text(k.replace("_", " ")), text(v)] for k, v in GAMMA.items()])  # fmt: skip
    networks = Table("What γ divides", [Column("network"), Column("default"), Column("γ is a fraction of")],
                     [[text(cell) for cell in row] for row in GAMMA_BY_NETWORK])  # fmt: skip
    records = [{"network": n, "default": default, "of": of} for n, default, of in GAMMA_BY_NETWORK]
    return Report([facts, networks], records, {"schema": "cspprof.explain/1", **GAMMA, "networks": records})


def explain_conventions(record: Record) -> Report:
    """Why tools differ: the result of each tool for one model, as MACs and what the tool counts besides them."""
    results = [(name, c, c.total(record).value) for name, c in conventions().items()]
    inputs = ", ".join(shape(t.shape) for t in record.inputs)
    columns = [Column("convention"), Column("counts"), Column("result", numeric=True), Column("equals")]
    rows = [
        [text(name), text(c.counts), quantity(name, value), text(convention_formula(c, record, value))]
        for name, c, value in results
    ]  # fmt: skip
    tables = [
        Table(f"{record.label} at {inputs}, by the convention of each tool", columns, rows),
        Table("", [Column("convention"), Column("is printed by")],
              [[text(name), text(c.tool)] for name, c, _ in results]),
    ]  # fmt: skip
    records: list[dict[str, Any]] = [
        {"name": name, "tool": c.tool, "counts": c.counts, "per_mac": c.per_mac, "answer": value,
         "beside": {} if value is None else dict(c.deviations(record)), "definition": c.definition, "holds": c.validity}
        for name, c, value in results
    ]  # fmt: skip
    document = {
        "schema": "cspprof.conventions/1",
        "model": record.model,
        "status": record.status,
        "source": record.source,
        "inputs": [list(t.shape) for t in record.inputs],
        "macs": value_of(record, "macs"),
        "complete": record.complete,
        "uncounted": record.uncounted,
        "conventions": records,
    }
    flat = [{**r, "beside": "; ".join(f"{n:+d} {part}" for part, n in r["beside"].items())} for r in records]
    notes = [
        "every result is computed by a rule from one profile; none of these tools was run.",
        "a rule in words, and its limits: cspprof explain NAME. Totals by a rule: --convention NAME.",
    ]
    if not record.complete:
        notes.append(incomplete_note(record))
    if any(value is None for *_, value in results):
        notes.append("a dash: the rule has no value for this model.")
    return Report(tables, flat, document, notes)


def convention_formula(c: Convention, record: Record, value: Any) -> str:
    """The result of a tool as MACs and other counts: `MACs + 22,227,968 batch norm`."""
    return "–" if value is None else f"{macs_term(c)} {signed_terms(c.deviations(record))}".rstrip()


def macs_term(c: Convention) -> str:
    """`MACs` or `2·MACs`."""
    return "MACs" if c.per_mac == 1 else f"{c.per_mac}·MACs"


# -- zoo networks -----------------------------------------------------------------------------------

TOTALS = ("macs", "bflops", "params", "conv_weights", "cio_cspnet")
"""The metrics in the list of networks."""


def network_record(entry: ModelEntry, record: Record | None = None, metrics: Sequence[str] = ()) -> dict[str, Any]:
    """The origin of a zoo network and, with its profile at its native input, its totals: all metrics, and `metrics`.
    For JSON and CSV."""
    origin = {
        "name": entry.name, "family": entry.family, "input": "×".join(map(str, entry.input)), "status": entry.status,
        "twin": entry.twin or "", "paper": entry.paper, "summary": entry.summary,
    }  # fmt: skip
    if record is None:
        return origin
    names = sorted({*METRICS.names(), *metrics})
    return origin | {"metrics": {m: value_of(record, m) for m in names}, "at_least": lower_bounds(record, names)}


def network_papers_report(networks: Sequence[dict[str, Any]]) -> Report:
    """The family, plain twin and paper of each network; needs no profile."""
    fields = ("family", "twin", "paper")
    columns = [Column("model"), *(Column(k) for k in fields)]
    rows = [[text(_label(n)), *(text(n[k]) for k in fields)] for n in networks]
    document = {"schema": "cspprof.models/1", "models": networks}
    return Report([Table("", columns, rows)], networks, document, _status_notes(networks))


def network_totals_report(
    networks: Sequence[dict[str, Any]], sort: str | None = None, ascending: bool = False
) -> Report:
    """The totals of each network at its native input; with `sort`, sorted by that metric, largest or smallest first."""
    if sort is not None:
        networks = sorted(networks, key=lambda n: sort_key(n["metrics"][sort], ascending))
    metrics = TOTALS if sort in (None, *TOTALS) else (*TOTALS, str(sort))
    shown = metrics
    if "conv_share" not in metrics and any((n["metrics"]["conv_share"] or 0) < NEARLY_ALL for n in networks):
        shown = (*metrics, "conv_share")
    columns = [Column("model"), Column("input", priority=len(shown))]
    columns += [Column(METRICS.get(m).title, True, i) for i, m in enumerate(shown)]
    rows = [
        [text(_label(n)), text(n["input"].split("×", 2)[2]), *(_network_total(n, m) for m in shown)] for n in networks
    ]
    records = [
        {k: v for k, v in n.items() if k not in ("metrics", "at_least")} | {m: n["metrics"][m] for m in shown}
        | at_least_field([m for m in n["at_least"] if m in shown])
        for n in networks
    ]  # fmt: skip
    notes = [*_status_notes(networks), "papers and sections: cspprof models --papers"]
    return Report([Table("", columns, rows)], records, {"schema": "cspprof.models/1", "models": networks}, notes)


def _network_total(network: dict[str, Any], metric: str) -> Cell:
    cell = quantity(metric, network["metrics"][metric])
    return at_least(cell) if metric in network["at_least"] else cell


def _label(network: dict[str, Any]) -> str:
    name, status = network["name"], network["status"]
    return f"{name} ({status})" if status in STATUS_MEANINGS else str(name)


def _status_notes(networks: Sequence[dict[str, Any]]) -> list[str]:
    statuses = {n["status"] for n in networks}
    return [f"{status}: {meaning}" for status, meaning in STATUS_MEANINGS.items() if status in statuses]
