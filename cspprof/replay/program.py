"""A replay as arithmetic: what a record gives on every input of which the same questions have the same answers.

Whatever a size decides is laid out in columns when a program is made. To run it is to fill them, from numbers to
shapes, to tensors, to operations; what no size decides is there already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from operator import itemgetter
from typing import Any

from cspprof.record import Calls, Look, OpSpec, Profile, Storage, TensorSpec
from cspprof.replay.forward import Forward
from cspprof.replay.numbers import Numbers
from cspprof.replay.sizes import Size, Sizes, depends, key

new = tuple.__new__
Pick = Callable[[Sequence[Any]], tuple[Any, ...]]


def picking(places: Sequence[int]) -> Pick:
    """What takes the values at these places out of a list."""
    if len(places) > 1:
        return itemgetter(*places)
    if not places:
        return lambda values: ()
    (place,) = places
    return lambda values: (values[place],)


class Tensors:
    """Tensors in a list; whoever wants one gets its place."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._held: list[TensorSpec] = []
        self._places: dict[int, int] = {}
        self._fresh: dict[int, Pick] = {}
        """By place, what makes the shape of a tensor that has a size in it; the columns go on."""
        self._dtypes: list[str] = []
        self._numels: list[int] = []
        self._nbytes: list[int] = []

    def fresh(self, place: int) -> bool:
        return place in self._fresh

    def place(self, tensor: TensorSpec) -> int:
        """One object for each tensor, as `Forward` has it."""
        found = self._places.setdefault(id(tensor), len(self._held))
        if found == len(self._held):
            self._held.append(tensor)
            if depends(tensor):
                self._fresh[found] = picking([self._numbers.place(n) for n in tensor.shape])
                self._dtypes.append(tensor.dtype)
                self._numels.append(self._numbers.place(tensor.numel))
                self._nbytes.append(self._numbers.place(tensor.nbytes))
        return found

    def run(self, numbers: Sequence[int]) -> list[TensorSpec]:
        held = self._held.copy()
        shapes = [pick(numbers) for pick in self._fresh.values()]
        counts = (map(numbers.__getitem__, places) for places in (self._numels, self._nbytes))
        rows = zip(shapes, self._dtypes, *counts, strict=True)
        for place, row in zip(self._fresh, rows, strict=True):
            held[place] = new(TensorSpec, row)
        return held


