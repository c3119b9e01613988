"""Cache a function's result on the record that it was computed from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from cspprof.core.record import Record

P = ParamSpec("P")
T = TypeVar("T")


def cached(function: Callable[Concatenate[Record, P], T]) -> Callable[Concatenate[Record, P], T]:
    """Cache `function(record, …)` on the record, by the function's name and its other arguments.

    The result lives as long as the record, beside the record's cached properties: it is neither compared nor copied.
    Callers must not change a result.
    """

    def cached_function(record: Record, /, *args: P.args, **kwargs: P.kwargs) -> T:
        results = vars(record)
        key = f"{function.__module__}.{function.__qualname__}{args}{kwargs}"
        if key not in results:
            results[key] = function(record, *args, **kwargs)
        result: T = results[key]
        return result

    cached_function.__doc__ = function.__doc__
    return cached_function
