"""Predicted times: the kernels of a record, the fit, its error, the files of calibrations, and the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Result
from jsonschema import Draft202012Validator, validate
from referencing import Registry, Resource
from torch import nn

import cspprof
from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.measure.calibration import calibration_file
from cspprof.measure.calibration.calibration_file import Calibration, check_machine, stored_path
from cspprof.measure.calibration.fit import (
    Prediction,
    PredictionError,
    Sample,
    best_shape,
    fit,
    kind_errors,
    leave_one_family_out,
    non_negative_least_squares,
    predicted_seconds,
    sample_of,
    spearman,
)
from cspprof.measure.calibration.kernels import FUSIONS, NO_FUSION, Shape, kernels, run_work, total_work
from cspprof.measure.calibration.prediction import estimate, predict
from cspprof.measure.calibration.report import calibration_report
from cspprof.measure.calibration.session import CalibrationSession, short_networks
from cspprof.measure.engines import ENGINES
from cspprof.measure.machine import Machine, cpu_name, default_threads
from cspprof.papers.hardware import HARDWARE, hardware
from cspprof.render import render

Run = Callable[..., Result]
SCHEMAS = {
    name: json.loads((resources.files("cspprof") / "schemas" / f"{name}-1.schema.json").read_text())
    for name in ("calibration", "calibrations", "prediction")
}


SHAPE = Shape(16)
"""The block of channels of an engine for AVX-512; no cache."""


# -- the kernels of a record --------------------------------------------------------------------------


class Block(nn.Module):
    """A convolution with a batch norm, an activation, and a sum with a second convolution."""

    def __init__(self, act: nn.Module | None = None) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), act or nn.ReLU()
        self.side = nn.Conv2d(8, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(x)) + self.side(x))


def groups(record: Record, engine: str) -> list[str]:
    """The operations of each kernel: `conv2d+batch_norm`."""
    names = [record.specs[i].name.rstrip("_") for i in record.calls.spec]
    return ["+".join(names[i] for i in kernel.calls) for kernel in kernels(record, FUSIONS[engine])]


def test_an_engine_without_fusion_runs_one_kernel_for_each_operation() -> None:
    record = cspprof.profile(Block(), (1, 8, 4, 4))
    assert groups(record, "torch") == ["conv2d", "batch_norm", "conv2d", "add", "relu"]


def test_onnx_runtime_computes_norm_sum_and_relu_in_the_convolution() -> None:
    record = cspprof.profile(Block(), (1, 8, 4, 4))
    assert groups(record, "onnxruntime") == ["conv2d+batch_norm+add+relu", "conv2d"]


def test_onnx_runtime_computes_silu_in_a_kernel_of_its_own_and_openvino_does_not() -> None:
    record = cspprof.profile(Block(nn.SiLU()), (1, 8, 4, 4))
    assert groups(record, "onnxruntime") == ["conv2d+batch_norm+add", "conv2d", "silu"]
    assert groups(record, "openvino") == ["conv2d+batch_norm+add+silu", "conv2d"]


def test_compiled_torch_joins_consecutive_pointwise_operations() -> None:
    record = cspprof.profile(Block(nn.SiLU()), (1, 8, 4, 4))
    assert groups(record, "torch-compile") == ["conv2d", "batch_norm+add+silu", "conv2d"]


class ReadTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return torch.cat([torch.relu(y), y], 1)


class ReturnedToo(ReadTwice):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        y = self.conv(x)
        return torch.relu(y), y


@pytest.mark.parametrize(("module", "expected"), [
    (ReadTwice(), ["conv2d", "relu", "cat"]),
    (ReturnedToo(), ["conv2d", "relu"]),
    (nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()), ["batch_norm", "relu"]),
    (nn.Sequential(nn.Conv2d(8, 8, 1), nn.MaxPool2d(2), nn.ReLU()), ["conv2d", "max_pool2d", "relu"]),
    (nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.BatchNorm2d(8)), ["conv2d+relu", "batch_norm"]),
    (nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Sigmoid()), ["conv2d+relu", "sigmoid"]),
])  # fmt: skip
def test_an_operation_joins_a_convolution_only_if_nothing_else_reads_its_output(
    module: nn.Module, expected: list[str]
) -> None:
    assert groups(cspprof.profile(module.eval(), (1, 8, 4, 4)), "onnxruntime") == expected


def test_batch_norm_in_training_mode_is_not_folded() -> None:
    record = cspprof.profile(nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)), (2, 8, 4, 4), train=True)
    assert {"conv2d", "batch_norm"} <= set(groups(record, "onnxruntime"))


def test_the_work_of_a_convolution_is_counted_on_padded_channels() -> None:
    record = cspprof.profile(nn.Conv2d(12, 20, 3, padding=1, bias=False), (1, 12, 5, 5))
    (kernel,) = kernels(record, NO_FUSION, SHAPE)
    assert kernel.kind == "conv 3×3 or larger"
    assert kernel.work == {
        "kernels": 1,
        "elements": (12 + 20) * 25,
        "macs": 12 * 32 * 9 * 25,  # 20 output channels are padded to 32
        "weights": 12 * 20 * 9,
    }
    assert kernel.macs == 12 * 20 * 9 * 25
    assert kernel.bytes == 4 * ((12 + 20) * 25 + 12 * 20 * 9)


def test_channels_that_are_no_multiple_of_four_have_a_rate_of_their_own() -> None:
    record = cspprof.profile(nn.Conv2d(62, 64, 3, padding=1), (1, 62, 5, 5))
    (kernel,) = kernels(record, NO_FUSION, SHAPE)
    assert kernel.work["unaligned macs"] == 62 * 64 * 9 * 25
    assert "macs" not in kernel.work


def test_a_sum_in_a_convolution_reads_one_more_tensor() -> None:
    record = cspprof.profile(Block(), (1, 8, 4, 4))
    first, second = kernels(record, FUSIONS["onnxruntime"])
    assert first.work["elements"] == (8 + 16 + 16) * 16
    assert second.work["elements"] == (8 + 16) * 16


@pytest.mark.parametrize(("module", "shape", "kind"), [
    (nn.Conv2d(8, 8, 1), (1, 8, 4, 4), "conv 1×1"),
    (nn.Conv2d(8, 8, 5), (1, 8, 8, 8), "conv 3×3 or larger"),
    (nn.Conv2d(8, 8, 3, groups=8), (1, 8, 8, 8), "depthwise conv"),
    (nn.Conv2d(8, 8, 3, groups=2), (1, 8, 8, 8), "grouped conv"),
    (nn.Conv2d(3, 8, 3), (1, 3, 8, 8), "conv of few channels"),
    (nn.ConvTranspose2d(8, 8, 2), (1, 8, 4, 4), "transposed conv"),
    (nn.Linear(8, 4), (1, 8), "linear"),
    (nn.MaxPool2d(2), (1, 8, 4, 4), "max pool"),
    (nn.AvgPool2d(2), (1, 8, 4, 4), "avg pool"),
    (nn.AdaptiveAvgPool2d(1), (1, 8, 4, 4), "global pool"),
    (nn.ReLU6(), (1, 8), "simple activation"),
    (nn.GELU(), (1, 8), "exponential activation"),
    (nn.LayerNorm(8), (1, 8), "other norm"),
    (nn.Softmax(-1), (1, 8), "softmax"),
])  # fmt: skip
def test_each_kind_of_kernel_has_a_name(module: nn.Module, shape: tuple[int, ...], kind: str) -> None:
    (kernel,) = kernels(cspprof.profile(module, shape), NO_FUSION)
    assert kernel.kind == kind
    assert kernel.work["kernels"] == 1


def test_the_work_of_a_batch_is_that_of_its_images() -> None:
    one, four = (
        total_work(record, kernels(record, FUSIONS["onnxruntime"], SHAPE))
        for record in (cspprof.profile("resnet10", (n, 3, 64, 64)) for n in (1, 4))
    )
    for unit in one:
        scale = 1 if unit in ("run", "kernels") or unit.endswith("weights") else 4
        assert four[unit] == scale * one[unit], unit


# -- the fit ------------------------------------------------------------------------------------------


def test_least_squares_finds_the_exact_solution_of_a_consistent_system() -> None:
    rng = np.random.default_rng(0)
    matrix, truth = rng.random((30, 8)), np.array([0, 1, 0, 2, 3, 0, 0.5, 1e-3])
    np.testing.assert_allclose(non_negative_least_squares(matrix, matrix @ truth), truth, atol=1e-10)


def test_least_squares_satisfies_the_conditions_of_the_optimum() -> None:
    """x ≥ 0, no gradient where x > 0, and none that points into the feasible region (Karush, Kuhn and Tucker)."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        matrix, target = rng.normal(size=(20, 6)), rng.normal(size=20)
        x = non_negative_least_squares(matrix, target)
        gradient = matrix.T @ (target - matrix @ x)
        assert (x >= 0).all()
        np.testing.assert_allclose(gradient[x > 0], 0, atol=1e-9)
        assert (gradient <= 1e-9).all()


