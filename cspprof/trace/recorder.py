"""The dispatch mode: sees every aten operation of a forward, answers it, and writes it down.

Under `torch.inference_mode()` a dispatch mode is shown convolutions, norms and attention as one operation each.
An operation is answered from a memo where the same one was answered before, by `shapes` where it is common, else
by torch's own kernel. A composite without a rule is taken apart, so nothing inside it is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cspprof.errors import TraceError
from cspprof.record import Kind, OpSpec, Storage, TensorSpec
from cspprof.rules import RULES, Facts
from cspprof.trace.metas import WEIGHT_NAMES, Meta, Operator, meta, meta_of, operator
from cspprof.trace.shapes import ANSWERS

FRESH, SAME, ALIAS = "fresh", "same", "alias"


class Tag(NamedTuple):
    """What this trace knows of a tensor object; kept on the tensor itself, or in `held` for the model's own."""

    owner: Recorder
    storage: int
    meta: Meta
    constant: bool
    """Values known while tracing on meta: made from nothing but other constants."""


class Entry(NamedTuple):
    """An operation on specs seen before: what to write down and how to answer it."""

    spec: OpSpec | None
    """None: nothing happened (a view of itself, a dropout that is off)."""
    reads: tuple[int, ...]
    """Positions among the tensor arguments: those of `spec.reads`, then those of `spec.weights`."""
    results: tuple[tuple[str, int, Meta], ...]
    """Per output: (FRESH | SAME | ALIAS, tensor argument, meta)."""
    recorded: int
    """How many outputs are written down."""
    real: bool
    """Ask torch for the outputs each time: views, and lists of outputs."""


_MEMO: dict[tuple[Any, ...], Entry] = {}
_MEMO_LIMIT = 50_000
_SPECS: dict[OpSpec, OpSpec] = {}


