"""The parsed SPEC and its grammar, the request, and the loaded model: what every source works with. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from cspprof.core.errors import SourceError
from cspprof.core.inputs import Inputs
from cspprof.core.literals import TooLargeError, parse_literal
from cspprof.core.units import shortened

if TYPE_CHECKING:
    from torch import nn


MAX_SPEC = 10_000
"""Characters of a SPEC."""
MAX_NAME = 255
"""Bytes of a part of a target between slashes, dots and colons: file systems have no longer names."""
MAX_PATH = 4_000
"""Bytes of a target."""
SHOWN = 80
"""Characters of a SPEC that a message repeats."""


class Spec(NamedTuple):
    """A parsed SPEC."""

    text: str
    target: str
    options: Mapping[str, Any] = MappingProxyType({})
    portable_text: str = ""
    """The text as records repeat it: an absolute path in the value of an option is reduced to its last part."""


class Request(NamedTuple):
    """How to trace the model of a SPEC. None means the default of the source."""

    inputs: Inputs | None = None
    device: str | None = None
    dtype: str | None = None
    train: bool = False
    deploy: bool = False
    """Whether to count the deployed form: batch norms folded, branches merged, activations in place."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to run, and the defaults of its trace."""

    module: nn.Module
    inputs: Inputs
    name: str
    source: str
    notes: tuple[str, ...] = ()
    device: str = "meta"
    status: str = ""
    """See `Record.status`."""


def parse(text: str) -> Spec:
    """`"net,depths=(3,4),act=relu"` -> target `net`, options `{"depths": (3, 4), "act": "relu"}`.

    A value that is no Python literal is a string. Commas inside brackets or quotes do not separate options. Raises
    SourceError.
    """
    _check_text(text)
    target, *rest = split_at_commas(text)
    if not target:
        raise SourceError(
            f"the SPEC {shortened(text, SHOWN)!r} names no model", "Write for example: resnext50,num_classes=10"
        )
    if len(target.encode()) > MAX_PATH or any(len(p.encode()) > MAX_NAME for p in re.split("[/:]", target)):
        raise SourceError(
            f"the SPEC {shortened(text, SHOWN)!r} is longer than a path, or has a name of more than {MAX_NAME} bytes",
            "Write for example: resnext50,num_classes=10",
        )
    options: dict[str, Any] = {}
    portable = [target]
    for part in rest:
        name, equals, literal = part.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise SourceError(
                f"cannot read the option {shortened(part, SHOWN)!r} in {shortened(text, SHOWN)!r}",
                "Options are name=value: resnext50,num_classes=10",
            )
        if name in options:
            raise SourceError(
                f"the option {shortened(name, SHOWN)!r} appears twice in {shortened(text, SHOWN)!r}",
                "Give each option once.",
            )
        options[name] = parse_option(literal.strip())
        value = _portable(options[name])
        portable.append(part if value == options[name] else f"{name}={value}")
    return Spec(text, target, options, ",".join(portable))


def _portable(value: Any) -> Any:
    """The value without folders of this machine: `/home/me/net.yaml` -> `net.yaml`, also inside containers."""
    if isinstance(value, str):
        path = value.removeprefix("file://")
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(path).is_absolute():
                return kind(path).name or value
        return value
    if isinstance(value, (list, tuple, set)):
        return type(value)(map(_portable, value))
    if isinstance(value, dict):
        return {_portable(k): _portable(v) for k, v in value.items()}
    return value


def parse_option(text: str) -> Any:
    """The value of an option: a Python literal, else the text itself. Raises SourceError beyond the limits of
    literals."""
    try:
        return parse_literal(text)
    except TooLargeError as error:
        raise SourceError(
            f"cannot read the value {shortened(text, SHOWN)!r}: {error}",
            "Options are name=value: resnext50,num_classes=10",
        ) from None
    except ValueError:
        return text


def _check_text(text: str) -> None:
    """Raise SourceError for a text that is too long, or has characters that no name has."""
    if len(text) > MAX_SPEC:
        raise SourceError(
            f"the SPEC {shortened(text, SHOWN)!r} has {len(text):,} characters, and the limit is {MAX_SPEC:,}",
            "Write for example: resnext50,num_classes=10",
        )
    odd = next((c for c in text if c == "\0" or "\ud800" <= c <= "\udfff"), None)
    if odd is not None:
        raise SourceError(
            f"the SPEC {shortened(text, SHOWN)!r} has the character {odd!r}, which is no text in UTF-8",
            "Write for example: resnext50,num_classes=10",
        )


def split_at_commas(text: str) -> list[str]:
    """Split at the commas outside brackets and quotes. Raises SourceError if one of them is not closed."""
    parts, depth, quote, start, escaped = [], 0, "", 0, False
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote and not escaped else quote
            escaped = c == "\\" and not escaped
        elif c in "'\"":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
        if depth < 0:
            break
    if depth or quote:
        raise SourceError(
            f"a bracket or quote in {shortened(text, SHOWN)!r} is not closed",
            "Quote the SPEC for the shell: 'net,depths=(3,4)'",
        )
    return [p.strip() for p in (*parts, text[start:])]
