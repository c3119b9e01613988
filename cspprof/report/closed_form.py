"""The reports of `closed-form` in symbols: the list of forms, and the derivation of one form."""

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
"""The default m of a form whose layers depend on the digits of m."""
OUTSIDE = (
    "splits, transitions and all other layers of a stage are outside this form (cspprof closed-form --list): it is not "
    "the CIO of a whole network."
)


def form_list() -> Report:
    """One row per form: its name, its partial twin, its parameters and its summary."""
    records = [
        {"name": f.name, "takes": " ".join(f.parameters), "twin": f.twin or f.plain or "", "summary": f.summary,
         "paper": f.paper}
        for _, f in CLOSED_FORMS.items()
    ]  # fmt: skip
    plain = [r for r, (_, f) in zip(records, CLOSED_FORMS.items(), strict=True) if not f.plain]
    columns = [Column("form"), Column("partial twin"), Column("parameters"), Column("summary")]
    keys = ("name", "twin", "takes", "summary")
    table = Table("", columns, [[text(r[key]) for key in keys] for r in plain])
    meanings = [[text(name), text(meaning)] for name, (_, meaning) in PARAMETERS.items()]
    document = {"schema": SCHEMA, "shows": "forms", "forms": records, "notes": []}
    return Report([table, Table("Parameters", [Column("name"), Column("meaning")], meanings)], records, document)


def explain_closed_form() -> Report:
    """The definition of a closed form, and what it is not."""
    facts = {
        "name": "closed-form",
        "definition": "The cost of a block as a formula: CIO, MACs and weights of its layers in symbols, summed over "
        "the m layers. The CIO of a dense block is w·h·(c·m + (m² + m)·d/2), that of its partial twin "
        "w·h·((1 − γ)·c·m + (m² + m)·d/2).",
        "is_not": "the CIO of a whole network: splits, transitions and, in the paper's form, bottleneck convolutions "
        "are outside it; nor a saving of one half: that is the limit for c ≫ m·d at γ = 1/2",
        "source": "Wang et al. 2019, section 3",
        "shown_by": "cspprof closed-form; all forms: cspprof closed-form --list",
    }
    lines = [[text(key.replace("_", " ")), text(value)] for key, value in facts.items()]
    table = Table("Closed form", [Column(""), Column("")], lines)
    return Report([table], [facts], {"schema": "cspprof.explain/1", **facts})


def derivation_report(form: ClosedForm, depth: int | None, gamma: Any, as_latex: bool) -> Report:
    """A form in symbols: each layer, its sum, the totals and, if the form has a partial twin, the saving.

    `depth` is the m of a form whose layers depend on the digits of m; `gamma` applies to the stages of real networks.
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
    columns = [Column(x) for x in ("layer", "for", "reads", "writes", "CIO of one", "CIO of all")]
    lines = []
    for part, layer in _layers(form, depth):
        term = layer.cio_cspnet
        each = [_formula(x) for x in (layer.c_in, layer.c_out, term)]
        indices = text("" if part.count == 1 else f"i = 1…{part.count}")
        lines.append([text(layer.name), indices, *(_cell(x, as_latex) for x in [*each, _summed(part, term)])])
    whole = _cell(_formula(total_cost(form, "cio_cspnet", depth)), as_latex)
    lines.append([text("all layers"), *(text("") for _ in range(4)), whole])
    return Table(f"{form.name}: {form.summary} ({form.paper})", columns, lines)


def _closed_forms(forms: tuple[ClosedForm, ...], depth: int | None, as_latex: bool) -> Table:
    """One row per cost; the two rules of CIO are one row if no layer is a pool."""
    pools = any(layer.pool for form in forms for _, layer in _layers(form, depth))
    headings = COSTS if pools else {"cio_cspnet": "CIO", "macs": "MACs", "conv_weights": "weights"}
    lines = [
        [text(heading), *(_cell(_formula(total_cost(form, quantity, depth)), as_latex) for form in forms)]
        for quantity, heading in headings.items()
    ]
    return Table("Closed forms", [Column(""), *(Column(form.name) for form in forms)], lines)


def _saving(both: tuple[ClosedForm, ClosedForm], depth: int | None, as_latex: bool) -> Table:
    expr = saving(both[0], depth)
    expressions = [("saving", expr), *((f"{x.symbol} → ∞", x.value) for x in limits(expr))]
    if (ratio := saving_by_ratio(expr)) is not None:
        expressions += [("with ρ = c/(m·d)", ratio), ("and m → ∞", sympy.limit(ratio, m, sympy.oo))]
    lines = [[text(name), _cell(_formula(x, notation.arrange_ratio), as_latex)] for name, x in expressions]
    return Table(
        f"Saving of {both[1].name} in the CIO of {both[0].name}", [Column(""), Column("fraction of it")], lines
    )


def stage_table(stages: list[dict[str, Any]], gamma: Any) -> Table:
    """The saving of stages of real networks, with the paper's claim in the title."""
    columns = [Column("stage"), *(Column(x, numeric=True) for x in ("c", "m", "d", "c/(m·d)"))]
    columns += [Column("saved (paper)", numeric=True), Column("saved (all convs)", numeric=True)]
    lines = [
        [text(f"{r['network']} {r['stage']}"), integer(r["c"]), integer(r["m"]), integer(r["d"]),
         Cell(r["ratio"], decimal(r["ratio"])), _saved(r["saving"]), _saved(r["own_saving"])]
        for r in stages
    ]  # fmt: skip
    return Table(f"Saving of real stages at γ = {gamma} (the paper: up to one half, c ≫ m·d, γ = 1/2)", columns, lines)


