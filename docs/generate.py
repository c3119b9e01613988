"""Write the generated parts of the documentation. With `--check`, exit with 1 if they are not current."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cspprof
from cspprof.gate.config import config_schema
from cspprof.metrics import METRICS, Metric
from cspprof.metrics.conventions import conventions
from cspprof.report.catalog import convention_formula
from cspprof.report.tables import quantity
from cspprof.storage.profile_file import packaged_resnet50
from cspprof.zoo import catalog

PAGE = Path(__file__).parent / "semantics.md"
ZOO_NAMES = Path(cspprof.__file__).parent / "data" / "zoo_names.txt"
CONFIG = Path(cspprof.__file__).parent / "schemas" / "config-1.schema.json"


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


PARTS = {"metrics": metrics, "conventions": other_tools}
"""The generated text between `<!-- NAME: begin -->` and `<!-- NAME: end -->`."""


def page() -> str:
    """The whole page with its generated parts replaced."""
    text = PAGE.read_text()
    for name, generate in PARTS.items():
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
    pages = {PAGE: page(), CONFIG: config(), ZOO_NAMES: zoo_names()}
    if "--check" in arguments:
        return int(any(not file.exists() or file.read_text() != text for file, text in pages.items()))
    for file, text in pages.items():
        file.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
