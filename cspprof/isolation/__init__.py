"""A trace leaves the model, the user's tensors, torch and the process as they were, also if it is interrupted.

| what a forward may change | what keeps it |
| --- | --- |
| modules and what they hold | the forward runs a copy of them, in which each tensor is replaced (`model_copy`) |
| values of tensors on a real device | a private copy of the memory before the first write into it (`user_memory`) |
| modes, gradients, autocast, the default device | they are read before the forward and restored (`torch_state`) |
| other settings of torch and Python, random generators | the same, unless another thread ran (`process_state`) |
| random numbers that other threads draw | private generators, where torch allows it (`random_numbers`) |

Python's garbage collector pauses meanwhile (`collection`). Nothing in this room records anything.
"""
