"""A project's configuration: found, read, and placed, so that every error points at its file, line and key.

One bad entry spoils that entry, not the file: `load` returns what can be used and a `Problem` for everything else.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cspprof.core.errors import CspprofError
from cspprof.core.files import display_path
from cspprof.gate.config import Model, Rule, Settings
from cspprof.gate.toml_lines import Key, key_lines, nearest

FILES = ("cspprof.toml", "pyproject.toml")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be read or measured: where, what, and what to write instead."""

    where: str
    """`pyproject.toml:14`, or the model."""
    message: str
    hint: str = ""
    line: int | None = None
    """In the configuration."""


@dataclass(frozen=True)
class Config:
    """A project's models and rules, and everything in the file that could not be read."""

    path: Path
    models: Mapping[str, Model]
    rules: tuple[Rule, ...]
    baseline: Path
    problems: tuple[Problem, ...] = ()
    rule_lines: Mapping[str, int] = field(default_factory=dict)
    model_lines: Mapping[str, int] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def name(self) -> str:
        return display_path(self.path)


def find(start: Path | None = None) -> Path:
    """The configuration of the project that `start` (a file, or a folder in it) belongs to.

    Raises CspprofError where there is none.
    """
    start = start or Path.cwd()
    if start.is_file():
        return start
    if not start.exists():
        raise CspprofError(f"there is no file {start}", "Name the configuration: --config path/to/pyproject.toml")
    folder = start.resolve()
    for place in (folder, *folder.parents):
        for name in FILES:
            if (place / name).is_file() and (name != "pyproject.toml" or _has_table(place / name)):
                return place / name
        if (place / ".git").exists():
            break
    raise CspprofError(
        "no configuration found: neither cspprof.toml nor [tool.cspprof] in a pyproject.toml, here or above",
        "Write one with: cspprof init",
    )


def _has_table(path: Path) -> bool:
    text = path.read_text(encoding="utf-8", errors="replace")
    return "tool.cspprof" in text.replace(" ", "").replace('"', "")


def load(path: Path) -> Config:
    """Read a configuration. Raises CspprofError where the file as a whole cannot be read."""
    try:
        text = path.read_bytes().decode()
        document = tomllib.loads(text)
    except OSError as error:
        raise CspprofError(
            f"cannot read {display_path(path)}: {error.strerror}", "Name another with --config."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        lines = path.read_bytes().count(b"\n") + 1
        said = str(error).replace("at end of document", f"at end of document, line {lines}")
        raise CspprofError(f"{display_path(path)} is not TOML: {said}", "Mend the syntax there.") from None
    at: tuple[str, ...] = ()
    if "cspprof" in document.get("tool", {}):
        at, document = ("tool", "cspprof"), document["tool"]["cspprof"]
    elif path.name == "pyproject.toml":
        raise CspprofError(f"{display_path(path)} has no [tool.cspprof]", "Write a start with: cspprof init")
    return _placed(path, document, at, key_lines(text))


def _placed(path: Path, document: Any, at: tuple[str, ...], lines: dict[Key, int]) -> Config:
    problems: list[Problem] = []
    kept = dict(document) if isinstance(document, dict) else {}
    places = list(range(len(kept["rules"]))) if isinstance(kept.get("rules"), list) else []
    while True:
        try:
            settings = Settings.model_validate(kept)
            break
        except ValidationError as error:
            spoiled: set[Key] = set()
            told: set[Key] = set()
            for detail in error.errors(include_url=False):
                loc = detail["loc"]
                spoiled.add(loc[:2] if loc[0] in ("models", "rules") and len(loc) > 1 else loc[:1])
                if loc[:3] in told:
                    continue  # each way to write a value complains for itself
                told.add(loc[:3])
                index = loc[1] if loc[0] == "rules" and len(loc) > 1 else None
                key = loc if not isinstance(index, int) else (loc[0], places[index], *loc[2:])
                problems.append(_problem(path, at, key, detail, lines))
            kept, places = _without(kept, places, spoiled)
    config = Config(
        path, settings.models, (), path.parent / settings.baseline, tuple(problems),
        model_lines={name: nearest(lines, (*at, "models", name)) or 1 for name in settings.models},
    )  # fmt: skip
    return _with_rules(config, settings.rules, [nearest(lines, (*at, "rules", i, "id")) or 1 for i in places])


def _without(kept: dict[str, Any], places: list[int], spoiled: set[Key]) -> tuple[dict[str, Any], list[int]]:
    """The document and its rules' places without the entries that are spoiled."""
    kept = {key: value for key, value in kept.items() if (key,) not in spoiled}
    if isinstance(kept.get("models"), dict):
        kept["models"] = {name: m for name, m in kept["models"].items() if ("models", name) not in spoiled}
    if isinstance(kept.get("rules"), list):
        good = [i for i in range(len(places)) if ("rules", i) not in spoiled]
        kept["rules"], places = [kept["rules"][i] for i in good], [places[i] for i in good]
    return kept, places if "rules" in kept else []


def _problem(
    path: Path, at: tuple[str, ...], loc: tuple[Any, ...], detail: ErrorDetails, lines: dict[Key, int]
) -> Problem:
    line = nearest(lines, (*at, *loc))
    message, hint = detail["msg"], detail.get("ctx", {}).get("hint", "")
    if detail["type"] == "extra_forbidden":
        known = _keys(loc)
        near = get_close_matches(str(loc[-1]), known, 1)
        message, hint = "no such key", f"Did you mean: {near[0]}?" if near else f"There are: {', '.join(known)}"
    elif detail["type"] == "missing":
        message, hint = "missing", f"Give {loc[-1]}: {_EXAMPLES.get(str(loc[-1]), '…')}"
    elif not hint:
        hint = f"It is {detail['input']!r} now. The keys and what they take: docs/guide/ci.md"
    return Problem(f"{display_path(path)}:{line or 1}", f"{_dotted(at + tuple(loc))}: {message}", hint, line)


_EXAMPLES = {"target": 'target = "net.py:Net"', "id": 'id = "cio-budget"'}


def _keys(loc: tuple[Any, ...]) -> list[str]:
    owner = Settings if len(loc) == 1 else Model if loc[0] == "models" else Rule
    return list(owner.model_fields)


def _dotted(path: tuple[Any, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _with_rules(config: Config, given: list[Rule], places: list[int]) -> Config:
    """A rule's id is what reports call it: the second of one name is a problem, not a rule."""
    rules: dict[str, Rule] = {}
    lines: dict[str, int] = {}
    problems = list(config.problems)
    for rule, line in zip(given, places, strict=True):
        if rule.id in rules:
            message = f"two rules have the id {rule.id!r}; the other is on line {lines[rule.id]}"
            problems.append(Problem(f"{config.name}:{line}", message, "Give each rule an id of its own.", line))
        else:
            rules[rule.id], lines[rule.id] = rule, line
    return replace(config, rules=tuple(rules.values()), problems=tuple(problems), rule_lines=lines)
