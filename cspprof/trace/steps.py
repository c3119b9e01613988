"""Bytecode in the few kinds of step that tell where a value goes, the same for every version of Python."""

from __future__ import annotations

import dis
import sys
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple

LOADS = frozenset({"LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW"})
TWO_LOADS = frozenset({"LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW"})
SAME = {
    "BINARY_SUBSCR": "index", "BINARY_SLICE": "cut", "BUILD_SLICE": "slice",
    "BUILD_TUPLE": "gather", "BUILD_LIST": "gather", "UNPACK_SEQUENCE": "unpack", "UNPACK_EX": "unpack_rest",
    "CALL_KW": "call_with", "CALL": "call", "PUSH_NULL": "null", "COPY": "copy", "SWAP": "swap", "POP_TOP": "drop",
    "LOAD_SMALL_INT": "value", "LOAD_DEREF": "unknown",
}  # fmt: skip
PLAIN = {
    "NOP": 0, "RESUME": 0, "PRECALL": 0, "UNARY_NOT": 1, "UNARY_NEGATIVE": 1,
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


Instruction = tuple[int, str, int]
"""Its place, its name, and its argument as a number."""
CACHE, EXTENDED = dis.opmap["CACHE"], dis.opmap["EXTENDED_ARG"]
INDEXES = {i.arg for i in dis.get_instructions(compile("x[y]", "", "eval")) if i.opname == "BINARY_OP"}
"""Arguments by which a BINARY_OP is an index: none before Python 3.14, which has no other instruction for it."""
ENDS = frozenset({"store", "drop", "other"})
"""Steps before which nothing is read of an expression: most are those of another."""


@lru_cache(maxsize=64)
def instructions(code: CodeType) -> tuple[Instruction, ...]:
    """In a fraction of the time of `dis`, which also says where each is in the source."""
    raw, names, found, extended = code.co_code, dis.opname, [], 0
    for place in range(0, len(raw), 2):
        op, argument = raw[place], raw[place + 1] | extended
        if op == EXTENDED:
            extended = argument << 8
        elif op != CACHE:
            found.append((place, names[op], argument))
            extended = 0
    return tuple(found)


@lru_cache(maxsize=64)
def _labels(code: CodeType) -> frozenset[int]:
    raw: Any = code.co_code  # as its documentation has it, whatever its types say
    return frozenset(dis.findlabels(raw))


@lru_cache(maxsize=64)
def steps(code: CodeType) -> tuple[Step, ...]:
    """All of them."""
    return tuple([step for i in instructions(code) for step in _steps(i, code)])


def expression(code: CodeType, place: int) -> list[Step]:
    """The steps of the expression that is worked out at `place`, or of the end of it."""
    found: list[Step] = []
    for i in reversed([i for i in instructions(code) if i[0] <= place]):
        for step in reversed(_steps(i, code)):
            if step.kind in ENDS:
                return found[::-1]
            found.append(step)
    return found[::-1]


def place_of(code: CodeType, last: int) -> int:
    """The instruction that a frame is at, by its `f_lasti`: that may be in the room for the instruction's cache."""
    raw = code.co_code
    while raw[last] == CACHE:
        last -= 2
    return last


def _steps(instruction: Instruction, code: CodeType) -> list[Step]:
    place, name, argument = instruction
    label = [("anywhere", None)] if place in _labels(code) else []
    return [Step(kind, value, place) for kind, value in (*label, *kinds_of(name, argument, code))]


def kinds_of(name: str, arg: int, code: CodeType) -> list[tuple[str, Any]]:
    """The kinds and arguments of an instruction's steps. Raises IndexError where it is of another Python."""
    local, names = code.co_varnames, code.co_names
    if name == "KW_NAMES":
        return [("keywords", code.co_consts[arg])]
    if name in LOADS:
        return [("load", local[arg])]
    if name == "STORE_FAST":
        return [("store", local[arg])]
    if name in TWO_LOADS:
        return [("load", local[arg >> 4]), ("load", local[arg & 15])]
    if name == "STORE_FAST_STORE_FAST":
        return [("store", local[arg >> 4]), ("store", local[arg & 15])]
    if name == "STORE_FAST_LOAD_FAST":
        return [("store", local[arg >> 4]), ("load", local[arg & 15])]
    if name == "LOAD_GLOBAL":
        found, null = ("global", names[arg >> 1]), [("null", None)] * (arg & 1)
        return [found, *null] if sys.version_info >= (3, 13) else [*null, found]
    if name == "LOAD_ATTR":
        with_method = sys.version_info >= (3, 12)
        return [("method" if arg & with_method else "attribute", names[arg >> with_method])]
    if name == "LOAD_METHOD":
        return [("method", names[arg])]
    if name == "LOAD_CONST":
        return [("value", code.co_consts[arg])]
    if name == "BINARY_OP" and arg in INDEXES:
        return [("index", None)]
    if name in SAME:
        return [(SAME[name], arg)]
    if name in PLAIN:
        return [("plain", PLAIN[name])] * bool(PLAIN[name])
    return [("other", None)]
