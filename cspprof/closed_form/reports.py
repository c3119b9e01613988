"""Closed forms as reports: the list of them, and the derivation of one in symbols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
from sympy import Expr

from cspprof.closed_form import algebra
from cspprof.closed_form.forms import FORMS, PARAMETERS, Form, pair, symbolic, total
from cspprof.closed_form.layers import QUANTITIES, Layer, Part, c, m
from cspprof.closed_form.numbers import gamma_of
from cspprof.closed_form.saving import NETWORKS, by_ratio, limits, real_stages, saving
from cspprof.tables import Cell, Column, Report, Table, integer, text
from cspprof.units import decimal, share

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
        {"name": f.name, "takes": " ".join(f.takes), "twin": f.twin or f.base or "", "summary": f.summary,
         "paper": f.paper}
        for _, f in FORMS.items()
    ]  # fmt: skip
    shown = [r for r, (_, f) in zip(records, FORMS.items(), strict=True) if not f.base]
    columns = [Column("form"), Column("partial twin"), Column("takes"), Column("is")]
    keys = ("name", "twin", "takes", "summary")
    table = Table("", columns, [[text(r[key]) for key in keys] for r in shown])
    meanings = [[text(name), text(meaning)] for name, (_, meaning) in PARAMETERS.items()]
    document = {"schema": SCHEMA, "shows": "forms", "forms": records, "notes": []}
    return Report([table, Table("Parameters", [Column("name"), Column("is")], meanings)], records, document)


def derivation(form: Form, depth: int | None, gamma: Any, as_latex: bool) -> Report:
    """A form in symbols: each layer, its sum, the totals, and for a pair what the partial twin saves.

    `depth` is m of a form that has none in symbols, `gamma` that of the real stages.
    """
    depth = (depth or EXAMPLE_DEPTH) if form.by_number else None
    write = algebra.latex if as_latex else algebra.text
    both = pair(form)
    derived = both if both and not form.by_number else (form,)
    dense = both and both[0].name in ("dense", *(network.form for network in NETWORKS))
    stages = real_stages(gamma) if dense else []
    tables = [*(_terms(f, depth, write) for f in derived), _closed_forms(both or (form,), depth, write)]
    if both:
        tables.append(_saving(form, depth, write))
        if stages:
            tables.append(stage_table(stages, gamma))
    document: dict[str, Any] = {
        "schema": SCHEMA, "shows": "derivation", "form": form.name, "summary": form.summary, "paper": form.paper,
        "takes": {name: PARAMETERS[name][1] for name in form.takes}, "m": depth,
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


def _layers(form: Form, depth: int | None) -> list[tuple[Part, Layer]]:
    return [(part, layer) for part in symbolic(form, depth).parts for layer in part.layers]


def _quantities(forms: tuple[Form, ...], depth: int | None) -> dict[str, str]:
    """The quantities and their headings; the two rules of CIO as one where no layer is a pool."""
    if any(layer.pool for form in forms for _, layer in _layers(form, depth)):
        return QUANTITIES
    return {"cio_cspnet": "CIO", "macs": "MACs", "conv_weights": "weights"}


def _terms(form: Form, depth: int | None, write: Callable[[Expr], str]) -> Table:
    columns = [Column(x) for x in ("layer", "for", "reads", "writes", "CIO of one", "of all")]
    lines = []
    for part, layer in _layers(form, depth):
        term = layer.cio_cspnet
        lines.append([
            text(layer.name), text("" if part.count == 1 else f"i = 1…{part.count}"),
            *(_formula(x, write) for x in (layer.c_in, layer.c_out, term)),
            Cell(None, f"{write(part.sum_of(term))} = {_formula(part.sum_of(term).doit(), write).text}")
            if part.count != 1 else _formula(term, write),
        ])  # fmt: skip
    whole = _formula(total(form, "cio_cspnet", depth), write)
    lines.append([text("all layers"), *(text("") for _ in range(4)), whole])
    return Table(f"{form.name}: {form.summary} ({form.paper})", columns, lines)


def _closed_forms(forms: tuple[Form, ...], depth: int | None, write: Callable[[Expr], str]) -> Table:
    lines = [
        [text(heading), *(_formula(total(form, quantity, depth), write) for form in forms)]
        for quantity, heading in _quantities(forms, depth).items()
    ]
    return Table("Closed forms", [Column(""), *(Column(form.name) for form in forms)], lines)


def _saving(form: Form, depth: int | None, write: Callable[[Expr], str]) -> Table:
    both = pair(form)
    assert both is not None
    expr = saving(form, depth)
    lines = [[text("saving"), text(write(algebra.tidy_ratio(expr)))]]
    lines += [[text(f"{x.symbol} → ∞"), text(write(x.value))] for x in limits(expr)]
    if (ratio := by_ratio(expr)) is not None:
        lines.append([text("with ρ = c/(m·d)"), text(write(algebra.tidy_ratio(ratio)))])
        lines.append([text("and m → ∞"), text(write(algebra.tidy_ratio(sympy.limit(ratio, m, sympy.oo))))])
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
    return Table(
        f"What real stages save at γ = {gamma_of(gamma)} (the paper: up to one half, c ≫ m·d, γ = 1/2)", columns, lines
    )


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


def _formula(expr: Expr, write: Callable[[Expr], str]) -> Cell:
    return Cell(None, write(algebra.tidy(expr)))


def _written(expr: Expr, tidy: Callable[[Expr], Expr] = algebra.tidy) -> dict[str, str]:
    arranged = tidy(expr)
    return {"text": algebra.text(arranged), "latex": algebra.latex(arranged)}


def _forms_document(form: Form, depth: int | None) -> dict[str, dict[str, str]]:
    return {quantity: _written(total(form, quantity, depth)) for quantity in QUANTITIES}


def _term_document(part: Part, layer: Layer) -> dict[str, Any]:
    summed = part.sum_of(layer.cio_cspnet)
    return {
        "layer": layer.name, "kernel": layer.kernel, "pool": layer.pool, "count": _written(part.count)["text"],
        "groups": _written(layer.groups), "reads": _written(layer.c_in), "writes": _written(layer.c_out),
        "size": [algebra.text(x) for x in layer.size], "size_out": [algebra.text(x) for x in layer.size_out],
        "cio": _written(layer.cio_cspnet), "sum": {"text": algebra.text(summed), "latex": algebra.latex(summed)},
        "summed": _written(summed.doit()),
    }  # fmt: skip


def _saving_document(form: Form, depth: int | None) -> dict[str, Any]:
    expr = saving(form, depth)
    ratio = by_ratio(expr)
    by = None if ratio is None else {"symbol": "ρ", "is": "c/(m·d)", "saving": _written(ratio, algebra.tidy_ratio)}
    return {
        "saving": _written(expr, algebra.tidy_ratio),
        "limits": [{"symbol": str(x.symbol), "to": "∞", "value": _written(x.value)} for x in limits(expr)],
        "ratio": by,
    }  # fmt: skip


def _notes(form: Form, depth: int | None) -> list[str]:
    named = ", ".join(f"{algebra.text(PARAMETERS[name][0])} {PARAMETERS[name][1]}" for name in form.takes)
    notes = [f"{named}."]
    notes += [f"it holds where {algebra.text(relation)}." for relation in form.holds]
    if form.by_number:
        notes.append(
            f"which layers are linked depends on the binary digits of their numbers, so there is a form for each m: "
            f"this is m = {depth}; another: --m N. kₙ is d·rⁿ⁻¹, made even."
        )
    if c in {PARAMETERS[name][0] for name in form.takes} and (form.base or form.twin):
        notes.append(OUTSIDE)
    return notes
