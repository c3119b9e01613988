"""Descriptions of what torch's operations receive and return: tensors, nested arguments, schemas of operators.

| file | what it tells |
| --- | --- |
| `tensor_meta` | shape, strides and dtype of a tensor, and the tag that a trace gives to it |
| `tensor_subclasses` | the tensors inside of wrappers: jagged, quantized, sharded, fake |
| `quantized_weights` | the tensors that a quantized layer packs into an object of C++ |
| `pytree` | the tensors in nested arguments and results |
| `operators` | the schema of an operator: names of its arguments, what it writes, whether it returns views |
| `bound_args` | the arguments of a call by the names of its schema: activations, weights, numbers |
| `aliasing` | whether an output is new memory, a view, or an argument itself |

Nothing in this room records or runs anything.
"""
