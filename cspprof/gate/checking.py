"""A whole check: models measured, rules judged, causes found. What cannot be measured is reported beside the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from cspprof.core.errors import CspprofError, UnknownNameError
from cspprof.core.files import display_path
from cspprof.gate import baseline
from cspprof.gate.causes import causes, class_lines
from cspprof.gate.config import Model, Rule
from cspprof.gate.loading import Config, Problem
from cspprof.gate.measure import profile_of
from cspprof.gate.measurement import Measured, measured
from cspprof.gate.metric_names import metric_of, suggestion
from cspprof.gate.rules import BASELINE, Finding, Outcome, contradictions, judge, selected
from cspprof.profiles import Profile

LAYERED = ("macs", "cio_cspnet")
"""Recorded layer by layer in any case."""

Measure = Callable[[Model], Profile]


@dataclass(frozen=True)
class Recorded:
    """What rules compare with: the baseline, or another revision."""

    name: str
    """`the baseline`, or the revision."""
    models: Mapping[str, Measured]
    missing: str = ""
    """Why there is nothing, where there is nothing."""
    problems: Mapping[str, Problem] | None = None
    """Models that could not be measured there."""
    hint: str = ""
    """What to do where there is nothing, unless that is to record it."""


@dataclass(frozen=True)
class Verdict:
    """What a check found."""

    config: Config
    findings: tuple[Finding, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    measured: Mapping[str, Measured]

    @property
    def failures(self) -> list[Finding]:
        """What failed, errors before warnings, the worst first."""
        failed = [f for f in self.findings if f.outcome is Outcome.FAILS]
        return sorted(failed, key=lambda f: (f.level != "error", -f.severity))

    @property
    def unknown(self) -> list[Finding]:
        return [f for f in self.findings if f.outcome is Outcome.UNKNOWN]

    @property
    def exit_code(self) -> int:
        """0 everything holds, 1 a rule of level error failed, else 2 where something could not be measured."""
        if any(f.level == "error" for f in self.failures):
            return 1
        return 2 if self.problems or self.unknown else 0

    @property
    def ok(self) -> bool:
        return self.exit_code == 0


def check(
    config: Config, names: Sequence[str] = (), measure: Measure | None = None, recorded: Recorded | None = None
) -> Verdict:
    """Judge the rules on the models called `names` (globs; all of them without any).

    `recorded` takes the baseline's place. Raises UnknownNameError for a name that no model has; everything else that
    goes wrong is a problem of the verdict.
    """
    chosen = choose(config, names)
    problems = list(config.problems)
    pairs = _pairs(config, chosen, problems)
    if not pairs and not problems:
        which = f" is about {', '.join(chosen)}" if chosen else ", and no model," if not config.rules else ""
        said = f"no rule of {config.name}{which}" if config.rules else f"{config.name} has no rules"
        problems.append(Problem(config.name, said, 'Write one: [[…rules]] id = "cio", max_increase = "0%"'))
    if recorded is None:
        recorded = _baseline(config, problems)
    needed = dict.fromkeys([*(m for _, m in pairs), *(r.base for r, _ in pairs if r.base)])
    found = measure_all(config, [n for n in needed if n], measure, problems)
    findings = [f for rule, m in pairs if m in found for f in _judged(config, rule, found[m], found, recorded)]
    return Verdict(config, tuple(findings), tuple(problems), tuple(_restructured(found, recorded, chosen)), found)


def choose(config: Config, names: Sequence[str]) -> list[str]:
    """The models that `names` mean, in the order of the configuration. Raises UnknownNameError."""
    for name in names:
        if not any(fnmatchcase(m, name) for m in config.models):
            raise UnknownNameError(
                f"{config.name} has no model named {name!r}", suggestion(name, config.models, "model in it")
            )
    return [m for m in config.models if not names or any(fnmatchcase(m, n) for n in names)]


def measure_all(
    config: Config, names: Iterable[str], measure: Measure | None, problems: list[Problem]
) -> dict[str, Measured]:
    """What each model measures; one that cannot be is a problem, and the others are measured all the same."""
    measure = measure or partial(profile_of, folder=config.folder)
    found = {}
    for name in names:
        model = config.models[name]
        try:
            found[name] = measured(name, measure(model), model.convention, layered(config, name))
        except CspprofError as error:
            line = config.model_lines.get(name)
            hint = error.hint or ""
            if "--debug" in hint:  # a check goes on with the other models, and shows no traceback
                hint = f"For the traceback: cspprof profile {model.target} --debug"
            problems.append(Problem(f"{config.name}:{line or 1}", f"{name}: {error.message}", hint, line))
    return found


def layered(config: Config, name: str) -> list[str]:
    """The numbers that are kept layer by layer for a model: what its rules are about, and the usual ones."""
    convention = config.models[name].convention
    asked = [metric_of(r.metric, convention) for r in config.rules if name in (*selected(r, [name]), r.base)]
    return list(dict.fromkeys([*asked, *LAYERED]))


def _pairs(config: Config, chosen: Sequence[str], problems: list[Problem]) -> list[tuple[Rule, str]]:
    """The rules with the models that they are about; a rule about none is a problem."""
    pairs = []
    everyone = list(config.models)
    for rule in config.rules:
        line = config.rule_lines.get(rule.id)
        where = f"{config.name}:{line or 1}"
        if rule.level == "off":
            continue
        about = selected(rule, everyone)
        if not about:
            hint = suggestion(rule.model, everyone, "model in it")
            problems.append(Problem(where, f"rule {rule.id!r}: no model matches {rule.model!r}", hint, line))
        elif rule.base is not None and rule.base not in config.models:
            hint = suggestion(rule.base, everyone, "model in it")
            problems.append(
                Problem(where, f"rule {rule.id!r}: there is no model {rule.base!r} as its base", hint, line)
            )
        else:
            pairs += [(rule, m) for m in about if m in chosen]
    for clash in contradictions(config.rules, {n: m.convention for n, m in config.models.items()}):
        line = config.rule_lines.get(clash.second)
        hint = f"The other is on line {config.rule_lines.get(clash.first)}: keep one of them, or give it another level."
        problems.append(Problem(f"{config.name}:{line or 1}", clash.message, hint, line))
    return pairs


def _baseline(config: Config, problems: list[Problem]) -> Recorded:
    asked = any(r.needs_baseline and r.level != "off" for r in config.rules)
    try:
        models = baseline.read(config.baseline)
    except baseline.BaselineError as error:
        if asked:
            problems.append(Problem(display_path(config.baseline), error.message, error.hint or ""))
        return Recorded(BASELINE, {}, f"{display_path(config.baseline)} cannot be read", hint=error.hint or "")
    if models is None:
        return Recorded(BASELINE, {}, f"there is no baseline yet ({display_path(config.baseline)})")
    return Recorded(BASELINE, models)


def _judged(
    config: Config, rule: Rule, found: Measured, everything: Mapping[str, Measured], recorded: Recorded
) -> list[Finding]:
    own = recorded.models.get(found.name)
    if rule.base is None:
        missing = recorded.missing or f"{recorded.name} does not have {found.name}"
        problem = (recorded.problems or {}).get(found.name)
        findings = judge(rule, found, own or (problem.message if problem else missing), recorded.name)
        hint = problem.hint if problem else recorded.hint
        if hint and own is None and rule.needs_baseline:
            findings = [replace(f, hint=hint) if f.outcome is Outcome.UNKNOWN else f for f in findings]
    else:
        base = everything.get(rule.base)
        findings = judge(rule, found, base or f"{rule.base} could not be measured", rule.base)
    line = config.rule_lines.get(rule.id)
    base = everything.get(rule.base) if rule.base else None
    return [explained(config.folder, replace(f, line=line), found, own, base) for f in findings]


def explained(folder: Path, finding: Finding, found: Measured, own: Measured | None, base: Measured | None) -> Finding:
    """The finding with the layers that a failure comes from; `own` is the model as recorded, `base` another one."""
    if finding.outcome is not Outcome.FAILS:
        return finding
    lines = class_lines(folder, found)
    named = tuple(replace(c, line=lines.get(c.layer)) for c in causes(finding, found, own, base))
    return replace(finding, causes=named)


def _restructured(found: Mapping[str, Measured], recorded: Recorded, chosen: Sequence[str]) -> list[str]:
    """Models that compute something else than before, to the same totals."""
    notes = []
    for name in chosen:
        if name in found and name in recorded.models and baseline.restructured(recorded.models[name], found[name]):
            reformed = baseline.reformed(recorded.models[name], found[name])
            where = ", ".join(path for path, _, _ in reformed[:5]) + (" …" if len(reformed) > 5 else "")
            which = f": {where}" if where else " (in operations that none of its numbers counts)"
            notes.append(f"{name} has another structure than in {recorded.name}, with the same totals{which}")
    return notes


def update(
    config: Config, names: Sequence[str] = (), measure: Measure | None = None
) -> tuple[list[baseline.Change], list[str]]:
    """Record what the models measure now; the changes that were written, and notes.

    Raises CspprofError, with nothing written, where any of them cannot be measured whole.
    """
    chosen = choose(config, names)
    problems = list(config.problems)
    if not chosen and not problems:
        raise CspprofError(f"{config.name} has no models to record", 'Write one: [….models.net] target = "net.py:Net"')
    found = measure_all(config, chosen, measure, problems)
    problems += [
        Problem(m.name, f"{m.name} has operations without a rule: {', '.join(m.uncounted)}", "See cspprof.op_rule.")
        for m in found.values()
        if m.uncounted
    ]
    if problems:
        told = "\n".join(f"{p.where}: {p.message}" + (f"\n  {p.hint}" if p.hint else "") for p in problems)
        raise CspprofError("nothing was recorded: not everything could be measured", told)
    notes = []
    try:
        before = baseline.read(config.baseline) or {}
    except baseline.BaselineError as error:
        if names or isinstance(error, baseline.NewerBaselineError):
            raise
        before = {}
        notes.append(
            f"the old baseline could not be read ({error.message}); everything was recorded anew. "
            "What tests had recorded: pytest --cspprof-update"
        )
    kept = {n: m for n, m in before.items() if m.by or (names and n in config.models)}
    after = {**kept, **found}
    for name, now in found.items():
        if name in before and baseline.restructured(before[name], now):
            notes.append(f"{name} has another structure than before, with the same totals")
    baseline.write(config.baseline, after)
    return baseline.changes(before, after), notes
