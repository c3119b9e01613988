"""Rules: which values pass and which fail, the messages, and the measurements that are compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from conftest import CHECKOUT, conv_spec
from hypothesis import given
from hypothesis import strategies as st

import cspprof
from cspprof.analysis.headline import NEARLY_ALL
from cspprof.analysis.structural_hash import structural_hash
from cspprof.core import units
from cspprof.core.errors import CspprofError
from cspprof.core.record import Kind
from cspprof.gate import baseline
from cspprof.gate.causes import Cause
from cspprof.gate.checking import cio_notes, structure_notes
from cspprof.gate.config import Rule
from cspprof.gate.measurement import LayerMeasurement, Measurement, layer_matches, measure
from cspprof.gate.reference import Reference
from cspprof.gate.report import value_and_limit
from cspprof.gate.rules import Outcome, RuleResult, contradictions, evaluate
from cspprof.metrics import Amount, Peak, Ratio, Sum
from cspprof.metrics.names import resolve_metric
from cspprof.profiles import Profile


def net(name: str = "net", layers: Mapping[str, int] | None = None, **rest: Any) -> Measurement:
    """A model whose layers have these MACs and as much CIO."""
    layers = {"stem": 100, "body.0": 500, "body.1": 400} if layers is None else layers
    whole = sum(layers.values())
    totals: dict[str, Amount] = {
        "macs": Sum(whole), "cio_cspnet": Sum(whole), "bflops": Sum(2 * whole, 10**9), "peak_bytes": Peak(2 * 2**20),
        "moc": Ratio(whole, 3), "bottleneck_share": Ratio(max(layers.values()), whole),
    }  # fmt: skip
    by_path = {path: LayerMeasurement("conv2d", {"macs": Sum(n), "cio_cspnet": Sum(n)}) for path, n in layers.items()}
    return Measurement(name, "cspnet", ("1x3x8x8:float32",), "s", rest.pop("totals", totals), by_path, **rest)


def rule(**keys: Any) -> Rule:
    return Rule.model_validate({"id": "r", "metric": "macs", **keys})


def only(results: list[RuleResult]) -> RuleResult:
    assert len(results) == 1
    return results[0]


HOLDS, FAILS, UNKNOWN = Outcome.HOLDS, Outcome.FAILS, Outcome.UNKNOWN


# The model has 1,000 MACs in stem 100, body.0 500 and body.1 400; the base has `before`.
@pytest.mark.parametrize(
    ("keys", "before", "outcome", "limit"),
    [
        ({"max": "1 k"}, None, HOLDS, 1000),
        ({"max": 999}, None, FAILS, 999),
        ({"max": 999, "tolerance": 1}, None, HOLDS, 1000),
        ({"max": 999, "tolerance": "0.1%"}, None, FAILS, 999),  # 999.999, so 999
        ({"max": 0}, None, FAILS, 0),
        ({"metric": "bflops", "max": "0.000002"}, None, HOLDS, Fraction(2, 10**6)),
        ({"metric": "bflops", "max": "0.00000199"}, None, FAILS, Fraction(199, 10**8)),
        ({"metric": "peak_bytes", "max": "2 MiB"}, None, HOLDS, 2**21),
        ({"metric": "peak_bytes", "max": "2 MB"}, None, FAILS, 2 * 10**6),
        ({"metric": "moc", "max": "333.4"}, None, HOLDS, Fraction(3334, 10)),
        ({"metric": "bottleneck_share", "max": "50%"}, None, HOLDS, Fraction(1, 2)),
        ({"metric": "bottleneck_share", "max": "49.9%"}, None, FAILS, Fraction(499, 1000)),
        ({"max_increase": "0%"}, 1000, HOLDS, 1000),
        ({"max_increase": "0%"}, 999, FAILS, 999),
        ({"max_increase": "2%"}, 981, HOLDS, 1000),  # 1,000.62
        ({"max_increase": "2%"}, 980, FAILS, 999),  # 999.6
        ({"max_increase": 20}, 980, HOLDS, 1000),
        ({"max_increase": 19}, 980, FAILS, 999),
        ({"max_increase": "0%"}, 0, FAILS, 0),
        ({"min_drop": "5%"}, 1053, HOLDS, 1000),  # 1,000.35
        ({"min_drop": "5%"}, 1052, FAILS, 999),  # 999.4
        ({"min_drop": 5}, 1005, HOLDS, 1000),
        ({"min_drop": "100%"}, 1000, FAILS, 0),
        ({"min_drop": "0%"}, 1000, HOLDS, 1000),
        ({"max_share": "50%"}, None, HOLDS, Fraction(1, 2)),
        ({"max_share": "49.99%"}, None, FAILS, Fraction(4999, 10000)),
        ({"max_share": "90%", "layer": "body"}, None, HOLDS, Fraction(9, 10)),
        ({"layer": "body", "max": 900}, None, HOLDS, 900),
        ({"layer": "body", "max": 899}, None, FAILS, 899),
        ({"layer": "stem", "max_increase": "0%"}, 1000, HOLDS, 100),
    ],
)
def test_limits(keys: dict[str, Any], before: int | None, outcome: Outcome, limit: int) -> None:
    base = None if before is None else net(layers={"stem": 100, "body.0": before - 100})
    if before == 0:
        base = net(layers={"stem": 0})
    result = only(evaluate(rule(**keys), net(), base, "the baseline"))
    assert (result.outcome, result.limit) == (outcome, limit)
    assert result.difference is not None
    assert (result.difference > 0) == (outcome is FAILS)


def test_the_worst_failure_exceeds_its_limit_most_in_relation_to_it() -> None:
    def severity(**keys: Any) -> Fraction:
        return only(evaluate(rule(**keys), net())).severity

    assert severity(max=800) == Fraction(1, 4)
    assert severity(max=999) == Fraction(1, 999)
    assert severity(max=2000) == Fraction(-1, 2)
    assert severity(max=0) == 10**9 + 1000
    assert severity(max_increase="0%") == 0  # without a baseline there is no limit
    assert RuleResult("r", "max", "error", "net", "macs", UNKNOWN, limit=Fraction(5)).severity == 0


def test_results_of_engines_have_the_unit_of_a_time_or_none() -> None:
    def unit(metric: str, engine: str = "") -> str:
        return RuleResult("r", "max", "error", "net", metric, HOLDS, engine=engine).unit

    assert (unit("latency_ms", "torch"), unit("engine_ready", "torch")) == ("ms", "")
    assert (unit("macs"), unit("cio_cspnet"), unit("peak_bytes")) == ("MACs", "elements", "bytes")


@pytest.mark.parametrize(("conv_share", "noted", "shown"), [
    (0.0, True, True), (0.49, True, True), (0.5, False, True), (0.51, False, True), (0.98, False, True),
    (NEARLY_ALL, False, False), (1.0, False, False), (None, False, False),
])  # fmt: skip
def test_a_rule_on_cio_of_a_network_with_few_convolutions_has_a_note(
    conv_share: float | None, noted: bool, shown: bool
) -> None:
    shares = {} if conv_share is None else {"conv_share": Ratio(round(100 * conv_share), 100)}
    measured = replace(net(), totals={**net().totals, **shares})
    result = only(evaluate(rule(metric="cio_cspnet", max=1000), measured))
    assert bool(cio_notes([result])) is noted
    assert result.conv_share == (conv_share if shown else None)
    assert cio_notes([replace(result, metric="macs")]) == []


def test_tolerance_must_have_the_unit_of_the_metric_and_not_be_negative() -> None:
    result = only(evaluate(rule(max=1, tolerance="24 MB"), net()))
    assert (result.outcome, result.message) == (UNKNOWN, "tolerance = '24 MB' is in bytes, but macs is in MACs")
    with pytest.raises(ValueError, match=r"tolerance = '-5%' is negative"):
        rule(max=1, tolerance="-5%")


@pytest.mark.parametrize("step", ["-2%", -5, "-1 k"])
def test_a_ratchet_must_not_be_negative(step: Any) -> None:
    """Any improvement would fail."""
    with pytest.raises(ValueError, match=r"ratchet = '-.*' is negative"):
        rule(max_increase="0%", ratchet=step)
    assert rule(max_increase="0%", ratchet=True).ratchet_step is not None


def test_models_on_different_inputs_are_not_compared() -> None:
    base = replace(net("plain"), inputs=("1x3x16x16:float32",))
    result = only(evaluate(rule(min_drop="5%", base="plain"), net(), base, "plain"))
    assert result.outcome is UNKNOWN
    assert result.message == "net is measured on 1x3x8x8:float32, but plain on 1x3x16x16:float32"


@pytest.mark.parametrize(
    ("keys", "before", "outcome"),
    [
        ({"ratchet": True}, 1000, HOLDS),
        ({"ratchet": True}, 1010, HOLDS),  # 1 % below 1,010 is 999.9
        ({"ratchet": True}, 1011, FAILS),
        ({"ratchet": "5%"}, 1011, HOLDS),
        ({"ratchet": "5%"}, 1053, FAILS),
        ({"ratchet": 11}, 1011, FAILS),
        ({"ratchet": True}, 999, FAILS),  # an increase fails also with a ratchet
        ({"ratchet": False}, 2000, HOLDS),
    ],
)
def test_ratchet_fails_until_the_improvement_is_recorded(keys: dict[str, Any], before: int, outcome: Outcome) -> None:
    result = only(evaluate(rule(max_increase="0%", **keys), net(), net(layers={"a": before}), "the baseline"))
    assert result.outcome is outcome
    if outcome is FAILS and before > 1000:
        assert result.hint == "Record the improvement: cspprof check --update-baseline"
        percent = units.change((1000 - before) / before)
        assert result.message == f"macs of net is 1,000, better than the baseline's {before:,} ({percent})"


def test_a_layer_glob_gives_one_result_per_layer() -> None:
    results = evaluate(rule(layer="body.*", max=450), net())
    assert [(f.layer, f.outcome) for f in results] == [("body.0", FAILS), ("body.1", HOLDS)]
    assert results[0].message == "macs of net.body.0 is 500; the limit is 450, exceeded by 50"


@pytest.mark.parametrize(
    ("keys", "message", "hint"),
    [
        ({"layer": "bdy.*", "max": 1}, "'bdy.*' matches no layer of net that has macs", "Did you mean: body"),
        (
            {"metric": "peak_bytes", "layer": "*", "max": 1},
            "peak_bytes is a metric of whole models",
            "Use a metric of layers",
        ),
        ({"metric": "moc", "max_share": "1%"}, "moc is not a sum over layers", "Use a metric that is a sum: macs"),
        ({"max": "24 MB"}, "max = '24 MB' is in bytes, but macs is in MACs", "such as 24 M"),
        ({"metric": "peak_bytes", "max": "2 M elements"}, "is in elements, but peak_bytes is in bytes", "200 MB"),
        ({"metric": "bflops", "max": "8 G"}, "bflops is already in BFLOPs", "without k, M or G"),
        ({"metric": "flops", "max": 1}, "net has no flops", "another metric"),
        ({"max_increase": "0%"}, "nothing was recorded for net", "Record it: cspprof check --update-baseline"),
    ],
)
def test_an_unknown_outcome_has_a_message_and_a_hint(keys: dict[str, Any], message: str, hint: str) -> None:
    result = only(evaluate(rule(**keys), net()))
    assert result.outcome is UNKNOWN
    assert message in result.message
    assert hint in result.hint


def test_totals_without_unknown_operations_can_fail_but_not_hold() -> None:
    incomplete = net(uncounted={"mylib.op": 2})
    assert only(evaluate(rule(max=999), incomplete)).outcome is FAILS
    unknown = only(evaluate(rule(max=1000), incomplete))
    assert unknown.outcome is UNKNOWN
    assert unknown.message == "net has operations without a rule: mylib.op (2)"
    assert only(evaluate(rule(max_increase="0%"), net(), incomplete, "x")).outcome is UNKNOWN


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("inputs", ("1x3x9x9:float32",), "input 1x3x9x9:float32"),
        ("convention", "hardnet", "convention hardnet"),
        ("deployed", True, "deploy true"),
    ],
)
def test_a_recording_with_other_settings_is_not_compared(field: str, value: Any, named: str) -> None:
    other = replace(net(), **{field: value})
    result = only(evaluate(rule(max_increase="0%"), net(), other, "the baseline"))
    assert result.outcome is UNKNOWN
    assert result.message.startswith(f"the baseline has net with {named}, but")
    # a base that is another model may have a convention and a form of its own, on the same input
    against = only(evaluate(rule(max_increase="0%", base="other"), net(), other, "other"))
    assert against.outcome is (UNKNOWN if field == "inputs" else HOLDS)


def test_min_drop_without_any_change_hints_at_max_increase() -> None:
    hint = 'use max_increase = "0%" from now on'
    assert hint in only(evaluate(rule(min_drop="5%"), net(), net(), "the baseline")).hint
    assert only(evaluate(rule(min_drop="5%"), net(), net(layers={"a": 1010}), "the baseline")).hint == ""
    assert only(evaluate(rule(min_drop="5%", base="plain"), net(), net("plain"), "plain")).hint == ""


def test_a_layer_that_is_not_in_the_baseline() -> None:
    result = only(evaluate(rule(layer="body.1", max_increase="0%"), net(), net(layers={"stem": 1000}), "the baseline"))
    assert result.message == "the baseline has no macs for body.1 of net"


def test_failure_messages() -> None:
    result = only(evaluate(rule(min_drop="5%", base="plain"), net(), net("plain", {"a": 1020}), "plain"))
    assert result.message == (
        "macs of net is 1,000; the limit is 969, exceeded by 31 (at least 5% below plain's 1,020; now −2.0 %)"
    )
    result = only(evaluate(rule(max_share="20%"), net()))
    assert result.message == "body.0 has 50.0 % of the macs of net; the limit is 20.0 %, exceeded by 30.0 %"


# -- models, layers and metrics of a rule ---------------------------------------------------------


def test_a_model_is_not_compared_with_itself() -> None:
    drop = rule(min_drop="5%", base="plain", model="*")
    assert (drop.applies_to("plain"), drop.applies_to("csp")) == (False, True)
    budget = rule(max=1, model="csp*")
    assert [budget.applies_to(name) for name in ("plain", "csp", "csp2")] == [False, True, True]


@pytest.mark.parametrize(
    ("glob", "name", "matched"),
    [
        ("stage1", "stage1", True), ("stage1", "stage1.0", False), ("stage?", "stage1", True), ("*", "a.b", False),
        ("**", "a.b", True), ("a.**", "a.b.c", True), ("a.*.c", "a.b.c", True), ("a.*", "a.b.c", False),
        ("a[0]", "a0", False),
    ],
)  # fmt: skip
def test_layer_globs(glob: str, name: str, matched: bool) -> None:
    assert layer_matches(glob, name) is matched


def test_a_note_names_five_of_the_operations_that_changed() -> None:
    def layers(operation: str, number: int) -> dict[str, LayerMeasurement]:
        return {f"layer{i}": LayerMeasurement(operation, {}) for i in range(number)}

    def note(number: int) -> str:
        before, after = (replace(net(), structure=o, layers=layers(o, number)) for o in ("relu", "silu"))
        (found,) = structure_notes({"net": after}, Reference("the baseline", {"net": before}), ["new", "net"])
        return found.removeprefix("the structure of net differs from the baseline, with the same totals")

    assert note(0) == " (in operations that no metric counts)"
    assert note(2) == ": layer0, layer1"
    assert note(5) == ": layer0, layer1, layer2, layer3, layer4"
    assert note(6) == ": layer0, layer1, layer2, layer3, layer4 …"


def test_cio_and_compute_depend_on_the_convention() -> None:
    assert resolve_metric("cio", "cspnet") == "cio_cspnet"
    assert resolve_metric("cio", "hardnet") == "cio_hardnet"
    assert resolve_metric("cio", "fvcore") == "cio_cspnet"
    assert resolve_metric("compute", "cspnet") == "macs"
    assert resolve_metric("compute", "fvcore") == "fvcore"
    assert resolve_metric("moc", "hardnet") == "moc"


def test_rules_that_contradict_each_other() -> None:
    models = {"a": "cspnet", "b": "cspnet"}
    twice = [rule(id="x", max="24 M"), rule(id="y", max="30 M")]
    found = contradictions(twice, models)
    assert [c.message for c in found] == ["the rules 'x' and 'y' set two limits for max of macs for '*': 24 M and 30 M"]
    both_less = [
        rule(id="x", model="a", base="b", min_drop="5%"), rule(id="y", model="b", base="a", max_increase="0%"),
    ]  # fmt: skip
    assert [c.message for c in contradictions(both_less, models)] == [
        "the rules 'x' and 'y' require a and b each to have less macs than the other"
    ]
    fine = [
        rule(id="x", max="24 M", level="warn"), rule(id="y", max="30 M"), rule(id="z", model="a", max="20 M"),
        rule(id="u", max=1, level="off"), rule(id="v", model="a", base="b", max_increase="5%"),
        rule(id="w", model="b", base="a", max_increase="0%"), rule(id="t", model="a", base="c", min_drop="5%"),
        rule(id="s", model="c", base="a", min_drop="5%"), rule(id="q", model="b", base="b", min_drop="5%"),
    ]  # fmt: skip
    assert contradictions(fine, models) == []
    assert contradictions([rule(id="x", max=1, level="off"), rule(id="y", max=2, level="off")], models) == []
    assert len(contradictions([rule(id="x", max=1, level="warn"), rule(id="y", max=2, level="warn")], models)) == 1


@pytest.mark.parametrize(
    ("before", "now", "follows"),
    [
        # the layer before it became wider: the input changed, the settings did not
        ("conv2d 1x64x8x8 -> 1x128x8x8, kernel 3x3", "conv2d 1x96x8x8 -> 1x128x8x8, kernel 3x3", True),
        ("linear 1x128 -> 1x10", "linear 1x192 -> 1x10", True),
        ("avg_pool2d 1x64x8x8 -> 1x64x4x4, kernel 2x2", "avg_pool2d 1x96x8x8 -> 1x96x4x4, kernel 2x2", True),
        ("cat 1x8x4x4, 1x8x4x4 -> 1x16x4x4", "cat 1x8x4x4, 1x9x4x4 -> 1x17x4x4", True),
        # a stride before it was removed: a larger feature map through the same layer
        ("conv2d 1x64x8x8 -> 1x64x8x8", "conv2d 1x64x16x16 -> 1x64x16x16", True),
        # a depthwise convolution is as wide as its input
        ("conv2d 1x64x8x8 -> 1x64x8x8, groups 64", "conv2d 1x96x8x8 -> 1x96x8x8, groups 96", True),
        ("conv2d 1x64x8x8 -> 1x64x8x8, groups 64", "conv2d 1x96x8x8 -> 1x192x8x8, groups 96", False),
        # its width changed too
        ("conv2d 1x64x8x8 -> 1x64x8x8, kernel 3x3", "conv2d 1x96x8x8 -> 1x96x8x8, kernel 3x3", False),
        ("conv2d 1x64x8x8 -> 1x64x8x8, groups 8", "conv2d 1x96x8x8 -> 1x96x8x8, groups 8", False),
        ("linear 1x128 -> 1x10", "linear 1x192 -> 1x20", False),
        ("conv2d 1x64x8x8 -> 1x64x8x8, kernel 3x3", "conv2d 1x96x8x8 -> 1x64x8x8, kernel 5x5", False),
        # the same input
        ("conv2d 1x64x8x8 -> 1x64x8x8", "conv2d 1x64x8x8 -> 1x96x8x8", False),
        ("", "conv2d 1x64x8x8 -> 1x96x8x8", False),
        ("conv2d 1x64x8x8 -> 1x96x8x8", "", False),
    ],
)  # fmt: skip
def test_a_layer_with_the_same_settings_only_had_its_input_changed(before: str, now: str, follows: bool) -> None:
    assert Cause("a", Fraction(2), Fraction(1), now, before).only_input_changed is follows


# -- quantities -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("24 M", 24 * 10**6, ""), ("4.09 G", 4_090_000_000, ""), ("24M", 24 * 10**6, ""), ("1 k", 1000, ""),
        ("200 MB", 200 * 10**6, "bytes"), ("200 MiB", 200 * 2**20, "bytes"), ("1.5 KiB", 1536, "bytes"),
        ("7 B", 7, "bytes"), ("+2%", Fraction(1, 50), "%"), ("0%", 0, "%"), ("-5 %", Fraction(-1, 20), "%"),
        ("34,411,496", 34_411_496, ""), ("34_411_496", 34_411_496, ""), (24000000, 24_000_000, ""),
        (0.1, Fraction(1, 10), ""), ("1e6", 10**6, ""), ("4.09 GMACs", 4_090_000_000, "MACs"),
        ("7.93 BFLOPs", Fraction(793, 100), "BFLOPs"), ("24 M elements", 24 * 10**6, "elements"),
    ],
)  # fmt: skip
def test_parse_quantity_is_exact(text: str | int | float, value: int, unit: str) -> None:
    read = units.parse_quantity(text)
    assert (read.value, read.unit) == (value, unit)


@pytest.mark.parametrize(
    "text", ["", "M", "24 Q", "24.1.2 M", "2 k%", "1,2345", "24 m", "NaN", "inf", "1 iB", "--3", True]
)
def test_parse_quantity_refuses_other_text(text: str) -> None:
    with pytest.raises(CspprofError, match="cannot read the quantity") as caught:
        units.parse_quantity(text)
    assert caught.value.hint


@given(st.integers(0, 10**15), st.integers(1, 10**15), st.integers(1, 10**6),
       st.sampled_from(["MACs", "bytes", "fraction", "BFLOPs"]))  # fmt: skip
def test_a_failing_value_is_never_printed_equal_to_its_limit(n: int, over: int, under: int, unit: str) -> None:
    limit = Fraction(n, under)
    value = limit + Fraction(over, 10**9)
    failed = RuleResult("r", "max", "error", "m", "macs", FAILS, value=value, limit=limit)
    assert len({*value_and_limit(failed)}) == 2
    assert len({*units.distinct_texts(value, limit, unit)}) == 2


@given(st.fractions(), st.integers(0, 12))
def test_fixed_rounds_like_python_does(x: Fraction, places: int) -> None:
    assert Fraction(units.fixed(x, places).replace(units.MINUS, "-").replace(",", "")) == round(x, places)


# -- measurements ---------------------------------------------------------------------------------


def test_layer_totals_of_modules_are_sums_over_their_layers(chain: Profile) -> None:
    measured = measure("chain", chain, "cspnet", ["cio_cspnet", "params"])
    assert measured.total("cio_cspnet") == 48 + 128 + 128 + 128
    assert {p: measured.layer_total(p, "cio_cspnet") for p in measured.paths()} == {"a": 176, "b": 256}
    assert measured.layer_total("a", "params") == 216
    assert measured.layers["b"].operation == "conv2d 1x8x4x4 -> 1x8x4x4, kernel 3x3"
    assert measured.inputs == ("1x3x4x4:float32",)


def test_structural_hash_ignores_names_and_depends_on_operations(chain: Profile) -> None:

    layers = tuple(y._replace(path=y.path and f"net.{y.path}", class_name="Other") for y in chain.layers)
    assert structural_hash(replace(chain, layers=layers)) == structural_hash(chain)
    assert structural_hash(
        replace(chain, specs=(chain.specs[0], chain.specs[1], conv_spec(8, 8, 4, k=1)))
    ) != structural_hash(chain)
    moved = [0, 1, 3, 3, 3, 3, 2, 5]  # the same operations on other storages, which are numbered as they appear
    assert structural_hash(replace(chain, calls=replace(chain.calls, storage=moved))) == structural_hash(chain)


def test_structural_hash_matches_its_definition() -> None:
    """The definition must not change: baselines contain these hashes."""
    profile = cspprof.profile("csp_peleenet")
    numbers: dict[int, int] = {}
    text = ""
    for op in profile.ops:
        if op.kind is not Kind.VIEW:
            tensors = [[[*t.shape, t.dtype] for t in ts] for ts in (op.reads, op.weights, op.writes)]
            wires = [t.storage for ts in (op.reads, op.weights, op.writes) for t in ts]
            text += json.dumps([op.target, tensors, dict(op.attrs)], sort_keys=True, default=str)
            text += str([numbers.setdefault(n, len(numbers)) for n in wires])
    assert structural_hash(profile) == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert {op.kind is Kind.VIEW for op in profile.ops} == {True, False}


@pytest.mark.parametrize(
    ("layer", "message"),
    [({"macs": 1}, r"layers\.a\.is: expected `str`, got `null`"),
     ({"is": "conv2d", "macs": "1"}, r"a\.macs: expected `int`, got `str`"),
     ({"is": "conv2d", "macs": 1.5}, r"a\.macs: expected `int`, got `float`"),
     ({"is": "conv2d", "macs": None}, r"a\.macs: expected `int`, got `null`"),
     ({"is": "conv2d", "moc": {"over": 1}}, r"a\.moc: object missing required field `under`"), ([], "is damaged")],
)  # fmt: skip
def test_a_damaged_layer_in_a_baseline_is_refused(chain: Profile, layer: Any, message: str) -> None:
    document = json.loads(baseline.dump({"chain": measure("chain", chain, "cspnet", ["macs", "moc"])}))
    document["models"]["chain"]["layers"]["a"] = layer
    with pytest.raises(baseline.BaselineError, match=message):
        baseline.parse(json.dumps(document).encode(), "b.json")


@pytest.mark.parametrize("metrics", [["macs"], ["macs", "moc", "peak_bytes"], []])
def test_a_baseline_keeps_the_layers(chain: Profile, metrics: list[str]) -> None:
    measured = measure("chain", chain, "cspnet", metrics)
    layers = baseline.parse(baseline.dump({"chain": measured}), "b.json")["chain"].layers
    assert [(p, x.operation, x.amounts) for p, x in sorted(layers.items())] == [
        (p, x.operation, x.amounts) for p, x in sorted(measured.layers.items())
    ]


def test_reading_and_writing_a_baseline_gives_the_same_bytes() -> None:
    data = (CHECKOUT / "cspprof-baseline.json").read_bytes()  # recorded by release 0.1.0
    assert baseline.dump(baseline.parse(data, "b.json")) == data
