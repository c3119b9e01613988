"""The assertions of the pytest fixture `cspprof`.

A failure is an AssertionError with the value, the limit, the difference and the layers that cause it. If nothing can be
decided (an unknown metric, a quantity that cannot be read, no baseline, operations without a rule), a CspprofError says
what to write: the test neither passes nor fails because of the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec
from warnings import warn

from pydantic import ValidationError

from cspprof._version import __version__
from cspprof.core.errors import CspprofError
from cspprof.core.files import display_path
from cspprof.core.inputs import Inputs, parse_inputs
from cspprof.gate import baseline
from cspprof.gate.checking import cio_note, cio_notes, with_causes
from cspprof.gate.config import BASELINE_FILE, Config, Model, Rule, find, load
from cspprof.gate.measurement import LAYER_METRICS, Measurement, layer_metrics, measure, profile_entry
from cspprof.gate.pytest_messages import budget_text, mismatch_text
from cspprof.gate.rules import BASELINE, Outcome, evaluate, incomplete_error, input_mismatch, settings_mismatch
from cspprof.metrics import CONVENTIONS, METRICS
from cspprof.metrics.names import check_metric, resolve_metric
from cspprof.profiles import Profile, profile_model

if TYPE_CHECKING:
    from cspprof.gate.pytest_baseline import BaselineWriter

UPDATE = "pytest --cspprof-update"
P = ParamSpec("P")


def _without_traceback(method: Callable[P, None]) -> Callable[P, None]:
    """An assertion whose failure shows the line of the test, and no line of cspprof."""

    @wraps(method)
    def assertion(*args: P.args, **kwargs: P.kwargs) -> None:
        __tracebackhide__ = True
        try:
            method(*args, **kwargs)
        except (AssertionError, CspprofError) as error:
            raise error.with_traceback(None) from None

    return assertion


class CostAssertions:
    """Assertions about the cost of models.

    A model is a name from the project's configuration, a SPEC, a profile, or an `nn.Module`. A module needs `input`
    unless it has an `example_input_shape`: `"1x3x64x64"`, a shape, a tensor, or a nest of these, as for
    `cspprof.profile`. Paths in a SPEC start at the folder of the configuration or, without one, at pytest's rootdir.
    """

    def __init__(self, start: Path, rootdir: Path, writer: BaselineWriter | None = None) -> None:
        self._start, self._rootdir, self._writer = start, rootdir, writer

    @_without_traceback
    def assert_budget(
        self, model: Any, *, input: Inputs | None = None, layer: str | None = None, **limits: str | int | float
    ) -> None:
        """Assert that each metric is at most its limit: `cio="24 M"`, `macs="4.1 G"`, `params=25_000_000`.

        `cio` and `compute` are those of the model's convention; `cspprof metrics` lists all other names. With `layer`,
        a glob as in rules, the limits apply to each layer that it matches. Warns if a limit of CIO holds for a model
        of which CIO sees less than half of the MACs.
        """
        rules = _rules("assert_budget", 'cio="24 M"', "max", limits, layer=layer)
        measurement = self._measure(model, input, (rule.metric for rule in rules))
        self._assert_rules(rules, measurement)

    @_without_traceback
    def assert_drop(self, plain: Any, csp: Any, *, input: Inputs | None = None, **drops: str | int | float) -> None:
        """Assert that each metric of `csp` is lower than that of `plain` by at least this much: `cio="5%"`."""
        rules = _rules("assert_drop", 'cio="5%"', "min_drop", drops)
        base, measurement = (self._measure(m, input, [rule.metric for rule in rules]) for m in (plain, csp))
        if mismatch := input_mismatch(measurement, base):
            raise CspprofError(*mismatch)
        self._assert_rules(rules, measurement, base)

    @_without_traceback
    def assert_matches_baseline(
        self, model: Any, *, input: Inputs | None = None, name: str | None = None, metrics: str | Sequence[str] = ()
    ) -> None:
        """Assert that every metric, or each of `metrics`, has its recorded value. With `--cspprof-update`, record it.

        The baseline is that of `cspprof check`. `name` is the model's name in it; by default its name in the
        configuration, its SPEC, or the class of a module.
        """
        try:
            for metric in (metrics := [metrics] if isinstance(metrics, str) else list(metrics)):
                check_metric(metric)
            measurement = self._measure(model, input, [m for m in metrics if m in CONVENTIONS], name)
            if incomplete := incomplete_error(measurement):
                raise CspprofError(*incomplete)
        except CspprofError as error:
            if self._writer is not None:
                label = name or (model if isinstance(model, str) else type(model).__name__)
                self._writer.fail(f"{label}: {error.message}")
            raise
        if self._writer is not None:
            self._writer.add(self._baseline, measurement)
        elif mismatch := self._mismatch(measurement, metrics):
            raise AssertionError(mismatch)

    # -- the project -------------------------------------------------------------------------------

    @cached_property
    def _config(self) -> Config | None:
        """The nearest configuration above the test; None if there is none."""
        try:
            path = find(self._start)
        except CspprofError:
            return None
        return load(path)

    @property
    def _folder(self) -> Path:
        return self._rootdir if self._config is None else self._config.folder

    @property
    def _baseline(self) -> Path:
        return self._rootdir / BASELINE_FILE if self._config is None else self._config.baseline

    def _entry(self, name: object) -> Model | None:
        """The model of that name in the configuration. Raises CspprofError if its entry is not valid."""
        if self._config is None or not isinstance(name, str):
            return None
        for problem in self._config.problems:
            if problem.model == name:
                raise CspprofError(f"{problem.where}: {problem.message}", problem.hint)
        return self._config.models.get(name)

    # -- measuring and comparing -------------------------------------------------------------------

    def _measure(
        self, model: Any, inputs: Inputs | None, metrics: Iterable[str] = (), name: str | None = None
    ) -> Measurement:
        entry = self._entry(model)
        if entry is not None and inputs is not None:
            raise CspprofError(f"{model} has its input in the configuration", "Remove input, or give a SPEC.")
        # A test may have replaced parts of a library, so its profiles must not be cached.
        profile = self._profile(model, inputs) if entry is None else profile_entry(entry, self._folder, cache=False)
        name = name or (model if isinstance(model, str) else profile.model)
        known = self._entry(name)
        convention = known.convention if known else "cspnet"
        by_layer = layer_metrics(self._config, name) if known and self._config else list(LAYER_METRICS)
        measurement = measure(name, profile, convention, [*by_layer, *(resolve_metric(m, convention) for m in metrics)])
        return replace(measurement, recorded_by="" if known else "pytest")

    def _profile(self, model: Any, inputs: Inputs | None) -> Profile:
        if inputs is None and not isinstance(model, (str, Profile)):
            if (callable(model) and not hasattr(model, "named_modules")) or isinstance(model, type):
                message = f"{model.__name__} is not a model but a class or function that makes one"
                raise CspprofError(message, f"Call it: {model.__name__}()")
            inputs = getattr(model, "example_input_shape", None)
            if inputs is None:
                raise CspprofError("the shape of the module's input is not known", 'Give input="1x3x224x224"')
        texts = [inputs] if isinstance(inputs, str) else inputs
        if isinstance(texts, list) and texts and all(isinstance(t, str) for t in texts):
            inputs = parse_inputs(texts)
        with contextlib.chdir(self._folder):
            return profile_model(model, inputs)

    def _assert_rules(self, rules: Sequence[Rule], measurement: Measurement, base: Measurement | None = None) -> None:
        """Raise AssertionError if a rule fails, else CspprofError if the outcome of one is unknown."""
        base_name = base.name if base else ""
        results = [result for rule in rules for result in evaluate(rule, measurement, base, base_name)]
        failures = [r for r in results if r.outcome is Outcome.FAILS]
        if failures:
            raise AssertionError(budget_text([with_causes(r, self._folder, measurement, None, base) for r in failures]))
        for r in results:
            if r.outcome is Outcome.UNKNOWN:
                raise CspprofError(r.message, r.hint)
        for note in cio_notes(results):
            warn(note, stacklevel=4)  # the line of the test

    def _mismatch(self, measurement: Measurement, metrics: Sequence[str]) -> str:
        """The differences from the baseline as text. Raises CspprofError if it lacks the model or a metric."""
        file = display_path(self._baseline)
        recorded = (baseline.read(self._baseline) or {}).get(measurement.name)
        if recorded is None:
            missing = f"does not have {measurement.name!r}" if self._baseline.exists() else "does not exist yet"
            raise CspprofError(f"the baseline {file} {missing}", f"Record it: {UPDATE}")
        if mismatch := settings_mismatch(measurement, recorded, BASELINE):
            raise CspprofError(mismatch[0], f"Record it again: {UPDATE}")
        chosen = [resolve_metric(m, measurement.convention) for m in metrics]
        for metric in chosen:
            if note := cio_note("assert_matches_baseline", metric, measurement.name, measurement.conv_share):
                warn(note, stacklevel=4)
        compared = chosen or _comparable(measurement, recorded)
        for metric in compared:
            if metric not in recorded.totals:
                raise CspprofError(f"the baseline has no {metric} of {measurement.name}", f"Record it: {UPDATE}")
        if baseline.only_structure_changed(recorded, measurement):
            warn(f"the structure of {measurement.name} differs from {file}, with the same totals", stacklevel=4)
        return mismatch_text(self._folder, measurement, recorded, compared, file)


def _comparable(measurement: Measurement, recorded: Measurement) -> list[str]:
    """The recorded metrics and, if this release recorded them, all metrics of cspprof: none may be missing."""
    same_release = recorded.versions.get("cspprof") == __version__
    expected = [metric for metric in METRICS if METRICS.get(metric).builtin] if same_release else []
    return list(dict.fromkeys([*(m for m in recorded.totals if m in measurement.totals), *expected]))


def _rules(call: str, example: str, kind: str, limits: Mapping[str, Any], layer: str | None = None) -> list[Rule]:
    """A rule for each limit. Raises CspprofError without limits, for an unknown metric, or for an invalid quantity."""
    if not limits:
        raise CspprofError(f"{call} needs a limit", f"Give one: {example}")
    rules = []
    for metric, limit in limits.items():
        check_metric(metric)
        try:
            rules.append(Rule.model_validate({"id": call, "metric": metric, "layer": layer, kind: limit}))
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            message = detail["msg"].replace(f"{kind} = ", f"{metric} = ")
            raise CspprofError(f"{call}: {message}", detail.get("ctx", {}).get("hint")) from None
    return rules