def forget() -> None:
    """Empty the memo: a rule was added, or a first trace is to be timed."""
    _MEMO.clear()
    _SPECS.clear()


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
        self.held: dict[int, Tag] = {}
        self.keep: list[torch.Tensor] = []
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
        m = meta_of(tensor, weight=role != "input")
        if like is None:
            storage = self.new_storage()
            self.storages.append(Storage(storage, name, role, m.spec))
        else:
            storage = like.storage
        constant = tensor.device.type != "meta" and role in ("buffer", "constant")
        tag = self.held[id(tensor)] = Tag(self, storage, m, constant)
        self.keep.append(tensor)
        return tag

    def new_storage(self) -> int:
        self.next_storage += 1
        return self.next_storage - 1

    def tag(self, tensor: torch.Tensor) -> Tag:
        tag = tensor.__dict__.get("_cspprof")
        if tag is None or tag.owner is not self:
            tag = self.held.get(id(tensor)) or self.hold(tensor, "", "constant")
        return tag  # type: ignore[no-any-return]

    # -- operations -------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensors: list[torch.Tensor] = []
        tags: list[Tag] = []
        key: list[Any] = [id(func), self.on_meta]
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

    def _key(
        self, a: Any, add: Callable[[Any], None], tensors: list[torch.Tensor], tags: list[Tag]
    ) -> None:
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
            if not isinstance(func, torch._ops.OpOverload):
                raise TraceError(f"the higher-order operator {func} cannot be traced", "Trace the eager model.")
            op = operator(func)
            symbolic = self.on_meta and not self._constant(tensors, tags, args, kwargs)
            if entry is None and self._taken_apart(op):
                with self:
                    result = func.decompose(*args, **kwargs)
                if result is not NotImplemented:
                    return result
            if symbolic:
                made = self._on_meta(op, args, kwargs, tags, entry)
            else:
                for name in op.written:
                    self._protect(op, name, args, kwargs)
                made = func(*args, **kwargs)
        except Exception as error:
            if self.failure is None or self.failure[0] is not error:
                name = getattr(getattr(func, "_schema", None), "name", str(func)).replace("::", ".")
                self.failure = (error, self.layer, name, [t.meta.spec for t in tags])
            raise
        return self._take(op, made, args, kwargs, key, entry, tensors, tags, constant=not symbolic)

    def _constant(self, tensors: list[torch.Tensor], tags: list[Tag], args: Any, kwargs: Any) -> bool:
        """Whether the values are at hand: no argument comes from the model's inputs or parameters."""
        if not tensors:
            return str(kwargs.get("device", "cpu")) != "meta"
        if str(kwargs.get("device", "")) == "meta" or any(str(a) == "meta" for a in args if isinstance(a, torch.device)):
            return False
        return all(t.constant for t in tags)

    @staticmethod
    def _taken_apart(op: Operator) -> bool:
        known = op.target in RULES or op.plain in RULES or op.pointwise or op.target in FREE
        return not known and op.composite

    def _protect(self, op: Operator, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a real kernel writes into a tensor of the model or the user: have it saved."""
        index = op.names.index(name)
        target = args[index] if index < len(args) else kwargs.get(name)
        for tensor in target if isinstance(target, (list, tuple)) else [target]:
            if isinstance(tensor, torch.Tensor) and id(tensor) in self.held:
                self.protect(tensor)

    def _on_meta(
        self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], tags: list[Tag], entry: Entry | None
    ) -> Any:
        if entry is None and (answer := ANSWERS.get(op.plain)) is not None:
            specs = iter(tags)
            found = answer(*_map(args, specs), **{k: _map(v, specs) for k, v in kwargs.items()})
            if found is not None:
                if op.written and found.shape == tags[0].meta.shape:
                    return args[0]
                if not op.written:
                    return found.empty()
        if op.target in VALUES:
            return op.func(*args, **kwargs)  # the value of a real parameter, or torch's own refusal
        if op.written and any(t.meta.weight for t in tags[:1]):
            # A write into the model's own tensors (running statistics): seen, not carried out.
            return args[0]
        stand_ins = iter([self._stand_in(t) for t in _tensors((args, kwargs))])
        made = op.func(*_replace(args, stand_ins), **{k: _replace(v, stand_ins) for k, v in kwargs.items()})
        if op.written and isinstance(made, torch.Tensor) and op.names and isinstance(args[0], torch.Tensor):
            return args[0] if made.shape == args[0].shape else made
        return made

    def _stand_in(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on meta: itself if it is there, else an empty one with the same storage in our books."""
        if tensor.device.type == "meta":
            return tensor
        tag = self.tag(tensor)
        made = tag.meta.empty()
        made._cspprof = tag._replace(constant=False)  # type: ignore[attr-defined]
        return made

    # -- writing it down ---------------------------------------------------------------------------

    def _take(
        self, op: Operator, made: Any, args: tuple[Any, ...], kwargs: dict[str, Any], key: tuple[Any, ...],
        entry: Entry | None, tensors: list[torch.Tensor], tags: list[Tag], constant: bool,
    ) -> Any:  # fmt: skip
        outputs = [t for t in _tensors(made)]
        results = [self._relation(t, op, tensors, tags) for t in outputs]
        if entry is None:
            entry = self._entry(op, made, args, kwargs, results, tags)
            if len(_MEMO) >= _MEMO_LIMIT:
                _MEMO.clear()
            _MEMO[key] = entry
        written = []
        for tensor, (how, position, m) in zip(outputs, results, strict=True):
            if how is SAME:
                written.append(tags[position].storage)
                if op.written and m is not tags[position].meta:  # unsqueeze_, resize_, t_ …
                    self._retag(tensor, tags[position], m)
                continue
            storage = tags[position].storage if how is ALIAS else self.new_storage()
            written.append(storage)
            known = constant and (how is FRESH or tags[position].constant)
            tensor._cspprof = Tag(self, storage, m, known)  # type: ignore[attr-defined]
        if entry.spec is not None:
            self.record(entry, [t.storage for t in tags], written)
        return made

    def _retag(self, tensor: torch.Tensor, old: Tag, m: Meta) -> None:
        tag = old._replace(meta=m)
        if id(tensor) in self.held:
            self.held[id(tensor)] = tag
        else:
            tensor._cspprof = tag  # type: ignore[attr-defined]

    def _relation(
        self, tensor: torch.Tensor, op: Operator, tensors: list[torch.Tensor], tags: list[Tag]
    ) -> tuple[str, int, Meta]:
        """Whether an output is an argument itself, lies in an argument's storage, or is new."""
        for i, t in enumerate(tensors):
            if tensor is t:
                return SAME, i, meta_of(tensor, tags[i].meta.weight) if op.written else tags[i].meta
        shown = tensor.__dict__.get("_cspprof")
        if shown is not None and shown.owner is self:  # a stand-in that came back
            for i, tag in enumerate(tags):
                if tag.storage == shown.storage:
                    return ALIAS, i, shown.meta
        if tensor.layout is torch.strided:
            data = tensor.untyped_storage()._cdata
            for i, t in enumerate(tensors):
                if t.layout is torch.strided and t.untyped_storage()._cdata == data:
                    return ALIAS, i, meta_of(tensor, tags[i].meta.weight)
        return FRESH, -1, meta_of(tensor)

    def _entry(
        self, op: Operator, made: Any, args: tuple[Any, ...], kwargs: dict[str, Any],
        results: list[tuple[str, int, Meta]], tags: list[Tag],
    ) -> Entry:  # fmt: skip
        aliased = bool(results) and all(how is not FRESH for how, _, _ in results)
        if aliased and not op.written and all(how is SAME for how, _, _ in results):
            return Entry(None, (), tuple(results), 0, not (self.on_meta and isinstance(made, torch.Tensor)))
        if op.target in FREE or (not results and op.target not in RULES):
            return Entry(None, (), tuple(results), 0, True)
        bare = [t.meta.spec for t in tags]
        view = aliased and not op.written
        facts = Facts(Kind.VIEW) if view else self._facts(op, args, kwargs, bare, results)
        reads, weights = _roles(op, args, kwargs, tags)
        recorded = len(results) if facts.outputs is None else min(facts.outputs, len(results))
        spec = OpSpec(
            op.target, Kind(facts.kind),
            tuple(bare[i] for i in reads), tuple(bare[i] for i in weights),
            tuple(m.spec for _, _, m in results[:recorded]),
            _attributes(op, args, kwargs) | dict(facts.attrs), facts.macs, facts.elementwise,
        )  # fmt: skip
        spec = _SPECS.setdefault(spec, spec)
        real = not self.on_meta or view or not isinstance(made, torch.Tensor) or results[0][0] is ALIAS
        real = real or any(t.constant for t in tags) or not tags or not results
        real = real or any(how is SAME and m is not tags[i].meta for how, i, m in results)  # unsqueeze_, t_ …
        return Entry(spec, (*reads, *weights), tuple(results), recorded, real)

    @staticmethod
    def _facts(
        op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], bare: list[TensorSpec],
        results: list[tuple[str, int, Meta]],
    ) -> Facts:  # fmt: skip
        out = results[0][2].spec if results else TensorSpec((0,))
        for name in (op.target, op.plain):
            if name in RULES:
                specs = iter(bare)
                given = _replace(args, specs)
                named = {k: _replace(v, specs) for k, v in kwargs.items()}
                return RULES.get(name)(*given, out=out, **{k: v for k, v in named.items() if k != "out"})
        if op.pointwise:
            return Facts(Kind.ELEMENTWISE, elementwise=out.numel)
        return _from_torch_registry(op, args, kwargs, results)


