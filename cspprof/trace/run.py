"""One trace: inputs made, hooks set, forward run, record taken, everything put back."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter, is_lazy

from cspprof._version import __version__
from cspprof.errors import TraceError
from cspprof.garbage import uncollected
from cspprof.inputs import Inputs, arguments
from cspprof.record import Profile, TensorSpec
from cspprof.trace.kernels import IS_META
from cspprof.trace.looks import looked_at
from cspprof.trace.memo import remember
from cspprof.trace.nests import tensors_in
from cspprof.trace.notes import notes_of
from cspprof.trace.recorder import Recorder
from cspprof.trace.running import hooked, slot
from cspprof.trace.scope import Scope
from cspprof.trace.untouched import untouched

_ONE_AT_A_TIME = threading.RLock()
"""Two traces may share modules, and the memo and the compiler's stance are of the whole process: each trace has to
find them as they were, and put them back. Re-entrant, for a forward that traces a module itself."""


def trace(
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
) -> Profile:
    """Run `model` once on `inputs` and return what it did.

    On the meta device (the default) no arithmetic is done and nothing is allocated, whatever device the model is
    on; on another device the forward is carried out. The model is traced in eval mode unless `train`, is neither
    moved nor copied, and comes back untouched. `dtype` replaces the floating dtype of inputs and parameters. Threads
    that trace at once wait for each other.

    Raises TraceError, with the layer, its input shapes and a way out, when the forward does not come to its end.
    """
    model = unwrap(model)
    name = name or type(model).__name__
    maker = InputMaker(device, dtype)
    try:
        args, kwargs = arguments(inputs, maker)
    except RuntimeError as error:  # no such device, more elements than there are numbers
        raise TraceError(
            f"{name}: cannot make the input: {str(error).splitlines()[0]}",
            "Give another shape, dtype or device: --input 1x3x224x224",
        ) from error
    saved: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def protect(tensor: torch.Tensor) -> None:
        if id(tensor) not in saved:
            saved[id(tensor)] = (tensor, tensor.detach().clone())

    with ExitStack() as stack:
        stack.enter_context(_ONE_AT_A_TIME)
        if device == "meta":
            stack.enter_context(uncollected())  # nothing large waits to be freed there
        remember()
        scope = Scope(model)
        if UninitializedParameter in set(map(type, scope.parameters.tensors)):
            raise TraceError(
                f"{name} has lazy parameters, whose shapes no forward has settled yet",
                "Run it once on real input, then profile it.",
            )
        recorder = Recorder(device == "meta", protect, scope.calls)
        stack.callback(recorder.let_go)
        stack.callback(_put_back, saved)
        replacements = stack.enter_context(ready(scope, train, dtype, device))
        given = [(t, maker.name(i, args, kwargs)) for i, made in enumerate(maker.made) for t in tensors_in(made)]
        for tensor, argument in given:
            recorder.hold(tensor, argument, "input")
        recorder.hold_all(scope.parameters, "parameter", replacements)
        recorder.hold_all(scope.buffers, "buffer", replacements)
        for original, tensor in replacements.items():
            recorder.held[original] = recorder.held[id(tensor)]  # one that is reached by another way is still itself
        seen = device == "meta" and not any(map(_hidden, set(scope.kinds)))
        watched = looked_at(recorder) if seen else nullcontext()
        try:
            slot(scope, recorder)
            with torch.inference_mode(), hooked(scope, recorder.move), watched, recorder:
                result = model(*args, **kwargs)
        except TraceError:
            raise
        except Exception as error:
            raise _explain(error, recorder, scope, name, device, maker) from error
        if scope.elsewhere is not None:
            raise TraceError(
                f"{name}: layer {scope.paths[scope.elsewhere]!r} was called by another thread, where a trace does "
                "not see what it does",
                "Let the forward call its layers one after the other, and nobody else call them meanwhile.",
            )
        layers = scope.layers()
        specs, calls = recorder.columns()
        outputs = tuple(dict.fromkeys(recorder.tag(t).storage for t in tensors_in(result)))
        taken = tuple([recorder.held[id(t)].meta.spec for t, _ in given])
        said = (*notes, *notes_of(scope, recorder))
    return Profile(
        model=name,
        source=source or f"{type(model).__module__}.{type(model).__qualname__}",
        inputs=taken,
        layers=layers,
        specs=specs,
        calls=calls,
        storages=tuple(recorder.storages),
        params=sum(layer.params for layer in layers),
        outputs=outputs,
        notes=said,
        tool={"cspprof": __version__, "torch": torch.__version__},
        status=status,
        sources=scope.sources(),
        looks=tuple(recorder.looks) if seen else None,
    )


def _hidden(kind: type[nn.Module]) -> bool:
    """Whether what such a module asks of its tensors cannot be seen: compiled code, or a graph with the answers of
    its example in it."""
    return issubclass(kind, torch.jit.ScriptModule) or kind.__module__ == "torch.export.unflatten"


@contextmanager
def ready(scope: Scope, train: bool, dtype: str | None, device: str) -> Iterator[dict[int, torch.Tensor]]:
    """A model as a counter wants it: in eval mode (or `train`), uncompiled, with weights as `placed` puts them;
    everything as it was afterwards. Yields what `placed` does."""
    with untouched(scope):
        for own in scope.attributes if "_compiled_call_impl" in scope.names else ():
            own.pop("_compiled_call_impl", None)
        set_mode(scope, train)
        with placed(scope, dtype, device) as replacements, eager():
            yield replacements


def set_mode(scope: Scope, train: bool) -> None:
    """What `model.train(train)` does, without the way through every `__setattr__` where no class has its own."""
    kinds = set(scope.kinds)
    own = [k for k in kinds if k.train is not nn.Module.train or k.__setattr__ is not nn.Module.__setattr__]
    if not own:
        for attributes in scope.attributes:
            attributes["training"] = train
    else:
        with suppress(NotImplementedError):  # an exported module, whose mode was settled when it was exported
            scope.model.train(train)


def unwrap(model: nn.Module) -> nn.Module:
    """The module that `torch.compile` wrapped, or the module itself."""
    if not isinstance(model, nn.Module):
        raise TraceError(
            f"a {type(model).__name__} is not a torch.nn.Module",
            "Pass a module, or a SPEC such as 'resnext50' or 'torchvision:resnet50'.",
        )
    while isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
        model = inner
    return model


class InputMaker:
    """Makes the tensors of a call, before any mode is entered; remembers them in order."""

    def __init__(self, device: str, dtype: str | None) -> None:
        self.device = device
        self.dtype = dtype
        self.made: list[torch.Tensor] = []
        self._by_given: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._generator = torch.Generator().manual_seed(0)  # its own: the global one is left alone

    def __call__(self, given: TensorSpec | torch.Tensor) -> torch.Tensor:
        if not isinstance(given, torch.Tensor):
            made = self._from_spec(given)
        elif id(given) in self._by_given:  # the same tensor twice is one tensor here as well
            made = self._by_given[id(given)][1]
        else:
            made = self._from_tensor(given)
            self._by_given[id(given)] = (given, made)
        self.made.append(made)
        return made

    def _from_tensor(self, given: torch.Tensor) -> torch.Tensor:
        dtype = getattr(torch, self.dtype) if self.dtype and given.is_floating_point() else given.dtype
        if self.device == "meta" and given.layout is not torch.strided:
            raise TraceError(
                f"an input of layout {given.layout} has no form without values",
                "Trace with real ones: --device cpu (in Python: device='cpu').",
            )
        if self.device == "meta":
            return torch.empty_strided(given.shape, given.stride(), dtype=dtype, device="meta")
        return given.to(self.device, dtype)

    def _from_spec(self, spec: TensorSpec) -> torch.Tensor:
        dtype = getattr(torch, spec.dtype or self.dtype or "float32")
        if self.device == "meta":
            return torch.empty(spec.shape, dtype=dtype, device="meta")
        if dtype.is_floating_point:
            return torch.randn(spec.shape, generator=self._generator).to(self.device, dtype)
        return torch.zeros(spec.shape, dtype=dtype, device=self.device)

    def name(self, i: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        for key, value in kwargs.items():
            if value is self.made[i]:
                return key
        return "input" if len(self.made) == 1 else f"input{i}"


@contextmanager
def placed(scope: Scope, dtype: str | None, device: str) -> Iterator[dict[int, torch.Tensor]]:
    """For the time of the trace, parameters and floating buffers on its device and of its dtype.

    On meta that is a placeholder without data for each tensor that is elsewhere; the model's own stay aside, unmoved.
    Yields the replacements by the id of what they stand for.
    """
    target = None if dtype is None else getattr(torch, dtype)
    on_meta = device == "meta"
    made: dict[int, torch.Tensor] = {}
    swapped: list[tuple[Any, Any, torch.Tensor]] = []

    def wanted(tensor: Any) -> bool:
        if target is None and (not on_meta or tensor is None or tensor.is_meta):
            return False
        if not isinstance(tensor, torch.Tensor) or is_lazy(tensor):
            return False
        if not tensor.is_floating_point() and not isinstance(tensor, nn.Parameter):
            return False  # the values of index tables may be asked for
        elsewhere = on_meta and not tensor.is_meta
        return elsewhere or (target is not None and tensor.is_floating_point() and tensor.dtype != target)

    def replacement(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            kind = target if target is not None and tensor.is_floating_point() else tensor.dtype
            new = torch.empty_like(tensor, dtype=kind, device="meta") if device == "meta" else tensor.detach().to(kind)
            made[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
        return made[id(tensor)]

    try:
        here = target is None and (
            not on_meta or all(map(IS_META, (*scope.parameters.tensors, *scope.buffers.tensors)))
        )
        for module in () if here else scope.modules:
            if isinstance(module, torch.jit.ScriptModule):
                continue  # its tables are not Python's to change; its weights are seen where they are
            tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for table in tables:
                for key in [key for key, tensor in table.items() if wanted(tensor)]:
                    swapped.append((table, key, table[key]))
                    table[key] = replacement(table[key])
        for items in [c for c in scope.containers if made and type(c) is list]:
            # Recurrent layers keep their parameters in a list as well; `untouched` puts back what lists held.
            items[:] = [made.get(id(v), v) for v in items]
        yield made
    finally:
        for table, key, tensor in reversed(swapped):
            table[key] = tensor


@contextmanager
def eager() -> Iterator[None]:
    """Compiled submodules run as they were written, and attention layers as the operations that they are made of.

    On a CPU torch has one fused operation for a whole attention or encoder layer, which has no MACs of its own.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # Costs nothing where nothing was compiled; flex_attention compiles itself when it is called.
        compiles = not sys.modules.keys().isdisjoint(("torch._dynamo", "torch.nn.attention.flex_attention"))
        with torch.compiler.set_stance("force_eager") if compiles else nullcontext():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _put_back(saved: dict[int, tuple[torch.Tensor, torch.Tensor]]) -> None:
    changed = [(tensor, value) for tensor, value in saved.values() if not torch.equal(tensor, value)]
    for tensor, value in reversed(changed):  # of two that overlap, the one saved first is the right one
        with torch.inference_mode(tensor.is_inference()), torch.no_grad():  # in this order: leaving one enables grad
            tensor.copy_(value)


def _explain(
    error: Exception, recorder: Recorder, scope: Scope, name: str, device: str, maker: InputMaker
) -> TraceError:
    """The failure as a person needs it: which layer, on what, and what to change."""
    layer = scope.failing_layer(error.__traceback__)
    path = scope.paths[layer]
    where = f"layer {path!r} ({type(scope.modules[layer]).__name__})" if path else f"forward of {name}"
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    given = ", ".join("×".join(map(str, t.shape)) for t in maker.made)
    at = ""
    if recorder.failure is not None and recorder.failure[0] is error:
        _, _, target, specs = recorder.failure
        at = f" at {target} on {', '.join(map(str, specs))}"
    if device == "meta" and any(word in str(error).lower() for word in ("meta", "fake impl", "data-dependent")):
        return TraceError(
            f"{name}: {where} needs the values of a tensor{at}: {reason}",
            "Meta tensors have no values. Trace with real ones: --device cpu (in Python: device='cpu').",
        )
    return TraceError(
        f"{name}: {where} failed{at}, model input {given or 'none'}: {type(error).__name__}: {reason}",
        "If the input is wrong, say another, such as --input 1x3x224x224 (in Python: inputs=(1, 3, 224, 224)).",
    )
