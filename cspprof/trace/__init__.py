"""From a module and its inputs to a `Record`: one forward pass, observed by forward hooks and a dispatch mode.

How an operation becomes a call in the record:

`fallbacks.trace` calls `run.trace_once`, and again with gradients or on a real device if the forward needs them.

The rooms below know nothing of a trace. `modules` lists the modules of a model, prepares the copy that runs and makes
its inputs; `operands` describes tensors, arguments and schemas; `isolation` keeps the model, torch and the process as
they are; `diagnosis` explains a failure; `ops` has the rules.

1. `run.trace_once` prepares the model and its inputs, and sets the hooks and the recorder.
2. During the forward, the hooks tell the recorder which module runs.
3. `dispatch.DispatchRecorder` receives every operation. Its `tensor_registry` tags each tensor with its storage and its
   shape, strides and dtype. It looks the operation up in `op_cache`.
4. A new operation is bound to its schema. Its outputs come from an output rule of `ops`, or from torch (`execute`).
   `op_entries` asks the cost rule of `ops` and makes the `OpSpec`.
5. The call is logged: spec, layer, storages. At the end the log becomes the columns of the `Record`, with the table of
   layers and `notes`.
"""

from cspprof.trace.fallbacks import trace, trace_with_values

__all__ = ["trace", "trace_with_values"]
