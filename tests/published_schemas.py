"""The list of published JSON schemas. A release runs `python tests/published_schemas.py`, which writes it again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
SCHEMAS = CHECKOUT / "cspprof" / "schemas"
LIST = CHECKOUT / "tests" / "schemas" / "published.txt"


def digests() -> dict[str, str]:
    """The SHA-256 of the contract of each schema, by the name of its file."""
    found = {}
    for path in sorted(SCHEMAS.glob("*.schema.json")):
        text = json.dumps(contract(json.loads(path.read_text(encoding="utf-8"))), sort_keys=True)
        found[path.name] = hashlib.sha256(text.encode()).hexdigest()
    return found


def contract(value: Any) -> Any:
    """A schema without the descriptions of its fields, which can be improved."""
    if isinstance(value, dict):
        return {k: contract(v) for k, v in value.items() if not (k == "description" and isinstance(v, str))}
    return [contract(v) for v in value] if isinstance(value, list) else value


def published() -> dict[str, str]:
    """The digests in the list."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in map(str.split, lines)}


if __name__ == "__main__":
    LIST.write_text("".join(f"{digest}  {name}\n" for name, digest in digests().items()), encoding="utf-8")