FREE = frozenset({"aten.detach", "aten.alias", "aten.sym_size", "aten.sym_stride", "aten.sym_numel",
                  "aten.sym_storage_offset", "prim.device", "aten.is_same_size"})  # fmt: skip
"""Operations that leave no trace: neither work nor a new shape."""

VALUES = frozenset({"aten._local_scalar_dense", "aten.item", "aten.equal", "aten.is_nonzero"})
"""Operations that want a tensor's values as Python numbers."""


def _from_torch_registry(
    op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], results: list[tuple[str, int, Meta]]
) -> Facts:
    """A formula that the user gave to torch's `register_flop_formula`; torch counts two FLOPs a MAC."""
    import sys

    counter = sys.modules.get("torch.utils.flop_counter")
    formula = None if counter is None else counter.flop_registry.get(op.func.overloadpacket)
    if formula is None:
        return Facts(Kind.UNKNOWN, None)
    shapes = [m.empty() for _, _, m in results]
    flops = int(formula(*args, **kwargs, out_val=shapes[0] if len(shapes) == 1 else tuple(shapes)))
    return Facts(Kind.CUSTOM, (flops + 1) // 2, attrs={"flops": flops})


def _roles(
    op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], tags: list[Tag]
) -> tuple[list[int], list[int]]:
    """Positions of the tensor arguments that are activations, and of those that are weights."""
    reads: list[int] = []
    weights: list[int] = []
    at = 0
    named = [*zip(op.names, args, strict=False), *kwargs.items()]
    for name, value in named:
        for _ in _tensors(value):
            learned = name in WEIGHT_NAMES or (tags[at].meta.weight and name != "input")
            (weights if learned else reads).append(at)
            at += 1
    return reads, weights


def _attributes(op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The non-tensor arguments by their schema names, as plain values."""
    named = [*zip(op.names, args, strict=False), *kwargs.items()]
    return {name: _plain(value) for name, value in named if not any(True for _ in _tensors(value))}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(_plain(v) for v in value)
    return str(value).removeprefix("torch.")


def _tensors(value: Any) -> Iterable[torch.Tensor]:
    """The tensors in a nest of lists and tuples, left to right."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def _replace(value: Any, by: Any) -> Any:
    """The same nest with the next of `by` in the place of each tensor."""
    if isinstance(value, torch.Tensor):
        return next(by)
    if isinstance(value, (list, tuple)):
        return type(value)(_replace(v, by) for v in value) if type(value) in (list, tuple) else value
    return value


def _map(value: Any, tags: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return next(tags).meta
    if isinstance(value, (list, tuple)):
        return [_map(v, tags) for v in value]
    return value


__all__ = ["Recorder", "Tag", "forget", "meta"]
