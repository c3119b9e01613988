"""A record made ready to be replayed: which call reads the value that which other wrote, and what has to stay.

Values are numbered. Calls of one spec on the same values are one step, and what leaves a map as it was but for its
channels (a ReLU, a norm, a 3×3 convolution of padding 1) passes its number on; so a network of hundreds of calls has
some tens of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cspprof.errors import ReplayError
from cspprof.record import Kind, Look, OpSpec, Profile, TensorSpec
from cspprof.replay.facts import counted
from cspprof.replay.looks import LOST, Follow, Guard, following, loose, named, on_look, on_numbers
from cspprof.replay.shapes import DENSE, fits, passes_on, written
from cspprof.replay.values import UnknownError, Value

CAST = frozenset({"parameter", "buffer"})
"""Roles of tensors whose floating dtype follows that of the trace."""

HINT = "Trace it again on that input: cspprof profile SPEC --input …"


class Step(NamedTuple):
    """A spec on numbered values; its first call stands for all."""

    spec: int
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    call: int
    guards: tuple[Guard, ...]
    same: tuple[tuple[int, int], ...]
    """Values that the record cannot tell apart, since they lie in one storage with one shape."""
    follow: tuple[Follow, ...]
    passing: bool
    """Whether what it writes is known from what it reads, since nothing but channels differs from an earlier value."""
    problem: str
    """Why the rule is not to be believed, from trying it on the record itself; else empty."""


class Plan:
    """Steps in order, the step of each call, and the values as recorded."""

    def __init__(self, profile: Profile) -> None:
        """Raises ReplayError where nobody watched what the forward asks."""
        if profile.looks is None:
            raise ReplayError(
                f"{profile.model} cannot be replayed: the record does not say whether its forward depends on sizes",
                "Trace the model on meta with this version: cspprof profile SPEC --save x.profile.json",
            )
        self.profile = profile
        self.steps: list[Step] = []
        self.of_call: list[int] = []
        self.recorded: list[Value] = []
        self.held: dict[int, int] = {}
        """The value of each storage that no call wrote first."""
        self._living: dict[int, dict[TensorSpec, list[int]]] = {}
        """By storage, then by recorded spec: the values seen there, the latest last."""
        self._width: dict[tuple[int, int], int] = {}
        """By a value and a number of channels: the value that differs in those alone."""
        self._root: list[int] = []
        self._settled: set[int] = set()
        """Values that are contiguous in every replay, not just here: a slice of one image is, of two it is not."""
        self._known: dict[tuple[int, tuple[int, ...]], int] = {}
        weights: dict[tuple[bool, TensorSpec], int] = {}  # one number for all that are alike
        for s in profile.storages:
            key = s.role in CAST, s.spec
            if s.role == "input" or key not in weights:
                weights[key] = self._new(Value(s.spec.shape, s.spec.dtype))
            self.held[s.id] = weights[key]
            self._settled.add(weights[key])
            self._living[s.id] = {s.spec: [self.held[s.id]]}
        self._inputs = tuple(self.held[s.id] for s in profile.storages if s.role == "input")
        self.asked: list[int] = []
        """The value of each look."""
        self.last: tuple[Guard, ...] = ()
        self._prepare(profile.looks)

    # -- once for a record ---------------------------------------------------------------------------

    def _prepare(self, looks: Sequence[Look]) -> None:
        profile, calls = self.profile, self.profile.calls
        asked: dict[int, list[Look]] = {}
        for look in looks:
            asked.setdefault(look.at, []).append(look)
        followed: set[int] = set()  # layers whose forward has sizes at hand
        at = 0
        for i, (index, layer) in enumerate(zip(calls.spec, calls.layer, strict=True)):
            spec = profile.specs[index]
            tensors = (*spec.reads, *spec.weights)
            middle = at + len(tensors)
            found = [self._living[s][t] for s, t in zip(calls.storage[at:middle], tensors, strict=True)]
            reads = tuple([numbers[-1] for numbers in found])
            at = middle + len(spec.writes)
            before = self._asked(asked.get(i, ()))
            key = (index, reads)
            number = self._known.get(key)
            if number is None or before or layer in followed:
                same = tuple((a, n[-1]) for n in found if len(n) > 1 for a in n[:-1])
                follow = following(spec, layer, before)
                guards = [] if follow else [g for look, value in before for g in on_look(look, value, profile)]
                if follow:
                    followed.add(layer)
                elif layer in followed and loose(profile.layers[layer]):
                    guards += on_numbers(spec, reads, named(profile, layer))
                if not reads and (spec.name.startswith("new_") or spec.name.endswith("_like")):
                    why = f"{named(profile, layer)} makes a tensor like another one ({spec.target}), {LOST}"
                    guards += [Guard(v, why, dtype=True) for v in self._inputs]
                number = self._step(Step(index, reads, (), i, tuple(guards), same, follow, False, ""))
                if not (before or layer in followed):
                    self._known[key] = number
            self.of_call.append(number)
            for s, t, v in zip(calls.storage[middle:at], spec.writes, self.steps[number].writes, strict=True):
                numbers = self._living.setdefault(s, {}).setdefault(t, [])
                if v in numbers:
                    numbers.remove(v)
                numbers.append(v)
        after = self._asked(asked.get(len(calls.spec), ()))
        self.last = tuple(g for look, value in after for g in on_look(look, value, profile))

    def _asked(self, looks: Sequence[Look]) -> list[tuple[Look, int]]:
        """The looks with the numbers of their values."""
        found = [(look, self._living[look.storage][look.spec][-1]) for look in looks]
        self.asked += [number for _, number in found]
        return found

    def _new(self, value: Value, root: int | None = None) -> int:
        number = len(self.recorded)
        self.recorded.append(value)
        self._root.append(number if root is None else root)
        if len(value.shape) > 2:
            self._width[self._root[number], value.shape[1]] = number
        return number

    def _step(self, step: Step) -> int:
        """Try the rule on the record, number what it writes, keep the step."""
        spec = self.profile.specs[step.spec]
        inputs = [self.recorded[i] for i in step.reads]
        values, problem = [Value(t.shape, t.dtype, None) for t in spec.writes], ""
        try:
            made = written(spec, inputs)
            if counted(spec, inputs, made) == spec:
                values = made
            else:
                problem = "did something else in the record than its rule says"
        except UnknownError as why:
            problem = str(why)
        known = len(self.recorded)
        numbers = tuple([self._new(v) if problem else self._numbered(spec, step.reads, v) for v in values])
        passing = not problem and max(numbers, default=known) < known and fits(spec)
        passing = passing and self._root[numbers[0]] not in self._inputs  # whose channels may be wrong
        self.steps.append(step._replace(writes=numbers, problem=problem, passing=passing))
        return len(self.steps) - 1

    def _numbered(self, spec: OpSpec, reads: Sequence[int], made: Value) -> int:
        """The number of a value that a step makes: a known one, where nothing changes but the channels."""
        roots = {self._root[i] for i in reads[: len(spec.reads)]}
        settled = made.strides == () and self._settled.issuperset(reads) and spec.kind is not Kind.VIEW
        x = self.recorded[reads[0]] if reads else made
        alike = x.strides == () == made.strides and x.dtype == made.dtype and len(x.shape) > 2
        alike = alike and (*x.shape[:1], *x.shape[2:]) == (*made.shape[:1], *made.shape[2:])
        if alike and settled and len(roots) == 1 and passes_on(spec):
            root = roots.pop()
            found = self._width.get((root, made.shape[1]))
            number = self._new(made, root) if found is None else found
        else:
            number = self._new(made)
        if settled or (made.strides == () and (spec.kind in DENSE or "pad" in spec.attrs)):
            self._settled.add(number)
        return number

    # -- for every replay ----------------------------------------------------------------------------

    def follow(self, given: dict[int, Value]) -> tuple[list[OpSpec], list[Value]]:
        """What each step does where the values in `given` stand for those recorded, and all values by number.

        Raises ReplayError.
        """
        recorded, known = self.recorded, self.profile.specs
        values = list(recorded)
        for storage, value in given.items():
            values[self.held[storage]] = value
        if any(values[i].shape != recorded[i].shape for i in self._inputs):
            self._refuse_attention()
        made: list[OpSpec] = []
        for step in self.steps:
            spec = known[step.spec]
            inputs = [values[i] for i in step.reads]
            if step.guards:
                self._check(step.guards, values)
            try:
                for a, b in step.same:
                    if values[a] != values[b] and (values[a], values[b]) != (recorded[a], recorded[b]):
                        raise UnknownError("reads one of two tensors that the record cannot tell apart")
                if not step.follow and inputs == [recorded[i] for i in step.reads]:
                    made.append(spec)
                    for number in step.writes:
                        values[number] = recorded[number]
                    continue
                if step.problem:
                    raise UnknownError(step.problem)
                if step.follow:
                    size = list(spec.attrs["output_size"])
                    for place, number, dim in step.follow:
                        size[place] = values[number].shape[dim]
                    spec = OpSpec(
                        spec.target, spec.kind, spec.reads, spec.weights, spec.writes,
                        {**spec.attrs, "output_size": tuple(size)}, spec.macs, spec.elementwise,
                    )  # fmt: skip
                outputs = [values[i] for i in step.writes] if step.passing else written(spec, inputs)
                made.append(counted(spec, inputs, outputs))
            except UnknownError as why:
                who = named(self.profile, self.profile.calls.layer[step.call])
                raise self._refusal(f"{who}: {spec.target} {why}") from None
            for number, value in zip(step.writes, outputs, strict=True):
                values[number] = value
        self._check(self.last, values)
        return made, values

    def _refuse_attention(self) -> None:
        for spec, layer in zip(self.profile.calls.spec, self.profile.calls.layer, strict=True):
            op = self.profile.specs[spec]
            if op.kind is Kind.ATTENTION:
                who, on = named(self.profile, layer), op.reads[0] if op.reads else op.writes[0]
                raise self._refusal(f"{who}: {op.target} on {on} is attention over tokens of a fixed number")

    def _check(self, guards: Sequence[Guard], values: Sequence[Value]) -> None:
        try:
            for guard in guards:
                guard.check(self.recorded, values)
        except UnknownError as why:
            raise self._refusal(str(why)) from None

    def _refusal(self, why: str) -> ReplayError:
        return ReplayError(f"{self.profile.model} cannot be replayed on that input: {why}", HINT)
