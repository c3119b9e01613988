"""The deployed form of a network: batch norms folded, branches merged, activations in place, outputs unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Result
from torch import nn
from torch.nn import functional as F

import cspprof
from cspprof.analysis.int8 import at_int8
from cspprof.core.errors import CspprofError
from cspprof.deployment.foldable_norms import (
    BATCH_STATISTICS,
    COMPUTED_WEIGHT,
    NO_LAYER,
    OTHER_CHANNELS,
    OTHER_READER,
    SHARED,
    find_foldable_norms,
)
from cspprof.metrics import value_of
from cspprof.profiles import Profile
from cspprof.sources import Request, cache_key
from cspprof.sources.deployed_form import trace_deployed

Run = Callable[..., Result]
IMAGE = (1, 3, 8, 8)


def deployed(model: nn.Module, inputs: Any = IMAGE, **options: Any) -> Profile:
    return cspprof.profile(model, inputs, deploy=True, **options)


def operations(profile: Profile) -> list[str]:
    return [op.spec.name for op in profile.ops if op.kind != "view"]


class Net(nn.Module):
    """A convolution and a batch norm; tests override the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)  # before the convolution, on purpose: the order of modules means nothing
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.norm(self.conv(x)))


# -- batch norms ----------------------------------------------------------------------------------


def test_a_batch_norm_becomes_the_bias_of_the_convolution_in_front_of_it() -> None:
    model = Net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain, form = cspprof.profile(model, IMAGE), deployed(model)
    assert operations(plain) == ["conv2d", "batch_norm", "conv2d"]
    assert operations(form) == ["conv2d", "conv2d"]
    assert form.total("macs") == plain.total("macs")
    assert (plain.params, form.params) == (216 + 16 + 36, 216 + 8 + 36)
    assert form.total("traffic_bytes") == 4 * (192 + 216 + 8 + 512 + 512 + 36 + 256)
    assert (form.model, form.deployed, plain.deployed) == ("Net deployed", True, False)
    assert form.notes[0] == "Net: 1 batch norm folded"
    assert form.notes[1].startswith("Net: outputs on random input equal those of the training form")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training


class ReluBetween(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.norm(F.relu(self.conv(x))))


class InPlaceBetween(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.norm(self.conv(x).relu_()))


class Shortcut(Net):
    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        return self.head(self.norm(y) + y)


class ReadThroughAView(Net):
    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        return self.head(self.norm(y)) + y[:, :4]


class ReadAsAWeight(Net):
    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        return F.conv2d(self.norm(y), y.transpose(2, 3)[:, :, :1, :1])


class Returned(Net):
    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        return y, self.norm(y)


class Transposed(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.norm(self.conv(x).transpose(1, 2)))


