"""Short ways through `nn.Module` while modules are made: they do what torch does and ask less.

Of every value that is set, torch asks in Python whether it is a parameter, and then whether it is a buffer; of a
number, a tuple or a submodule the type says that it is neither. And what a new module begins with is set one by one,
though it is always the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules import module as home

PLAIN = frozenset({int, float, bool, str, tuple, list, dict, type(None)})
"""Values of these very types are attributes like any other, where their name is not that of something registered."""


def short_ways() -> list[tuple[type, str, Callable[..., Any]]]:
    """What to put in the place of which method; nothing where somebody else has replaced torch's own."""
    own = all(way.__code__.co_filename == home.__file__ for way in (nn.Module.__init__, nn.Module.__setattr__))
    return [(nn.Module, "__init__", _init()), (nn.Module, "__setattr__", _setattr())] if own else []


def _init() -> Callable[..., None]:
    original, begins = nn.Module.__init__, vars(nn.Module())
    own = [(name, type(value)) for name, value in begins.items() if not isinstance(value, (bool, type(None)))]

    def __init__(module: nn.Module, *args: Any, **options: Any) -> None:  # noqa: N807 - stands in its place
        if args or options or module.call_super_init:
            return original(module, *args, **options)
        held = module.__dict__
        held.update(begins)
        for name, container in own:
            held[name] = container()
        return None

    return __init__


def _setattr() -> Callable[[nn.Module, str, Any], None]:
    original = nn.Module.__setattr__

    def __setattr__(module: nn.Module, name: str, value: Any) -> None:  # noqa: N807 - stands in its place
        held, kind = module.__dict__, type(value)
        if (
            "_modules" in held
            and name not in held["_parameters"]
            and name not in held["_modules"]
            and name not in held["_buffers"]
            and name not in held["_non_persistent_buffers_set"]
        ):
            if kind in PLAIN:
                return super(nn.Module, module).__setattr__(name, value)
            if name not in held:
                if kind is nn.Parameter:
                    return module.register_parameter(name, value)
                if isinstance(value, nn.Module) and not home._global_module_registration_hooks:
                    held["_modules"][name] = value
                    return None
        return original(module, name, value)

    return __setattr__
