"""Write `cli.md`, the reference of all commands and options. With `--check`, exit with 1 if it is not current."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from page_files import write_or_check

from cspprof.cli import application

PAGE = Path(__file__).parent / "cli.md"
HEAD = """# Commands

`cspprof COMMAND --help` prints the same text. Exit codes: 0 for success, 1 if a check failed, 2 for an error, 130 if
interrupted. `python docs/commands.py` generates this page.
"""


def reference() -> str:
    """A section per command, in the order of `cspprof --help`."""
    return "\n".join([HEAD, *(_section(f"cspprof {name}", command) for name, command in _commands(application()))])


def _commands(group: typer.Typer) -> list[tuple[str, Any]]:
    commands: dict[str, Any] = getattr(typer.main.get_command(group), "commands")  # noqa: B009 - not in the base class
    return list(commands.items())


def _section(name: str, command: Any) -> str:
    nested = getattr(command, "commands", None)
    if nested:
        return "\n".join(_section(f"{name} {inner}", c) for inner, c in nested.items())
    lines = [f"## `{name}`", "", _markdown(command.help or ""), ""]
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
    option = " ".join(filter(None, (", ".join(sorted(names, key=len)), metavar)))
    text = _markdown(getattr(parameter, "help", "") or "")
    default = parameter.default
    if not flag and isinstance(default, (str, int, float, Path)) and default != "":
        text += f" Default: {default}."
    yield f"| `{option.replace(chr(124), chr(92) + chr(124))}` | {text} |"


def _markdown(text: str) -> str:
    """The paragraphs of a help text, separated by `<br>`, with Markdown characters escaped."""
    paragraphs = (" ".join(part.split()) for part in text.replace("\f", "").split("\n\n"))
    escaped = "<br>".join(part for part in paragraphs if part)
    return re.sub(r"(?<!<br)([|*_\[\]]|<(?!br>))", r"\\\1", escaped)


def main(arguments: list[str]) -> int:
    return write_or_check({PAGE: reference()}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
