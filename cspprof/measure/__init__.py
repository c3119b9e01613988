"""Measured time and memory of models on real engines, beside what their records say.

`session` measures: it starts one process per engine (`worker`) and alternates between the processes in rounds.
`ab_session` measures two versions of the code of models, for the gate.
`preparation` makes what the engines run: weights, an input, an ONNX graph, and the output that every engine must give.
`statistics` turns samples into medians and intervals, `report` into a table. `result` is the content of a
`*.measured.json` file. To add an engine, write a file in `engines/` and a line in `ENGINES`.
"""
