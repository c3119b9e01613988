"""The receptive field of each layer: which part of the input an element of its output depends on.

`propagation.receptive_fields` follows the tensors of a record from the input to the outputs. `operations` says what
each operation reads, `windows` and `views` in detail;
`field` has the arithmetic of tensors, `intervals` that of one axis.
"""

from cspprof.analysis.receptive_field.propagation import Branch, LayerField, input_axes, receptive_fields

__all__ = ["Branch", "LayerField", "input_axes", "receptive_fields"]
