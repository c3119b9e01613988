"""Published figures computed again: which digits agree, what a status follows from, and what makes exit code 1."""

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
from cspprof.papers.report import notes, says
from hypothesis import given
from hypothesis import strategies as st

import cspprof
from cspprof.core.errors import CspprofError, IncompleteError
from cspprof.core.record import Kind
from cspprof.core.registry import Registry
from cspprof.metrics import Peak, Ratio, Sum
from cspprof.papers import Finding, Reproduction, Status, figures, reproduced
from cspprof.papers.arithmetic import worked_out
from cspprof.papers.figures import Published, published, read
from cspprof.papers.printed import decimal, parse, rounded, truncated
from cspprof.papers.recipes import Arithmetic, Change, Compression, Recipe, Saving, Subject, Total, exact
from cspprof.profiles import Profile
from cspprof.zoo import MODELS, catalog

Run = Callable[..., Result]
DATA = (resources.files("cspprof") / "data" / "published.toml").read_text(encoding="utf-8")


# -- digits ---------------------------------------------------------------------------------------


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
def test_what_is_printed_is_its_digits(text: str, number: Fraction, places: int, unit: str) -> None:
    p = parse(text)
    assert (p.text, p.value, p.places, p.unit) == (text, number, places, unit)


@pytest.mark.parametrize("text", ["22.19", "22.19M", "about 3 M", "3 apples", ".5 M", "-13 %", ""])
def test_what_is_no_figure_is_refused(text: str) -> None:
    with pytest.raises(CspprofError, match="cannot read the printed figure"):
        parse(text)


PARTS = st.integers(-(10**9), 10**9).map(lambda n: Fraction(n, 10**6))


@given(PARTS, st.integers(0, 4))
def test_rounding_and_cutting_are_those_of_decimal(x: Fraction, places: int) -> None:
    d, step = Decimal(x.numerator) / Decimal(x.denominator), Decimal(1).scaleb(-places)
    assert rounded(x, places) == Fraction(d.quantize(step, ROUND_HALF_UP))
    assert truncated(x, places) == Fraction(d.quantize(step, ROUND_DOWN))
    shown = d.quantize(step, ROUND_HALF_UP)
    assert Decimal(decimal(x, places).replace("−", "-").replace(",", "")) == shown


@given(PARTS, st.integers(0, 3))
def test_a_value_agrees_with_its_own_digits(x: Fraction, places: int) -> None:
    printed = replace(parse("1 M"), value=rounded(x, places), places=places)
    assert printed.agreement(x) == "exact"
    assert printed.agreement(x + Fraction(2, 10**places)) is None
    cut = replace(printed, value=truncated(x, places))
    assert cut.agreement(x) in ("exact", "truncated")


# -- statuses -------------------------------------------------------------------------------------


def finding(printed: str, computed: str | None, reading: bool = False, because: str = "", must: Any = None) -> Finding:
    figure = figures.Figure("row", parse(printed), Arithmetic("1"), must, because)
    return Finding(
        Published("t", "T", (figure,), ()), figure, None if computed is None else Fraction(computed), reading
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
def test_a_status_follows_from_digits(
    printed: str, computed: str | None, reading: bool, because: str, text: str
) -> None:
    assert says(finding(printed, computed, reading, because)) == text


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
        ("22.3", False, None, True),  # off, and nobody says why
    ],
)
def test_what_came_out_has_to_come_out(computed: str, reading: bool, must: str | None, broken: bool) -> None:
    assert finding("22.19 M", computed, reading, must=must).broken is broken


def test_a_reason_hides_nothing() -> None:
    comes_out = finding("9.74 BFLOPs", "9.742", because="of the head")
    assert comes_out.contradicted
    assert not comes_out.broken
    assert notes(Reproduction((comes_out,), ()))[1] == (
        "t, row, 9.74 BFLOPs: is said not to reproduce (of the head), and does."
    )
    assert not finding("9.74 BFLOPs", "10", because="of the head").contradicted


