"""A record made ready to be replayed: its rules tried on itself, and the programs that came out of it so far."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.errors import ReplayError
from cspprof.garbage import uncollected
from cspprof.record import Profile, TensorSpec
from cspprof.replay.forward import Forward
from cspprof.replay.program import Program
from cspprof.replay.shapes import FLOATS
from cspprof.replay.sizes import Sizes
from cspprof.replay.values import Value

CAST = frozenset({"parameter", "buffer"})
"""Roles of tensors whose floating dtype follows that of the trace."""

KEPT = 8
"""Programs of a dtype that are kept, those that were run last."""


class Plan:
    """A program holds for all sizes that are alike in what the forward and the rules ask of them: are they one, are
    they even. So a few are enough, each made when it is first needed."""

    def __init__(self, profile: Profile) -> None:
        """Raises ReplayError where nobody watched what the forward asks."""
        if profile.looks is None:
            raise ReplayError(
                f"{profile.model} cannot be replayed: the record does not say whether its forward depends on sizes",
                "Trace the model on meta with this version: cspprof profile SPEC --save x.profile.json",
            )
        self._profile = profile
        self.inputs = [s for s in profile.storages if s.role == "input"]
        with uncollected():
            self._recorded = Forward(profile, {})
        self._programs: dict[tuple[str | None, ...], list[Program]] = {}

    def at(self, wanted: Sequence[TensorSpec], dtype: str | None) -> Profile:
        """The profile on other inputs, with weights of another dtype. Raises ReplayError."""
        programs = self._programs.setdefault((dtype, *[t.dtype for t in wanted]), [])
        for i, program in enumerate(programs):
            found = program.run(wanted)
            if found is not None:
                programs.insert(0, programs.pop(i))  # the next size is often alike
                return found
        with uncollected():
            program = self._program(wanted, dtype)
        programs.insert(0, program)
        del programs[KEPT:]
        found = program.run(wanted)
        assert found is not None, "a program holds where it was made"
        return found

    def _program(self, wanted: Sequence[TensorSpec], dtype: str | None) -> Program:
        profile = self._profile
        storages = [
            s._replace(spec=TensorSpec(s.spec.shape, dtype))
            if dtype is not None and s.spec.dtype in FLOATS and s.role in CAST
            else s
            for s in profile.storages
        ]
        cast = storages if dtype is not None else ()
        given = {s.id: Value(s.spec.shape, s.spec.dtype) for s in cast if s.role in CAST}
        inputs = [s.id for s in self.inputs]
        sizes = Sizes([n for t in wanted for n in t.shape])
        numbers = map(sizes.given, range(len(sizes.values)))
        sized = {
            i: Value(tuple([next(numbers) for _ in t.shape]), t.dtype) for i, t in zip(inputs, wanted, strict=True)
        }
        try:
            forward = Forward(profile, given | sized, self._recorded)
        except (AttributeError, TypeError, ValueError):  # a rule that wants plain numbers
            plain = {i: Value(t.shape, t.dtype) for i, t in zip(inputs, wanted, strict=True)}
            forward = Forward(profile, given | plain, self._recorded)
            for n, size in enumerate(sizes.values):
                sizes.is_zero(sizes.given(n) - size)
        return Program(profile, forward, sizes, storages)
