"""The notes of a trace: modules that the forward calls and the model does not register, and autocast regions."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from conftest import trace
from networks import Function
from torch import nn

from cspprof.core.tensors import TensorSpec


class LayersInAList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.layers = [nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU()]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_layers_in_a_plain_list_are_noted(device: str) -> None:
    p = trace(LayersInAList().eval(), (1, 3, 8, 8), device=device)
    assert p.params == 3 * 8 * 9 + 8
    assert p.notes == (
        "the forward calls modules that are not registered (BatchNorm2d, Conv2d): the table of layers and params leave "
        f"out their {8 * 8 + 8 + 2 * 8} parameters; create them in __init__ and keep them in a ModuleList, a "
        "ModuleDict or attributes of their own",
    )
    assert p.total("macs") == 36 * (3 * 8 * 9 + 8 * 8), "the operations of unregistered layers are counted"


def test_unregistered_layers_that_are_not_called_are_not_noted() -> None:
    class Student(LayersInAList):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.first(x)

    assert trace(Student(), (1, 3, 8, 8)).notes == ()


@pytest.mark.parametrize("tied", [True, False])
def test_a_module_that_the_forward_creates_is_noted_if_it_has_parameters_of_its_own(tied: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            layer = nn.Linear(3, 4, bias=False)
            if tied:
                layer.weight = self.weight
            return nn.ReLU()(layer(x))

    notes = trace(Net(), (1, 3)).notes
    assert len(notes) == (0 if tied else 1)
    assert tied or "(Linear): the table of layers and params leave out their 12 parameters" in notes[0]


def test_a_module_that_another_thread_calls_is_not_noted() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        other = threading.Thread(target=nn.Linear(3, 3), args=(torch.ones(1, 3),))
        other.start()
        other.join()
        return x + 1

    assert trace(Function(forward), (1, 3)).notes == ()


def test_registered_modules_that_are_called_from_a_list_and_script_modules_are_not_noted() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.order = [self.b, self.a]
            self.scripted = torch.jit.trace(nn.Linear(3, 3), torch.ones(1, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in (*self.order, self.scripted):
                x = layer(x)
            return x

    assert trace(Net().eval(), (1, 3), device="cpu").notes == ()


# -- autocast -------------------------------------------------------------------------------------


@pytest.fixture
def autocast_net() -> nn.Module:
    """A 1×1 convolution 3→4, and one 4→4 in an autocast region."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = (nn.Conv2d(n, 4, 1, bias=False) for n in (3, 4))

        def forward(self, x: Any) -> Any:
            x = self.stem(x)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.conv(x)

    return Net()


def test_an_autocast_region_changes_no_dtype_on_meta_and_is_noted_at_each_trace(autocast_net: nn.Module) -> None:
    for _ in range(2):
        p = trace(autocast_net, (1, 3, 8, 8))
        assert {op.writes[0].dtype for op in p.ops} == {"float32"}
        assert [note.partition(":")[0] for note in p.notes] == [
            "the forward has an autocast region, which changes no dtype on meta"
        ]


def test_bytes_in_an_autocast_region_are_those_of_its_dtype_on_the_cpu(autocast_net: nn.Module) -> None:
    p = trace(autocast_net, (1, 3, 8, 8), device="cpu")
    stem = 4 * (3 * 64 + 3 * 4 + 4 * 64)
    cast = (4 + 2) * (4 * 64) + (4 + 2) * (4 * 4)
    assert p.total("cio_bytes") == 4 * (3 * 64 + 4 * 64) + 2 * (4 * 64 + 4 * 64)
    assert p.total("traffic_bytes") == stem + cast + 2 * (4 * 64 + 4 * 4 + 4 * 64)
    assert p.notes == ()


class Recurrent(nn.Module):
    """Weights of several kinds, a parameter that is added, and a table of indices."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm, self.norm = nn.Embedding(10, 4), nn.LSTM(4, 6, batch_first=True), nn.LayerNorm(6)
        self.position = nn.Parameter(torch.zeros(1, 5, 4))
        self.register_buffer("index", torch.arange(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps: torch.Tensor = self.lstm(self.embedding(x)[:, self.index] + self.position)[0]
        return self.norm(steps)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_the_weights_of_a_frozen_script_are_parameters(device: str) -> None:
    """torch.jit.freeze makes them constants, and folds batch norms into convolutions: two vectors for each channel go,
    and a bias comes."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    frozen = trace(torch.jit.freeze(torch.jit.script(net)), (1, 3, 8, 8), device=device)
    assert frozen.params == 3 * 8 * 9 + 8 + 8 * 2 + 2 == frozen.layers[0].params == frozen.layers[0].frozen
    assert frozen.total("conv_weights") == 3 * 8 * 9 + 8 * 2
    assert "is frozen" in frozen.notes[0]

    model = Recurrent().eval()
    words = [TensorSpec((2, 7), "int64")]
    scripted = trace(nn.Sequential(torch.jit.freeze(torch.jit.script(model))), words, device=device)
    assert scripted.params == sum(p.numel() for p in model.parameters())
    assert scripted.layers[1].params == scripted.params
