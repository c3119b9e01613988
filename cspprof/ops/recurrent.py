"""Recurrent layers: one product with each weight matrix for each step of each sequence; gates are scalar operations."""

from __future__ import annotations

from math import prod
from typing import Any

from cspprof.core.kinds import Kind
from cspprof.core.tensors import TensorSpec
from cspprof.ops.op_rules import Facts, PackedWeights, Spec, op_rule


def _matrices(params: Any) -> list[Spec]:
    """The weight matrices among the parameters, including projections of the output (`proj_size`)."""
    tensors = [t for p in params for t in (p.tensors if isinstance(p, PackedWeights) else [p])]
    return [t for t in tensors if len(t.shape) == 2]


def _facts(weights: list[Spec], steps: int) -> Facts:
    """One scalar operation for each row and step: the row yields one element of a gate or of a projection."""
    rows = sum(w.shape[0] for w in weights)
    return Facts(Kind.RECURRENT, sum(w.numel for w in weights) * steps, elementwise=rows * steps)


@op_rule("aten.lstm", "aten.gru", "aten.rnn_tanh", "aten.rnn_relu", "aten.quantized_lstm", "aten.quantized_gru")
def recurrent(input: Spec, hx: Any, params: Any, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """In a padded batch every sequence counts with the length of the longest. A packed batch, (steps of all sequences,
    c) with the int64 batch sizes as second argument, counts only its own steps."""
    if isinstance(hx, TensorSpec) and hx.dtype == "int64":
        params = args[0]
    return _facts(_matrices(params), prod(input.shape[:-1]))


@op_rule(*(f"quantized.quantized_{cell}_cell_dynamic" for cell in ("lstm", "gru", "rnn_tanh", "rnn_relu")))
def quantized_cell(input: Spec, hx: Any, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return _facts(_matrices(a for a in args if isinstance(a, PackedWeights)), prod(input.shape[:-1]))


@op_rule("aten.mkldnn_rnn_layer")
def recurrent_layer(input: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """One layer and direction, as torch runs it on a CPU with gradients; the last of its outputs is workspace."""
    weights = [a for a in args[:4] if isinstance(a, TensorSpec) and len(a.shape) == 2]
    return _facts(weights, prod(input.shape[:-1]))._replace(outputs=3)
