"""Rules that run models in engines: `latency_ms` against the base revision, and `engine_ready`.

A time is never compared with a recorded one: it depends on the machine and on what else runs there. The base and the
head are measured in turns, in one session, together with an A/A pair of the base (see `measure.ab_session`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from cspprof.core.errors import CspprofError
from cspprof.core.import_path import import_path
from cspprof.core.units import share
from cspprof.gate.config import LATENCY, Config, Model, Rule
from cspprof.gate.measurement import Measurement, profile_entry
from cspprof.gate.reference import Reference
from cspprof.gate.rules import Outcome, RuleResult, settings_mismatch
from cspprof.measure.ab_session import ABSession, ABTiming, VersionedModel
from cspprof.measure.engines import engines_named
from cspprof.measure.engines.network import SKIPPED
from cspprof.measure.machine import require_psutil
from cspprof.measure.result import Measurement as MeasuredSession
from cspprof.measure.session import Progress, Session
from cspprof.measure.statistics import Estimate
from cspprof.measure.worker import OUT_OF_MEMORY
from cspprof.measure.worker_process import Checkout

QUIET_HINT = (
    "Use a machine on which nothing else runs, or a larger max_increase. Limits of counts, such as macs, need neither."
)
NO_REVISION = "latency_ms is compared with a git revision, and none is named"

Pair = tuple[Rule, str]
"""A rule and the name of a model."""


def evaluate_on_engines(
    config: Config, pairs: Sequence[Pair], measurements: Mapping[str, Measurement], reference: Reference,
    progress: Progress,
) -> dict[tuple[str, str], RuleResult]:  # fmt: skip
    """The result of each rule on each model, by the id of the rule and the name of the model."""
    results: dict[tuple[str, str], RuleResult] = {}
    to_run: list[Pair] = []
    for rule, name in pairs:
        error = _engine_error(rule, name, config.models[name])
        if error is None and rule.metric == LATENCY:
            error = _base_error(measurements[name], reference)
        if error is None:
            to_run.append((rule, name))
        else:
            results[rule.id, name] = _result(rule, name, Outcome.UNKNOWN, message=error[0], hint=error[1] or "")
    for engine in dict.fromkeys(rule.engine for rule, _ in to_run if rule.engine):
        timed = [(rule, name) for rule, name in to_run if rule.engine == engine]
        results |= _latency_results(config, engine, timed, reference, progress)
    for name in dict.fromkeys(name for rule, name in to_run if rule.engine_ready):
        results |= _readiness_results(config, name, [r for r, n in to_run if r.engine_ready and n == name], progress)
    return results


def _result(rule: Rule, model: str, outcome: Outcome, **rest: Any) -> RuleResult:
    metric = LATENCY if rule.engine else "engine_ready"
    return RuleResult(
        rule.id, rule.kind, rule.level, model, metric, outcome, engine=rule.engine_name,
        **rest,
    )  # fmt: skip


def _engine_error(rule: Rule, name: str, model: Model) -> tuple[str, str | None] | None:
    """Message and hint if the engine is not installed, or cannot run the model as the configuration describes it."""
    if model.train or model.deploy or model.dtype not in (None, "float32"):
        what = "in training mode" if model.train else "in its deployed form" if model.deploy else f"in {model.dtype}"
        message = f"engines run models as they are built, in eval mode and float32, but {name} is traced {what}"
        return message, "Add a model with the same target and without train, deploy and dtype for this rule."
    try:
        engines_named(rule.engine_name)
        require_psutil()
    except CspprofError as error:
        return error.message, error.hint
    return None


# -- latency ---------------------------------------------------------------------------------------


def _base_error(measurement: Measurement, reference: Reference) -> tuple[str, str] | None:
    """Message and hint if the reference has no code of the model to compare with."""
    if reference.checkout is None:
        return NO_REVISION, "Name it: cspprof check --against main"
    recorded = reference.models.get(measurement.name)
    if recorded is None:
        return reference.why_missing(measurement.name)
    return settings_mismatch(measurement, recorded, reference.name)


def _latency_results(
    config: Config, engine: str, pairs: Sequence[Pair], reference: Reference, progress: Progress
) -> dict[tuple[str, str], RuleResult]:
    """Measure the models of the rules on one engine, each once for all its rules."""
    assert reference.checkout is not None
    names = list(dict.fromkeys(name for _, name in pairs))
    limits = {name: [rule.limit.value for rule, n in pairs if n == name] for name in names}
    models = [
        VersionedModel(name, model.target, model.inputs, profile_entry(model, config.folder))
        for name in names
        for model in (config.models[name],)
    ]

    def is_decided(index: int, timing: ABTiming) -> bool:
        return all(
            judge(timing.ratio, timing.least_difference, float(limit)) is not Outcome.UNKNOWN
            for limit in limits[names[index]]
        )

    head = Checkout(config.folder.resolve(), import_path())
    timings = ABSession(models, engine, reference.checkout, head, is_decided, progress).run()
    by_name = dict(zip(names, timings, strict=True))
    return {(rule.id, name): latency_result(rule, name, by_name[name], reference.name) for rule, name in pairs}


def judge(ratio: Estimate, spread: float, max_increase: float) -> Outcome:
    """Whether a measured ratio is at most 1 + `max_increase`; `spread` is that of the A/A pair.

    A rule fails if the whole interval of the ratio is above the limit by more than the spread, and it holds if the
    whole interval is below the limit plus the spread. If the spread is larger than `max_increase`, the spread is no
    tolerance: the rule then holds only if the interval is below the limit by at least the spread. Else the machine
    cannot say.
    """
    limit = 1 + max_increase
    if ratio.low > limit + spread:
        return Outcome.FAILS
    tolerance = spread if spread <= max_increase else -spread
    return Outcome.HOLDS if ratio.high <= limit + tolerance else Outcome.UNKNOWN


def latency_result(rule: Rule, name: str, timing: ABTiming, base_name: str) -> RuleResult:
    """The result of a rule on a model that was measured, or that failed in the engine."""
    if failed := timing.failed:
        version = "" if failed is timing.head else f" of {base_name}"
        message = f"{name}{version} has no time in {rule.engine}: {_one_line(failed.failure)}"
        return _result(rule, name, Outcome.UNKNOWN, message=message, hint=failed.hint or "")
    ratio, spread, allowed = timing.ratio, timing.least_difference, rule.limit.value
    outcome = judge(ratio, spread, float(allowed))
    base, head = (Fraction(ms) for ms in timing.milliseconds)
    shown = (
        f"{float(head):.3f} ms, {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] times the {float(base):.3f} ms "
        f"of {base_name}; max_increase is {share(float(allowed))}, and the A/A pair differs by {share(spread)}"
    )
    message = hint = ""
    if outcome is Outcome.FAILS:
        message = f"{LATENCY} of {name} ({rule.engine}) is {shown}"
    elif outcome is Outcome.UNKNOWN:
        message, hint = f"this machine cannot say whether {name} ({rule.engine}) became slower: {shown}", QUIET_HINT
    return _result(
        rule, name, outcome, value=head, limit=base * (1 + allowed + Fraction(spread)), base=base, base_name=base_name,
        message=message, hint=hint, ratio=ratio, least_difference=spread,
    )  # fmt: skip


def latency_note(result: RuleResult) -> str:
    """The measured ratio of times, as a note on a rule that holds. Empty for other rules: their messages have it."""
    if result.ratio is None or result.outcome is not Outcome.HOLDS:
        return ""
    ratio, spread = result.ratio, result.least_difference or 0.0
    return (
        f"{result.rule}: {result.model} ({result.engine}) takes {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] "
        f"times the time of {result.base_name}; the A/A pair differs by {share(spread)}"
    )


# -- readiness -------------------------------------------------------------------------------------


def _readiness_results(
    config: Config, name: str, rules: Iterable[Rule], progress: Progress
) -> dict[tuple[str, str], RuleResult]:
    """Run one model in the engines of the rules, as `cspprof measure --check` does."""
    rules, model = list(rules), config.models[name]
    engines = list(dict.fromkeys(rule.engine_name for rule in rules))
    with contextlib.chdir(os.fspath(config.folder)):
        session = Session([model.target], engines, model.inputs, progress=progress).run(check_only=True)
    if session.interrupted:  # the session has what was checked until then, and a verdict needs all of it
        raise KeyboardInterrupt
    return {(rule.id, name): readiness_result(rule, name, session) for rule in rules}


def readiness_result(rule: Rule, name: str, session: MeasuredSession) -> RuleResult:
    """Whether the engine ran the model and gave the correct output; the message names what it cannot run.

    Unknown if there is no correct output, or if this machine lacks the engine or the memory.
    """
    timing = next(session.of_engine(rule.engine_name))
    if not timing.failure:
        return _result(rule, name, Outcome.HOLDS)
    engine = next(e for e in session.engines if e.name == rule.engine_name)
    outside = (session.models[0].failure, engine.failure)
    if timing.failure in outside or timing.failure.startswith((SKIPPED, OUT_OF_MEMORY)):
        message = f"{name} was not run in {rule.engine_name}: {_one_line(timing.failure)}"
        return _result(rule, name, Outcome.UNKNOWN, message=message, hint=timing.hint or "")
    message = f"{name} does not run in {' '.join([rule.engine_name, *list(engine.versions.values())[:1]])}"
    return _result(rule, name, Outcome.FAILS, message=f"{message}: {_one_line(timing.failure)}", hint=timing.hint or "")


def _one_line(failure: str) -> str:
    """A failure, and the nodes that an engine cannot run, in one line."""
    return "; ".join(line.strip() for line in failure.splitlines() if line.strip())
