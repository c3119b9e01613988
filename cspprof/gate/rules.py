"""Whether a rule holds for a model: pure functions of rules and measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from math import floor

from cspprof.analysis.headline import NEARLY_ALL, OF_CONVOLUTIONS
from cspprof.core.registry import suggestion
from cspprof.core.units import Quantity, change, distinct_texts, share
from cspprof.gate.baseline import UPDATE_COMMAND
from cspprof.gate.causes import Cause
from cspprof.gate.config import LATENCY, LIMITS, Level, Rule
from cspprof.gate.measurement import Measurement
from cspprof.measure.statistics import Estimate
from cspprof.metrics import CONVENTIONS, METRICS
from cspprof.metrics.names import resolve_metric

BASELINE = "the baseline"
"""The name of the baseline in messages. A base of any other name is another model, or a git revision."""
Base = Measurement | str | None
"""What a rule compares with, or a message that says why there is nothing."""


class Outcome(StrEnum):
    """The outcome of a rule for a model or layer."""

    HOLDS = "holds"
    FAILS = "fails"
    UNKNOWN = "unknown"
    """The value, or the base, is not known."""


@dataclass(frozen=True, slots=True)
class RuleResult:
    """The result of one rule for one model, or for one of its layers."""

    rule: str
    kind: str
    level: Level
    model: str
    metric: str
    outcome: Outcome
    layer: str = ""
    value: Fraction | None = None
    limit: Fraction | None = None
    """The largest value for which the rule holds."""
    base: Fraction | None = None
    """The value that it is compared with."""
    base_name: str = ""
    message: str = ""
    hint: str = ""
    line: int | None = None
    """The line of the rule in the configuration."""
    at_least: bool = False
    """Whether the value is a lower bound, because it misses operations."""
    conv_share: float | None = None
    """The share of the MACs of the model that a metric of convolutions sees, if it is less than nearly all."""
    peak_path: str = ""
    """The layer of the peak, if the metric is the peak memory."""
    engine: str = ""
    """The engine in which the model ran; empty for counts."""
    ratio: Estimate | None = None
    """The measured time divided by that of the base, if both were measured."""
    least_difference: float | None = None
    """The spread of the A/A pair: differences up to it mean nothing."""
    causes: tuple[Cause, ...] = field(default=(), repr=False)

    @property
    def difference(self) -> Fraction | None:
        """Value minus limit: positive if the limit is exceeded."""
        return None if self.value is None or self.limit is None else self.value - self.limit

    @property
    def severity(self) -> Fraction:
        """The difference relative to the limit; the worst failure has the largest."""
        if self.value is None or self.limit is None:
            return Fraction(0)
        return self.value / self.limit - 1 if self.limit else 10**9 + self.value

    @property
    def unit(self) -> str:
        """The unit of value and limit; empty for `engine_ready`, which has none."""
        if self.engine:
            return "ms" if self.metric == LATENCY else ""
        return "fraction" if self.kind == "max_share" else METRICS.get(self.metric).unit

    @property
    def place(self) -> str:
        """The model, or its layer: `net.stage1.conv`."""
        return f"{self.model}.{self.layer}" if self.layer else self.model


# -- evaluating a rule -----------------------------------------------------------------------------


def evaluate(rule: Rule, measurement: Measurement, base: Base = None, base_name: str = "") -> list[RuleResult]:
    """The result for a model or, if the rule has a layer glob, one result for each layer that it matches."""
    metric = resolve_metric(rule.metric, measurement.convention)
    evaluation = _Evaluation(rule, measurement, metric, base, base_name)
    if error := _metric_error(rule, metric):
        return [evaluation.unknown(*error)]
    if rule.kind == "max_share":
        return [evaluation.largest_share()]
    if rule.layer is None:
        return [evaluation.compare("")]
    paths = [
        path
        for path in measurement.matching_paths(rule.layer)
        if measurement.layer_total(path, metric) is not None or measurement.missed(metric, path)
    ]
    if not paths:
        return [evaluation.no_layer()]
    return [evaluation.compare(path) for path in paths]


def _metric_error(rule: Rule, metric: str) -> tuple[str, str] | None:
    """Message and hint if the limit has another unit than the metric, or if layers do not have the metric."""
    registered = METRICS.get(metric)
    scaled = registered.unit.startswith("MACs/") or getattr(registered.zero, "scale", 1) != 1
    for key, limit in ((rule.kind, rule.limit), ("tolerance", rule.tolerance)):
        if limit.relative:
            continue
        if limit.unit and limit.unit != registered.unit:
            example = "200 MB" if registered.unit == "bytes" else "7.93" if scaled else "24 M"
            return (
                f"{key} = {limit.text!r} is in {limit.unit}, but {metric} is in {registered.unit}",
                f"Write a number of {registered.unit}, such as {example}",
            )
        if limit.prefixed and scaled:
            return (
                f"{key} = {limit.text!r}: {metric} is already in {registered.unit}",
                "Write it without k, M or G: 7.93",
            )
    if (rule.layer is not None or rule.kind == "max_share") and registered.of_op is None and metric != "params":
        return (
            f"{metric} is a metric of whole models",
            "Use a metric of layers: macs, cio_cspnet, traffic_bytes, params",
        )
    if rule.kind == "max_share" and metric != "params" and not registered.additive:
        message = f"{metric} is not a sum over layers, so a layer has no share of it"
        return message, "Use a metric that is a sum: macs, cio_cspnet, params"
    return None


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """One rule on one model."""

    rule: Rule
    measurement: Measurement
    metric: str
    base: Base
    base_name: str

    def largest_share(self) -> RuleResult:
        """The largest layer's share of the total (or the largest among the layers that the glob matches)."""
        if incomplete := incomplete_error(self.measurement, self.metric):
            return self.unknown(
                *incomplete
            )  # the operation that is missed can be the largest, or make all shares smaller
        total = self.measurement.total(self.metric)
        if self.rule.layer is None:
            amounts = ((path, layer.amounts.get(self.metric)) for path, layer in self.measurement.layers.items())
            values = {path: amount.exact for path, amount in amounts if amount is not None}
        else:
            paths = self.measurement.matching_paths(self.rule.layer)
            values = {path: self.measurement.layer_total(path, self.metric) for path in paths}
        if not values or not total:
            return self.no_layer()
        path, largest = max(((path, value or Fraction(0)) for path, value in values.items()), key=lambda item: item[1])
        return self.decide(path, largest / total, self.rule.limit.value, None)

    def compare(self, path: str) -> RuleResult:
        """The result for the layer `path`, or for the whole model if it is empty."""
        rule, measurement, base, metric = self.rule, self.measurement, self.base, self.metric
        value = measurement.layer_total(path, metric) if path else measurement.total(metric)
        if value is None:
            if incomplete := incomplete_error(measurement, metric, path):
                return self.unknown(*incomplete, path)
            reason = "the denominator of this ratio is 0"
            if metric in CONVENTIONS and metric not in METRICS:
                reason = "the rule of this convention gives no total for it"
            return self.unknown(f"{measurement.name} has no {metric}: {reason}", "Use another metric.", path)
        if rule.kind == "max":
            return self.decide(path, value, rule.limit.value, None)
        if not isinstance(base, Measurement):
            message = base or f"nothing was recorded for {measurement.name}"
            return self.unknown(message, f"Correct {rule.base} first." if rule.base else self.record_hint(), path)
        mismatch = (
            input_mismatch(measurement, base) if rule.base else settings_mismatch(measurement, base, self.base_name)
        )
        if mismatch:
            return self.unknown(*mismatch, path)
        before = base.layer_total(path, metric) if path else base.total(metric)
        if before is None:
            what = f"{path} of {base.name}" if path else base.name
            hint = "Compare whole models, or layers that both models have." if rule.base else self.record_hint()
            return self.unknown(f"{self.base_name} has no {metric} for {what}", hint, path)
        if incomplete := incomplete_error(base, metric, path):
            return self.unknown(*incomplete, path)
        return self.decide(path, value, _limit_from(rule, before), before)

    def decide(self, path: str, value: Fraction, limit: Fraction, before: Fraction | None) -> RuleResult:
        """The result for a value. A value that misses operations is a lower bound: it can fail, but not hold."""
        rule = self.rule
        incomplete = incomplete_error(self.measurement, self.metric, path)
        limit += _amount_of(rule.tolerance, limit)
        if value.denominator == 1 and METRICS.get(self.metric).unit != "fraction":
            limit = Fraction(floor(limit))  # an integer is at most 103.02 if it is at most 103
        numbers: dict[str, object] = {"value": value, "limit": limit, "base": before, "base_name": self.base_name}
        numbers["at_least"] = incomplete is not None
        if value > limit:
            message = failure_message(self.result(Outcome.FAILS, path, **numbers), rule)
            hint = NO_DROP_HINT if rule.kind == "min_drop" and rule.base is None and value == before else ""
            return self.result(Outcome.FAILS, path, message=message, hint=hint, **numbers)
        if incomplete:
            return self.result(Outcome.UNKNOWN, path, message=incomplete[0], hint=incomplete[1], **numbers)
        # A ratchet asks for a new recording, which a revision cannot have.
        if rule.ratchet_step is not None and before is not None and self.base_name in ("", BASELINE):
            improved = before - _amount_of(rule.ratchet_step, before)
            if value <= improved and value < before:
                numbers["limit"] = None
                result = self.result(Outcome.FAILS, path, **numbers)
                now, then = distinct_texts(value, before, result.unit)
                percent = change(float((value - before) / before))
                message = f"{_subject(result)} is {now}, better than {self.base_name}'s {then} ({percent})"
                hint = f"Record the improvement: {UPDATE_COMMAND}"
                return self.result(Outcome.FAILS, path, message=message, hint=hint, **numbers)
        return self.result(Outcome.HOLDS, path, **numbers)

    def no_layer(self) -> RuleResult:
        measurement, glob = self.measurement, self.rule.layer or "**"
        known = [p for p in measurement.paths() if measurement.layer_total(p, self.metric) is not None]
        message = f"{glob!r} matches no layer of {measurement.name} that has {self.metric}"
        return self.unknown(message, suggestion(glob, known))

    def record_hint(self) -> str:
        return _record_hint(self.base_name, "Record it")

    def result(self, outcome: Outcome, layer: str = "", **rest: object) -> RuleResult:
        rule, share = self.rule, self.measurement.conv_share
        shown = share if self.metric in OF_CONVOLUTIONS and share is not None and share < NEARLY_ALL else None
        return RuleResult(
            rule.id, rule.kind, rule.level, self.measurement.name, self.metric, outcome, layer, conv_share=shown,
            peak_path=self.measurement.peak_path if self.metric == "peak_bytes" else "",
            **rest,  # type: ignore[arg-type]  # fields of RuleResult by name
        )  # fmt: skip

    def unknown(self, message: str, hint: str, layer: str = "") -> RuleResult:
        return self.result(Outcome.UNKNOWN, layer, message=message, hint=hint)


