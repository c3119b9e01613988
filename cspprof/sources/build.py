"""From a factory to a profile: what zoo, timm, torchvision and users' own factories share."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from cspprof.core.errors import CspprofError, OptionError, SourceError
from cspprof.core.inputs import Inputs
from cspprof.core.record import Record
from cspprof.sources import Request, Spec
from cspprof.sources.skip_init import SkipInit
from cspprof.trace import trace


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to run, and how it is called where nobody says otherwise."""

    module: nn.Module
    inputs: Inputs
    name: str
    source: str
    notes: tuple[str, ...] = ()
    device: str = "meta"
    """Where it is traced unless the user says otherwise."""
    status: str = ""
    """See `Profile.status`."""


def traced(loaded: Loaded, request: Request) -> Record:
    """Trace the model as asked."""
    return trace(
        loaded.module,
        loaded.inputs if request.inputs is None else request.inputs,
        name=loaded.name,
        source=loaded.source,
        train=request.train,
        device=request.device or loaded.device,
        dtype=request.dtype,
        notes=loaded.notes,
        status=loaded.status,
    )


def build(spec: Spec, factory: Callable[..., Any], device: str | None) -> tuple[nn.Module, tuple[str, ...]]:
    """The module that `factory` makes, on `device` (None: meta), with notes for the profile.

    A factory that reads a tensor while it builds cannot do so on meta: then weights alone are without data, and if it
    reads those as well, nothing is.
    """
    check_arguments(spec, factory)
    places: list[Any] = [torch.device(device or "meta")]
    if places[0].type == "meta":
        places = [_on_meta(), _WeightsOnMeta(), nullcontext()]
    for place in places:
        try:
            with same_weights(), place:
                made = factory(**spec.options)
            break
        except CspprofError:
            raise
        except (Exception, SystemExit) as error:
            if place is places[-1] or (place is places[0] and "meta" not in str(error).lower()):
                raise failed(spec, error) from error
    real = len(places) > 1 and place is places[-1]
    notes = ("built with real weights: the factory needs values while it builds",) if real else ()
    if not isinstance(made, nn.Module):
        raise SourceError(
            f"{spec.target} gave a {type(made).__name__}, not a torch.nn.Module",
            "Name a class, a function that returns a module, or a module.",
        )
    return made, notes


@contextmanager
def _on_meta() -> Iterator[None]:
    with SkipInit(), torch.device("meta"):
        yield


class _WeightsOnMeta(TorchFunctionMode):
    """Layers make their weights with `torch.empty`: that one is on meta here, and everything else has values."""

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and kwargs.get("device") is None:
            kwargs = kwargs | {"device": "meta"}
        return func(*args, **kwargs)


@contextmanager
def same_weights() -> Iterator[None]:
    """Random weights are the same in every run, where a forward depends on them; the caller's generator is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def check_arguments(spec: Spec, factory: Callable[..., Any]) -> None:
    """Refuse options that the factory does not take, and a factory that wants more, by its signature."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(**spec.options)
    except TypeError as error:
        takes = ", ".join(_shown(p) for p in signature.parameters.values()) or "no options"
        missing = [
            p.name
            for p in signature.parameters.values()
            if p.default is p.empty
            and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
            and p.name not in spec.options
        ]
        hint = f"It takes: {takes}"
        if missing:
            hint = f"Give {', '.join(missing)}: {spec.text},{','.join(f'{m}=…' for m in missing)}\n{hint}"
        raise OptionError(f"{spec.target}: {error}", hint) from None


def _shown(parameter: inspect.Parameter) -> str:
    return str(parameter.replace(annotation=inspect.Parameter.empty))


def refuse_weights(spec: Spec, *names: str) -> None:
    """Trained weights would be downloaded, and change no cost."""
    for name in names:
        if spec.options.get(name):
            raise SourceError(
                f"{spec.target}: {name} asks for trained weights, which change no cost and are never downloaded",
                f"Leave {name} out.",
            )


def failed(spec: Spec, error: BaseException) -> SourceError:
    """A factory raised: what, and in which line."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not Path(f.filename).is_relative_to(Path(__file__).parent)]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    reason = next(iter(str(error).strip().splitlines()), "")  # torch adds its table of kernels
    return SourceError(
        f"building {spec.text} failed: {type(error).__name__}: {reason}{where}",
        "Build it in Python to see more, or run again with --debug.",
    )
