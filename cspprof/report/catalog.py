"""What cspprof knows about itself as reports: the zoo, the numbers and their definitions, and other tools' senses."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from cspprof.core.errors import UnknownNameError
from cspprof.core.record import Record
from cspprof.core.units import shape, signed_terms
from cspprof.metrics import METRICS, value_of
from cspprof.metrics.conventions import Convention, conventions
from cspprof.report.notes import STANDING
from cspprof.report.tables import Column, Report, Table, quantity, text
from cspprof.storage.profile_file import from_bytes

if TYPE_CHECKING:
    from cspprof.zoo import ModelEntry


def metric_list() -> Report:
    """One row per registered number."""
    columns = [Column("name"), Column("unit"), Column("definition")]
    rows = [[text(n), text(str(m.unit)), text(m.definition)] for n, m in METRICS.items()]
    records = [
        {"name": n, "title": m.title, "unit": str(m.unit), "definition": m.definition, "is_not": m.is_not,
         "source": m.paper}
        for n, m in METRICS.items()
    ]  # fmt: skip
    return Report([Table("", columns, rows)], records, {"schema": "cspprof.metrics/1", "metrics": records})


def explain(name: str) -> Report:
    """One number: definition, unit, what it is not, source."""
    m = METRICS.get(name)
    facts = [("name", name), ("unit", str(m.unit)), ("definition", m.definition)]
    tool, validity = (m.tool, m.validity) if isinstance(m, Convention) else ("", "")
    more = (("is not", m.is_not), ("source", m.paper), ("printed by", tool), ("rule is valid", validity))
    facts += [(k, v) for k, v in more if v]
    table = Table(m.title, [Column(""), Column("")], [[text(k), text(v)] for k, v in facts])
    record = {k.replace(" ", "_"): v for k, v in facts}
    return Report([table], [record], {"schema": "cspprof.explain/1", **record})


GAMMA = {
    "name": "gamma",
    "definition": "The fraction of a stage's base layer that bypasses the stage's blocks in a cross-stage-partial "
    "network: x0 = [x0′, x0″], γ = |x0′| / |x0|, 0 < γ < 1. The blocks work on the other 1 − γ.",
    "smaller": "bypasses less and saves less: gamma=0.25 costs more than gamma=0.5",
    "is_not": 'the processed fraction. "Partial ratio" is in use for both: where that is the part that blocks work on '
    "(partial_ratio of public code), it is 1 − γ",
    "rounding": "γ of the channels, to the nearest whole number (ResNeXt: of its groups), at least one and not all",
    "with_it": "fusion=csp|first|last|none: where the 1×1 transitions stand (Fig. 3); split=slice|conv: channels are "
    "divided, or two 1×1 convolutions of the same tensor make the two parts",
    "source": "Wang et al. 2019, section 3.1 (the partial dense block and its transitions), Fig. 3; Table 1 and Fig. 4 "
    "for what γ and fusion change",
    "in_formulas": "cspprof closed-form --c 256 --m 24 --d 32 --gamma 1/4",
}
GAMMA_OF = (
    ("csp_densenet*", "1/2", "x0 of each dense block, sliced"),
    ("csp_peleenet, csp_peleenet_efm, csp_peleenet_gfm", "1/2",
     "x0 of stages 1 to 3, sliced; stage 4 is plain, but with fusion=first"),
    ("csp_resnet10", "1/2", "what the strided 3×3 of stages 2 to 4 makes, sliced; stage 1 is plain"),
    ("csp_resnet50, csp_resnext50 and their detectors", "1/2; stage 1: 2/3",
     "what two 1×1 convolutions make of the stage's input, together twice the blocks' width; a given γ holds in "
     "every stage, and the blocks are as wide as the processed part"),
    ("csp_darknet53 and its detector", "1/2",
     "what two 1×1 convolutions make of the stage's map, together as wide as it (stage 1: twice), in even numbers"),
    ("csp_mobilenet_v2", "none",
     "the authors' form has no γ: half of the expanded maps, each through a depthwise 3×3, bypass the other blocks. "
     "With gamma, split or another fusion the paper's recipe on the plain network instead: γ of what a stage's first "
     "block makes bypasses its other blocks; stages of one block are plain"),
)  # fmt: skip
"""What γ is a fraction of in the zoo, with what it is unless given."""


def explain_gamma() -> Report:
    """The bypassed fraction: what it is, what it is not, and what it divides in each network."""
    facts = Table("γ, the bypassed fraction", [Column(""), Column("")],
                  [[text(k.replace("_", " ")), text(v)] for k, v in GAMMA.items()])  # fmt: skip
    networks = Table("What it divides", [Column("network"), Column("default"), Column("γ is of")],
                     [[text(cell) for cell in row] for row in GAMMA_OF])  # fmt: skip
    records = [{"network": n, "default": default, "of": of} for n, default, of in GAMMA_OF]
    return Report([facts, networks], records, {"schema": "cspprof.explain/1", **GAMMA, "networks": records})


def example() -> Record:
    """ResNet-50 as torchvision and timm build it, at 224×224: the network that every tool is tried on."""
    file = resources.files("cspprof") / "data" / "resnet50.profile.json.gz"
    return from_bytes(file.read_bytes(), "the example")


def explain_conventions(record: Record) -> Report:
    """Why tools differ: what each of them prints for one model, and what is in that beside the MACs."""
    found = [(name, c, c.total(record).value) for name, c in conventions().items()]
    inputs = ", ".join(shape(t.shape) for t in record.inputs)
    columns = [Column("convention"), Column("counts"), Column("answer", numeric=True), Column("which is")]
    answers = [
        [text(name), text(c.counts), quantity(name, value), text(derived(c, record, value))]
        for name, c, value in found
    ]  # fmt: skip
    tables = [
        Table(f"{record.label} at {inputs}, as tools count it", columns, answers),
        Table("", [Column("convention"), Column("is what is printed by")],
              [[text(name), text(c.tool)] for name, c, _ in found]),
    ]  # fmt: skip
    records: list[dict[str, Any]] = [
        {"name": name, "tool": c.tool, "counts": c.counts, "per_mac": c.per_mac, "answer": value,
         "beside": {} if value is None else dict(c.deviations(record)), "definition": c.definition, "holds": c.validity}
        for name, c, value in found
    ]  # fmt: skip
    document = {
        "schema": "cspprof.conventions/1",
        "model": record.model,
        "status": record.status,
        "source": record.source,
        "inputs": [list(t.shape) for t in record.inputs],
        "macs": value_of(record, "macs"),
        "complete": record.complete,
        "conventions": records,
    }
    flat = [{**r, "beside": "; ".join(f"{n:+d} {part}" for part, n in r["beside"].items())} for r in records]
    notes = [
        "every answer is derived by rule from one profile; none of these tools was run.",
        "a rule in words, and its limits: cspprof explain NAME. Totals by a rule: --convention NAME.",
    ]
    if any(value is None for *_, value in found):
        notes.append("a dash: the rule cannot tell this model.")
    return Report(tables, flat, document, notes)


def derived(c: Convention, record: Record, value: Any) -> str:
    """`MACs + 22,227,968 batch norm`."""
    return "–" if value is None else f"{macs_as(c)} {signed_terms(c.deviations(record))}".rstrip()


def macs_as(c: Convention) -> str:
    return "MACs" if c.per_mac == 1 else f"{c.per_mac}·MACs"


TOTALS = ("macs", "bflops", "params", "conv_weights", "cio_cspnet")
"""What the listing of the zoo shows of every network."""


def zoo_networks(family: str | None = None) -> list[ModelEntry]:
    """The zoo's networks, or those of one family, by family and name. Raises UnknownNameError."""
    from cspprof.zoo import catalog

    entries = sorted((e for _, e in catalog().items()), key=lambda e: (e.family, e.name))
    families = sorted({e.family for e in entries})
    if family is not None and family not in families:
        raise UnknownNameError(f"no family named {family!r}", f"There are: {', '.join(families)}")
    return [e for e in entries if family in (None, e.family)]


