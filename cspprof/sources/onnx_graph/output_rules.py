"""Output shapes of standard ONNX operators that the library `onnx` does not infer.

These are operators defined by a function of others, and the first versions of old operators, which broadcast by
attributes. To add one, decorate one function with `output_rule`: it takes an `OnnxNode` and returns the outputs.
"""

from __future__ import annotations

from collections.abc import Callable

from cspprof.core import formulas as f
from cspprof.core.registry import Registry
from cspprof.core.tensors import TensorSpec
from cspprof.sources.onnx_graph.operators import OnnxNode

OnnxOutputRule = Callable[[OnnxNode], list[TensorSpec]]
OUTPUT_RULES: Registry[OnnxOutputRule] = Registry("ONNX output rule")


def output_rule(*operators: str) -> Callable[[OnnxOutputRule], OnnxOutputRule]:
    """Register the output rule of these operators. An output that it does not return is unknown."""

    def register(rule: OnnxOutputRule) -> OnnxOutputRule:
        for operator in operators:
            OUTPUT_RULES.add(operator, rule)
        return rule

    return register


@output_rule("GroupNormalization", "MeanVarianceNormalization", "InstanceNormalization")
def like_input(node: OnnxNode) -> list[TensorSpec]:
    return [node[0]]


@output_rule("GreaterOrEqual", "LessOrEqual")
def comparison(node: OnnxNode) -> list[TensorSpec]:
    return [TensorSpec(f.broadcast(node[0].shape, node[1].shape), "bool")]
