"""The counts of other tools for the same modules: the second opinion of `cspprof verify`."""