def _amount_of(quantity: Quantity, whole: Fraction) -> Fraction:
    """The quantity as an amount; a percentage is taken of `whole`."""
    return quantity.value * whole if quantity.relative else quantity.value


def _limit_from(rule: Rule, before: Fraction) -> Fraction:
    step = _amount_of(rule.limit, before)
    return before + step if rule.kind == "max_increase" else before - step


# -- measurements that cannot be compared ----------------------------------------------------------


def incomplete_error(measurement: Measurement, metric: str = "macs", path: str = "") -> tuple[str, str] | None:
    """Message and hint if a metric of the model, or of its layer `path`, misses operations of which the part is
    unknown."""
    missed = measurement.missed(metric, path)
    if not missed:
        return None
    hint = "Write a rule for each: see cspprof.op_rule."
    if not measurement.uncounted:
        what = "an operation" if missed == 1 else f"{missed} operations"
        return f"{metric} of {measurement.name} misses {what} of unknown kind", hint
    operations = ", ".join(f"{name} ({n})" for name, n in measurement.uncounted.items())
    return f"{measurement.name} has operations without a rule: {operations}", hint


def settings_mismatch(measurement: Measurement, recorded: Measurement, base_name: str) -> tuple[str, str] | None:
    """Message and hint if the model was recorded with another input or convention, or in another form."""
    for what, now, then in (
        ("deploy", *("true" if m.deployed else "false" for m in (measurement, recorded))),
        ("input", ", ".join(measurement.inputs), ", ".join(recorded.inputs)),
        ("convention", measurement.convention, recorded.convention),
    ):
        if now != then:
            message = f"{base_name} has {measurement.name} with {what} {then}, but it is {now} now"
            return message, _record_hint(base_name, "Record it again")
    return None


