"""The stages that a user names, and for any other module the reason why it is no stage."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from cspprof.core.errors import CspprofError
from cspprof.core.record import Layer, Record
from cspprof.csp.conversion.stages import Search, Stage, StageFinder

NO_STAGES = "The network has no stage that can be converted. Leave --stages out to see the reason."


def stages_named(search: Search, record: Record, names: Sequence[str]) -> list[Stage]:
    """The stages with these names, in the order of the network. A name may also be a module that contains stages, or
    have a hyphen instead of a dash: `layer2.1-3`.

    Modules of `search.left` need no stage. Raises CspprofError for any other name, with the reason and the names that
    can be used.
    """
    chosen = []
    for name in names:
        if not isinstance(name, str):
            raise CspprofError(f"the name of a stage is a text, not {name!r}", 'Write for example: stages=["layer2"]')
        name = name.strip()
        inside = [s for s in search.stages if is_inside(s.name, name) or (name and s.container == name)]
        if not inside and not any(is_inside(path, name) for path in search.left):
            raise _no_stage(search, record, name)
        chosen += inside
    return [s for s in search.stages if s in chosen]


def is_inside(path: str, name: str) -> bool:
    """Whether a stage or module is the named one, or inside it."""
    plain = path.replace("–", "-")
    return plain == name.replace("–", "-") or plain.startswith(f"{name}.")


def _no_stage(search: Search, record: Record, name: str) -> CspprofError:
    names = [s.name for s in search.stages]
    known = list(dict.fromkeys([*names, *(s.container for s in search.stages if s.container)]))
    layer = next((la for la in record.layers if name and name in (la.path, *la.shared_with)), None)
    if layer is None:
        near = get_close_matches(name, known, n=3, cutoff=0.4) or names[:5]
        hint = f"There are: {', '.join(near)}" if near else NO_STAGES
        return CspprofError(f"{name!r} is no stage or module of {record.model}", hint)
    around = next((s for s in search.stages if any(_contains(b.path, layer.path) for b in (*s.blocks, *s.tail))), None)
    if around is not None:
        return CspprofError(f"{name} is no stage: it is a part of {around.name}", f"Name the whole: {around.name}")
    hint = f"There are: {', '.join(names[:5])}" if names else NO_STAGES
    return CspprofError(f"{name} is no stage: {why_no_stage(record, layer)}", hint)


def _contains(path: str, inner: str) -> bool:
    return path == inner or inner.startswith(f"{path}.")


def why_no_stage(record: Record, layer: Layer) -> str:
    """The reason why a module is no stage and contains none."""
    finder, path = StageFinder(record), layer.path
    if not layer.calls and path not in finder.spans:
        return "it does not run in this forward pass"
    if repeated := finder.why_repeated(path):
        return repeated
    if not any(la.path.startswith(f"{path}.") for la in record.layers):
        return f"it is one layer ({layer.class_name.rpartition('.')[2]}), and a stage is a row of blocks"
    if path not in finder.spans:
        return "other modules run between its layers"
    calls = finder.spans[path]
    block = finder.block(path)
    if block is None:
        return finder.why_no_block(calls)
    if not block.one_resolution or block.input[2:] != block.output[2:]:
        return "its convolutions have maps of several resolutions, and a stage has one"
    if block.output[1] < block.input[1]:
        return f"its width falls from {block.input[1]} to {block.output[1]} channels"
    return "it has no two convolutions in a row that mix channels, one of them larger than 1×1"
