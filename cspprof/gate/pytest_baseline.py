"""`pytest --cspprof-update`: what the tests of one run measure, written into the baselines when the run is over.

With pytest-xdist the workers hand their recordings to the process that started them: one writer, so no lock.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cspprof.core.errors import CspprofError
from cspprof.core.files import display_path
from cspprof.core.units import change, distinct_texts
from cspprof.gate import baseline
from cspprof.gate.measurement import Measured, exact
from cspprof.metrics import METRICS


class Recorder:
    """Collects recordings by file and name, and writes all of them or, where something went wrong, none."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.entries: dict[str, dict[str, str]] = {}
        self.refused: list[str] = []
        self.told: list[str] = []

    def add(self, file: Path, found: Measured) -> None:
        """Record a model. Raises CspprofError where another was recorded by its name."""
        self._merge(str(file), found.name, baseline.dump({found.name: found}).decode())

    def refuse(self, reason: str) -> None:
        """Record nothing in this run: a model could not be measured whole."""
        self.refused.append(reason)

    def _merge(self, file: str, name: str, entry: str) -> None:
        known = self.entries.setdefault(file, {}).setdefault(name, entry)
        if known != entry:
            error = CspprofError(
                f"two tests record different models as {name!r}", "Give one of them a name of its own: name='…'"
            )
            self.refuse(error.message)
            raise error

    # -- what pytest calls -----------------------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """A worker of pytest-xdist is done: take over what it recorded."""
        output = getattr(node, "workeroutput", {}).get("cspprof")
        if error is not None or output is None:
            self.refuse("a worker of pytest-xdist did not come to its end")
            return
        self.refused += json.loads(output)["refused"]
        for file, entries in json.loads(output)["entries"].items():
            for name, entry in entries.items():
                try:
                    self._merge(file, name, entry)
                except CspprofError:
                    continue  # it is among what is refused now

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the baselines; in a worker, hand over what it recorded."""
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["cspprof"] = json.dumps({"entries": self.entries, "refused": self.refused})
            return
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
            self.refuse("the run did not come to its end")
        if not self.refused:
            try:
                self._write()
            except CspprofError as error:
                self.refuse(str(error))
        if self.refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was recorded, one number a line."""
        terminalreporter.section("cspprof baseline")
        if self.refused:
            terminalreporter.line("nothing was recorded:")
        for line in dict.fromkeys(self.refused or self.told or ["no test called cspprof.assert_matches_baseline"]):
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
        for file, before, after, count in merged:  # nothing is written before everything was read
            baseline.write(file, after)
            models = "1 model" if count == 1 else f"{count} models"
            changed = baseline.changes(before, after)
            self.told.append(f"{models} recorded in {display_path(file)}" + (":" if changed else "; no number differs"))
            self.told += [f"  {_line(c)}" for c in changed]


def _line(changed: baseline.Change) -> str:
    now, then = (None if a is None else exact(a) for a in (changed.after, changed.before))
    unit = METRICS.get(changed.metric).unit if changed.metric in METRICS else ""
    head = f"{changed.model} {changed.metric}"
    if now is None:
        return f"{head}: gone"
    if then is None:
        return f"{head}: {distinct_texts(now, now, unit)[0]}"
    texts = distinct_texts(then, now, unit)
    return f"{head}: {texts[0]} -> {texts[1]}" + (f" ({change(float(now / then - 1))})" if then else "")
