"""The dispatch mode that sees every operation of a forward, produces its outputs, and records it.

The mode receives convolutions, norms and attention as one operation each (`gradients.composite_operations`). The
outputs come from the cache if the same operation was traced before, from an output rule of `ops` if there is one, else
from torch's own kernel. A composite operation without a rule is decomposed and its parts are recorded. An operation on
tensors that require a gradient always runs in torch, which records it for autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cspprof.core.errors import TraceError
from cspprof.core.record import Calls, Kind, OpSpec
from cspprof.diagnosis.forward import FailedOp
from cspprof.isolation.random_numbers import PrivateGenerators
from cspprof.isolation.torch_state import autocast_depth
from cspprof.isolation.user_memory import MemoryGuard
from cspprof.operands.aliasing import Alias, Output, output_of
from cspprof.operands.bound_args import bind_args
from cspprof.operands.operators import HigherOrderOperator, Operator, operator
from cspprof.operands.pytree import NUMBERS, tensors_in
from cspprof.operands.quantized_weights import unpack
from cspprof.operands.tensor_meta import TensorTag, empty_tensor, meta_of
from cspprof.operands.tensor_subclasses import (
    computes_shapes_only,
    is_sharded_class,
    is_wrapper_class,
    propagates_shardings,
)
from cspprof.ops import OUTPUT_RULES, RULES, VALUE_ARGUMENTS
from cspprof.trace.autograd_functions import AutogradFunctions
from cspprof.trace.execute import execute, values_known
from cspprof.trace.gradients import Gradients, autograd_included, forward_ad_active
from cspprof.trace.op_cache import CACHES, LIMIT
from cspprof.trace.op_entries import SPECS, LoggedCall, OpEntry, is_decomposed, make_entry, rule_of, written_tensors
from cspprof.trace.tensor_registry import TensorRegistry

RETURNS_FALSE = frozenset({"aten._nested_tensor_from_mask_left_aligned"})
"""Queries that return False for any values: `nn.TransformerEncoder` then keeps the padded batch."""

DETACHES = frozenset({"aten.detach", "aten.detach_"})

WITHOUT_MODE = frozenset({"cond", "scan"})
"""Higher-order operators whose implementations refuse to run under a dispatch mode."""


OTHER_THREAD = "other_thread"
"""The name of an operation that stands for the work of another thread."""


class DispatchRecorder(TorchDispatchMode):
    """Records the operations of a forward as columns. The forward hooks set `layer` to the module that runs."""

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Without this method torch 2.13 and 2.14 wrap __torch_dispatch__, which imports torch._dynamo (about a second)
        # on the first operation.
        return False

    def __init__(
        self, on_meta: bool, guard: MemoryGuard, on_unknown_parameter: Callable[[torch.Tensor], None],
        gradients: Gradients = Gradients.OFF,
    ) -> None:  # fmt: skip
        super().__init__()
        self.on_meta = on_meta
        self.guard = guard
        self.generators = PrivateGenerators()
        self.layer = 0
        self.saw_autocast = False
        """Whether an operation ran on meta inside an autocast region, which changes no dtype there."""
        self.saw_other_thread = False
        """Whether the forward used a tensor that another thread computed."""
        self.below_forward_ad = False
        """Whether forward-mode differentiation runs an operation; then its parts are recorded, tangents included."""
        self.below_autograd = False
        """Whether an operation of a wrapper runs, after autograd has seen it."""
        self.saw_jagged = False
        """Whether an operation ran on a jagged tensor."""
        self.saw_sharded = False
        """Whether an operation ran on a `DTensor`."""
        self.watches_gradients = gradients is not Gradients.OFF
        self.records_autograd = gradients is not Gradients.WATCHED
        self.finds_functions = gradients is Gradients.ON
        self.gradients = True
        """Whether torch would differentiate the operation that runs."""
        self.gradients_changed = False
        """Whether the forward turned gradients off at any time."""
        self.uses_autograd = False
        """Whether the forward works with gradients itself, or with wrappers, which need autograd."""
        self.turned_gradients_off = False
        """Whether gradients were off during an operation that reads a tensor that requires one. Complete when `columns`
        has run."""
        self.functions = AutogradFunctions()
        self.within: tuple[str, ...] = ()
        """The composite operation that is being decomposed, and its text arguments."""
        self.cache = CACHES[on_meta, self.within]
        self.tensors = TensorRegistry(on_unknown_parameter)
        self.unpacked: dict[int, tuple[torch.ScriptObject, tuple[list[torch.Tensor], dict[str, Any]]]] = {}
        self.log: list[LoggedCall] = []
        self.unknown_values: dict[str, str] = {}
        """Operations without a cost because the values of an argument are unknown, with the name of that."""
        self.failure: FailedOp | None = None

    def set_layer(self, layer: int) -> int:
        """Operations from now on belong to `layer`. Returns the layer before."""
        previous, self.layer = self.layer, layer
        return previous

    def release(self) -> None:
        """Free the tensors of this trace immediately, without waiting for the garbage collector."""
        self.tensors.release()
        self.functions.release()
        self.log.clear()

    # -- operations -------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if computes_shapes_only(types) or (self.saw_sharded and propagates_shardings()):
            self.uses_autograd = True
            with autograd_included():
                return func(*args, **kwargs)
        if types and any(map(is_wrapper_class, types)):
            self.uses_autograd = True
            self.saw_sharded = self.saw_sharded or any(map(is_sharded_class, types))
            return self._dispatch_wrapper(func, args, kwargs)
        tensors: list[torch.Tensor] = []
        tags: list[TensorTag] = []
        parts: list[Any] = [id(func), torch.get_default_dtype()]
        self._extend_key(args, parts, tensors, tags)
        if kwargs:
            parts.extend(kwargs)
            self._extend_key(kwargs.values(), parts, tensors, tags)
        key = tuple(parts)
        entry = self.cache.get(key)
        if self.on_meta and not self.saw_autocast:
            self.detect_autocast()
        if forward_ad_active() and not self.below_forward_ad:
            self.uses_autograd = True
            return self._run_forward_ad(func, args, kwargs)
        if self.finds_functions:
            self.functions.find(tensors, tags, len(self.log))
        enabled = torch.is_grad_enabled()
        if self.watches_gradients and enabled is not self.gradients:
            self.gradients = enabled
            self.gradients_changed = True
        recorded = enabled and self.records_autograd
        differentiable = recorded and any(t.requires_grad for t in tensors)
        if entry is not None and not entry.runs and not differentiable:
            return self.dispatch_cached(entry, tensors, tags)
        if entry is not None and entry.view and tensors[0].is_meta and not recorded:
            return self.dispatch_view(entry, func, args, kwargs, tags)
        return self.dispatch_uncached(func, args, kwargs, key, entry, tensors, tags, differentiable)

    def _dispatch_wrapper(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Let a wrapper (jagged, quantized, sharded …) dispatch operations on the tensors in it.

        As outside of a trace, autograd comes first and gives the wrapper the parts of composite operations; a jagged
        tensor gets these whole.
        """
        jagged = any(isinstance(a, torch.Tensor) and a.is_nested for a in args)
        self.saw_jagged = self.saw_jagged or jagged
        if self.below_autograd or jagged:
            return NotImplemented
        self.below_autograd = True
        try:
            with self, autograd_included():
                return func(*args, **kwargs)
        finally:
            self.below_autograd = False

    def _extend_key(
        self, values: Iterable[Any], key: list[Any], tensors: list[torch.Tensor], tags: list[TensorTag]
    ) -> None:
        """Append what distinguishes the arguments, including the types of scalars, since 1 == True == 1.0."""
        for value in values:
            kind = type(value)
            if isinstance(value, torch.Tensor):
                tag = value.__dict__.get("_cspprof")
                if tag is None or tag.trace is not self.tensors:
                    tag = self.tensors.tag(value)
                if tag.meta.shape != value.shape:
                    tag = self.tensors.replace_tag(value, tag)
                if value.requires_grad and not tag.meta.weight:
                    self._see_gradient(value)
                tensors.append(value)
                tags.append(tag)
                key.append(tag.meta)
                if tag.constant:
                    key.append("constant")
            elif value is None or kind is str:
                key.append(value)
            elif kind in NUMBERS:
                key += (kind, value)
            elif kind is list or kind is tuple:
                key.append(len(value))
                if value and type(value[0]) in NUMBERS:
                    key += map(type, value)
                    key += value
                else:
                    self._extend_key(value, key, tensors, tags)
            elif isinstance(value, torch.ScriptObject):
                # One packed object appears as many Python objects with the same hash.
                _, (weights, window) = self.unpacked.setdefault(hash(value), (value, unpack(value)))
                for weight in weights:
                    self.tensors.register(weight, "", "parameter")
                self._extend_key(weights, key, tensors, tags)
                key.append(str(window))
            else:
                try:
                    hash(value)
                except TypeError:
                    value = repr(value)
                key.append(value)

    def _see_gradient(self, tensor: torch.Tensor) -> None:
        """Notice a tensor that requires a gradient and is no weight. If autograd records nothing, the forward set the
        flag, or it is the output of a `torch.autograd.Function` of weights."""
        if tensor.grad_fn is None:
            self.uses_autograd = True
        else:
            self.turned_gradients_off = True

    def dispatch_cached(self, entry: OpEntry, tensors: list[torch.Tensor], tags: list[TensorTag]) -> torch.Tensor:
        """Produce the output of an operation from its entry, on meta, without a kernel."""
        output = entry.outputs[0]
        if output.alias is Alias.NONE:
            result = empty_tensor(output.meta)
            storage = self.tensors.new_storage()
            result.__dict__["_cspprof"] = TensorTag(self.tensors, storage, output.meta, False)
        else:
            result, storage = tensors[output.argument], tags[output.argument].storage
        if entry.spec is not None:
            self.log.append((entry, self.layer, tags, (storage,), self.gradients))
        return result

    def dispatch_view(
        self, entry: OpEntry, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tags: list[TensorTag]
    ) -> Any:
        """Let torch produce views on meta whose `TensorMeta` are known."""
        result = func(*args, **kwargs)
        views = result if isinstance(result, (list, tuple)) else [result]
        storage, detached = tags[0].storage, tags[0].detached
        without = tags[0].without_gradient or not self.gradients
        for i, (view, output) in enumerate(zip(views, entry.outputs, strict=True)):
            made_by = len(self.log), i
            view.__dict__["_cspprof"] = TensorTag(self.tensors, storage, output.meta, False, made_by, detached, without)
        self.log.append((entry, self.layer, tags, (storage,) * len(views), self.gradients))
        return result

    def detect_autocast(self) -> None:
        """Autocast is off below the dispatcher; the nesting depth still says whether a region is open."""
        self.saw_autocast = autocast_depth() > 1

    def dispatch_uncached(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], key: tuple[Any, ...], entry: OpEntry | None,
        tensors: list[torch.Tensor], tags: list[TensorTag], differentiable: bool,
    ) -> Any:  # fmt: skip
        """Produce the outputs of an operation that is new, or that torch must run each time."""
        try:
            op = operator(func)
            if isinstance(op, HigherOrderOperator) and op.target not in RULES:
                return self._run_eagerly(func, args, kwargs)
            if op.target in RETURNS_FALSE:
                return False
            symbolic = self.on_meta and not values_known(self.tensors, tags, args, kwargs)
            if symbolic and op.written:
                self.tensors.stale.update(self.tensors.tag(t).storage for t in written_tensors(op, args, kwargs))
            if entry is None and is_decomposed(op):
                result = self._decompose(op, args, kwargs)
                if result is not NotImplemented:
                    return result
            if symbolic and entry is None and not differentiable:
                entry = self._entry_by_rule(op, args, kwargs, tags)
                if entry is not None:
                    self._remember(key, entry)
                    return self.dispatch_cached(entry, tensors, tags)
            with self._unrecorded():
                result, passed = execute(
                    self.tensors, self.guard, op, args, kwargs, tensors, tags, symbolic, self.generators
                )
            made = list(tensors_in(result)) or written_tensors(op, args, kwargs)
            outputs = [output_of(t, op, tensors, passed, tags) for t in made]
        except Exception as error:
            if self.failure is None or self.failure.error is not error:
                name = getattr(getattr(func, "_schema", None), "name", str(func)).replace("::", ".")
                self.failure = FailedOp(error, name, [t.meta.spec for t in tags])
            raise
        if entry is None or entry.outputs != tuple(outputs):  # a shape may depend on values: x[x > 0]
            bound, single = bind_args(op, args, kwargs, tags), isinstance(result, torch.Tensor)
            values = self._values(op, args, kwargs) if op.target in VALUE_ARGUMENTS else None
            entry = make_entry(op, args, kwargs, bound, outputs, tags, single, self.on_meta, self.within, values)
            if values is None:  # else the cost may differ with the same shapes
                self._remember(key, entry)
        self._record_call(op, made, entry, outputs, tags, constant=not symbolic)
        if differentiable:
            self.tensors.recognize_saved([*tensors, *made])
        return result

    @contextmanager
    def _unrecorded(self) -> Iterator[None]:
        """Gradients are off for kernels if autograd is to record nothing."""
        hidden = not self.records_autograd and torch.is_grad_enabled()
        if hidden:
            torch._C._set_grad_enabled(False)
        try:
            yield
        finally:
            if hidden:
                torch._C._set_grad_enabled(True)

    def _entry_by_rule(
        self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], tags: list[TensorTag]
    ) -> OpEntry | None:
        """The entry by the rules of `ops` alone, if they cover the operation and these arguments."""
        rule = OUTPUT_RULES.get(op.plain)
        if rule is None or op.outs or not (rule_of(op) or op.pointwise):
            return None
        bound = bind_args(op, args, kwargs, tags)
        try:
            meta = rule(*bound.metas, **bound.named_metas)
        except (TypeError, ValueError, IndexError):  # arguments that the rule does not cover
            return None
        if meta is None or (op.written and meta.shape != tags[0].meta.shape):
            return None
        output = Output(Alias.SAME, 0, tags[0].meta) if op.written else Output(Alias.NONE, -1, meta)
        entry = make_entry(op, (), {}, bound, [output], tags, single=True, on_meta=True, within=self.within)
        return None if entry.runs else entry

    def _values(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[list[int] | None]:
        """The elements of the arguments that decide the cost of the operation: None if they are unknown or made up,
        empty if an argument is omitted."""
        named = {**dict(zip(op.names, args, strict=False)), **kwargs}
        found: list[list[int] | None] = []
        for name in VALUE_ARGUMENTS[op.target]:
            tensor = named.get(name)
            if tensor is None or not tensor.numel():
                found.append([])
                continue
            tag = self.tensors.tag(tensor)
            known = not tensor.is_meta and (not self.on_meta or self.tensors.values_known([tag]))
            known = known and tag.storage not in self.tensors.made_up
            found.append(tensor.flatten().tolist() if known else None)
            if not known:
                self.unknown_values.setdefault(op.target, name)
        return found

    def _remember(self, key: tuple[Any, ...], entry: OpEntry) -> None:
        if len(self.cache) >= LIMIT:
            self.cache.clear()  # interned specs stay: this trace numbers them by identity
        self.cache[key] = entry

    def _decompose(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the parts of a composite operation under this mode, each labelled with the outermost composite."""
        outer = self.within
        self.within = outer or (op.target, *(a for a in args if isinstance(a, str)))
        self.cache = CACHES[self.on_meta, self.within]
        try:
            with self:
                return op.func.decompose(*args, **kwargs)
        finally:
            self.within = outer
            self.cache = CACHES[self.on_meta, outer]

    def _run_eagerly(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a higher-order operator (`cond`, `while_loop`, `scan`, `map` …) step by step, its functions under this
        mode. Raises TraceError if torch has no implementation in Python."""
        kernel = func.py_kernels.get(torch._C.DispatchKey.CompositeExplicitAutograd)
        if kernel is None:
            raise TraceError(
                f"the higher-order operator {func} cannot be traced",
                "Call its function in the forward, without this operator.",
            )
        if func.name() not in WITHOUT_MODE:
            with self:
                return kernel(*args, **kwargs)

        def under_mode(function: Any) -> Any:
            def call(*operands: Any) -> Any:
                with self:
                    return function(*operands)

            return call

        return kernel(*[under_mode(argument) if callable(argument) else argument for argument in args], **kwargs)

    def _run_forward_ad(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation and its directional derivative under this mode."""
        self.below_forward_ad = True
        try:
            with self, autograd_included():
                return func(*args, **kwargs)
        finally:
            self.below_forward_ad = False

    def _record_call(
        self, op: Operator, made: list[torch.Tensor], entry: OpEntry, outputs: list[Output], tags: list[TensorTag],
        constant: bool,
    ) -> None:  # fmt: skip
        """Tag the outputs and append the call to the log."""
        storages = []
        is_view = entry.spec is not None and entry.spec.kind is Kind.VIEW
        for i, (tensor, (alias, argument, meta)) in enumerate(zip(made, outputs, strict=True)):
            view = (len(self.log), i) if is_view else None if alias is Alias.NONE else tags[argument].view
            if alias is Alias.SAME:
                storages.append(tags[argument].storage)
                if op.written and meta is not tags[argument].meta:  # unsqueeze_, resize_, t_ …
                    self.tensors.retag(tensor, tags[argument]._replace(meta=meta, view=view))
                continue
            storage = tags[argument].storage if alias is Alias.VIEW else self.tensors.new_storage()
            storages.append(storage)
            known = constant and (alias is Alias.NONE or tags[argument].constant)
            known = known or (self.on_meta and alias is Alias.NONE and not tensor.is_meta)
            recorded = entry.spec is None or alias is Alias.VIEW or i < entry.recorded
            detached = alias is Alias.VIEW and (tags[argument].detached or op.target in DETACHES)
            without = alias is Alias.VIEW and (tags[argument].without_gradient or not self.gradients)
            tensor.__dict__["_cspprof"] = TensorTag(
                self.tensors if recorded else self.tensors.unrecorded, storage, meta, known, view, detached, without
            )
        if entry.spec is not None:
            self.log.append((entry, self.layer, tags, storages, self.gradients))

    def record_unseen(self, tensor: torch.Tensor) -> None:
        """Record a result of another thread: an operation of unknown cost produced it."""
        self.saw_other_thread = True
        meta, storage = meta_of(tensor), self.tensors.new_storage()
        tensor.__dict__["_cspprof"] = TensorTag(self.tensors, storage, meta, False)
        spec = OpSpec(OTHER_THREAD, Kind.UNKNOWN, (), (), (meta.spec,), {}, None)
        entry = OpEntry(SPECS.setdefault(spec, spec), (), (), 1, runs=True)
        self.log.append((entry, self.layer, [], (storage,), True))

    # -- the record -------------------------------------------------------------------------------

    def columns(self) -> tuple[tuple[OpSpec, ...], Calls]:
        """The specs in the order of their first calls, and the calls."""
        numbers: dict[int, int] = {}
        specs: list[OpSpec] = []
        called: list[int] = []
        layers: list[int] = []
        storages: list[int] = []
        views: dict[int, int] = {}
        first_writes: list[int] = []
        required: list[int] = []
        differentiable = set(self.tensors.differentiable)
        """Storages with a content that requires a gradient."""
        for call, (entry, layer, tags, written, enabled) in enumerate(self.log):
            spec = entry.spec
            assert spec is not None, "an operation that is not recorded is in no log"
            number = numbers.setdefault(id(spec), len(specs))
            if number == len(specs):
                specs.append(spec)
            called.append(number)
            layers.append(layer)
            operands = [tags[i] for i in entry.reads]
            mask = 0
            for position, tag in enumerate(operands):
                if tag.view is not None:
                    views[len(storages)] = first_writes[tag.view[0]] + tag.view[1]
                storages.append(tag.storage)
                if tag.storage in differentiable and not tag.detached:
                    mask |= 1 << position
            first_writes.append(len(storages))
            storages += written[: entry.recorded]
            if self.gradients_changed and mask and call not in self.functions.calls:
                cut = [bool(mask >> i & 1) and (not enabled or t.without_gradient) for i, t in enumerate(operands)]
                if any(cut):
                    mask -= sum(1 << i for i, is_cut in enumerate(cut) if is_cut)
                    # Only `torch.no_grad()` lets a forward write into a weight in place, as initializations do.
                    self.turned_gradients_off |= any(
                        is_cut and not (t.meta.weight and t.storage in written)
                        for is_cut, t in zip(cut, operands, strict=True)
                    )
            required.append(mask)
            if mask and not (spec.backward is not None and spec.backward.ends):
                differentiable.update(written[: entry.recorded])
        return tuple(specs), Calls(called, layers, storages, views=views, required=required)