def test_amounts_become_fractions_without_rounding() -> None:
    assert exact(Sum(10_111_000_001, 10**9)) == Fraction(10_111_000_001, 10**9)
    assert exact(Peak(7)) == 7
    assert exact(Ratio(1, 3)) == Fraction(1, 3)


def test_a_total_that_misses_something_reproduces_nothing(chain: Profile) -> None:
    first = chain.specs[0]._replace(kind=Kind.UNKNOWN, macs=None)
    unknown = replace(chain, specs=(first, *chain.specs[1:]))
    with pytest.raises(IncompleteError, match="operations without a rule"):
        Total("macs", Subject("chain")).value("B", {Subject("chain"): unknown})


@pytest.mark.parametrize(
    ("recipe", "unit", "expected"),
    [
        (Total("macs", Subject("chain")), "B", Fraction(216 * 16 + 576 * 16, 10**9)),
        (Total("macs", Subject("chain")), "BFLOPs", Fraction(2 * (216 * 16 + 576 * 16), 10**9)),
        (Total("bottleneck_macs", Subject("chain")), "BFLOPs", Fraction(2 * 576 * 16, 10**9)),
        (Total("params", Subject("chain")), "M", Fraction(792, 10**6)),
        (Total("bottleneck_share", Subject("chain")), "%", Fraction(100 * 576, 792)),
        (Change("macs", Subject("chain"), Subject("chain")), "%", Fraction(0)),
        (Total("macs", Subject("chain"), "-16 * 216"), "B", Fraction(576 * 16, 10**9)),
        (Arithmetic("1 - 1/4"), "%", Fraction(75)),
        (Arithmetic("2 * 3*3*128*128 * 26*26"), "BFLOPs", Fraction(199_360_512, 10**9)),
    ],
)
def test_a_recipe_gives_an_exact_value_in_the_printed_unit(
    chain: Profile, recipe: Recipe, unit: str, expected: Fraction
) -> None:
    assert recipe.value(unit, {Subject("chain"): chain}) == expected


def test_layers_of_a_class_write_less_than_they_read(chain: Profile) -> None:
    profiles = {Subject("chain"): chain}
    assert Compression("Conv2d", Subject("chain")).value("%", profiles) == 100 * (Fraction(2 * 128, 48 + 128) - 1)
    with pytest.raises(CspprofError, match="chain has no layer of class Maxout"):
        Compression("Maxout", Subject("chain")).value("%", profiles)


@pytest.mark.parametrize(
    ("numbers", "saved"),
    [
        ({"gamma": "1/2"}, Fraction(50)),  # the limit for c ≫ m·d
        ({"gamma": "1/4"}, Fraction(25)),
        ({"gamma": "1/2", "c": 32, "m": 3, "d": 32}, Fraction(50 * 96, 288)),
        ({"gamma": "1/2", "c": 896, "m": 32, "d": 32}, Fraction(50 * 28672, 28672 + 33 * 32 * 16)),
    ],
)
def test_what_a_partial_dense_block_saves(numbers: dict[str, Any], saved: Fraction) -> None:
    """Half of c·m, of c·m + (m² + m)·d/2 (CSPNet, section 3)."""
    assert Saving(tuple(numbers.items())).value("%", {}) == saved


@pytest.mark.parametrize("text", ["1 +", "x", "2**9", "1/0", "1.5", "print(1)", "True", "-'a'", ""])
def test_arithmetic_is_of_whole_numbers(text: str) -> None:
    with pytest.raises(CspprofError, match="cannot work out"):
        worked_out(text)


# -- the data file --------------------------------------------------------------------------------


def test_the_tables_that_can_be_asked_for() -> None:
    help_text = (CHECKOUT / "cspprof" / "cli" / "reproduction.py").read_text()
    for name in published():
        assert name in help_text
        assert published().get(name).figures


def test_every_spec_exists() -> None:
    from cspprof.sources import parse as parse_spec

    for _, table in published().items():
        for subject in table.subjects:
            assert parse_spec(subject.spec).target in catalog(), subject


def test_a_row_is_printed_once_in_its_table() -> None:
    for _, table in published().items():
        rows = [f.row for f in table.figures]
        assert len(rows) == len(set(rows))


