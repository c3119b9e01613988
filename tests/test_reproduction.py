"""Published figures computed again: printed digits, statuses, the data file, and exit codes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import CHECKOUT, Result
from hypothesis import given
from hypothesis import strategies as st

import cspprof
from cspprof.core.errors import CspprofError, IncompleteError
from cspprof.core.record import Kind
from cspprof.core.registry import Registry
from cspprof.metrics import Peak, Ratio, Sum
from cspprof.papers import published
from cspprof.papers.printed_value import decimal, parse_printed, rounded, truncated
from cspprof.papers.published import PublishedFigure, PublishedTable, parse_tables, published_tables
from cspprof.papers.recipes import (
    Arithmetic,
    DenseBlockSaving,
    LayerCompression,
    MetricChange,
    MetricTotal,
    Network,
    Recipe,
    evaluate,
)
from cspprof.papers.reproduction import FigureResult, Reproduction, Status, reproduce_tables
from cspprof.profiles import Profile, profile_spec
from cspprof.report.reproduction import reproduction_notes, status_text
from cspprof.sources import Request
from cspprof.zoo import MODELS, catalog

Run = Callable[..., Result]
DATA = (resources.files("cspprof") / "data" / "published.toml").read_text(encoding="utf-8")


# -- printed digits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number", "places", "unit"),
    [
        ("22.19 M", Fraction(2219, 100), 2, "M"),
        ("20.50 M", Fraction(41, 2), 2, "M"),
        ("138 M", Fraction(138), 0, "M"),
        ("0.888 BFLOPs", Fraction(888, 1000), 3, "BFLOPs"),
        ("−13 %", Fraction(-13), 0, "%"),
        ("up to 50 %", Fraction(50), 0, "%"),
    ],
)
def test_parse_printed_number(text: str, number: Fraction, places: int, unit: str) -> None:
    p = parse_printed(text)
    assert (p.text, p.value, p.places, p.unit) == (text, number, places, unit)


@pytest.mark.parametrize("text", ["22.19", "22.19M", "about 3 M", "3 apples", ".5 M", "-13 %", ""])
def test_parse_printed_refuses_anything_else(text: str) -> None:
    with pytest.raises(CspprofError, match="cannot parse the printed number"):
        parse_printed(text)


PARTS = st.integers(-(10**9), 10**9).map(lambda n: Fraction(n, 10**6))


@given(PARTS, st.integers(0, 4))
def test_rounding_and_truncation_equal_the_decimal_module(x: Fraction, places: int) -> None:
    d, step = Decimal(x.numerator) / Decimal(x.denominator), Decimal(1).scaleb(-places)
    assert rounded(x, places) == Fraction(d.quantize(step, ROUND_HALF_UP))
    assert truncated(x, places) == Fraction(d.quantize(step, ROUND_DOWN))
    shown = d.quantize(step, ROUND_HALF_UP)
    assert Decimal(decimal(x, places).replace("−", "-").replace(",", "")) == shown


@given(PARTS, st.integers(0, 3))
def test_a_value_agrees_with_its_own_digits(x: Fraction, places: int) -> None:
    printed = replace(parse_printed("1 M"), value=rounded(x, places), places=places)
    assert printed.agreement(x) == "exact"
    assert printed.agreement(x + Fraction(2, 10**places)) is None
    cut = replace(printed, value=truncated(x, places))
    assert cut.agreement(x) in ("exact", "truncated")


# -- statuses -------------------------------------------------------------------------------------


def figure_result(
    printed: str, computed: str | None, reading: bool = False, because: str = "", must: Any = None
) -> FigureResult:
    figure = PublishedFigure("row", parse_printed(printed), Arithmetic("1"), must, because)
    return FigureResult(
        PublishedTable("t", "T", (figure,), ()), figure, None if computed is None else Fraction(computed), reading
    )


@pytest.mark.parametrize(
    ("printed", "computed", "reading", "because", "text"),
    [
        ("22.19 M", "22.190784", False, "", "exact to the printed digit"),
        ("22.19 M", "22.185", False, "", "exact to the printed digit"),  # half a digit goes up
        ("22.19 M", "22.194999", False, "", "exact to the printed digit"),
        ("22.19 M", "22.195", False, "", "truncated in print"),
        ("22.19 M", "22.199999", False, "", "truncated in print"),
        ("22.19 M", "22.2", False, "", "does not reproduce, off by 0.05 %"),
        ("22.19 M", "22.184", False, "", "does not reproduce, off by 0.03 %"),
        ("30.9 M", "30.958592", False, "", "truncated in print"),
        ("25 M", "25.557032", False, "", "truncated in print"),
        ("−13 %", "-12.5", False, "", "exact to the printed digit"),
        ("−13 %", "-13.49", False, "", "exact to the printed digit"),
        ("−13 %", "-13.5", False, "", "truncated in print"),
        ("−13 %", "-14", False, "", "does not reproduce, off by 1.00 points"),
        ("−13 %", "13", False, "", "does not reproduce, off by 26.00 points"),
        ("up to 50 %", "50", False, "", "exact to the printed digit"),
        ("up to 50 %", "49.4", False, "", "does not reproduce, off by 0.60 points"),
        ("0.888 BFLOPs", "0.876929024", True, "", "reading, off by 1.2 %"),
        ("0.888 BFLOPs", "0.8881", True, "", "reading, exact to the printed digit"),
        ("0.888 BFLOPs", "0.8889", True, "", "reading, off by 0.1 %"),
        ("−80 %", "-72.77", True, "", "reading, off by 7.23 points"),
        ("9.74 BFLOPs", "10.0003", False, "of the head", "known not to reproduce, because of the head"),
        ("9.74 BFLOPs", "9.742", False, "of the head", "exact to the printed digit"),
        ("9.74 BFLOPs", "9.749", False, "of the head", "truncated in print"),
        ("9.74 BFLOPs", "9.749", True, "of the head", "reading, off by 0.1 %"),
        ("9.74 BFLOPs", None, False, "", "no public definition"),
    ],
)  # fmt: skip
def test_status_of_a_figure(printed: str, computed: str | None, reading: bool, because: str, text: str) -> None:
    assert status_text(figure_result(printed, computed, reading, because)) == text


@pytest.mark.parametrize(
    ("computed", "reading", "must", "broken"),
    [
        ("22.19", False, "exact", False),
        ("22.199", False, "exact", True),  # only cut now
        ("22.199", False, "truncated", False),
        ("22.19", False, "truncated", True),
        ("22.3", False, "exact", True),
        ("22.19", True, "exact", True),  # a network that has become a reading proves nothing
        ("22.3", True, None, False),
        ("22.19", False, None, False),
        ("22.3", False, None, True),  # different, and no reason is given
    ],
)
def test_a_figure_breaks_if_it_loses_its_required_agreement(
    computed: str, reading: bool, must: str | None, broken: bool
) -> None:
    assert figure_result("22.19 M", computed, reading, must=must).broken is broken


def test_a_figure_that_reproduces_contradicts_its_reason() -> None:
    result = figure_result("9.74 BFLOPs", "9.742", because="of the head")
    assert result.contradicts_reason
    assert not result.broken
    assert reproduction_notes(Reproduction((result,), ()))[1] == (
        "t, row, 9.74 BFLOPs: is listed as not reproducing (of the head), but it reproduces."
    )
    assert not figure_result("9.74 BFLOPs", "10", because="of the head").contradicts_reason


def test_amounts_become_exact_fractions() -> None:
    assert Sum(10_111_000_001, 10**9).exact == Fraction(10_111_000_001, 10**9)
    assert Peak(7).exact == 7
    assert Ratio(1, 3).exact == Fraction(1, 3)


def test_incomplete_totals_are_refused(chain: Profile) -> None:
    first = chain.specs[0]._replace(kind=Kind.UNKNOWN, macs=None)
    unknown = replace(chain, specs=(first, *chain.specs[1:]))
    with pytest.raises(IncompleteError, match="operations without a rule"):
        MetricTotal("macs", Network("chain")).value("B", {Network("chain"): unknown})


@pytest.mark.parametrize(
    ("recipe", "unit", "expected"),
    [
        (MetricTotal("macs", Network("chain")), "B", Fraction(216 * 16 + 576 * 16, 10**9)),
        (MetricTotal("macs", Network("chain")), "BFLOPs", Fraction(2 * (216 * 16 + 576 * 16), 10**9)),
        (MetricTotal("bottleneck_macs", Network("chain")), "BFLOPs", Fraction(2 * 576 * 16, 10**9)),
        (MetricTotal("params", Network("chain")), "M", Fraction(792, 10**6)),
        (MetricTotal("bottleneck_share", Network("chain")), "%", Fraction(100 * 576, 792)),
        (MetricChange("macs", Network("chain"), Network("chain")), "%", Fraction(0)),
        (MetricTotal("macs", Network("chain"), "-16 * 216"), "B", Fraction(576 * 16, 10**9)),
        (Arithmetic("1 - 1/4"), "%", Fraction(75)),
        (Arithmetic("2 * 3*3*128*128 * 26*26"), "BFLOPs", Fraction(199_360_512, 10**9)),
    ],
)
def test_recipes_give_exact_values_in_the_printed_unit(
    chain: Profile, recipe: Recipe, unit: str, expected: Fraction
) -> None:
    assert recipe.value(unit, {Network("chain"): chain}) == expected


def test_layer_compression(chain: Profile) -> None:
    profiles = {Network("chain"): chain}
    assert LayerCompression("Conv2d", Network("chain")).value("%", profiles) == 100 * (Fraction(2 * 128, 48 + 128) - 1)
    with pytest.raises(CspprofError, match="chain has no layer of class Maxout"):
        LayerCompression("Maxout", Network("chain")).value("%", profiles)


@pytest.mark.parametrize(
    ("numbers", "saved"),
    [
        ({"gamma": "1/2"}, Fraction(50)),  # the limit for c ≫ m·d
        ({"gamma": "1/4"}, Fraction(25)),
        ({"gamma": "1/2", "c": 32, "m": 3, "d": 32}, Fraction(50 * 96, 288)),
        ({"gamma": "1/2", "c": 896, "m": 32, "d": 32}, Fraction(50 * 28672, 28672 + 33 * 32 * 16)),
    ],
)
def test_dense_block_saving(numbers: dict[str, Any], saved: Fraction) -> None:
    """Half of c·m, of c·m + (m² + m)·d/2 (CSPNet, section 3)."""
    assert DenseBlockSaving(tuple(numbers.items())).value("%", {}) == saved


@pytest.mark.parametrize("text", ["1 +", "x", "2**9", "1/0", "1.5", "print(1)", "True", "-'a'", ""])
def test_evaluate_refuses_anything_but_integer_arithmetic(text: str) -> None:
    with pytest.raises(CspprofError, match="cannot evaluate"):
        evaluate(text)


# -- the data file --------------------------------------------------------------------------------


def test_help_names_every_table() -> None:
    help_text = (CHECKOUT / "cspprof" / "cli" / "reproduce.py").read_text()
    for name in published_tables():
        assert name in help_text
        assert published_tables().get(name).figures


def test_every_spec_is_in_the_zoo() -> None:
    from cspprof.sources import parse as parse_spec

    for _, table in published_tables().items():
        for subject in table.networks:
            assert parse_spec(subject.spec).target in catalog(), subject


def test_rows_of_a_table_are_unique() -> None:
    for _, table in published_tables().items():
        rows = [f.row for f in table.figures]
        assert len(rows) == len(set(rows))


def test_printed_numbers_equal_the_reference(reference: Path) -> None:
    facts = (reference / "facts.md").read_text()
    digits = {
        f"{name}: {f.row}": re.findall(r"[\d.]+", f.printed.text)[0]
        for name, table in published_tables().items()
        for f in table.figures
    }
    assert {
        row for row, text in digits.items() if text not in facts
    } <= {  # printed only in the README of the repository
        "prn: Pelee-FPN at 320×320, BFLOPs",
        "prn: Pelee-PRN-3l at 320×320, BFLOPs",
    }


def test_every_reason_is_used() -> None:
    import tomllib

    document = tomllib.loads(DATA)
    used = {f["because"] for t in document.values() for f in t.get("figures", ()) if "because" in f}
    assert used == set(document["because"])


ENTRY = '[t]\ntitle = "T"\nfigures = [{{ row = "r", printed = "1.0 M", {} }}]\n[because]\nwhy = "of that"\n'


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('metric = "cio"', "the keys metric are not a recipe"),
        ('metric = "parms", spec = "resnet50"', "no metric named 'parms'"),
        ('metric = "macs", spec = "resnet50"', "macs has the unit MACs, which is not printed in M"),
        ('metric = "params", spec = "resnet50", base = "resnext50"', "a change is a percentage"),
        ('metric = "params", spec = "resnet50", must = "close"', "must = 'close'"),
        ('metric = "params", spec = "resnet50", because = "so"', "no reason named 'so'"),
        (
            'metric = "params", spec = "resnet50", because = "why", must = "exact"',
            "must and because exclude each other",
        ),
        ('must = "exact"', "must and because need a recipe"),
        ('status = "exact"', "unknown key status"),
        ('arithmetic = "1 +"', "cannot evaluate"),
        ('saving = { gamma = "1/2" }', "a change is a percentage"),
        ('layers = "Maxout", spec = "resnet50"', "a change is a percentage"),
    ],
)
def test_invalid_entries_are_named(entry: str, message: str) -> None:
    with pytest.raises(CspprofError, match=message) as refused:
        parse_tables(ENTRY.format(entry))
    assert refused.value.message.startswith("t, 'r': ")


def test_a_table_needs_a_title_and_figures() -> None:
    with pytest.raises(CspprofError, match="t is not a table of figures"):
        parse_tables("[t]\nrows = []\n")


# -- reproduced figures -------------------------------------------------------------------------------


def test_fig8_reproduces() -> None:
    reproduction = cspprof.reproduce("fig8")
    assert [f.computed for f in reproduction.figures][:2] == [Fraction(34_411_496, 10**6), Fraction(32_642_024, 10**6)]
    assert reproduction.counts == {Status.EXACT: 3}
    assert "<td style" in reproduction._repr_html_()


def test_fig7_reproduces() -> None:
    """640→128 3×3 on 26×26 in the head, 128→128 1×1 on 104×104 in the backbone."""
    figures = {f.figure.row: f for f in cspprof.reproduce("fig7").figures}
    yolo, prn, *cuts = figures.values()
    assert (yolo.computed, prn.computed) == (Fraction(996_802_560, 10**9), Fraction(354_418_688, 10**9))
    assert (yolo.status, prn.status) == (Status.EXACT, Status.EXACT)
    assert [f.status for f in cuts] == [Status.READING, Status.READING]


def test_related_numbers_of_fig7() -> None:
    values = {b.row.split(" ")[0]: value for _, b, value in cspprof.reproduce("fig7").related}
    assert values["largest"] == Fraction(2 * 112 * 112 * 104 * 104, 10**9)
    assert values["a"] == Fraction(2 * 384 * 384 * 26 * 26, 10**9) == Fraction(2 * 192 * 192 * 52 * 52, 10**9)


def test_maxout_removes_three_quarters_of_the_elements() -> None:
    (figure,) = cspprof.reproduce("memory").figures
    assert figure.computed == -75
    assert status_text(figure) == "reading, exact to the printed digit"


@pytest.mark.slow
def test_every_figure_keeps_its_required_agreement() -> None:
    reproduction = cspprof.reproduce()
    assert reproduction.broken == []
    assert not [f.figure.row for f in reproduction.figures if f.contradicts_reason]
    assert Status.UNEXPLAINED not in reproduction.counts
    # A figure that reproduces must keep reproducing.
    assert not [f.figure.row for f in reproduction.figures if f.status is Status.EXACT and f.figure.required != "exact"]
    assert not [
        f.figure.row for f in reproduction.figures if f.status is Status.TRUNCATED and f.figure.required != "truncated"
    ]


# -- the command ----------------------------------------------------------------------------------


def test_table_output(run: Run) -> None:
    result = run("reproduce", "fig8")
    assert result.code == 0
    assert (
        "ResNeXt-50, CIO          34.4 M  34.411 M  cio_cspnet          +0.03 %  exact to the printed digit"
        in result.out
    )
    assert "note: 3 figures: 3 exact to the printed digit" in result.out


def test_json_csv_and_markdown_output(run: Run) -> None:
    document = json.loads(run("reproduce", "fig8", "-f", "json").out)
    schema = json.loads((CHECKOUT / "cspprof" / "schemas" / "reproduce-1.schema.json").read_text())
    jsonschema.validate(document, schema)
    assert document["holds"] is True
    assert document["counts"] == {"exact": 3}
    rows = list(csv.DictReader(io.StringIO(run("reproduce", "fig8", "-f", "csv").out)))
    assert [(r["spec"], r["base"], r["rule"], r["status"]) for r in rows][2] == (
        "csp_resnext50", "resnext50", "bflops_cspnet", "exact",
    )  # fmt: skip
    assert "| CSPResNeXt-50, CIO | 32.6 M | 32.642 M | cio\\_cspnet |" in run("reproduce", "fig8", "-f", "markdown").out


def test_an_unknown_name_gets_suggestions(run: Run) -> None:
    result = run("reproduce", "tabel3")
    assert result.code == 2
    assert result.err.splitlines()[0] == "error: no table or figure named 'tabel3'"
    assert "Did you mean: table3" in result.err


def test_each_network_is_traced_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[str] = []

    def counting_profile_spec(spec: str, request: Request, *, cache: bool) -> Profile:
        traced.append(spec)
        return profile_spec(spec, request)

    monkeypatch.setattr("cspprof.cli.reproduce.profile_spec", counting_profile_spec)
    assert run("reproduce", "fig8").code == 0
    assert sorted(traced) == ["csp_resnext50", "csp_resnext50,depths=(3,4,6,3)", "resnext50"]


def test_a_changed_network_breaks_its_figures(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = catalog().get("resnext50")
    monkeypatch.setitem(
        MODELS._entries, "resnext50", replace(entry, factory=lambda: entry.factory(depths=(3, 4, 6, 4)))
    )
    result = run("reproduce", "fig8")
    assert result.code == 1
    assert "does not reproduce, off by" in result.out
    assert "note: fig8, ResNeXt-50, CIO, 34.4 M: was exact to the printed digit, and no longer is." in result.out


def test_a_reading_breaks_required_agreement(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS._entries, "resnext50", replace(catalog().get("resnext50"), status="reading"))
    result = run("reproduce", "fig8", "-f", "csv")
    assert result.code == 1
    assert "reading, exact to the printed digit" in result.out


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('printed = "34.4 M"', 'printed = "34.5 M"', "was exact to the printed digit, and no longer is"),
        ('printed = "34.4 M"', 'printed = "34.41 M"', ""),
        ('printed = "32.6 M", metric = "cio_cspnet", spec = "csp_resnext50", must = "exact"',
         'printed = "99.9 M", metric = "cio_cspnet", spec = "csp_resnext50"', "no reason is known"),
        ('printed = "32.6 M", metric = "cio_cspnet", spec = "csp_resnext50", must = "exact"',
         'printed = "32.6 M", metric = "cio_cspnet", spec = "csp_resnext50", because = "head"', "but it\nreproduces."),
    ],
)  # fmt: skip
def test_changed_data_is_found(run: Run, monkeypatch: pytest.MonkeyPatch, before: str, after: str, said: str) -> None:
    assert before in DATA
    changed: Registry[PublishedTable] = parse_tables(DATA.replace(before, after))
    monkeypatch.setattr(published, "published_tables", lambda: changed)
    result = run("reproduce", "fig8")
    assert result.code == int(said not in ("", "but it\nreproduces."))
    assert said in result.out


def test_reproduce_tables_accepts_any_record(chain: Profile) -> None:
    tables = [
        entry
        for _, entry in parse_tables(
            '[t]\ntitle = "T"\nfigures = [{ row = "r", printed = "0.001 M", metric = "params", spec = "mine" }]\n'
        ).items()
    ]
    reproduction = reproduce_tables(tables, {Network("mine"): chain})
    assert [status_text(f) for f in reproduction.figures] == ["exact to the printed digit"]
