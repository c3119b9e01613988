"""The state of the process that a forward may change: settings of torch and Python, and random generators."""

from __future__ import annotations

import gc
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch.backends import cuda

Value = tuple[Callable[[], Any], Callable[[Any], Any]]
"""A function that returns a value of the process, and one that sets it."""


def attribute(owner: Any, name: str) -> Value:
    return partial(getattr, owner, name), partial(setattr, owner, name)


def _matmul_precision() -> str | None:
    """None if the process uses the newer `fp32_precision`: torch then refuses to tell this one."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _set_matmul_precision(precision: str | None) -> None:
    if precision is not None:
        torch.set_float32_matmul_precision(precision)


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(state: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(state[0], warn_only=state[1])


def _anomaly() -> tuple[bool, bool]:
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def _set_anomaly(state: tuple[bool, bool]) -> None:
    torch.set_anomaly_enabled(*state)


def _warning_filters() -> list[Any]:
    return list(warnings.filters)


def _set_warning_filters(filters: list[Any]) -> None:
    warnings.resetwarnings()  # also forgets which warnings were shown
    warnings.filters.extend(filters)  # type: ignore[attr-defined]  # a list, in typeshed a sequence


def _set_collecting(enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()


_GLOBAL_HOOKS: tuple[dict[Any, Any], ...] = tuple(
    table
    for name, table in vars(torch.nn.modules.module).items()
    if name.startswith("_global") and hasattr(table, "items")
)
"""Hooks of all modules. Torch has no public function that lists them (2.13 and 2.14)."""


def _global_hooks() -> list[dict[Any, Any]]:
    return [dict(table) for table in _GLOBAL_HOOKS]


def _set_global_hooks(tables: list[dict[Any, Any]]) -> None:
    for table, before in zip(_GLOBAL_HOOKS, tables, strict=True):
        table.clear()
        table.update(before)


SETTINGS: Mapping[str, Value] = {
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "threads": (torch.get_num_threads, torch.set_num_threads),
    "deterministic algorithms": (_deterministic, _set_deterministic),
    "filled memory": attribute(torch.utils.deterministic, "fill_uninitialized_memory"),
    "precision of products": (_matmul_precision, _set_matmul_precision),
    "precision of cuBLAS": attribute(cuda.matmul, "fp32_precision"),
    "precision of oneDNN": attribute(torch.backends.mkldnn.matmul, "fp32_precision"),  # type: ignore[attr-defined]
    "precision of convolutions": attribute(torch.backends.cudnn.conv, "fp32_precision"),  # type: ignore[attr-defined]
    "precision of recurrent layers": attribute(torch.backends.cudnn.rnn, "fp32_precision"),
    "cuDNN": attribute(torch.backends.cudnn, "enabled"),
    "benchmarks of cuDNN": attribute(torch.backends.cudnn, "benchmark"),
    "deterministic cuDNN": attribute(torch.backends.cudnn, "deterministic"),
    "flash attention": (cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
    "efficient attention": (cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
    "attention by products": (cuda.math_sdp_enabled, cuda.enable_math_sdp),
    "attention of cuDNN": (cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
    "anomalies": (_anomaly, _set_anomaly),
    "repeated warnings of torch": (torch.is_warn_always_enabled, torch.set_warn_always),
    "warnings": (_warning_filters, _set_warning_filters),
    "hooks of all modules": (_global_hooks, _set_global_hooks),
    "recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
    "garbage collection": (gc.isenabled, _set_collecting),
}
"""Settings that a trace restores."""


def random_generators() -> list[Value]:
    """The random generators of the process: torch's, Python's and NumPy's."""
    found: list[Value] = [(torch.get_rng_state, torch.set_rng_state), (random.getstate, random.setstate)]
    if torch.cuda.is_initialized():
        found.append((torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
    if (numpy := sys.modules.get("numpy.random")) is not None:
        found.append((numpy.get_state, numpy.set_state))
    return found


class ProcessState:
    """Values of the process, as they are when this object is created."""

    def __init__(self, values: Iterable[Value]) -> None:
        self._threads = _time_of_other_threads()
        self._states = [(get, set_value, get()) for get, set_value in values]

    def restore(self) -> None:
        """Restore what changed, unless another thread ran meanwhile: it may have changed the values itself."""
        if self._threads is None or all(_equal(get(), before) for get, _, before in self._states):
            return
        interval = sys.getswitchinterval()
        try:
            sys.setswitchinterval(1)  # no other thread runs between the query and what depends on it
            if _time_of_other_threads() == self._threads:
                for get, set_value, before in self._states:
                    if not _equal(get(), before):  # queried again: one setting may change another
                        set_value(before)
        finally:
            sys.setswitchinterval(interval)


def _time_of_other_threads() -> dict[int, int] | None:
    """The processor time of each other thread that runs Python. None if there are some and their time is unknown."""
    others = [thread for thread in sys._current_frames() if thread != get_ident()]
    if others and not hasattr(time, "pthread_getcpuclockid"):
        return None
    times = {}
    for thread in others:
        with suppress(ProcessLookupError):  # it ended meanwhile
            times[thread] = time.clock_gettime_ns(time.pthread_getcpuclockid(thread))
    return times


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, tuple) and len(a) > 1 and hasattr(a[1], "all"):  # NumPy's
        return bool((a[1] == b[1]).all() and a[2:] == b[2:])
    if isinstance(a, list) and a and isinstance(a[0], torch.Tensor):
        return all(map(torch.equal, a, b))
    return bool(a == b)
