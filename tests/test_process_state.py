"""Settings of torch and Python that a forward changes are as before after a trace; random numbers of a forward come
from private generators."""

from __future__ import annotations

import errno
import gc
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import trace
from networks import Function
from test_untouched import global_state
from torch import nn

from cspprof.isolation.process_state import SETTINGS

ATTEMPTS = 20
"""A thread of another test, such as that of a cluster, may run during a trace. The trace then restores no setting."""
DEVICES = pytest.mark.parametrize("device", ["meta", "cpu"])
backends: Any = torch.backends

CHANGES: dict[str, Callable[[], Any]] = {
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "filled memory": lambda: setattr(torch.utils.deterministic, "fill_uninitialized_memory", False),
    "precision of products": lambda: torch.set_float32_matmul_precision("high"),
    "precision of cuBLAS": lambda: setattr(backends.cuda.matmul, "fp32_precision", "tf32"),
    "precision of oneDNN": lambda: setattr(backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "precision of convolutions": lambda: setattr(backends.cudnn.conv, "fp32_precision", "ieee"),
    "precision of recurrent layers": lambda: setattr(backends.cudnn.rnn, "fp32_precision", "ieee"),
    "cuDNN": lambda: setattr(backends.cudnn, "enabled", False),
    "benchmarks of cuDNN": lambda: setattr(backends.cudnn, "benchmark", True),
    "deterministic cuDNN": lambda: setattr(backends.cudnn, "deterministic", True),
    "flash attention": lambda: backends.cuda.enable_flash_sdp(False),
    "efficient attention": lambda: backends.cuda.enable_mem_efficient_sdp(False),
    "attention by products": lambda: backends.cuda.enable_math_sdp(False),
    "attention of cuDNN": lambda: backends.cuda.enable_cudnn_sdp(False),
    "anomalies": lambda: torch.set_anomaly_enabled(True, False),
    "repeated warnings of torch": lambda: torch.set_warn_always(True),
    "warnings": lambda: warnings.simplefilter("error", ResourceWarning),
    "hooks of all modules": lambda: nn.modules.module.register_module_forward_hook(lambda *_: None),
    "recursion limit": lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 1),
    "garbage collection": gc.disable,
}
OF_THE_THREAD: dict[str, Callable[[], Any]] = {
    "gradients": lambda: torch.set_grad_enabled(True),
    "default device": lambda: torch.set_default_device("cpu"),
    "autocast": lambda: torch.set_autocast_enabled("cpu", True),
    "dtype of autocast": lambda: torch.set_autocast_dtype("cpu", torch.float16),
    "cache of autocast": lambda: torch.set_autocast_cache_enabled(False),
    "fast path": lambda: backends.mha.set_fastpath_enabled(False),
    "function mode": lambda: torch.device("meta").__enter__(),
}


def _unfrozen_flags() -> Any:
    """Torch's own tests, which other tests here import, freeze the flags of backends in the whole process."""
    return backends.__allow_nonbracketed_mutation()


def settings() -> dict[str, Any]:
    values = {name: get() for name, (get, _) in SETTINGS.items()}
    autocast = torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()
    return {**global_state(), **values, "dtype of autocast": autocast}


def test_each_setting_has_a_change() -> None:
    assert CHANGES.keys() == SETTINGS.keys()


@DEVICES
@pytest.mark.parametrize("name", [*CHANGES, *OF_THE_THREAD])
def test_a_setting_that_a_forward_changes_is_restored(name: str, device: str) -> None:
    change = {**CHANGES, **OF_THE_THREAD}[name]
    during: list[dict[str, Any]] = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        change()
        during.append(settings())
        return x * 2

    before = settings()
    for _ in range(ATTEMPTS):
        with _unfrozen_flags():
            trace(Function(forward), (2, 4), device=device)
        assert during[-1] != before
        if settings() == before:
            return
        SETTINGS[name][1](before[name])
    pytest.fail(f"{ATTEMPTS} traces did not restore it")


