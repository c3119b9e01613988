"""Rewrites `cli.md`, the reference of every command and option, from the commands; `--check` says if it is current."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from cspprof.cli import application

PAGE = Path(__file__).parent / "cli.md"
HEAD = """# Commands

Made from the commands themselves (`python docs/commands.py`); `cspprof COMMAND --help` prints the same. Exit codes: 0
yes or done, 1 the answer is no, 2 there is no answer, 130 interrupted.
"""


def reference() -> str:
    """A section for each command, in the order of `cspprof --help`."""
    return "\n".join([HEAD, *(_section(f"cspprof {name}", command) for name, command in _commands(application()))])


def _commands(group: typer.Typer) -> list[tuple[str, Any]]:
    commands: dict[str, Any] = getattr(typer.main.get_command(group), "commands")  # noqa: B009 - of groups only
    return list(commands.items())


def _section(name: str, command: Any) -> str:
    nested = getattr(command, "commands", None)
    if nested:
        return "\n".join(_section(f"{name} {inner}", c) for inner, c in nested.items())
    lines = [f"## `{name}`", "", _plain(command.help or ""), ""]
    rows = [row for parameter in command.params for row in _row(parameter)]
    if rows:
        lines += ["| | |", "| --- | --- |", *rows, ""]
    return "\n".join(lines)


def _row(parameter: Any) -> Iterator[str]:
    if getattr(parameter, "hidden", False) or parameter.name == "help":
        return
    names = [*parameter.opts, *parameter.secondary_opts] if parameter.param_type_name == "option" else []
    flag = getattr(parameter, "is_flag", False)
    metavar = "" if flag else parameter.metavar or parameter.name.upper()
    shown = " ".join(filter(None, (", ".join(sorted(names, key=len)), metavar)))
    text = _plain(getattr(parameter, "help", "") or "")
    default = parameter.default
    if not flag and isinstance(default, (str, int, float, Path)) and default != "":
        text += f" Default: {default}."
    yield f"| `{shown.replace(chr(124), chr(92) + chr(124))}` | {text} |"


def _plain(text: str) -> str:
    """One paragraph a line, nothing in it that would be Markdown."""
    parts = (" ".join(part.split()) for part in text.replace("\f", "").split("\n\n"))
    escaped = "<br>".join(part for part in parts if part)
    return re.sub(r"(?<!<br)([|*_\[\]]|<(?!br>))", r"\\\1", escaped)


def main(arguments: list[str]) -> int:
    made = reference()
    if "--check" in arguments:
        return int(not PAGE.exists() or PAGE.read_text() != made)
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
