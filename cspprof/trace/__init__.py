"""From a module and its inputs to a `Record`. The only rooms besides `sources` and `zoo` that import torch."""

from cspprof.trace.run import trace

__all__ = ["trace"]
