"""A recorded forward gone through again, call by call, on other values; or as recorded, to see which rules hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cspprof.errors import ReplayError
from cspprof.record import Kind, Look, OpSpec, Profile, TensorSpec
from cspprof.replay.facts import counted
from cspprof.replay.looks import CASTS, LOST, RESIZE, asking, named, on_look, resized
from cspprof.replay.shapes import FLOATS, written
from cspprof.replay.sizes import key
from cspprof.replay.values import UnknownError, Value

HINT = "Trace it again on that input: cspprof profile SPEC --input …"


def refusal(profile: Profile, why: str) -> ReplayError:
    return ReplayError(f"{profile.model} cannot be replayed on that input: {why}", HINT)


class Forward:
    """What each call did. Values, tensors and operations that are the same everywhere are the same object."""

    def __init__(self, profile: Profile, given: Mapping[int, Value], recorded: Forward | None = None) -> None:
        """`given` says which storages that no call wrote hold something else than recorded; `recorded` is the same
        forward as it was.

        Raises ReplayError, by layer and operation, where the record does not say.
        """
        self.specs: list[OpSpec] = []
        """In the order of their first calls; `recorded_as` are the record's numbers of the same operations."""
        self.recorded_as: list[int] = []
        self.of_call: list[int] = []
        self.looked: list[Value] = []
        """The value of each look."""
        self._heard: dict[object, Value] = {}
        """The same, by what was asked before which call."""
        self._followed = {asking(look) for look in profile.looks or () if look.what == RESIZE}
        self._profile, self._then = profile, recorded or self
        self._values: dict[object, Value] = {}
        self._tensors: dict[object, TensorSpec] = {}
        self._by_id: dict[int, TensorSpec] = {}
        self._numbers: dict[object, int] = {}
        self._known: dict[object, tuple[int, list[Value], str]] = {}
        self._read: list[list[Value]] = []
        self._others: dict[int, list[tuple[Value, Value]]] = {}
        """By call, values that it may have read instead: the record cannot tell them apart, since they lie in one
        storage with one shape. Each with what it is taken for."""
        self._problems: list[str] = []
        """By call, why its rule is not to be believed; else empty."""
        self._living: dict[int, dict[TensorSpec, list[Value]]] = {}
        """By storage, then by recorded spec: the values seen there, the latest last."""
        self._inputs: list[Value] = []
        alike: dict[TensorSpec, Value] = {}
        for s in profile.storages:
            value = self._value(given[s.id]) if s.id in given else alike.get(s.spec)
            if value is None:
                value = alike[s.spec] = self._value(Value(s.spec.shape, s.spec.dtype))
            self._living[s.id] = {s.spec: [value]}
            if s.role == "input":
                self._inputs.append(value)
        self._recast = any(s.id in given and given[s.id].dtype != s.spec.dtype for s in profile.storages)
        """Whether anything has another dtype than recorded."""
        self._refuse_attention()
        self._run()

    def tensor(self, value: Value | TensorSpec) -> TensorSpec:
        """The one tensor of that shape and dtype; `value` lives as long as the forward."""
        found = self._by_id.get(id(value))
        if found is None:
            known = key(value[:2])
            found = self._tensors.get(known) or self._tensors.setdefault(known, TensorSpec(*value[:2]))
            self._by_id[id(value)] = self._by_id[id(found)] = found
        return found

    def _changed(self) -> bool:
        return self._recast or any(a.shape != b.shape for a, b in zip(self._inputs, self._then._inputs, strict=True))

    def _value(self, value: Value) -> Value:
        return self._values.setdefault(key(value), value)

    def _refuse_attention(self) -> None:
        profile, calls = self._profile, self._profile.calls
        attention = {i: op for i, op in enumerate(profile.specs) if op.kind is Kind.ATTENTION}
        call = next((i for i, spec in enumerate(calls.spec) if spec in attention), None) if attention else None
        if call is None or all(a.shape == b.shape for a, b in zip(self._inputs, self._then._inputs, strict=True)):
            return
        op, who = attention[calls.spec[call]], named(profile, calls.layer[call])
        on = op.reads[0] if op.reads else op.writes[0]
        raise refusal(profile, f"{who}: {op.target} on {on} is attention over tokens of a fixed number")

    def _run(self) -> None:
        profile, calls, living = self._profile, self._profile.calls, self._living
        asked: dict[int, list[Look]] = {}
        for look in profile.looks or ():
            asked.setdefault(look.at, []).append(look)
        at = 0
        for i, (index, layer) in enumerate(zip(calls.spec, calls.layer, strict=True)):
            spec = profile.specs[index]
            tensors = (*spec.reads, *spec.weights)
            middle = at + len(tensors)
            found = [living[s][t] for s, t in zip(calls.storage[at:middle], tensors, strict=True)]
            inputs = [values[-1] for values in found]
            at = middle + len(spec.writes)
            self._read.append(inputs)
            others = [(other, values[-1]) for values in found for other in values[:-1]]
            if others:
                self._others[i] = others
            try:
                follows = self._hear(asked.get(i, ()))
                self._refuse_likeness(spec, layer, inputs)
            except UnknownError as why:
                raise refusal(profile, str(why)) from None
            try:
                size = resized(spec, follows) if follows else None
                number, outputs, problem = self._call(i, inputs, size)
            except UnknownError as why:
                raise refusal(profile, f"{named(profile, layer)}: {spec.target} {why}") from None
            self.of_call.append(number)
            self._problems.append(problem)
            for s, t, v in zip(calls.storage[middle:at], spec.writes, outputs, strict=True):
                values = living.setdefault(s, {}).setdefault(t, [])
                values[:] = [w for w in values if w is not v]
                values.append(v)
        try:
            self._hear(asked.get(len(calls.spec), ()))
        except UnknownError as why:
            raise refusal(profile, str(why)) from None

    # -- what the forward asked ----------------------------------------------------------------------

    def _hear(self, looks: Sequence[Look]) -> list[tuple[Look, Value]]:
        """Of those that say what the next call resizes to, with what was asked for that.

        Raises UnknownError where any other question could have another answer than in the record.
        """
        follows: list[tuple[Look, Value]] = []
        for look in looks:
            question = asking(look)
            if question not in self._heard:
                self._heard[question] = self._asked_of(look)
            value = self._heard[question]
            self.looked.append(value)
            if look.what == RESIZE:
                follows.append((look, value))
            elif dict(look.args).get("for") != RESIZE or question not in self._followed:
                on_look(look, self._then.looked[len(self.looked) - 1], value, self._profile, self._recast)
        return follows

    def _asked_of(self, look: Look) -> Value:
        values = self._living.get(look.storage, {}).get(look.spec, [])
        if any(value[:2] != values[0][:2] for value in values) or not values:
            who = named(self._profile, look.layer)
            raise UnknownError(f"{who} asks one of two tensors that the record cannot tell apart ({look.what})")
        return values[-1]

    def _refuse_likeness(self, spec: OpSpec, layer: int, inputs: Sequence[Value]) -> None:
        """What is made after a tensor that is not among the operands."""
        who = named(self._profile, layer)
        if not inputs and (spec.name.startswith("new_") or spec.name.endswith("_like")) and self._changed():
            raise UnknownError(f"{who} makes a tensor like another one ({spec.target}), {LOST}")
        if spec.target in CASTS and self._recast and any(t.dtype in FLOATS for t in spec.writes):
            raise UnknownError(
                f"{who} casts ({spec.target}), and whether to the dtype of another tensor is not on record"
            )

    # -- what it did ---------------------------------------------------------------------------------

    def _call(self, call: int, inputs: list[Value], size: tuple[int, ...] | None) -> tuple[int, list[Value], str]:
        """The number of the spec, what is written, and why the rule is not to be believed."""
        index, then, problem, held = self._profile.calls.spec[call], self._then, "", inputs
        if then is not self:
            problem, held = then._problems[call], then._read[call]
            for a, b in self._others.get(call, ()):
                if a != b and not any(a == c and b == d for c, d in then._others.get(call, ())):
                    raise UnknownError("reads one of two tensors that the record cannot tell apart")
        step = index, problem, key(size), *map(id, inputs), *(map(id, held) if problem else ())
        if step not in self._known:
            if problem and (size is not None or inputs != held):
                raise UnknownError(problem)
            spec = self._profile.specs[index]
            if size is not None:
                spec = spec._replace(attrs={**spec.attrs, "output_size": size})
            self._known[step] = self._done(index, spec, inputs, problem)
        return self._known[step]

    def _done(self, index: int, spec: OpSpec, inputs: list[Value], problem: str) -> tuple[int, list[Value], str]:
        try:
            if problem:
                raise UnknownError(problem)
            outputs = list(map(self._value, written(spec, inputs)))
            made = counted(spec, list(map(self.tensor, inputs)), list(map(self.tensor, outputs)))
            if self._then is self and made != spec:
                raise UnknownError("did something else in the record than its rule says")
        except UnknownError as why:
            if self._then is not self and not problem:
                raise
            made, problem = self._replaced(spec), str(why)
            outputs = [self._value(Value(t.shape, t.dtype, None)) for t in spec.writes]
        return self._number(index, made), outputs, problem

    def _number(self, index: int, spec: OpSpec) -> int:
        tensors = [tuple(map(id, ts)) for ts in (spec.reads, spec.weights, spec.writes)]
        known = spec.target, spec.kind, *tensors, *map(key, spec[5:])
        number = self._numbers.setdefault(known, len(self.specs))
        if number == len(self.specs):
            self.specs.append(spec)
            self.recorded_as.append(index)
        return number

    def _replaced(self, spec: OpSpec) -> OpSpec:
        reads, weights, writes = (tuple(map(self.tensor, ts)) for ts in (spec.reads, spec.weights, spec.writes))
        return spec._replace(reads=reads, weights=weights, writes=writes)
