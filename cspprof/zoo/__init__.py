"""Network definitions, plain networks and their cross-stage-partial twins.

To add a network, write a function that returns an `nn.Module`, decorate it with `model`, and list its file in
`MODULES`. It then has a row in `cspprof models` and runs in the shared tests.
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

NEUTRAL_OPTIONS = frozenset({"num_classes", "in_channels", "act"})
"""Options that do not change the status of a network."""
SPLIT_OPTIONS = frozenset({"fusion", "gamma", "split"})
"""Options that only a cross-stage-partial network has."""

Status = Literal["published", "reading", "construction"]


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A network of the zoo: how to build it, and its origin."""

    name: str
    factory: Callable[..., nn.Module]
    family: str
    paper: str
    """The paper and its section or table."""
    input: tuple[int, ...]
    """Native input shape, (N, C, H, W)."""
    status: Status
    """*published*: the network of the authors; *reading*: a reconstruction of a network without a public definition;
    *construction*: a network of this project, built by the recipe of the paper."""
    twin: str | None
    """The plain network of a cross-stage-partial one."""
    variants: tuple[str, ...] = ()
    """Options that select another published network."""

    def status_with(self, options: Mapping[str, Any]) -> Status:
        """The status of the network with these options. A published network that is changed is a construction; a
        cross-stage-partial network without its split has the status of the plain one."""
        if self.twin is not None and options.get("fusion") == "none":
            return MODELS.get(self.twin).status_with({k: v for k, v in options.items() if k not in SPLIT_OPTIONS})
        parameters = inspect.signature(self.factory).parameters
        changed = {name for name, value in options.items() if value != parameters[name].default}
        return (
            "construction"
            if self.status == "published" and changed - NEUTRAL_OPTIONS - set(self.variants)
            else self.status
        )

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
    """Register the decorated factory under `name`. The first line of its docstring is the summary."""

    def register(factory: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        MODELS.add(name, ModelEntry(name, factory, family, paper, input, status, twin, variants))
        return factory

    return register


MODULES = (
    "resnet", "resnet_v1", "darknet", "densenet", "peleenet", "mobilenet", "efficientnet", "res2net", "hardnet", "vgg",
    "squeezenet", "yolo", "peleenet_detectors", "panet_spp", "thundernet",
)  # fmt: skip
"""Files with networks, in the order of `cspprof models`."""


@cache
def catalog() -> Registry[ModelEntry]:
    """Every network of the zoo. The first call imports the definitions and torch."""
    modules = [f"{__name__}.{module}" for module in MODULES]
    for module in modules:
        importlib.import_module(module)
    order = {module: i for i, module in enumerate(modules)}  # some may have been imported before, one by one
    MODELS.sort(lambda entry: order.get(entry.factory.__module__, len(order)))
    return MODELS
