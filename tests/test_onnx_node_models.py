"""The node models of the library `onnx`: graphs of each operator, which are profiled or refused with a reason."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

import cspprof
from cspprof.core.errors import SourceError

onnx = pytest.importorskip("onnx", reason="the library onnx is not installed: it is in the extra onnx")

QUICK = ("compress", "det", "dft", "dropout", "groupnormalization", "hannwindow", "meanvariancenormalization",
         "nonzero", "sequenceinsert")  # fmt: skip
"""Modules of the library whose models are checked in every run. The library makes all of them in 16 seconds."""

REFUSED: Mapping[str, Sequence[str]] = {
    # what the error states: patterns of the names of models
    "is a sequence, not a tensor": [
        "test_identity_sequence", "test_if_seq", "test_loop13_seq", "test_optional_get_element_sequence",
        "test_sequence_insert_at_*", "test_sequence_map_*", "test_split_to_sequence_*",
    ],
    "is optional, not a tensor": [
        "test_identity_opt", "test_if_opt", "test_loop16_seq_none", "test_optional_get_element_optional_*",
        "test_optional_has_element_empty_optional_input", "test_optional_has_element_[ot]*_input",
    ],
    # An input of the graph states a size, and the file declares no shape for the values in between.
    "does not follow from the shapes of its inputs": [
        "test_affine_grid_*_expanded", "test_blackmanwindow_*expanded", "test_center_crop_pad_*_expanded",
        "test_hammingwindow_*expanded", "test_hannwindow_*expanded", "test_reduce_l2_*_expanded",
        "test_reduce_log_sum_*_expanded",
        # The declared size is 0, which other files declare for an open size.
        "test_constantofshape_int_shape_zero", "test_reshape_allowzero_reordered", "test_slice_start_out_of_bounds",
        "test_reduce_sum_empty_set_non_reduced_axis_zero", "test_split_zero_size_splits_*",
        "test_string_split_empty_tensor", "test_unique_[lns]*",
    ],
    "is known only when it runs": ["test_range_*float16_*_expanded"],
}  # fmt: skip


def load(modules: Sequence[str]) -> dict[str, Any]:
    """The node models of these modules, and of those that are imported already; without modules, all."""
    from onnx.backend.test.case import node

    if not modules:
        return {case.name: case.model for case in node.collect_testcases()}
    for name in modules:
        importlib.import_module(f"onnx.backend.test.case.node.{name}")
    return {case.name: case.model for case in node._NodeTestCases}


def zero_sizes(model: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of inputs without elements. A size of 0 in a file is open, so it must be given."""
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in model.graph.input}
    return {name: shape for name, shape in shapes.items() if 0 in shape}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the library computes reference outputs with infinities
@pytest.mark.parametrize("modules", [QUICK, pytest.param((), marks=pytest.mark.slow)], ids=["quick", "all"])
def test_models_are_profiled_or_refused_with_a_listed_reason(modules: Sequence[str], tmp_path: Path) -> None:
    """The output shapes are those of the reference outputs, which the models declare."""
    models, refused = load(modules), {}
    assert len(models) >= (1000 if not modules else 30)
    for name, model in models.items():
        path = tmp_path / "node.onnx"
        path.write_bytes(model.SerializeToString())
        try:
            cspprof.profile(str(path), zero_sizes(model) or None).self_check()
        except SourceError as error:
            refused[name] = str(error)
    for reason, patterns in REFUSED.items():
        listed = {name for name in models if any(fnmatchcase(name, pattern) for pattern in patterns)}
        assert {name for name, message in refused.items() if reason in message} == listed, reason
    unlisted = {n: m for n, m in refused.items() if not any(reason in m for reason in REFUSED)}
    assert unlisted == {}
