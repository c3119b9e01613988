"""Closed forms against the formulas of the papers, arithmetic by hand, traces of the blocks, and stages of networks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib import resources
from typing import Any

import jsonschema
import pytest
import sympy
from conftest import Result, quick
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cspprof
from cspprof.analysis.layer_rows import group_by_stage
from cspprof.api import check_closed_form
from cspprof.core.errors import CspprofError
from cspprof.csp.closed_form import CLOSED_FORMS, closed_form, network_savings, saving, saving_curve, sized_block
from cspprof.csp.closed_form.forms import total_cost
from cspprof.csp.closed_form.layers import COSTS, c, conv, d, gamma, h, i, m, repeated, rho, w
from cspprof.csp.closed_form.notation import arrange, arrange_ratio, latex, text
from cspprof.csp.closed_form.saving import limits, saving_at, saving_by_ratio
from cspprof.csp.dense_networks import NETWORKS
from cspprof.report.closed_form_numbers import bar
from cspprof.zoo.form_blocks import BLOCKS

Run = Callable[..., Result]
SCHEMA = json.loads((resources.files("cspprof") / "schemas" / "closed_form-1.schema.json").read_text())
NAMES = CLOSED_FORMS.names()
PLAIN = [name for name in NAMES if not CLOSED_FORMS.get(name).plain]
SMALL = {"c": 64, "m": 3, "d": 16, "a": 32, "b": 16, "g": 8, "h": 5, "w": 8, "gamma": "1/4", "s": 2}


def small_numbers(name: str, **changes: Any) -> dict[str, Any]:
    """A valid number for each parameter of the form."""
    return {key: value for key, value in {**SMALL, **changes}.items() if key in CLOSED_FORMS.get(name).parameters}


# -- symbols --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("dense", w * h * (c * m + (m**2 + m) * d / 2)),
        ("partial", w * h * ((1 - gamma) * c * m + (m**2 + m) * d / 2)),
    ],
)
def test_dense_cio_equals_the_formula_of_the_paper(name: str, printed: sympy.Expr) -> None:
    assert sympy.expand(total_cost(CLOSED_FORMS.get(name), "cio_cspnet") - printed) == 0


def test_partial_cio_at_gamma_one_half_equals_the_formula_of_the_paper() -> None:
    half = total_cost(CLOSED_FORMS.get("partial"), "cio_hardnet").subs(gamma, sympy.Rational(1, 2))
    assert sympy.expand(half - w * h * (c * m + (m**2 + m) * d) / 2) == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("quantity", COSTS)
def test_arrange_keeps_the_value(name: str, quantity: str) -> None:
    expr = total_cost(CLOSED_FORMS.get(name), quantity, 5 if CLOSED_FORMS.get(name).needs_depth else None)
    assert sympy.expand(arrange(expr).doit() - expr) == 0


def test_formulas_as_text_and_latex() -> None:
    dense, partial = (arrange(total_cost(CLOSED_FORMS.get(name), "cio_cspnet")) for name in ("dense", "partial"))
    assert text(dense) == "w·h·(c·m + d·(m² + m)/2)"
    assert latex(dense) == r"w h \left(c m + \frac{d \left(m^{2} + m\right)}{2}\right)"
    assert text(partial) == "w·h·(c·m·(1 − γ) + d·(m² + m)/2)"
    assert latex(partial) == r"w h \left(c m \left(1 - \gamma\right) + \frac{d \left(m^{2} + m\right)}{2}\right)"
    transitions = arrange(total_cost(CLOSED_FORMS.get("transitions_csp"), "cio_cspnet"))
    assert text(transitions) == "w·h·(c + 2·t + d·m) + ⌈w/2⌉·⌈h/2⌉·(2·c·γ + 2·t + o)"
    assert text(arrange(total_cost(CLOSED_FORMS.get("resnext_bottleneck"), "macs"))) == "w·h·(2·c·b·m + 9·b²·m/g)"


def test_series_over_a_symbolic_number_of_layers() -> None:
    (part,) = CLOSED_FORMS.get("dense").symbolic_layers().parts
    series = part.series(part.layers[0].cio_cspnet)
    assert isinstance(series, sympy.Sum)
    assert series.limits == ((i, 1, m),)
    assert text(series) == "Σ[i=1…m] w·h·(c + d·i)"
    assert latex(series) == r"\sum_{i=1}^{m} w h \left(c + d i\right)"


def test_harmonic_blocks_need_a_number_for_m() -> None:
    harmonic = CLOSED_FORMS.get("harmonic")
    assert text(arrange(total_cost(harmonic, "cio_cspnet", 2))) == "w·h·(2·c + 2·k₁ + k₂)"
    assert text(arrange(total_cost(harmonic, "cio_cspnet", 4))) == "w·h·(3·c + 4·k₁ + 3·k₂ + k₃)"
    with pytest.raises(CspprofError, match="a separate formula for each m") as error:
        harmonic.symbolic_layers()
    assert error.value.hint == "Give m: cspprof closed-form harmonic --m 8"


# -- arithmetic by hand --------------------------------------------------------------------------------------


def test_dense_block_by_hand() -> None:
    block = sized_block(CLOSED_FORMS.get("dense"), {"c": 4, "m": 3, "d": 2, "h": 2, "w": 3})
    assert block.totals() == {
        "cio_hardnet": 6 * ((4 + 2) + (6 + 2) + (8 + 2)),
        "cio_cspnet": 144,
        "macs": 6 * 9 * 2 * (4 + 6 + 8),
        "conv_weights": 9 * 2 * (4 + 6 + 8),
    }


BY_HAND = {
    # CIO for each pixel of m = 3 layers with c = 64, d = 16, b = 16
    "dense_bottleneck": sum(n + 64 + 64 + 16 for n in (64, 80, 96)),
    "two_way": sum(2 * (n + 8) + 2 * (8 + 8) + (8 + 8) for n in (64, 80, 96)),
    "residual": 3 * 4 * 64,
    "residual_bottleneck": 3 * (64 + 16 + 32 + 16 + 64),
    "residual_darknet": 3 * (64 + 16 + 16 + 64),
    "resnext": 3 * 6 * 64,
    "resnext_bottleneck": 3 * (64 + 16 + 32 + 16 + 64),
    "harmonic": (64 + 16) + (64 + 16 + 28) + (28 + 16),  # k₁ = 16, k₂ = 16·1.7 made even
}


@pytest.mark.parametrize("name", BY_HAND)
def test_cio_of_other_blocks_by_hand(name: str) -> None:
    assert sized_block(CLOSED_FORMS.get(name), small_numbers(name, h=1, w=1)).total("cio_hardnet") == BY_HAND[name]


def test_transitions_by_hand() -> None:
    """c = 64, m = 3, d = 16, γ = 1/4 on 5×8, pooled to 3×4: a dense path of 96 channels beside 16."""
    block = sized_block(CLOSED_FORMS.get("transitions_csp"), small_numbers("transitions_csp"))
    assert block.total("cio_hardnet") == 40 * (96 + 96) + 12 * (112 + 112)
    assert block.total("cio_cspnet") == 40 * (96 + 96) + (40 + 12) * 112 + 12 * (112 + 112)
    assert block.total("macs") == 40 * 96 * 96 + 12 * 112 * 112


def test_the_first_bottleneck_of_a_stage_by_hand() -> None:
    """From 256 to 512 channels and from 56×56 to 28×28, as in ResNet-50: 128 channels inside, one group."""
    block = sized_block(CLOSED_FORMS.get("entry_bottleneck"), {"a": 256, "c": 512, "h": 56})
    assert block.total("macs") == 56 * 56 * 256 * 128 + 28 * 28 * (9 * 128 * 128 + 128 * 512)
    assert block.total("conv_weights") == 256 * 128 + 9 * 128 * 128 + 128 * 512


def test_an_odd_width_has_no_half_as_bottleneck() -> None:
    with pytest.raises(CspprofError, match="b = 65/2"):
        sized_block(CLOSED_FORMS.get("resnext_bottleneck"), {"c": 65, "m": 1, "h": 8, "g": 1})


@given(
    c=st.integers(1, 300), m=st.integers(1, 40), d=st.integers(1, 64), h=st.integers(1, 60), w=st.integers(1, 60),
    n=st.integers(1, 299),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_closed_form_equals_the_explicit_sum(c: int, m: int, d: int, h: int, w: int, n: int) -> None:
    sizes = {"c": c, "m": m, "d": d, "h": h, "w": w}
    assert sized_block(CLOSED_FORMS.get("dense"), sizes).total("cio_cspnet") == h * w * sum(
        c + i * d for i in range(1, m + 1)
    )
    if n < c:
        partial = sized_block(CLOSED_FORMS.get("partial"), {**sizes, "gamma": Fraction(n, c)})
        assert partial.total("cio_cspnet") == h * w * sum(c - n + i * d for i in range(1, m + 1))


# -- traces of the blocks -----------------------------------------------------------------------------


def test_every_plain_form_has_a_module() -> None:
    assert BLOCKS.names() == PLAIN


@pytest.mark.parametrize("name", NAMES)
def test_every_form_agrees_with_a_trace_layer_by_layer(name: str) -> None:
    result = check_closed_form(sized_block(CLOSED_FORMS.get(name), small_numbers(name)))
    assert [term.differing for term in result.layers] == [[] for _ in result.layers]
    assert result.formula_totals == result.traced_totals
    assert result.agrees


SIZES = st.fixed_dictionaries(
    {"m": st.integers(1, 9), "h": st.integers(1, 33), "w": st.integers(1, 33), "d": st.integers(1, 12)}
)


@pytest.mark.parametrize(
    "name",
    quick(
        ["dense", "two_way", "harmonic", "residual", "dense_bottleneck", "harmonic_separable", "residual_darknet"], 4
    ),
)
@given(numbers=SIZES, c=st.integers(2, 20), n=st.integers(1, 19))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_blocks_and_their_twins_agree_with_a_trace_at_any_size(
    name: str, numbers: dict[str, int], c: int, n: int
) -> None:
    plain = CLOSED_FORMS.get(name)
    bypass = min(n, c - 1) * 2
    numbers = {**numbers, "c": 2 * c, "d": 2 * numbers["d"]}
    if name == "two_way":
        numbers["c"] += bypass + numbers["d"]  # the closed form is valid only if q·d ≤ (1 − γ)·c
    chosen = {key: value for key, value in numbers.items() if key in plain.parameters}
    assert check_closed_form(sized_block(plain, chosen)).agrees
    assert check_closed_form(
        sized_block(CLOSED_FORMS.get(str(plain.twin)), {**chosen, "gamma": Fraction(bypass, chosen["c"])})
    ).agrees


@given(
    a=st.integers(1, 9), b=st.integers(1, 5), c=st.integers(1, 9), g=st.integers(1, 6), s=st.integers(1, 3),
    m=st.integers(1, 4), h=st.integers(1, 17), w=st.integers(1, 17), data=st.data(),
)  # fmt: skip
@settings(max_examples=10, deadline=None)
def test_residual_blocks_agree_with_a_trace_at_any_size(
    a: int, b: int, c: int, g: int, s: int, m: int, h: int, w: int, data: st.DataObject
) -> None:
    sizes = {"h": h, "w": w}
    grouped = {"b": b * g, "c": (c + 1) * g, "g": g, **sizes}
    assert check_closed_form(sized_block(CLOSED_FORMS.get("entry"), {"a": a, "c": c, "s": s, **sizes})).agrees
    assert check_closed_form(sized_block(CLOSED_FORMS.get("projection"), {"a": a, "c": c, "s": s, **sizes})).agrees
    assert check_closed_form(sized_block(CLOSED_FORMS.get("entry_bottleneck"), {"a": a, "s": s, **grouped})).agrees
    bypass = Fraction(data.draw(st.integers(1, c)), c + 1)
    for name in ("residual_bottleneck", "resnext", "resnext_bottleneck"):
        chosen = {key: value for key, value in {**grouped, "m": m}.items() if key in CLOSED_FORMS.get(name).parameters}
        assert check_closed_form(sized_block(CLOSED_FORMS.get(name), chosen)).agrees
        assert check_closed_form(sized_block(CLOSED_FORMS.get(f"partial_{name}"), {**chosen, "gamma": bypass})).agrees


@given(
    c=st.integers(2, 40), m=st.integers(1, 4), d=st.integers(1, 9), n=st.integers(1, 39), t=st.integers(1, 20),
    o=st.integers(1, 20), h=st.integers(1, 17), w=st.integers(1, 17),
)  # fmt: skip
@settings(max_examples=10, deadline=None)
def test_transitions_agree_with_a_trace_at_any_size(
    c: int, m: int, d: int, n: int, t: int, o: int, h: int, w: int
) -> None:
    numbers = {"c": c, "m": m, "d": d, "t": t, "h": h, "w": w, "gamma": Fraction(min(n, c - 1), c)}
    assert check_closed_form(sized_block(CLOSED_FORMS.get("transitions_last"), numbers)).agrees
    assert check_closed_form(sized_block(CLOSED_FORMS.get("transitions_csp"), {**numbers, "o": o})).agrees
    assert check_closed_form(sized_block(CLOSED_FORMS.get("transition"), {"c": c, "o": o, "h": h, "w": w})).agrees


@pytest.fixture
def wrong_form() -> Iterator[str]:
    """A dense form in which every layer reads the input of the next one."""

    @closed_form("wrong", parameters="c m d", paper="none")
    def wrong(depth: sympy.Expr) -> Any:
        """Wrong."""
        return repeated(conv("conv", c + i * d, d, 3), c_out=c + m * d)(depth)

    BLOCKS.add("wrong", BLOCKS.get("dense"))
    yield "wrong"
    CLOSED_FORMS.remove("wrong")
    BLOCKS.remove("wrong")


def test_check_fails_for_a_wrong_formula(wrong_form: str, run: Run) -> None:
    result = run("closed-form", wrong_form, "--c", "8", "--m", "2", "--d", "4", "--check", "--format", "markdown")
    assert result.code == 1
    assert "| 1: conv 3×3 | layers.0.conv | 12→4, 3×3, 1×1 ≠ 8→4, 3×3, 1×1 | 16 | 12 | 432 ≠ 288 |" in result.out
    assert "0 of 2 layers agree in shape, CIO by both rules, MACs and weights; the sums differ." in result.out


def test_check_fails_for_an_extra_layer(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    builder, parts = BLOCKS.get("dense")
    monkeypatch.setitem(BLOCKS._entries, "dense", (lambda n: torch_block(builder, n), parts))
    result = run("closed-form", "dense", "--c", "8", "--m", "2", "--d", "4", "--check", "--format", "json")
    assert result.code == 1
    document = json.loads(result.out)
    assert [t["agrees"] for t in document["terms"]] == [True, True, False]
    assert document["terms"][2]["formula"] is None


def torch_block(builder: Any, n: Any) -> Any:
    from torch import nn

    return nn.Sequential(builder(n), nn.Conv2d(16, 4, 1))


# -- real networks --------------------------------------------------------------------------------

STAGES: dict[tuple[str, int, str], list[tuple[str, dict[str, Any]]]] = {
    ("peleenet", 224, "stage2"): [
        ("two_way", {"c": 128, "m": 4, "d": 32, "q": 2, "h": 28}),
        ("transition", {"c": 256, "h": 28}),
    ],
    ("csp_peleenet", 224, "stage2"): [
        ("partial_two_way", {"c": 128, "m": 4, "d": 32, "q": 2, "h": 28}),
        ("transitions_csp", {"c": 128, "m": 4, "d": 32, "h": 28}),
    ],
    ("csp_peleenet,fusion=last,gamma=0.25", 224, "stage2"): [
        ("partial_two_way", {"c": 128, "m": 4, "d": 32, "q": 2, "h": 28, "gamma": "1/4"}),
        ("transitions_last", {"c": 128, "m": 4, "d": 32, "h": 28, "gamma": "1/4"}),
    ],
    ("densenet121", 224, "stage3"): [
        ("dense_bottleneck", {"c": 256, "m": 24, "d": 32, "h": 14}),
        ("transition", {"c": 1024, "o": 512, "h": 14}),
    ],
    ("csp_densenet121", 224, "stage3"): [
        ("partial_dense_bottleneck", {"c": 256, "m": 24, "d": 32, "h": 14}),
        ("transitions_csp", {"c": 256, "m": 24, "d": 32, "t": 448, "o": 512, "h": 14}),
    ],
    ("hardnet68", 224, "stage1"): [
        ("harmonic", {"c": 64, "m": 8, "d": 14, "h": 56}),
        ("transition", {"c": 124, "o": 128, "h": 56}),
    ],
    ("resnext50", 256, "stage2"): [
        ("entry_bottleneck", {"a": 256, "b": 256, "c": 512, "g": 32, "h": 64}),
        ("resnext_bottleneck", {"c": 512, "m": 3, "h": 32}),
    ],
    ("resnet18", 224, "stage2"): [
        ("entry", {"a": 64, "c": 128, "h": 56}),
        ("projection", {"a": 64, "c": 128, "h": 56}),
        ("residual", {"c": 128, "m": 1, "h": 28}),
    ],
}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: f"{stage[0]}-{stage[2]}")
def test_closed_forms_add_up_to_a_traced_stage(stage: tuple[str, int, str]) -> None:
    spec, size, name = stage
    profile = cspprof.profile(spec, (1, 3, size, size))
    traced = next(group for group in group_by_stage(profile) if group.name == name)
    closed: Counter[str] = Counter()
    for part, numbers in STAGES[stage]:
        closed.update(sized_block(CLOSED_FORMS.get(part), numbers).totals())
    for quantity in ("cio_hardnet", "cio_cspnet", "macs"):
        assert closed[quantity] == traced.value(quantity), quantity


def test_savings_in_real_stages() -> None:
    """The savings in percent by the form of the paper at γ = 1/2; the expected values come from independent code."""
    expected = {
        ("PeleeNet", 1): ((32, 3), 16.7), ("PeleeNet", 2): ((128, 4), 30.8), ("PeleeNet", 3): ((256, 8), 32.0),
        ("PeleeNet", 4): ((512, 6), 41.0), ("DenseNet-121", 1): ((64, 6), 18.2), ("DenseNet-121", 2): ((128, 12), 19.0),
        ("DenseNet-121", 3): ((256, 24), 19.5), ("DenseNet-121", 4): ((512, 16), 32.7),
        ("DenseNet-201", 3): ((256, 48), 12.3), ("DenseNet-201", 4): ((896, 32), 31.5),
    }  # fmt: skip
    savings = {(r["network"], r["stage"]): ((r["c"], r["m"]), round(100 * r["saving"], 1)) for r in network_savings()}
    assert {key: savings[key] for key in expected} == expected


@pytest.mark.parametrize(("name", "spec"), [("PeleeNet", "peleenet"), ("DenseNet-201", "densenet201")])
def test_real_stages_match_the_traced_networks(name: str, spec: str) -> None:
    first_reads = {}
    for group in group_by_stage(cspprof.profile(spec)):
        convs = [row.spec for row in group.rows if row.spec.name == "conv2d"]
        first_reads[group.name] = convs[0].reads[0].shape[1] if convs else 0
    assert [stage.c for stage in NETWORKS[name].stages()] == [first_reads[f"stage{n}"] for n in range(1, 5)]


# -- savings --------------------------------------------------------------------------------------


def test_limits_of_the_dense_saving() -> None:
    expr = saving(CLOSED_FORMS.get("dense"))
    assert text(arrange_ratio(expr)) == "2·c·γ/(2·c + d·(m + 1))"
    assert [(x.symbol, x.value) for x in limits(expr)] == [(c, gamma), (d, 0), (m, 0)]
    ratio = saving_by_ratio(expr)
    assert sympy.cancel(ratio - 2 * gamma * rho * m / (2 * rho * m + m + 1)) == 0


@pytest.mark.parametrize("name", [name for name in PLAIN if CLOSED_FORMS.get(name).twin])
def test_the_saving_tends_to_gamma_for_many_channels(name: str) -> None:
    expr = saving(CLOSED_FORMS.get(name), 8 if CLOSED_FORMS.get(name).needs_depth else None)
    assert sympy.limit(expr, c, sympy.oo) == gamma


def test_residual_blocks_without_bottleneck_save_exactly_gamma() -> None:
    assert saving(CLOSED_FORMS.get("residual")) == gamma
    assert saving(CLOSED_FORMS.get("resnext")) == gamma


@pytest.mark.parametrize("over", ["gamma", "ratio", "m"])
def test_every_point_of_a_curve_is_a_valid_block(over: Any) -> None:
    records = saving_curve(over, c=250, m=12, d=32, gamma="1/5")
    assert len(records) >= 10
    assert [r["given"] for r in records].count(True) == 1
    savings = [r["saving"] for r in records]
    assert savings == sorted(savings, reverse=over == "m")
    for r in records:
        numbers = {"c": r["c"], "m": r["m"], "d": r["d"], "gamma": r["gamma_exact"]}
        assert r["partial"] == sized_block(CLOSED_FORMS.get("partial"), numbers).total("cio_cspnet")
        assert r["saving"] == pytest.approx(1 - r["partial"] / r["plain"])
        assert 0 < r["saving"] < r["gamma"]


def test_exact_values_of_a_curve_point() -> None:
    (r,) = [r for r in saving_curve("ratio", c=256, m=24, d=32) if r["given"]]
    assert (r["plain"], r["partial"], r["ratio"]) == (15_744, 12_672, pytest.approx(1 / 3))
    assert r["plain"] == 256 * 24 + (24**2 + 24) * 32 // 2


def test_points_of_a_curve() -> None:
    """γ in steps of 1/16; the depth from 1 to its own, at least 16, in 16 steps."""
    assert [r["gamma_exact"] for r in saving_curve("gamma", c=64, m=4, d=32)] == [
        str(Fraction(n, 16)) for n in range(1, 16)
    ]
    assert [r["m"] for r in saving_curve("m", c=64, d=32, m=4)] == list(range(1, 17))
    assert [r["m"] for r in saving_curve("m", c=64, d=32, m=32)] == [1, *range(2, 33, 2)]


def test_saving_at_any_real_gamma() -> None:
    assert saving_at(1, c=64, m=6, d=32) == 64 * 6 / (64 * 6 + 42 * 16)
    assert saving_at(0, c=64, m=6, d=32) == 0
    assert saving_at(0.123, form="residual") == pytest.approx(0.123)


def test_curves_of_other_forms() -> None:
    assert {r["saving"] for r in saving_curve("m", form="residual", c=64)} == {0.5}
    assert all(r["c"] % 4 == 0 for r in saving_curve("ratio", form="two_way", m=3, d=8, gamma="1/4"))
    assert [r["m"] for r in saving_curve("m", form="partial_harmonic", c=64, d=14, m=16)] == list(range(1, 17))


# -- invalid input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("dens", "no closed form named 'dens'\n  Did you mean: dense?"),
        ("partial --c 32 --m 3 --d 8 --gamma 0.3",
         "would read c·(1 − γ) + d·(i − 1) = 112/5 = 22.4 channels\n  Nearest: --gamma 5/16 or --gamma 11/32; --c 30"),
        ("partial --c 33 --m 3 --d 8", "= 33/2 = 16.5 channels\n  Nearest: --gamma 16/33 or --gamma 17/33; --c 32 or"),
        ("dense --c 32", "dense needs m, d\n  --m N: layers (or blocks) in a row\n  --d N: growth rate"),
        ("dense --c 32 --m 2 --d 2 --gamma 1", "γ = 1 is not between 0 and 1\n  It is the bypassed fraction"),
        ("partial --c 32 --m 2 --d 2 --gamma -0.5", "γ = -0.5 is not between 0 and 1"),
        ("residual --gamma 1.5", "γ = 1.5 is not between 0 and 1"),
        ("dense --c 4 --m 2 --d 2 --gamma 1/2 --check",
         "dense has no parameter gamma\n  Its parameters: c, m, d, h, w\n  Its partial"),
        ("dense --gamma half", "γ = half is not a fraction\n  Write --gamma 0.25 or --gamma 1/4"),
        ("dense --c 3 --m 2 --d 1 --b 3", "dense has no parameter b\n  Its parameters: c, m, d, h, w"),
        ("two_way --c 32 --m 3 --d 31", "would write q·d/2 = 31/2 = 15.5 channels\n  Nearest: --d 30 or --d 32"),
        ("partial_two_way --c 32 --m 3 --d 32",
         "is valid only if d·q ≤ c·(1 − γ), but 32 > 16\n  Change one of: --c, --d"),
        ("resnext --c 40 --m 2", "would read 40 channels in 32 groups\n  Nearest: --g 40 or --g 20; --c 32 or --c 64"),
        ("residual_bottleneck --c 10 --m 2", "b = 5/2 = 2.5 is not a whole number of at least 1"),
        ("harmonic --c 8 --m 2 --d 4 --r 0.5",
         "r = 0.5 makes layers that read more narrower\n  Give at least 1: --r 1.7"),
        ("harmonic --c 8 --m 1001 --d 4 --r 1.7", "m = 1001 is more than 1,000\n  layers"),
        ("dense --c 8 --m 1000000001 --d 4", "m = 1000000001 is more than 1,000,000,000\n  layers"),
        ("harmonic --c 1000000001 --m 4 --d 4 --r 1.7", "c = 1000000001 is more than 1,000,000,000\n"),
        ("entry --over m --a 3 --c 4", "entry has no partial twin, so there is no saving"),
        ("dense --over depth --c 3 --m 2 --d 1", "cannot vary depth\n  Vary one of: gamma, ratio, m"),
        ("residual --over ratio --c 3 --m 2", "residual has no growth rate, so no c/(m·d)\n  Vary one of: gamma, m"),
        ("--over m --c 8 --d 2 --gamma 1.5", "γ = 1.5 is not between 0 and 1"),
        ("--over m --c 33 --d 4", "= 33/2 = 16.5 channels\n  Nearest: --gamma 16/33 or --gamma 17/33"),
        ("two_way --over m --c 32 --d 32", "is valid only if d·q ≤ c·(1 − γ), but 32 > 16"),
        ("--over gamma --c 256 --m 2 --d 4 --gamma 0.3", "Nearest: --gamma 77/256 or --gamma 39/128"),
        ("--over gamma --c 1 --m 2 --d 4", "= 1/2 = 0.5 channels\n  Nearest: --c 2"),
        ("--over m --check --c 3 --d 2", "--check needs one block, --over draws many"),
        ("--latex --c 3 --m 2 --d 1", "--latex writes formulas, not values"),
        ("--format yaml", "no format named 'yaml'"),
    ],
)  # fmt: skip
def test_invalid_arguments_are_explained(run: Run, arguments: str, message: str) -> None:
    result = run("closed-form", *arguments.split())
    assert result.code == 2
    assert message in result.err
    assert result.out == ""


@pytest.mark.parametrize("option", ["--m", "--c", "--d", "--h", "--w", "--b", "--g"])
@pytest.mark.parametrize("value", ["0", "-3", "2.5", "many"])
def test_options_refuse_anything_but_positive_integers(run: Run, option: str, value: str) -> None:
    result = run("closed-form", "dense", option, value)
    assert result.code == 2
    assert f"'{option}'" in result.err


def test_invalid_numbers_from_python() -> None:
    with pytest.raises(CspprofError, match="m = 0 is not a whole number of at least 1"):
        sized_block(CLOSED_FORMS.get("dense"), {"c": 4, "m": 0, "d": 2})
    with pytest.raises(CspprofError, match="c = 'open' is not a number"):
        sized_block(CLOSED_FORMS.get("dense"), {"c": "open", "m": 1, "d": 2})
    with pytest.raises(CspprofError, match=r"c = 5/2 = 2\.5 is not a whole number"):
        sized_block(CLOSED_FORMS.get("dense"), {"c": Fraction(5, 2), "m": 1, "d": 2})
    with pytest.raises(CspprofError, match="cannot vary c"):
        saving_curve("c", c=4, m=3, d=2)  # type: ignore[arg-type]


# -- the command ----------------------------------------------------------------------------------


def test_command_prints_derivation_and_scope(run: Run) -> None:
    result = run("closed-form")
    assert result.code == 0
    assert "Σ[i=1…m] w·h·(c + d·i) = w·h·(c·m + d·(m² + m)/2)" in " ".join(result.out.split())
    assert "(the paper: up to one half, c ≫ m·d, γ = 1/2)" in " ".join(result.out.split())
    assert "PeleeNet 4      512   6  32    2.667   41.0 %       34.0 %" in result.out
    assert "it is not the CIO of a whole network" in " ".join(result.out.split())


def test_command_compares_plain_and_partial_block(run: Run) -> None:
    result = run("closed-form", "--c", "256", "--m", "24", "--d", "32", "--gamma", "0.5")
    assert result.code == 0
    assert "CIO (CSPNet)      15,744     12,672  −19.5 %" in result.out
    assert "24: conv 3×3      992      32  1,024" in result.out


def test_a_million_layers_are_summed_but_not_listed(run: Run) -> None:
    result = run("closed-form", "--c", "256", "--m", "1000000", "--d", "32")
    assert "16,000,272,000,000" in result.out
    assert "note: 1,000,000 layers are too many to list; the limit is 500." in result.out


def test_width_alone_means_a_square_map(run: Run) -> None:
    square, both = (
        run("closed-form", "dense", "--c", "4", "--m", "1", "--d", "2", *sides, "--format", "json").out
        for sides in (("--w", "7"), ("--w", "7", "--h", "7"))
    )
    assert square == both
    assert json.loads(square)["blocks"][0]["totals"]["cio_cspnet"] == 6 * 49


def test_odd_c_without_gamma_shows_the_plain_block_alone(run: Run) -> None:
    result = run("closed-form", "--c", "33", "--m", "2", "--d", "4")
    assert result.code == 0
    assert "note: partial has no integer number of channels at γ = 1/2; choose another γ: --gamma" in result.out
    assert run("closed-form", "--c", "33", "--m", "2", "--d", "4", "--gamma", "1/3").out.count("γ = 1/3") == 2


def test_curve_as_text(run: Run) -> None:
    result = run("closed-form", "--c", "256", "--m", "24", "--d", "32", "--over", "ratio")
    assert "  0.333     256     15,744   12,672  19.5 %  ███████▊ ◀ given" in result.out
    assert [bar(x) for x in (0, 1 / 320, 0.5, 1)] == ["", "▏", "█" * 20, "█" * 40]


def test_latex_option_prints_latex_source(run: Run) -> None:
    result = run("closed-form", "partial", "--latex", "--format", "csv")
    assert result.code == 0
    shown = run("closed-form", "partial", "--latex")
    assert r"\left(1 - \gamma\right)" in shown.out
    assert "γ·c/(" not in shown.out


@pytest.mark.parametrize(
    "arguments",
    quick(["--list", "two_way", "--c 8 --m 3 --d 2", "dense --c 8 --m 2 --d 2 --check", "", "harmonic --m 5", "split",
           "transitions_last --latex", "harmonic --c 8 --m 3 --d 4", "--over gamma --c 8 --m 3 --d 2",
           "residual --over m --c 8", "partial_harmonic --c 8 --m 3 --d 4 --check"], 4),
)  # fmt: skip
def test_every_document_matches_the_schema(run: Run, arguments: str) -> None:
    result = run("closed-form", *arguments.split(), "--format", "json")
    assert result.code == 0
    jsonschema.validate(json.loads(result.out), SCHEMA)
    for other in ("csv", "markdown"):
        assert run("closed-form", *arguments.split(), "--format", other).out.count("\n") > 2


def test_latex_format_typesets_formulas(run: Run) -> None:
    result = run("closed-form", "partial", "--format", "latex")
    assert r"CIO & $w h \left(c m + \frac{d \left(m^{2} + m\right)}{2}\right)$ & $w h \left(c m \left(1" in result.out
    assert r"c $\rightarrow$ $\infty$ & $\gamma$ \\" in result.out


def test_explain_closed_form(run: Run) -> None:
    result = run("explain", "closed-form")
    assert result.code == 0
    assert "the CIO of a whole network: splits, transitions and, in the paper's form," in " ".join(result.out.split())
    assert run("explain", "closed-form", "--model", "resnet50").code == 2


@pytest.mark.parametrize("columns", ["30", "60"])
def test_numbers_are_complete_on_a_narrow_terminal(run: Run, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    result = run("closed-form", "--c", "256", "--m", "24", "--d", "32")
    assert "15,744" in result.out
    assert "12,672" in result.out
    assert max(map(len, result.out.splitlines())) <= int(columns)


def test_help_loads_neither_sympy_nor_torch() -> None:
    program = """
