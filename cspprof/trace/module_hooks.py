"""Forward hooks that tell which module is running."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from cspprof.trace.module_tree import ModuleTree

SetLayer = Callable[[int], int]
"""Makes a layer the running one, and returns the one that ran before."""


@contextmanager
def module_hooks(tree: ModuleTree, set_layer: SetLayer) -> Iterator[None]:
    """Call `set_layer` when the forward of a module of `tree` begins and ends, also when it raises; count its calls.

    One pair of torch's global hooks serves all modules: it also sees modules that are called without being
    registered. Modules with forward hooks of their own get a leaving hook behind those, so that the operations of the
    user's hooks still belong to the module.
    """
    running: list[tuple[int, int]] = []  # each layer that runs, with the layer that ran before it
    thread = get_ident()
    # A scripted module runs no Python: its operations belong to the module that calls it.
    index = {id(m): i for i, m in enumerate(tree.modules) if not isinstance(m, torch.jit.ScriptModule)}
    known = set(tree.index)
    hooked = [m for m in tree.modules if id(m) in index and m._forward_hooks]
    leave_later = {id(m) for m in hooked}

    def enter(module: nn.Module, args: Any) -> None:
        layer = index.get(id(module))
        if layer is None:
            if module._parameters and id(module) not in known and get_ident() == thread:
                tree.unregistered[id(module)] = module
        elif get_ident() != thread:
            tree.called_by_other_thread = layer
        else:
            tree.calls[layer] += 1
            running.append((layer, set_layer(layer)))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if id(module) not in leave_later:
            leave_hooked(module, args, output)

    def leave_hooked(module: nn.Module, args: Any, output: Any) -> None:
        layer = index.get(id(module))
        if layer is None or get_ident() != thread:
            return
        # The layer need not be the last one: torch does not call this hook after a KeyboardInterrupt or SystemExit, and
        # it does call it if a hook of the user raised before `enter` was called.
        for position in reversed(range(len(running))):
            if running[position][0] == layer:
                set_layer(running[position][1])
                del running[position:]
                break

    handles = [module.register_forward_hook(leave_hooked, always_call=True) for module in hooked]
    try:
        handles.append(register_module_forward_pre_hook(enter))
        handles.append(register_module_forward_hook(leave, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
