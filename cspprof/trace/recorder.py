"""The dispatch mode: sees every aten operation of a forward, answers it, and writes it down.

Under `torch.inference_mode()` a dispatch mode is shown convolutions, norms and attention as one operation each.
An operation is answered from a memo where the same one was answered before, by `shapes` where it is common, else
by torch's own kernel. A composite without a rule is taken apart, so nothing inside it is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import compress, count, repeat
from threading import get_ident
from typing import Any

import torch
from torch._C import _len_torch_dispatch_stack as _dispatch_modes
from torch._C import _len_torch_function_stack as _function_modes
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import TorchDispatchMode

from cspprof.errors import TraceError
from cspprof.record import Calls, Look, OpSpec, Storage, TensorSpec
from cspprof.rules import RULES
from cspprof.trace.describe import REFUSED, Entry, describe, outputs, rule_of, taken_apart, written_in
from cspprof.trace.given import Given, given_to, numbers
from cspprof.trace.kernels import at_hand, from_torch
from cspprof.trace.looks import note
from cspprof.trace.memo import LIMIT, MEMOS
from cspprof.trace.metas import HigherOrder, Meta, Operator, Tag, meta_of, metas_of, operator
from cspprof.trace.nests import NUMBERS
from cspprof.trace.packed import unpack
from cspprof.trace.relations import ALIAS, FRESH, SAME, Result, offsets, relation
from cspprof.trace.scope import Held
from cspprof.trace.shapes import ANSWERS

PLAIN = frozenset({torch.Tensor, torch.nn.Parameter})
make = tuple.__new__
"""Builds a NamedTuple without its keyword handling."""


Seen = tuple[Entry | None, Any, tuple[Any, ...], dict[str, Any], list[Tag], Any]
"""An operation: its entry, function, arguments, the tags of the tensors among them, and what came out."""


class Recorder(TorchDispatchMode):
    """Columns of calls in the making. `layer` is set from outside, by the forward hooks."""

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch wraps __torch_dispatch__ so as to import dynamo on first use

    def __init__(self, on_meta: bool, protect: Callable[[torch.Tensor], None], calls: list[int]) -> None:
        super().__init__()
        self.on_meta = on_meta
        self.protect = protect
        self.calls = calls
        """How often each layer was called."""
        self.thread = get_ident()
        self.functions, self.modes = _function_modes(), _dispatch_modes() + 1
        """How many modes there are while the model alone runs, this one among them."""
        self.plain = self.modes == 1 and all(type(m) is DeviceContext for m in _get_current_function_mode_stack())
        """Whether nobody else wants to see what is done to tensors: no mode, and no tensor of a class of its own."""
        self.layer = 0
        self.autocast = False
        """Whether an operation ran on meta in an autocast region, where no dtype changes."""
        self.within: tuple[str, ...] = ()
        """The composite operation that is being taken apart, and its textual arguments."""
        self.memo = MEMOS[on_meta, self.within]
        self.held: dict[int, Tag] = {}
        self.owners: dict[int, torch.Tensor] = {}
        """The tensor of the model or the user that lies in a storage; it is kept, so that its id stays its own."""
        self.stale: set[int] = set()
        """Storages of constants that something unknown was written into, without being carried out."""
        self.left_out = object()
        """The owner of tags of outputs that a rule leaves out."""
        self.packed: dict[int, tuple[torch.ScriptObject, tuple[list[torch.Tensor], dict[str, Any]]]] = {}
        self.storages: list[Storage] = []
        self.next_storage = 0
        self.log: list[tuple[Entry, int, list[Tag], Sequence[int]]] = []
        """Calls: what was done, by which layer, with what, and the storages of the outputs."""
        self.looks: dict[Look, None] = {}
        """What the forward asked of its tensors; in order, each once between two calls."""
        self.watched: list[Seen] | None = None
        """What is done from now on, for whoever wants to know."""
        self.failure: tuple[BaseException, int, str, list[TensorSpec]] | None = None

    def move(self, layer: int) -> int:
        """From now on this layer runs; until now, the one returned."""
        outer, self.layer = self.layer, layer
        return outer

    def let_go(self) -> None:
        """Drop what names this recorder as its owner and is held by it: without a cycle it is all gone at once."""
        self.held.clear()
        self.log.clear()

    # -- tensors ----------------------------------------------------------------------------------

    def hold(self, tensor: torch.Tensor, name: str, role: str) -> Tag:
        """Take in a tensor that no operation of this trace made."""
        found = self.held.get(id(tensor))
        if found is not None:
            return found
        m = meta_of(tensor, role not in ("input", "byproduct"))
        storage = self.next_storage
        self.next_storage = storage + 1
        self.storages.append(make(Storage, (storage, name, role, m.spec)))
        constant = role in ("buffer", "constant") and not tensor.is_meta
        tag = self.held[id(tensor)] = make(Tag, (self, storage, m, constant))
        self.owners[storage] = tensor
        return tag

    def hold_all(self, those: Held, role: str, replacements: dict[int, torch.Tensor]) -> None:
        """Take in what a model holds, by path, or what stands in its place."""
        held, _, paths, tensors = self.held, *those
        self.plain = self.plain and PLAIN.issuperset(map(type, tensors))
        if replacements:
            tensors = [replacements.get(id(t), t) for t in tensors]
        keys = list(map(id, tensors))
        if not held.keys().isdisjoint(keys):  # an input, or one of another role
            new = [key not in held for key in keys]
            keys, paths, tensors = list(compress(keys, new)), list(compress(paths, new)), list(compress(tensors, new))
        first, self.next_storage = self.next_storage, self.next_storage + len(keys)
        numbers = range(first, self.next_storage)
        metas = metas_of(tensors)
        known = [not t.is_meta for t in tensors] if role == "buffer" else repeat(False)
        rows = zip(numbers, paths, repeat(role), [m.spec for m in metas], strict=False)
        self.storages += map(make, repeat(Storage), rows)
        held.update(
            zip(keys, map(make, repeat(Tag), zip(repeat(self), numbers, metas, known, strict=False)), strict=True)
        )
        self.owners.update(zip(numbers, tensors, strict=True))

    def new_storage(self) -> int:
        self.next_storage += 1
        return self.next_storage - 1

    def tag(self, tensor: torch.Tensor) -> Tag:
        tag = tensor.__dict__.get("_cspprof")
        if tag is None or tag.owner is not self:
            left_out = tag is not None and tag.owner is self.left_out
            tag = self.held.get(id(tensor)) or self.hold(tensor, "", "byproduct" if left_out else "constant")
        return tag

    # -- operations -------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if types and any(hasattr(c, "__tensor_flatten__") for c in types):
            return NotImplemented  # a tensor made of tensors (jagged, quantised …) says what is done with those
        tensors: list[torch.Tensor] = []
        tags: list[Tag] = []
        key: list[Any] = [id(func)]
        self._key(args, key, tensors, tags)
        if kwargs:
            key.extend(kwargs)
            self._key(kwargs.values(), key, tensors, tags)
        frozen = tuple(key)
        entry = self.memo.get(frozen)
        if entry is not None and not entry.real:
            made = self.answer(entry, tensors, tags)
        elif entry is not None and entry.view and tensors[0].is_meta:
            made = self.view(entry, func, args, kwargs or {}, tensors[0], tags[0])
        else:
            made = self.ask(func, args, kwargs or {}, frozen, entry, tensors, tags)
        if self.watched is not None:
            self.watched.append((self.memo.get(frozen), func, args, kwargs or {}, tags, made))
        return made

    def _key(self, values: Iterable[Any], key: list[Any], tensors: list[torch.Tensor], tags: list[Tag]) -> None:
        """Append what distinguishes the arguments, types of scalars included: 1 == True == 1.0."""
        add = key.append
        for a in values:
            kind = type(a)
            if kind is torch.Tensor or isinstance(a, torch.Tensor):
                tag = a.__dict__.get("_cspprof")
                if tag is None or tag[0] is not self:
                    tag = self.held.get(id(a)) or self.tag(a)
                tensors.append(a)
                tags.append(tag)
                add(tag[2])
                if tag[3]:
                    add(True)
            elif a is None or kind is str:
                add(a)
            elif kind in NUMBERS:
                add(kind)
                add(a)
            elif kind is list or kind is tuple:
                add(len(a))
                if a and type(a[0]) in NUMBERS:
                    key += map(type, a)
                    key += a
                else:
                    self._key(a, key, tensors, tags)
            elif isinstance(a, torch.ScriptObject):
                _, (held, window) = self.packed.setdefault(hash(a), (a, unpack(a)))  # many Python faces, one hash
                for weight in held:
                    self.hold(weight, "", "parameter")
                self._key(held, key, tensors, tags)
                add(str(window))
            else:
                try:
                    hash(a)
                except TypeError:
                    a = repr(a)
                add(a)

    def answer(self, entry: Entry, tensors: list[torch.Tensor], tags: list[Tag]) -> torch.Tensor:
        """An operation answered before, on meta: no kernel runs."""
        if not self.autocast:
            self.see_autocast()
        how, position, m = entry.results[0]
        if how is FRESH:
            made = m.empty()
            storage = self.next_storage
            self.next_storage = storage + 1
            made.__dict__["_cspprof"] = make(Tag, (self, storage, m, False))
        else:
            made, storage = tensors[position], tags[position].storage
        if entry.spec is not None:
            self.log.append((entry, self.layer, tags, (storage,)))
        elif entry.idle is not None:
            note(self, *entry.idle, tags)
        return made

    def view(
        self, entry: Entry, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], base: torch.Tensor, tag: Tag
    ) -> Any:
        """A view seen before, on meta: what is known of it is known already."""
        if not self.autocast:
            self.see_autocast()
        if entry.offsets:
            start = base.storage_offset()
            made = [
                base.as_strided(m.shape, m.strides, start + offset)
                for (_, _, m), offset in zip(entry.results, entry.offsets, strict=True)
            ]
        else:
            found = func(*args, **kwargs)
            made = list(found) if isinstance(found, (list, tuple)) else [found]
        for tensor, (_, _, m) in zip(made, entry.results, strict=True):
            tensor.__dict__["_cspprof"] = make(Tag, (self, tag.storage, m, False))
        if entry.idle is not None:
            note(self, *entry.idle, [tag])
        self.log.append((entry, self.layer, [tag], (tag.storage,) * len(made)))
        return made if entry.several else made[0]

    def alone(self) -> bool:
        """Whether what is done now is seen by this trace and by nobody else, gradients neither."""
        modes = _function_modes() == self.functions and _dispatch_modes() == self.modes
        return modes and torch.is_inference_mode_enabled() and get_ident() == self.thread

    def see_autocast(self) -> None:
        """Down here autocast is off whatever the region says; only how deep regions are nested can be told."""
        if torch.autocast_increment_nesting() > 1:
            self.autocast = True
        torch.autocast_decrement_nesting()

    def columns(self) -> tuple[tuple[OpSpec, ...], Calls]:
        """The specs in the order of their first calls, and the calls."""
        specs = [own for entry, _, _, _ in self.log if (own := entry[0]) is not None]
        keys = list(map(id, specs))
        known = dict(zip(keys, specs, strict=True))
        index = dict(zip(known, count()))
        storages: list[int] = []
        add = storages.append
        for entry, _, tags, written in self.log:
            for i in entry[1]:
                add(tags[i][1])
            storages += written[: entry[3]]
        spec = list(map(index.__getitem__, keys))
        return tuple(known.values()), Calls(spec, [layer for _, layer, _, _ in self.log], storages)

    # -- an operation not answered before, or one that torch has to answer ------------------------

    def ask(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], key: tuple[Any, ...], entry: Entry | None,
        tensors: list[torch.Tensor], tags: list[Tag],
    ) -> Any:  # fmt: skip
        if self.on_meta:
            self.see_autocast()
        given: Given | None = None
        try:
            op = operator(func)
            if isinstance(op, HigherOrder) and op.target not in RULES:
                raise TraceError(f"the higher-order operator {func} cannot be traced", "Trace the eager model.")
            if op.target in REFUSED:
                return False
            symbolic = self.on_meta and not at_hand(self, tensors, tags, args, kwargs)
            if symbolic and op.written:
                self.stale.update(self.tag(t).storage for t in written_in(op, args, kwargs))
            if entry is None and taken_apart(op):
                note(self, op.target, numbers(op, args, kwargs), tags)
                result = self._take_apart(op, args, kwargs)
                if result is not NotImplemented:
                    return result
            if symbolic and entry is None and op.plain in ANSWERS:
                given = given_to(op, args, kwargs, tags)
                entry = self.answered(op, given, tags)
                if entry is not None:
                    return self.answer(self._keep(key, entry), tensors, tags)
            made, inputs = from_torch(self, op, args, kwargs, tensors, tags, symbolic)
            made_tensors = outputs(op, made, args, kwargs)
            results = [relation(t, op, tensors, inputs, tags) for t in made_tensors]
        except Exception as error:
            if self.failure is None or self.failure[0] is not error:
                name = getattr(getattr(func, "_schema", None), "name", str(func)).replace("::", ".")
                self.failure = (error, self.layer, name, [t.meta.spec for t in tags])
            raise
        if entry is None or entry.results != tuple(results):  # a shape may depend on values: x[x > 0]
            given = given or given_to(op, args, kwargs, tags)
            one = isinstance(made, torch.Tensor)
            entry = describe(op, args, kwargs, given, results, tags, one, self.on_meta, self.within)
            if entry.view:
                entry = entry._replace(offsets=offsets(tensors[0], made_tensors))
            self._keep(key, entry)
        self._take(op, made_tensors, entry, results, tags, constant=not symbolic)
        return made

    def _keep(self, key: tuple[Any, ...], entry: Entry) -> Entry:
        if len(self.memo) >= LIMIT:
            self.memo.clear()  # specs stay, which this trace numbers by identity
        self.memo[key] = entry
        return entry

    def _take_apart(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Have the parts recorded, each with the outermost composite that it belongs to."""
        outer = self.within
        self.within = outer or (op.target, *(a for a in args if isinstance(a, str)))
        self.memo = MEMOS[self.on_meta, self.within]
        try:
            with self:
                return op.func.decompose(*args, **kwargs)
        finally:
            self.within = outer
            self.memo = MEMOS[self.on_meta, outer]

    def answered(self, op: Operator, given: Given, tags: list[Tag]) -> Entry | None:
        """The entry worked out by `shapes` and `rules`, where those know the operation and these arguments."""
        result = result_of(op, given.metas, given.named_metas, tags)
        if result is None:
            return None
        entry = describe(op, (), {}, given, [result], tags, True, True, self.within)
        return None if entry.real else entry

    # -- writing it down ---------------------------------------------------------------------------

    def _take(
        self, op: Operator, made: list[torch.Tensor], entry: Entry, results: list[Result], tags: list[Tag],
        constant: bool,
    ) -> None:  # fmt: skip
        written = []
        for i, (tensor, (how, position, m)) in enumerate(zip(made, results, strict=True)):
            if how is SAME:
                written.append(tags[position].storage)
                if op.written and m is not tags[position].meta:  # unsqueeze_, resize_, t_ …
                    self._retag(tensor, tags[position], m)
                continue
            storage = tags[position].storage if how is ALIAS else self.new_storage()
            written.append(storage)
            known = constant and (how is FRESH or tags[position].constant)
            known = known or (self.on_meta and how is FRESH and not tensor.is_meta)
            recorded = entry.spec is None or how is ALIAS or i < entry.recorded
            tensor.__dict__["_cspprof"] = make(Tag, (self if recorded else self.left_out, storage, m, known))
        if entry.idle is not None:
            note(self, *entry.idle, tags)
        if entry.spec is not None:
            self.log.append((entry, self.layer, tags, written))

    def _retag(self, tensor: torch.Tensor, old: Tag, m: Meta) -> None:
        tag = old._replace(meta=m)
        if id(tensor) in self.held:
            self.held[id(tensor)] = tag
        else:
            tensor.__dict__["_cspprof"] = tag


def result_of(op: Operator, metas: list[Any], named: dict[str, Any], tags: list[Tag]) -> Result | None:
    """What `shapes` answers of an operation with a rule, where that is sure; `metas` and `named` are the arguments,
    `tags` those of the tensors."""
    rule = ANSWERS.get(op.plain)
    if rule is None or op.outs or not (rule_of(op) or op.pointwise):
        return None
    try:
        found = rule(*metas, **named)
    except (TypeError, ValueError, IndexError):  # arguments that no rule has thought of: torch says what they are
        return None
    if found is None:
        return None
    if op.written:
        return (SAME, 0, tags[0].meta) if found.shape == tags[0].meta.shape else None
    return FRESH, -1, found
