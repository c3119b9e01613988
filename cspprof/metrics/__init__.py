"""Metrics: each is one function, registered once. It is then a column, a sort key, a budget and an `explain` page.

>>> from cspprof import metric
>>> @metric("relu_elements", unit="elements", is_not="time spent in activations")
... def relu_elements(op):
...     '''Elements that ReLU layers write.'''
...     return op.writes[0].numel if op.name in ("relu", "relu_") else 0

A metric of operations is computed from each `OpSpec` and combined over the calls. A metric of the whole model is
computed from the `Record`. How two values combine belongs to the value: a `Sum` adds, a `Peak` takes the maximum, and
a `Ratio` adds numerators and denominators before it divides.
"""

# The order of these imports is the order in which metrics are listed.
from cspprof.metrics import compute, weights, traffic, memory  # isort: skip
from cspprof.metrics import training, training_memory, operation_counters, module_counters  # isort: skip
from cspprof.metrics.amounts import Amount, Peak, Ratio, Sum
from cspprof.metrics.definition import (
    CONVENTIONS,
    HIGHER_IS_BETTER,
    METRICS,
    NEITHER_IS_BETTER,
    Metric,
    Number,
    Unit,
    lower_bounds,
    metric,
    value_of,
)

__all__ = [
    "CONVENTIONS",
    "HIGHER_IS_BETTER",
    "METRICS",
    "NEITHER_IS_BETTER",
    "Amount",
    "Metric",
    "Number",
    "Peak",
    "Ratio",
    "Sum",
    "Unit",
    "compute",
    "lower_bounds",
    "memory",
    "metric",
    "module_counters",
    "operation_counters",
    "traffic",
    "training",
    "training_memory",
    "value_of",
    "weights",
]
