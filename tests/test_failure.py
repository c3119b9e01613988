"""Errors of a forward: what failed, in which line of the user's code, and a hint that fits the cause."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Result
from torch import nn

import cspprof
from cspprof.core.errors import TraceError
from cspprof.core.inputs import parse_inputs

Run = Callable[..., Result]


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)


class MissingArgument(Base):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * mask


class OwnError(Base):
    def forward(self, x: torch.Tensor, labels: object = None) -> torch.Tensor:
        if labels is None:
            raise ValueError("labels are required")
        return self.linear(x)


class OtherDevice(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.to("cuda:7"))


class NoForward(Base):
    pass


class Multiply(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


class CallOfALayer(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x, x)  # type: ignore[no-any-return]


class MixedDtypes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x.long())


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.embedding(ids)


class OwnAssertion(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == 4, "four features"
        return self.linear(x)


class OwnGradient(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x).detach().sum()
        y.backward()
        return y


class DictArgument(Base):
    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.linear(batch["x"])


class TupleArgument(Base):
    def forward(self, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        a, b = pair
        return self.linear(a + b)


class ObjectArgument(Base):
    def forward(self, batch: Any) -> torch.Tensor:
        return self.linear(batch.pixels)


class IndexOfAList(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return [self.linear(x)][3]


class TooDeep(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward(x)


class Windows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class NoAttribute(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.nothing(x)  # type: ignore[no-any-return,operator]  # this is the error


class OwnView(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(3, 77)


def line_of(cls: type, text: str) -> int:
    """The line of this file that contains `text` in a class."""
    lines = Path(__file__).read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"class {cls.__name__}("))
    return next(i for i, line in enumerate(lines[start:], start + 1) if text in line)


@pytest.mark.parametrize(
    ("cls", "inputs", "message", "line", "hint"),
    [
        (MissingArgument, (2, 4), "missing 1 required positional argument: 'mask'", "def forward",
         "Its arguments are x"),
        (Multiply, [(2, 4), (2, 4)], "takes 2 positional arguments but 3 were given", "def forward",
         "Its arguments are x"),
        (Multiply, {"y": (2, 4)}, "got an unexpected keyword argument 'y'", "def forward", "Its arguments are x"),
        (CallOfALayer, (2, 4), "takes 2 positional arguments but 3 were given", "self.linear",
         "The arguments of Linear.forward are input. Correct the call in "),
        (MixedDtypes, (1, 3, 8, 8), "", "return self.conv", "The forward mixes dtypes. Convert one tensor"),
        (Tokens, (2, 4), "indices", "return self.embedding",
         "Give the input in the dtype that the operation needs: --input 2x4:int64"),
        (Windows, cspprof.TensorSpec((1, 3, 8, 8), "int64"), "", "return self.conv",
         "Give the input in the dtype that the operation needs: --input 1x3x8x8:float32"),
        (OwnAssertion, (2, 5), "AssertionError: four features", "assert", "The forward raises this error itself: see"),
        (OwnGradient, (2, 4), "does not require grad", "backward", "The forward computes gradients of a tensor"),
        (DictArgument, (2, 4), "", 'batch["x"]', "The forward uses a tensor as a dict, a tuple"),
        (TupleArgument, (1, 4), "not enough values to unpack", "a, b", "The forward uses a tensor as a dict, a tuple"),
        (ObjectArgument, (2, 4), "no attribute 'pixels'", "pixels", "The forward uses a tensor as a dict, a tuple"),
        (IndexOfAList, (2, 4), "list index out of range", "[3]", "Run the forward alone to see more"),
        (TooDeep, (2, 4), "RecursionError", "self.forward", "Run the forward alone to see more"),
        (Windows, (1, 4, 8, 8), "", "return self.conv", "If the input is wrong, give another, such as --input 1x3x8x8"),
        (Windows, (1, 3, 2, 2), "", "return self.conv", "If the input is wrong, give another, such as --input 1x3x224"),
        (OwnError, (2, 4), "ValueError: labels are required", "raise ValueError", "The forward raises this error"),
        (OtherDevice, (2, 4), "", "cuda:7", "Make tensors on the device of the input, device=x.device"),
        (NoForward, (2, 4), 'missing the required "forward"', "class NoForward",
         "Define forward(self, x) in the class NoForward."),
        (Multiply, (2, 5), "layer 'linear' (Linear) failed at aten.linear on 2×5, 2×4, 2", "self.linear(x)",
         "If the input is wrong, give another, such as --input 2x4 "),
        (OwnView, (2, 4), "shape '[3, 77]' is invalid for input of size 8", "view", "If the input is wrong"),
        (NoAttribute, (2, 4), "has no attribute 'nothing'", "nothing", "Run the forward alone to see more"),
    ],
)  # fmt: skip
def test_an_error_names_the_cause_the_line_and_what_to_change(
    cls: type[nn.Module], inputs: object, message: str, line: str, hint: str
) -> None:
    with pytest.raises(TraceError) as raised:
        cspprof.profile(cls(), inputs)
    assert message in raised.value.message
    assert (raised.value.hint or "").startswith(hint)
    if line:
        assert raised.value.message.endswith(f"test_failure.py, line {line_of(cls, line)})")


@pytest.mark.parametrize("cls", [MissingArgument, OwnError, Tokens, Windows, DictArgument, TupleArgument])
def test_what_the_hint_gives_in_python_runs(cls: type[nn.Module]) -> None:
    """The hints are read as a user would: the words after `inputs=`, the options, or the object in braces."""
    model = cls()
    wrong: dict[type, Any] = {Windows: (1, 4, 8, 8), TupleArgument: (1, 4)}
    with pytest.raises(TraceError) as raised:
        cspprof.profile(model, wrong.get(cls, (2, 4)))
    hint = raised.value.hint or ""
    inputs: Any
    if found := re.search(r"inputs=(.*)\)", hint):
        inputs = ast.literal_eval(found[1].replace("mask': (2, 4)", "mask': (2, 2)"))
    elif found := re.search(r"profile\(model, (\{.*?\})\) or cspprof.profile\(model, (\{.*?\})\)", hint):
        inputs = ast.literal_eval(found[1 if cls is DictArgument else 2].replace("key", "x"))
    else:
        inputs = parse_inputs(re.findall(r"--input (\S+?),?(?= |$)", hint)[:2])
    assert cspprof.profile(model, inputs).total("macs") > 0 or cls is Tokens


def test_without_an_input_the_hint_for_token_ids_is_a_sequence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lm.py").write_text(
        "from torch import nn\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.ids = nn.Embedding(10, 4)\n\n    def forward(self, ids):\n        n, length, width = "
        "self.ids(ids).shape\n        return self.ids(ids)\n"
    )
    spec = f"{tmp_path}/lm.py:Net"
    for command in (["profile", spec], ["whatif", spec, "--batch", "1,8"], ["whatif", spec, "--input", "1x8,1x9"]):
        got = run(*command)
        given = re.search(r"--input (\S+)", got.err + got.out)
        assert given is not None
        assert (got.code, run(*command, "--input", given[1]).code if command[-1] != "1x8,1x9" else 0) == (2, 0)
        assert given[1] == ("1x8:int64" if command[-1] == "1x8,1x9" else "1x128:int64")


def test_the_hint_for_several_inputs_names_each_of_them() -> None:
    with pytest.raises(TraceError) as raised:
        cspprof.profile(MissingArgument(), {"x": (2, 4), "mask": cspprof.TensorSpec((3, 3), "int64")})
    assert "now: --input x=2x4 --input mask=3x3:int64. If the code" in (raised.value.hint or "")


def test_an_operation_without_a_kernel_on_the_device_hints_at_meta() -> None:
    class Packed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.aten._flash_attention_forward(x, x, x, None, None, 8, 8, 0.0, False, False)[0]

    with pytest.raises(TraceError) as raised:
        cspprof.profile(Packed(), (1, 8, 2, 4), device="cpu")
    assert "no kernel" in (raised.value.hint or "")
    assert "--device meta" in (raised.value.hint or "")
    assert cspprof.profile(Packed(), (1, 8, 2, 4), device="meta").total("macs") == 2 * 2 * 8 * 8 * 4


def test_the_hint_for_a_missing_argument_works(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def forward(self, x, mask):\n        return x * mask\n"
    )
    got = run("profile", "net.py:Net")
    assert got.code == 2
    options = re.findall(r"--input \S+", got.err)
    assert options == ["--input x=1x3x224x224", "--input mask=1x3x224x224"]
    assert run("profile", "net.py:Net", *(word for option in options for word in option.split())).code == 0
