"""What an operation costs, and what its output looks like: one file per family of operations.

To add an operation, decorate one function with `op_rule`: it returns the cost as `Facts`.

>>> import cspprof
>>> @cspprof.op_rule("mylib.fused_conv")
... def fused_conv(x, weight, *, out):
...     return cspprof.Facts("conv", macs=weight.numel // weight.shape[0] * out.numel)

An operation is counted by its rule, ignored on purpose (a rule with zero MACs, or a view), or unknown. An unknown
operation is reported; it never counts as zero.

A `backward_rule` beside it says what the backward pass of the operation computes, and what autograd keeps for it.

A common operation also has an `output_rule`, which gives shape, strides and dtype of its output without torch's meta
kernel. Those kernels take most of the time of a plain forward on meta, and the first ones import hundreds of modules.
Without this rule torch computes the output.
"""

from cspprof.ops import (
    attention,
    communication,
    convolution,
    data,
    fourier,
    gradients,
    indexing,
    linalg,
    matrix,
    normalization,
    pointwise,
    pooling,
    prims,
    recurrent,
    reduction,
    resize,
)
from cspprof.ops.op_rules import (
    BACKWARD_RULES,
    NO_GRADIENT,
    OUTPUT_RULES,
    PASSES_ON,
    RULES,
    VALUE_ARGUMENTS,
    BackwardRule,
    Facts,
    Operand,
    OutputRule,
    PackedWeights,
    Rule,
    backward_rule,
    op_rule,
    output_rule,
)

__all__ = [
    "BACKWARD_RULES",
    "NO_GRADIENT",
    "OUTPUT_RULES",
    "PASSES_ON",
    "RULES",
    "VALUE_ARGUMENTS",
    "BackwardRule",
    "Facts",
    "Operand",
    "OutputRule",
    "PackedWeights",
    "Rule",
    "attention",
    "backward_rule",
    "communication",
    "convolution",
    "data",
    "fourier",
    "gradients",
    "indexing",
    "linalg",
    "matrix",
    "normalization",
    "op_rule",
    "output_rule",
    "pointwise",
    "pooling",
    "prims",
    "recurrent",
    "reduction",
    "resize",
]