def stage_notes(stages: list[dict[str, Any]]) -> list[str]:
    """The meaning of the two columns and of a dash."""
    if not stages:
        return []
    notes = [
        "saved (paper): one convolution per layer; saved (all convs): all convolutions of a layer of that network."
    ]
    if any(None in (r["saving"], r["own_saving"]) for r in stages):
        notes.append(
            "a dash: the number of channels is no integer, or PeleeNet narrows its layers because the path is narrow."
        )
    return notes


def _saved(value: float | None) -> Cell:
    return Cell(None, "–") if value is None else Cell(value, share(value))


def _formula(expr: Expr, arrange: Callable[[Expr], Expr] = notation.arrange) -> Formula:
    arranged = arrange(expr)
    return Formula(notation.text(arranged), notation.latex(arranged))


def _summed(part: RepeatedLayers, term: Expr) -> Formula:
    """The sum over repetitions and its closed form; for a single layer, the term."""
    if part.count == 1:
        return _formula(term)
    left, right = _series(part, term), _formula(part.evaluated_sum(term))
    return Formula(f"{left.text} = {right.text}", f"{left.latex} = {right.latex}")


def _series(part: RepeatedLayers, term: Expr) -> Formula:
    series = part.series(term)
    return Formula(notation.text(series), notation.latex(series))


def _cell(formula: Formula, as_latex: bool) -> Cell:
    return Cell(formula, formula.latex if as_latex else formula.text)


def _forms_document(form: ClosedForm, depth: int | None) -> dict[str, dict[str, str]]:
    return {quantity: asdict(_formula(total_cost(form, quantity, depth))) for quantity in COSTS}


def _term_document(part: RepeatedLayers, layer: SymbolicLayer) -> dict[str, Any]:
    term = layer.cio_cspnet
    return {
        "layer": layer.name, "kernel": layer.kernel, "pool": layer.pool, "count": _formula(part.count).text,
        "groups": asdict(_formula(layer.groups)), "reads": asdict(_formula(layer.c_in)),
        "writes": asdict(_formula(layer.c_out)), "size": [notation.text(x) for x in layer.size],
        "size_out": [notation.text(x) for x in layer.size_out], "cio": asdict(_formula(term)),
        "sum": asdict(_series(part, term)), "summed": asdict(_formula(part.evaluated_sum(term))),
    }  # fmt: skip


def _saving_document(form: ClosedForm, depth: int | None) -> dict[str, Any]:
    expr = saving(form, depth)
    ratio = saving_by_ratio(expr)
    quotient = {"symbol": "ρ", "is": "c/(m·d)"}
    return {
        "saving": asdict(_formula(expr, notation.arrange_ratio)),
        "limits": [{"symbol": str(x.symbol), "to": "∞", "value": asdict(_formula(x.value))} for x in limits(expr)],
        "ratio": None if ratio is None else quotient | {"saving": asdict(_formula(ratio, notation.arrange_ratio))},
    }


def _notes(form: ClosedForm, depth: int | None) -> list[str]:
    parameters = ", ".join(f"{notation.text(PARAMETERS[name][0])} {PARAMETERS[name][1]}" for name in form.parameters)
    notes = [f"{parameters}."]
    notes += [f"it holds if {notation.text(relation)}." for relation in form.conditions]
    if form.needs_depth:
        notes.append(
            f"the links between layers depend on the binary digits of the layer numbers, so each m has its own form: "
            f"this is m = {depth}; another: --m N. kₙ is d·rⁿ⁻¹, rounded to an even number."
        )
    if c in {PARAMETERS[name][0] for name in form.parameters} and (form.plain or form.twin):
        notes.append(OUTSIDE)
    return notes
