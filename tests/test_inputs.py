"""Arguments of a forward: tensors, plain values, objects that hold tensors, and how the two are told apart."""

from __future__ import annotations

import dataclasses
import json
from collections import OrderedDict, UserDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from conftest import Result, trace
from networks import Function
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

import cspprof
from cspprof.core.errors import CspprofError, TraceError
from cspprof.core.inputs import ModelArguments, Value, parse_inputs

DEVICES = pytest.mark.parametrize("device", ["meta", "cpu"])
RESIZED = 3 * 8 * 64  # a 1×1 convolution, 3 -> 8 channels, on 8×8


class Resized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)

    def forward(self, x, size):  # type: ignore[no-untyped-def]
        return self.conv(F.interpolate(x, size=size))


class Annotated(Resized):
    def forward(self, x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return super().forward(x, size)


class WithDefault(Resized):
    def forward(self, x, size=(4, 4)):  # type: ignore[no-untyped-def]
        return super().forward(x, size)


# -- values in Python -------------------------------------------------------------------------------

SHAPE, IMAGE = (1, 3, 4, 4), torch.zeros(1, 3, 4, 4)


@DEVICES
@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (Resized(), [SHAPE, Value((8, 8))]),
        (Resized(), {"x": SHAPE, "size": Value([8, 8])}),
        (Resized(), [IMAGE, (8, 8)]),
        (Resized(), [IMAGE, [8, 8]]),
        (Resized(), {"x": IMAGE, "size": (8, 8)}),
        (Resized(), [cspprof.TensorSpec(SHAPE), (8, 8)]),
        (Resized(), [SHAPE, 8]),
        (Annotated(), [SHAPE, (8, 8)]),
        (WithDefault(), {"x": SHAPE, "size": (8, 8)}),
        (Function(lambda pair: Resized.forward(net, *pair)), [[SHAPE, Value((8, 8))]]),
        (Function(lambda pair: Resized.forward(net, *pair)), [[IMAGE, (8, 8)]]),
        (Function(lambda x, options: Resized.forward(net, x, **options)), [IMAGE, {"size": (8, 8)}]),
    ],
)
def test_a_pair_of_integers_can_be_an_argument(device: str, model: nn.Module, inputs: Any) -> None:
    p = trace(model, inputs, device=device)
    assert [t.shape for t in p.inputs] == [SHAPE]
    assert p.total("macs") == RESIZED


net = Resized()


def test_a_bare_tuple_is_a_shape_unless_the_signature_or_a_tensor_says_otherwise() -> None:
    def add(x, y):  # type: ignore[no-untyped-def]
        return x + y

    def add_tensors(x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return x if y is None else x + y

    for function, inputs in (
        (add, [(2, 4), (2, 4)]),
        (add_tensors, [torch.zeros(2, 4), (2, 4)]),
        (add_tensors, {"x": torch.zeros(2, 4), "y": (2, 4)}),
    ):
        model = nn.Module()
        model.forward = function  # type: ignore[method-assign, assignment]
        assert [t.shape for t in trace(model, inputs).inputs] == [(2, 4), (2, 4)]


def test_a_pair_that_was_read_as_a_shape_has_a_hint_that_works() -> None:
    with pytest.raises(TraceError) as error:
        trace(Resized(), [SHAPE, (8, 8)])
    assert "(in Python: cspprof.Value((8, 8)))" in str(error.value)
    assert trace(Resized(), [SHAPE, cspprof.Value((8, 8))]).total("macs") == RESIZED


def test_a_note_says_that_a_pair_was_passed_as_numbers() -> None:
    (note,) = trace(Resized(), [IMAGE, (8, 8)]).notes
    assert note.startswith("passed as numbers, as a tensor is given beside them: size=(8, 8)")
    assert trace(Annotated(), [IMAGE, (8, 8)]).notes == ()


def test_the_output_size_of_a_transposed_convolution_is_an_argument() -> None:
    up = nn.ConvTranspose2d(3, 1, 2, stride=2, bias=False)
    assert trace(up, [(1, 3, 2, 2), (5, 5)]).ops[-1].writes[0].shape == (1, 1, 5, 5)


# -- values on the command line ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("size:=16,16", "size", (16, 16)),
        ("size=(16, 16)", "size", (16, 16)),
        ("(16,16)", None, (16, 16)),
        ("sizes=[[1, 2], [3]]", "sizes", [[1, 2], [3]]),
        (":=8", None, 8),
        ("scale:=0.5", "scale", 0.5),
        ("flag:=True", "flag", True),
        ("mask:=None", "mask", None),
        ("mode:=up", "mode", "up"),
        ("mode:='a=b'", "mode", "a=b"),
        ("options:={'depth': 2}", "options", {"depth": 2}),
    ],
)
def test_a_value_is_written_after_a_colon_and_an_equals_sign_or_in_brackets(text: str, name: str, value: Any) -> None:
    inputs = parse_inputs(["1x3x4x4", text])
    found = inputs.kwargs[name] if name else inputs.args[1]
    assert isinstance(found, Value)
    assert (found.value, type(found.value)) == (value, type(value))


