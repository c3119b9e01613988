"""The limits that docs/security.md states are those of the readers."""

from __future__ import annotations

import re

import pytest
from conftest import CHECKOUT

from cspprof.analysis import constraints
from cspprof.core import inputs, json_text, literals, tensors, toml_text, units, validation
from cspprof.measure import result
from cspprof.sources import spec
from cspprof.sources.darknet import cfg, layers
from cspprof.sources.exported_program import archive, graph, json_values, memory_limits
from cspprof.sources.onnx_graph import constant_folding, recording, values
from cspprof.sources.onnx_graph import graph as onnx_graph
from cspprof.sources.onnx_graph import validation as onnx_validation
from cspprof.storage import profile_file
from cspprof.sweeps import journal, space
from cspprof.zoo import blocks

LIMITS = {
    ("a SPEC", "characters"): spec.MAX_SPEC,
    ("a SPEC", "bytes of a name in its target"): spec.MAX_NAME,
    ("an option or a value that is a Python literal", "characters"): literals.MAX_LENGTH,
    ("`--input`", "characters of a shape"): inputs.MAX_INPUT,
    ("a tensor", "dimensions"): tensors.MAX_DIMENSIONS,
    ("a tensor", "bytes"): tensors.MAX_BYTES,
    ("a quantity such as `24 M`", "characters"): units.MAX_QUANTITY,
    ("`--where`", "characters"): constraints.MAX_CONSTRAINTS,
    ("a glob of models in a rule or a space", "characters"): validation.MAX_GLOB,
    ("an axis of `--grid`", "values"): space.MOST_VALUES,
    ("a design space", "candidates, without `--sample`"): space.MOST_CANDIDATES,
    ("a saved profile or another JSON file", "bytes, also after unpacking"): json_text.MAX_BYTES,
    ("a saved profile or another JSON file", "values"): json_text.MAX_VALUES,
    ("a saved profile or another JSON file", "characters of a name"): validation.LONGEST_NAME,
    ("a saved profile or another JSON file", "characters of a text"): validation.LONGEST_TEXT,
    ("a saved profile", "levels of modules"): profile_file.MAX_DEPTH,
    ("a saved profile", "levels of lists in an argument of an operation"): profile_file.MAX_NESTING,
    ("a measurement", "samples"): result.MAX_SAMPLES,
    ("a configuration or another TOML file", "bytes"): toml_text.MAX_BYTES,
    ("a configuration or another TOML file", "levels, and names in a dotted key"): toml_text.MAX_DEPTH,
    ("a journal of a sweep", "bytes of a row"): journal.MAX_DOCUMENT,
    ("a network of the zoo", "blocks that `depths` states"): blocks.MAX_BLOCKS,
    ("a Darknet cfg", "bytes"): cfg.MAX_FILE,
    ("a Darknet cfg", "sections"): cfg.MAX_SECTIONS,
    ("a Darknet cfg", "numbers in a list such as `layers=-1,4`"): cfg.MAX_LIST,
    ("a Darknet cfg", "maps that all layers together read"): cfg.MAX_INPUTS,
    ("a Darknet cfg", "elements of a map or a weight"): layers.MAX_ELEMENTS,
    ("an ONNX file", "nodes"): onnx_validation.MAX_NODES,
    ("an ONNX file", "characters of a name"): onnx_validation.MAX_NAME,
    ("an ONNX file", "nodes to which functions and loops expand"): onnx_graph.MAX_REPEATED,
    ("an ONNX file", "levels of graphs in nodes and of functions"): values.MAX_DEPTH,
    ("an ONNX file", "stored tensors from which its constants are computed"): recording.MAX_SOURCES,
    ("an ONNX file", "bytes of constants that are computed"): constant_folding.MAX_BYTES,
    ("an exported program", "JSON values of a document"): json_values.MAX_VALUES,
    ("an exported program", "characters of all expressions for sizes"): graph.MAX_EXPRESSIONS,
    ("an exported program", "bytes that compression may add"): archive.UNPACKED,
    ("an exported program", "operations in loops"): memory_limits.MOST_REPEATED,
}


@pytest.fixture(scope="module")
def stated() -> dict[tuple[str, str], int]:
    text = (CHECKOUT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (.+?) \| ([0-9,]+) \|$", text, re.MULTILINE)
    return {(row[0], row[1]): int(row[2].replace(",", "")) for row in rows}


@pytest.mark.parametrize("limit", LIMITS, ids=" ".join)
def test_a_limit_is_stated_as_it_is(limit: tuple[str, str], stated: dict[tuple[str, str], int]) -> None:
    assert stated[limit] == LIMITS[limit]
