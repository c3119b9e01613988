"""Input that `convert` refuses: what was found, and which value works. The user's module is never changed."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Result
from torch import nn
from torch.nn.utils import prune

import cspprof
from cspprof.analysis.constraints import parse_constraint
from cspprof.core.errors import CspprofError
from cspprof.results import Conversion

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
INPUT = (1, 3, 16, 16)


class Residual(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, channels: int = 16, groups: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.conv2(self.conv1(x))
        return y


class Net(nn.Module):
    """A stem, two blocks at 16×16, and a classifier."""

    def __init__(self, block: Callable[[], nn.Module] = Residual, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.body = nn.Sequential(block(), block())
        self.head = nn.Linear(channels, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.body(self.stem(x)).mean((2, 3)))
        return y


def convert(model: nn.Module, **options: Any) -> Conversion:
    return cspprof.convert(model, INPUT, **options)


def refused(model: nn.Module, **options: Any) -> str:
    """Message and hint of the refusal. The module and the state of the random numbers are unchanged."""
    modules, random = list(model.named_modules()), torch.get_rng_state()
    with pytest.raises(CspprofError) as caught:
        convert(model, **options)
    assert list(model.named_modules()) == modules
    assert torch.equal(torch.get_rng_state(), random)
    return str(caught.value)


def reasons(conversion: Conversion) -> dict[str, str]:
    return {stage.name: stage.reason for stage in conversion.stages if stage.plan is None}


# -- γ ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0, 1, -0.5, 1.5, float("nan"), True])
def test_gamma_outside_0_and_1_is_refused(gamma: float) -> None:
    text = refused(Net(), gamma=gamma)
    assert text.startswith(f"gamma={gamma:g} leaves one side of the split empty\n")
    assert text.endswith("0 < γ < 1: --gamma 0.5")


def test_gamma_that_is_no_number_is_refused() -> None:
    assert refused(Net(), gamma="0.5") == "gamma='0.5' is not a number\nWrite a number between 0 and 1: gamma=0.5"


def test_every_gamma_of_a_range_is_checked_before_the_first_conversion(run: Run) -> None:
    got = run("convert", "no_such_network", "--gamma", "0.5:1:0.25")
    assert (got.code, got.out) == (2, "")
    assert "gamma=1 leaves one side of the split empty" in got.err


def test_gamma_without_whole_groups_becomes_the_nearest_that_has_them() -> None:
    """Eight groups of 24 channels: multiples of 8 can be processed, so γ = 0.5 becomes 2/3."""
    conversion = convert(Net(lambda: Residual(24, 8), 24), multiple=1)
    (stage,) = conversion.stages
    assert stage.plan is not None
    assert (stage.plan.bypass, stage.plan.main) == (16, 8)
    assert "γ is 0.667 in body instead of 0.5: widths are whole numbers of channels for all groups" in str(conversion)


def test_no_whole_channel_for_the_groups_names_the_gamma_that_works() -> None:
    """Both parts of 24 channels are multiples of 8, so none is a multiple of 12. Without rounding, 12 and 12 are."""

    def block() -> nn.Module:
        return Residual(24, 12)

    (reason,) = reasons(convert(Net(block, 24))).values()
    assert reason == "8 channels cannot be divided into 12 groups; γ = 0.5 is possible with --round 1"
    (stage,) = convert(Net(block, 24), gamma=0.5, multiple=1).stages
    assert stage.plan is not None
    assert (stage.plan.bypass, stage.plan.main) == (12, 12)


def test_groups_that_need_all_channels_leave_no_gamma() -> None:
    def block() -> nn.Module:
        return nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.GroupNorm(16, 16), nn.Conv2d(16, 16, 1))

    (reason,) = reasons(convert(Net(block))).values()
    assert reason == "8 channels cannot be divided into 16 groups, and no other γ is possible"


def test_one_channel_cannot_be_split() -> None:
    (reason,) = reasons(convert(Net(lambda: Residual(1), 1))).values()
    assert reason == "its map has 1 channel, which cannot be split"


@pytest.mark.parametrize("multiple", [0, -8, 1.5])
def test_multiples_are_positive_integers(multiple: float) -> None:
    assert refused(Net(), multiple=multiple) == f"cannot round to multiples of {multiple}\nGive at least 1: --round 8"


# -- stages -------------------------------------------------------------------------------------------


class Branches(Net):
    """A network with modules that are no stages, for different reasons."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Sequential(nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3))
        self.down = nn.Sequential(nn.Conv2d(16, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, padding=1))
        self.side = nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(self.stem(x))
        inner = self.side[0](x)
        x = self.side[2](self.side[1](inner)) + inner
        y: torch.Tensor = self.head(self.down(x).mean((2, 3)))
        return y


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bodi", "'bodi' is no stage or module of Branches\nThere are: body"),
        ("", "'' is no stage or module of Branches\nThere are: body"),
        ("head", "head is no stage: it is one layer (Linear), and a stage is a row of blocks\nThere are: body"),
        ("body.1", "body.1 is no stage: it is a part of body\nName the whole: body"),
        ("body.1.conv1", "body.1.conv1 is no stage: it is a part of body\nName the whole: body"),
        ("unused", "unused is no stage: it does not run in this forward pass\nThere are: body"),
        ("down", "down is no stage: its convolutions have maps of several resolutions, and a stage has one\n"
                 "There are: body"),
        ("side", "side is no stage: Branches reads a map inside it, the output of side.0\nThere are: body"),
    ],
)  # fmt: skip
def test_a_name_that_is_no_stage_is_refused_with_the_reason_and_the_names_that_work(name: str, text: str) -> None:
    assert refused(Branches(), stages=[name]) == text
    works = text.rpartition(": ")[2]
    assert convert(Branches(), stages=[works]).converted == ["body"]


