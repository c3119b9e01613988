"""Closed forms in numbers as reports: one block, a curve, and a check against the trace."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from cspprof.core.errors import CspprofError
from cspprof.core.units import count, decimal, share
from cspprof.csp.closed_form.forms import ClosedForm, plain_and_partial
from cspprof.csp.closed_form.layers import COSTS, SymbolicLayer
from cspprof.csp.closed_form.saving import CurveAxis, network_savings, saving_curve
from cspprof.csp.closed_form.sized_block import Numbers, SizedBlock, sized_block
from cspprof.csp.closed_form.trace_check import ClosedFormCheck, LayerCheck
from cspprof.report.closed_form import OUTSIDE, SCHEMA, stage_notes, stage_table
from cspprof.report.tables import Cell, Column, Report, Table, change, integer, text

BAR = 40
"""Characters of a bar for 100 %."""
LISTED = 500
"""Layers that are written one by one."""
_EIGHTHS = " ▏▎▍▌▋▊▉"


def block_report(form: ClosedForm, given: Numbers) -> Report:
    """The costs of a block, of its partial twin beside it, and layer by layer."""
    blocks = beside(form, given)
    layers = blocks[0].layer_count()
    listed = blocks if layers <= LISTED else []
    gamma = numbers_of(blocks[-1]).get("gamma")
    stages = network_savings(gamma) if blocks[0].form.name == "dense" and len(blocks) > 1 else []
    tables = [_totals(blocks)]
    tables += [_layer_table(listed)] if listed else []
    tables += [stage_table(stages, gamma)] if stages else []
    notes = [OUTSIDE, *stage_notes(stages)] if len(blocks) > 1 else _why_alone(form)
    notes += [] if listed else [f"{count(layers)} layers are too many to list: up to {LISTED} are."]
    document = {
        "schema": SCHEMA, "shows": "numbers", "form": form.name,
        "blocks": [
            {"form": b.form.name, "numbers": numbers_of(b), "totals": b.totals(),
             "layers": [_layer(x) for x in b.layers()] if listed else []}
            for b in blocks
        ],
        "stages": stages,
        "notes": notes,
    }  # fmt: skip
    records = [{"form": b.form.name, **_layer(x)} for b in listed for x in b.layers()]
    return Report(tables, records, document, notes)


def _totals(blocks: list[SizedBlock]) -> Table:
    """A row per quantity; of two blocks the change, too."""
    columns = [Column(""), *(Column(_titled(b), numeric=True) for b in blocks)]
    columns += [Column("change", numeric=True)] * (len(blocks) == 2)
    lines = []
    for quantity, heading in COSTS.items():
        values = [b.total(quantity) for b in blocks]
        line = [text(heading), *map(integer, values)]
        if len(values) == 2:
            line.append(change(float(Fraction(values[1], values[0]) - 1)))
        lines.append(line)
    return Table(_described(blocks[0]), columns, lines)


def beside(form: ClosedForm, given: Numbers) -> list[SizedBlock]:
    """The block and, where there is one, its twin, the plain one first. A plain form whose c is not to be halved stands
    alone unless γ is given."""
    both = plain_and_partial(form)
    if both is None:
        return [sized_block(form, given)]
    plain_numbers = {name: value for name, value in given.items() if name != "gamma"}
    plain = sized_block(both[0], plain_numbers)
    try:
        return [plain, sized_block(both[1], given)]
    except CspprofError:
        if form is both[0] and given.get("gamma") is None:
            return [plain]
        raise


def _why_alone(form: ClosedForm) -> list[str]:
    return [f"{form.twin} would have no whole number of channels at γ = 1/2; another: --gamma"] if form.twin else []


def _titled(made: SizedBlock) -> str:
    gamma = made.numbers.get("gamma")
    return made.form.name if gamma is None or not made.form.plain else f"{made.form.name} (γ = {gamma})"


def _described(made: SizedBlock) -> str:
    numbers = numbers_of(made)
    h, w = numbers.pop("h"), numbers.pop("w")
    return f"{made.form.name} at {_listed(numbers)}, on {h}×{w}"


def _listed(numbers: dict[str, Any]) -> str:
    return ", ".join(f"{'γ' if name == 'gamma' else name} = {value}" for name, value in numbers.items())


def numbers_of(block: SizedBlock) -> dict[str, Any]:
    """The parameters by name. γ is an exact fraction as text."""
    numbers = block.python_numbers()
    return {name: str(value) if isinstance(value, Fraction) else value for name, value in numbers.items()}


def _layer(x: SymbolicLayer) -> dict[str, Any]:
    (height, width), (height_out, width_out) = x.size, x.size_out
    return {
        "layer": x.name, "c_in": int(x.c_in), "c_out": int(x.c_out), "kernel": x.kernel, "groups": int(x.groups),
        "height": int(height), "width": int(width), "height_out": int(height_out), "width_out": int(width_out),
        **{quantity: int(getattr(x, quantity)) for quantity in COSTS},
    }  # fmt: skip


def _layer_table(blocks: list[SizedBlock]) -> Table:
    columns = [Column("layer")]
    columns += [
        Column(x, numeric=True) for b in blocks for x in (f"reads ({b.form.name})", "writes", "CIO", "MACs")
    ]  # fmt: skip
    lines = [
        [text(row[0].name), *(cell for x in row for cell in (
            integer(int(x.c_in)), integer(int(x.c_out)), integer(int(x.cio_cspnet)), integer(int(x.macs))))]
        for row in zip(*(b.layers() for b in blocks), strict=True)
    ]  # fmt: skip
    return Table("Layer by layer", columns, lines)


def curve_report(over: CurveAxis, form: ClosedForm, given: Numbers) -> Report:
    """The saving over γ, c/(m·d) or m, a bar a row."""
    records = saving_curve(over, form=form.name, **given)
    first = {"gamma": "γ", "ratio": "c/(m·d)", "m": "m"}[over]
    columns = [Column(first, numeric=True), *([Column("c", numeric=True)] if over == "ratio" else [])]
    columns += [Column(x, numeric=True) for x in ("CIO", "partial", "saving")] + [Column("0 to 100 %")]
    lines = [
        [_place(over, r), *([integer(r["c"])] if over == "ratio" else []), integer(r["plain"]), integer(r["partial"]),
         Cell(r["saving"], share(r["saving"])), text(bar(r["saving"]) + " ◀ given" * r["given"])]
        for r in records
    ]  # fmt: skip
    fixed = {name: value for name, value in given.items() if value is not None and name != over}
    if over == "ratio":
        fixed.pop("c", None)
    else:
        fixed |= {"gamma": records[0]["gamma_exact"]} if over == "m" else {}
    title = f"What the partial twin of {records[0]['form']} saves of its CIO, {_listed(fixed)}"
    document = {
        "schema": SCHEMA, "shows": "curve", "form": records[0]["form"], "over": over, "points": records,
        "notes": [],
    }  # fmt: skip
    return Report([Table(title, columns, lines)], records, document)


def _place(over: CurveAxis, record: dict[str, Any]) -> Cell:
    if over == "m":
        return integer(record["m"])
    return Cell(record[over], record["gamma_exact"] if over == "gamma" else decimal(record["ratio"]))


def bar(fraction: float) -> str:
    """A bar of eighths of a character: 1 is 40 characters long."""
    whole, part = divmod(round(fraction * BAR * 8), 8)
    return "█" * whole + _EIGHTHS[part].strip()


def check_report(found: ClosedFormCheck) -> Report:
    """A check: every term by the formula and as it ran, and the totals."""
    agreeing = sum(term.agrees for term in found.layers)
    columns = [Column(x) for x in ("layer", "ran as", "convolves")]
    columns += [Column(x, numeric=True) for x in ("CIO by formula", "CIO traced", "MACs", "weights")]
    columns.append(Column("verdict"))
    lines = [_term(term) for term in found.layers]
    same = found.formula_totals == found.traced_totals
    lines.append([
        text("sum"), text(""), text(""),
        *(integer(totals["cio_cspnet"]) for totals in (found.formula_totals, found.traced_totals)),
        *(_two(found.formula_totals[x], found.traced_totals[x]) for x in ("macs", "conv_weights")), _verdict(same),
    ])  # fmt: skip
    notes = [
        f"{agreeing} of {len(found.layers)} layers agree in shape, CIO by both rules, MACs and weights; "
        f"{'so do the sums' if same else 'the sums differ'}."
    ]
    if found.block.form.plain:
        notes.append("the block ran inside a cross-stage-partial stage, whose transitions are outside the form.")
    document = {
        "schema": SCHEMA, "shows": "check", "form": found.block.form.name, "numbers": numbers_of(found.block),
        "agrees": found.agrees, "closed": found.formula_totals, "traced": found.traced_totals,
        "terms": [
            {"layer": t.name, "path": t.path, "agrees": t.agrees, "differing": t.differing, "formula": t.formula,
             "traced": t.traced}
            for t in found.layers
        ],
        "notes": notes,
    }  # fmt: skip
    return Report([Table(_described(found.block), columns, lines)], [_flat(t) for t in found.layers], document, notes)


def _term(term: LayerCheck) -> list[Cell]:
    formula, traced = term.formula or {}, term.traced or {}
    return [
        text(term.name or "–"), text(term.path or "did not run"), _two(_convolves(formula), _convolves(traced)),
        *(Cell(side.get("cio_cspnet"), _text(side.get("cio_cspnet"))) for side in (formula, traced)),
        *(_two(formula.get(x), traced.get(x)) for x in ("macs", "conv_weights")), _verdict(term.agrees),
    ]  # fmt: skip


def _convolves(side: dict[str, Any]) -> str | None:
    """`32→16, 3×3, 7×9`, with groups and the written map where they are not the plain ones."""
    if not side:
        return None
    parts = [f"{side['c_in']}→{side['c_out']}", "×".join(map(str, side["kernel"]))]
    parts += [f"{side['groups']} groups"] if side["groups"] != 1 else []
    sizes = dict.fromkeys("×".join(map(str, side[x])) for x in ("size", "size_out"))
    return ", ".join([*parts, "→".join(sizes)])


def _two(formula: Any, traced: Any) -> Cell:
    if formula == traced:
        return Cell(formula, _text(formula))
    return Cell([formula, traced], f"{_text(formula)} ≠ {_text(traced)}", good=False)


def _text(value: Any) -> str:
    return "–" if value is None else count(value) if isinstance(value, int) else str(value)


def _verdict(agrees: bool) -> Cell:
    return Cell(agrees, "agrees" if agrees else "differs", good=agrees)


def _flat(term: LayerCheck) -> dict[str, Any]:
    row: dict[str, Any] = {"layer": term.name, "path": term.path, "agrees": term.agrees}
    for name, side in (("formula", term.formula), ("traced", term.traced)):
        for key, value in (side or {}).items():
            row[f"{name}_{key}"] = "×".join(map(str, value)) if isinstance(value, tuple) else value
    return row
