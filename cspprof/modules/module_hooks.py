"""Forward hooks that tell which module is running."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator
from threading import get_ident
from types import CoroutineType, GeneratorType
from typing import Any, NamedTuple

import torch
from torch import nn

from cspprof.modules.module_tree import ModuleTree

SetLayer = Callable[[int], int]
"""Makes a layer the running one, and returns the one that ran before."""

KEY = "cspprof"
"""The key of our hooks in the tables of a module, where torch has numbers."""

NEEDED = ("_forward_pre_hooks", "_forward_hooks", "_forward_hooks_always_called")


def add_module_hooks(tree: ModuleTree, copies: list[nn.Module], set_layer: SetLayer) -> None:
    """Call `set_layer` when the forward of a copy begins and ends, also when it raises; count the calls of its layer.

    `copies` are the copies of the modules of `tree`, which nothing else calls, so the hooks stay. The first hook runs
    before the module's own, the last one behind them: the operations of the user's hooks belong to the module.
    """
    running: list[tuple[int, int]] = []  # each layer that runs, with the layer that ran before it
    thread = get_ident()
    # A scripted module runs no Python: its operations belong to the module that calls it.
    hooked = [(i, m) for i, m in enumerate(copies) if not isinstance(m, torch.jit.ScriptModule)]
    index = {id(module): i for i, module in hooked}

    def enter(module: nn.Module, args: Any) -> None:
        layer = index.get(id(module))
        if layer is None:  # the forward copied a module with its hooks
            return
        if get_ident() != thread:
            tree.called_by_other_thread = layer
            return
        tree.calls[layer] += 1
        running.append((layer, set_layer(layer)))

    def leave(module: nn.Module, args: Any, output: Any) -> Any:
        layer = index.get(id(module))
        if layer is None or get_ident() != thread:
            return None
        # The layer need not be the last one: torch does not call this hook after a KeyboardInterrupt or SystemExit, and
        # it does call it if a hook of the user raised before `enter` was called.
        for position in reversed(range(len(running))):
            if running[position][0] == layer:
                set_layer(running[position][1])
                del running[position:]
                break
        if isinstance(output, GeneratorType):
            return _in_layer(output, layer, set_layer)
        if isinstance(output, CoroutineType):
            return _await_in_layer(output, layer, set_layer)
        return None

    for _, module in hooked:
        tables = vars(module)
        for name in NEEDED:
            if name not in tables:  # a module from an old file
                tables[name] = OrderedDict()
        before = tables["_forward_pre_hooks"]
        before[KEY] = enter
        before.move_to_end(KEY, last=False)
        tables["_forward_hooks"][KEY] = leave
        tables["_forward_hooks_always_called"][KEY] = True


def _in_layer(steps: Any, layer: int, set_layer: SetLayer) -> Generator[Any, Any, Any]:
    """The generator or coroutine that a module returned: its operations, which run later, belong to that layer."""
    step, argument = steps.send, None
    while True:
        before = set_layer(layer)
        try:
            item = step(argument)
        except StopIteration as stop:
            return stop.value
        finally:
            set_layer(before)
        try:
            step, argument = steps.send, (yield item)
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:  # what the caller threw into it
            step, argument = steps.throw, error


class _Awaitable(NamedTuple):
    steps: Generator[Any, Any, Any]

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.steps


async def _await_in_layer(coroutine: Any, layer: int, set_layer: SetLayer) -> Any:
    return await _Awaitable(_in_layer(coroutine, layer, set_layer))
