"""Where profiles come from: one file per kind of source, one grammar for all of them.

    SPEC = target[,option=value]…

A target is a zoo name, `timm:NAME`, `torchvision:NAME`, `path/to/file.py:factory`, `pkg.mod:factory`, a Darknet
`model.cfg`, an exported program `model.pt2`, an ONNX graph `model.onnx` or a saved `x.profile.json`. To add a kind,
write a file with a context manager `opened(spec, request)` that yields the model as a `Loaded` (or, where there is no
module to run, a function `load(spec, request) -> Record`), and a line in `SOURCES`.
Neither torch nor an optional library is imported before a source that needs it is used.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from cspprof.core.errors import SourceError
from cspprof.core.inputs import Inputs
from cspprof.core.record import Record

if TYPE_CHECKING:
    from cspprof.sources.build import Loaded


class Spec(NamedTuple):
    """A parsed SPEC."""

    text: str
    target: str
    options: Mapping[str, Any] = MappingProxyType({})
    shown: str = ""
    """The text as a profile repeats it: of an absolute path in an option's value, only the last part."""


class Request(NamedTuple):
    """How to trace whatever the SPEC names; None leaves the source's own default."""

    inputs: Inputs | None = None
    device: str | None = None
    dtype: str | None = None
    train: bool = False


class Source(NamedTuple):
    """A kind of source: which targets are its own, and the module whose `load` takes them."""

    name: str
    matches: Callable[[str], bool]
    module: str

    def load(self, spec: Spec, request: Request) -> Record:
        """The profile: read from where it is, or traced."""
        room = import_module(self.module)
        if hasattr(room, "load"):
            return room.load(spec, request)  # type: ignore[no-any-return]
        from cspprof.sources.build import traced

        with self.opened(spec, request) as loaded:
            return traced(loaded, request)

    def opened(self, spec: Spec, request: Request) -> AbstractContextManager[Loaded]:
        """The model itself, ready to run. Raises SourceError where the source has no model, only a record of one."""
        room = import_module(self.module)
        if not hasattr(room, "opened"):
            raise SourceError(
                f"{spec.target} holds no model that could be run, only a record of one ({self.name})",
                "Name the model that it was made from.",
            )
        return room.opened(spec, request)  # type: ignore[no-any-return]


SOURCES: list[Source] = [
    Source("saved profile", lambda t: t.endswith((".profile.json", ".profile.json.gz")), f"{__name__}.saved_profile"),
    Source("Darknet", lambda t: t.endswith(".cfg"), f"{__name__}.darknet"),
    Source("exported program", lambda t: t.endswith(".pt2"), f"{__name__}.exported_program"),
    Source("ONNX", lambda t: t.endswith(".onnx"), f"{__name__}.onnx_graph"),
    Source("timm", lambda t: t.startswith("timm:"), f"{__name__}.timm_models"),
    Source("torchvision", lambda t: t.startswith("torchvision:"), f"{__name__}.torchvision_models"),
    Source("factory", lambda t: ":" in t, f"{__name__}.python_factory"),
    Source("zoo", lambda t: True, f"{__name__}.zoo_models"),
]
"""In the order in which they are asked; the first that matches takes the target."""


def record_of_spec(text: str, request: Request | None = None) -> Record:
    """The record of the model that `text` names. Raises SourceError, or TraceError from the forward."""
    spec = parse(text)
    return source_of(spec).load(spec, request or Request())


def opened_spec(text: str, request: Request) -> AbstractContextManager[Loaded]:
    """The model that `text` names, while the context lasts. Raises SourceError, also where there is none to run."""
    spec = parse(text)
    return source_of(spec).opened(spec, request)


def source_of(spec: Spec) -> Source:
    return next(s for s in SOURCES if s.matches(spec.target))


def parse(text: str) -> Spec:
    """`"net,depths=(3,4),act=relu"` -> target `net`, options `{"depths": (3, 4), "act": "relu"}`.

    A value is a Python literal where it is one, else the bare word. Commas within brackets or quotes do not split.
    """
    target, *rest = _split(text)
    if not target:
        raise SourceError(f"the SPEC {text!r} names no model", "Write for example: resnext50,num_classes=10")
    options: dict[str, Any] = {}
    shown = [target]
    for part in rest:
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise SourceError(
                f"cannot read the option {part!r} in {text!r}", "Options are name=value: resnext50,num_classes=10"
            )
        if name in options:
            raise SourceError(f"the option {name!r} is given twice in {text!r}", "Give each option once.")
        options[name] = _value(value.strip())
        portable = _portable(options[name])
        shown.append(part if portable == options[name] else f"{name}={portable}")
    return Spec(text, target, options, ",".join(shown))


def _portable(value: Any) -> Any:
    """The value without the folders of this machine: `/home/me/net.yaml` -> `net.yaml`, in nests too."""
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


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _split(text: str) -> list[str]:
    """The parts between commas that stand in no bracket and no quotes."""
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
            f"a bracket or quote in {text!r} is not closed", "Quote the SPEC for the shell: 'net,depths=(3,4)'"
        )
    return [p.strip() for p in (*parts, text[start:])]
