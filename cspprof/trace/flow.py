"""Bytecode carried out on what is known of values without running it: where the answer to a question goes.

An answer is followed from the instruction that asks through indices, tuples and one local variable. What is not
understood counts as another use.
"""

from __future__ import annotations

import builtins
from collections import Counter
from collections.abc import Iterable, Sequence
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import torch.nn.functional as F

from cspprof.trace.steps import Step, steps

RESIZES = tuple(f for f in (F.interpolate, F.upsample) if f.__globals__ is vars(F))
"""As torch has them."""
KEEPING = (tuple, list, int)
"""Calls that hand on the sizes they are given."""
UNSEEN = frozenset({"locals", "vars", "dir", "eval", "exec", "_getframe", "currentframe", "stack"})
"""Names of what reads local variables where no instruction shows it."""


class Answer(NamedTuple):
    """The size asked for, or a part of it."""

    path: tuple[int | slice, ...] = ()
    """Indices into it, one after the other."""
    kept: bool = False
    """Whether it was in a local variable: a second one might hold an older answer."""

    def of(self, asked: Any) -> Any:
        """The part of what was asked."""
        for place in self.path:
            asked = asked[place]
        return asked


class Several(NamedTuple):
    """A tuple or list of other values."""

    parts: tuple[Any, ...]


class Known(NamedTuple):
    """A constant, a module or a function."""

    value: Any


class Slice(NamedTuple):
    """`start:stop:step`, each of which may be unknown."""

    ends: tuple[Any, ...]


class Method(NamedTuple):
    """A method of something unknown."""

    name: str


UNKNOWN, NULL = Known(object()), Known(object())


class Resize(NamedTuple):
    """A call that resizes to what was asked."""

    call: int
    """The place of its instruction."""
    size: Answer | Several

    def dims(self, asked: int | tuple[int, ...], resized: int) -> list[tuple[int, int]]:
        """Of each dimension resized that follows the answer (there are `resized` in all), which of the map it is.

        `asked` are the dimensions that were asked for.
        """
        if isinstance(self.size, Several):
            return [(i, part.of(asked)) for i, part in enumerate(self.size.parts) if isinstance(part, Answer)]
        every = self.size.of(asked)
        return list(enumerate([every] * resized if isinstance(every, int) else every))


class OtherUseError(Exception):
    """The answer may go elsewhere."""


UNREAD = (OtherUseError, LookupError, TypeError, ValueError, AttributeError)
"""What reading bytecode may end with; all but the first where it is of a Python yet unknown."""


def _answers(value: Any) -> list[Answer]:
    if isinstance(value, Several):
        return [answer for part in value.parts for answer in _answers(part)]
    return [value] if isinstance(value, Answer) else []


def _alone(*values: Any) -> None:
    """Raises OtherUseError if an answer is among the values."""
    if any(map(_answers, values)):
        raise OtherUseError


def _kept(value: Any) -> Any:
    if isinstance(value, Several):
        return Several(tuple(map(_kept, value.parts)))
    return value._replace(kept=True) if isinstance(value, Answer) else value


def is_one_of(value: Any, functions: Iterable[Any]) -> bool:
    return isinstance(value, Known) and any(value.value is known for known in functions)


def _known(value: Any) -> Any:
    if isinstance(value, slice):
        return Slice((Known(value.start), Known(value.stop), Known(value.step)))
    return Several(tuple(map(_known, value))) if isinstance(value, tuple) else Known(value)


def _constant(place: Any) -> int | slice:
    """An index. Raises OtherUseError where it is none, or not known."""
    ends = place.ends if isinstance(place, Slice) else (place,)
    if not all(isinstance(end, Known) and isinstance(end.value, (int, type(None))) for end in ends):
        raise OtherUseError
    return slice(*[end.value for end in ends]) if isinstance(place, Slice) else int(place.value)


