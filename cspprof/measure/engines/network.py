"""A network that is loaded in an engine, and what it was loaded from."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from cspprof.core.errors import CspprofError

if TYPE_CHECKING:
    import numpy as np


SKIPPED = "skipped: "
"""The start of the failure of an engine that runs only on other machines."""


class EngineError(CspprofError):
    """A model that an engine cannot run, or runs with a wrong result."""


class Prepared:
    """A folder that `preparation` wrote: one model with its weights, its input and its correct output."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))

    @property
    def spec(self) -> str:
        return str(self.facts["spec"])

    @property
    def input_texts(self) -> list[str]:
        """The values of `--input`; empty for the model's own input."""
        return list(self.facts["inputs"])

    @property
    def graph(self) -> Path:
        """The ONNX graph. Raises EngineError if the model has none."""
        if self.facts["export"]["failure"]:
            raise EngineError(self.facts["export"]["failure"])
        return Path(self.facts["export"]["path"])

    @property
    def input_names(self) -> list[str]:
        """The inputs of the graph, in the order of `inputs`."""
        return list(self.facts["export"]["inputs"])

    @property
    def tolerance(self) -> float:
        """The relative error that an output may have."""
        return float(self.facts["tolerance"])

    def inputs(self) -> list[np.ndarray]:
        """The input tensors."""
        return _arrays(self.folder / "inputs.npz")

    def outputs(self) -> list[np.ndarray]:
        """The correct output tensors."""
        return _arrays(self.folder / "outputs.npz")


def save_arrays(path: Path, arrays: list[np.ndarray]) -> None:
    """Write tensors in order; `Prepared` reads them."""
    import numpy as np

    np.savez(path, *arrays)


def _arrays(path: Path) -> list[np.ndarray]:
    import numpy as np

    with np.load(path, allow_pickle=False) as file:
        return [file[f"arr_{i}"] for i in range(len(file.files))]


class Network(ABC):
    """A loaded network with its input."""

    notes: tuple[str, ...] = ()
    """Notes on this network in this engine, such as parts that the engine could not compile."""

    @abstractmethod
    def run(self) -> None:
        """One forward pass. It returns when the outputs are complete."""

    @abstractmethod
    def outputs(self) -> list[np.ndarray]:
        """The output tensors of the last run."""

    def seconds(self, runs: int) -> float:
        """The mean time of `runs` consecutive forward passes."""
        run = self.run
        start = perf_counter()
        for _ in range(runs):
            run()
        return (perf_counter() - start) / runs