def test_least_squares_ignores_columns_that_cannot_help() -> None:
    assert non_negative_least_squares(np.array([[1.0, -1.0], [0.0, -1.0]]), np.array([1.0, 1.0])).tolist() == [1, 0]
    assert non_negative_least_squares(np.zeros((2, 2)), np.ones(2)).tolist() == [0, 0]


TRUE = {"run": 2e-5, "kernels": 3e-6, "elements": 4e-10, "macs": 2e-11, "unaligned macs": 4e-11, "weights": 5e-10,
        "scalar operations": 1e-10, "far elements": 3e-10,
        "reordered elements": 1e-10, "elements of simple activations in convolutions": 2e-10,
        "elements of other activations in convolutions": 5e-10}  # fmt: skip
"""Seconds per unit of work of a machine on which every kind of kernel has the same rates."""
ENGINE = "onnxruntime"
SHORT = (
    "conv3_64_64_64_at_56", "conv3_256_256_256_at_14", "conv3_62_62_62_at_28", "conv1_64_256_64_256_at_56",
    "conv1_32_192_32_192_at_28", "conv1_70_130_70_130_at_28", "conv3_3_32_at_224", "linear_9216_4096", "tiny",
)  # fmt: skip


def true_seconds(work: dict[str, float]) -> float:
    return sum(amount * TRUE[unit.rpartition(": ")[2]] for unit, amount in work.items())