def test_what_is_printed_is_what_the_reference_gives(reference: Path) -> None:
    facts = (reference / "facts.md").read_text()
    digits = {
        f"{name}: {f.row}": re.findall(r"[\d.]+", f.printed.text)[0]
        for name, table in published().items()
        for f in table.figures
    }
    assert {row for row, text in digits.items() if text not in facts} == {  # in the repository's README alone
        "prn: Pelee-FPN at 320×320, BFLOPs",
        "prn: Pelee-PRN-3l at 320×320, BFLOPs",
    }


def test_every_reason_is_somebodys() -> None:
    import tomllib

    document = tomllib.loads(DATA)
    used = {f["because"] for t in document.values() for f in t.get("figures", ()) if "because" in f}
    assert used == set(document["because"])


ENTRY = '[t]\ntitle = "T"\nfigures = [{{ row = "r", printed = "1.0 M", {} }}]\n[because]\nwhy = "of that"\n'


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('metric = "cio"', "metric do not say how to compute it"),
        ('metric = "parms", spec = "resnet50"', "no metric named 'parms'"),
        ('metric = "macs", spec = "resnet50"', "macs is a number of MACs, never of M"),
        ('metric = "params", spec = "resnet50", base = "resnext50"', "a change is a percentage"),
        ('metric = "params", spec = "resnet50", must = "close"', "must = 'close'"),
        ('metric = "params", spec = "resnet50", because = "so"', "no reason named 'so'"),
        (
            'metric = "params", spec = "resnet50", because = "why", must = "exact"',
            "has to come out and is known",
        ),
        ('must = "exact"', "nothing computes it"),
        ('status = "exact"', "status is no key of it"),
        ('arithmetic = "1 +"', "cannot work out"),
        ('saving = { gamma = "1/2" }', "a change is a percentage"),
        ('layers = "Maxout", spec = "resnet50"', "a change is a percentage"),
    ],
)
def test_an_entry_that_breaks_a_rule_is_named(entry: str, message: str) -> None:
    with pytest.raises(CspprofError, match=message) as refused:
        read(ENTRY.format(entry))
    assert refused.value.message.startswith("t, 'r': ")


def test_a_table_has_a_title_and_figures() -> None:
    with pytest.raises(CspprofError, match="t is no table of figures"):
        read("[t]\nrows = []\n")


# -- what comes out -------------------------------------------------------------------------------


def test_fig8_comes_out() -> None:
    found = cspprof.reproduce("fig8")
    assert [f.computed for f in found.findings][:2] == [Fraction(34_411_496, 10**6), Fraction(32_642_024, 10**6)]
    assert found.counts == {Status.EXACT: 3}
    assert "<td style" in found._repr_html_()


def test_the_largest_layers_of_fig7() -> None:
    """640→128 3×3 on 26×26 in the head, 128→128 1×1 on 104×104 in the backbone."""
    found = {f.figure.row: f for f in cspprof.reproduce("fig7").findings}
    yolo, prn, *cuts = found.values()
    assert (yolo.computed, prn.computed) == (Fraction(996_802_560, 10**9), Fraction(354_418_688, 10**9))
    assert (yolo.status, prn.status) == (Status.EXACT, Status.EXACT)
    assert [f.status for f in cuts] == [Status.READING, Status.READING]


def test_the_arithmetic_beside_fig7() -> None:
    found = {b.row.split(" ")[0]: value for _, b, value in cspprof.reproduce("fig7").beside}
    assert found["largest"] == Fraction(2 * 112 * 112 * 104 * 104, 10**9)
    assert found["a"] == Fraction(2 * 384 * 384 * 26 * 26, 10**9) == Fraction(2 * 192 * 192 * 52 * 52, 10**9)


def test_maxout_keeps_a_quarter() -> None:
    (found,) = cspprof.reproduce("memory").findings
    assert found.computed == -75
    assert says(found) == "reading, exact to the printed digit"