class NormFirst(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return F.conv2d(self.norm(x.repeat(1, 3, 1, 1)[:, :8]), self.head.weight)


class BatchStatistics(Net):
    def forward(self, x: torch.Tensor) -> Any:
        y = self.conv(x)
        return self.head(F.batch_norm(y, self.norm.running_mean, self.norm.running_var, training=True))


class NoStatistics(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8, track_running_stats=False)


class TwoNorms(Net):
    def __init__(self) -> None:
        super().__init__()
        self.second = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> Any:
        return self.norm(self.conv(x)) + self.second(self.conv(2 * x))


class SharedOnce(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return self.norm(self.conv(x)) + self.conv(2 * x)


class SharedNorm(Net):
    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(3, 8, 1)

    def forward(self, x: torch.Tensor) -> Any:
        return self.norm(self.conv(x)) + self.norm(self.second(x))


class ComputedWeight(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return self.norm(F.conv2d(x, self.conv.weight * 2))


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (ReluBetween, NO_LAYER),
        (InPlaceBetween, NO_LAYER),
        (NormFirst, NO_LAYER),
        (Shortcut, OTHER_READER),
        (ReadThroughAView, OTHER_READER),
        (ReadAsAWeight, OTHER_READER),
        (Returned, OTHER_READER),
        (Transposed, OTHER_CHANNELS),
        (BatchStatistics, BATCH_STATISTICS),
        (NoStatistics, BATCH_STATISTICS),
        (TwoNorms, SHARED),
        (SharedOnce, SHARED),
        (SharedNorm, SHARED),
        (ComputedWeight, COMPUTED_WEIGHT),
    ],
)
def test_a_batch_norm_stays_where_no_weights_can_replace_it(cls: type[Net], reason: str) -> None:
    plain, form = cspprof.profile(cls(), IMAGE), deployed(cls())
    assert find_foldable_norms(plain).groups == []
    assert set(find_foldable_norms(plain).left.values()) == {reason}
    assert operations(form) == operations(plain)
    assert form.params == plain.params
    assert reason in form.notes[0]
    assert form.notes[0].startswith(f"{cls.__name__}: nothing to fold or merge; ")


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Conv1d(6, 8, 3, groups=2), nn.BatchNorm1d(8), (2, 6, 9)),
        (nn.Conv3d(6, 8, 2), nn.BatchNorm3d(8, affine=False), (1, 6, 4, 4, 4)),
        (
            nn.Conv2d(6, 12, 3, groups=3, bias=False, padding_mode="reflect", padding=1),
            nn.BatchNorm2d(12),
            (1, 6, 8, 8),
        ),
        (nn.Conv2d(6, 8, 3, padding="same"), nn.BatchNorm2d(8, eps=0.1), (1, 6, 8, 8)),
        (nn.ConvTranspose2d(6, 8, 2, stride=2), nn.BatchNorm2d(8), (1, 6, 8, 8)),
        (nn.ConvTranspose2d(6, 12, 2, groups=3, bias=False), nn.BatchNorm2d(12), (1, 6, 8, 8)),
        (nn.Linear(6, 8), nn.BatchNorm1d(8), (4, 6)),
        (nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), (4, 6)),
    ],
)
def test_every_kind_of_layer_takes_its_batch_norm_and_returns_the_same(
    layer: nn.Conv2d, norm: nn.BatchNorm2d, shape: tuple[int, ...]
) -> None:
    """A wrong fold is refused, so each profile below is proven on real tensors."""
    channels = norm.num_features
    form = deployed(nn.Sequential(layer, norm), shape)
    assert [op.kind for op in form.ops if op.kind == "norm"] == []
    assert form.params == layer.weight.numel() + channels
    assert "equal those of the training form" in form.notes[1]


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), (2, 4, 6)),  # normalizes the rows
        (nn.Sequential(nn.Conv1d(6, 7, 3), nn.BatchNorm1d(7)), (6, 9)),  # an input without a batch
    ],
)
def test_a_norm_of_another_dimension_stays(model: nn.Module, shape: tuple[int, ...]) -> None:
    assert set(find_foldable_norms(cspprof.profile(model, shape)).left.values()) == {OTHER_CHANNELS}
    assert "batch_norm" in operations(deployed(model, shape))


def test_a_convolution_that_is_called_twice_takes_the_norm_behind_both_calls() -> None:
    """A detection head that runs on two levels."""

    class Head(Net):
        def forward(self, x: torch.Tensor) -> Any:
            return self.norm(self.conv(x)), self.norm(self.conv(x[..., ::2, ::2]))

    form = deployed(Head())
    assert operations(form).count("conv2d") == 2
    assert "batch_norm" not in operations(form)
    assert form.notes[0] == "Head: 2 batch norms folded"


def test_a_norm_that_the_forward_calls_as_a_function_stays_with_a_note() -> None:
    class Functional(Net):
        def forward(self, x: torch.Tensor) -> Any:
            norm = self.norm
            y = F.conv2d(x, self.conv.weight)
            return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    form = deployed(Functional())
    assert operations(form) == ["conv2d", "batch_norm"]
    assert form.notes[0] == (
        "Functional: nothing to fold or merge; 1 batch norm stays: it is no module of a batch norm class: the forward "
        "calls a function"
    )