BLOCK_16 = Shape(16)


def made(record: Record, family: str, shape: Shape = BLOCK_16) -> Sample:
    """A sample of a network on a machine of which the rates are known."""
    sample = sample_of(record, family, 1.0, FUSIONS[ENGINE], shape)
    return replace(sample, seconds=true_seconds(dict(sample.work)))


NETWORKS = {"resnet10": "a", "resnet18": "a", "squeezenet": "b", "densenet121": "c", "vgg16": "d", "hardnet68": "e"}


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    return {name: cspprof.profile(name, (1, 3, 64, 64)) for name in NETWORKS}


def test_the_fit_recovers_a_linear_machine(records: dict[str, Record]) -> None:
    samples = [made(records[name], family) for name, family in NETWORKS.items()]
    samples += [made(network.record, "") for network in short_networks(SHORT)]
    rates = fit(samples)
    assert all(rate >= 0 for rate in rates.values())
    for sample in samples:
        assert predicted_seconds(sample.work, rates) == pytest.approx(sample.seconds, rel=1e-6)


def test_families_that_took_no_part_in_the_fit_are_predicted_on_a_linear_machine() -> None:
    rng = np.random.default_rng(2)
    units = {"run": 1e-5, "conv: macs": 1e-11, "conv: elements": 1e-9}
    samples = []
    for i in range(8):
        work = {
            "run": 1.0,
            "conv: macs": float(rng.integers(1e6, 1e9)),
            "conv: elements": float(rng.integers(1e4, 1e7)),
        }
        samples.append(Sample(f"net{i}", f"family{i // 2}", sum(work[u] * units[u] for u in units), work))
    error = leave_one_family_out(samples)
    assert [p.name for p in error.predictions] == [s.name for s in samples]
    assert error.median < 1e-9
    assert error.spearman == 1


def test_the_error_is_that_of_the_family_which_the_machine_runs_differently() -> None:
    """All networks follow the rates but those of one family, which take twice the time: predictions of that family are
    half of it, because it takes no part in their fit."""
    always = [Sample(f"short{i}", "", 1e-3 * i, {"macs": 1e6 * i}) for i in range(1, 5)]
    samples = [Sample("a1", "a", 1e-2, {"macs": 1e7}), Sample("b1", "b", 2e-2, {"macs": 1e7})]
    error = leave_one_family_out(samples, [*always, *always])
    b = next(p for p in error.predictions if p.family == "b")
    assert b.error == pytest.approx(-0.5)
    assert error.worst == b
    assert error.range[1] == pytest.approx(2)
    a = next(p for p in error.predictions if p.family == "a")
    assert a.error > 0, "the other family takes part in its fit"


def test_a_network_with_work_that_no_other_family_has_is_not_predicted() -> None:
    samples = [
        Sample("a", "a", 1.0, {"macs": 1.0}), Sample("b", "b", 1.0, {"macs": 1.0}),
        Sample("c", "c", 1.0, {"macs": 1.0, "softmax": 1.0}),
    ]  # fmt: skip
    assert [p.name for p in leave_one_family_out(samples).predictions] == ["a", "b"]
    with pytest.raises(CspprofError, match="no network could be predicted"):
        leave_one_family_out(samples[2:], samples[:2])


def test_a_fit_without_networks_is_refused() -> None:
    with pytest.raises(CspprofError, match="no measured networks"):
        fit([])


@pytest.mark.parametrize("shape", [Shape(1), Shape(8), Shape(16), Shape(16, 2**20), Shape(1, 2**18)])
def test_the_block_and_the_cache_of_an_engine_are_found(shape: Shape) -> None:
    networks = short_networks(
        ["conv3_64_64_64_at_56", "conv3_20_20_20_at_56", "conv3_60_60_60_at_28", "conv3_72_72_72_at_28",
         "conv3_100_100_100_at_14", "conv3_32_32_32_at_112", "conv3_16_16_16_16_16_at_112", "sum_32_at_112",
         "sum_64_at_56", "product_256_at_14", "tiny"]
    )  # fmt: skip
    seconds = {n.name: made(n.record, "", shape).seconds for n in networks}

    def samples_with(tried: Shape) -> list[Sample]:
        return [replace(made(n.record, "", tried), seconds=seconds[n.name]) for n in networks]

    assert best_shape(samples_with) == shape


