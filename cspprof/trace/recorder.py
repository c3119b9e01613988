"""The dispatch mode: sees every aten operation of a forward, answers it, and writes it down.

Under `torch.inference_mode()` a dispatch mode is shown convolutions, norms and attention as one operation each.
An operation is answered from a memo where the same one was answered before, by `shapes` where it is common, else
by torch's own kernel. A composite without a rule is taken apart, so nothing inside it is lost.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cspprof.errors import TraceError
from cspprof.record import OpSpec, Storage, TensorSpec
from cspprof.rules import RULES
from cspprof.trace.describe import ALIAS, FREE, FRESH, SAME, SPECS, VALUES, Entry, Result, describe
from cspprof.trace.metas import HigherOrder, Meta, Operator, Tag, meta_of, operator
from cspprof.trace.nests import replace, tensors_in
from cspprof.trace.packed import unpack
from cspprof.trace.shapes import ANSWERS

BY_VALUE = frozenset({"aten._pack_padded_sequence", "aten._pad_packed_sequence", "aten.lstm", "aten.gru",
                      "aten.rnn_tanh", "aten.rnn_relu", "aten.tensor_split"})  # fmt: skip
"""Operations with an argument that torch reads on the CPU, wherever the rest is: lengths, batch sizes, indices."""

REFUSED = frozenset({"aten._nested_tensor_from_mask_left_aligned"})
"""Questions answered with no, whatever the values: `nn.TransformerEncoder` then keeps the padded batch."""

_MEMO: dict[tuple[Any, ...], Entry] = {}
_MEMO_LIMIT = 50_000


def forget() -> None:
    """Empty the memo: a rule was added, or a first trace is to be timed."""
    _MEMO.clear()
    SPECS.clear()


_KNOWN: list[object] = []
"""What the memo was made under."""


def remember() -> None:
    """Before a trace: keep the memo only where no rule was added, here or in torch's registry of FLOP formulas, and
    a division of integers still has the same dtype."""
    counter = sys.modules.get("torch.utils.flop_counter")
    rules = [RULES.version, torch.get_default_dtype(), *(() if counter is None else counter.flop_registry.values())]
    if rules != _KNOWN:
        forget()
        _KNOWN[:] = rules


STATISTICS = ("running_mean", "running_var")
"""What batch and instance norm write in training, though their schemas do not say so."""


def written_in(
    op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], besides: Iterable[str] = ()
) -> list[torch.Tensor]:
    """The tensor arguments that the operation writes into by its schema, and those of the names `besides`."""
    named = {**dict(zip(op.names, args, strict=False)), **kwargs}
    return [t for name in (*op.written, *besides) for t in tensors_in(named.get(name))]


def outputs(op: Operator, made: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """What the operation returns, or what it writes into where it returns nothing."""
    return list(tensors_in(made)) or written_in(op, args, kwargs)


class Recorder(TorchDispatchMode):
    """Columns of calls in the making. `layer` is set from outside, by the forward hooks."""

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch wraps __torch_dispatch__ so as to import dynamo on first use

    def __init__(self, on_meta: bool, protect: Callable[[torch.Tensor], None]) -> None:
        super().__init__()
        self.on_meta = on_meta
        self.protect = protect
        self.layer = 0
        self.autocast = False
        """Whether an operation ran on meta in an autocast region, where no dtype changes."""
        self.within: tuple[str, ...] = ()
        """The composite operation that is being taken apart, and its textual arguments."""
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
        self.specs: dict[int, int] = {}
        self.ordered: list[OpSpec] = []
        self.call_spec: list[int] = []
        self.call_layer: list[int] = []
        self.call_storage: list[int] = []
        self.failure: tuple[BaseException, int, str, list[TensorSpec]] | None = None

    # -- tensors ----------------------------------------------------------------------------------

    def hold(self, tensor: torch.Tensor, name: str, role: str, like: Tag | None = None) -> Tag:
        """Take in a tensor that no operation of this trace made."""
        found = self.held.get(id(tensor))
        if found is not None:
            return found
        m = meta_of(tensor, weight=role not in ("input", "byproduct"))
        if like is None:
            storage = self.new_storage()
            self.storages.append(Storage(storage, name, role, m.spec))
        else:
            storage = like.storage
        constant = tensor.device.type != "meta" and role in ("buffer", "constant")
        tag = self.held[id(tensor)] = Tag(self, storage, m, constant)
        self.owners[storage] = tensor
        return tag

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
        if self.on_meta and not self.autocast:
            # Down here autocast is off whatever the region says; only how deep regions are nested can be told.
            self.autocast = torch.autocast_increment_nesting() > 1
            torch.autocast_decrement_nesting()
        tensors: list[torch.Tensor] = []
        tags: list[Tag] = []
        key: list[Any] = [id(func), self.on_meta, self.within]
        add = key.append
        for a in args:
            if isinstance(a, torch.Tensor):
                tag = self.tag(a)
                tensors.append(a)
                tags.append(tag)
                add(tag.meta)
                if tag.constant:
                    add(True)
            else:
                self._key(a, add, tensors, tags)
        if kwargs:
            for name, a in kwargs.items():
                add(name)
                self._key(a, add, tensors, tags)
        frozen = tuple(key)
        entry = _MEMO.get(frozen)
        if entry is not None and not entry.real:
            return self.answer(entry, tensors, tags)
        return self.ask(func, args, kwargs or {}, frozen, entry, tensors, tags)

    def _key(self, a: Any, add: Callable[[Any], None], tensors: list[torch.Tensor], tags: list[Tag]) -> None:
        """Append what distinguishes the argument, types of scalars included: 1 == True == 1.0."""
        if a is None or isinstance(a, str):
            add(a)
        elif isinstance(a, torch.Tensor):
            tag = self.tag(a)
            tensors.append(a)
            tags.append(tag)
            add(tag.meta)
            if tag.constant:
                add(True)
        elif isinstance(a, (list, tuple)):
            add(len(a))
            for item in a:
                self._key(item, add, tensors, tags)
        elif isinstance(a, (int, float, complex)):
            add(a.__class__)
            add(a)
        elif isinstance(a, torch.ScriptObject):
            _, (held, window) = self.packed.setdefault(hash(a), (a, unpack(a)))  # many Python faces, one hash
            self._key(held, add, tensors, tags)
            add(str(window))
        else:
            try:
                hash(a)
            except TypeError:
                a = repr(a)
            add(a)

    def answer(self, entry: Entry, tensors: list[torch.Tensor], tags: list[Tag]) -> Any:
        """An operation answered before, on meta: no kernel runs."""
        out: list[torch.Tensor] = []
        written: list[int] = []
        for how, position, m in entry.results:
            if how is FRESH:
                tensor = m.empty()
                storage = self.new_storage()
                tensor._cspprof = Tag(self, storage, m, False)  # type: ignore[attr-defined]
            else:
                tensor, storage = tensors[position], tags[position].storage
            out.append(tensor)
            written.append(storage)
        if entry.spec is not None:
            self.record(entry, [t.storage for t in tags], written)
        return out[0]

    def record(self, entry: Entry, storages: list[int], written: list[int]) -> None:
        spec = entry.spec
        assert spec is not None
        index = self.specs.get(id(spec))
        if index is None:
            index = self.specs[id(spec)] = len(self.ordered)
            self.ordered.append(spec)
        self.call_spec.append(index)
        self.call_layer.append(self.layer)
        self.call_storage.extend([storages[i] for i in entry.reads])
        self.call_storage.extend(written[: entry.recorded])

    # -- an operation not answered before, or one that torch has to answer ------------------------

    def ask(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], key: tuple[Any, ...], entry: Entry | None,
        tensors: list[torch.Tensor], tags: list[Tag],
    ) -> Any:  # fmt: skip
        try:
            op = operator(func)
            if isinstance(op, HigherOrder) and op.target not in RULES:
                raise TraceError(f"the higher-order operator {func} cannot be traced", "Trace the eager model.")
            if op.target in REFUSED:
                return False
            symbolic = self.on_meta and not self._constant(tensors, tags, args, kwargs)
            if symbolic and op.written:
                self.stale.update(self.tag(t).storage for t in written_in(op, args, kwargs))
            if entry is None and self._taken_apart(op):
                result = self._take_apart(op, args, kwargs)
                if result is not NotImplemented:
                    return result
            answer = self._answer(op, args, kwargs, tags) if symbolic and entry is None else None
            if answer is not None:
                made, results = answer
            else:
                made, inputs = self._from_torch(op, args, kwargs, tensors, tags, symbolic)
                results = [self._relation(t, op, tensors, inputs, tags) for t in outputs(op, made, args, kwargs)]
        except Exception as error:
            if self.failure is None or self.failure[0] is not error:
                name = getattr(getattr(func, "_schema", None), "name", str(func)).replace("::", ".")
                self.failure = (error, self.layer, name, [t.meta.spec for t in tags])
            raise
        return self._take(op, made, args, kwargs, key, entry, results, tags, constant=not symbolic)

    def _constant(self, tensors: list[torch.Tensor], tags: list[Tag], args: Any, kwargs: Any) -> bool:
        """Whether the values are at hand: no argument comes from the model's inputs or parameters."""
        if not tensors:
            return str(kwargs.get("device", "cpu")) != "meta"
        if str(kwargs.get("device", "")) == "meta" or any(
            str(a) == "meta" for a in args if isinstance(a, torch.device)
        ):
            return False
        return all(t.constant and t.storage not in self.stale for t in tags)

    @staticmethod
    def _taken_apart(op: Operator) -> bool:
        known = op.target in RULES or op.plain in RULES or op.pointwise or op.target in FREE
        return not known and op.composite

    def _take_apart(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Have the parts recorded, each with the outermost composite that it belongs to."""
        outer = self.within
        self.within = outer or (op.target, *(a for a in args if isinstance(a, str)))
        try:
            with self:
                return op.func.decompose(*args, **kwargs)
        finally:
            self.within = outer

    @staticmethod
    def _answer(
        op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], tags: list[Tag]
    ) -> tuple[torch.Tensor, list[Result]] | None:
        """The output worked out by `shapes`, where that knows the operation and these arguments."""
        rule = ANSWERS.get(op.plain)
        if rule is None or op.outs:
            return None
        metas = iter([t.meta for t in tags])
        found = rule(*replace(args, metas), **{k: replace(v, metas) for k, v in kwargs.items()})
        if found is None:
            return None
        if not op.written:
            return found.empty(), [(FRESH, -1, found)]
        return (args[0], [(SAME, 0, tags[0].meta)]) if found.shape == tags[0].meta.shape else None

    def _from_torch(
        self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[torch.Tensor],
        tags: list[Tag], symbolic: bool,
    ) -> tuple[Any, list[torch.Tensor]]:  # fmt: skip
        """What torch answers, and the tensors that it was asked with: stand-ins on meta, or the real ones."""
        if not symbolic:
            for tensor in written_in(op, args, kwargs, STATISTICS):
                owner = self.owners.get(self.tag(tensor).storage)
                if owner is not None:
                    self.protect(tensor if id(tensor) in self.held else owner)
            return self._carried_out(op, args, kwargs, tensors), tensors
        known = op.target in VALUES and not any(t.storage in self.stale for t in tags)
        if known or (op.views and all(t.device.type != "meta" for t in tensors)):
            return op.func(*args, **kwargs), tensors  # a real parameter: its values, a view of it
        if op.in_place and tags[0].meta.weight:
            return args[0], tensors  # a write into the model's own tensors: seen, not carried out
        inputs = [t if op.target in BY_VALUE and self.tag(t).constant else self._stand_in(t) for t in tensors]
        given = iter(inputs)
        made = op.func(*replace(args, given), **{k: replace(v, given) for k, v in kwargs.items()})
        if op.in_place and isinstance(made, torch.Tensor) and made.shape == tensors[0].shape:
            made = args[0]
        return made, inputs

    @staticmethod
    def _carried_out(op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[torch.Tensor]) -> Any:
        """What a real kernel gives: tensors that a cache of the forward may keep and training use later."""
        if any(t.is_inference() for t in tensors):
            return op.func(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad():
            return op.func(*args, **kwargs)

    def _stand_in(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on meta: itself if it is there, else an empty one.

        Not an inference tensor: a view of one could not stand for a view of a parameter.
        """
        if tensor.device.type == "meta":
            return tensor
        with torch.inference_mode(False):
            return self.tag(tensor).meta.empty()

    # -- writing it down ---------------------------------------------------------------------------

    def _take(
        self, op: Operator, made: Any, args: tuple[Any, ...], kwargs: dict[str, Any], key: tuple[Any, ...],
        entry: Entry | None, results: list[Result], tags: list[Tag], constant: bool,
    ) -> Any:  # fmt: skip
        if entry is None or entry.results != tuple(results):  # a shape may depend on values: x[x > 0]
            entry = describe(op, made, args, kwargs, results, tags, self.on_meta, self.within)
            if len(_MEMO) >= _MEMO_LIMIT:
                forget()
            _MEMO[key] = entry
        written = []
        for i, (tensor, (how, position, m)) in enumerate(zip(outputs(op, made, args, kwargs), results, strict=True)):
            if how is SAME:
                written.append(tags[position].storage)
                if op.written and m is not tags[position].meta:  # unsqueeze_, resize_, t_ …
                    self._retag(tensor, tags[position], m)
                continue
            storage = tags[position].storage if how is ALIAS else self.new_storage()
            written.append(storage)
            known = constant and (how is FRESH or tags[position].constant)
            known = known or (self.on_meta and how is FRESH and tensor.device.type != "meta")
            recorded = entry.spec is None or how is ALIAS or i < entry.recorded
            tensor._cspprof = Tag(self if recorded else self.left_out, storage, m, known)  # type: ignore[attr-defined]
        if entry.spec is not None:
            self.record(entry, [t.storage for t in tags], written)
        return made

    def _retag(self, tensor: torch.Tensor, old: Tag, m: Meta) -> None:
        tag = old._replace(meta=m)
        if id(tensor) in self.held:
            self.held[id(tensor)] = tag
        else:
            tensor._cspprof = tag  # type: ignore[attr-defined]

    @staticmethod
    def _relation(
        tensor: torch.Tensor, op: Operator, tensors: list[torch.Tensor], inputs: list[torch.Tensor], tags: list[Tag]
    ) -> Result:
        """Whether an output is an argument itself, lies in an argument's storage, or is new."""
        for i, t in enumerate(tensors):
            if tensor is t:
                return SAME, i, meta_of(tensor, tags[i].meta.weight) if op.written else tags[i].meta
        if tensor.layout is torch.strided:
            data = tensor.untyped_storage()._cdata
            for i, t in enumerate(inputs):
                if t.layout is torch.strided and t.untyped_storage()._cdata == data:
                    return ALIAS, i, meta_of(tensor, tags[i].meta.weight)
        return FRESH, -1, meta_of(tensor)
