"""MLflow: one run per row, in a local store such as `sqlite:///mlflow.db`."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cspprof.core.errors import pip_install
from cspprof.sweeps.candidate import Row
from cspprof.sweeps.front import axis_text, label
from cspprof.sweeps.trackers import Tracker, TrackerError, choices_of, numbers_of

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "cspprof"
"""The experiment, unless MLFLOW_EXPERIMENT_NAME names another one."""
SQLITE = "sqlite:///"
KEY = "cspprof.key"
STATUS = "cspprof.status"
LONGEST = 5000
"""Characters of an error that a tag holds."""
PAGE = 1000


def open_tracker(uri: str) -> Tracker:
    """The store at `uri`. Raises TrackerError if MLflow is not installed, or cannot use the store."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # cspprof sends nothing over a network by itself
    for name in ("mlflow", "alembic"):  # they log each step of creating a database
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        from mlflow.tracking import MlflowClient

        if uri.startswith(SQLITE):
            _check_database(uri.removeprefix(SQLITE))
        return MlflowRuns(MlflowClient(tracking_uri=uri))
    except ModuleNotFoundError as error:
        raise TrackerError(
            f"MLflow is not installed: there is no module {error.name}", f"Install it: {pip_install('mlflow')}"
        ) from None
    except Exception as error:  # sqlalchemy and the stores of plugins raise exceptions of many types
        lines = str(error).strip().splitlines()
        raise TrackerError(
            f"MLflow cannot use the store {uri}: {lines[0] if lines else type(error).__name__}",
            "Name a file in a folder that exists: --tracker mlflow:sqlite:///mlflow.db",
        ) from None


def _check_database(path: str) -> None:
    """Raise sqlite3.Error if the file cannot be written: MLflow would try again for minutes."""
    with contextlib.closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.execute("ROLLBACK")


class MlflowRuns:
    """The runs of one experiment. A run has the key of its row as a tag."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = client.get_experiment_by_name(name)
        self._experiment = experiment.experiment_id if experiment else client.create_experiment(name)
        self._known: dict[str, tuple[str, str]] = {}
        """The run and the status of each key."""
        token = None
        while True:
            found = client.search_runs([self._experiment], f"tags.`{KEY}` != ''", max_results=PAGE, page_token=token)
            for run in found:  # one that is running was left incomplete by a process that was killed
                status = "" if run.info.status == "RUNNING" else run.data.tags[STATUS]
                self._known[run.data.tags[KEY]] = run.info.run_id, status
            token = found.token
            if not token:
                break

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            run, status = self._known.get(row.key.hex(), (None, None))
            if status == row.status:
                continue
            if run is not None:  # it is incomplete, or the candidate was tried again
                self._client.delete_run(run)
            self._known[row.key.hex()] = self._logged(row), row.status

    def _logged(self, row: Row) -> str:
        from mlflow.entities import Metric, Param

        tags = {KEY: row.key.hex(), STATUS: row.status, "cspprof.versions": row.versions}
        if row.error:
            tags["cspprof.error"] = row.error[:LONGEST]
        run: str = self._client.create_run(self._experiment, tags=tags, run_name=label(row)).info.run_id
        now = int(time.time() * 1000)
        self._client.log_batch(
            run,
            [Metric(name, value, now, 0) for name, value in numbers_of(row).items()],
            [Param(name, axis_text(value)) for name, value in choices_of(row).items() if value != ""],
        )
        self._client.set_terminated(run, "FINISHED" if row.status == "ok" else "FAILED")
        return run
