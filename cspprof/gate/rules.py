"""Pass or fail: pure functions of a rule and of what was measured. Nothing is read, traced or printed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from fractions import Fraction
from math import floor

from cspprof.core.units import Quantity, change, distinct_texts
from cspprof.gate.baseline import RECORD
from cspprof.gate.config import Level, Rule
from cspprof.gate.measurement import Measured, chosen
from cspprof.gate.metric_names import metric_of, suggestion
from cspprof.metrics import METRICS

BASELINE = "the baseline"
"""What messages call the recorded numbers; a reference of any other name is another model, or a revision."""

ALREADY = 'It is what it was. If that is the smaller network already, keep it so with max_increase = "0%"'
"""A drop is asked for, and before and after are the same: as soon as the refactor that paid has been recorded."""


class Outcome(StrEnum):
    """What came of one rule on one model or layer."""

    HOLDS = "holds"
    FAILS = "fails"
    UNKNOWN = "unknown"
    """It could not be measured."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A layer that a failure comes from."""

    layer: str
    value: Fraction
    before: Fraction | None
    """None where it is new, or there is nothing to compare with."""
    form: str
    form_before: str = ""
    owner: str = ""
    file: str = ""
    line: int | None = None
    new: bool = False
    """Whether what it is compared with does not have it."""

    @property
    def difference(self) -> Fraction:
        return self.value - (self.before or 0)

    @property
    def follows(self) -> bool:
        """Whether it only reads another input: what feeds it was changed, and nothing that the layer itself decides."""
        then, now = self.form_before, self.form
        return bool(then and now) and then != now and chosen(then) == chosen(now)


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule on one model, or on one of its layers."""

    rule: str
    kind: str
    level: Level
    model: str
    metric: str
    outcome: Outcome
    layer: str = ""
    value: Fraction | None = None
    limit: Fraction | None = None
    """What `value` may at most be."""
    reference: Fraction | None = None
    """The base's value, for a rule that compares."""
    reference_name: str = ""
    message: str = ""
    hint: str = ""
    line: int | None = None
    """Of the rule, in the configuration."""
    causes: tuple[Cause, ...] = field(default=(), repr=False)

    @property
    def difference(self) -> Fraction | None:
        """How far past the limit; negative where there is room."""
        return None if self.value is None or self.limit is None else self.value - self.limit

    @property
    def severity(self) -> Fraction:
        """How bad, for putting the worst first: the excess relative to the limit."""
        if self.difference is None or self.limit is None:
            return Fraction(0)
        return self.difference / self.limit if self.limit else Fraction(10**9) + self.difference

    @property
    def unit(self) -> str:
        return "fraction" if self.kind == "max_share" else METRICS.get(self.metric).unit

    @property
    def place(self) -> str:
        return f"{self.model}.{self.layer}" if self.layer else self.model


Reference = Measured | str | None
"""What a rule compares with; a text says why there is none."""


def selected(rule: Rule, models: Sequence[str]) -> list[str]:
    """The models that a rule is about. A model is not compared with itself."""
    return [m for m in models if fnmatchcase(m, rule.model) and m != rule.base]


def judge(rule: Rule, found: Measured, reference: Reference = None, reference_name: str = "") -> list[Finding]:
    """What the rule says of one model: one finding, or one for each layer that its glob matches."""
    metric = metric_of(rule.metric, found.convention)
    case = _Case(rule, found, metric, reference, reference_name)
    wrong = _unfit(rule, metric)
    if wrong:
        return [case.unknown(*wrong)]
    if rule.kind == "max_share":
        return [_share(case)]
    if rule.layer is None:
        return [_compare(case, "")]
    paths = [p for p in found.matching(rule.layer) if found.layer(p, metric) is not None]
    if not paths:
        return [case.unknown(*_no_layer(rule, found, metric))]
    return [_compare(case, path) for path in paths]


@dataclass(frozen=True, slots=True)
class _Case:
    rule: Rule
    found: Measured
    metric: str
    reference: Reference
    reference_name: str

    def finding(self, outcome: Outcome, layer: str = "", **rest: object) -> Finding:
        return Finding(
            self.rule.id, self.rule.kind, self.rule.level, self.found.name, self.metric, outcome, layer, **rest  # type: ignore[arg-type]
        )  # fmt: skip

    def unknown(self, message: str, hint: str, layer: str = "") -> Finding:
        return self.finding(Outcome.UNKNOWN, layer, message=message, hint=hint)