def input_mismatch(measurement: Measurement, base: Measurement) -> tuple[str, str] | None:
    """Message and hint if two models have different inputs: a smaller image does not make a better network."""
    if measurement.inputs == base.inputs:
        return None
    ours, theirs = (", ".join(m.inputs) for m in (measurement, base))
    message = f"{measurement.name} is measured on {ours}, but {base.name} on {theirs}"
    return message, f"Give both the same input: {theirs}"


def _record_hint(base_name: str, verb: str) -> str:
    if base_name in ("", BASELINE):
        return f"{verb}: {UPDATE_COMMAND}"
    return "Compare with a later revision, or with the baseline."


# -- messages --------------------------------------------------------------------------------------

NO_DROP_HINT = 'Nothing changed. If the smaller network is recorded already, use max_increase = "0%" from now on.'
"""For min_drop without a base: it fails as soon as the smaller network is recorded, since nothing drops any more."""


def failure_message(result: RuleResult, rule: Rule) -> str:
    """A failure in one sentence: the value, the limit and the difference."""
    assert result.value is not None
    assert result.limit is not None
    value, limit = distinct_texts(result.value, result.limit, result.unit)
    least = "at least " if result.at_least else ""
    excess = f"the limit is {limit}, exceeded by {least}{difference_text(result)}"
    if result.kind == "max_share":
        return f"{result.layer} has {value} of the {result.metric} of {result.model}; {excess}"
    text = f"{_subject(result)} is {least}{value}; {excess}"
    if result.base is None:
        return text
    base, _ = distinct_texts(result.base, result.value, result.unit)
    amount = rule.limit.text.lstrip("+")
    allowed = f"at most {amount} above" if result.kind == "max_increase" else f"at least {amount} below"
    now = f"; now {least}{change(float(result.value / result.base - 1))}" if result.base else ""
    return f"{text} ({allowed} {result.base_name}'s {base}{now})"


