"""Prediction of latency: what a machine was measured to do, and a linear model of it.

`kernels` turns a record into the kernels that an engine runs, with the amounts of work in each. `fit` finds the time of
each unit of work from networks whose times are known. `session` measures such networks on this machine, and
`calibration_file` keeps the result. `prediction` applies it to a record without torch.
"""