def _unfit(rule: Rule, metric: str) -> tuple[str, str] | None:
    """A limit in another unit than the metric's, or a metric that layers do not have."""
    m = METRICS.get(metric)
    natural = m.zero.scale == 1 if hasattr(m.zero, "scale") else not m.unit.startswith("MACs/")
    for key, limit in ((rule.kind, rule.limit), ("tolerance", rule.tolerance)):
        unit = "" if limit.relative else limit.unit
        if unit and unit != m.unit:
            example = "200 MB" if m.unit == "bytes" else "24 M" if natural else "7.93"
            return (
                f"{key} = {limit.text!r} is in {unit}, but {metric} is in {m.unit}",
                f"Write a number of {m.unit}, such as {example}",
            )
        if limit.prefixed and not natural and not limit.relative:
            return f"{key} = {limit.text!r}: {metric} is in {m.unit} already", "Write it without k, M or G: 7.93"
    if (rule.layer is not None or rule.kind == "max_share") and m.of_op is None and metric != "params":
        return f"{metric} is a number of whole models", "Take one of layers: macs, cio_cspnet, traffic_bytes, params"
    if rule.kind == "max_share" and metric != "params" and not m.additive:
        return f"{metric} does not add up over layers, so no layer has a share of it", "Take macs, cio_cspnet …"
    return None


def _no_layer(rule: Rule, found: Measured, metric: str) -> tuple[str, str]:
    glob = rule.layer or "**"
    valued = [p for p in found.names() if found.layer(p, metric) is not None]
    return f"no layer of {found.name} that has {metric} matches {glob!r}", suggestion(glob, valued, "such layer")


def _incomplete(found: Measured) -> tuple[str, str] | None:
    if not found.uncounted:
        return None
    named = ", ".join(f"{name} ({n})" for name, n in found.uncounted.items())
    return f"{found.name} has operations without a rule: {named}", "Teach cspprof the operation: see cspprof.op_rule."


def _share(case: _Case) -> Finding:
    found, metric, rule = case.found, case.metric, case.rule
    whole = found.total(metric)
    values = {p: v for p in found.parts if (v := found.layer(p, metric)) is not None}
    if rule.layer is not None:
        values = {p: found.layer(p, metric) or Fraction(0) for p in found.matching(rule.layer)}
    if not values or not whole:
        return case.unknown(*_no_layer(rule, found, metric))
    path, largest = max(values.items(), key=lambda item: item[1])
    limit = _widened(rule.limit.value, rule.tolerance)
    return _settled(case, path, largest / whole, limit, None)


def _compare(case: _Case, path: str) -> Finding:
    rule, found, metric = case.rule, case.found, case.metric
    value = found.layer(path, metric) if path else found.total(metric)
    if value is None:
        return case.unknown(f"{found.name} has no {metric}: it is a ratio over nothing", "Take another metric.", path)
    if rule.kind == "max":
        return _settled(case, path, value, _widened(rule.limit.value, rule.tolerance), None)
    if not isinstance(case.reference, Measured):
        message = case.reference or f"nothing was recorded for {found.name}"
        return case.unknown(message, f"Mend {rule.base} first." if rule.base else _remedy(case.reference_name), path)
    base = case.reference
    differs = unlike(found, base) if rule.base else recorded_otherwise(found, base, case.reference_name)
    if differs:
        return case.unknown(*differs, path)
    before = base.layer(path, metric) if path else base.total(metric)
    if before is None:
        what = f"{path} of {base.name}" if path else base.name
        remedy = "Compare whole models, or layers that both have." if rule.base else _remedy(case.reference_name)
        return case.unknown(f"{case.reference_name} has no {metric} for {what}", remedy, path)
    if (unsure := _incomplete(base)) is not None:
        return case.unknown(*unsure, path)
    return _settled(case, path, value, _widened(_bound(rule, before), rule.tolerance), before)


def _bound(rule: Rule, before: Fraction) -> Fraction:
    step = rule.limit.value * before if rule.limit.relative else rule.limit.value
    return before + step if rule.kind == "max_increase" else before - step


def _widened(limit: Fraction, tolerance: Quantity) -> Fraction:
    return limit + (tolerance.value * limit if tolerance.relative else tolerance.value)


def recorded_otherwise(found: Measured, base: Measured, name: str) -> tuple[str, str] | None:
    """Numbers of another input or in another sense are not compared."""
    for what, ours, theirs in (
        ("input", ", ".join(found.inputs), ", ".join(base.inputs)),
        ("convention", found.convention, base.convention),
    ):
        if ours != theirs:
            return f"{name} has {found.name} with {what} {theirs}, now it is {ours}", _remedy(name, " again")
    return None


def unlike(found: Measured, base: Measured) -> tuple[str, str] | None:
    """Two models on different inputs are not compared: a smaller picture is no better network."""
    if found.inputs == base.inputs:
        return None
    ours, theirs = (", ".join(m.inputs) for m in (found, base))
    return f"{found.name} is measured on {ours}, {base.name} on {theirs}", f"Give both the same input: {theirs}"


def _remedy(name: str, again: str = "") -> str:
    return (
        f"Record it{again}: {RECORD}" if name in ("", BASELINE) else "Compare with a later revision, or the baseline."
    )


