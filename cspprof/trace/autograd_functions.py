"""Functions with a backward pass of their own (`torch.autograd.Function`) in a forward that autograd records.

The operations in the forward pass of such a function run while gradients are off. Autograd differentiates the function
as a whole: it keeps what the function saves, and runs the function's own backward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode

from cspprof.core.backward import Backward, Saved
from cspprof.core.record import Kind
from cspprof.operands.pytree import tensors_in
from cspprof.operands.tensor_meta import TensorTag
from cspprof.trace.gradients import composite_operations
from cspprof.trace.op_entries import SPECS, LoggedCall
from cspprof.trace.tensor_registry import TensorRegistry


class _Found(NamedTuple):
    """One call of a function."""

    node: Any
    """In the graph of autograd: the context of the function."""
    outputs: set[int]
    """Their storages."""
    end: int
    """How many calls were logged when an output was read first."""


class AutogradFunctions:
    """The calls of such functions in one run."""

    def __init__(self) -> None:
        self.calls: set[int] = set()
        """Indices of the logged calls inside of these functions."""
        self.unknown: set[str] = set()
        """The names of functions of which the cost or the saved tensors are unknown."""
        self._found: dict[int, _Found] = {}
        """By the id of the node, in the order in which they ran."""

    def find(self, tensors: Iterable[torch.Tensor], tags: list[TensorTag], calls: int) -> None:
        """Look for outputs of such functions among the operands of the next call. They pass on a gradient, although
        they were computed without. `calls` is the number of calls so far."""
        for i, tensor in enumerate(tensors):
            node = tensor.grad_fn
            if isinstance(node, BackwardCFunction):
                self._found.setdefault(id(node), _Found(node, set(), calls)).outputs.add(tags[i].storage)
                if tags[i].without_gradient:
                    tags[i] = tensor.__dict__["_cspprof"] = tags[i]._replace(without_gradient=False)

    def release(self) -> None:
        """Free the graph of autograd."""
        self._found.clear()

    def attribute(
        self, log: list[LoggedCall], registry: TensorRegistry, recorder: TorchDispatchMode, results: list[torch.Tensor]
    ) -> None:
        """When the forward has run, give the backward pass of each function to the calls inside of it: the tensors that
        it saves to calls that read or write them, and its MACs to the last call."""
        self.find(results, [registry.tag(tensor) for tensor in results], len(log))
        registry.recognize_saved(results)
        for node, outputs, end in sorted(self._found.values(), key=lambda found: found.end):
            saved, macs = _saved_storages(node, registry), _backward_macs(node, log, registry, recorder)
            inner = _calls_inside(log[:end], outputs, self.calls)
            self.calls.update(inner)
            computing = [i for i in inner if _kind(log[i]) is not Kind.VIEW]
            existing = {s.id for s in registry.storages}
            new = None if saved is None else {s: nbytes for s, nbytes in saved.items() if s not in existing}
            places = None if new is None else _places(log[:end], computing, new)
            if macs is None or places is None or (macs and not computing):
                self.unknown.add(node.name().removesuffix("Backward"))
                if not computing:
                    _mark_unknown(log, outputs)
            for i in computing[:-1]:
                log[i] = _with_backward(log[i], Backward(saves=tuple((places or {}).get(i, ()))))
            for i in computing[-1:]:
                products = ((macs, tuple(range(len(log[i][0].reads)))),) if macs else ()
                saves = None if places is None else tuple(places.get(i, ()))
                log[i] = _with_backward(log[i], None if macs is None else Backward(products, saves))


def _kind(call: LoggedCall) -> Kind:
    assert call[0].spec is not None, "an operation that is not recorded is in no log"
    return call[0].spec.kind


def _calls_inside(log: Sequence[LoggedCall], outputs: set[int], others: set[int]) -> list[int]:
    """The last calls without gradients, one after the other, that computed these storages. `others` are calls inside of
    other functions."""
    wanted, found = set(outputs), list[int]()
    for i in range(len(log) - 1, -1, -1):
        entry, _, tags, written, enabled = log[i]
        if enabled or i in others:
            if found:
                break
        elif not wanted.isdisjoint(written):
            found.append(i)
            wanted.update(tags[j].storage for j in entry.reads)
    return found[::-1]


def _saved_storages(node: Any, registry: TensorRegistry) -> dict[int, int] | None:
    """The storages of the tensors that the function saved or holds as attributes of its context, with their bytes; None
    if unknown."""
    try:
        saved = [tensor for tensor in node.saved_tensors if tensor is not None]
    except RuntimeError:  # overwritten since
        return None
    if any(registry.known_tag(tensor) is None for tensor in saved):
        return None
    found = {}
    for tensor in (*saved, *tensors_in(list(vars(node).values()))):
        tag = registry.known_tag(tensor)
        if tag is not None:  # no operation made the state of a random generator, which `checkpoint` holds
            found[tag.storage] = tensor.untyped_storage().nbytes()
    return found


def _backward_macs(
    node: Any, log: list[LoggedCall], registry: TensorRegistry, recorder: TorchDispatchMode
) -> int | None:
    """The MACs of the function's backward pass, which runs under the recorder; None if it fails or has an operation of
    unknown cost. What the recorder logs is removed."""
    calls, known = len(log), len(registry.storages)
    try:
        with composite_operations(), recorder, torch.no_grad():
            gradients = [torch.zeros(m.shape, dtype=m.dtype, device=m.device) for m in node._input_metadata]
            node.apply(*gradients)
        macs = [entry.spec.macs for entry, *_ in log[calls:] if entry.spec is not None]
        return None if None in macs else sum(n for n in macs if n is not None)
    except Exception:  # the code of the user
        return None
    finally:
        del log[calls:], registry.storages[known:]


def _places(log: Sequence[LoggedCall], calls: list[int], saved: Mapping[int, int]) -> dict[int, list[Saved]] | None:
    """For each saved storage, of which the bytes are given, the first call that reads or writes it, with the position
    there. One that other calls of the function wrote belongs to the last call. None if there is no such call."""
    found: dict[int, list[Saved]] = {}
    for storage, nbytes in saved.items():
        place = next(((i, Saved(at)) for i in calls for at in _positions(log[i], storage)), None)
        if place is None and calls and any(storage in written and not enabled for *_, written, enabled in log):
            place = calls[-1], Saved(None, nbytes)
        if place is None:
            return None
        found.setdefault(place[0], []).append(place[1])
    return found


def _positions(call: LoggedCall, storage: int) -> list[int]:
    """The positions of a storage among the operands and outputs of a call, as `Saved` counts them."""
    entry, _, tags, written, _ = call
    read = [i for i, j in enumerate(entry.reads) if tags[j].storage == storage]
    return read + [~i for i, s in enumerate(written[: entry.recorded]) if s == storage]


def _with_backward(call: LoggedCall, backward: Backward | None) -> LoggedCall:
    """The call with another backward pass."""
    entry = call[0]
    assert entry.spec is not None, "an operation that is not recorded is in no log"
    spec = entry.spec._replace(backward=backward)
    return entry._replace(spec=SPECS.setdefault(spec, spec)), *call[1:]


def _mark_unknown(log: list[LoggedCall], outputs: set[int]) -> None:
    """Give an unknown backward pass to the last call that reads an output of the function."""
    for i in range(len(log) - 1, -1, -1):
        entry, _, tags, _, enabled = log[i]
        if enabled and any(tags[j].storage in outputs and not tags[j].detached for j in entry.reads):
            log[i] = _with_backward(log[i], None)
            return
