"""A model before it runs, for a trace, for other counters and for measuring.

| file | what it does |
| --- | --- |
| `module_tree` | lists the modules of a model with their paths, parameters and buffers; makes the table of layers |
| `prepared_model` | makes the copy that runs: its mode, eager, weights on the device and in the dtype of the run |
| `module_hooks` | tells which module runs, by forward hooks on the copy |
| `input_tensors` | makes the tensors with which the forward is called |
"""