class Groups:
    """Tuples of tensors: what operations read and write."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._held: list[tuple[TensorSpec, ...]] = []
        self._places: dict[tuple[int, ...], int] = {}
        self._fresh: dict[int, Pick] = {}

    def fresh(self, place: int) -> bool:
        """Whether a size is in it."""
        return place in self._fresh

    def place(self, group: tuple[TensorSpec, ...]) -> int:
        places = tuple(map(self._tensors.place, group))
        found = self._places.setdefault(places, len(self._held))
        if found == len(self._held):
            self._held.append(group)
            if any(map(self._tensors.fresh, places)):
                self._fresh[found] = picking(places)
        return found

    def run(self, tensors: Sequence[TensorSpec]) -> list[tuple[TensorSpec, ...]]:
        held = self._held.copy()
        for place, pick in self._fresh.items():
            held[place] = pick(tensors)
        return held


class Specs:
    """Operations, in the order of their first calls."""

    def __init__(self, numbers: Numbers, groups: Groups) -> None:
        self._numbers, self._groups = numbers, groups
        self._held: list[OpSpec] = []
        self._fresh: list[int] = []
        self._columns: tuple[list[Any], ...] = ([], [], [], [], [], [], [], [])
        """Of those that a size is in: what they are made of, or its place."""
        self._attrs: dict[Any, tuple[Callable[[Sequence[int]], Any], list[int]]] = {}
        """What makes attributes that a size is in, and whose they are, by what tells them apart."""

    def add(self, spec: OpSpec, recorded: OpSpec) -> None:
        """The next one, and what it was in the record."""
        parts = [self._groups.place(group) for group in (spec.reads, spec.weights, spec.writes)]
        sized = spec.attrs is not recorded.attrs and depends(spec.attrs)
        if not sized and not any(map(self._groups.fresh, parts)):
            self._held.append(recorded if spec == recorded else spec)
            return
        if sized:
            _, users = self._attrs.setdefault(key(spec.attrs), (self._maker(spec.attrs), []))
            users.append(len(self._fresh))
        self._fresh.append(len(self._held))
        self._held.append(spec)
        assert spec.macs is not None, "what is not counted is not followed"
        costs = map(self._numbers.place, (spec.macs, spec.elementwise))
        for column, value in zip(self._columns, (*spec[:2], *parts, spec.attrs, *costs), strict=True):
            column.append(value)

    def run(self, numbers: Sequence[int], groups: Sequence[tuple[TensorSpec, ...]]) -> tuple[OpSpec, ...]:
        held = self._held.copy()
        targets, kinds, reads, weights, writes, attrs, macs, elementwise = self._columns
        if self._attrs:
            attrs = attrs.copy()
            for make, users in self._attrs.values():
                made = make(numbers)
                for i in users:
                    attrs[i] = made
        group, number = groups.__getitem__, numbers.__getitem__
        rows = zip(
            targets, kinds, map(group, reads), map(group, weights), map(group, writes), attrs, map(number, macs),
            map(number, elementwise), strict=True,
        )  # fmt: skip
        for place, row in zip(self._fresh, rows, strict=True):
            held[place] = new(OpSpec, row)
        return tuple(held)

    def _maker(self, value: Any) -> Callable[[Sequence[int]], Any]:
        """What makes an attribute with sizes in it, or all of them."""
        if isinstance(value, dict):
            sized = [(name, self._maker(v)) for name, v in value.items() if depends(v)]
            return lambda numbers: value | {name: make(numbers) for name, make in sized}
        if isinstance(value, tuple):
            if all(isinstance(n, (int, Size)) for n in value):
                return picking(list(map(self._numbers.place, value)))
            parts = [self._maker(v) for v in value]
            return lambda numbers: tuple([make(numbers) for make in parts])
        return itemgetter(self._numbers.place(value)) if isinstance(value, Size) else lambda numbers: value


class Program:
    """A forward that was worked out with sizes, ready to be run on others."""

    def __init__(self, profile: Profile, forward: Forward, sizes: Sizes, storages: Sequence[Storage]) -> None:
        """`storages` are the record's, of the dtype that was asked for."""
        self._profile, self._storages = profile, storages
        self._same = {field.name: getattr(profile, field.name) for field in fields(profile)}
        self._same |= {"offsets": profile.offsets, "lifetimes": profile.lifetimes}
        """Of the profile, what no size has a part in."""
        self._inputs = [i for i, s in enumerate(storages) if s.role == "input"]
        self._numbers = Numbers(sizes)
        self._tensors = Tensors(self._numbers)
        self._groups = Groups(self._tensors)
        self._specs = Specs(self._numbers, self._groups)
        for spec, index in zip(forward.specs, forward.recorded_as, strict=True):
            self._specs.add(spec, profile.specs[index])
        self._looks = list(zip(*[look[:-1] for look in profile.looks or ()], strict=True))
        self._looked = [self._tensors.place(forward.tensor(value)) for value in forward.looked]
        calls = profile.calls
        same = forward.of_call == list(calls.spec)
        self._calls = calls if same else Calls(forward.of_call, calls.layer, calls.storage, calls.name)
        self._counts = list(Counter(forward.of_call).items())

    def run(self, wanted: Sequence[TensorSpec]) -> Profile | None:
        """The profile on these inputs; None where what was asked of the sizes has another answer there."""
        numbers = self._numbers.run([n for t in wanted for n in t.shape])
        if numbers is None:
            return None
        tensors = self._tensors.run(numbers)
        specs, calls = self._specs.run(numbers, self._groups.run(tensors)), self._calls
        known = self._same | {"call_counts": self._counts}
        if len(set(tensors)) < len(tensors):  # two that differ elsewhere are one here, and so may operations be
            found: dict[OpSpec, int] = {}
            number = [found.setdefault(spec, len(found)) for spec in specs]
            if len(found) < len(specs):
                specs = tuple(found)
                calls = replace(calls, spec=[number[i] for i in calls.spec])
                known = self._same
        storages = list(self._storages)
        for i, tensor in zip(self._inputs, wanted, strict=True):
            storages[i] = storages[i]._replace(spec=tensor)
        heard = zip(*self._looks, map(tensors.__getitem__, self._looked), strict=True)
        looks = tuple([new(Look, row) for row in heard])
        made = object.__new__(Profile)  # without the ways of a frozen dataclass, which take longer than all tensors
        vars(made).update(known, inputs=tuple(wanted), storages=tuple(storages), specs=specs, calls=calls, looks=looks)
        return made