@pytest.mark.parametrize("text", ["size:=(16", "size=[1", "scale:="])
def test_a_value_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(CspprofError, match="cannot read the value") as error:
        parse_inputs([text])
    assert "--input size:=8,8" in str(error.value)


def test_a_command_passes_values(run: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\nimport torch.nn.functional as F\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.conv = nn.Conv2d(3, 8, 1)\n"
        "    def forward(self, x, size, mode='nearest'):\n"
        "        return self.conv(F.interpolate(x, size=size, mode=mode))\n"
    )
    command = ["flops", f"{file}:Net", "--input", "1x3x4x4", "--input", "size:=8,8", "--input", "mode:=bilinear"]
    assert json.loads(run(*command, "-f", "json").out)["models"][0]["macs"] == RESIZED
    whatif = ["whatif", f"{file}:Net", "--input", "1x3x4x4,2x3x4x4", "--input", "size=(8, 8)", "--metric", "macs"]
    assert [row["macs"] for row in json.loads(run(*whatif, "-f", "json").out)["results"]] == [RESIZED, 2 * RESIZED]


def test_a_saved_profile_is_of_one_set_of_values(tmp_path: Path) -> None:
    saved = trace(nn.Conv2d(3, 8, 1), SHAPE).save(tmp_path / "x.profile.json")
    with pytest.raises(CspprofError, match="is a saved profile"):
        cspprof.profile(str(saved), ModelArguments((cspprof.TensorSpec(SHAPE),), {"size": Value((8, 8))}))


# -- objects that hold tensors ----------------------------------------------------------------------


class Pair(NamedTuple):
    x: Any
    scale: Any


@dataclasses.dataclass(frozen=True)
class Batch:
    x: torch.Tensor
    sizes: list[int]
    extra: dict[str, torch.Tensor]


class Plain:
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x
        self.itself = self
        self.sizes = [3, 4]


LINEAR = nn.Linear(4, 8)


@DEVICES
@pytest.mark.parametrize(
    "argument",
    [
        Pair(torch.zeros(2, 4), 0.5),
        Batch(torch.zeros(2, 4), [3, 4], {"y": torch.zeros(2, 4)}),
        Plain(torch.zeros(2, 4)),
        OrderedDict(x=torch.zeros(2, 4)),
        UserDict(x=torch.zeros(2, 4)),
    ],
)
def test_an_object_that_holds_tensors_is_an_argument(device: str, argument: Any) -> None:
    def forward(batch: Any) -> Any:
        assert type(batch) is type(argument)
        assert getattr(batch, "sizes", [3, 4]) == [3, 4]
        x = batch["x"] if hasattr(batch, "keys") else batch.x
        assert x.device.type == device
        return LINEAR(x)

    p = trace(Function(forward), [argument], device=device)
    assert p.total("macs") == 64
    assert p.inputs[0].shape == (2, 4)
    own = argument["x"] if hasattr(argument, "keys") else argument.x
    assert own.device.type == "cpu"


@DEVICES
def test_a_distribution_is_an_argument(device: str) -> None:
    normal = torch.distributions.Normal(torch.zeros(2, 4), torch.ones(2, 4))
    p = trace(Function(lambda d: LINEAR(d.mean) * d.stddev[:, :1]), [normal], device=device)
    assert p.total("macs") == 64
    assert [t.shape for t in p.inputs] == [(2, 4), (2, 4)]


# -- packed sequences -------------------------------------------------------------------------------

STEP = 4 * 5 * (6 + 5)  # MACs of one step of an LSTM, 6 -> 5
PACKED = pack_sequence([torch.zeros(n, 6) for n in (7, 3, 1)])


@DEVICES
@pytest.mark.parametrize("inputs", [[PACKED], PACKED, {"input": PACKED}])
def test_a_packed_sequence_costs_its_own_steps(device: str, inputs: Any) -> None:
    p = trace(nn.LSTM(6, 5), inputs, device=device)
    assert p.total("macs") == 11 * STEP
    assert p.complete


@DEVICES
def test_an_unsorted_packed_sequence_is_unpacked_in_the_forward(device: str) -> None:
    packed = pack_sequence([torch.zeros(n, 6) for n in (1, 7, 3)], enforce_sorted=False)

    def forward(packed: PackedSequence) -> Any:
        return pad_packed_sequence(nn.LSTM(6, 5).to(device)(packed)[0])[0]

    p = trace(Function(forward), [packed], device=device)
    assert p.total("macs") == 11 * STEP
    assert p.complete


@DEVICES
def test_a_forward_can_pack_sequences_of_known_lengths(device: str) -> None:
    class Packing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(6, 5, batch_first=True)

        def forward(self, x: torch.Tensor) -> Any:
            packed = pack_padded_sequence(x, torch.tensor([7, 3, 1]), batch_first=True)
            return pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]

    p = trace(Packing(), (3, 7, 6), device=device)
    assert p.total("macs") == 11 * STEP
    assert p.complete
