"""The JSON documents: each has a published schema that its output fits, and a published schema does not change."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import CHECKOUT, Result, quick
from published_schemas import digests, published

from cspprof.profiles import Profile

SCHEMAS = sorted((CHECKOUT / "cspprof" / "schemas").glob("*.schema.json"))
WITHOUT_SCHEMA = {"record"}
"""Saved profiles: `cspprof.storage.profile_file` describes and checks them."""

COMMANDS = [
    ("bottleneck", "bottleneck chain.profile.json"),
    ("bottleneck", "bottleneck chain.profile.json --metric peak_bytes --top 2"),
    ("bottleneck", "bottleneck chain.profile.json --metric moc --ascending"),
    ("cache", "cache info"),
    ("explain", "explain cio"),
    ("explain", "explain gamma"),
    ("explain", "explain fvcore"),
    ("explain", "explain closed-form"),
    ("metrics", "metrics"),
    ("models", "models --papers"),
    ("summary", "summary chain.profile.json"),
    ("baseline-diff", "check --update-baseline"),
    ("baseline-show", "baseline show"),
    ("baseline-diff", "baseline diff"),
    ("whatif", "whatif resnet10 --size 64,96 --metric macs,peak_bytes,moc"),
    ("models", "models --family resnet"),
    ("conventions", "explain conventions"),
    ("advise", "advise resnet10"),
    ("convert", "convert resnet18 --input 1x3x64x64"),
    ("convert", "convert resnet18 --input 1x3x64x64 --gamma 0.25,0.5"),
]


@pytest.mark.parametrize(("name", "command"), quick(COMMANDS, 13), ids=lambda value: value)
def test_output_fits_its_schema(
    name: str, command: str, run: Callable[..., Result], chain: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chain.save("chain.profile.json")
    if name.startswith("baseline"):
        Path("cspprof.toml").write_text('[models.x]\ntarget = "chain.profile.json"\n[[rules]]\nid = "r"\nmax = "1 G"\n')
        if "update" not in command:
            assert run("check", "--update-baseline").code == 0
        if "diff" in command and "update" not in command:
            from conftest import git

            git(tmp_path, "init", "--quiet")
            git(tmp_path, "add", ".")
            git(tmp_path, "commit", "--quiet", "-m", "recorded")
    got = run(*command.split(), "--format", "json")
    assert got.code == 0, got.err
    document = json.loads(got.out)
    assert document["schema"] == f"cspprof.{name}/1"
    jsonschema.validate(document, schema(name), jsonschema.Draft202012Validator)


def schema(name: str) -> Any:
    return json.loads((CHECKOUT / "cspprof" / "schemas" / f"{name}-1.schema.json").read_text(encoding="utf-8"))


def test_every_document_has_a_schema_and_every_schema_is_valid() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (CHECKOUT / "cspprof").rglob("*.py"))
    named = set(re.findall(r'"cspprof\.([a-z_-]+)/\d+"', sources)) - WITHOUT_SCHEMA
    for path in SCHEMAS:
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text(encoding="utf-8")))
    assert named <= {path.name.rpartition("-")[0] for path in SCHEMAS}


def test_published_schemas_do_not_change() -> None:
    """A released schema keeps its content: other fields need a new number. A schema becomes part of the list with the
    release that first contains it; until then it can change."""
    current = digests()
    assert published()
    changed = [name for name, digest in published().items() if current.get(name) != digest]
    assert changed == [], "give the new document another number, and keep the published schema"
