"""A recorded forward on another input, without torch: the same operations, their shapes and costs worked out anew.

A record knows what a forward did, not what it would have done. What makes the step from one to the other safe is that
a trace also writes down what the forward asked its tensors in Python (`Profile.looks`): where it never asked for a
size, it does the same at every size. Where it did, the answer has to stay as it was, unless what was done with it is
plain to see (a resize to the height and width of another map). Everything else is refused, with the layer's name.
"""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.errors import ReplayError
from cspprof.inputs import Inputs, arguments
from cspprof.record import Profile, Storage, TensorSpec
from cspprof.replay.forward import HINT
from cspprof.replay.plan import Plan
from cspprof.replay.shapes import FLOATS
from cspprof.replay.values import times


def replay(
    profile: Profile, inputs: Inputs | None = None, *, batch: int | None = None, dtype: str | None = None
) -> Profile:
    """The profile that a trace on other inputs would give.

    `inputs` as in `cspprof.profile`; `batch` replaces the first dimension of the recorded inputs instead; `dtype`
    replaces the floating dtype of inputs and weights. Raises ReplayError, by layer and operation, where the record
    does not say.
    """
    if dtype is not None and dtype not in FLOATS:
        raise ReplayError(f"cannot replay in {dtype}", f"Replay in one of: {', '.join(sorted(FLOATS))}")
    plan = profile.__dict__.get("_plan")
    if plan is None:
        plan = profile.__dict__["_plan"] = Plan(profile)
    return plan.at(_inputs(profile, plan.inputs, inputs, batch, dtype), dtype)


def _inputs(
    profile: Profile, recorded: Sequence[Storage], inputs: Inputs | None, batch: int | None, dtype: str | None
) -> list[TensorSpec]:
    """The input tensors asked for, in the recorded order."""
    held = [s.spec for s in recorded]
    if len(held) != len(profile.inputs):
        raise ReplayError(f"{profile.model} cannot be replayed: one tensor is several of its inputs", HINT)
    if inputs is not None and batch is not None:
        raise ReplayError("inputs have their batch already", "Give either inputs or batch.")
    if inputs is None:
        return [_cast(t if batch is None else TensorSpec((batch, *t.shape[1:]), t.dtype), dtype) for t in held]
    wanted: list[TensorSpec] = []
    args, kwargs = arguments(inputs, lambda given: wanted.append(given))
    names = [s.name for s in recorded]
    if len(wanted) != len(held) or (kwargs and list(kwargs) != names[len(args) :]):
        raise ReplayError(
            f"{profile.model} was recorded with {len(held)} inputs ({', '.join(names)}), and gets {len(wanted)}",
            "Give as many, in the same order.",
        )
    made = []
    for given, t in zip(wanted, held, strict=True):
        shape, kind = tuple(given.shape), str(given.dtype).removeprefix("torch.") or _cast(t, dtype).dtype
        if len(shape) != len(t.shape) or min(shape, default=1) < 1:
            raise ReplayError(f"{profile.model} was recorded on {t}, and gets {times(shape)}", HINT)
        made.append(TensorSpec(shape, kind))
    return made


def _cast(t: TensorSpec, dtype: str | None) -> TensorSpec:
    return TensorSpec(t.shape, dtype) if dtype is not None and t.dtype in FLOATS else t