def test_activations_beyond_the_cache_are_counted_a_second_time() -> None:
    record = cspprof.profile(nn.ReLU(), (1, 64, 56, 56))
    (near,) = kernels(record, NO_FUSION, Shape(1, 2**21))
    (far,) = kernels(record, NO_FUSION, Shape(1, 2**20))
    assert near.work == {"kernels": 1, "elements": 2 * 64 * 56 * 56}
    assert far.work == {**near.work, "far elements": 2 * 64 * 56 * 56 - 2**20 / 4}


def test_relu_in_a_convolution_costs_nothing_and_other_activations_do() -> None:
    def units(act: nn.Module, engine: str = "openvino") -> dict[str, float]:
        record = cspprof.profile(nn.Sequential(nn.Conv2d(8, 8, 1), act), (1, 8, 4, 4))
        (kernel,) = kernels(record, FUSIONS[engine])
        return {unit: amount for unit, amount in kernel.work.items() if "activations" in unit}

    assert units(nn.ReLU()) == {}
    assert units(nn.ReLU6()) == {"elements of simple activations in convolutions": 8 * 16}
    assert units(nn.SiLU()) == {"elements of other activations in convolutions": 8 * 16}


class Layouts(nn.Module):
    """A blocked convolution whose output a product, a pool or a second convolution reads."""

    def __init__(self, channels: int, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, channels, 1), second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


@pytest.mark.parametrize(("module", "expected"), [
    # the input is reordered into blocks, and the output of the model back
    (Layouts(16, nn.Identity()), [16 * 16 + 16 * 16]),
    (Layouts(16, nn.Conv2d(16, 32, 1)), [16 * 16, 32 * 16]),
    (Layouts(16, nn.MaxPool2d(2)), [16 * 16, 16 * 4]),
    # softmax needs the plain layout
    (Layouts(16, nn.Softmax(1)), [16 * 16, 16 * 16]),
    # 18 channels are no multiple of 4: the convolution itself is plain
    (Layouts(18, nn.MaxPool2d(2)), [None, None]),
])  # fmt: skip
def test_tensors_are_reordered_between_blocked_and_plain_kernels(module: nn.Module, expected: list[int | None]) -> None:
    record = cspprof.profile(module, (1, module.first.in_channels, 4, 4))  # type: ignore[union-attr, arg-type]
    found = kernels(record, FUSIONS["onnxruntime"], SHAPE)
    assert [kernel.work.get("reordered elements") for kernel in found] == expected