import sys
from cspprof.cli import main
try:
    main(["closed-form", "--help"])
except SystemExit:
    pass
heavy = {"sympy", "torch"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else 0)
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


@pytest.mark.slow
def test_formulas_and_numbers_do_not_load_torch() -> None:
    program = """
import sys
from cspprof.cli import main
for arguments in (["closed-form"], ["closed-form", "--c", "8", "--m", "2", "--d", "2"]):
    try:
        main(arguments)
    except SystemExit:
        pass
sys.exit("imported torch" if "torch" in sys.modules else 0)
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("form", [(), ("dense",), ("partial",)])
def test_a_block_with_gamma_shows_the_plain_block_its_partial_twin_and_the_saving(
    run: Callable[..., Result], form: tuple[str, ...]
) -> None:
    got = run("closed-form", *form, "--c", "256", "--m", "24", "--d", "32", "--gamma", "0.5")
    assert got.code == 0
    plain, partial = 256 * 24 + (24 * 24 + 24) * 16, 128 * 24 + (24 * 24 + 24) * 16
    assert f"{plain:,}     {partial:,}" in got.out
    assert f"note: partial saves 19.5 % of the CIO of dense: {plain - partial:,} elements." in got.out


@pytest.mark.parametrize("form", [(), ("partial",)])
def test_check_with_gamma_checks_the_partial_twin(run: Callable[..., Result], form: tuple[str, ...]) -> None:
    got = run("closed-form", *form, "--c", "32", "--m", "2", "--d", "8", "--gamma", "1/4", "--check")
    assert got.code == 0
    assert "partial at c = 32, m = 2, d = 8, γ = 1/4" in got.out
