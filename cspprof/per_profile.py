"""What follows from a profile alone is worked out once, and known as long as there is that profile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from cspprof.record import Profile

P = ParamSpec("P")
T = TypeVar("T")


def per_profile(function: Callable[Concatenate[Profile, P], T]) -> Callable[Concatenate[Profile, P], T]:
    """The same function, which remembers its answers with the profile: where cached properties are, which are neither
    compared nor copied. Whoever gets an answer leaves it as it is."""

    def answer(profile: Profile, /, *args: P.args, **kwargs: P.kwargs) -> T:
        known, question = vars(profile), f"{function.__qualname__}{args}{kwargs}"
        if question not in known:
            known[question] = function(profile, *args, **kwargs)
        found: T = known[question]
        return found

    answer.__doc__ = function.__doc__
    return answer
