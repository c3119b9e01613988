"""The CI gate: rules for the cost of a project's models, a baseline in git, and a verdict.

    config.py ──> measurement.py ──> rules.py ──> checking.py ──> report.py, messages.py ──> formats/
    (toml)        (traced, or read   (and         (Verdict)
                  from baseline.py)  causes.py)

`reference.py` has what rules compare with. `engine_rules.py` evaluates the rules that run models in engines.
`revision.py` measures the code of another git revision, `init.py` writes a first configuration, and the `pytest_*`
files belong to `cspprof.pytest_plugin`.
"""