def test_names_may_be_one_text_with_commas_and_have_a_hyphen_for_a_dash() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = nn.Conv2d(3, 16, 1), Residual(), Residual()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.b(self.a(self.stem(x))).mean((2, 3))
            return y

    assert convert(Named(), stages="a-b").converted == ["a–b"]
    assert convert(Named(), stages=["a–b"]).converted == ["a–b"]
    assert refused(Named(), stages="a,b") == "a is no stage: it is a part of a–b\nName the whole: a–b"
    assert "the name of a stage is a text, not 3" in refused(Named(), stages=[3])


def test_a_stage_is_named_after_the_container_only_if_it_is_all_of_it() -> None:
    """The first block runs again elsewhere, so the stage is the other two."""

    class Again(Net):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(Residual(), Residual(), Residual())
            self.other = self.body[0].conv1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            y: torch.Tensor = self.head((self.body(x) + self.other(x)).mean((2, 3)))
            return y

    assert convert(Again()).converted == ["body.1–2"]


# -- shared modules and weights -------------------------------------------------------------------------


def test_a_module_that_runs_twice_is_left_with_the_reason() -> None:
    class Twice(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.head(self.body(self.body(self.stem(x))).mean((2, 3)))
            return y

    reason = "it runs 2 times in one forward pass, and a CSP stage has weights of its own"
    assert reasons(convert(Twice())) == reasons(convert(Twice(), stages=["body"])) == {"body": reason}


def test_a_module_with_two_names_is_left_with_the_reason() -> None:
    model = Net()
    model.body = nn.Sequential(*[Residual()] * 2)
    (name, reason), = reasons(convert(model)).items()  # fmt: skip
    assert name == "body.0"
    assert reason.startswith("it is also the module body.1 and it runs 2 times")


def test_a_weight_that_two_layers_share_is_not_separated() -> None:
    model = Net()
    model.body[0].conv1.weight = model.body[1].conv1.weight
    assert reasons(convert(model)) == {
        "body": "body.0.conv1.weight and body.1.conv1.weight are one weight, and conversion would separate them"
    }
    outside = Net()
    outside.register_parameter("again", outside.body[0].conv2.weight)
    (reason,) = reasons(convert(outside)).values()
    assert reason == "again and body.0.conv2.weight are one weight, and conversion would separate them"


# -- lazy, quantized, compiled ----------------------------------------------------------------------------


def test_lazy_layers_are_refused_and_convert_after_a_forward() -> None:
    def block() -> nn.Module:
        return nn.Sequential(nn.LazyConv2d(16, 3, padding=1), nn.LazyConv2d(16, 3, padding=1))

    model = Net(block)
    text = refused(model)
    assert text.startswith("body.0.0 (LazyConv2d) is lazy: it gets its shapes in a first forward\n")
    model(torch.randn(INPUT))
    assert convert(model).converted == ["body"]


def test_quantized_layers_are_refused() -> None:
    model = torch.ao.quantization.quantize_dynamic(Net().eval(), {nn.Linear})
    text = refused(model)
    assert text.startswith("head (Linear) is quantized, and a network with other widths must be trained\n")
    assert text.endswith("Convert the float model, train it, and quantize the result.")


def test_integer_weights_are_left_with_the_reason() -> None:
    model = Net()
    weight = model.body[0].conv1.weight
    model.body[0].conv1.weight = nn.Parameter(weight.detach().to(torch.int8), requires_grad=False)
    (reason,) = reasons(cspprof.convert(model, INPUT, stages=["body"])).values()
    assert reason == "body.0.conv1.weight is quantized (int8)"


def test_compiled_models_are_refused() -> None:
    text = refused(nn.Sequential(torch.compile(Net())))
    assert text.startswith("0 (OptimizedModule) is compiled")


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    model = Net()
    prune.l1_unstructured(model.head, "weight", 0.5)
    assert "the model cannot be copied" in refused(model)
    prune.remove(model.head, "weight")
    assert convert(model).converted == ["body"]


def test_a_profile_is_no_model() -> None:
    with pytest.raises(CspprofError, match="a profile contains no model that can be converted"):
        cspprof.convert(cspprof.profile(Net(), INPUT))  # type: ignore[arg-type]


def test_an_exported_program_is_no_model_that_converts(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Net().eval(), (torch.randn(INPUT),)), tmp_path / "net.pt2")
    with pytest.raises(CspprofError, match="contains no modules that can be converted"):
        cspprof.convert(str(tmp_path / "net.pt2"))
    advice = cspprof.advise(str(tmp_path / "net.pt2"))
    assert [(s.adviser, s.traced) for s in advice] == [("stage", False)]


