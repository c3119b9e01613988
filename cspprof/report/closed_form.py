"""Closed forms as reports: the list of them, and the derivation of one in symbols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import sympy
from sympy import Expr

from cspprof.core.units import decimal, share
from cspprof.csp.closed_form import notation
from cspprof.csp.closed_form.forms import CLOSED_FORMS, PARAMETERS, ClosedForm, plain_and_partial, total_cost
from cspprof.csp.closed_form.layers import COSTS, RepeatedLayers, SymbolicLayer, c, m
from cspprof.csp.closed_form.saving import limits, network_savings, saving, saving_by_ratio
from cspprof.csp.closed_form.sized_block import parse_gamma
from cspprof.csp.dense_networks import NETWORKS
from cspprof.report.tables import Cell, Column, Formula, Report, Table, integer, text

SCHEMA = "cspprof.closed_form/1"
EXAMPLE_DEPTH = 8
"""m of a form that has none in symbols, where nobody says another."""
OUTSIDE = (
    "splits, transitions and whatever else a stage has are outside this form (cspprof closed-form --list): it is not a "
    "whole network's CIO."
)


def form_list() -> Report:
    """One row per form: its parameters, its partial twin, and what it is."""
    records = [
        {"name": f.name, "takes": " ".join(f.parameters), "twin": f.twin or f.plain or "", "summary": f.summary,
         "paper": f.paper}
        for _, f in CLOSED_FORMS.items()
    ]  # fmt: skip
    shown = [r for r, (_, f) in zip(records, CLOSED_FORMS.items(), strict=True) if not f.plain]
    columns = [Column("form"), Column("partial twin"), Column("takes"), Column("is")]
    keys = ("name", "twin", "takes", "summary")
    table = Table("", columns, [[text(r[key]) for key in keys] for r in shown])
    meanings = [[text(name), text(meaning)] for name, (_, meaning) in PARAMETERS.items()]
    document = {"schema": SCHEMA, "shows": "forms", "forms": records, "notes": []}
    return Report([table, Table("Parameters", [Column("name"), Column("is")], meanings)], records, document)


def explain_closed_form() -> Report:
    """What a closed form is, and what it is not."""
    facts = {
        "name": "closed-form",
        "definition": "What a block costs as a formula: CIO, MACs and weights of its layers in symbols, summed over "
        "the m layers. A dense block's CIO is w·h·(c·m + (m² + m)·d/2), its partial twin's "
        "w·h·((1 − γ)·c·m + (m² + m)·d/2).",
        "is_not": "a whole network's CIO: splits, transitions and, in the paper's form, bottleneck convolutions are "
        "outside it; nor a saving of one half: that is the limit for c ≫ m·d at γ = 1/2",
        "source": "Wang et al. 2019, section 3",
        "shown_by": "cspprof closed-form; every form: cspprof closed-form --list",
    }
    lines = [[text(key.replace("_", " ")), text(value)] for key, value in facts.items()]
    table = Table("Closed form", [Column(""), Column("")], lines)
    return Report([table], [facts], {"schema": "cspprof.explain/1", **facts})


def derivation_report(form: ClosedForm, depth: int | None, gamma: Any, as_latex: bool) -> Report:
    """A form in symbols: each layer, its sum, the totals, and for a pair what the partial twin saves.

    `depth` is m of a form that has none in symbols, `gamma` that of the real stages.
    """
    gamma = parse_gamma(gamma)
    depth = (depth or EXAMPLE_DEPTH) if form.needs_depth else None
    both = plain_and_partial(form)
    derived = both if both and not form.needs_depth else (form,)
    stages = network_savings(gamma) if both and both[0].name in ("dense", *(n.form for n in NETWORKS.values())) else []
    tables = [*(_terms(f, depth, as_latex) for f in derived), _closed_forms(both or (form,), depth, as_latex)]
    tables += [_saving(both, depth, as_latex)] if both else []
    tables += [stage_table(stages, gamma)] if stages else []
    document: dict[str, Any] = {
        "schema": SCHEMA, "shows": "derivation", "form": form.name, "summary": form.summary, "paper": form.paper,
        "takes": {name: PARAMETERS[name][1] for name in form.parameters}, "m": depth,
        "terms": {f.name: [_term_document(part, layer) for part, layer in _layers(f, depth)] for f in derived},
        "closed_forms": {f.name: _forms_document(f, depth) for f in both or (form,)},
        "saving": _saving_document(form, depth) if both else None,
        "stages": stages,
        "notes": [*_notes(form, depth), *stage_notes(stages)],
    }  # fmt: skip
    records = [
        {"form": name, "quantity": quantity, **written}
        for name, forms in document["closed_forms"].items()
        for quantity, written in forms.items()
    ]
    return Report(tables, records, document, document["notes"])


def _layers(form: ClosedForm, depth: int | None) -> list[tuple[RepeatedLayers, SymbolicLayer]]:
    return [(part, layer) for part in form.symbolic_layers(depth).parts for layer in part.layers]


def _terms(form: ClosedForm, depth: int | None, as_latex: bool) -> Table:
    columns = [Column(x) for x in ("layer", "for", "reads", "writes", "CIO of one", "of all")]
    lines = []
    for part, layer in _layers(form, depth):
        term = layer.cio_cspnet
        each = [_written(x) for x in (layer.c_in, layer.c_out, term)]
        often = text("" if part.count == 1 else f"i = 1…{part.count}")
        lines.append([text(layer.name), often, *(_cell(x, as_latex) for x in [*each, _summed(part, term)])])
    whole = _cell(_written(total_cost(form, "cio_cspnet", depth)), as_latex)
    lines.append([text("all layers"), *(text("") for _ in range(4)), whole])
    return Table(f"{form.name}: {form.summary} ({form.paper})", columns, lines)


def _closed_forms(forms: tuple[ClosedForm, ...], depth: int | None, as_latex: bool) -> Table:
    """The two rules of CIO are one row where no layer is a pool."""
    pools = any(layer.pool for form in forms for _, layer in _layers(form, depth))
    headings = COSTS if pools else {"cio_cspnet": "CIO", "macs": "MACs", "conv_weights": "weights"}
    lines = [
        [text(heading), *(_cell(_written(total_cost(form, quantity, depth)), as_latex) for form in forms)]
        for quantity, heading in headings.items()
    ]
    return Table("Closed forms", [Column(""), *(Column(form.name) for form in forms)], lines)


def _saving(both: tuple[ClosedForm, ClosedForm], depth: int | None, as_latex: bool) -> Table:
    expr = saving(both[0], depth)
    shown = [("saving", expr), *((f"{x.symbol} → ∞", x.value) for x in limits(expr))]
    if (ratio := saving_by_ratio(expr)) is not None:
        shown += [("with ρ = c/(m·d)", ratio), ("and m → ∞", sympy.limit(ratio, m, sympy.oo))]
    lines = [[text(name), _cell(_written(x, notation.arrange_ratio), as_latex)] for name, x in shown]
    return Table(f"What {both[1].name} saves of {both[0].name}'s CIO", [Column(""), Column("part of it")], lines)


def stage_table(stages: list[dict[str, Any]], gamma: Any) -> Table:
    """What real stages save, beside the paper's claim."""
    columns = [Column("stage"), *(Column(x, numeric=True) for x in ("c", "m", "d", "c/(m·d)"))]
    columns += [Column("saved (paper)", numeric=True), Column("saved (all convs)", numeric=True)]
    lines = [
        [text(f"{r['network']} {r['stage']}"), integer(r["c"]), integer(r["m"]), integer(r["d"]),
         Cell(r["ratio"], decimal(r["ratio"])), _saved(r["saving"]), _saved(r["own_saving"])]
        for r in stages
    ]  # fmt: skip
    return Table(f"What real stages save at γ = {gamma} (the paper: up to one half, c ≫ m·d, γ = 1/2)", columns, lines)


