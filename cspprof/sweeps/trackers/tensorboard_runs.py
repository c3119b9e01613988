"""TensorBoard: one folder per row with numbers, whose axes are hyperparameters and whose numbers are scalars."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from cspprof.core.errors import pip_install
from cspprof.sweeps.candidate import Row
from cspprof.sweeps.front import axis_text, label
from cspprof.sweeps.trackers import Tracker, TrackerError, choices_of, numbers_of

LONGEST = 100
"""Characters of a label in the name of a folder."""
PARTIAL = ".cspprof-"


def open_tracker(folder: str) -> Tracker:
    """The folder. Raises TrackerError if TensorBoard is not installed, or the folder cannot be written."""
    if find_spec("tensorboard") is None:
        raise TrackerError("TensorBoard is not installed", f"Install it: {pip_install('tensorboard')}")
    try:
        return TensorBoardRuns(Path(folder))
    except OSError as error:
        raise TrackerError(
            f"cannot write {folder}: {error.strerror}", "Name another folder: --tracker tensorboard:FOLDER"
        ) from None


class TensorBoardRuns:
    """The runs of one folder. The folder of a run ends with the key of its row."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (probe := folder / f"{PARTIAL}{secrets.token_hex(4)}").mkdir()
        probe.rmdir()
        self._known = {run.name.rpartition("-")[2] for run in folder.iterdir()}

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            key = row.key.hex()
            if row.status == "ok" and key not in self._known:
                self._write(row, key)
                self._known.add(key)

    def _write(self, row: Row, key: str) -> None:
        """Write the events under another name first: a run that TensorBoard shows is complete."""
        from torch.utils.tensorboard import FileWriter
        from torch.utils.tensorboard.summary import hparams, scalar

        numbers = numbers_of(row)
        partial = self._folder / f"{PARTIAL}{secrets.token_hex(4)}"
        try:
            writer = FileWriter(str(partial))
            choices = {k: v if isinstance(v, (str, int, float)) else axis_text(v) for k, v in choices_of(row).items()}
            for summary in hparams(choices, numbers):
                writer.add_summary(summary)
            for name, value in numbers.items():  # plain scalars have single precision: seven digits of a MAC count
                writer.add_summary(scalar(name, value, new_style=True, double_precision=True), 0)
            writer.close()
            name = re.sub(r"[^-\w.,=+]", "_", label(row))[:LONGEST]
            partial.rename(self._folder / f"{name}-{key}")
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
