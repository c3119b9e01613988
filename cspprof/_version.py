"""The version of cspprof."""

__version__ = "0.2.0"
