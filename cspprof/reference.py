"""What cspprof knows about itself as reports: the zoo, the numbers and their definitions."""

from __future__ import annotations

from cspprof.errors import UnknownNameError
from cspprof.metrics import METRICS
from cspprof.tables import Column, Report, Table, text


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
    facts += [(k, v) for k, v in (("is not", m.is_not), ("source", m.paper)) if v]
    table = Table(m.title, [Column(""), Column("")], [[text(k), text(v)] for k, v in facts])
    record = {k.replace(" ", "_"): v for k, v in facts}
    return Report([table], [record], {"schema": "cspprof.explain/1", **record})


def model_list(family: str | None = None) -> Report:
    """One row per zoo network, sorted by family and name."""
    from cspprof.zoo import catalog

    entries = sorted((e for _, e in catalog().items()), key=lambda e: (e.family, e.name))
    families = sorted({e.family for e in entries})
    if family is not None and family not in families:
        raise UnknownNameError(f"no family named {family!r}", f"There are: {', '.join(families)}")
    chosen = [e for e in entries if family in (None, e.family)]
    records = [
        {"name": e.name, "family": e.family, "input": "×".join(map(str, e.input)), "status": e.status,
         "twin": e.twin or "", "paper": e.paper, "summary": e.summary}
        for e in chosen
    ]  # fmt: skip
    shown = ("name", "family", "input", "status", "twin", "paper")
    table = Table("", [Column(k) for k in shown], [[text(str(r[k])) for k in shown] for r in records])
    return Report([table], records, {"schema": "cspprof.models/1", "models": records})