def test_a_forward_that_passes_no_bias_keeps_its_norm() -> None:
    class NoBias(Net):
        def forward(self, x: torch.Tensor) -> Any:
            return self.norm(F.conv2d(x, self.conv.weight))

    form = deployed(NoBias())
    assert operations(form) == ["conv2d", "batch_norm"]
    assert "it follows a layer that has no place for a bias" in form.notes[0]


def test_an_activation_may_overwrite_its_input_unless_that_is_read_again() -> None:
    body = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 1))
    plain, form = cspprof.profile(body, IMAGE), deployed(body)
    assert (plain.total("peak_bytes"), form.total("peak_bytes")) == (4 * 64 * 32, 4 * 64 * 20)
    assert form.notes[0] == "Sequential: 1 activation in place"
    assert not body[1].inplace

    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 16, 1), nn.ReLU()

        def forward(self, x: torch.Tensor) -> Any:
            y = self.conv(x)
            return y + self.relu(y)

    assert deployed(Again()).notes == ("Again: nothing to fold or merge",)


class FrozenBatchNorm2d(nn.Module):
    """As in torchvision and detectron2."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = 1e-3
        for name, value in (("weight", 2.0), ("bias", 0.5), ("running_mean", 0.25), ("running_var", 4.0)):
            self.register_buffer(name, torch.full((8,), value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias, mean, var = (b.reshape(1, -1, 1, 1) for b in self.buffers())
        scale = weight * (var + self.eps).rsqrt()
        return x * scale + (bias - mean * scale)


def test_frozen_batch_norms_fold_or_stay_frozen() -> None:
    class Frozen(Net):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.second = FrozenBatchNorm2d(), FrozenBatchNorm2d()

        def forward(self, x: torch.Tensor) -> Any:
            return self.second(self.norm(self.conv(x)).relu())

    plain, form = cspprof.profile(Frozen(), IMAGE), deployed(Frozen())
    assert operations(plain).count("rsqrt") == 2
    assert operations(form).count("rsqrt") == 1
    assert "batch_norm" not in operations(form)
    assert form.notes[0].startswith("Frozen: 1 batch norm folded; 1 batch norm stays")


# -- branches -------------------------------------------------------------------------------------


class Branches(nn.Module):
    """Two convolutions whose sum one convolution replaces."""

    factor = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.merged: nn.Conv2d | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.large(x) + self.small(x) if self.merged is None else self.merged(x)
        return result

    def switch_to_deploy(self) -> None:
        merged = nn.Conv2d(3, 8, 3, padding=1)
        merged.weight.copy_(self.large.weight + F.pad(self.factor * self.small.weight, [1, 1, 1, 1]))
        merged.bias.copy_(self.large.bias + self.small.bias)
        self.merged = merged
        del self.large, self.small


class WrongBranches(Branches):
    factor = 1.01


def test_branches_are_merged_by_the_method_of_their_block_then_folded() -> None:
    model = nn.Sequential(Branches(), nn.BatchNorm2d(8), Branches().large)
    form = deployed(nn.Sequential(Branches(), nn.BatchNorm2d(8)))
    assert operations(form) == ["conv2d"]
    assert form.params == 3 * 8 * 9 + 8
    assert form.notes[0] == "Sequential: 1 module merged by switch_to_deploy(), 1 batch norm folded"
    assert {storage.spec.dtype for storage in form.storages} == {"float32"}
    assert isinstance(model[0].large, nn.Conv2d)


def test_a_merge_that_changes_the_output_is_refused_with_the_difference() -> None:
    with pytest.raises(CspprofError) as caught:
        deployed(nn.Sequential(WrongBranches()))
    assert "after merging 1 × WrongBranches, its outputs differ by " in caught.value.message
    assert "leave out --deploy" in str(caught.value.hint)


def test_only_methods_without_arguments_are_called() -> None:
    class Fusion(nn.Module):
        """`fuse` needs two feature maps; the flag and the layer of this name are no methods."""

        def __init__(self) -> None:
            super().__init__()
            self.reparameterize = nn.Conv2d(3, 8, 1)
            self.switch_to_deploy = True

        def fuse(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a + b

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fuse(self.reparameterize(x), x.sum())

    assert deployed(nn.Sequential(Fusion())).notes == ("Sequential: nothing to fold or merge",)


def test_a_block_whose_method_fails_stays_as_it_is() -> None:
    class Broken(Branches):
        def switch_to_deploy(self) -> None:
            del self.large
            raise RuntimeError("no kernel\nmore")

    form = deployed(nn.Sequential(Broken(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)))
    assert operations(form) == ["conv2d", "conv2d", "add", "conv2d"]
    assert form.notes[-1] == (
        "Sequential: 0 could not be merged and stays as it is: Broken.switch_to_deploy() raised RuntimeError: no kernel"
    )


def test_fuse_may_return_the_module_that_replaces_its_own_also_of_a_shared_block() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.scale = nn.Conv2d(3, 3, 1), nn.Parameter(torch.tensor(2.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.conv(x) * self.scale
            return result

        def fuse(self) -> nn.Module:
            fused = nn.Conv2d(3, 3, 1)
            fused.weight.copy_(self.conv.weight * self.scale)
            fused.bias.copy_(self.conv.bias * self.scale)
            return fused

    block = Block()
    form = deployed(nn.Sequential(block, nn.ReLU(inplace=True), block))
    assert operations(form) == ["conv2d", "relu_", "conv2d"]
    assert form.params == 12
    assert form.notes[0] == "Sequential: 1 module merged by fuse()"


# -- proof ----------------------------------------------------------------------------------------


def test_a_network_whose_output_proves_nothing_is_refused() -> None:
    class Constant(Net):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x) * 0 + 1

    class NoTensor(Net):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x)[:0]

    with pytest.raises(CspprofError, match="cannot be proven: the output changes by"):
        deployed(Constant())
    with pytest.raises(CspprofError, match="the forward returns no numbers"):
        deployed(NoTensor())


def test_a_forward_that_fails_on_real_tensors_is_refused() -> None:
    class OnlyMeta(Net):
        def forward(self, x: torch.Tensor) -> Any:
            if not x.is_meta:
                raise RuntimeError("needs an accelerator")
            return super().forward(x)

    with pytest.raises(CspprofError, match="does not run on the CPU: RuntimeError: needs an accelerator"):
        deployed(OnlyMeta())


def test_float64_decides_where_rounding_errors_of_float32_are_multiplied() -> None:
    class Cancelling(Net):
        def forward(self, x: torch.Tensor) -> Any:
            y = super().forward(x)
            return y - y.mean() * (1 - 1e-7) + torch.sin(1e4 * y)

    assert "below 1e-06, float64 on the CPU" in deployed(Cancelling()).notes[1]
    assert "below 1e-04, float32 on the CPU" in deployed(Net()).notes[1]


def test_weights_on_meta_and_training_mode_are_refused() -> None:
    with torch.device("meta"):
        model = Net()
    with pytest.raises(CspprofError, match="the weights of the model are on meta"):
        deployed(model)
    with pytest.raises(CspprofError, match="exclude each other"):
        trace_deployed(Net(), IMAGE, device=None, dtype=None, train=True)


def test_the_dtype_of_the_weights_stays() -> None:
    assert {
        storage.spec.dtype
        for storage in deployed(Net().half(), cspprof.TensorSpec(IMAGE, "float16")).storages
        if storage.role == "parameter"
    } == {"float16"}
    form = deployed(Net(), dtype="bfloat16")
    assert form.total("traffic_bytes") == 2 * (192 + 216 + 8 + 512 + 512 + 36 + 256)


# -- the command line -----------------------------------------------------------------------------


NET = """\
from torch import nn


