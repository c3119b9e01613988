"""Write the generated parts of the documentation. With `--check`, exit with 1 if they are not current."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from page_files import write_or_check

import cspprof
from cspprof.gate.config import config_schema
from cspprof.metrics import METRICS, Metric
from cspprof.metrics.conventions import conventions
from cspprof.report.catalog import convention_formula
from cspprof.report.tables import quantity
from cspprof.storage.profile_file import packaged_resnet50
from cspprof.zoo import catalog

PAGE = Path(__file__).parent / "semantics.md"
API_PAGE = Path(__file__).parent / "api.md"
ZOO_NAMES = Path(cspprof.__file__).parent / "data" / "zoo_names.txt"
CONFIG = Path(cspprof.__file__).parent / "schemas" / "config-1.schema.json"


PROVISIONAL = {
    "Advice",
    "Audit",
    "Conversion",
    "Gradients",
    "Value",
    "advise",
    "audit",
    "convert",
    "gradients",
    "sweep",
}
"""Public names that a minor version may still change."""


def api_names() -> str:
    """A row for each public name: its call, its status, and the first sentence of its docstring."""
    lines = ["| name | status | |", "| --- | --- | --- |"]
    for name in sorted(cspprof.__all__, key=str.lower):
        value = getattr(cspprof, name)
        summary = "The version." if isinstance(value, str) else _summary(value)
        lines.append(f"| `{_call(name, value)}` | {'provisional' if name in PROVISIONAL else 'stable'} | {summary} |")
    return "\n".join([*lines, ""])


def _summary(value: Any) -> str:
    paragraph = " ".join(str(inspect.getdoc(value)).partition("\n\n")[0].split())
    first = re.split(r"(?<=\.) (?=[A-Z`])", paragraph, maxsplit=1)[0]  # "Wang et al. 2019" is no end of a sentence
    return first.replace("|", "\\|")


def _call(name: str, value: Any) -> str:
    """`profile(model, inputs=None, *, device=None)`; for a class or module its name."""
    if not inspect.isfunction(value):
        return name
    signature = inspect.signature(value)
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return f"{name}{signature.replace(parameters=parameters, return_annotation=signature.empty)}"


def api_members() -> str:
    """The public attributes and methods of each public class."""
    lines = []
    for name in sorted(cspprof.__all__, key=str.lower):
        value = getattr(cspprof, name)
        if inspect.isclass(value):
            own = [f.name for f in fields(value)] if is_dataclass(value) else _set_by_init(value)
            inherited = {*dir(tuple), *dir(object)}
            members = sorted({m for m in (*own, *dir(value)) if not m.startswith("_") and m not in inherited})
            lines.append(f"- **{name}**: {', '.join(f'`{member}`' for member in members)}")
    names = [n for n in vars(cspprof.errors) if n.endswith("Error")]
    return "\n".join([*lines, f"- **errors**: {', '.join(f'`{name}`' for name in sorted(names))}", ""])


def _set_by_init(of: type) -> list[str]:
    """The public attributes that the constructor sets."""
    source = inspect.getsource(vars(of)["__init__"]) if "__init__" in vars(of) else ""
    return re.findall(r"^ +self\.([a-z]\w*)(?:: .+)? = ", source, re.MULTILINE)


def metrics() -> str:
    """A section per registered metric: the text that `cspprof explain NAME` prints."""
    return "\n".join(_section(name, m) for name, m in METRICS.items())


def _section(name: str, m: Metric) -> str:
    lines = [f"### `{name}`: {m.title} ({m.unit})\n", f"{m.definition}\n"]
    if m.is_not:
        lines.append(f"*It is not* {m.is_not}.\n")
    if m.paper:
        lines.append(f"Source: {m.paper}.\n")
    return "\n".join(lines)


def other_tools() -> str:
    """The total of each convention for ResNet-50, its rule, and where the rule holds."""
    profile = packaged_resnet50()
    lines = ["| convention | counts | ResNet-50 at 224×224 | which is |", "| --- | --- | ---: | --- |"]
    sections = []
    for name, c in conventions().items():
        value = c.total(profile).value
        result, formula = quantity(name, value).text, convention_formula(c, profile, value)
        lines.append(f"| `{name}` | {c.counts} | {result} | {formula} |")
        validity = f" The rule is valid {c.validity}." if c.validity else ""
        version = f", version {c.version}" if c.version else ""
        sections.append(f"- **`{name}`** ({c.tool}{version}; {c.per_mac} for each MAC): {c.definition}{validity}")
    return "\n".join([*lines, "", *sections, ""])


Parts = dict[str, Callable[[], str]]
PARTS: dict[Path, Parts] = {
    PAGE: {"metrics": metrics, "conventions": other_tools},
    API_PAGE: {"names": api_names, "members": api_members},
}
"""For each page the generated texts between `<!-- NAME: begin -->` and `<!-- NAME: end -->`."""


def page(file: Path, parts: Parts) -> str:
    """The whole page with its generated parts replaced."""
    text = file.read_text(encoding="utf-8")
    for name, generate in parts.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{generate()}\n{end}{rest.split(end)[1]}"
    return text


def config() -> str:
    """The schema of a project's configuration."""
    return json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"


def zoo_names() -> str:
    """The networks of the zoo, for shell completion without torch."""
    return "".join(f"{name}\n" for name in catalog().names())


def main(arguments: list[str]) -> int:
    pages = {file: page(file, parts) for file, parts in PARTS.items()}
    return write_or_check({**pages, CONFIG: config(), ZOO_NAMES: zoo_names()}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
