"""Torch's operators, each counted by hand: the results of the rules, written as arithmetic.

A row holds an operation, its inputs and its cost. It is traced on meta and on the CPU, unless the operation works on
one of them only. Torch's own counter must agree where it has a formula.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import trace
from networks import Function, op_names
from torch import nn
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from cspprof.analysis.layer_rows import layer_rows
from cspprof.core.errors import TraceError
from cspprof.core.record import Kind, TensorSpec
from cspprof.profiles import Profile
from cspprof.report.notes import model_notes

aten = torch.ops.aten
META, CPU = ("meta",), ("cpu",)


def t(*shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(shape, dtype)


def checked_trace(model: Any, inputs: list[TensorSpec], device: str = "meta") -> Profile:
    """The profile of a module or function, after its self-check."""
    p = trace(model if isinstance(model, nn.Module) else Function(model), inputs, device=device)
    p.self_check()
    return p


@dataclass
class Row:
    name: str
    model: Any
    """A module or a function."""
    inputs: list[TensorSpec]
    kind: Kind
    macs: int
    elementwise: int | None = None
    """Scalar operations of all operations of that kind."""
    traffic: int | None = None
    """Memory traffic in bytes."""
    on: tuple[str, ...] = META + CPU
    oracle: bool = True
    """Whether torch's counter has a formula for every operation of the row."""


C, T, L, M, A, R = Kind.CONV, Kind.CONV_TRANSPOSE, Kind.LINEAR, Kind.MATMUL, Kind.ATTENTION, Kind.RECURRENT
bf16, f16, i8, c64 = torch.bfloat16, torch.float16, torch.int8, "complex64"

CONVOLUTIONS = [
    Row("conv1d", nn.Conv1d(4, 8, 3), [t(2, 4, 10)], C, 3 * 4 * 8 * 2 * 8),
    Row("conv2d", nn.Conv2d(3, 8, 3, padding=1), [t(1, 3, 14, 14)], C, 3 * 3 * 3 * 8 * 14 * 14),
    Row("conv2d unbatched", nn.Conv2d(3, 8, 3), [t(3, 14, 14)], C, 3 * 3 * 3 * 8 * 12 * 12),
    Row("conv2d strided, dilated, grouped", nn.Conv2d(4, 8, (1, 3), stride=2, dilation=2, groups=2), [t(1, 4, 9, 9)],
        C, 1 * 3 * 2 * 8 * 5 * 3),
    Row("conv2d depthwise", nn.Conv2d(8, 16, 3, padding=1, groups=8), [t(1, 8, 6, 6)], C, 3 * 3 * 1 * 16 * 6 * 6),
    Row("conv2d padding='same'", nn.Conv2d(4, 8, 3, padding="same"), [t(1, 4, 6, 6)], C, 3 * 3 * 4 * 8 * 6 * 6),
    Row("conv2d padding='same', even kernel", nn.Conv2d(3, 4, (2, 4), padding="same"), [t(1, 3, 8, 8)],
        C, 2 * 4 * 3 * 4 * 8 * 8),
    Row("conv2d padding='valid'", nn.Conv2d(3, 4, (2, 4), padding="valid"), [t(1, 3, 8, 8)], C, 2 * 4 * 3 * 4 * 7 * 5),
    Row("conv3d", nn.Conv3d(2, 3, 2), [t(1, 2, 4, 4, 4)], C, 2 * 2 * 2 * 2 * 3 * 3 * 3 * 3),
    Row("conv_transpose1d grouped, dilated", nn.ConvTranspose1d(4, 6, 3, groups=2, dilation=2), [t(1, 4, 9)],
        T, 9 * 4 * 3 * 3),
    Row("conv_transpose2d", nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), [t(1, 4, 5, 5)],
        T, 5 * 5 * 4 * 3 * 3 * 6),
    Row("conv_transpose3d", nn.ConvTranspose3d(2, 3, 2, stride=2), [t(1, 2, 3, 3, 3)], T, 27 * 2 * 2 * 2 * 2 * 3),
    Row("conv2d complex", nn.Conv2d(3, 4, 3, bias=False, dtype=torch.complex64), [t(1, 3, 8, 8, dtype=c64)],
        C, 3 * 3 * 3 * 4 * 6 * 6, traffic=8 * (3 * 8 * 8 + 4 * 3 * 9 + 4 * 6 * 6),
        oracle=False),  # torch's counter receives the three real convolutions of its kernel
    Row("conv2d bfloat16", nn.Conv2d(3, 4, 3, bias=False, dtype=bf16), [t(1, 3, 8, 8, dtype="bfloat16")],
        C, 3 * 3 * 3 * 4 * 6 * 6, traffic=2 * (3 * 8 * 8 + 4 * 3 * 9 + 4 * 6 * 6)),
    Row("conv_tbc", torch.conv_tbc, [t(7, 2, 4), t(3, 4, 5), t(5)], C, 3 * 4 * 5 * 2 * 5, oracle=False),
    Row("unfold and matmul", lambda x, w: w @ F.unfold(x, 3), [t(1, 3, 8, 8), t(4, 27)], M, 3 * 3 * 3 * 4 * 6 * 6),
]  # fmt: skip

