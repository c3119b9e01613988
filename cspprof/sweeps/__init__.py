"""Design spaces: every candidate of a space is traced once, and its numbers are written to a journal.

    space ─> runner ─> executor (processes on this machine, or a Dask cluster) ─> journal ─> Pareto front

`space` says what the candidates are, `candidate` traces one of them, `child` is the process in which that happens,
`executors` run many, `journal` keeps the rows, and `runner` joins them.
"""