def difference_text(result: RuleResult) -> str:
    """The difference from the limit, in the unit of the metric."""
    if result.difference is None:
        return ""
    text, zero = distinct_texts(result.difference, Fraction(0), result.unit)
    return zero if result.difference == 0 else text


def _subject(result: RuleResult) -> str:
    return f"{result.metric} of {result.place}{metric_remark(result)}"


def metric_remark(result: RuleResult) -> str:
    """` (sees 2.3 % of the MACs)` for a metric of convolutions, if these do not have nearly all MACs;
    ` (at stage1.0.conv)` for the peak memory; ` (onnxruntime)` for an engine; else empty."""
    if result.engine:
        return f" ({result.engine})"
    if result.peak_path:
        return f" (at {result.peak_path})"
    return "" if result.conv_share is None else f" (sees {share(result.conv_share)} of the MACs)"


# -- rules that contradict each other --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two rules that no model can satisfy, or that set two limits for the same value."""

    first: str
    second: str
    message: str


def contradictions(rules: Sequence[Rule], models: Mapping[str, str]) -> list[Contradiction]:
    """The pairs of rules that contradict each other; `models` has the convention of each model."""
    pairs = []
    active = [rule for rule in rules if rule.level != "off" and rule.kind in LIMITS]
    for i, a in enumerate(active):
        for b in active[i + 1 :]:
            if _same_subject(a, b) and a.limit.value != b.limit.value:
                what = f"{a.kind} of {a.metric} for {a.model!r}" + (f", layers {a.layer!r}" if a.layer else "")
                limits = f"{a.limit.text} and {b.limit.text}"
                message = f"the rules {a.id!r} and {b.id!r} set two limits for {what}: {limits}"
                pairs.append(Contradiction(a.id, b.id, message))
            elif _each_smaller_than_other(a, b, models):
                message = f"the rules {a.id!r} and {b.id!r} require {b.base} and {a.base} each to have less {a.metric}"
                pairs.append(Contradiction(a.id, b.id, f"{message} than the other"))
    return pairs


def _same_subject(a: Rule, b: Rule) -> bool:
    def subject(rule: Rule) -> tuple[object, ...]:
        return rule.model, rule.layer, rule.metric, rule.engine, rule.kind, rule.base, rule.level, rule.limit.relative

    return subject(a) == subject(b)


def _each_smaller_than_other(a: Rule, b: Rule, models: Mapping[str, str]) -> bool:
    """Whether the rules require each of two models to be smaller than the other."""
    if a.base is None or b.base is None or a.layer or b.layer or not (a.limit.relative and b.limit.relative):
        return False
    if a.base not in models or b.base not in models or not (b.applies_to(a.base) and a.applies_to(b.base)):
        return False
    if resolve_metric(a.metric, models[b.base]) != resolve_metric(b.metric, models[a.base]):
        return False
    return _limit_from(a, Fraction(1)) * _limit_from(b, Fraction(1)) < 1
