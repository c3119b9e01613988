"""The deployed form of a model, with notes that say what was done and what was proven."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

from cspprof.core import units
from cspprof.deployment.fold import Trace, fold_norms, set_in_place
from cspprof.deployment.foldable_norms import find_foldable_norms
from cspprof.deployment.frozen_norms import freeze_again, is_frozen, thaw
from cspprof.deployment.in_place import in_place_layers
from cspprof.deployment.proof import (
    TOLERANCE,
    Forward,
    Trial,
    UnprovenError,
    evaluation_copy,
    float_type,
    in_dtype,
    set_eval,
)
from cspprof.deployment.reparameterize import Merged, has_branches, reparameterize


@dataclass(frozen=True, slots=True)
class Deployed:
    """A copy of a model in its deployed form."""

    module: nn.Module
    notes: tuple[str, ...]


def deploy(model: nn.Module, trace: Trace, forward: Forward, name: str) -> Deployed:
    """The deployed form of a model: branches merged, batch norms folded, activations in place. The model is unchanged.

    `trace` records a module on the inputs of the model, `forward` computes its outputs. `name` is that of the model in
    notes. Raises CspprofError if the model cannot be run on the CPU, or if the deployed form returns other outputs.
    """
    plain = evaluation_copy(model)
    record = trace(plain)
    search = find_foldable_norms(record)
    has_frozen = any(map(is_frozen, plain.modules()))
    if not (has_branches(plain) or has_frozen or search.groups or in_place_layers(record)):
        return Deployed(plain, (_sentence(name, ["nothing to fold or merge"], search.reasons),))
    errors: list[UnprovenError] = []
    for dtype in TOLERANCE:
        try:
            return _proven(plain, Trial.of(model, forward, dtype), trace, name)
        except UnprovenError as error:
            errors.append(error)
    raise next((error for error in reversed(errors) if error.differs), errors[0])


def _proven(plain: nn.Module, trial: Trial, trace: Trace, name: str) -> Deployed:
    """The deployed form of the module of a trial. Raises UnprovenError if it returns other outputs."""
    with float_type(trial.dtype):
        merged = reparameterize(trial.module) if has_branches(trial.module) else Merged(trial.module)
        module = in_dtype(merged.module, trial.dtype)
    set_eval(module)
    if merged.classes:
        trial.check(module, f"merging {_listed(merged.classes)}")
    thaw(module)
    folded = fold_norms(module, trace)
    freeze_again(folded.module)
    in_place = set_in_place(folded.module, folded.record)
    if folded.folded or in_place:
        norms, activations = units.counted(folded.folded, "batch norm"), units.counted(in_place, "activation")
        trial.check(folded.module, f"folding {norms} and setting {activations} in place")
    _restore_dtypes(folded.module, plain)
    done = [f"{units.counted(n, 'module')} merged by {method}()" for method, n in merged.methods.items()]
    done += [f"{units.counted(folded.folded, 'batch norm')} folded"] if folded.folded else []
    done += [f"{units.counted(in_place, 'activation')} in place"] if in_place else []
    notes = [_sentence(name, done or ["nothing to fold or merge"], folded.left)]
    if done:
        notes.append(
            f"{name}: outputs on random input equal those of the training form (relative difference below "
            f"{TOLERANCE[trial.dtype]:.0e}, {str(trial.dtype).removeprefix('torch.')} on the CPU)"
        )
    if merged.failed:
        path, reason = next(iter(merged.failed.items()))
        more = f" and {len(merged.failed) - 1} more" if len(merged.failed) > 1 else ""
        notes.append(f"{name}: {path}{more} could not be merged and stays as it is: {reason}")
    return Deployed(folded.module, tuple(notes))


def _sentence(name: str, done: list[str], left: Counter[str]) -> str:
    stays = [
        f"{'1 batch norm stays: it' if n == 1 else f'{n} batch norms stay: each'} {why}" for why, n in left.items()
    ]
    return "; ".join([f"{name}: {', '.join(done)}", *stays])


def _listed(classes: Counter[str]) -> str:
    return ", ".join(f"{n} × {name}" for name, n in classes.items())


def _restore_dtypes(module: nn.Module, plain: nn.Module) -> None:
    """Give each weight the dtype that it had in `plain`; a new weight has the one that most weights have."""
    own = {n: t.dtype for n, t in (*plain.named_parameters(), *plain.named_buffers()) if t.is_floating_point()}
    weights = Counter(dict.fromkeys(own.values(), 0))
    for parameter in plain.parameters():
        if parameter.is_floating_point():
            weights[parameter.dtype] += parameter.numel()
    if not weights:
        return
    most = max(weights, key=lambda dtype: weights[dtype])
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(own.get(name, most))
