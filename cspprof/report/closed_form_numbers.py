"""The reports of `closed-form` in numbers: one block, a curve of the saving, and a check against the trace."""

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
"""Width of a bar of 100 % in characters."""
MOST_LAYERS = 500
"""The largest block whose layers are listed one by one."""
_EIGHTHS = " ▏▎▍▌▋▊▉"


def block_report(form: ClosedForm, given: Numbers) -> Report:
    """The costs of a block and of its partial twin, in total and layer by layer."""
    blocks = block_and_twin(form, given)
    layers = blocks[0].layer_count()
    listed = blocks if layers <= MOST_LAYERS else []
    gamma = numbers_of(blocks[-1]).get("gamma")
    stages = network_savings(gamma) if blocks[0].form.name == "dense" and len(blocks) > 1 else []
    tables = [_totals(blocks)]
    tables += [_layer_table(listed)] if listed else []
    tables += [stage_table(stages, gamma)] if stages else []
    notes = [_saving_note(*blocks), OUTSIDE, *stage_notes(stages)] if len(blocks) > 1 else _missing_twin_note(form)
    notes += [] if listed else [f"{count(layers)} layers are too many to list; the limit is {MOST_LAYERS}."]
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
    """One row per cost; for two blocks, also the change."""
    columns = [Column(""), *(Column(_block_heading(b), numeric=True) for b in blocks)]
    columns += [Column("change", numeric=True)] * (len(blocks) == 2)
    lines = []
    for quantity, heading in COSTS.items():
        values = [b.total(quantity) for b in blocks]
        line = [text(heading), *map(integer, values)]
        if len(values) == 2:
            line.append(change(float(Fraction(values[1], values[0]) - 1)))
        lines.append(line)
    return Table(_block_title(blocks[0]), columns, lines)


def block_and_twin(form: ClosedForm, given: Numbers) -> list[SizedBlock]:
    """The block and its twin if there is one, the plain block first.

    If γ is not given and half of c is no integer, a plain block is alone.
    """
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


def _saving_note(plain: SizedBlock, partial: SizedBlock) -> str:
    """The CIO that the partial twin saves, relative to the plain block."""
    before, after = plain.total("cio_cspnet"), partial.total("cio_cspnet")
    saved = share(float(Fraction(before - after, before)))
    return f"{partial.form.name} saves {saved} of the CIO of {plain.form.name}: {count(before - after)} elements."


def _missing_twin_note(form: ClosedForm) -> list[str]:
    return [f"{form.twin} has no integer number of channels at γ = 1/2; choose another γ: --gamma"] if form.twin else []


def _block_heading(block: SizedBlock) -> str:
    gamma = block.numbers.get("gamma")
    return block.form.name if gamma is None or not block.form.plain else f"{block.form.name} (γ = {gamma})"


def _block_title(block: SizedBlock) -> str:
    numbers = numbers_of(block)
    h, w = numbers.pop("h"), numbers.pop("w")
    return f"{block.form.name} at {_assignments(numbers)}, on {h}×{w}"


def _assignments(numbers: dict[str, Any]) -> str:
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
    """The saving against γ, c/(m·d) or m: one row with a bar per point."""
    records = saving_curve(over, form=form.name, **given)
    first = {"gamma": "γ", "ratio": "c/(m·d)", "m": "m"}[over]
    columns = [Column(first, numeric=True), *([Column("c", numeric=True)] if over == "ratio" else [])]
    columns += [Column(x, numeric=True) for x in ("CIO", "partial", "saving")] + [Column("0 to 100 %")]
    lines = [
        [_x_cell(over, r), *([integer(r["c"])] if over == "ratio" else []), integer(r["plain"]), integer(r["partial"]),
         Cell(r["saving"], share(r["saving"])), text(bar(r["saving"]) + " ◀ given" * r["given"])]
        for r in records
    ]  # fmt: skip
    fixed = {name: value for name, value in given.items() if value is not None and name != over}
    if over == "ratio":
        fixed.pop("c", None)
    else:
        fixed |= {"gamma": records[0]["gamma_exact"]} if over == "m" else {}
    title = f"Saving of the partial twin of {records[0]['form']} in CIO, {_assignments(fixed)}"
    document = {
        "schema": SCHEMA, "shows": "curve", "form": records[0]["form"], "over": over, "points": records,
        "notes": [],
    }  # fmt: skip
    return Report([Table(title, columns, lines)], records, document)