def test_conversion_changes_neither_the_module_nor_the_random_numbers() -> None:
    model = Net().train()
    state, text, random = copy.deepcopy(model.state_dict()), repr(model), torch.get_rng_state()
    assert convert(model).converted == ["body"]
    assert (repr(model), model.training) == (text, True)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


# -- constraints --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraint", "message", "hint"),
    [
        ("macs=2 G", "cannot read the constraint 'macs=2 G'", '--where "macs<=2 G"'),
        ("mac<=2 G", "no metric named 'mac'", "macs"),
        ("macs<=2 GB", "the constraint 'macs<=2 GB' is in bytes, but macs is in MACs", '--where "macs<=24 M"'),
        ("peak_bytes<=2 M elements", "is in elements, but peak_bytes is in bytes", '--where "peak_bytes<=200 MB"'),
        ("macs<=50%", "the constraint 'macs<=50%' is in %, but macs is in MACs", '--where "macs<=24 M"'),
        ("macs<=few", "cannot read the quantity 'few'", "24 M"),
    ],
)
def test_a_constraint_that_cannot_be_read_is_refused(constraint: str, message: str, hint: str) -> None:
    with pytest.raises(CspprofError) as caught:
        parse_constraint(constraint)
    assert message in caught.value.message
    assert hint in str(caught.value.hint)


def test_constraints_compare_exact_values() -> None:
    p = cspprof.profile("resnet10")
    n = p.total("macs")
    assert parse_constraint(f"macs<={n}").holds(p)
    assert not parse_constraint(f"macs<{n}").holds(p)
    assert parse_constraint(f"macs<{n}").met_by(p) == f"macs<={n}"
    assert parse_constraint(f"macs>{n}").excess(p) > 0
    assert parse_constraint("conv_share>=50%").holds(p)


def test_the_nearest_constraint_that_is_met_works(run: Run) -> None:
    command = ("convert", "resnet10", "--gamma", "0.25,0.75", "--fusion", "csp,last")
    failed = run(*command, "--where", "macs<=1 M", "--where", "params<=100 M")
    assert (failed.code, failed.out) == (1, "")
    assert "no conversion of resnet10 meets macs<=1 M and params<=100 M" in failed.err
    _, _, hint = failed.err.partition("The nearest that is met with ")
    options = shlex.split(hint.replace(": ", " "))
    followed = run("convert", "resnet10", *options, "--format", "json")
    assert followed.code == 0
    (conversion,) = json.loads(followed.out)["conversions"]
    assert conversion["after"]["macs"] == int(options[options.index("--where") + 1].partition("<=")[2])


def test_an_unknown_metric_to_minimize_is_refused_before_the_conversion(run: Run) -> None:
    got = run("convert", "no_such_network", "--minimize", "cioo")
    assert (got.code, got.out) == (2, "")
    assert "no metric named 'cioo'" in got.err


def test_no_stage_name_is_refused(run: Run) -> None:
    got = run("convert", "resnet10", "--stages", ",")
    assert got.code == 2
    assert "--stages names no stage" in got.err


def test_a_note_names_attributes_that_were_changed_because_they_equal_a_number_of_channels() -> None:
    class Sized(Residual):
        def __init__(self) -> None:
            super().__init__()
            self.width, self.heads, self.kernel = 16, 16, 3

    conversion = convert(Net(Sized))
    note = "attributes that were equal to a number of channels have the new number: body.0.width = 8, body.0.heads = 8"
    assert note in str(conversion)
    assert "kernel" not in str(conversion)


def test_a_factory_may_convert_what_it_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SPEC is built on meta, and the stages must run with values nevertheless."""
    (tmp_path / "own.py").write_text(
        "import cspprof\ndef net():\n    return cspprof.convert('resnet10', (1, 3, 64, 64)).model\n"
    )
    monkeypatch.chdir(tmp_path)
    built = cspprof.profile("own.py:net", (1, 3, 64, 64))
    assert built.total("macs") == cspprof.convert("resnet10", (1, 3, 64, 64)).after.total("macs")
    with torch.device("meta"):
        assert convert(Net()).converted == convert(Net()).converted != []