class Net(nn.Sequential):
    example_input_shape = (1, 3, 8, 8)

    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The SPEC of a network of a user."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    return "net.py:Net"


def test_compare_shows_both_forms_of_each_model(net: str, run: Run) -> None:
    once = json.loads(run("compare", net, "--deploy", "--format", "json").out)
    plain, form = once["models"]
    assert (plain["model"], form["model"]) == (net, f"{net} deployed")
    assert (plain["params"], form["params"]) == (216 + 16, 216 + 8)
    assert plain["macs"] == form["macs"]
    assert [layer["kind"] for layer in form["layers"]] == ["conv", "activation"]
    assert json.loads(run("compare", net, net, "--deploy", "--format", "json").out) == once
    two = cspprof.compare(cspprof.profile(net, deploy=True), net, deploy=False)
    assert [p.model for p in cspprof.compare(net, deploy=True).profiles] == [net, f"{net} deployed"]
    assert two.deltas(["params"])[0].value == 232


def test_the_form_belongs_to_what_a_cached_record_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cspprof.sources.installation", lambda name: "cspprof-1.0 abc")
    monkeypatch.setattr("cspprof.sources.user_code_has_run", lambda: False)
    monkeypatch.setattr("cspprof.sources.cache_keys.installation", lambda name: "torch-1.0 abc")
    keys = [cache_key("resnet10", Request(deploy=deploy)) for deploy in (False, True)]
    assert None not in keys
    assert keys[0] != keys[1]


