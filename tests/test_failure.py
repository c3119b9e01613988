"""Errors of a forward: what failed, in which line of the user's code, and a hint that fits the cause."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Result
from torch import nn

import cspprof
from cspprof.core.errors import TraceError

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
        (MissingArgument, (2, 4), "missing 1 required positional argument: 'mask'", "", "Its arguments are x"),
        (Multiply, [(2, 4), (2, 4)], "takes 2 positional arguments but 3 were given", "", "Its arguments are x"),
        (Multiply, {"y": (2, 4)}, "got an unexpected keyword argument 'y'", "", "Its arguments are x"),
        (OwnError, (2, 4), "ValueError: labels are required", "raise ValueError", "The forward raises this error"),
        (OtherDevice, (2, 4), "", "cuda:7", "Make tensors on the device of the input, device=x.device"),
        (NoForward, (2, 4), 'missing the required "forward"', "", "Define forward(self, x) in the class NoForward."),
        (Multiply, (2, 5), "layer 'linear' (Linear) failed at aten.linear on 2×5, 2×4, 2", "self.linear(x)",
         "If the input is wrong, give another"),
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
