"""What a trace says beside its record: modules that a forward calls and that are not the model's."""

from __future__ import annotations

import threading

import pytest
import torch
from conftest import trace
from torch import nn


class Listed(nn.Module):
    """A network that keeps its layers in a plain list, as a list comprehension leaves them."""

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
    found = trace(Listed().eval(), (1, 3, 8, 8), device=device)
    assert found.params == 3 * 8 * 9 + 8
    (note,) = found.notes
    assert note == (
        "the forward calls modules that are not registered (BatchNorm2d, Conv2d): the table of layers and params leave "
        f"out their {8 * 8 + 8 + 2 * 8} parameters; make them in __init__ and hold them in a ModuleList, a ModuleDict "
        "or attributes of their own"
    )
    assert found.total("macs") == 36 * (3 * 8 * 9 + 8 * 8), "what they compute is counted"


def test_what_is_not_called_is_not_noted() -> None:
    """A teacher that is hidden on purpose."""

    class Student(Listed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.first(x)

    assert trace(Student(), (1, 3, 8, 8)).notes == ()


def test_a_module_made_for_a_call_is_noted_where_it_has_parameters_of_its_own() -> None:
    class Net(nn.Module):
        def __init__(self, tied: bool) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 3))
            self.tied = tied

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            layer = nn.Linear(3, 4, bias=False)
            if self.tied:
                layer.weight = self.weight
            return nn.ReLU()(layer(x))

    assert trace(Net(tied=True), (1, 3)).notes == ()
    (note,) = trace(Net(tied=False), (1, 3)).notes
    assert "(Linear): the table of layers and params leave out their 12 parameters" in note


def test_what_another_thread_calls_is_not_the_models() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            other = threading.Thread(target=nn.Linear(3, 3), args=(torch.ones(1, 3),))
            other.start()
            other.join()
            return x + 1

    assert trace(Net(), (1, 3)).notes == ()


def test_registered_modules_in_lists_and_scripted_ones_are_no_strangers() -> None:
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


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_in_a_plain_list_is_traced(kind: type[nn.RNNBase]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [kind(3, 5, batch_first=True)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers[0](x)[0]

    model = Net().eval()
    on_meta, carried_out = (trace(model, (2, 7, 3), device=device) for device in ("meta", "cpu"))
    assert on_meta.total("macs") == carried_out.total("macs") > 0
    assert all(kind.__name__ in found.notes[0] for found in (on_meta, carried_out))
