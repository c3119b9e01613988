"""One trace: make the inputs, set the hooks, run the forward, take the record, restore the model."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import nn
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.nn.parameter import UninitializedParameter
from torch.utils._python_dispatch import _disable_current_modes

from cspprof._version import __version__
from cspprof.core.errors import NeedsValuesError, TraceError
from cspprof.core.inputs import Inputs, arguments
from cspprof.core.record import Record
from cspprof.diagnosis.forward import explain_failure
from cspprof.isolation.process_state import SETTINGS, ProcessState, random_generators
from cspprof.isolation.torch_state import TorchState, raise_interruption
from cspprof.isolation.user_memory import MemoryGuard
from cspprof.modules.input_tensors import InputTensors
from cspprof.modules.module_hooks import add_module_hooks
from cspprof.modules.module_tree import ModuleTree
from cspprof.modules.prepared_model import prepared_model, refuse_optimized
from cspprof.operands.pytree import tensors_in
from cspprof.operands.tensor_subclasses import inner_tensors, refuse_distributed
from cspprof.trace import op_cache
from cspprof.trace.dispatch import DispatchRecorder
from cspprof.trace.gradients import Gradients, composite_operations, may_concern_gradients
from cspprof.trace.jagged_attention import JaggedAttention
from cspprof.trace.notes import UNKNOWN_GRADIENTS, trace_notes
from cspprof.trace.outputs import Outputs
from cspprof.trace.unseen_results import UnseenResults

_LOCK = threading.RLock()
"""Traces run one at a time: two may share modules, and the cache of operations and the compiler's stance belong to the
process. Reentrant, for a forward that traces a module itself."""


def trace_once(
    model: nn.Module,
    inputs: Inputs,
    *,
    name: str | None = None,
    source: str = "",
    train: bool = False,
    device: str = "meta",
    dtype: str | None = None,
    notes: tuple[str, ...] = (),
    status: str = "",
    gradients: bool = False,
) -> Record:
    """Run `model` once on `inputs` and return the record of what it did.

    On the meta device (the default) no arithmetic is done and no memory is allocated for tensors, whatever device the
    model is on; on another device the forward is computed. The model runs in eval mode unless `train`. It is neither
    moved nor changed: a structural copy runs. `dtype` replaces the floating dtype of inputs and parameters.
    Concurrent traces wait for each other. The forward sees that gradients are enabled. If it takes gradients itself, or
    fails, it runs once more without them; with `gradients`, it runs under autograd at once.

    Raises TraceError, with the layer, its input shapes and what to try, if the forward fails.
    """
    name = name or type(model).__name__

    def run(mode: Gradients, sees_functions: bool = False) -> _Run:
        return _Run(model, inputs, name, train, device, dtype, mode, sees_functions)

    with _LOCK, temporarily_clear_interpreter_stack():  # of torch.func, if the caller is a function that it transforms
        if gradients:
            return run(Gradients.ON).restored_record(source, notes, status)
        first = run(Gradients.WATCHED)
        # TorchScript makes other operations of a graph if gradients are enabled.
        if not any(issubclass(cls, torch.jit.ScriptModule) for cls in set(map(type, first.tree.modules))):
            try:
                record = first.restored_record(source, notes, status)
                if not first.recorder.uses_autograd and not first.recorder.tensors.unexplained:
                    trained = any(held.tensor.requires_grad for held in first.tree.parameters)
                    if not (first.recorder.turned_gradients_off and trained):
                        return record
                    return _differentiated(record, run(Gradients.ON), source, notes, status)
            except NeedsValuesError:
                raise
            except TraceError as error:
                if not may_concern_gradients(error) and not first.recorder.uses_autograd:
                    raise
        plain = run(Gradients.OFF)
        try:
            record = plain.restored_record(source, notes, status)
            if not plain.recorder.tensors.unexplained:
                return record
        except TraceError:
            if device == "meta" or not plain.recorder.saw_jagged:
                raise
        return run(Gradients.OFF, sees_functions=True).restored_record(source, notes, status)


def _differentiated(record: Record, run: _Run, source: str, notes: tuple[str, ...], status: str) -> Record:
    """The record of a run in which autograd records the operations, for a forward that turns gradients off for some of
    them: only autograd tells `torch.no_grad()` from a `torch.autograd.Function`, inside of which they are off too.

    If that run fails, `record` without the information about gradients.
    """
    try:
        return run.restored_record(source, notes, status)
    except TraceError:
        calls = replace(record.calls, required=())
        return replace(record, calls=calls, notes=(*record.notes, UNKNOWN_GRADIENTS))


class _Run:
    """One run of a copy of a model."""

    def __init__(
        self, model: nn.Module, inputs: Inputs, name: str, train: bool, device: str, dtype: str | None,
        gradients: Gradients, sees_functions: bool = False,
    ) -> None:  # fmt: skip
        """`sees_functions`: find the results of other threads on meta, and attention of jagged tensors on a device.
        This takes time, and a warning of torch then names a file of cspprof, so a first run goes without."""
        self.model, self.inputs, self.name = model, inputs, name
        self.train, self.device, self.dtype, self.gradients = train, device, dtype, gradients
        self.sees_functions = sees_functions
        self.restored = False
        self.state = TorchState()
        with _disable_current_modes():
            self.process = ProcessState([*SETTINGS.values(), *random_generators()])
        self.guard = MemoryGuard()
        self.tree = ModuleTree(model)
        self.recorder = DispatchRecorder(device == "meta", self.guard, self.tree.add_unregistered, gradients)

    def restore(self) -> None:
        """Leave torch, the user's tensors and the random generators as they were. May be called twice."""
        if not self.restored:
            self.state.restore()
            with _disable_current_modes():
                self.guard.restore()
                self.recorder.generators.restore()
                self.process.restore()
            self.recorder.release()
            self.restored = True

    def restored_record(self, source: str, notes: tuple[str, ...], status: str) -> Record:
        """Run the model and return the record. Afterwards everything is as it was, also after a KeyboardInterrupt."""
        try:
            try:
                return self.record(source, notes, status)
            except BaseException as error:
                raise_interruption(error)
                raise
            finally:
                self.restore()
        finally:  # again: a KeyboardInterrupt may have come while the state was restored
            self.restore()

    @_disable_current_modes()  # a mode of the caller, such as a FakeTensorMode, takes no part in the trace
    def record(self, source: str, notes: tuple[str, ...], status: str) -> Record:
        """Run the model and return the record."""
        model, name, tree, recorder = self.model, self.name, self.tree, self.recorder
        make_input = InputTensors(self.device, self.dtype)
        try:
            args, kwargs = arguments(self.inputs, make_input, permutation=make_input.permutation)
        except RuntimeError as error:  # no such device, or too many elements
            raise TraceError(
                f"{name}: cannot make the input: {str(error).splitlines()[0]}",
                "Give another shape, dtype or device: --input 1x3x224x224",
            ) from error
        op_cache.prepare()
        refuse_distributed(tree.modules, tree.paths)
        refuse_optimized(tree.modules, tree.paths)
        if any(type(held.tensor) is UninitializedParameter for held in tree.parameters):
            raise TraceError(
                f"{name} has lazy parameters, which get their shapes in a first forward",
                "Run it once on real input, then profile it.",
            )
        with prepared_model(tree, self.train, self.dtype, self.device) as prepared:
            passed = [
                (t, make_input.name(i, kwargs)) for i, made in enumerate(make_input.made) for t in tensors_in(made)
            ]
            self.guard.add((*prepared.tensors, *(tensor for tensor, _ in passed)))
            self.guard.copy_small()
            for tensor, argument in passed:
                tag = recorder.tensors.register(tensor, argument, "input")
                if id(tensor) in make_input.from_specs:
                    recorder.tensors.made_up.add(tag.storage)
            for held, role in ((tree.parameters, "parameter"), (tree.buffers, "buffer")):
                for _, path, tensor in held:
                    used = inner_tensors(prepared.stand_ins[id(tensor)])
                    for original, inner in zip(inner_tensors(tensor), used, strict=True):
                        recorder.tensors.register(inner, path, role)
                        recorder.tensors.originals[id(original)] = inner
            recorder.tensors.copies.update(map(id, prepared.tensors))
            for _, path, tensor in tree.constants:
                recorder.tensors.register(tensor, path, "parameter")
            add_module_hooks(tree, prepared.modules, recorder.set_layer)
            result = Outputs(name, recorder.tensors.knows)
            mode: UnseenResults | JaggedAttention | None = None
            if self.sees_functions:
                on_meta = self.device == "meta"
                mode = UnseenResults(recorder.tensors.knows, recorder.record_unseen) if on_meta else JaggedAttention()
            try:
                enabled = torch.set_grad_enabled(self.gradients is not Gradients.OFF)
                with enabled, composite_operations(), recorder, mode or nullcontext():
                    result.collect(prepared.model(*args, **kwargs))
                if isinstance(mode, UnseenResults):
                    mode.check(result.tensors)
            except (TraceError, KeyboardInterrupt):
                raise
            except BaseException as error:  # SystemExit too: the exit code of a command is not a model's to choose
                _refuse_other_threads(tree, name)
                path, module = tree.failing_module(error.__traceback__)
                raise explain_failure(
                    error, recorder.failure, path, module, model, name, self.device, make_input.made
                ) from error
        _refuse_other_threads(tree, name)
        result.refuse_unused(bool(recorder.log))
        if self.gradients is Gradients.ON:
            recorder.functions.attribute(recorder.log, recorder.tensors, recorder, result.tensors)
        layers = tree.layers()
        specs, calls = recorder.columns()
        return Record(
            model=name,
            source=source or f"{type(model).__module__}.{type(model).__qualname__}",
            inputs=tuple([recorder.tensors.registered[id(tensor)].meta.spec for tensor, _ in passed]),
            layers=layers,
            specs=specs,
            calls=calls,
            storages=tuple(recorder.tensors.storages),
            params=sum(layer.params for layer in layers),
            outputs=tuple(dict.fromkeys(recorder.tensors.tag(t).storage for t in result.tensors)),
            notes=(
                *notes,
                *trace_notes(tree, recorder, result),
            ),
            tool={"cspprof": __version__, "torch": torch.__version__},
            status=status,
            sources=tree.sources(),
        )


def _refuse_other_threads(tree: ModuleTree, name: str) -> None:
    if tree.called_by_other_thread is not None:
        raise TraceError(
            f"{name}: layer {tree.paths[tree.called_by_other_thread]!r} was called by another thread, where a "
            "trace does not see what it does",
            "Call the layers in the thread of the forward.",
        )
