"""`pytest --cspprof-update`: collect what the tests of a run measure, and write it into the baselines at its end.

With pytest-xdist, the workers send their measurements to the main process, which alone writes: no lock is needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cspprof.core.errors import CspprofError
from cspprof.core.files import display_path
from cspprof.core.units import change
from cspprof.gate import baseline
from cspprof.gate.measurement import Measurement
from cspprof.gate.report import change_texts


class BaselineWriter:
    """A plugin that collects measurements by baseline file and model, and writes all of them; after an error, none."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.entries: dict[str, dict[str, str]] = {}
        self.errors: list[str] = []
        self.summary: list[str] = []

    def add(self, file: Path, measurement: Measurement) -> None:
        """Record a measurement. Raises CspprofError if another model was recorded with the same name."""
        self._add_entry(str(file), measurement.name, baseline.dump({measurement.name: measurement}).decode())

    def fail(self, reason: str) -> None:
        """Write nothing at the end of this run."""
        self.errors.append(reason)

    def _add_entry(self, file: str, name: str, entry: str) -> None:
        if self.entries.setdefault(file, {}).setdefault(name, entry) != entry:
            message = f"two tests record different models as {name!r}"
            self.fail(message)
            raise CspprofError(message, "Give one of them a name of its own: name='…'")

    # -- hooks of pytest -------------------------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """Take over the measurements of a pytest-xdist worker that has finished."""
        output = getattr(node, "workeroutput", {}).get("cspprof")
        if error is not None or output is None:
            self.fail("a worker of pytest-xdist did not finish")
            return
        document = json.loads(output)
        self.errors += document["errors"]
        for file, entries in document["entries"].items():
            for name, entry in entries.items():
                try:
                    self._add_entry(file, name, entry)
                except CspprofError:
                    continue  # it is in `errors` now

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the baselines; in a worker, send the measurements to the main process."""
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["cspprof"] = json.dumps({"entries": self.entries, "errors": self.errors})
            return
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
            self.fail("the test run did not finish")
        if not self.errors:
            try:
                self._write()
            except CspprofError as error:
                self.fail(str(error))
        if self.errors and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print what was recorded, one number per line, or why nothing was."""
        terminalreporter.section("cspprof baseline")
        if self.errors:
            terminalreporter.line("nothing was recorded:")
        for line in dict.fromkeys(self.errors or self.summary or ["no test called cspprof.assert_matches_baseline"]):
            terminalreporter.line(line)

    def _write(self) -> None:
        merged = []
        for name, entries in sorted(self.entries.items()):
            file = Path(name)
            before = baseline.read(file) or {}
            after = dict(before)
            for entry in entries.values():
                after |= baseline.parse(entry.encode(), name)
            merged.append((file, before, after, len(entries)))
        for file, before, after, count in merged:  # all files have been read before the first is written
            baseline.write(file, after)
            models = "1 model" if count == 1 else f"{count} models"
            changed = baseline.changed_totals(before, after)
            self.summary.append(
                f"{models} recorded in {display_path(file)}" + (":" if changed else "; no number changed")
            )
            self.summary += [f"  {_change_line(c)}" for c in changed]


def _change_line(changed: baseline.TotalChange) -> str:
    before, after = (None if amount is None else amount.exact for amount in (changed.before, changed.after))
    old, new = change_texts(changed)
    name = f"{changed.model} {changed.metric}"
    if after is None:
        return f"{name}: removed"
    if before is None:
        return f"{name}: {new}"
    return f"{name}: {old} -> {new}" + (f" ({change(float(after / before - 1))})" if before else "")