def network_record(e: ModelEntry, record: Record | None = None) -> dict[str, Any]:
    """Where a network comes from and, given its profile at native input, its totals: as JSON can hold it."""
    origin = {
        "name": e.name, "family": e.family, "input": "×".join(map(str, e.input)), "status": e.status,
        "twin": e.twin or "", "paper": e.paper, "summary": e.summary,
    }  # fmt: skip
    return origin if record is None else origin | {"metrics": {m: value_of(record, m) for m in METRICS.names()}}


def model_list(networks: Sequence[dict[str, Any]]) -> Report:
    """Where each network comes from, untraced."""
    shown = ("family", "twin", "paper")
    columns = [Column("model"), *(Column(k) for k in shown)]
    rows = [[text(_label(n)), *(text(n[k]) for k in shown)] for n in networks]
    document = {"schema": "cspprof.models/1", "models": networks}
    return Report([Table("", columns, rows)], networks, document, _standing(networks))


def model_totals(networks: Sequence[dict[str, Any]], sort: str | None = None) -> Report:
    """The networks with their totals at native input; largest first by the number `sort`."""
    if sort is not None:
        networks = sorted(networks, key=lambda n: -(n["metrics"][sort] or 0))
    shown = TOTALS if sort in (None, *TOTALS) else (*TOTALS, str(sort))
    columns = [Column("model"), Column("input"), *(Column(METRICS.get(m).title, numeric=True) for m in shown)]
    rows = [
        [text(_label(n)), text(n["input"].split("×", 2)[2]), *(quantity(m, n["metrics"][m]) for m in shown)]
        for n in networks
    ]
    records = [{k: v for k, v in n.items() if k != "metrics"} | {m: n["metrics"][m] for m in shown} for n in networks]
    notes = [*_standing(networks), "papers and sections: cspprof models --papers"]
    return Report([Table("", columns, rows)], records, {"schema": "cspprof.models/1", "models": networks}, notes)


def _label(network: dict[str, Any]) -> str:
    name, status = network["name"], network["status"]
    return f"{name} ({status})" if status in STANDING else str(name)


def _standing(networks: Sequence[dict[str, Any]]) -> list[str]:
    found = {n["status"] for n in networks}
    return [f"{status}: {meaning}" for status, meaning in STANDING.items() if status in found]