@pytest.mark.slow
def test_every_figure_comes_out_as_it_has_to() -> None:
    found = cspprof.reproduce()
    assert found.broken == []
    assert not [f.figure.row for f in found.findings if f.contradicted]
    assert Status.UNEXPLAINED not in found.counts
    # A figure that comes out is held to it from then on.
    assert not [f.figure.row for f in found.findings if f.status is Status.EXACT and f.figure.must != "exact"]
    assert not [f.figure.row for f in found.findings if f.status is Status.TRUNCATED and f.figure.must != "truncated"]


# -- the command ----------------------------------------------------------------------------------


def test_the_answer_for_people(run: Run) -> None:
    done = run("reproduce", "fig8")
    assert done.code == 0
    assert (
        "ResNeXt-50, CIO          34.4 M  34.411 M  cio_cspnet          +0.03 %  exact to the printed digit" in done.out
    )
    assert "note: 3 figures: 3 exact to the printed digit" in done.out


def test_the_answer_for_programs(run: Run) -> None:
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


def test_a_wrong_name_is_answered_with_near_ones(run: Run) -> None:
    done = run("reproduce", "tabel3")
    assert done.code == 2
    assert done.err.splitlines()[0] == "error: no table or figure named 'tabel3'"
    assert "Did you mean: table3" in done.err


def test_each_network_is_traced_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import cspprof.sources as sources

    asked: list[str] = []
    original = sources.profile_spec

    def counted(spec: str, request: Any = None) -> Profile:
        asked.append(spec)
        return original(spec, request)

    monkeypatch.setattr(sources, "profile_spec", counted)
    assert run("reproduce", "fig8").code == 0
    assert sorted(asked) == ["csp_resnext50", "csp_resnext50,depths=(3,4,6,3)", "resnext50"]


def test_a_network_that_changed_is_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = catalog().get("resnext50")
    monkeypatch.setitem(
        MODELS._entries, "resnext50", replace(entry, factory=lambda: entry.factory(depths=(3, 4, 6, 4)))
    )
    done = run("reproduce", "fig8")
    assert done.code == 1
    assert "does not reproduce, off by" in done.out
    assert "note: fig8, ResNeXt-50, CIO, 34.4 M: came out exact to the printed digit, and no longer does." in done.out


def test_a_network_that_is_no_longer_the_published_one_is_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS._entries, "resnext50", replace(catalog().get("resnext50"), status="reading"))
    done = run("reproduce", "fig8", "-f", "csv")
    assert done.code == 1
    assert "reading, exact to the printed digit" in done.out


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('printed = "34.4 M"', 'printed = "34.5 M"', "came out exact to the printed digit, and no longer does"),
        ('printed = "34.4 M"', 'printed = "34.41 M"', ""),
        ('printed = "32.6 M", metric = "cio_cspnet", spec = "csp_resnext50", must = "exact"',
         'printed = "99.9 M", metric = "cio_cspnet", spec = "csp_resnext50"', "no reason is known"),
        ('printed = "32.6 M", metric = "cio_cspnet", spec = "csp_resnext50", must = "exact"',
         'printed = "32.6 M", metric = "cio_cspnet", spec = "csp_resnext50", because = "head"', "and does."),
    ],
)  # fmt: skip
def test_a_doctored_data_file_is_found(
    run: Run, monkeypatch: pytest.MonkeyPatch, before: str, after: str, said: str
) -> None:
    assert before in DATA
    doctored: Registry[Published] = read(DATA.replace(before, after))
    monkeypatch.setattr(figures, "published", lambda: doctored)
    done = run("reproduce", "fig8")
    assert done.code == int(said not in ("", "and does."))
    assert said in done.out


def test_reproduced_takes_profiles_from_anywhere(chain: Profile) -> None:
    tables = [
        entry
        for _, entry in read(
            '[t]\ntitle = "T"\nfigures = [{ row = "r", printed = "0.001 M", metric = "params", spec = "mine" }]\n'
        ).items()
    ]
    found = reproduced(tables, {Subject("mine"): chain})
    assert [says(f) for f in found.findings] == ["exact to the printed digit"]