def _settled(case: _Case, path: str, value: Fraction, limit: Fraction, before: Fraction | None) -> Finding:
    """The verdict on a value. Totals of a model with unknown operations are lower bounds: they can fail, not hold."""
    rule = case.rule
    whole = value.denominator == 1 and METRICS.get(case.metric).unit != "fraction"
    if whole and limit.denominator != 1:
        limit = Fraction(floor(limit))  # an integer is at most 103.02 where it is at most 103
    numbers = {"value": value, "limit": limit, "reference": before, "reference_name": case.reference_name}
    if value > limit:
        made = case.finding(Outcome.FAILS, path, **numbers)
        unmoved = rule.kind == "min_drop" and rule.base is None and value == before
        return _with_message(made, told(made, rule), ALREADY if unmoved else "")
    if (unsure := _incomplete(case.found)) is not None:
        return case.finding(Outcome.UNKNOWN, path, message=unsure[0], hint=unsure[1], **numbers)
    if rule.gain is not None and before is not None and case.reference_name in ("", BASELINE):  # no revision is renewed
        asked = before - (rule.gain.value * before if rule.gain.relative else rule.gain.value)
        if value <= asked and value < before:
            made = case.finding(Outcome.FAILS, path, value=value, reference=before, reference_name=case.reference_name)
            now, then = distinct_texts(value, before, made.unit)
            better = change(float((value - before) / before))
            text = f"{_subject(made)} is {now}, {better} against {case.reference_name}'s {then}"
            return _with_message(made, text, f"Keep the gain: {RECORD}")
    return case.finding(Outcome.HOLDS, path, **numbers)


def _with_message(finding: Finding, message: str, hint: str) -> Finding:
    return replace(finding, message=message, hint=hint)


def _subject(finding: Finding) -> str:
    return f"{finding.metric} of {finding.place}"


def told(finding: Finding, rule: Rule) -> str:
    """A failure in one sentence: value, limit, difference."""
    assert finding.value is not None
    assert finding.limit is not None
    value, limit = distinct_texts(finding.value, finding.limit, finding.unit)
    over = difference(finding)
    if finding.kind == "max_share":
        return (
            f"{finding.layer} has {value} of the {finding.metric} of {finding.model}; {limit} is allowed: {over} more"
        )
    text = f"{_subject(finding)} is {value}; {limit} is allowed: {over} more"
    if finding.reference is None:
        return text
    base, _ = distinct_texts(finding.reference, finding.value, finding.unit)
    moved = "" if not finding.reference else f", now {change(float(finding.value / finding.reference - 1))}"
    asked = {"max_increase": "at most +", "min_drop": "at least \N{MINUS SIGN}"}[finding.kind] + rule.limit.text.lstrip(
        "+"
    )
    return f"{text} ({asked} against {finding.reference_name}'s {base}{moved})"


def difference(finding: Finding) -> str:
    """How far past the limit, in the metric's unit."""
    if finding.difference is None:
        return ""
    text, zero = distinct_texts(finding.difference, Fraction(0), finding.unit)
    return zero if finding.difference == 0 else text


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two rules that no model can satisfy, or that set two limits to one thing."""

    first: str
    second: str
    message: str


def contradictions(rules: Sequence[Rule], models: Mapping[str, str]) -> list[Contradiction]:
    """Rules that disagree; `models` gives the convention of each model."""
    found = []
    active = [r for r in rules if r.level != "off"]
    for i, a in enumerate(active):
        for b in active[i + 1 :]:
            if _same_subject(a, b) and a.limit.value != b.limit.value:
                found.append(Contradiction(a.id, b.id, _two_limits(a, b)))
            elif impossible := _against_each_other(a, b, models):
                found.append(Contradiction(a.id, b.id, impossible))
    return found


def _same_subject(a: Rule, b: Rule) -> bool:
    def subject(r: Rule) -> tuple[object, ...]:
        return r.model, r.layer, r.metric, r.kind, r.base, r.level, r.limit.relative

    return subject(a) == subject(b)


def _two_limits(a: Rule, b: Rule) -> str:
    what = f"{a.kind} of {a.metric} for {a.model!r}" + (f", layers {a.layer!r}" if a.layer else "")
    return f"the rules {a.id!r} and {b.id!r} set two limits for {what}: {a.limit.text} and {b.limit.text}"


def _against_each_other(a: Rule, b: Rule, models: Mapping[str, str]) -> str:
    """Two models that each have to be smaller than the other."""
    if a.base is None or b.base is None or a.layer or b.layer or not (a.limit.relative and b.limit.relative):
        return ""
    if a.base not in selected(b, list(models)) or b.base not in selected(a, list(models)):
        return ""
    if metric_of(a.metric, models.get(b.base, "")) != metric_of(b.metric, models.get(a.base, "")):
        return ""
    if _factor(a) * _factor(b) >= 1:
        return ""
    return f"the rules {a.id!r} and {b.id!r} ask {b.base} and {a.base} each to have less {a.metric} than the other"


def _factor(rule: Rule) -> Fraction:
    return _bound(rule, Fraction(1))