class ReadByTwo(nn.Module):
    """A gate: two plain operations read one blocked tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return torch.softmax(y, 1) * y


def test_a_tensor_is_reordered_once_for_all_its_readers() -> None:
    found = kernels(cspprof.profile(ReadByTwo(), (1, 16, 4, 4)), FUSIONS["onnxruntime"], SHAPE)
    assert [kernel.work.get("reordered elements") for kernel in found] == [16 * 16, 16 * 16, None]


@pytest.mark.parametrize("growth", [16, 20])
def test_a_concatenation_keeps_blocks_only_if_each_input_is_a_whole_number_of_them(growth: int) -> None:
    class Grown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.last = nn.Conv2d(16, 16, 1), nn.Conv2d(16, growth, 1), nn.Conv2d(16 + growth, 16, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.cat([self.a(x), self.b(x)], 1))

    found = kernels(cspprof.profile(Grown(), (1, 16, 4, 4)), FUSIONS["onnxruntime"], SHAPE)
    concat, last = found[2], found[3]
    output = 16 * 16
    if growth == 16:
        assert "reordered elements" not in concat.work
        assert last.work["reordered elements"] == output
    else:
        assert concat.work["reordered elements"] == (16 + 20) * 16
        assert last.work["reordered elements"] == (16 + 20) * 16 + output


def test_a_run_copies_the_inputs_and_the_outputs() -> None:
    record = cspprof.profile(nn.Conv2d(8, 16, 1), (2, 8, 4, 4))
    assert run_work(record) == {"run": 1, "run: elements": 2 * (8 + 16) * 16}


@pytest.mark.parametrize(("first", "second", "rank"), [
    ([1, 2, 3, 4], [10, 20, 30, 40], 1), ([1, 2, 3], [3, 2, 1], -1), ([1, 2, 3, 4], [2, 1, 4, 3], 0.6),
    ([1, 1, 2], [1, 2, 3], 0.8660254037844387), ([1, 1], [1, 2], None),
])  # fmt: skip
def test_rank_correlation(first: list[float], second: list[float], rank: float | None) -> None:
    assert spearman(first, second) == (None if rank is None else pytest.approx(rank))


def test_the_error_of_a_kind_is_found_on_networks_that_consist_of_it() -> None:
    samples = [Sample(f"n{i}", "", float(i), {"conv: macs": float(i)}) for i in range(1, 5)]
    samples += [Sample("p", "", 1.0, {"pool: elements": 1.0}), Sample("q", "", 2.0, {"pool: elements": 1.0})]
    errors = kind_errors(samples)
    assert errors["conv"] == pytest.approx(0)
    # each one predicted from the other: 2 instead of 1, and 1 instead of 2
    assert errors["pool"] == pytest.approx((1 + 0.5) / 2)


# -- predictions --------------------------------------------------------------------------------------


def calibration(records: dict[str, Record] | None = None, **changes: Any) -> Calibration:
    """A calibration of this machine with known rates."""
    work: dict[str, float] = {}
    for record in (records or {}).values():
        work |= total_work(record, kernels(record, FUSIONS[ENGINE], SHAPE))
    made = Calibration(
        engine=ENGINE, threads=default_threads(), machine=Machine(cpu_name(), 2, 2**30, "Linux", "3.11"),
        date="2026-01-02T03:04:05+00:00", versions={"cspprof": "1", **ENGINES.get(ENGINE).versions()}, settings={},
        shape=SHAPE, rates={unit: TRUE[unit.rpartition(": ")[2]] for unit in work},
        error=PredictionError((Prediction("net", "family", 1.1, 1.0), Prediction("net2", "family2", 1.9, 2.0))),
        kind_errors={"conv 1×1": 0.07}, samples=[Sample("s", "", 1.0, {"run": 1.0})],
        references=[Sample("r", "f", 1.0, {"run": 1.0})], skipped={"x": "reason"}, seconds=1.5, other_cpu_share=0.0,
    )  # fmt: skip
    return replace(made, **changes)


def test_a_prediction_is_the_sum_of_its_kernels_and_of_one_run(records: dict[str, Record]) -> None:
    for name, record in records.items():
        prediction = predict(record, calibration(records))
        expected = true_seconds(total_work(record, kernels(record, FUSIONS[ENGINE], SHAPE)))
        assert prediction.seconds == pytest.approx(expected, rel=1e-12), name
        assert prediction.missed == 0
        paths = [p for kernel in prediction.kernels for p in (kernel.path, *kernel.fused)]
        views = sum(record.specs[i].kind == "view" for i in record.calls.spec)
        assert len(paths) == len(record.calls.spec) - views, "each operation is in one kernel"


def test_a_prediction_has_the_error_of_the_calibration_and_of_each_kind(records: dict[str, Record]) -> None:
    prediction = predict(records["squeezenet"], calibration(records))
    assert prediction.error == pytest.approx(0.075)  # the median of 0.1 and 0.05
    assert prediction.range == pytest.approx((1 / 1.1, 2 / 1.9))
    assert {k.error for k in prediction.kernels if k.kind == "conv 1×1"} == {0.07}
    assert {k.error for k in prediction.kernels if k.kind == "max pool"} == {None}


def test_an_operation_of_unknown_time_makes_the_total_a_lower_bound(records: dict[str, Record]) -> None:
    full = calibration(records)
    known = {unit: rate for unit, rate in full.rates.items() if not unit.startswith("max pool")}
    prediction = predict(records["squeezenet"], replace(full, rates=known))
    assert prediction.missed == 3
    assert prediction.seconds < predict(records["squeezenet"], full).seconds
    assert {k.kind for k in prediction.kernels if k.seconds is None} == {"max pool"}


def test_a_recurrent_layer_has_no_predicted_time(records: dict[str, Record]) -> None:
    record = cspprof.profile(nn.LSTM(8, 8), (4, 1, 8))
    assert predict(record, calibration(records)).missed == 1
    assert estimate(record, HARDWARE.get("t4")).missed == 1


def test_another_dtype_is_refused(records: dict[str, Record]) -> None:
    record = cspprof.profile("resnet10", (1, 3, 32, 32), dtype="float16")
    for call in (lambda: predict(record, calibration(records)), lambda: estimate(record, HARDWARE.get("t4"))):
        with pytest.raises(CspprofError, match="predicted for float32") as raised:
            call()
        assert raised.value.hint == "Leave out --dtype."


def test_an_estimate_is_the_roofline_of_each_kernel() -> None:
    record = cspprof.profile(
        nn.Sequential(nn.Conv2d(16, 16, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2)), (1, 16, 10, 10)
    )
    prediction = estimate(record, hardware("chip:1:1"))  # 10⁹ MACs and 10⁹ bytes per second
    macs, traffic = 16 * 16 * 9 * 64, 4 * (16 * 64 + 16 * 16)
    assert [k.seconds for k in prediction.kernels] == [pytest.approx(macs * 1e-9), pytest.approx(traffic * 1e-9)]
    assert [k.limit for k in prediction.kernels] == ["compute", "memory"]
    assert prediction.error is None


@pytest.mark.parametrize("name", list(HARDWARE))
def test_each_figure_of_named_hardware_has_a_source(name: str) -> None:
    entry = HARDWARE.get(name)
    assert entry.peak_source
    assert entry.bandwidth_source
    assert entry.source == f"{entry.peak_source}; {entry.bandwidth_source}"


# -- files --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of calibrations, empty."""
    monkeypatch.setenv("CSPPROF_CALIBRATION_DIR", str(tmp_path / "calibrations"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "calibrations").mkdir()
    return tmp_path / "calibrations"


def test_a_calibration_is_read_as_it_was_written(folder: Path, records: dict[str, Record]) -> None:
    written = calibration(records)
    path = folder / "x.calibration.json"
    written.save(path)
    validate(json.loads(path.read_text()), SCHEMAS["calibration"])
    assert Calibration.load(path) == written


def test_the_printed_calibrations_fit_their_schema(records: dict[str, Record]) -> None:
    """The schema refers to that of one calibration, in the same folder."""
    registry: Registry[Any] = Registry().with_resource(
        "calibration-1.schema.json", Resource.from_contents(SCHEMAS["calibration"])
    )
    validator = Draft202012Validator(SCHEMAS["calibrations"], registry=registry)
    report = calibration_report([calibration(records)] * 2, ["a.calibration.json", "b.calibration.json"])
    document = json.loads(render("json", report))
    validator.validate(document)
    assert (document["schema"], len(document["calibrations"])) == ("cspprof.calibrations/1", 2)
    del document["calibrations"][1]["rates"]
    assert [error.message for error in validator.iter_errors(document)] == ["'rates' is a required property"]


@pytest.mark.parametrize(("content", "message", "hint"), [
    ("{", "is not a calibration", "cspprof calibrate"),
    ('{"schema": "cspprof.calibration/0"}', "this version reads 'cspprof.calibration/1'", "cspprof calibrate"),
    ('{"schema": "cspprof.calibration/1"}', "is damaged", "cspprof calibrate"),
    ('{"schema": "cspprof.calibration/1", "machine": 3}', "is damaged", "cspprof calibrate"),
    ("[]", "this version reads", "cspprof calibrate"),
])  # fmt: skip
def test_a_damaged_calibration_is_named(folder: Path, content: str, message: str, hint: str) -> None:
    (folder / "x.calibration.json").write_text(content)
    with pytest.raises(CspprofError, match=message) as raised:
        Calibration.load(folder / "x.calibration.json")
    assert hint in (raised.value.hint or "")


def test_a_file_of_another_kind_is_not_replaced(folder: Path, records: dict[str, Record]) -> None:
    path = folder / "x.calibration.json"
    path.write_text("{}")
    with pytest.raises(CspprofError, match="is not a calibration of cspprof"):
        calibration(records).save(path)


def test_without_a_calibration_the_error_says_how_to_make_one(folder: Path) -> None:
    with pytest.raises(CspprofError, match="this machine has no calibration") as raised:
        calibration_file.find(None, None)
    assert (raised.value.hint or "").endswith("cspprof calibrate")
    with pytest.raises(CspprofError, match="no calibration of openvino for 1 thread\n") as raised:
        calibration_file.find("openvino", 1)
    assert (raised.value.hint or "").endswith("cspprof calibrate --engine openvino --threads 1")


def test_a_calibration_for_other_threads_is_offered(folder: Path, records: dict[str, Record]) -> None:
    threads = default_threads()
    calibration(records, threads=threads + 1).save(stored_path(ENGINE, threads + 1))
    with pytest.raises(CspprofError, match="no calibration") as raised:
        calibration_file.find(None, None)
    assert f"There is one for: --engine {ENGINE} --threads {threads + 1}" in (raised.value.hint or "")
    assert calibration_file.find(None, threads + 1).threads == threads + 1


def test_onnx_runtime_is_the_default_engine(folder: Path, records: dict[str, Record]) -> None:
    threads = default_threads()
    calibration(records, engine="torch", versions=ENGINES.get("torch").versions()).save(stored_path("torch", threads))
    assert calibration_file.find(None, None).engine == "torch"
    calibration(records).save(stored_path(ENGINE, threads))
    assert calibration_file.find(None, None).engine == ENGINE
    assert calibration_file.find("torch", None).engine == "torch"


def test_a_calibration_of_another_machine_or_version_is_refused(records: dict[str, Record]) -> None:
    made = calibration(records)
    check_machine(made)
    with pytest.raises(CspprofError, match=r"was made on .*, and this machine is Other CPU") as raised:
        check_machine(made, cpu="Other CPU")
    assert f"cspprof calibrate --engine {ENGINE} --threads {made.threads}" in (raised.value.hint or "")
    with pytest.raises(CspprofError, match=r"and 0\.1 is installed") as raised:
        check_machine(made, versions={"onnxruntime": "0.1"})
    assert f"cspprof calibrate --engine {ENGINE} --threads {made.threads}" in (raised.value.hint or "")
    check_machine(made, versions={})  # the engine is not installed: its version cannot differ


# -- commands -----------------------------------------------------------------------------------------


@pytest.fixture
def calibrated(folder: Path, records: dict[str, Record]) -> Calibration:
    """This machine is calibrated."""
    made = calibration(records)
    made.save(stored_path(ENGINE, made.threads))
    return made


def test_profile_predicts_the_time_with_its_error(calibrated: Calibration, run: Run) -> None:
    shown = run("profile", "resnet10", "squeezenet", "--input", "1x3x64x64", "--machine", "calibrated", "--format",
                "json").out  # fmt: skip
    document = json.loads(shown)
    validate(document, SCHEMAS["prediction"])
    record = cspprof.profile("resnet10", (1, 3, 64, 64))
    first = document["predictions"][0]
    assert first["latency_ms"] == pytest.approx(predict(record, calibrated).seconds * 1e3)
    assert first["error"] == pytest.approx(0.075)
    assert first["engine"] == ENGINE
    parts = [layer["latency_ms"] for layer in first["layers"]]
    assert sum(parts) + first["run_ms"] == pytest.approx(first["latency_ms"])
    assert first["compute_share"] + first["memory_share"] + first["overhead_share"] == pytest.approx(1)
    table = run("profile", "resnet10", "--input", "1x3x64x64", "--machine", "calibrated")
    assert "± 7.5 %" in table.out
    assert "each left out of the fit, are off by 7.5 % (median) and by at most 10.0 % (net)" in " ".join(
        table.out.split()
    )
    assert "batch norm, simple activations and sums are computed in the convolution before them" in " ".join(
        table.out.split()
    )


@pytest.mark.parametrize("format_", ["markdown", "latex", "csv", "html"])
def test_every_format_shows_predictions(calibrated: Calibration, run: Run, format_: str) -> None:
    shown = run("profile", "resnet10", "--input", "1x3x64x64", "--machine", "calibrated", "--format", format_)
    assert shown.code == 0, shown.err
    if format_ == "csv":
        header, row = shown.out.splitlines()
        assert dict(zip(header.split(","), row.split(","), strict=False))["model"] == "resnet10"
        assert "latency_ms" in header
    else:
        assert "± 7.5" in shown.out
        assert "resnet10" in shown.out


def test_layers_are_listed_in_execution_order_or_grouped(calibrated: Calibration, run: Run) -> None:
    words = ("profile", "resnet10", "--input", "1x3x64x64", "--machine", "calibrated", "--format", "csv")
    layers = run(*words, "--layers").out.splitlines()
    prediction = predict(cspprof.profile("resnet10", (1, 3, 64, 64)), calibrated)
    assert len(layers) == 1 + len(prediction.kernels)
    assert prediction.kernels[0].path in layers[1]
    assert prediction.kernels[0].fused
    assert f",{', '.join(prediction.kernels[0].fused)}," in layers[1].replace('"', "")
    assert len(run(*words, "--top", "2").out.splitlines()) == 3
    kinds = run(*words, "--by", "kind").out.splitlines()
    assert len(kinds) == 1 + len({k.kind for k in prediction.kernels})
    modules = run(*words, "--depth", "1").out.splitlines()
    assert len(modules) == 1 + len({k.path.split(".")[0] for k in prediction.kernels})


def test_the_time_on_named_hardware_is_an_estimate_of_unknown_error(run: Run) -> None:
    shown = run("profile", "resnet10", "--machine", "i9-9900k")
    assert shown.code == 0
    text = " ".join(shown.out.split())
    assert "unknown" in text
    assert "8 cores at their base clock" in text
    assert "two channels of DDR4-2666" in text
    assert "nothing was measured on this hardware" in text


@pytest.mark.parametrize(("words", "message", "hint"), [
    (["--machine", "i9"], "no machine named 'i9'", "i9-9900k"),
    (["--machine", "mychip:1"], "cannot parse the hardware", "name:peak_gmacs:gb_per_s"),
    (["--machine", "none.calibration.json"], "there is no file", "cspprof calibrate --save none.calibration.json"),
    (["--machine", "calibrated"], "this machine has no calibration", "cspprof calibrate"),
    (["--machine", "calibrated", "--engine", "onnxrt"], "no engine named 'onnxrt'", "onnxruntime"),
    (["--machine", "t4", "--engine", "torch"], "--engine chooses a calibration", "--machine calibrated"),
    (["--machine", "t4", "--threads", "2"], "--threads chooses a calibration", "leave out --threads"),
    (["--machine", "t4", "--metric", "macs"], "--metric has no meaning there", "Leave out one of them"),
    (["--machine", "t4", "--train"], "--train has no meaning there", "Leave out one of them"),
    (["--machine", "t4", "--by", "stage"], "not grouped by stage", "--by kind"),
    (["--engine", "torch"], "--engine needs --machine", "--machine calibrated"),
    (["--machine", "t4", "--dtype", "float16"], "predicted for float32", "Leave out --dtype"),
])  # fmt: skip
def test_mistakes_have_hints(folder: Path, run: Run, words: list[str], message: str, hint: str) -> None:
    failed = run("profile", "resnet10", *words)
    assert failed.code == 2
    assert message in failed.err
    assert hint in failed.err


def test_a_file_of_another_machine_can_be_named(folder: Path, records: dict[str, Record], run: Run) -> None:
    machine = Machine("Other CPU", 4, 2**30, "Linux", "3.11")
    calibration(records, machine=machine).save(Path("other.calibration.json"))
    shown = run("profile", "resnet10", "--input", "1x3x64x64", "--machine", "other.calibration.json")
    assert shown.code == 0
    assert "Other CPU" in shown.out
    refused = run("profile", "resnet10", "--machine", "other.calibration.json", "--engine", "torch")
    assert "is a calibration of onnxruntime" in refused.err


def test_a_busy_calibration_is_named(folder: Path, records: dict[str, Record], run: Run) -> None:
    calibration(records, other_cpu_share=0.4).save(Path("busy.calibration.json"))
    shown = run("profile", "resnet10", "--input", "1x3x64x64", "--machine", "busy.calibration.json")
    assert "other processes used 40.0 % of its CPUs" in " ".join(shown.out.split())


def test_a_prediction_for_a_saved_profile_imports_neither_torch_nor_numpy(calibrated: Calibration) -> None:
    cspprof.profile("resnet10", (1, 3, 64, 64)).save("net.profile.json")
    code = (
        "import sys; from cspprof.cli import main\n"
        "try: main(['profile', 'net.profile.json', '--machine', 'calibrated'])\n"
        "except SystemExit as exit: assert not exit.code, exit.code\n"
        "assert not {'torch', 'numpy', 'onnxruntime', 'psutil'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("words", "message", "hint"), [
    (["--engine", "onnxrt"], "no engine named 'onnxrt'", "onnxruntime"),
    (["--threads", "0"], "--threads 0", "--threads N"),
    (["--save", "x.json"], "ends in .calibration.json", "--save x.calibration.json"),
    (["--engine", "torch,opencv", "--save", "x.calibration.json"], "of one engine", "--engine torch"),
])  # fmt: skip
def test_mistakes_of_calibrate_have_hints(folder: Path, run: Run, words: list[str], message: str, hint: str) -> None:
    failed = run("calibrate", *words)
    assert failed.code == 2
    assert message in failed.err
    assert hint in failed.err


