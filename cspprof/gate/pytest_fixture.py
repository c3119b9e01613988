"""The gate in a test: what the pytest fixture `cspprof` can assert.

A failure is an AssertionError that says value, limit, difference and the layers it comes from. What cannot be judged
(an unknown metric, an unreadable quantity, nothing recorded, operations without a rule) is a CspprofError that says
what to write: neither a pass nor a failure of the model.
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
from cspprof.gate.checking import LAYERED, explained, layered
from cspprof.gate.config import BASELINE, Model, Rule
from cspprof.gate.loading import Config, find, load
from cspprof.gate.measure import profile_of
from cspprof.gate.measurement import Measured, measured
from cspprof.gate.metric_names import known_metric, metric_of
from cspprof.gate.pytest_messages import budget_text, mismatch_text
from cspprof.gate.rules import BASELINE as BASELINE_NAME
from cspprof.gate.rules import Finding, Outcome, judge, recorded_otherwise, unlike
from cspprof.metrics import CONVENTIONS, METRICS
from cspprof.profiles import Profile, profile_model

if TYPE_CHECKING:
    from cspprof.gate.pytest_baseline import Recorder

UPDATE = "pytest --cspprof-update"
P = ParamSpec("P")


def _plain(method: Callable[P, None]) -> Callable[P, None]:
    """An assertion whose failure shows the line of the test, and nothing of what is below it."""

    @wraps(method)
    def asserted(*args: P.args, **kwargs: P.kwargs) -> None:
        __tracebackhide__ = True
        try:
            method(*args, **kwargs)
        except (AssertionError, CspprofError) as error:
            raise error.with_traceback(None) from None

    return asserted


def _fail_with(text: str) -> None:
    if text:
        raise AssertionError(text)


class Gate:
    """What a test asserts about the cost of models.

    A model is a name from the project's configuration, a SPEC, a profile, or an `nn.Module`, which needs `input` unless
    it states its `example_input_shape`: `"1x3x64x64"`, a shape, a tensor, or a nest of these as `cspprof.profile` takes
    it. Paths in a SPEC start at the folder of the configuration, or where there is none at pytest's rootdir.
    """

    def __init__(self, start: Path, rootdir: Path, recorder: Recorder | None = None) -> None:
        self._start, self._rootdir, self._recorder = start, rootdir, recorder

    @_plain
    def assert_budget(
        self, model: Any, *, input: Inputs | None = None, layer: str | None = None, **limits: str | int | float
    ) -> None:
        """Each number is no larger than its limit: `cio="24 M"`, `macs="4.1 G"`, `params=25_000_000`.

        `cio` and `compute` mean what the model's convention says; else any name of `cspprof metrics`. With `layer`, a
        glob as in rules, each layer that it matches has to keep the limits.
        """
        rules = _rules("assert_budget", 'cio="24 M"', "max", limits, layer=layer)
        found = self._measured(model, input, (r.metric for r in rules))
        findings = [f for rule in rules for f in judge(rule, found)]
        _fail_with(budget_text([explained(self._folder, f, found, None, None) for f in _failed(findings)]))

    @_plain
    def assert_drop(self, plain: Any, csp: Any, *, input: Inputs | None = None, **drops: str | int | float) -> None:
        """Each number of `csp` is at least so much below that of `plain`: `cio="5%"`, `macs="300 M"`."""
        rules = _rules("assert_drop", 'cio="5%"', "min_drop", drops)
        base, found = (self._measured(m, input, [r.metric for r in rules]) for m in (plain, csp))
        if differs := unlike(found, base):
            raise CspprofError(*differs)
        findings = [f for rule in rules for f in judge(rule, found, base, base.name)]
        _fail_with(budget_text([explained(self._folder, f, found, None, base) for f in _failed(findings)]))

    @_plain
    def assert_matches_baseline(
        self, model: Any, *, input: Inputs | None = None, name: str | None = None, metrics: str | Sequence[str] = ()
    ) -> None:
        """Every number, or each of `metrics`, is the recorded one. With `--cspprof-update` it is recorded instead.

        The baseline is that of `cspprof check`. It knows the model by `name`: unless given, the name in the
        configuration, the SPEC, or the class of a module.
        """
        try:
            for metric in (metrics := [metrics] if isinstance(metrics, str) else list(metrics)):
                known_metric(metric)
            found = self._measured(model, input, [m for m in metrics if m in CONVENTIONS], name)
            _whole(found)
        except CspprofError as error:
            if self._recorder is not None:
                called = name or (model if isinstance(model, str) else type(model).__name__)
                self._recorder.refuse(f"{called}: {error.message}")
            raise
        if self._recorder is not None:
            self._recorder.add(self._baseline, found)
        else:
            _fail_with(self._mismatch(found, metrics))

    # -- how ---------------------------------------------------------------------------------------

    @cached_property
    def _config(self) -> Config | None:
        """The configuration nearest above the test; None where the project has none."""
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
        return self._rootdir / BASELINE if self._config is None else self._config.baseline

    def _entry(self, name: object) -> Model | None:
        """The configuration's model of that name. Raises CspprofError for one whose entry cannot be read."""
        if self._config is None or not isinstance(name, str):
            return None
        for problem in self._config.problems:
            if f".models.{name}." in f".{problem.message.partition(':')[0].split(' ')[0]}.":
                raise CspprofError(f"{problem.where}: {problem.message}", problem.hint)
        return self._config.models.get(name)

    def _measured(
        self, model: Any, inputs: Inputs | None, metrics: Iterable[str] = (), name: str | None = None
    ) -> Measured:
        entry = self._entry(model)
        if entry is not None and inputs is not None:
            raise CspprofError(f"{model} has its input in the configuration", "Leave input out, or give a SPEC.")
        # Tests may have replaced parts of a library: their profiles must not reach the cache.
        profile = self._profile(model, inputs) if entry is None else profile_of(entry, self._folder, cache=False)
        name = name or (model if isinstance(model, str) else profile.model)
        known = self._entry(name)
        convention = known.convention if known else "cspnet"
        layers = layered(self._config, name) if known and self._config else list(LAYERED)
        found = measured(name, profile, convention, [*layers, *(metric_of(m, convention) for m in metrics)])
        return replace(found, by="" if known else "pytest")

    def _profile(self, model: Any, inputs: Inputs | None) -> Profile:
        if inputs is None and not isinstance(model, (str, Profile)):
            if (callable(model) and not hasattr(model, "named_modules")) or isinstance(model, type):
                raise CspprofError(f"{model.__name__} makes a model and is none", f"Call it: {model.__name__}()")
            inputs = getattr(model, "example_input_shape", None)
            if inputs is None:
                raise CspprofError("a module does not say what it is called with", 'Give input="1x3x224x224"')
        texts = [inputs] if isinstance(inputs, str) else inputs
        if isinstance(texts, list) and texts and all(isinstance(t, str) for t in texts):
            inputs = parse_inputs(texts)
        with contextlib.chdir(self._folder):
            return profile_model(model, inputs)

    def _mismatch(self, found: Measured, metrics: Sequence[str]) -> str:
        """What differs from the baseline. Raises CspprofError where that has nothing to compare with."""
        file = display_path(self._baseline)
        before = (baseline.read(self._baseline) or {}).get(found.name)
        if before is None:
            missing = f"does not have {found.name!r}" if self._baseline.exists() else "is not there yet"
            raise CspprofError(f"the baseline {file} {missing}", f"Record it: {UPDATE}")
        if differs := recorded_otherwise(found, before, BASELINE_NAME):
            raise CspprofError(differs[0], f"Record it again: {UPDATE}")
        asked = [metric_of(m, found.convention) for m in metrics] or self._recorded(found, before)
        for metric in asked:
            if metric not in before.totals:
                raise CspprofError(f"the baseline has no {metric} of {found.name}", f"Record it: {UPDATE}")
        if baseline.restructured(before, found):
            warn(f"{found.name} has another structure than in {file}, with the same totals", stacklevel=4)
        return mismatch_text(self._folder, found, before, asked, file)

    @staticmethod
    def _recorded(found: Measured, before: Measured) -> list[str]:
        """What to compare: what was recorded, and what this release would have recorded then."""
        of_then = before.versions.get("cspprof") == __version__
        expected = [m for m in METRICS if METRICS.get(m).builtin] if of_then else []
        return list(dict.fromkeys([*(m for m in before.totals if m in found.totals), *expected]))


