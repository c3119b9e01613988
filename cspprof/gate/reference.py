"""The reference with which rules compare a model: the baseline, or the code of a git revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cspprof.core.files import display_path
from cspprof.gate import baseline
from cspprof.gate.config import Config, Problem
from cspprof.gate.measurement import Measurement
from cspprof.gate.rules import BASELINE
from cspprof.measure.worker_process import Checkout


@dataclass(frozen=True)
class Reference:
    """The recorded measurements that rules compare with: the baseline, or those of a git revision."""

    name: str
    """`the baseline`, or the revision."""
    models: Mapping[str, Measurement]
    missing: str = ""
    """Why there are no measurements, if there are none."""
    hint: str = ""
    """The remedy; empty if it is to record the baseline."""
    problems: Mapping[str, Problem] = field(default_factory=dict)
    """By name: the models that could not be measured."""
    checkout: Checkout | None = None
    """The code of the revision, as long as its working tree exists; None for the baseline."""

    def why_missing(self, model: str) -> tuple[str, str]:
        """The reason why there is no measurement of a model, and the remedy; empty if it is to record the baseline."""
        if problem := self.problems.get(model):
            return problem.message, problem.hint
        return self.missing or f"{self.name} does not have {model}", self.hint


def read_baseline(config: Config) -> tuple[Reference, list[Problem]]:
    """The baseline of a configuration, and a problem if it cannot be read and a rule needs it."""
    file = display_path(config.baseline)
    try:
        models = baseline.read(config.baseline)
    except baseline.BaselineError as error:
        needed = any(rule.needs_baseline and rule.level != "off" for rule in config.rules)
        problems = [Problem(file, error.message, error.hint or "")] if needed else []
        return Reference(BASELINE, {}, f"{file} cannot be read", error.hint or ""), problems
    if models is None:
        return Reference(BASELINE, {}, f"there is no baseline yet ({file})"), []
    return Reference(BASELINE, models), []