# -- a real calibration -------------------------------------------------------------------------------


def test_every_short_network_runs_and_has_a_record_without_unknown_operations() -> None:
    from cspprof.measure.calibration.networks import NETWORKS

    networks = short_networks(["conv3_64_64_64_at_56", "tiny", "shuffle_256_at_28", "transposed_128_64_at_28"])
    assert all(n.record.complete for n in networks)
    assert len(NETWORKS) > 80


@pytest.mark.slow
def test_all_short_networks_cover_the_kinds_of_kernels_of_the_zoo(records: dict[str, Record]) -> None:
    short = {unit for n in short_networks() for unit in total_work(n.record, kernels(n.record, FUSIONS[ENGINE], SHAPE))}
    for name in ("mobilenet_v2", "efficientnet_b0_darknet", "thundernet_snet49", "csp_resnext50", "peleenet_yolo"):
        record = cspprof.profile(name)
        assert not set(total_work(record, kernels(record, FUSIONS[ENGINE], SHAPE))) - short, name
    for record in records.values():
        assert not set(total_work(record, kernels(record, FUSIONS[ENGINE], SHAPE))) - short


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_a_real_calibration_of_a_few_networks_predicts(engine: str, tmp_path: Path) -> None:
    if ENGINES.get(engine).missing():
        pytest.skip("the engine is not installed")
    session = CalibrationSession(
        engine, 1, references=["resnet10", "squeezenet"],
        names=["conv3_64_64_64_at_56", "conv1_64_256_64_256_at_56", "conv3_3_32_at_224_stride2",
               "conv_leaky_128_at_28",
               "max_pool3_64_at_56", "norm_relu_128_at_28", "global_pool_512_at_28", "dense_64_32_at_56",
               "copy_64_at_112",
               "residual_64_at_56", "linear_2048_1000", "tiny"],
    )  # fmt: skip
    made = session.run()
    assert made.skipped == {}
    assert len(made.samples) == 12
    assert all(s.seconds > 0 for s in made.samples)
    assert {p.name for p in made.error.predictions} == {"resnet10", "squeezenet"}
    assert made.engine == engine
    assert made.versions[engine]
    made.save(tmp_path / "x.calibration.json")
    validate(json.loads((tmp_path / "x.calibration.json").read_text()), SCHEMAS["calibration"])
    prediction = predict(cspprof.profile("resnet10", (1, 3, 64, 64)), made)
    assert 0 < prediction.seconds < 10
