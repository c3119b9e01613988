"""A check: measure the models, evaluate the rules, find the causes of failures. And the update of the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from cspprof.analysis.headline import LEAST_SHARE, OF_CONVOLUTIONS
from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.registry import suggestion
from cspprof.core.units import share
from cspprof.gate import baseline
from cspprof.gate.causes import find_causes
from cspprof.gate.config import Config, Problem, Rule
from cspprof.gate.engine_rules import evaluate_on_engines, latency_note
from cspprof.gate.measurement import Measurement, measure_models
from cspprof.gate.reference import Reference, read_baseline
from cspprof.gate.rules import Outcome, RuleResult, contradictions, evaluate, incomplete_error
from cspprof.measure.session import Progress


@dataclass(frozen=True)
class Verdict:
    """The result of a check."""

    config: Config
    results: tuple[RuleResult, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    measurements: Mapping[str, Measurement]

    @property
    def failures(self) -> list[RuleResult]:
        """The results that fail, errors before warnings, the worst first."""
        failed = [r for r in self.results if r.outcome is Outcome.FAILS]
        return sorted(failed, key=lambda r: (r.level != "error", -r.severity))

    @property
    def unknown(self) -> list[RuleResult]:
        return [r for r in self.results if r.outcome is Outcome.UNKNOWN]

    @property
    def exit_code(self) -> int:
        """1 if a rule of level error fails, else 2 if something cannot be measured, else 0."""
        if any(r.level == "error" for r in self.failures):
            return 1
        return 2 if self.problems or self.unknown else 0

    @property
    def ok(self) -> bool:
        return self.exit_code == 0


def check(
    config: Config, names: Sequence[str] = (), reference: Reference | None = None,
    progress: Progress = lambda text, done, steps: None, records: Mapping[str, Record] = MappingProxyType({}),
) -> Verdict:  # fmt: skip
    """Evaluate the rules on the models that the globs `names` match, or on all models.

    `reference` replaces the baseline. `progress` shows what runs in engines. `records` has, by name, models that were
    traced already. Raises UnknownNameError for a name that no model has. Everything else that cannot be read or
    measured is a problem of the verdict.
    """
    selected = config.select_models(names)
    pairs, problems = rules_and_models(config, selected)
    problems = [*config.problems, *problems]
    if not pairs and not problems:
        message = f"{config.name} has no rules"
        if config.rules:
            message = f"no rule of {config.name} applies to {', '.join(selected) or 'a model'}"
        hint = f'Write one:\n[[{config.table}rules]]\nid = "cio"\nmax_increase = "0%"'
        problems.append(Problem(config.name, message, hint))
    if reference is None:
        reference, unreadable = read_baseline(config)
        problems += unreadable
    needed = dict.fromkeys([*(model for _, model in pairs), *(rule.base for rule, _ in pairs if rule.base)])
    measurements, unmeasured = measure_models(config, needed, records)
    pairs = [(rule, model) for rule, model in pairs if model in measurements]
    on_engines = [pair for pair in pairs if pair[0].runs_engine]
    ran = evaluate_on_engines(config, on_engines, measurements, reference, progress) if on_engines else {}
    results = []
    for rule, model in pairs:
        if rule.runs_engine:
            results.append(replace(ran[rule.id, model], line=config.rule_lines.get(rule.id)))
        else:
            results += _evaluate(config, rule, model, measurements, reference)
    notes = [
        *structure_notes(measurements, reference, selected), *cio_notes(results),
        *filter(None, map(latency_note, results)),
    ]  # fmt: skip
    return Verdict(config, tuple(results), (*problems, *unmeasured), tuple(notes), measurements)


def rules_and_models(config: Config, selected: Sequence[str]) -> tuple[list[tuple[Rule, str]], list[Problem]]:
    """Each rule with each selected model that it applies to; problems for rules that apply to no model of the file."""
    pairs, problems = [], []
    if not config.models and not config.problems:
        problems.append(Problem(config.name, *_without_models(config)))
    for rule in config.rules if config.models else ():
        if rule.level == "off":
            continue
        models = [model for model in config.models if rule.applies_to(model)]
        if not models:
            message = f"rule {rule.id!r}: no model matches {rule.model!r}"
            problems.append(config.rule_problem(rule.id, message, suggestion(rule.model, config.models)))
        elif rule.base is not None and rule.base not in config.models:
            message = f"rule {rule.id!r}: its base {rule.base!r} is not a model"
            problems.append(config.rule_problem(rule.id, message, suggestion(rule.base, config.models)))
        else:
            pairs += [(rule, model) for model in models if model in selected]
    for contradiction in contradictions(
        config.rules, {name: model.convention for name, model in config.models.items()}
    ):
        other = f"The other is on line {config.rule_lines.get(contradiction.first)}"
        hint = f"{other}: remove one of them, or give it another level."
        problems.append(config.rule_problem(contradiction.second, contradiction.message, hint))
    return pairs, problems


def _without_models(config: Config) -> tuple[str, str]:
    """The message and the hint for a configuration that names no model."""
    return f"{config.name} has no models", f'Write one:\n[{config.table}models.net]\ntarget = "net.py:Net"'


def _evaluate(
    config: Config, rule: Rule, name: str, measurements: Mapping[str, Measurement], reference: Reference
) -> list[RuleResult]:
    measurement, recorded = measurements[name], reference.models.get(name)
    base: Measurement | None = None
    if rule.base is not None:
        base = measurements.get(rule.base)
        results = evaluate(rule, measurement, base or f"{rule.base} could not be measured", rule.base)
    else:
        missing, hint = reference.why_missing(name)
        results = evaluate(rule, measurement, recorded or missing, reference.name)
        if hint and recorded is None and rule.needs_baseline:
            results = [replace(r, hint=hint) if r.outcome is Outcome.UNKNOWN else r for r in results]
    line = config.rule_lines.get(rule.id)
    return [with_causes(replace(r, line=line), config.folder, measurement, recorded, base) for r in results]


def with_causes(
    result: RuleResult, folder: Path, measurement: Measurement, recorded: Measurement | None, base: Measurement | None
) -> RuleResult:
    """The result, with its causes if it fails; see `find_causes`."""
    if result.outcome is not Outcome.FAILS:
        return result
    decreased = result.limit is None  # a ratchet: the improvement was not recorded
    causes = find_causes(
        folder, result.metric, measurement, recorded, base, within=result.layer, decreased=decreased
    )  # fmt: skip
    return replace(result, causes=causes)


def structure_notes(
    measurements: Mapping[str, Measurement], reference: Reference, selected: Sequence[str]
) -> list[str]:
    """A note for each model whose structure changed and whose totals are the same."""
    notes = []
    for name in selected:
        if name not in measurements or name not in reference.models:
            continue
        before, now = reference.models[name], measurements[name]
        if baseline.only_structure_changed(before, now):
            paths = baseline.changed_operations(before, now)
            where = ", ".join(paths[:5]) + (" …" if len(paths) > 5 else "")
            which = f": {where}" if where else " (in operations that no metric counts)"
            notes.append(f"the structure of {name} differs from {reference.name}, with the same totals{which}")
    return notes


def cio_notes(results: Sequence[RuleResult]) -> list[str]:
    """A note for each rule on CIO of a model that CIO does not describe."""
    notes = (cio_note(r.rule, r.metric, r.model, r.conv_share) for r in results)
    return list(dict.fromkeys(filter(None, notes)))


def cio_note(rule: str, metric: str, model: str, conv_share: float | None) -> str:
    """A note if a metric of convolutions sees less than half of the MACs of a model; else empty."""
    if metric not in OF_CONVOLUTIONS or conv_share is None or conv_share >= LEAST_SHARE:
        return ""
    return (
        f"{rule}: {metric} sees {share(conv_share)} of the MACs of {model}, those of convolutions. A limit of "
        "traffic_bytes or cio_all also counts linear layers and attention"
    )


def update(config: Config, names: Sequence[str] = ()) -> tuple[list[baseline.TotalChange], list[str]]:
    """Measure the models and write the baseline; return the changed totals, and notes.

    Raises CspprofError, and writes nothing, if any model cannot be measured completely.
    """
    selected = config.select_models(names)
    if not selected and not config.problems:
        raise CspprofError(*_without_models(config))
    measurements, unmeasured = measure_models(config, selected)
    incomplete = [(m.name, error) for m in measurements.values() if (error := incomplete_error(m))]
    problems = [*config.problems, *unmeasured, *(Problem(name, *error) for name, error in incomplete)]
    if problems:
        lines = "\n".join(f"{p.where}: {p.message}" + (f"\n  {p.hint}" if p.hint else "") for p in problems)
        raise CspprofError("nothing was recorded, because not everything could be measured", lines)
    notes = []
    try:
        before = baseline.read(config.baseline) or {}
    except baseline.BaselineError as error:
        if names or isinstance(error, baseline.NewerBaselineError):
            raise
        before = {}
        notes.append(
            f"the old baseline could not be read ({error.message}), so it was replaced. "
            "To record the models of tests again: pytest --cspprof-update"
        )
    # Tests record their own models. Models that the configuration no longer has are removed.
    others = {name: m for name, m in before.items() if m.recorded_by or (names and name in config.models)}
    after = {**others, **measurements}
    notes += [
        f"the structure of {name} differs from before, with the same totals"
        for name, measurement in measurements.items()
        if name in before and baseline.only_structure_changed(before[name], measurement)
    ]
    baseline.write(config.baseline, after)
    return baseline.changed_totals(before, after), notes
