"""Recurrent layers: one product with each weight matrix for each step of each sequence; gates are scalar operations."""

from __future__ import annotations

from math import prod
from typing import Any

from cspprof.core.backward import Backward
from cspprof.core.kinds import Kind
from cspprof.core.tensors import TensorSpec
from cspprof.ops.op_rules import Facts, Operand, PackedWeights, Spec, backward, backward_rule, op_rule


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


@backward_rule("aten.lstm", "aten.gru", "aten.rnn_tanh", "aten.rnn_relu")
def recurrent_gradients(input: Operand, hx: Any, params: Any, *args: Any, out: Operand) -> Backward:
    """Each matrix gives at every step a gradient for itself and one for what it multiplies, except the input of the
    first layer and the first states, if these require none. What autograd keeps depends on the kernel and is
    unknown."""
    if isinstance(hx, Operand) and hx.meta.dtype == "int64":  # packed: batch sizes, states, parameters
        hx, params, args = params, args[0], args[1:]
    states = [hx] if isinstance(hx, Operand) else list(hx)
    layers = args[1]
    matrices = [p for p in params if len(p.shape) == 2]
    steps, first_steps = prod(input.shape[:-1]), states[0].shape[-2] if len(states[0].shape) > 2 else 1
    per_layer = len(matrices) // layers
    per_direction = 2 + _projects(matrices)
    products: list[tuple[int, Any]] = []
    for i, matrix in enumerate(matrices):
        products.append((matrix.numel * steps, matrix))
        place = i % per_direction
        if place == 0:
            products.append((matrix.numel * steps, input if i < per_layer else (input, *params)))
        elif place == 1:
            products.append((matrix.numel * (steps - first_steps), (input, *params)))
            products.append((matrix.numel * first_steps, states[0]))
        else:
            products.append((matrix.numel * steps, (input, *params)))
    return backward(products=products)._replace(saves=None)


def _projects(matrices: list[Operand]) -> bool:
    """Whether each direction of an LSTM has a third matrix, which projects the output to the size that the second one
    reads. The second one has a row for each of four gates."""
    if len(matrices) % 3:
        return False
    _, states, third = (m.shape for m in matrices[:3])
    return third[0] == states[1] and 4 * third[1] == states[0]