PRODUCTS = [
    Row("linear", nn.Linear(7, 3), [t(2, 5, 7)], L, 2 * 5 * 7 * 3),
    Row("linear float16", nn.Linear(8, 4, dtype=f16), [t(2, 8, dtype="float16")], L, 2 * 8 * 4,
        traffic=2 * (2 * 8 + 8 * 4 + 4 + 2 * 4)),
    Row("bilinear", nn.Bilinear(3, 4, 5), [t(2, 3), t(2, 4)], L, 2 * 5 * (3 * 4 + 3), oracle=False),
    Row("mm", torch.mm, [t(3, 4), t(4, 5)], M, 3 * 4 * 5),
    Row("bmm", torch.bmm, [t(2, 3, 4), t(2, 4, 5)], M, 2 * 3 * 4 * 5),
    Row("mv", torch.mv, [t(3, 4), t(4)], M, 3 * 4, oracle=False),
    Row("dot", torch.dot, [t(9), t(9)], M, 9, oracle=False),
    Row("outer", torch.outer, [t(3), t(5)], M, 3 * 5, oracle=False),
    Row("inner", torch.inner, [t(2, 3), t(5, 3)], M, 2 * 3 * 5),
    Row("addmm", torch.addmm, [t(5), t(3, 4), t(4, 5)], M, 3 * 4 * 5),
    Row("addmv", torch.addmv, [t(3), t(3, 4), t(4)], M, 3 * 4, oracle=False),
    Row("addr", torch.addr, [t(3, 5), t(3), t(5)], M, 3 * 5, oracle=False),
    Row("baddbmm", torch.baddbmm, [t(2, 3, 5), t(2, 3, 4), t(2, 4, 5)], M, 2 * 3 * 4 * 5),
    Row("addbmm", torch.addbmm, [t(3, 5), t(2, 3, 4), t(2, 4, 5)], M, 2 * 3 * 4 * 5, oracle=False),
    Row("matmul broadcast", torch.matmul, [t(2, 1, 3, 4), t(5, 4, 6)], M, 2 * 5 * 3 * 4 * 6),
    Row("matmul with a vector", torch.matmul, [t(2, 3, 4), t(4)], M, 2 * 3 * 4, oracle=False),
    Row("matmul complex", torch.matmul, [t(3, 4, dtype=c64), t(4, 5, dtype=c64)], M, 3 * 4 * 5,
        traffic=8 * (3 * 4 + 4 * 5 + 3 * 5)),
    Row("multi_dot", lambda *m: torch.linalg.multi_dot(m), [t(3, 4), t(4, 5), t(5, 6)], M, 3 * 4 * 5 + 3 * 5 * 6),
    Row("chain_matmul", torch.chain_matmul, [t(30, 2), t(2, 5), t(5, 6)], M, 2 * 5 * 6 + 30 * 2 * 6),
    Row("matrix_power", lambda m: torch.linalg.matrix_power(m, 5), [t(4, 4)], M, 3 * 4**3),
    Row("tensordot", lambda a, b: torch.tensordot(a, b, 2), [t(3, 4, 5), t(4, 5, 6)], M, 3 * 4 * 5 * 6),
    Row("kron", torch.kron, [t(3, 4), t(4, 5)], Kind.ELEMENTWISE, 0, 3 * 4 * 4 * 5),
    Row("einsum", lambda q, k: torch.einsum("bqhd,bkhd->bhqk", q, k), [t(2, 5, 3, 4), t(2, 7, 3, 4)],
        M, 2 * 3 * 5 * 7 * 4),
    Row("einsum of three", lambda a, b, c: torch.einsum("bij,jk,kl->bil", a, b, c), [t(2, 3, 4), t(4, 5), t(5, 6)],
        M, 2 * 3 * 4 * 5 + 2 * 3 * 5 * 6),  # two products
    Row("cdist", torch.cdist, [t(2, 3, 4), t(2, 5, 4)], M, 2 * 3 * 5 * 4, 2 * 3 * 5 * 4, oracle=False),
    Row("cdist p=1", lambda a, b: torch.cdist(a, b, p=1), [t(3, 4), t(5, 4)], Kind.REDUCTION, 0, 2 * 3 * 5 * 4),
    Row("pdist", F.pdist, [t(5, 4)], M, 5 * 4 // 2 * 4, oracle=False),
    Row("_int_mm", torch._int_mm, [t(32, 16, dtype="int8"), t(16, 8, dtype="int8")], M, 32 * 16 * 8,
        traffic=32 * 16 + 16 * 8 + 4 * 32 * 8, oracle=False),
    Row("_weight_int8pack_mm", torch._weight_int8pack_mm,
        [t(4, 32, dtype="bfloat16"), t(16, 32, dtype="int8"), t(16, dtype="bfloat16")],
        M, 4 * 32 * 16, traffic=2 * 4 * 32 + 16 * 32 + 2 * 16 + 2 * 4 * 16, oracle=False),
    Row("_scaled_mm float8", lambda a, b, s: torch._scaled_mm(a, b.t(), s, s, out_dtype=bf16),
        [t(32, 16, dtype="float8_e4m3fn"), t(48, 16, dtype="float8_e4m3fn"), t()],
        M, 32 * 16 * 48, traffic=32 * 16 + 16 * 48 + 4 + 4 + 2 * 32 * 48, on=META),
    Row("_grouped_mm", torch._grouped_mm, [t(3, 16, 32, dtype="bfloat16"), t(3, 32, 64, dtype="bfloat16")],
        M, 3 * 16 * 32 * 64, oracle=False),
    Row("_grouped_mm of rows", lambda a, b: torch._grouped_mm(a, b, offs=torch.tensor([2, 5, 16], dtype=torch.int32)),
        [t(16, 32, dtype="bfloat16"), t(3, 32, 64, dtype="bfloat16")], M, 16 * 32 * 64, oracle=False),
    Row("_grouped_mm of some rows", lambda a, b: torch._grouped_mm(a, b, offs=torch.tensor([2, 2], dtype=torch.int32)),
        [t(16, 32, dtype="bfloat16"), t(2, 32, 64, dtype="bfloat16")], M, 2 * 32 * 64, oracle=False),
    Row("_grouped_mm of columns",
        lambda a, b: torch._grouped_mm(a, b, offs=torch.tensor([8, 24], dtype=torch.int32)),
        [t(2, 16, 32, dtype="bfloat16"), t(32, 64, dtype="bfloat16")], M, 16 * 32 * 24, oracle=False),
    Row("_grouped_mm of inner runs",
        lambda a, b: torch._grouped_mm(a, b, offs=torch.tensor([8, 24], dtype=torch.int32)),
        [t(16, 32, dtype="bfloat16"), t(32, 64, dtype="bfloat16")], M, 16 * 24 * 64, oracle=False),
]  # fmt: skip

FACTORIZATIONS = [
    Row("cholesky", torch.linalg.cholesky_ex, [t(2, 4, 4)], M, 2 * (1 * 3 + 2 * 2 + 3 * 1), oracle=False),
    Row("lu", torch.linalg.lu_factor_ex, [t(4, 4)], M, 3 * 3 + 2 * 2 + 1, oracle=False),
    Row("lu of a wide matrix", torch.linalg.lu_factor_ex, [t(3, 5)], M, 2 * 4 + 1 * 3, oracle=False),
    Row("det", torch.linalg.det, [t(2, 3, 3)], M, 2 * (2 * 2 + 1), oracle=False),
    Row("slogdet", torch.linalg.slogdet, [t(3, 3)], M, 2 * 2 + 1, oracle=False),
    Row("solve", lambda a, b: torch.linalg.solve_ex(a, b)[0], [t(3, 3), t(3, 7)],
        M, (2 * 2 + 1) + 7 * 2 * (0 + 1 + 2), oracle=False),
    Row("solve for a vector", lambda a, b: torch.linalg.solve_ex(a, b)[0], [t(3, 3), t(3)],
        M, (2 * 2 + 1) + 2 * (0 + 1 + 2), oracle=False),
    Row("inv", lambda a: torch.linalg.inv_ex(a)[0], [t(3, 3)], M, (2 * 2 + 1) + 3 * 2 * (0 + 1 + 2), oracle=False),
    Row("solve_triangular", lambda a, b: torch.linalg.solve_triangular(a, b, upper=True), [t(3, 3), t(3, 7)],
        M, 7 * (0 + 1 + 2), oracle=False),
    Row("solve_triangular of a batch", lambda a, b: torch.linalg.solve_triangular(a, b, upper=True),
        [t(2, 3, 3), t(2, 3, 7)], M, 2 * 7 * (0 + 1 + 2), oracle=False),
    Row("solve_triangular from the right", lambda a, b: torch.linalg.solve_triangular(a, b, upper=True, left=False),
        [t(3, 3), t(7, 3)], M, 7 * (0 + 1 + 2), oracle=False),
    Row("triangular_solve", torch.triangular_solve, [t(3, 7), t(3, 3)], M, 7 * (0 + 1 + 2), oracle=False),
    Row("cholesky_solve", torch.cholesky_solve, [t(3, 7), t(3, 3)], M, 7 * 2 * (0 + 1 + 2), oracle=False),
]  # fmt: skip

qkv = [t(2, 4, 6, 8)] * 3


def sdpa(backend: Any = None, **options: Any) -> Callable[..., torch.Tensor]:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def run(*tensors: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel(backend or [b for b in SDPBackend.__members__.values() if b.value >= 0]):
            return F.scaled_dot_product_attention(*tensors, **options)

    return run


def first_output(function: Callable[..., Any], *rest: Any) -> Callable[..., Any]:
    """The function without its other outputs, called with `rest` as last arguments."""
    return lambda *args: function(*args, *rest)[0]


class SelfAttention(nn.Module):
    """A call for which `nn.MultiheadAttention` has a fused kernel on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attn(x, x, x, need_weights=False)[0]


class PaddedEncoder(nn.Module):
    """An encoder with a padding mask, for which torch may use nested tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.arange(5).expand(3, 5) >= torch.tensor([[5], [3], [1]])
        return self.encoder(x, src_key_padding_mask=mask)


projections = 4 * 3 * 5 * 8 * 8  # query, key, value, output
scores = 2 * 3 * 2 * 5 * 5 * 4  # two products over 2 heads of size 4
feed_forward = 2 * 3 * 5 * 8 * 16


def encoder_layer(x: torch.Tensor, qkv: torch.Tensor, out: torch.Tensor, up: torch.Tensor, down: torch.Tensor
                  ) -> torch.Tensor:  # fmt: skip
    def ones(n: int) -> torch.Tensor:
        return torch.ones(n, device=x.device)

    return torch._transformer_encoder_layer_fwd(x, 8, 2, qkv, ones(24), out, ones(8), False, False, 1e-5, ones(8),
                                                ones(8), ones(8), ones(8), up, ones(16), down, ones(8))  # fmt: skip


def flex(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
    return flex_attention(q, k, v, score_mod=lambda score, b, h, i, j: score + (i - j))


CPU_ATTENTION_HAS_A_FORMULA = aten._scaled_dot_product_flash_attention_for_cpu in flop_registry
"""Older releases of torch's counter have no formula for the attention kernel of the CPU."""
ATTENTION = [
    Row("sdpa", F.scaled_dot_product_attention, qkv, A, 2 * 2 * 4 * 6 * 6 * 8, 2 * 4 * 6 * 6),
    Row("sdpa causal, counted as the whole matrix", sdpa(is_causal=True), qkv, A, 2 * 2 * 4 * 6 * 6 * 8),
    Row("sdpa with other lengths of keys and sizes of values", F.scaled_dot_product_attention,
        [t(2, 4, 6, 8), t(2, 4, 7, 8), t(2, 4, 7, 3)], A, 2 * 4 * 6 * 7 * (8 + 3)),
    Row("sdpa grouped queries", sdpa(enable_gqa=True), [t(2, 4, 6, 8), t(2, 2, 7, 8), t(2, 2, 7, 8)],
        A, 2 * 2 * 4 * 6 * 7 * 8, oracle=False),  # torch's counter requires equal numbers of heads
    Row("sdpa, queries broadcast", F.scaled_dot_product_attention, [t(1, 4, 6, 8), t(3, 4, 7, 8), t(3, 4, 7, 8)],
        A, 2 * 3 * 4 * 6 * 7 * 8),
    Row("sdpa, keys and values broadcast", F.scaled_dot_product_attention,
        [t(4, 2, 6, 8), t(1, 1, 7, 8), t(1, 1, 7, 8)], A, 2 * 4 * 2 * 6 * 7 * 8),
    Row("sdpa math", sdpa(torch.nn.attention.SDPBackend.MATH), qkv, A, 2 * 2 * 4 * 6 * 6 * 8),
    Row("sdpa flash", sdpa(torch.nn.attention.SDPBackend.FLASH_ATTENTION), qkv, A, 2 * 2 * 4 * 6 * 6 * 8),
    Row("flash kernel of the cpu", first_output(aten._scaled_dot_product_flash_attention_for_cpu), qkv,
        A, 2 * 2 * 4 * 6 * 6 * 8, oracle=CPU_ATTENTION_HAS_A_FORMULA),
    Row("math kernel", first_output(aten._scaled_dot_product_attention_math), qkv, A, 2 * 2 * 4 * 6 * 6 * 8),
    Row("flash kernel", first_output(aten._scaled_dot_product_flash_attention), [t(2, 4, 6, 8, dtype="float16")] * 3,
        A, 2 * 2 * 4 * 6 * 6 * 8, traffic=2 * 4 * 2 * 4 * 6 * 8, on=META),
    Row("efficient kernel", first_output(aten._scaled_dot_product_efficient_attention, None, True), qkv,
        A, 2 * 2 * 4 * 6 * 6 * 8, on=META),
    Row("cudnn kernel", first_output(aten._scaled_dot_product_cudnn_attention, None, True), qkv,
        A, 2 * 2 * 4 * 6 * 6 * 8, on=META),
    Row("flash kernel, heads after length", lambda q, k, v: aten._flash_attention_forward(
        q, k, v, None, None, 6, 7, 0.0, False, False)[0], [t(2, 6, 4, 8), t(2, 7, 4, 8), t(2, 7, 4, 8)],
        A, 2 * 2 * 4 * 6 * 7 * 8, on=META, oracle=False),
    Row("flex_attention", flex, [t(2, 4, 16, 8)] * 3, A, 2 * 2 * 4 * 16 * 16 * 8, on=CPU, oracle=False),
    Row("multi-head cross-attention", nn.MultiheadAttention(8, 2, batch_first=True),
        [t(3, 5, 8), t(3, 7, 8), t(3, 7, 8)], M, 3 * (2 * 5 + 2 * 7) * 8 * 8 + 2 * 3 * 2 * 5 * 7 * 4),
    Row("multi-head attention", SelfAttention(), [t(3, 5, 8)], A, projections + scores, on=META),
    Row("multi-head attention, fused kernel", SelfAttention(), [t(3, 5, 8)], A, projections + scores, 3 * 2 * 5 * 5,
        on=CPU, oracle=False),
    Row("encoder layer", nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), [t(3, 5, 8)],
        A, projections + scores + feed_forward, oracle=False),
    Row("encoder layer, fused kernel", encoder_layer, [t(3, 5, 8), t(24, 8), t(8, 8), t(16, 8), t(8, 16)],
        # the softmax of 2 heads, an activation of 16 channels, and two norms of 2 operations each
        A, projections + scores + feed_forward, 3 * 2 * 5 * 5 + 3 * 5 * 16 + 2 * 2 * 3 * 5 * 8, on=CPU, oracle=False),
    Row("encoder with a padding mask, counted as the padded batch", PaddedEncoder(), [t(3, 5, 8)],
        A, 2 * (projections + scores + feed_forward), oracle=False),
]  # fmt: skip


class PackedSequence(nn.Module):
    """A recurrent layer on packed sequences of length 4, 2 and 1: 7 steps instead of 12 padded ones."""

    def __init__(self, cell: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.rnn = cell(6, 5, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x, torch.tensor([4, 2, 1]))
        return nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0])[0]


RECURRENT = [
    Row("rnn", nn.RNN(6, 5, nonlinearity="relu"), [t(4, 2, 6)], R, 4 * 2 * 5 * (6 + 5), 4 * 2 * 2 * 5, oracle=False),
    Row("gru", nn.GRU(6, 5), [t(4, 2, 6)], R, 4 * 2 * 15 * (6 + 5), oracle=False),
    Row("lstm bidirectional with two layers", nn.LSTM(6, 5, 2, bidirectional=True), [t(4, 3, 6)],
        R, 4 * 3 * (2 * 20 * (6 + 5) + 2 * 20 * (10 + 5)), oracle=False),
    Row("lstm with projections", nn.LSTM(6, 5, proj_size=3, batch_first=True), [t(3, 4, 6)],
        R, 4 * 3 * (20 * (6 + 3) + 3 * 5), oracle=False),
    Row("lstm with two layers and projections", nn.LSTM(6, 5, 2, proj_size=3), [t(4, 3, 6)],
        R, 4 * 3 * (20 * (6 + 3) + 3 * 5 + 20 * (3 + 3) + 3 * 5), oracle=False),
    Row("lstm unbatched", nn.LSTM(6, 5), [t(4, 6)], R, 4 * 20 * (6 + 5), oracle=False),
    Row("lstm packed", PackedSequence(nn.LSTM), [t(4, 3, 6)], R, 7 * 20 * (6 + 5), oracle=False),
    Row("gru packed, bidirectional", PackedSequence(nn.GRU, bidirectional=True), [t(4, 3, 6)],
        R, 7 * 2 * 15 * (6 + 5), oracle=False),
    Row("rnn packed", PackedSequence(nn.RNN), [t(4, 3, 6)], R, 7 * 5 * (6 + 5), oracle=False),
    Row("lstm cell", nn.LSTMCell(6, 5), [t(3, 6)], L, 3 * 20 * (6 + 5)),
    Row("gru cell", nn.GRUCell(6, 5), [t(3, 6)], L, 3 * 15 * (6 + 5)),
    Row("rnn cell", nn.RNNCell(6, 5), [t(3, 6)], L, 3 * 5 * (6 + 5)),
]  # fmt: skip


def unpooled(x: torch.Tensor) -> torch.Tensor:
    y, at = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(y, at, 2)


WITHOUT_MACS = [
    Row("embedding", nn.Embedding(10, 4), [t(3, 5, dtype="int64")], Kind.EMBEDDING, 0, 0,
        traffic=8 * 15 + 4 * 10 * 4 + 4 * 15 * 4),
    Row("embedding in a large table", nn.Embedding(100, 4), [t(3, dtype="int64")], Kind.EMBEDDING, 0, 0,
        traffic=8 * 3 + 4 * 3 * 4 + 4 * 3 * 4),
    Row("embedding_bag", nn.EmbeddingBag(10, 4), [t(3, 5, dtype="int64")], Kind.EMBEDDING, 0, 3 * 5 * 4),
    *(Row(type(norm).__name__, norm, [t(2, 4, 6, 6)], Kind.NORM, 0, 2 * 2 * 4 * 6 * 6)
      for norm in (nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.LayerNorm((6, 6)), nn.RMSNorm(6))),
    Row("max_pool1d", nn.MaxPool1d(3), [t(2, 4, 9)], Kind.MAX_POOL, 0, 3 * 2 * 4 * 3),
    Row("max_pool2d", nn.MaxPool2d(3, 2), [t(2, 4, 9, 9)], Kind.MAX_POOL, 0, 3 * 3 * 2 * 4 * 4 * 4,
        traffic=4 * (2 * 4 * 9 * 9 + 2 * 4 * 4 * 4)),
    Row("max_pool2d with indices", nn.MaxPool2d(3, 2, return_indices=True), [t(2, 4, 9, 9)],
        Kind.MAX_POOL, 0, 3 * 3 * 2 * 4 * 4 * 4, traffic=4 * (2 * 4 * 9 * 9 + 2 * 4 * 4 * 4) + 8 * 2 * 4 * 4 * 4),
    Row("max_pool2d unbatched", nn.MaxPool2d(3), [t(4, 9, 9)], Kind.MAX_POOL, 0, 3 * 3 * 4 * 3 * 3),
    Row("max_pool3d", nn.MaxPool3d(2), [t(1, 4, 4, 4, 4)], Kind.MAX_POOL, 0, 8 * 4 * 8),
    Row("avg_pool1d unbatched", nn.AvgPool1d(3), [t(4, 9)], Kind.AVG_POOL, 0, 3 * 4 * 3),
    Row("avg_pool2d", nn.AvgPool2d((2, 3)), [t(1, 4, 6, 6)], Kind.AVG_POOL, 0, 2 * 3 * 4 * 3 * 2),
    Row("avg_pool3d", nn.AvgPool3d(2), [t(1, 4, 4, 4, 4)], Kind.AVG_POOL, 0, 8 * 4 * 8),
    Row("mean over the map", lambda x: x.mean((2, 3)), [t(2, 4, 6, 5)], Kind.AVG_POOL, 0, 2 * 4 * 6 * 5),
    Row("mean over channels and rows", lambda x: x.mean((1, 2)), [t(2, 4, 6, 5)], Kind.REDUCTION, 0, 2 * 4 * 6 * 5),
    Row("mean over the last dimensions of a sequence", lambda x: x.mean((1, 2)), [t(2, 4, 6)], Kind.REDUCTION, 0, 48),
    Row("adaptive_avg_pool2d to 1", nn.AdaptiveAvgPool2d(1), [t(1, 4, 7, 7)], Kind.AVG_POOL, 0, 7 * 7 * 4),
    # 7 to 3: the windows 0…2, 2…4, 4…6 of three elements; 7 to 7: windows of one element
    Row("adaptive_avg_pool2d", nn.AdaptiveAvgPool2d((3, 7)), [t(1, 4, 7, 7)], Kind.AVG_POOL, 0, 4 * 9 * 7),
    Row("adaptive_avg_pool1d", nn.AdaptiveAvgPool1d(3), [t(1, 4, 7)], Kind.AVG_POOL, 0, 4 * 9),
    Row("adaptive_max_pool3d", nn.AdaptiveMaxPool3d((2, 2, 3)), [t(1, 4, 4, 4, 7)], Kind.MAX_POOL, 0, 4 * 4 * 4 * 9),
    Row("fractional_max_pool2d", nn.FractionalMaxPool2d(2, output_size=4), [t(1, 3, 9, 9)],
        Kind.MAX_POOL, 0, 2 * 2 * 3 * 4 * 4),
    Row("fractional_max_pool3d", nn.FractionalMaxPool3d(2, output_size=4), [t(1, 3, 9, 9, 9)],
        Kind.MAX_POOL, 0, 8 * 3 * 4 * 4 * 4),
    Row("lp_pool2d", nn.LPPool2d(2, 3), [t(1, 3, 9, 9)], Kind.AVG_POOL, 0, 3 * 3 * 3 * 3 * 3),
    Row("max_unpool2d", unpooled, [t(1, 3, 8, 8)], Kind.DATA, 0, 0),
    Row("upsample nearest", nn.Upsample(scale_factor=2), [t(1, 3, 4, 4)], Kind.RESIZE, 0, 3 * 8 * 8),
    Row("upsample bilinear", nn.Upsample(scale_factor=2, mode="bilinear"), [t(1, 3, 4, 4)], Kind.RESIZE, 0, 3 * 8 * 8),
    Row("upsample bicubic", nn.Upsample(size=5, mode="bicubic"), [t(1, 3, 4, 4)], Kind.RESIZE, 0, 3 * 5 * 5),
    Row("upsample trilinear", nn.Upsample(size=5, mode="trilinear"), [t(1, 3, 4, 4, 4)], Kind.RESIZE, 0, 3 * 125),
    Row("upsample linear", nn.Upsample(size=5, mode="linear"), [t(1, 3, 4)], Kind.RESIZE, 0, 3 * 5),
    Row("grid_sample", lambda x, g: F.grid_sample(x, g, align_corners=False), [t(1, 3, 4, 4), t(1, 5, 6, 2)],
        Kind.RESIZE, 0, 3 * 5 * 6),
    Row("pixel_shuffle", nn.PixelShuffle(2), [t(1, 8, 4, 4)], Kind.DATA, 0, 0, traffic=2 * 4 * 8 * 4 * 4),
    Row("pixel_unshuffle", nn.PixelUnshuffle(2), [t(1, 2, 8, 8)], Kind.DATA, 0, 0, traffic=2 * 4 * 8 * 4 * 4),
    Row("softmax", nn.Softmax(-1), [t(2, 5)], Kind.SOFTMAX, 0, 2 * 5),
    Row("fft", torch.fft.fft, [t(4, 8, dtype=c64)], Kind.FFT, 0, 4 * 5 * 8 * 3, traffic=2 * 8 * 4 * 8),
    Row("fft of real values", torch.fft.fft, [t(4, 8)], Kind.FFT, 0, 4 * 5 * 8 * 3 // 2, traffic=(4 + 8) * 4 * 8),
    Row("rfft2", torch.fft.rfft2, [t(2, 8, 16)], Kind.FFT, 0, 2 * 5 * 8 * 16 * (3 + 4) // 2,
        traffic=4 * 2 * 8 * 16 + 8 * 2 * 8 * 9),
    Row("irfft2", torch.fft.irfft2, [t(2, 8, 9, dtype=c64)], Kind.FFT, 0, 2 * 5 * 8 * 16 * (3 + 4) // 2),
    Row("fft of five real values", torch.fft.fft, [t(5)], Kind.FFT, 0, 38),  # half of 5 · 5 · 3, rounded up
    Row("fft of a length that is no power of two", torch.fft.fft, [t(6, dtype=c64)], Kind.FFT, 0, 5 * 6 * 3),
]  # fmt: skip

TABLE = [*CONVOLUTIONS, *PRODUCTS, *FACTORIZATIONS, *ATTENTION, *RECURRENT, *WITHOUT_MACS]


def macs_by_torch(row: Row) -> int:
    """MACs by torch's counter, on the row's first device."""
    device = row.on[0]
    module = copy.deepcopy(row.model) if isinstance(row.model, nn.Module) else Function(row.model)
    if device == "meta":
        module.to_empty(device="meta")
    tensors = [torch.zeros(s.shape, dtype=getattr(torch, s.dtype), device=device) for s in row.inputs]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module.eval()(*tensors)
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
def test_cost_equals_the_arithmetic_by_hand_and_torchs_counter(row: Row) -> None:
    for device in row.on:
        p = checked_trace(row.model, row.inputs, device)
        assert p.uncounted == {}
        assert p.total("macs") == row.macs
        of_kind = [op for op in p.ops if op.kind is row.kind]
        assert of_kind
        if row.elementwise is not None:
            assert sum(op.elementwise for op in of_kind) == row.elementwise
        if row.traffic is not None:
            assert p.total("traffic_bytes") == row.traffic
    if row.oracle:
        assert macs_by_torch(row) == row.macs


def test_names_of_rows_are_unique() -> None:
    assert len({row.name for row in TABLE}) == len(TABLE)


def test_deformable_convolution() -> None:
    ops = pytest.importorskip("torchvision", reason="the extra torchvision is not installed").ops
    layer = ops.DeformConv2d(4, 6, 3, stride=2, groups=2)
    p = checked_trace(layer, [t(1, 4, 9, 9), t(1, 2 * 9, 4, 4)])
    assert p.total("macs") == 3 * 3 * 2 * 6 * 4 * 4
    assert [(op.attrs["stride"], op.attrs["groups"]) for op in p.ops if op.macs] == [((2, 2), 2)]


# -- operations that cannot be counted ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("linalg_qr", lambda x: torch.linalg.qr(x)[0]),
        ("_linalg_svd", torch.linalg.svdvals),
        ("_linalg_eigh", torch.linalg.eigvalsh),
        ("linalg_matrix_exp", torch.linalg.matrix_exp),
    ],
)
def test_an_operation_whose_cost_depends_on_values_is_unknown(name: str, function: Any) -> None:
    assert checked_trace(function, [t(4, 4)]).uncounted == {f"aten.{name}": 1}


def attend_packed(kernel: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Attention over sequences that lie one behind the other, by one of torch's operators."""
    if kernel == "_varlen_attn":
        return torch.nn.attention.varlen.varlen_attn(q, k, v, ends, ends, 64, 64)
    if kernel == "_efficient_attention_forward":
        return aten._efficient_attention_forward(q[None], k[None], v[None], None, ends, ends, 64, 64, 0.0, 0)[0]
    return aten._flash_attention_forward(q, k, v, ends, ends, 64, 64, 0.0, False, False)[0]


@pytest.mark.parametrize("offsets", [torch.int32, torch.int64])
@pytest.mark.parametrize(
    "kernel",
    ["_flash_attention_forward", "_efficient_attention_forward", "_varlen_attn"],
)
def test_attention_over_packed_sequences_counts_their_lengths_if_they_are_known(
    kernel: str, offsets: torch.dtype
) -> None:
    """Sequences of 64 and 36 tokens: 2·4·8·(64² + 36²) MACs. Twice the longest would be 1.5 times as many."""
    if kernel == "_varlen_attn":
        pytest.importorskip("torch.nn.attention.varlen")
    qkv = t(100, 4, 8, dtype="float16")
    known = trace(
        Function(lambda q, k, v: attend_packed(kernel, q, k, v, torch.tensor([0, 64, 100], dtype=offsets))), [qkv] * 3
    )
    assert (known.total("macs"), known.uncounted) == (2 * 4 * 8 * (64**2 + 36**2), {})
    again = trace(
        Function(lambda q, k, v: attend_packed(kernel, q, k, v, torch.tensor([0, 1, 100], dtype=offsets))), [qkv] * 3
    )
    assert again.total("macs") == 2 * 4 * 8 * (1 + 99**2)

    unknown = trace(
        Function(lambda q, k, v, ends: attend_packed(kernel, q, k, v, ends)), [*[qkv] * 3, t(3, dtype=str(offsets)[6:])]
    )
    assert list(unknown.uncounted) == [f"{'torch_attn' if kernel == '_varlen_attn' else 'aten'}.{kernel}"]
    assert unknown.total("macs") == 0
    assert "depends on the values of cu" in unknown.notes[0]
    assert unknown.total("flop_counter") in (None, 0)  # torch's counter takes every sequence as long as the longest


def test_keys_of_packed_attention_that_are_not_used_do_not_count() -> None:
    def forward(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        ends, used = torch.tensor([0, 4, 6]), torch.tensor([10, 3], dtype=torch.int32)
        return aten._flash_attention_forward(q, k, k, ends, None, 4, 16, 0.0, False, False, seqused_k=used)[0]

    p = trace(Function(forward), [t(6, 4, 8, dtype="float16"), t(32, 4, 8, dtype="float16")])
    assert p.total("macs") == 2 * 4 * 8 * (4 * 10 + 2 * 3)


def test_gradients_of_packed_attention_count_the_lengths() -> None:
    """Five products for each pair of a query and a key, after two in the forward."""

    def forward(q: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            q = q.requires_grad_()
            out = attend_packed("_flash_attention_forward", q, q, q, torch.tensor([0, 64, 100]))
            return torch.autograd.grad(out.sum(), q)[0]

    p = trace(Function(forward), [t(100, 4, 8, dtype="float16")])
    assert p.total("macs") == 7 * 4 * 8 * (64**2 + 36**2)


def test_a_product_of_groups_with_unknown_offsets_is_unknown() -> None:
    product = Function(lambda a, b, ends: torch._grouped_mm(a, b, offs=ends))
    factors = [torch.zeros(16, 32, dtype=bf16), torch.zeros(3, 32, 64, dtype=bf16)]
    ends = torch.tensor([2, 5, 9], dtype=torch.int32)
    assert trace(product, [*factors, ends], device="cpu").total("macs") == 9 * 32 * 64
    for device, last in (("meta", ends), ("cpu", t(3, dtype="int32"))):  # zeros that a trace makes are no offsets
        p = trace(product, [*factors, last], device=device)
        assert (p.uncounted, p.total("macs")) == ({"aten._grouped_mm": 1}, 0)
        assert "depends on the values of offs" in p.notes[0]


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_products_with_sparse_inputs_are_unknown(layout: torch.layout) -> None:
    eye = torch.eye(4).to_sparse(layout=layout)
    product = Function(lambda a, b: (a @ b).relu())
    dense = torch.eye(1).expand(4, 4)  # strides of 0, which some sparse tensors report too
    assert trace(product, [dense, t(4, 5)], device="cpu").total("macs") == 4 * 4 * 5
    p = trace(product, [eye, t(4, 5)], device="cpu")
    assert (p.uncounted, p.total("macs")) == ({"aten.matmul": 1}, 0)
    with pytest.raises(TraceError, match="cannot be traced without values") as error:
        trace(product, [eye, t(4, 5)])
    assert "--device cpu" in str(error.value)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_products_with_sparse_weights_are_unknown(layout: torch.layout) -> None:
    class Product(nn.Module):
        def __init__(self, weight: torch.Tensor) -> None:
            super().__init__()
            self.weight = nn.Parameter(weight, requires_grad=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight @ x

    assert trace(Product(torch.eye(1).expand(4, 4)), (4, 5), device="cpu").total("macs") == 4 * 4 * 5
    p = trace(Product(torch.eye(4).to_sparse(layout=layout)), (4, 5), device="cpu")
    assert (p.uncounted, p.total("macs")) == ({"aten.matmul": 1}, 0)


def test_operations_on_a_jagged_tensor_are_those_on_its_values() -> None:
    def project(x: torch.Tensor) -> torch.Tensor:
        pieces = torch.nested.nested_tensor([x[0, :2], x[1, :3]], layout=torch.jagged)
        return F.linear(pieces, torch.ones(4, 8))

    assert checked_trace(project, [t(2, 5, 8)], "meta").total("macs") == (2 + 3) * 8 * 4


@pytest.mark.parametrize("attends", [False, True])
def test_a_nested_tensor_of_another_layout_is_refused_with_a_hint_that_works(attends: bool) -> None:
    def project(x: torch.Tensor, **layout: Any) -> torch.Tensor:
        pieces = torch.nested.nested_tensor([x[0, :2], x[1, :3]], **layout)
        if not attends:
            return F.linear(pieces, torch.ones(4, 8))
        heads = pieces.unflatten(-1, (2, 4)).transpose(1, 2)
        return F.scaled_dot_product_attention(heads, heads, heads)

    with pytest.raises(TraceError, match="nested tensor has no single shape") as raised:
        trace(Function(project), (2, 5, 8), device=None)
    assert raised.value.hint is not None
    assert "layout=torch.jagged" in raised.value.hint
    p = trace(Function(partial(project, layout=torch.jagged)), (2, 5, 8), device=None)
    assert p.total("macs") == (2 * (2 * 2 + 3 * 3) * 8 if attends else (2 + 3) * 8 * 4)
    assert p.complete


@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_jagged_tensors_is_counted_by_the_length_of_each_sequence(causal: bool) -> None:
    class Attention(nn.Module):
        """Queries of lengths 3 and 2 attend to keys of lengths 4 and 5, with two heads of two channels."""

        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pieces = torch.nested.as_nested_tensor([x[0, :3], x[1, :2]], layout=torch.jagged)
            context = torch.nested.as_nested_tensor([x[0, :4], x[1, :5]], layout=torch.jagged)
            query, key = (t.unflatten(-1, (2, 2)).transpose(1, 2) for t in (pieces, context))
            y = F.scaled_dot_product_attention(query, key, key, is_causal=causal)
            result = (pieces + self.out(y.transpose(1, 2).flatten(-2))).values()
            results.append(result.detach())
            return result

    results: list[torch.Tensor] = []
    model, x = Attention(), torch.randn(2, 5, 4)
    p = trace(model, x, device=None)
    assert p.complete
    assert p.total("macs") == 2 * (3 * 4 + 2 * 5) * 2 * 2 + (3 + 2) * 4 * 4
    if not causal:  # bare, torch needs a CUDA driver to choose how to compute it
        torch.testing.assert_close(results[-1], model(x))


def test_a_higher_order_operator_runs_the_function_that_is_taken() -> None:
    def either(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, torch.relu, torch.tanh, (x,))

    assert op_names(checked_trace(either, [torch.ones(4)], "cpu"))[-1] == "relu"
    assert op_names(checked_trace(either, [-torch.ones(4)], "cpu"))[-1] == "tanh"


@pytest.mark.parametrize("device", META + CPU)
@pytest.mark.parametrize(
    "function",
    [
        torch._is_all_true,
        torch._is_any_true,
        lambda x: x + torch._efficientzerotensor((2, 4), device=x.device),
        lambda x: torch.ops.prims.add(x, x),
        lambda x: torch.ops.prims.sum(torch.ops.prims.sin(x), [0]),
        lambda x: torch.ops.prims.convert_element_type(x, torch.float64),
        lambda x: x.clone().eq_(0).abs_().copysign_(x),
        lambda x: torch.poisson(x.abs()) + torch._standard_gamma(x.abs() + 1),
    ],
)
def test_queries_and_primitives_of_torch_have_no_macs(function: Any, device: str) -> None:
    p = checked_trace(function, [torch.ones(2, 4, dtype=torch.bool if "_true" in str(function) else None)], device)
    assert (p.total("macs"), p.uncounted) == (0, {})


# -- quantized layers -----------------------------------------------------------------------------


class Quantizable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from torch.ao.quantization import DeQuantStub, QuantStub

        self.quantize, self.dequantize = QuantStub(), DeQuantStub()
        self.conv, self.relu = nn.Conv2d(3, 8, 3), nn.ReLU()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.linear = nn.Linear(16, 4)
        self.glue = torch.ao.nn.quantized.FloatFunctional()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv(self.quantize(x)))
        x = self.glue.add(self.depthwise(x), x)
        x = F.adaptive_avg_pool2d(self.glue.cat([x, x], 1), 1)
        return self.dequantize(self.linear(x.flatten(1)))


@pytest.fixture(scope="module")
def quantized() -> nn.Module:
    from torch.ao.quantization import convert, fuse_modules, get_default_qconfig, prepare

    if "x86" not in torch.backends.quantized.supported_engines:
        pytest.skip("torch was built without quantized kernels for this machine")
    model = Quantizable().eval()
    model.qconfig = get_default_qconfig("x86")
    fuse_modules(model, [["conv", "relu"]], inplace=True)
    prepare(model, inplace=True)(torch.randn(2, 3, 8, 8))
    return convert(model)


def test_quantized_layers_are_counted_with_weights_of_one_byte(quantized: nn.Module) -> None:
    p = checked_trace(quantized, [t(2, 3, 8, 8)], "cpu")
    assert p.uncounted == {}
    assert [(op.target, op.kind, op.macs) for op in p.ops if op.macs] == [
        ("quantized.conv2d_relu", Kind.CONV, 3 * 3 * 3 * 8 * 2 * 6 * 6),
        ("quantized.conv2d", Kind.CONV, 3 * 3 * 8 * 2 * 6 * 6),
        ("quantized.linear", Kind.LINEAR, 2 * 16 * 4),
    ]
    assert p.total("cio_bytes") == (2 * 3 * 64 + 2 * 8 * 36) + 2 * (2 * 8 * 36)
    assert p.total("conv_weights") == 27 * 8 + 9 * 8 + 16 * 4
    assert p.total("params") == 27 * 8 + 8 + 9 * 8 + 8 + 16 * 4 + 4
    conv = next(op for op in p.ops if op.macs)
    assert [w.dtype for w in conv.weights] == ["qint8", "float32"]
    assert (conv.attrs["kernel"], conv.attrs["groups"]) == ((3, 3), 1)


def test_quantized_embeddings_read_the_bytes_of_their_rows() -> None:
    """Three rows of four bytes of a table of ten."""
    table = torch.ao.nn.quantized.Embedding(10, 4)
    (lookup,) = checked_trace(lambda i: table(i.flatten()), [t(1, 3, dtype="int64")], "cpu").ops[-1:]
    assert (lookup.kind, lookup.attrs["bytes_read"]) == (Kind.EMBEDDING, 3 * 4)
    bag = torch.ao.nn.quantized.EmbeddingBag(10, 4)
    (lookup,) = checked_trace(lambda i: bag(i), [t(2, 3, dtype="int64")], "cpu").ops[-1:]
    assert (lookup.attrs["bytes_read"], lookup.elementwise) == (2 * 3 * 4, 2 * 3 * 4)


def test_the_weights_of_a_quantized_layer_that_is_called_twice_count_once(quantized: nn.Module) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = quantized

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x) + self.net(x)

    once, twice = checked_trace(quantized, [t(2, 3, 8, 8)], "cpu"), checked_trace(Twice(), [t(2, 3, 8, 8)], "cpu")
    assert twice.total("macs") == 2 * once.total("macs")
    assert twice.total("conv_weights") == once.total("conv_weights")
    for p in (once, twice):
        assert sum(row.params for row in layer_rows(p)) == p.params == once.params > 0


@pytest.mark.parametrize(
    ("layer", "shape", "target", "macs", "weights"),
    [
        (nn.Linear(8, 4), (2, 8), "quantized.linear_dynamic", 2 * 8 * 4, 8 * 4),
        (nn.LSTM(8, 4), (3, 2, 8), "aten.quantized_lstm", 3 * 2 * 16 * (8 + 4), 16 * (8 + 4)),
        (nn.GRU(8, 4), (3, 2, 8), "aten.quantized_gru", 3 * 2 * 12 * (8 + 4), 12 * (8 + 4)),
        (nn.GRUCell(8, 4), (2, 8), "quantized.quantized_gru_cell_dynamic", 2 * 12 * (8 + 4), 12 * (8 + 4)),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_dynamically_quantized_layers(
    layer: nn.Module, shape: tuple[int, ...], target: str, macs: int, weights: int
) -> None:
    from torch.ao.quantization import quantize_dynamic

    if torch.backends.quantized.engine == "none":
        pytest.skip("torch was built without quantized kernels for this machine")
    model = quantize_dynamic(nn.Sequential(layer).eval(), {type(layer)}, dtype=torch.qint8)
    p = checked_trace(model, [t(*shape)], "cpu")
    assert [(op.target, op.macs) for op in p.ops if op.macs] == [(target, macs)]
    assert p.total("conv_weights") == weights
    assert p.uncounted == {}
    assert sum(row.params for row in layer_rows(p)) == p.params > weights
    assert model_notes(p) == []


# -- torch's own database of operations -----------------------------------------------------------

ITERATIVE = "the number of iterations depends on the values"
REFLECTIONS = "the library chooses the block size of Householder reflections"
PIVOTS = "the size of each pivot, one or two, depends on the values"
SPARSE = "the number of stored elements depends on the values"

UNCOUNTED = {
    "_linalg_eigh": ITERATIVE, "_linalg_svd": ITERATIVE, "linalg_eig": ITERATIVE, "linalg_pinv": ITERATIVE,
    "linalg_matrix_exp": ITERATIVE, "linalg_matrix_sqrth": ITERATIVE, "linalg_polar": ITERATIVE,
    "linalg_qr": REFLECTIONS, "geqrf": REFLECTIONS, "ormqr": REFLECTIONS, "linalg_lstsq": REFLECTIONS,
    "linalg_householder_product": REFLECTIONS,
    "linalg_ldl_factor_ex": PIVOTS, "linalg_ldl_solve": PIVOTS,
    "cholesky_inverse": "no layer uses it",
    "_to_sparse": SPARSE, "_sparse_mm_reduce_impl": SPARSE, "sparse_sampled_addmm": SPARSE,
}  # fmt: skip
"""Operations without a rule, with the reason."""

FAILS_IN_TORCH = ("jiterator", "as_strided.partial_views")
"""Entries that plain torch cannot run on a CPU: kernels for GPUs, and a view beyond the tensor that is passed."""

NO_FORMULA = {
    "mv", "dot", "vdot", "addmv", "outer", "ger", "addr", "addbmm", "bilinear", "_euclidean_dist", "_cdist_forward",
    "_pdist_forward", "_scaled_mm_v2", "linalg_cholesky_ex", "linalg_lu", "linalg_lu_factor_ex", "linalg_lu_solve",
    "linalg_inv_ex", "linalg_solve_triangular", "_linalg_solve_ex", "_linalg_det", "_linalg_slogdet",
    "triangular_solve", "cholesky_solve", "_linear_cross_entropy_batch_chunked",
    "_linear_cross_entropy_batch_chunked_no_reduction",
}  # fmt: skip
"""Operations that torch's counter ignores."""


class Sample(nn.Module):
    """A sample call of torch's database as a module; its tensors are the inputs."""

    def __init__(self, function: Callable[..., Any], sample: Any) -> None:
        super().__init__()
        from torch.utils import _pytree as tree

        self.function = function
        self.unflatten = tree.tree_unflatten
        self.leaves, self.structure = tree.tree_flatten(((sample.input, *sample.args), sample.kwargs))
        self.positions = [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, torch.Tensor)]

    def forward(self, *tensors: torch.Tensor) -> Any:
        leaves = list(self.leaves)
        for i, tensor in zip(self.positions, tensors, strict=True):
            leaves[i] = tensor
        args, kwargs = self.unflatten(leaves, self.structure)
        return self.function(*args, **kwargs)

    def tensors(self) -> list[torch.Tensor]:
        return [self.leaves[i].clone() for i in self.positions]


def samples(entry: Any, limit: int = 2) -> list[Any]:
    """The first sample inputs of an entry of the database; none for an entry of another device."""
    dtypes = entry.supported_dtypes("cpu")
    dtype = next((d for d in (torch.float32, torch.int64, torch.bool, torch.complex64) if d in dtypes), None)
    if dtype is None:
        return []
    try:
        return list(islice(entry.sample_inputs("cpu", dtype), limit))
    except StopIteration:
        return []


@pytest.mark.slow
@pytest.mark.parametrize("device", META + CPU)
@pytest.mark.filterwarnings("ignore")
def test_every_operation_of_torchs_database_is_counted_or_has_a_reason(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("expecttest", reason="torch.testing._internal needs expecttest")
    from torch.testing._internal import common_utils
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.opinfo import core

    for module in (common_utils, core):  # it searches the whole stack of pytest for a TestCase, for each sample
        monkeypatch.setattr(module, "extract_test_fn", lambda: None)
    done, wrong = 0, {}
    for entry in op_db:
        name = f"{entry.name}.{entry.variant_test_name}".rstrip(".")
        for sample in samples(entry):
            call = Sample(entry.op, sample)
            try:
                p = trace(call, call.tensors(), device=device)
            except TraceError as error:
                if not name.startswith(FAILS_IN_TORCH) and not (device == "meta" and "--device cpu" in str(error)):
                    wrong[name] = str(error)
                continue
            p.self_check()
            done += 1
            if unknown := {u.removeprefix("aten.") for u in p.uncounted} - UNCOUNTED.keys():
                wrong[name] = f"no rule for {unknown}"
            elif not agrees_with_torch(call, p, device):
                wrong[name] = f"torch's counter disagrees with {p.total('macs')} MACs"
    assert wrong == {}
    assert done > 1000


class Gradient(nn.Module):
    """The gradient of a sample call for all its floating inputs."""

    def __init__(self, call: Sample) -> None:
        super().__init__()
        self.call = call

    def forward(self, *tensors: torch.Tensor) -> Any:
        from torch.utils import _pytree as tree

        with torch.enable_grad():
            inputs = [x.detach().requires_grad_(x.is_floating_point() or x.is_complex()) for x in tensors]
            outputs = [x for x in tree.tree_leaves(self.call(*inputs)) if getattr(x, "requires_grad", False)]
            total = sum((x.abs().sum() for x in outputs), torch.zeros((), requires_grad=True))
            return torch.autograd.grad(total, [x for x in inputs if x.requires_grad], allow_unused=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_gradient_of_torchs_database_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("expecttest", reason="torch.testing._internal needs expecttest")
    from torch.testing._internal import common_utils
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.opinfo import core

    for module in (common_utils, core):
        monkeypatch.setattr(module, "extract_test_fn", lambda: None)
    done, wrong = 0, {}
    for entry in op_db:
        differentiable = entry.supports_autograd and "sparse" not in entry.name
        for sample in samples(entry, 1) if differentiable else ():
            gradient = Gradient(Sample(entry.op, sample))
            try:
                gradient(*gradient.call.tensors())
            except RuntimeError:  # an input that torch cannot differentiate for
                continue
            p = trace(gradient, gradient.call.tensors(), device="cpu")
            done += 1
            unknown = {u.removeprefix("aten.") for u in p.uncounted} - UNCOUNTED.keys()
            if unknown:
                wrong[entry.name] = unknown
    assert wrong == {}
    assert done > 450


def agrees_with_torch(call: Sample, p: Profile, device: str) -> bool:
    """Whether torch's counter has the same MACs for all operations that it has formulas for.

    It may have no formula for products with vectors, and in some releases for the attention kernel of the CPU.
    """
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            call(*(x.to(device) for x in call.tensors()))
    except (NotImplementedError, RuntimeError):
        return True  # a trace has values of constants, plain torch on meta has not
    ours = sum(op.macs for op in p.ops if op.macs and op.spec.name not in NO_FORMULA)
    vectors = any(len(x.shape) < 2 for op in p.ops if op.macs for x in (*op.reads, *op.weights)[:2])
    unseen = not CPU_ATTENTION_HAS_A_FORMULA and all(op.kind is Kind.ATTENTION for op in p.ops if op.macs)
    return counter.get_total_flops() == 2 * ours or ((vectors or unseen) and counter.get_total_flops() == 0)