def test_a_saved_profile_has_one_form(net: str, tmp_path: Path, run: Run) -> None:
    plain, form = str(tmp_path / "plain.profile.json"), str(tmp_path / "form.profile.json")
    assert run("profile", net, "--save", plain).code == 0
    assert run("profile", net, "--deploy", "--save", form).code == 0
    assert Profile.load(form).deployed
    assert run("profile", form, "--deploy").code == 0
    refused = run("profile", plain, "--deploy")
    assert refused.code == 2
    assert "--deploy cannot change it" in refused.err
    assert "cspprof profile net.py:Net --deploy --save x.profile.json" in refused.err
    assert "--dtype float16 --deploy" in run("profile", form, "--dtype", "float16").err


@pytest.mark.parametrize("options", [["--train"], ["--training"]])
def test_options_of_training_exclude_the_deployed_form(net: str, run: Run, options: list[str]) -> None:
    result = run("profile", net, "--deploy", *options)
    assert (result.code, "exclude each other" in result.err) == (2, True)


def test_a_darknet_network_can_be_deployed(tmp_path: Path, run: Run) -> None:
    cfg = tmp_path / "net.cfg"
    layer = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize=3\npad=1\nactivation=leaky\n\n"
    cfg.write_text("[net]\nwidth=8\nheight=8\nchannels=3\n\n" + layer.format(8) + layer.format(4))
    plain, form = (
        json.loads(run("profile", str(cfg), *more, "--format", "json").out)["models"][0] for more in ([], ["--deploy"])
    )
    assert plain["params"] - form["params"] == 12
    assert plain["macs"] == form["macs"]
    assert not any(layer["kind"] == "norm" for layer in form["layers"])


# -- int8 -----------------------------------------------------------------------------------------


def test_int8_counts_one_byte_per_element(run: Run) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 4, 1))
    full, small = cspprof.profile(model, IMAGE), cspprof.profile(model, IMAGE, dtype="int8")
    for metric in ("traffic_bytes", "peak_bytes", "cio_bytes"):
        assert full.total(metric) == 4 * small.total(metric)
    assert small.total("peak_bytes") == 64 * 32
    assert small.total("traffic_bytes") == 64 * (3 + 16 + 16 + 16 + 16 + 4) + (432 + 16) + (64 + 4)
    assert (small.total("macs"), small.params) == (full.total("macs"), full.params)
    assert (small.dtype, small.total("train_macs")) == ("int8", None)
    assert small.notes[-1] == (
        "Sequential at int8: weights take 516 B instead of 2.02 KiB, activations at the peak 2.00 KiB instead of "
        "8.00 KiB, one byte per element. Scales, zero points, and 32-bit biases and accumulators are not included."
    )
    assert cspprof.profile(small, dtype="int8").notes == small.notes


