"""Fourier transforms: no MACs; `formulas.fft_operations` defines their scalar operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cspprof.core import formulas as f
from cspprof.core.kinds import Kind
from cspprof.ops.op_rules import Facts, Spec, op_rule


@op_rule("aten._fft_c2c")
def complex_transform(input: Spec, dim: Sequence[int], *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return Facts(Kind.FFT, elementwise=f.fft_operations(input.numel, [input.shape[d] for d in dim]))


def _real_transform(real: Spec, dim: Sequence[int]) -> Facts:
    """Half of the operations of a complex transform."""
    return Facts(Kind.FFT, elementwise=(f.fft_operations(real.numel, [real.shape[d] for d in dim]) + 1) // 2)


@op_rule("aten._fft_r2c")
def from_real(input: Spec, dim: Sequence[int], *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return _real_transform(input, dim)


@op_rule("aten._fft_c2r")
def to_real(input: Spec, dim: Sequence[int], *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return _real_transform(out, dim)
