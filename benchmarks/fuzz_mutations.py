"""Random changes of inputs for `fuzz.py`: of bytes, of texts, of JSON documents, and of messages of protobuf.

Each function takes a random generator and returns another input. The same generator gives the same input.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

NUMBERS = (
    "0", "-1", "1", "2", "3", "0.5", "-0.0", "1e999", "-1e999", "1e-300", "1e99999999", "nan", "inf", "2147483647",
    "2147483648", "-2147483648", "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551616",
    "1" + "0" * 40, "9" * 5_000, "9**9**9", "0x10", "1_000", "\N{FULLWIDTH DIGIT THREE}", "\N{SUPERSCRIPT TWO}",
    "\N{ARABIC-INDIC DIGIT FIVE}", "1,000", "100%", "5 GiB", "1k",
)  # fmt: skip
"""Numbers at limits, and texts that some readers take for numbers."""
TEXTS = (
    "", " ", "\0", "\x1b[2J", "\r\n", "\u202e", "\ufeff", "\ud800", "../../etc/passwd", "/dev/zero", "C:\\x", "{[]}",
    "(" * 300, "[" * 100_000, "-" * 5_000 + "1", "a" * 5_000, "*" * 300 + "a", "**a" * 60, "%s%n", "$\\frac{1}{0}$",
    "<script>", "=1+1", "'", '"', "\\", "#", ";", "=", ",", ":", "\n", "::error::x", "true", "null", "\t" * 2_000,
)  # fmt: skip
INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    8,
    64,
    127,
    255,
    256,
    65_535,
    2**31 - 1,
    2**31,
    -(2**31),
    2**32,
    2**62,
    2**63 - 1,
    -(2**63),
)
FLOATS = (0.0, -0.0, 0.5, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
MAX_BYTES = 1 << 20
"""Bytes of an input: files of strangers can be larger, but then their size explains the time."""


def mutate_bytes(rng: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Some bytes changed, removed, repeated, or taken from another seed."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        start = rng.randrange(len(result) + 1)
        end = min(len(result), start + rng.choice((1, 1, 2, 4, 8, 64)))
        action = rng.randrange(7)
        if action == 0 and start < len(result):
            result[start] ^= 1 << rng.randrange(8)
        elif action == 1:
            result[start:end] = rng.randbytes(end - start)
        elif action == 2:
            del result[start:end]
        elif action == 3:
            result[start:start] = result[start:end] * rng.choice((1, 2, 100))
        elif action == 4:
            result[start:start] = rng.choice((b"\xff" * 10, b"\x80" * 9 + b"\x01", b"\x00", b"\xff\xff\xff\x7f"))
        elif action == 5 and start:
            del result[start:]
        else:
            other = rng.choice(seeds)
            cut = rng.randrange(len(other) + 1)
            result[start:end] = other[cut : cut + rng.choice((4, 32, 256))]
    return bytes(result[:MAX_BYTES])


_TOKEN = re.compile(r"[^\W\d]\w*|\d+(?:\.\d+)?|\s+|.", re.DOTALL)


def mutate_text(rng: Random, text: str, seeds: Sequence[str]) -> str:
    """Some words, numbers and lines changed, removed, repeated, exchanged, or taken from another seed."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        by_line = "\n" in text and rng.random() < 0.3
        parts = text.splitlines(keepends=True) if by_line else _TOKEN.findall(text)
        if not parts:
            parts = [""]
        i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
        numbers = [n for n, part in enumerate(parts) if part[:1].isdigit()]
        action = rng.randrange(8)
        if action <= 1 and numbers and not by_line:
            parts[rng.choice(numbers)] = rng.choice(NUMBERS)
        elif action == 2:
            parts[i] = rng.choice(TEXTS + NUMBERS)
        elif action == 3:
            parts.insert(i, rng.choice(TEXTS + NUMBERS))
        elif action == 4:
            del parts[min(i, j) : max(i, j) + 1 if rng.random() < 0.1 else min(i, j) + 1]
        elif action == 5:
            parts[i:i] = parts[i : i + rng.choice((1, 2, 5))] * rng.choice((1, 2, 1000))
        elif action == 6:
            parts[i], parts[j] = parts[j], parts[i]
        else:
            other = _TOKEN.findall(rng.choice(seeds)) or [""]
            cut = rng.randrange(len(other))
            parts[i : i + 1] = other[cut : cut + rng.choice((1, 3, 20))]
        text = "".join(parts)[:MAX_BYTES]
    return text


def encoded(text: str) -> bytes:
    """The text in UTF-8; a surrogate stands for a byte that is none."""
    return text.encode("utf-8", "surrogatepass")


