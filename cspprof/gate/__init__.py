"""The CI gate: rules over a project's models, a baseline in git, and the verdict.

    config ──> measuring ──> Measured ──> rules ──> Verdict ──> formats
    (toml)     (Profile)     baseline ─────┘ (why)

`config` reads the rules, `measuring` makes profiles of the models, `measured` is what rules look at (traced now or read
from the `baseline`), `rules` judges without reading or tracing anything, `checking` puts it together.
"""
