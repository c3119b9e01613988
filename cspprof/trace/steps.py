"""Bytecode in the few kinds of step that tell where a value goes, the same for every version of Python."""

from __future__ import annotations

import dis
import sys
from bisect import bisect_right
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple

LOADS = frozenset({"LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW"})
TWO_LOADS = frozenset({"LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW"})
SAME = {
    "LOAD_METHOD": "method", "BINARY_SUBSCR": "index", "BINARY_SLICE": "cut", "BUILD_SLICE": "slice",
    "BUILD_TUPLE": "gather", "BUILD_LIST": "gather", "UNPACK_SEQUENCE": "unpack", "UNPACK_EX": "unpack_rest",
    "CALL_KW": "call_with", "CALL": "call", "PUSH_NULL": "null", "COPY": "copy", "SWAP": "swap", "POP_TOP": "drop",
    "LOAD_CONST": "value", "LOAD_SMALL_INT": "value", "LOAD_DEREF": "unknown",
}  # fmt: skip
PLAIN = {
    "NOP": 0, "RESUME": 0, "PRECALL": 0, "EXTENDED_ARG": 0, "CACHE": 0, "UNARY_NOT": 1, "UNARY_NEGATIVE": 1,
    "UNARY_INVERT": 1, "BINARY_OP": 2, "COMPARE_OP": 2, "IS_OP": 2, "CONTAINS_OP": 2,
}  # fmt: skip
"""How many values an instruction takes, to put another one there; those that take none put none."""


class Step(NamedTuple):
    """What one instruction does, or a part of it."""

    kind: str
    """`load` and `store` of a local variable, `global`, `value` (a constant), `unknown` (any value), `null`,
    `attribute`, `method` (and what it is of), `call`, `call_with` and `keywords` (names of the last arguments),
    `index`, `cut` (an index by two ends), `slice`, `gather` (into a tuple or list), `unpack`, `unpack_rest` (with a
    starred part), `copy`, `swap`, `drop`, `plain` (so many values are used up), `anywhere` (a label), or `other`."""
    argument: Any
    place: int
    """Of its instruction."""


@lru_cache(maxsize=64)
def steps(code: CodeType) -> tuple[Step, ...]:
    return tuple([step for i in dis.get_instructions(code) for step in _steps(i, code.co_consts)])


@lru_cache(maxsize=64)
def _places(code: CodeType) -> list[int]:
    return [i.offset for i in dis.get_instructions(code)]


def place_of(code: CodeType, last: int) -> int:
    """The instruction that a frame is at, by its `f_lasti`: that may be in the room for the instruction's cache."""
    places = _places(code)
    return places[bisect_right(places, last) - 1]


def _steps(i: dis.Instruction, constants: tuple[Any, ...]) -> list[Step]:
    label = [("anywhere", None)] if i.is_jump_target else []
    return [Step(kind, argument, i.offset) for kind, argument in (*label, *kinds_of(i, constants))]


def kinds_of(i: dis.Instruction, constants: tuple[Any, ...]) -> list[tuple[str, Any]]:
    """The kinds and arguments of an instruction's steps; `constants` are those of its code."""
    name, arg = i.opname, i.arg or 0
    if name == "KW_NAMES":
        return [("keywords", constants[arg])]
    if name in LOADS:
        return [("load", i.argval)]
    if name == "STORE_FAST":
        return [("store", i.argval)]
    if name in TWO_LOADS:
        return [("load", i.argval[0]), ("load", i.argval[1])]
    if name == "STORE_FAST_STORE_FAST":
        return [("store", i.argval[0]), ("store", i.argval[1])]
    if name == "STORE_FAST_LOAD_FAST":
        return [("store", i.argval[0]), ("load", i.argval[1])]
    if name == "LOAD_GLOBAL":
        found, null = ("global", i.argval), [("null", None)] * (arg & 1)
        return [found, *null] if sys.version_info >= (3, 13) else [*null, found]
    if name == "LOAD_ATTR":
        return [("method" if arg & 1 and sys.version_info >= (3, 12) else "attribute", i.argval)]
    if name == "BINARY_OP" and i.argrepr == "[]":
        return [("index", None)]
    if name in SAME:
        return [(SAME[name], i.argval)]
    if name in PLAIN:
        return [("plain", PLAIN[name])] * bool(PLAIN[name])
    return [("other", None)]