def _rules(call: str, example: str, kind: str, limits: Mapping[str, Any], layer: str | None = None) -> list[Rule]:
    """A rule for each limit. Raises CspprofError for none, a metric that there is not, or an unreadable quantity."""
    if not limits:
        raise CspprofError(f"{call} asserts nothing without a limit", f"Give one: {example}")
    rules = []
    for metric, limit in limits.items():
        known_metric(metric)
        try:
            rules.append(Rule.model_validate({"id": call, "metric": metric, "layer": layer, kind: limit}))
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            said = detail["msg"].replace(f"{kind} = ", f"{metric} = ")
            raise CspprofError(f"{call}: {said}", detail.get("ctx", {}).get("hint")) from None
    return rules


def _failed(findings: Sequence[Finding]) -> list[Finding]:
    """Those that fail. Raises CspprofError where, without any, something could not be judged."""
    failed = [f for f in findings if f.outcome is Outcome.FAILS]
    unsure = [f for f in findings if f.outcome is Outcome.UNKNOWN]
    if unsure and not failed:
        raise CspprofError(unsure[0].message, unsure[0].hint)
    return failed


def _whole(found: Measured) -> None:
    if found.uncounted:
        named = ", ".join(f"{name} ({n})" for name, n in found.uncounted.items())
        raise CspprofError(
            f"{found.name} has operations without a rule: {named}", "Teach cspprof the operation: see cspprof.op_rule."
        )