def _x_cell(over: CurveAxis, record: dict[str, Any]) -> Cell:
    if over == "m":
        return integer(record["m"])
    return Cell(record[over], record["gamma_exact"] if over == "gamma" else decimal(record["ratio"]))


def bar(fraction: float) -> str:
    """A bar with a resolution of an eighth of a character; 1 is 40 characters long."""
    whole, part = divmod(round(fraction * BAR * 8), 8)
    return "█" * whole + _EIGHTHS[part].strip()


def check_report(check: ClosedFormCheck) -> Report:
    """Every layer and the totals, by the formula and by the trace."""
    agreeing = sum(layer.agrees for layer in check.layers)
    columns = [Column(x) for x in ("layer", "operation", "shape")]
    columns += [Column(x, numeric=True) for x in ("CIO (formula)", "CIO (traced)", "MACs", "weights")]
    columns.append(Column("verdict"))
    lines = [_layer_check(layer) for layer in check.layers]
    same = check.formula_totals == check.traced_totals
    lines.append([
        text("sum"), text(""), text(""),
        *(integer(totals["cio_cspnet"]) for totals in (check.formula_totals, check.traced_totals)),
        *(_compared(check.formula_totals[x], check.traced_totals[x]) for x in ("macs", "conv_weights")), _verdict(same),
    ])  # fmt: skip
    notes = [
        f"{agreeing} of {len(check.layers)} layers agree in shape, CIO by both rules, MACs and weights; "
        f"{'so do the sums' if same else 'the sums differ'}."
    ]
    if check.block.form.plain:
        notes.append(
            "the block ran inside a cross-stage-partial stage; the transitions of the stage are outside the form."
        )
    document = {
        "schema": SCHEMA, "shows": "check", "form": check.block.form.name, "numbers": numbers_of(check.block),
        "agrees": check.agrees, "closed": check.formula_totals, "traced": check.traced_totals,
        "terms": [
            {"layer": t.name, "path": t.path, "agrees": t.agrees, "differing": t.differing, "formula": t.formula,
             "traced": t.traced}
            for t in check.layers
        ],
        "notes": notes,
    }  # fmt: skip
    return Report(
        [Table(_block_title(check.block), columns, lines)], [_check_record(t) for t in check.layers], document, notes
    )


def _layer_check(check: LayerCheck) -> list[Cell]:
    formula, traced = check.formula or {}, check.traced or {}
    return [
        text(check.name or "–"), text(check.path or "did not run"),
        _compared(_shape_text(formula), _shape_text(traced)),
        *(Cell(side.get("cio_cspnet"), _value_text(side.get("cio_cspnet"))) for side in (formula, traced)),
        *(_compared(formula.get(x), traced.get(x)) for x in ("macs", "conv_weights")), _verdict(check.agrees),
    ]  # fmt: skip


def _shape_text(side: dict[str, Any]) -> str | None:
    """`32→16, 3×3, 7×9`, with the groups if not 1 and the output size if it differs."""
    if not side:
        return None
    parts = [f"{side['c_in']}→{side['c_out']}", "×".join(map(str, side["kernel"]))]
    parts += [f"{side['groups']} groups"] if side["groups"] != 1 else []
    sizes = dict.fromkeys("×".join(map(str, side[x])) for x in ("size", "size_out"))
    return ", ".join([*parts, "→".join(sizes)])


def _compared(formula: Any, traced: Any) -> Cell:
    if formula == traced:
        return Cell(formula, _value_text(formula))
    return Cell([formula, traced], f"{_value_text(formula)} ≠ {_value_text(traced)}", good=False)


def _value_text(value: Any) -> str:
    return "–" if value is None else count(value) if isinstance(value, int) else str(value)


def _verdict(agrees: bool) -> Cell:
    return Cell(agrees, "agrees" if agrees else "differs", good=agrees)


def _check_record(check: LayerCheck) -> dict[str, Any]:
    row: dict[str, Any] = {"layer": check.name, "path": check.path, "agrees": check.agrees}
    for name, side in (("formula", check.formula), ("traced", check.traced)):
        for key, value in (side or {}).items():
            row[f"{name}_{key}"] = "×".join(map(str, value)) if isinstance(value, tuple) else value
    return row
