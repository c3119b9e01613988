"""Network definitions of our own, plain and cross-stage-partial twins side by side.

To add a network, write a function that returns an `nn.Module`, decorate it with `model`, and import its
file at the end of this one. It then has a row in `cspprof models` and runs in the shared tests.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from cspprof.core.registry import Registry

if TYPE_CHECKING:
    from torch import nn

FREE = frozenset({"num_classes", "in_channels", "act"})
"""Options that leave a network what it is."""
SPLITTING = frozenset({"fusion", "gamma", "split"})

Status = Literal["published", "reading", "construction"]


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A zoo network: how to build it and where it comes from."""

    name: str
    factory: Callable[..., nn.Module]
    family: str
    paper: str
    """The paper and its section or table."""
    input: tuple[int, ...]
    """Native input shape, (N, C, H, W)."""
    status: Status
    """*published*: the authors' network; *reading*: our best reconstruction of one that is not public;
    *construction*: ours, after the paper's recipe."""
    twin: str | None
    """The plain network that a cross-stage-partial one is derived from."""
    variants: tuple[str, ...] = ()
    """Options that lead to another published network."""

    def status_with(self, options: Mapping[str, Any]) -> Status:
        """The status of the network that these options make: a published one that is changed is a construction, a
        cross-stage-partial one without its split is the plain one."""
        if self.twin is not None and options.get("fusion") == "none":
            return MODELS.get(self.twin).status_with({k: v for k, v in options.items() if k not in SPLITTING})
        parameters = inspect.signature(self.factory).parameters
        changed = {name for name, value in options.items() if value != parameters[name].default}
        return "construction" if self.status == "published" and changed - FREE - set(self.variants) else self.status

    @property
    def summary(self) -> str:
        return (self.factory.__doc__ or "").strip().splitlines()[0]


MODELS: Registry[ModelEntry] = Registry("model", "cspprof models")


def model(
    name: str,
    *,
    family: str,
    paper: str,
    input: tuple[int, ...] = (1, 3, 256, 256),
    status: Status = "published",
    twin: str | None = None,
    variants: tuple[str, ...] = (),
) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Register the decorated factory under `name`; its docstring's first line is the summary."""

    def register(factory: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        MODELS.add(name, ModelEntry(name, factory, family, paper, input, status, twin, variants))
        return factory

    return register


ROOMS = (
    "resnet", "resnet_v1", "darknet", "densenet", "peleenet", "mobilenet", "efficientnet", "res2net", "hardnet", "vgg",
    "squeezenet",
    "yolo", "peleenet_detectors", "panet_spp", "thundernet",
)  # fmt: skip


@cache
def catalog() -> Registry[ModelEntry]:
    """Every zoo network; the definitions (and torch) are imported on the first call."""
    for room in ROOMS:
        importlib.import_module(f"{__name__}.{room}")
    return MODELS
