"""Cache a function's result on the record that it was computed from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from cspprof.core.record import Record

P = ParamSpec("P")
T = TypeVar("T")


def cached(function: Callable[Concatenate[Record, P], T]) -> Callable[Concatenate[Record, P], T]:
    """A function that stores the results of `function(record, …)` on the record, by its name and other arguments.

    Results live as long as the record. They are stored like cached properties, and neither compared nor copied.
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
