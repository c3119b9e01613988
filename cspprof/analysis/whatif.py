"""One network on other inputs: which ones are asked for, and the table of what each costs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from cspprof.core import units
from cspprof.core.errors import CspprofError
from cspprof.core.inputs import known_float
from cspprof.core.record import Record, TensorSpec
from cspprof.metrics import METRICS, value_of
from cspprof.report.profile import label
from cspprof.report.tables import Cell, Column, Report, Table, quantity, text

SHOWN = ("macs", "cio_hardnet", "cio_cspnet", "activations", "traffic_bytes", "peak_bytes")
"""Unless others are asked for."""


class Answer(NamedTuple):
    """What the network does on an input, or why nobody can say."""

    input: TensorSpec
    profile: Record | None
    problem: str = ""


def variations(record: Record, sizes: str | None, batches: str | None, dtypes: str | None) -> list[TensorSpec]:
    """Every combination of comma-separated sizes (`224`, `256x320`), batches and dtypes, each as recorded where none is
    given. Raises CspprofError where the network does not take one batch of images."""
    if len(record.inputs) != 1 or len(record.inputs[0].shape) != 4:
        raise CspprofError(
            f"{record.model} is not called with one batch of images (N, C, H, W)",
            "Ask for one input at a time: cspprof profile SPEC --input …",
        )
    n, c, *size = record.inputs[0].shape
    made = product(
        map(known_float, _parts(dtypes)) if dtypes else [record.dtype],
        map(_whole, _parts(batches)) if batches else [n],
        map(_size, _parts(sizes)) if sizes else [tuple(size)],
    )
    return [TensorSpec((batch, c, *hw), dtype) for dtype, batch, hw in made]


def _parts(given: str) -> list[str]:
    return [part.strip() for part in given.split(",")]


def _whole(given: str) -> int:
    if not given.isdecimal() or int(given) < 1:
        raise CspprofError(f"cannot read the number {given!r}", "Write whole numbers: --batch 1,8 --size 224,256x320")
    return int(given)


def _size(given: str) -> tuple[int, int]:
    height, *width = map(_whole, re.split("[x×]", given))
    if len(width) > 1:
        raise CspprofError(f"cannot read the size {given!r}", "Write one number, or height and width: 256x320")
    return height, (width or [height])[0]


def table(model: str, answers: Sequence[Answer], metrics: Sequence[str]) -> Report:
    """A row for each input. What could not be said is in the notes."""
    records, rows = [], []
    for given, profile, problem in answers:
        values = {m: value_of(profile, m) if profile else None for m in metrics}
        records.append({"model": model, "input": list(given.shape), "dtype": given.dtype, **values, "problem": problem})
        cells = [quantity(m, v) if profile else Cell(None, "?") for m, v in values.items()]
        rows.append([Cell(list(given.shape), units.shape(given.shape)), text(given.dtype), *cells])
    columns = [Column("input"), Column("dtype"), *(Column(label(m), True) for m in metrics)]
    return Report(
        [Table(model, columns, rows)],
        records,
        {"schema": "cspprof.whatif/1", "model": model, "results": records},
        list(dict.fromkeys(f"{units.shape(a.input.shape)}: {a.problem}" for a in answers if a.problem)),
        [a.profile for a in answers if a.profile],
        metrics[0] if metrics else "macs",
    )


def check_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """The numbers asked for, or those that are shown otherwise."""
    for name in names:
        METRICS.get(name)
    return tuple(names) or SHOWN