class Stack:
    """What is on the stack while the steps of an expression are carried out; nothing is known of local variables."""

    def __init__(self, place: int, names: dict[str, Any]) -> None:
        self._place, self._names = place, names
        self._stack: list[Any] = []
        """Its upper part: what lies below is unknown."""
        self._named: tuple[str, ...] = ()
        """The names of the last arguments of the next call."""
        self._found: dict[int, Resize] = {}
        self.index: Any = None
        """What the instruction at `place` takes as an index, if it is one that does."""

    def read(self, steps: Iterable[Step]) -> None:
        """Raises OtherUseError where an answer asked for at `place` may go elsewhere than to a resize."""
        for step in steps:
            getattr(self, f"_{step.kind}")(step)
        self._other()

    def _pop(self, n: int) -> list[Any]:
        if n > len(self._stack):
            self._stack[:0] = [UNKNOWN] * (n - len(self._stack))
        cut = len(self._stack) - n
        taken = self._stack[cut:]
        del self._stack[cut:]
        return taken

    # -- steps ------------------------------------------------------------------------------------

    def _other(self, step: Step | None = None) -> None:
        """After it, nothing is known of the stack."""
        _alone(*self._stack)
        self._stack.clear()
        self._named = ()

    _anywhere = _other

    def _plain(self, step: Step) -> None:
        _alone(*self._pop(step.argument))
        self._stack.append(UNKNOWN)

    def _load(self, step: Step) -> None:
        self._stack.append(UNKNOWN)

    def _global(self, step: Step) -> None:
        name = step.argument
        self._stack.append(Known(self._names.get(name, vars(builtins).get(name, UNKNOWN.value))))

    def _value(self, step: Step) -> None:
        self._stack.append(_known(step.argument))

    def _unknown(self, step: Step) -> None:
        self._stack.append(UNKNOWN)

    def _null(self, step: Step) -> None:
        self._stack.append(NULL)

    def _attribute(self, step: Step) -> None:
        asked = step.place == self._place and step.argument == "shape"
        self._stack.append(Answer() if asked else self._of(step.argument, UNKNOWN))

    def _method(self, step: Step) -> None:
        self._stack += [self._of(step.argument, Method(step.argument)), UNKNOWN]

    def _of(self, name: str, otherwise: Known | Method) -> Known | Method:
        """What has this name in the module that is uppermost."""
        (of,) = self._pop(1)
        _alone(of)
        module = isinstance(of, Known) and isinstance(of.value, ModuleType)
        return Known(vars(of.value).get(name, UNKNOWN.value)) if module else otherwise

    def _keywords(self, step: Step) -> None:
        self._named = step.argument

    def _call_with(self, step: Step) -> None:
        (names,) = self._pop(1)
        self._named = tuple([name.value for name in names.parts])
        self._call(step)

    def _call(self, step: Step) -> None:
        names, self._named = self._named, ()
        first, second, *given = self._pop(step.argument + 2)
        called = second if first is NULL else first
        if is_one_of(called, RESIZES):
            places = ["input", "size", *[""] * len(given)][: len(given) - len(names)]
            self._resize(step.place, list(zip([*places, *names], given, strict=True)))
        elif is_one_of(called, KEEPING) and len(given) == 1:
            self._stack.append(given[0])
        else:
            _alone(first, second, *given)
            asked = step.place == self._place and isinstance(called, Method) and called.name == "size"
            self._stack.append(Answer() if asked else UNKNOWN)

    def _resize(self, place: int, given: list[tuple[str, Any]]) -> None:
        _alone(*[value for name, value in given if name != "size"])
        for name, size in given:
            if name == "size" and _answers(size):
                if isinstance(size, Several):
                    _alone(*[part for part in size.parts if isinstance(part, Several)])
                self._found[place] = Resize(place, size)
        self._stack.append(UNKNOWN)

    def _slice(self, step: Step) -> None:
        ends = self._pop(step.argument)
        _alone(*ends)
        self._stack.append(Slice(tuple(ends) if len(ends) > 1 else (Known(None), *ends)))

    def _cut(self, step: Step) -> None:
        self._slice(step._replace(argument=2))
        self._index(step)

    def _index(self, step: Step) -> None:
        of, place = self._pop(2)
        if step.place == self._place:
            self.index = place
        if isinstance(of, Answer):
            self._stack.append(of._replace(path=(*of.path, _constant(place))))
        else:
            _alone(of, place)
            self._stack.append(UNKNOWN)

    def _gather(self, step: Step) -> None:
        self._stack.append(Several(tuple(self._pop(step.argument))))

    def _unpack(self, step: Step) -> None:
        self._take_apart(range(step.argument))

    def _unpack_rest(self, step: Step) -> None:
        before, after = step.argument & 0xFF, step.argument >> 8
        self._take_apart([*range(before), slice(before, -after or None), *range(-after, 0)])

    def _take_apart(self, places: Sequence[int | slice]) -> None:
        (of,) = self._pop(1)
        if not isinstance(of, Answer):
            _alone(of)
        for place in reversed(places):
            self._stack.append(of._replace(path=(*of.path, place)) if isinstance(of, Answer) else UNKNOWN)

    def _copy(self, step: Step) -> None:
        values = self._pop(step.argument)
        self._stack += [*values, values[0]]

    def _swap(self, step: Step) -> None:
        first, *between, last = self._pop(step.argument)
        self._stack += [last, *between, first]

    def _drop(self, step: Step) -> None:
        self._pop(1)


class Reading(Stack):
    """A whole code, read over and over until it is known which local variables hold an answer."""

    def __init__(self, code: CodeType, place: int, names: dict[str, Any]) -> None:
        if not UNSEEN.isdisjoint(code.co_names):
            raise OtherUseError
        super().__init__(place, names)
        self._steps = steps(code)
        self._held: dict[str, Any] = {}
        """What is in local variables that hold an answer."""
        packed = bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)  # *args, **kwargs
        self._stored = Counter(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + packed])
        self._stored.update([step.argument for step in self._steps if step.kind == "store"])
        self._loaded = {step.argument for step in self._steps if step.kind == "load"}

    def resizes(self) -> tuple[Resize, ...]:
        """All calls that resize to what is asked at `place`. Raises OtherUseError where it may go elsewhere too."""
        known = -1
        while known < len(self._held):
            known = len(self._held)
            self.read(self._steps)
        return tuple(self._found.values())

    def _load(self, step: Step) -> None:
        self._stack.append(self._held.get(step.argument, UNKNOWN))

    def _store(self, step: Step) -> None:
        name, (value,) = step.argument, self._pop(1)
        answers = _answers(value)
        if not answers or name not in self._loaded:
            return
        if self._stored[name] > 1 or any(answer.kept for answer in answers):
            raise OtherUseError
        self._held[name] = _kept(value)