def stage_notes(stages: list[dict[str, Any]]) -> list[str]:
    """What the two columns are, and the dashes."""
    if not stages:
        return []
    notes = ["saved (paper): one convolution a layer; saved (all convs): all that a layer of that network has."]
    if any(None in (r["saving"], r["own_saving"]) for r in stages):
        notes.append("a dash: no whole number of channels, or layers that PeleeNet narrows on so narrow a path.")
    return notes


def _saved(value: float | None) -> Cell:
    return Cell(None, "–") if value is None else Cell(value, share(value))


def _written(expr: Expr, arrange: Callable[[Expr], Expr] = notation.arrange) -> Formula:
    arranged = arrange(expr)
    return Formula(notation.text(arranged), notation.latex(arranged))


def _summed(part: RepeatedLayers, term: Expr) -> Formula:
    """A sum over repetitions and what it comes to; of a single layer, the term."""
    if part.count == 1:
        return _written(term)
    left, right = _series(part, term), _written(part.evaluated_sum(term))
    return Formula(f"{left.text} = {right.text}", f"{left.latex} = {right.latex}")


def _series(part: RepeatedLayers, term: Expr) -> Formula:
    series = part.series(term)
    return Formula(notation.text(series), notation.latex(series))


def _cell(formula: Formula, as_latex: bool) -> Cell:
    return Cell(formula, formula.latex if as_latex else formula.text)


def _forms_document(form: ClosedForm, depth: int | None) -> dict[str, dict[str, str]]:
    return {quantity: asdict(_written(total_cost(form, quantity, depth))) for quantity in COSTS}


def _term_document(part: RepeatedLayers, layer: SymbolicLayer) -> dict[str, Any]:
    term = layer.cio_cspnet
    return {
        "layer": layer.name, "kernel": layer.kernel, "pool": layer.pool, "count": _written(part.count).text,
        "groups": asdict(_written(layer.groups)), "reads": asdict(_written(layer.c_in)),
        "writes": asdict(_written(layer.c_out)), "size": [notation.text(x) for x in layer.size],
        "size_out": [notation.text(x) for x in layer.size_out], "cio": asdict(_written(term)),
        "sum": asdict(_series(part, term)), "summed": asdict(_written(part.evaluated_sum(term))),
    }  # fmt: skip


def _saving_document(form: ClosedForm, depth: int | None) -> dict[str, Any]:
    expr = saving(form, depth)
    ratio = saving_by_ratio(expr)
    quotient = {"symbol": "ρ", "is": "c/(m·d)"}
    return {
        "saving": asdict(_written(expr, notation.arrange_ratio)),
        "limits": [{"symbol": str(x.symbol), "to": "∞", "value": asdict(_written(x.value))} for x in limits(expr)],
        "ratio": None if ratio is None else quotient | {"saving": asdict(_written(ratio, notation.arrange_ratio))},
    }


def _notes(form: ClosedForm, depth: int | None) -> list[str]:
    named = ", ".join(f"{notation.text(PARAMETERS[name][0])} {PARAMETERS[name][1]}" for name in form.parameters)
    notes = [f"{named}."]
    notes += [f"it holds where {notation.text(relation)}." for relation in form.conditions]
    if form.needs_depth:
        notes.append(
            f"which layers are linked depends on the binary digits of their numbers, so there is a form for each m: "
            f"this is m = {depth}; another: --m N. kₙ is d·rⁿ⁻¹, made even."
        )
    if c in {PARAMETERS[name][0] for name in form.parameters} and (form.plain or form.twin):
        notes.append(OUTSIDE)
    return notes
