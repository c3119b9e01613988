"""The record: its operations, its consistency check, saving, and tables and comparisons made from it."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

import cspprof
from cspprof.analysis.comparison import Delta
from cspprof.core import units
from cspprof.core.errors import CspprofError, ProfileError
from cspprof.core.inputs import arguments
from cspprof.core.record import Calls, Tensor, TensorSpec
from cspprof.profiles import Profile
from cspprof.report.notes import model_notes


def test_a_profile_is_immutable(chain: Profile) -> None:
    with pytest.raises(FrozenInstanceError):
        chain.model = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        chain.specs[0].macs = 0  # type: ignore[misc]


def test_ops_is_a_sequence(chain: Profile) -> None:
    assert [op.layer for op in chain.ops] == ["a", "act", "b"]
    assert chain.ops[-1] == chain.ops[2] == chain.ops[1:][1]
    assert chain.ops[0].writes == chain.ops[1].reads
    assert chain.ops[0].macs == 3456
    with pytest.raises(IndexError):
        chain.ops[3]


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        (Calls([0, 9], [0, 0], [0, 1, 3]), "a spec that does not exist"),
        (Calls([0], [9], [0, 1, 3]), "a layer that does not exist"),
        (Calls([0], [0, 1], [0, 1, 3]), "differ in length"),
        (Calls([2], [0], [7, 2, 4]), "reads storage 7 before it is written"),
        (Calls([0], [0], [0, 1, 3, 4]), "does not fit"),
    ],
)
def test_an_inconsistent_record_is_refused(chain: Profile, calls: Calls, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        replace(chain, calls=calls).self_check()


def test_rows_of_the_data_frame_add_up() -> None:
    p = cspprof.profile("csp_resnext50")
    frame = p.to_pandas()
    assert list(frame.columns)[:9] == [
        "path",
        "kind",
        "stage",
        "in",
        "out",
        "macs",
        "params",
        "cio_hardnet",
        "cio_cspnet",
    ]
    assert frame["cio_cspnet"].sum() == 32_642_024
    assert frame["params"].sum() == p.total("params")


def test_status_of_a_reading(chain: Profile, tmp_path: Path) -> None:
    assert chain.label == "chain"
    reading = replace(chain, status="reading")
    assert Profile.load(reading.save(tmp_path / "x.profile.json")) == reading
    assert "chain (reading)" in reading._repr_html_()
    assert model_notes(reading)[0].startswith("chain (reading): our best reconstruction")


def test_html_of_a_profile_is_escaped(chain: Profile) -> None:
    html = replace(chain, model="<script>")._repr_html_()
    assert "&lt;script&gt;" in html
    assert "<script>" not in html
    assert "12,672" in html
    assert "−" not in cspprof.Comparison((chain, chain))._repr_html_()


def test_changes_by_stage_and_layer_add_up() -> None:
    both = cspprof.compare("darknet53", "csp_darknet53")
    for metric in ("macs", "cio_cspnet", "traffic_bytes"):
        whole = both.others[0].total(metric) - both.base.total(metric)
        assert sum(c.difference for c in both.by_stage(metric)) == whole
        assert sum(c.difference for c in both.by_layer(metric)) == whole
    with pytest.raises(CspprofError, match="moc cannot be split into layers"):
        both.by_stage("moc")


def test_stages_pair_by_resolution_if_only_one_model_declares_them() -> None:
    pytest.importorskip("torchvision", reason="compares with a torchvision model")
    both = cspprof.compare("resnet50", "torchvision:resnet50", inputs=(1, 3, 256, 256))
    assert [c.name for c in both.by_stage("macs")] == ["128×128", "64×64", "32×32", "16×16", "8×8", "head"]


def test_relative_change() -> None:
    assert Delta("a", "b", "macs", 0, 5).relative is None
    assert Delta("a", "b", "moc", None, 5).relative is None
    assert Delta("a", "b", "macs", 4, 5).relative == 0.25


def test_a_note_on_unread_parameters(chain: Profile) -> None:
    assert model_notes(chain) == []
    assert model_notes(replace(chain, params=800)) == ["chain: 8 of its 800 parameters are never read by this forward."]


def test_a_comparison_needs_two_models() -> None:
    with pytest.raises(CspprofError, match="at least two models"):
        cspprof.compare("resnet50")


@pytest.mark.parametrize(
    ("formatted", "text"),
    [
        (units.count(34_411_496), "34,411,496"),
        (units.count(-5), "−5"),
        (units.nbytes(9_633_792), "9.19 MiB"),
        (units.nbytes(1023), "1023 B"),
        (units.decimal(10.110271), "10.110"),
        (units.decimal(0.0041), "0.0041"),
        (units.change(-0.0514), "−5.1 %"),
        (units.change(0.00004), "+0.004 %"),
        (units.change(1e-12), "+<0.0001 %"),
        (units.change(-0.99999), "−99.999 %"),
        (units.change(-1.0), "−100.0 %"),
        (units.change(0.0), "0 %"),
        (units.change(None), "from 0"),
        (units.share(0.1234), "12.3 %"),
    ],
)
def test_formatted_quantities(formatted: str, text: str) -> None:
    assert formatted == text


def test_tensor_specs_copy_and_pickle() -> None:
    spec, tensor = TensorSpec((2, 3)), Tensor((2, 3), storage=7)
    assert (str(spec), repr(spec), spec.numel) == ("2×3", "TensorSpec(shape=(2, 3), dtype='float32')", 6)
    assert spec._replace(shape=(4, 5)) == TensorSpec(dtype="float32", shape=(4, 5))
    assert spec._replace(shape=(4, 5)).numel == 20
    assert tensor._replace(dtype="int8") == Tensor((2, 3), "int8", 7) != spec._replace(dtype="int8")
    assert [pickle.loads(pickle.dumps(t)) for t in (spec, tensor)] == [copy.copy(spec), copy.deepcopy(tensor)]
    assert repr(pickle.loads(pickle.dumps(tensor))) == "Tensor(shape=(2, 3), dtype='float32', storage=7)"


def test_a_tensor_spec_is_one_input() -> None:
    spec, leaves = TensorSpec((1, 3)), list[TensorSpec]()
    assert arguments(spec, lambda t: leaves.append(t)) == ((None,), {})
    assert arguments([spec, {"x": spec}], lambda t: leaves.append(t)) == ((None, {"x": None}), {})
    assert leaves == [spec] * 3


def test_bytes_of_every_torch_dtype() -> None:
    import torch

    for dtype in {d for d in vars(torch).values() if isinstance(d, torch.dtype)}:
        assert TensorSpec((2, 3), str(dtype).removeprefix("torch.")).nbytes == 6 * dtype.itemsize
    assert TensorSpec((), "bool").nbytes == 1
