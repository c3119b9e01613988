"""The receptive fields of all calls of a record, from its producer–consumer edges."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import prod

from cspprof.analysis.receptive_field.field import (
    MISFITS,
    AxisField,
    Field,
    Value,
    input_field,
    joined,
    merged,
    on_grid,
    plain,
    unknown_field,
)
from cspprof.analysis.receptive_field.intervals import MOST_POSITIONS, Intervals, Span, UnfollowedError, hull
from cspprof.analysis.receptive_field.operations import Operands, output_fields
from cspprof.analysis.receptive_field.views import viewed
from cspprof.core.cached import cached
from cspprof.core.record import Kind, OpSpec, Record, TensorSpec

Numbers = tuple[int | None, ...]
"""One number for each axis of the input; None if it is unknown."""


@dataclass(frozen=True, slots=True)
class Branch:
    """The receptive field of the elements of one tensor, in pixels of the input: one number for each axis."""

    axes: tuple[AxisField, ...]
    counts: Numbers
    """The number of positions of the tensor along each axis; None if its elements have no position there."""
    at_least: bool
    """Whether the sizes are lower bounds, because the reach of an operation is unknown."""
    source: str = ""
    """For a branch, the path of the layer that wrote it; `input` for the input."""

    @property
    def size(self) -> Numbers:
        """The length of the largest interval that an element depends on; None if it is unknown.

        It can reach beyond the borders of the input; with an operation over the whole map, it does not.
        """
        return tuple(self._size(axis, count) for axis, count in zip(self.axes, self.counts, strict=True))

    def _size(self, axis: AxisField, count: int | None) -> int | None:
        if axis.everywhere is None:
            return None if axis.local is None and self.at_least else 0 if axis.local is None else axis.local.size
        if axis.local and (count or 0) > MOST_POSITIONS:
            return None
        local = [axis.local.at(i) for i in range(count or 0)] if axis.local else []
        spans = [span for span in (hull([axis.everywhere, span]) for span in local) if span]
        return max((min(high, axis.length - 1) - max(low, 0) + 1 for low, high in [axis.everywhere, *spans]))

    @property
    def everywhere(self) -> tuple[bool, ...]:
        """Whether an element depends on the whole map through an operation such as global pooling."""
        return tuple(axis.everywhere is not None for axis in self.axes)

    @property
    def local(self) -> Numbers:
        """The size without operations over the whole map; None if nothing else is left."""
        return tuple(axis.local and axis.local.size for axis in self.axes)

    @property
    def stride(self) -> tuple[Fraction | None, ...]:
        """The distance between the fields of neighbors; None if the elements have no position, or no regular one."""
        return tuple(local and local.stride for local in self._positioned)

    @property
    def offset(self) -> Numbers:
        """The first position that element 0 depends on, without operations over the whole map. Negative: padding."""
        return tuple(local.first[0] if local and local.first else None for local in self._positioned)

    @property
    def center(self) -> tuple[Fraction | None, ...]:
        """The middle of what element 0 depends on. That of element i is `center + i·stride`."""
        return tuple(Fraction(sum(local.first), 2) if local and local.first else None for local in self._positioned)

    @property
    def _positioned(self) -> list[Intervals | None]:
        return [None if count is None else axis.local for axis, count in zip(self.axes, self.counts, strict=True)]

    def span(self, axis: int, position: int) -> Span | None:
        """The first and the last position that the element at `position` depends on; None if it depends on none."""
        field = self.axes[axis]
        return hull([field.local and field.local.at(position), field.everywhere])

    @property
    def unknown(self) -> bool:
        """Whether nothing is known of the size."""
        return None in self.size


@dataclass(frozen=True, slots=True)
class LayerField(Branch):
    """The receptive field of the output of a layer, and of each branch that it joins."""

    branches: tuple[Branch, ...] = ()
    """Those of its operands, if they differ."""
    reach_unknown: bool = False
    """Whether it is unknown what the operation itself reads."""


def input_axes(record: Record) -> tuple[int, ...]:
    """The dimensions of the input along which fields are measured: those behind batch and channels, or the dimension of
    the tokens. Empty if the input has none."""
    shape = _main_input(record)
    if shape is None:
        return ()
    return tuple(range(2, len(shape.shape))) or ((1,) if len(shape.shape) == 2 and "int" in shape.dtype else ())


def _main_input(record: Record) -> TensorSpec | None:
    """The first input with the largest number of dimensions."""
    return max(record.inputs, key=lambda t: len(t.shape), default=None)


@cached
def receptive_fields(record: Record) -> list[LayerField | None]:
    """The receptive field of the output of each call; None if the output does not depend on the input, or the input has
    no axes."""
    axes = input_axes(record)
    if not axes:
        return [None] * len(record.calls.spec)
    return _Propagation(record, axes).run()


@dataclass(slots=True)
class _Content:
    """The content of a storage: the field of the tensor that was written last, and the views of it."""

    shape: tuple[int, ...]
    value: Value
    source: str
    version: int = 0
    views: list[_View] = field(default_factory=list)


@dataclass(slots=True)
class _View:
    """A view of a storage, as one of the outputs of a call."""

    shape: tuple[int, ...]
    spec: OpSpec
    output: int
    parent: _View | None
    computed: tuple[int, Value] | None = None
    """Its field, and the version of the content for which it holds."""


class _Propagation:
    def __init__(self, record: Record, axes: tuple[int, ...]) -> None:
        self.record = record
        self.contents: dict[int, _Content] = {}
        self.made: dict[int, _View] = {}
        """Views by the position of the write that made them."""
        self.lengths: tuple[int, ...] = ()
        main = _main_input(record)
        assert main is not None, "a record with axes has an input"
        self.lengths = tuple(main.shape[d] for d in axes)
        for stored in record.storages:
            if stored.role == "input":
                self.contents[stored.id] = _Content(stored.spec.shape, self._input(stored.spec, axes, main), "input")

    def _input(self, spec: TensorSpec, axes: tuple[int, ...], main: TensorSpec) -> Value:
        """The field of an input. One of other sizes has positions that do not compare with those of the main one."""
        if len(spec.shape) == len(main.shape) and tuple(spec.shape[d] for d in axes) == self.lengths:
            return input_field(spec.shape, axes)
        return unknown_field(spec.shape, self.lengths) if len(spec.shape) > 2 else None

    def run(self) -> list[LayerField | None]:
        record = self.record
        results: list[LayerField | None] = []
        for i, (number, at) in enumerate(zip(record.calls.spec, record.offsets, strict=True)):
            spec = record.specs[number]
            first_write = at + len(spec.reads) + len(spec.weights)
            if spec.kind is Kind.VIEW and spec.reads:
                self._add_views(spec, at, first_write)
                results.append(None)
                continue
            places = [self._place(at + k, t) for k, t in enumerate((*spec.reads, *spec.weights))]
            values = [self._value(place) for place in places]
            operands = Operands(tuple(values[: len(spec.reads)]), tuple(values[len(spec.reads) :]))
            fields, followed = output_fields(spec, operands, self.lengths)
            source = record.layers[record.calls.layer[i]].path or spec.name
            for k, (tensor, value) in enumerate(zip(spec.writes, fields, strict=True)):
                storage = record.calls.storage[first_write + k]
                self._write(storage, tensor, value, source, places)
            sources = [content.source if content else "" for content, _ in places]
            results.append(self._result(fields, values, sources, not followed))
        return results

    # -- storages and views -------------------------------------------------------------------------------

    def _place(self, position: int, tensor: TensorSpec) -> tuple[_Content | None, _View | None]:
        """The content and the view that are read at a position of the storage column."""
        content = self.contents.get(self.record.calls.storage[position])
        if content is None:
            return None, None
        made = self.record.calls.views.get(position)
        if made is not None:
            return content, self.made.get(made)
        if content.shape == tensor.shape:
            return content, None
        same = [view for view in content.views if view.shape == tensor.shape]
        if any(self._value((content, view)) != self._value((content, same[0])) for view in same[1:]):
            unknown = content.version, unknown_field(tensor.shape, self.lengths)  # the record does not say which one
            return content, replace(same[0], computed=unknown)
        return content, same[0] if same else None

    def _value(self, place: tuple[_Content | None, _View | None]) -> Value:
        content, view = place
        if content is None or content.value is None or view is None:
            return content.value if content else None
        if view.computed is None or view.computed[0] != content.version:
            parent = self._value((content, view.parent))
            try:
                value = viewed(parent, view.spec, view.output)
            except (UnfollowedError, *MISFITS):
                value = unknown_field(view.shape, self.lengths)
            view.computed = content.version, value
        return view.computed[1]

    def _add_views(self, spec: OpSpec, at: int, first_write: int) -> None:
        content, parent = self._place(at, spec.reads[0])
        if content is None:
            return
        for k, tensor in enumerate(spec.writes):
            view = _View(tensor.shape, spec, k, parent)
            self.made[first_write + k] = view
            content.views.append(view)

    def _write(
        self, storage: int, tensor: TensorSpec, value: Value, source: str,
        places: Sequence[tuple[_Content | None, _View | None]],
    ) -> None:  # fmt: skip
        content = self.contents.get(storage)
        if content is None:
            self.contents[storage] = _Content(tensor.shape, value, source)
            return
        view = next((v for c, v in places if c is content and v is not None and v.shape == tensor.shape), None)
        if view is not None and tensor.numel != prod(content.shape):
            content.value = _overwritten_part(content, view, value, self._value((content, view)), self.lengths)
        elif view is not None and tensor.shape != content.shape:
            if value != self._value((content, view)):
                content.value = unknown_field(content.shape, self.lengths)
        else:
            content.shape, content.value = tensor.shape, value
        content.source = source
        content.version += 1

    # -- results ------------------------------------------------------------------------------------------

    def _result(
        self, fields: Sequence[Value], values: Sequence[Value], sources: Sequence[str], reach_unknown: bool
    ) -> LayerField | None:
        field = self._merged(fields[0]) if fields else None
        if field is None:
            return None
        parts: list[Branch] = []
        for value, source in zip(values, sources, strict=True):
            operand = self._merged(value)
            if operand is not None:
                parts.append(_branch(operand, source))
        differ = len({replace(part, source="") for part in parts}) > 1
        whole = _branch(field)
        return LayerField(whole.axes, whole.counts, whole.at_least, "", tuple(parts) if differ else (), reach_unknown)

    def _merged(self, value: Value) -> Field | None:
        try:
            return merged(value)
        except UnfollowedError:
            return None if value is None else unknown_field(value.shape, self.lengths)


def _overwritten_part(content: _Content, view: _View, value: Value, before: Value, lengths: Sequence[int]) -> Value:
    """The field of a tensor after a write into a part of its channels. A part of its positions is not followed."""
    if value == before:
        return content.value
    new, old = merged(value), merged(content.value)
    if new is None or len(new.dims) != len(content.shape):
        return content.value if new is None else unknown_field(content.shape, lengths)
    for d, size in enumerate(content.shape):
        if new.shape[d] != size:
            if new.has_positions(d) or (old is not None and old.has_positions(d)):
                return unknown_field(content.shape, lengths)
            new = new.with_dim(d, plain(size))
    try:
        return new if old is None else joined([old, new], content.shape)
    except UnfollowedError:
        return unknown_field(content.shape, lengths)


def _branch(field: Field, source: str = "") -> Branch:
    for d in range(len(field.dims)):
        with suppress(UnfollowedError):
            field, _ = on_grid(field, d)
    counts = [field.count(axis) if field.factors(axis) else None for axis in range(len(field.axes))]
    return Branch(field.axes, tuple(counts), field.at_least, source)