def test_a_thread_that_ends_while_its_time_is_read_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(thread: int) -> int:
        raise ProcessLookupError(errno.ESRCH, "No such process")

    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        monkeypatch.setattr("cspprof.isolation.process_state.time.pthread_getcpuclockid", ended)
        assert trace(nn.Linear(2, 3), (1, 2)).total("macs") == 6
    finally:
        stop.set()
        thread.join()


def test_a_setting_that_another_thread_changes_stays() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        go.set()
        done.wait()
        return x

    def change() -> None:
        go.wait()
        torch.set_default_dtype(torch.float64)
        done.set()
        stop.wait()

    go, done, stop = (threading.Event() for _ in range(3))
    thread = threading.Thread(target=change)
    thread.start()
    try:
        trace(Function(forward), (2, 4))
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
        stop.set()
        thread.join()


@DEVICES
def test_the_default_dtype_of_the_moment_decides_the_dtype_of_a_result(device: str) -> None:
    def quotient(x: torch.Tensor) -> torch.Tensor:
        return x / x

    def in_double(x: torch.Tensor) -> torch.Tensor:
        torch.set_default_dtype(torch.float64)
        try:
            return x / x
        finally:
            torch.set_default_dtype(torch.float32)

    x = torch.ones(3, dtype=torch.int64)
    for forward, dtype in ((quotient, "float32"), (in_double, "float64"), (quotient, "float32")):
        p = trace(Function(forward), x, device=device)
        assert [op.spec.writes[0].dtype for op in p.ops] == [dtype]


# -- random numbers -------------------------------------------------------------------------------


def attention(x: torch.Tensor) -> torch.Tensor:
    q = x.view(1, 1, 4, 4)
    return F.scaled_dot_product_attention(q, q, q, dropout_p=0.5)


DRAWS: dict[str, Callable[[torch.Tensor], Any]] = {
    "dropout": lambda x: F.dropout(x, training=True),
    "channels": lambda x: F.dropout1d(x[None], training=True),
    "planes": lambda x: F.dropout2d(x[None, None], training=True),
    "in place": lambda x: F.dropout3d(x.clone()[None, None, None], training=True, inplace=True),
    "alpha": lambda x: F.alpha_dropout(x, training=True),
    "alpha of channels": lambda x: F.feature_alpha_dropout(x[None, None], training=True),
    "native": lambda x: torch.native_dropout(x, 0.5, True),
    "attention": attention,
    "lstm": lambda x: nn.LSTM(4, 4, 2, dropout=0.5)(x),
    "gru": lambda x: nn.GRU(4, 4, 2, dropout=0.5)(x),
    "rnn": lambda x: nn.RNN(4, 4, 2, dropout=0.5)(x),
    "attention layer": lambda x: nn.MultiheadAttention(4, 2, dropout=0.5)(x, x, x),
    "distributions": lambda x: torch.distributions.Gamma(x.exp(), x.exp()).rsample() + torch.rand(4),
}


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("name", DRAWS)
def test_random_numbers_of_a_forward_come_from_private_generators(name: str, gradients: bool) -> None:
    same: list[bool] = []

    def forward(x: torch.Tensor) -> Any:
        with torch.set_grad_enabled(gradients):
            before = torch.get_rng_state()
            y = DRAWS[name](x)
            same.append(bool((torch.get_rng_state() == before).all()))
        return y

    p = trace(Function(forward), torch.ones(4, 4), device="cpu", train=True)
    assert p.complete
    assert same == [True]


def test_dropout_of_channels_draws_numbers() -> None:
    kept: list[float] = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        kept.append(F.dropout2d(x, training=True).mean().item())
        return x

    trace(Function(forward), torch.ones(1, 1000, 2, 2), device="cpu", train=True)
    assert 0.9 < kept[0] < 1.1
    assert kept[0] != 1.0
