"""Build a module from a factory, and trace a loaded model: shared by the sources that run a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

from cspprof.core.errors import BuildError, CspprofError, NeedsValuesError, OptionError, SourceError, TraceError
from cspprof.core.record import Record
from cspprof.core.units import shortened
from cspprof.diagnosis.user_code import file_and_line, user_frame
from cspprof.sources.deployed_form import trace_deployed
from cspprof.sources.private_seed import PrivateSeed, build_seeded
from cspprof.sources.skip_init import SkipInit
from cspprof.sources.spec import LoadedModel, Request, Spec
from cspprof.trace import trace, trace_with_values

REAL_WEIGHTS = "built with real weights: the factory needs values while it builds"


MOST_WEIGHT_BYTES = 8 * 2**30
"""A model with more weights is not built on the CPU unless the user writes --device cpu."""


def trace_loaded(
    loaded: LoadedModel, request: Request, reopen: Callable[[Request], AbstractContextManager[LoadedModel]]
) -> Record:
    """The record of one forward; where the request names nothing else, with the model's own input and device.

    If the request names no device and the forward needs the values of tensors, `reopen` builds the model on the CPU,
    and it is traced there with a note. Raises TraceError.
    """
    if request.deploy:
        return _trace_deployed(loaded, request, reopen)
    try:
        return trace(
            loaded.module,
            loaded.inputs if request.inputs is None else request.inputs,
            device=request.device or loaded.device,
            notes=loaded.notes,
            **_options(loaded, request),
        )
    except NeedsValuesError as error:
        if request.device is not None:
            raise
        if (size := _weight_bytes(loaded.module)) > MOST_WEIGHT_BYTES:
            raise NeedsValuesError(
                f"{error.message}\nand the weights take {size / 2**30:.1f} GiB, too much to be built unasked",
                "Trace with values nevertheless: --device cpu (in Python: device='cpu').",
            ) from error
        with reopen(request._replace(device="cpu")) as real:
            inputs = real.inputs if request.inputs is None else request.inputs
            return trace_with_values(error, real.module, inputs, "cpu", real.notes, _options(real, request))


def _trace_deployed(
    loaded: LoadedModel, request: Request, reopen: Callable[[Request], AbstractContextManager[LoadedModel]]
) -> Record:
    """The record of the deployed form. `reopen` builds the model on the CPU, because the proof needs real weights."""
    on_meta = request.device in (None, "meta")
    if on_meta and (size := _weight_bytes(loaded.module)) > MOST_WEIGHT_BYTES:
        raise TraceError(
            f"{loaded.name}: the deployed form is proven with real weights, and they take {size / 2**30:.1f} GiB, too "
            "much to be built unasked",
            "Build them nevertheless: --device cpu (in Python: device='cpu').",
        )
    with reopen(request._replace(device="cpu")) if on_meta else nullcontext(loaded) as real:
        inputs = real.inputs if request.inputs is None else request.inputs
        options = _options(real, request)
        return trace_deployed(real.module, inputs, device=request.device, notes=real.notes, **options)


def _weight_bytes(module: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))


def _options(loaded: LoadedModel, request: Request) -> dict[str, Any]:
    return {
        "name": loaded.name,
        "source": loaded.source,
        "train": request.train,
        "dtype": request.dtype,
        "status": loaded.status,
    }


def build_module(spec: Spec, factory: Callable[..., Any], device: str | None) -> tuple[nn.Module, tuple[str, ...]]:
    """The module that `factory` returns, on `device` (None: meta), and notes for its record.

    A factory that reads a tensor's values cannot build on meta. Then only `torch.empty`, with which layers allocate
    their weights, is on meta; if the factory reads weights too, everything is real. Raises SourceError.
    """
    check_arguments(spec, factory)
    target = torch.device(device or "meta")
    on_meta = target.type == "meta"
    modes = [SkipInit(), SkipInit(frozenset({torch.empty})), PrivateSeed()] if on_meta else [PrivateSeed()]
    build = partial(_build_on, None if on_meta else target, factory, spec.options)
    for mode in modes:
        try:
            module = build_seeded(build, mode)
            break
        except CspprofError:
            raise
        except (Exception, SystemExit) as error:
            if mode is modes[-1] or (mode is modes[0] and "meta" not in str(error).lower()):
                raise build_failed(spec, error, device) from error
    if not isinstance(module, nn.Module):
        raise SourceError(
            f"{spec.target} returns an object of type {type(module).__name__}, not a torch.nn.Module",
            "Name a class, a function that returns a module, or a module.",
        )
    return module, () if isinstance(mode, SkipInit) or not on_meta else (REAL_WEIGHTS,)


def _build_on(device: torch.device | None, factory: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    with temporarily_clear_interpreter_stack(), device or nullcontext():
        return factory(**options)


def check_arguments(spec: Spec, factory: Callable[..., Any]) -> None:
    """Raise OptionError if the factory's signature does not accept the options of the SPEC."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # some classes written in C have none
        return
    try:
        signature.bind(**spec.options)
    except TypeError as error:
        parameters = signature.parameters.values()
        accepted = ", ".join(str(p.replace(annotation=p.empty)) for p in parameters) or "no options"
        missing = [
            p.name
            for p in parameters
            if p.default is p.empty
            and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            and p.name not in spec.options
        ]
        hint = f"It accepts: {accepted}"
        if missing:
            hint = f"Give {', '.join(missing)}: {spec.text},{','.join(f'{m}=…' for m in missing)}\n{hint}"
        raise OptionError(f"{spec.target}: {error}", hint) from None


def refuse_weights(spec: Spec, *names: str) -> None:
    """Raise SourceError if an option in `names` requests trained weights: they change no cost."""
    for name in names:
        if spec.options.get(name):
            raise SourceError(
                f"{spec.target}: {name} requests trained weights, which change no cost and are never downloaded",
                f"Leave {name} out.",
            )


SHOWN = 500
"""Characters of a SPEC or a reason that a message repeats."""


def _options_text(spec: Spec) -> str:
    return shortened(", ".join(f"{k}={v!r}" for k, v in spec.options.items()), SHOWN)


def build_failed(spec: Spec, error: BaseException, device: str | None = None) -> BuildError:
    """The error to raise when a factory raised `error`, with the file and line of the user's code."""
    frame = user_frame(error)
    where = f" ({file_and_line(frame.filename, frame.lineno)})" if frame else ""
    reason = next(iter(str(error).strip().splitlines()), "")  # torch appends its table of kernels
    hint = "Build it in Python to see more, or run again with --debug."
    if spec.options and isinstance(error, TypeError | ValueError):
        hint = f"Check the options of the SPEC: {_options_text(spec)}. {hint}"
    if device is not None and torch.device(device).type not in ("meta", "cpu"):
        hint = f"If this machine has no device {device}, write --device cpu. {hint}"
    return BuildError(
        f"building {shortened(spec.text, SHOWN)} failed: {type(error).__name__}: {shortened(reason, SHOWN)}{where}",
        hint,
    )
