"""The rules and the baseline of the project's configuration for the models that are watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path

from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.gate.checking import Verdict, check, rules_and_models
from cspprof.gate.config import Config, Model, find, load
from cspprof.gate.measurement import Measurement, input_texts, profile_entry
from cspprof.gate.reference import Reference, read_baseline
from cspprof.profiles import Profile
from cspprof.sources import Spec, parse
from cspprof.sources.user_modules import absolute


@dataclass(frozen=True)
class ProjectRules:
    """A configuration without the rules that run models in an engine, and its baseline."""

    config: Config
    reference: Reference
    left_out: tuple[str, ...]
    """The rules that run an engine: they take seconds."""

    @classmethod
    def read(cls, path: Path | None) -> ProjectRules | None:
        """The configuration at `path`, or the nearest one above the current folder; None if there is none.

        Raises CspprofError if it cannot be read, or if there is none at `path`.
        """
        try:
            found = find(path)
        except CspprofError:
            if path is not None:
                raise
            return None
        config = load(found)
        left_out = tuple(rule.id for rule in config.rules if rule.runs_engine)
        config = replace(config, rules=tuple(rule for rule in config.rules if not rule.runs_engine))
        return cls(config, read_baseline(config)[0], left_out)

    @property
    def files(self) -> set[Path]:
        """The configuration and the baseline."""
        return {absolute(self.config.path), absolute(self.config.baseline)}

    def names_of(self, spec: Spec) -> list[str]:
        """The models of the configuration that the SPEC names: the same target with the same options."""
        wanted = _identity(spec, Path.cwd())
        return [name for name, model in self.config.models.items() if _named(model, self.config.folder) == wanted]

    def profile(self, name: str) -> Profile:
        """The profile of a model with the settings of the configuration. Raises CspprofError."""
        return profile_entry(self.config.models[name], self.config.folder, cache=False)

    def recorded(self, name: str, record: Record) -> Measurement | None:
        """The model in the baseline, if it was recorded with the input of `record`."""
        found = self.reference.models.get(name)
        return found if found is not None and found.inputs == input_texts(record) else None

    def check(self, names: Sequence[str], records: Mapping[str, Record]) -> Verdict | None:
        """The verdict on these models; None if no rule applies to them and the configuration has no problem. `records`
        has those that were traced already with the settings of the configuration."""
        pairs, problems = rules_and_models(self.config, names)
        if not pairs:
            problems = [*self.config.problems, *problems]
            return Verdict(self.config, (), tuple(problems), (), {}) if problems else None
        return check(self.config, [escape(name) for name in names], self.reference, records=records)


def _named(model: Model, folder: Path) -> tuple[object, ...] | None:
    """The SPEC that a model of the configuration names; None if its target cannot be parsed."""
    try:
        return _identity(parse(model.target), folder)
    except CspprofError:
        return None


def _identity(spec: Spec, folder: Path) -> tuple[object, ...]:
    """The file that a SPEC names, relative to `folder`, the class or function in it, and the options."""
    place, colon, attribute = spec.target.rpartition(":")
    file = place if place.endswith(".py") else "" if colon else spec.target
    where = str((folder / file).resolve()) if file else spec.target
    return where, attribute if file else "", sorted((name, repr(value)) for name, value in spec.options.items())