def test_int8_applies_to_what_was_recorded_and_keeps_integers(tmp_path: Path, run: Run) -> None:
    file = str(tmp_path / "net.profile.json")
    embedding = nn.Sequential(nn.Embedding(10, 16), nn.Linear(16, 4))
    cspprof.profile(embedding, cspprof.TensorSpec((1, 8), "int64")).save(file)
    options = ("--metric", "traffic_bytes,peak_bytes", "--dtype", "int8", "--format", "json")
    model = json.loads(run("profile", file, *options).out)["models"][0]
    assert model["peak_bytes"] == 8 * 8 + 8 * 16  # the ids keep eight bytes each
    lookup, linear = 8 * 8 + 8 * 16 + 8 * 16, 8 * 16 + 4 * 16 + 4 + 8 * 4
    assert value_of(at_int8(cspprof.Profile.load(file)), "traffic_bytes") == lookup + linear
    result = run("profile", file, "--dtype", "uint8")
    assert (result.code, "--dtype int8" in result.err) == (2, True)
    assert run("profile", file, "--training", "--dtype", "int8").code == 2


def test_int8_of_the_deployed_form() -> None:
    form = deployed(Net(), dtype="int8")
    assert form.total("traffic_bytes") == 192 + 216 + 8 + 512 + 512 + 36 + 256


def test_whatif_compares_int8_with_floating_dtypes(net: str, tmp_path: Path, run: Run) -> None:
    file = str(tmp_path / "net.profile.json")
    cspprof.profile(Net(), IMAGE).save(file)
    for spec in (net, file):
        rows = run("whatif", spec, "--dtype", "float32,int8", "--metric", "macs,traffic_bytes", "--format", "json")
        full, small = json.loads(rows.out)["results"]
        assert (small["dtype"], small["macs"]) == ("int8", full["macs"])
        assert full["traffic_bytes"] == 4 * small["traffic_bytes"]


# -- other tools ----------------------------------------------------------------------------------


def counts(profile: Profile) -> tuple[int, int, int]:
    """MACs, parameters, and calls of batch norms."""
    return profile.total("macs"), profile.params, operations(profile).count("batch_norm")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fastvit_t8", "repghostnet_050", "repvgg_a0"])
def test_the_counts_are_those_of_what_timm_re_parameterizes(name: str) -> None:
    """Traced apart. timm leaves some batch norms, each of which becomes a bias: half of its parameters remain."""
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    shape = (1, 3, 96, 96)
    merged = timm.utils.reparameterize_model(timm.create_model(name).eval())
    theirs, ours = cspprof.profile(merged, shape), cspprof.profile(f"timm:{name}", shape, deploy=True)
    folded = sum(op.weights[0].numel for op in theirs.ops if op.spec.name == "batch_norm")
    assert counts(ours) == (theirs.total("macs"), theirs.params - folded, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_the_counts_are_those_of_torch_fx(name: str) -> None:
    """torch.fx folds convolution and batch norm in a graph that it traces symbolically."""
    torchvision = pytest.importorskip("torchvision", reason="the extra torchvision is not installed")
    from torch.fx.experimental.optimization import fuse

    shape = (1, 3, 96, 96)
    fused = fuse(torchvision.models.get_model(name).eval())
    assert counts(cspprof.profile(f"torchvision:{name}", shape, deploy=True)) == counts(cspprof.profile(fused, shape))


@pytest.mark.slow
def test_resnet50_has_its_known_number_of_parameters() -> None:
    """25,557,032 with batch norms; folded, each of the 26,560 channels has a bias instead of a weight and a bias."""
    pytest.importorskip("torchvision", reason="the extra torchvision is not installed")
    form = cspprof.profile("torchvision:resnet50", (1, 3, 96, 96), deploy=True)
    assert counts(form)[1:] == (25_557_032 - 26_560, 0)