def mutate_text_bytes(rng: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A text file changed as text, or, one time in ten, as bytes."""
    if rng.random() < 0.1:
        return mutate_bytes(rng, data, seeds)
    return encoded(mutate_text(rng, data.decode(errors="replace"), [s.decode(errors="replace") for s in seeds]))


# -- JSON --------------------------------------------------------------------------------------------------


def _place(rng: Random, document: Any) -> tuple[Any, Any]:
    """A container in a document and a key or index in it: at each container, one time in five, the way down ends."""
    holder, key = [document], 0
    while isinstance(inner := holder[key], (dict, list)) and inner and (inner is document or rng.random() < 0.8):
        holder, key = inner, rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
    return holder, key


def mutate_document(rng: Random, document: Any) -> None:
    """Replace, remove, repeat, nest or exchange some values in a document, which is changed."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holder, key = _place(rng, document)
        action = rng.randrange(8)
        value = holder[key]
        if action <= 2:
            holder[key] = _other_value(rng, value)
        elif action == 3 and len(holder) > 1:
            del holder[key]
        elif action == 4 and isinstance(holder, list):
            holder[key:key] = [value] * rng.choice((1, 1, 2, 1000))
        elif action == 4:
            holder[rng.choice(("", "\x1b", "a" * 1000, "1", f"{key}2"))] = value
        elif action == 5:
            other, there = _place(rng, document)
            holder[key] = copy.deepcopy(other[there])
        elif action == 6:
            for _ in range(rng.choice((1, 3, 200))):
                value = [value]
            holder[key] = value
        else:
            holder[key] = rng.choice(([], {}, [None], [[]], {"": 0}))


def _other_value(rng: Random, value: Any) -> Any:
    if isinstance(value, bool) or rng.random() < 0.3:
        return rng.choice((None, True, False, [], {}, "", 0, -1, 1.5, "0", [value], {"a": value}))
    if isinstance(value, int):
        near = (value + 1, value - 1, -value, value * 2, float(value), str(value))
        return rng.choice((*near, *INTEGERS, 10**30, 10**400, *FLOATS))
    if isinstance(value, str):
        return rng.choice((*TEXTS, value * 2, value[1:], value.upper()))
    return rng.choice((None, 0, 1.9, "x", *FLOATS))


def mutate_json(rng: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A JSON file changed as a document, or, one time in ten each, as text and as bytes."""
    way = rng.random()
    if way < 0.1:
        return mutate_bytes(rng, data, seeds)
    if way < 0.2:
        return mutate_text_bytes(rng, data, seeds)
    document = json.loads(data)
    mutate_document(rng, document)
    return encoded(json.dumps(document, ensure_ascii=rng.random() < 0.5))[: 4 * MAX_BYTES]


# -- protobuf ----------------------------------------------------------------------------------------------


def mutate_message(rng: Random, message: Any, others: Sequence[Any]) -> bytes:
    """The bytes of a protobuf message in which some fields of it or of messages in it are changed."""
    changed = type(message)()
    changed.CopyFrom(message)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        inner = list(_messages(changed))
        target = rng.choice(inner)
        fields = [field for field, _ in target.ListFields()] or list(target.DESCRIPTOR.fields)
        field = rng.choice(fields if rng.random() < 0.8 else list(target.DESCRIPTOR.fields))
        donors = [m for other in (changed, rng.choice(others)) for m in _messages(other)]
        if _is_repeated(field):
            _change_items(rng, target, field, donors)
        elif field.type == field.TYPE_MESSAGE:
            same = [m for m in donors if m.DESCRIPTOR is field.message_type]
            if same and rng.random() < 0.7:
                getattr(target, field.name).CopyFrom(_detached(rng.choice(same)))
            else:
                target.ClearField(field.name)
        elif rng.random() < 0.15:
            target.ClearField(field.name)
        else:
            _set(lambda value, t=target, f=field: setattr(t, f.name, value), _scalar(rng, field))
    return bytes(changed.SerializeToString())[: 4 * MAX_BYTES]


def _is_repeated(field: Any) -> bool:
    repeated = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if repeated is None else repeated)


def _messages(message: Any) -> Iterator[Any]:
    """The message and every message in it."""
    pending = [message]
    while pending:
        found = pending.pop()
        yield found
        for field, value in found.ListFields():
            if field.type == field.TYPE_MESSAGE:
                pending += list(value) if _is_repeated(field) else [value]


def _detached(message: Any) -> Any:
    """A copy: a message cannot be copied into itself."""
    made = type(message)()
    made.CopyFrom(message)
    return made


def _change_items(rng: Random, target: Any, field: Any, donors: Sequence[Any]) -> None:
    items = getattr(target, field.name)
    action = rng.randrange(5)
    if action == 0 and len(items):
        del items[rng.randrange(len(items))]
    elif action == 1 and len(items) > 1:
        kept = [_detached(m) for m in items] if field.type == field.TYPE_MESSAGE else list(items)
        rng.shuffle(kept)
        del items[:]
        items.extend(kept)
    elif field.type == field.TYPE_MESSAGE:
        same = [m for m in donors if m.DESCRIPTOR is field.message_type]
        if same:
            chosen = _detached(rng.choice(same))
            for _ in range(rng.choice((1, 1, 1, 2, 50))):
                items.add().CopyFrom(chosen)
    elif len(items) and action == 2:
        _set(lambda value: items.__setitem__(rng.randrange(len(items)), value), _scalar(rng, field))
    else:
        value = rng.choice(list(items)) if len(items) and rng.random() < 0.5 else _scalar(rng, field)
        for _ in range(rng.choice((1, 1, 2, 100))):
            _set(items.append, value)


def _set(assign: Callable[[Any], None], value: Any) -> None:
    try:
        assign(value)
    except (ValueError, TypeError):  # out of range for this field
        assign(type(value)())


def _scalar(rng: Random, field: Any) -> Any:
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if field.cpp_type == field.CPPTYPE_STRING:
        text = rng.choice((*TEXTS, "x", "y", "w", "Relu", "Conv", "If", "Loop", "then_branch", "ai.onnx", *NUMBERS))
        return encoded(text) if field.type == field.TYPE_BYTES else text.replace("\ud800", "")
    if field.cpp_type == field.CPPTYPE_ENUM:
        return rng.randrange(0, 24)
    return rng.choice(INTEGERS)
