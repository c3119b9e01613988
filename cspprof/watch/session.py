"""A session: models that are traced again after each save, and the answer to it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cspprof.core.errors import CspprofError, OutputError
from cspprof.profiles import Profile, profile_spec
from cspprof.report.tables import Report
from cspprof.sources import Request, Spec, parse, source_of
from cspprof.sources.user_modules import UserModules, named_files, project_folder, without_bytecode
from cspprof.watch.file_changes import FileChanges
from cspprof.watch.project_rules import ProjectRules
from cspprof.watch.registrations import Registrations
from cspprof.watch.report import Answer, Baseline, answer_report


@dataclass
class WatchedModel:
    """A SPEC, its last version, and the error that its code raises now."""

    spec: Spec
    record: Profile | None = None
    number: int = 0
    """The number of its versions so far."""
    start: Baseline | None = None
    error: str = ""
    """The error that was shown last; empty if the last save could be traced."""

    @property
    def runs_code(self) -> bool:
        """Whether it is a user's Python, which may read any file."""
        return source_of(self.spec).name == "factory"


Show = Callable[[Report], bool]
"""Prints a report, and returns False if no reader is left."""
ShowError = Callable[[Exception], None]


class Session:
    """Models that are watched, and what was shown of them."""

    def __init__(
        self, specs: Sequence[str], request: Request, metrics: Sequence[str], config: Path | None, show: Show,
        show_error: ShowError,
    ) -> None:  # fmt: skip
        """`request` and `metrics` are the options of the command; without any, the settings of the configuration and
        one metric of each kind. Raises SourceError if a SPEC cannot be parsed."""
        self.models = [WatchedModel(parse(text)) for text in dict.fromkeys(specs)]
        self._request = request
        self._metrics = metrics
        self._config_path = config
        self._show = show
        self._show_error = show_error
        self._files: dict[str, set[Path]] = {model.spec.text: named_files(model.spec) for model in self.models}
        """By the text of the SPEC: the files that it names."""
        self._modules = UserModules(project_folder(file) for files in self._files.values() for file in files)
        self._module_files: set[Path] = set()
        self._registrations = Registrations()
        self._rules: ProjectRules | None = None
        self._rules_error = ""
        """Why the configuration cannot be read now. Its last settings still hold, but no rule is checked."""
        self._changes = FileChanges()

    @property
    def files(self) -> set[Path]:
        """The files whose changes are answered, and folders of packages."""
        return set().union(*self._files.values(), self._module_files, self._rule_files)

    @property
    def _rule_files(self) -> set[Path]:
        return set() if self._rules is None else self._rules.files

    def run(self, started: Callable[[set[Path]], None]) -> None:
        """Answer at the start and after each save, until no reader is left. `started` is called with the files that
        are watched. Raises KeyboardInterrupt."""
        try:
            reads = self.start()
            started(self.files)
            gc.collect()
            gc.freeze()  # torch's objects stay: the next collections take 2 ms instead of 300
            while reads:
                reads = self.answer(self._changes.wait())
                gc.collect()  # the modules of the last version are cycles of objects
        finally:
            gc.unfreeze()
            self._changes.close()

    @without_bytecode()
    def start(self) -> bool:
        """Trace every model and show it; return whether a reader is left. A file whose code fails is watched, too.

        Raises CspprofError if a SPEC names no file that can change, or if the configuration cannot be read.
        """
        self._rules = ProjectRules.read(self._config_path)
        errors: dict[str, Exception] = {}
        for model in self.models:
            try:
                self._trace(model)
            except Exception as error:
                if not any(file.exists() for file in self._files[model.spec.text]):
                    raise
                model.error = str(error)
                errors.setdefault(model.error, error)
            if not self._files[model.spec.text]:
                raise _nothing_to_watch(model.spec)
        reads = all(self._show_version(model, None) for model in self.models if model.record is not None)
        for first in errors.values():
            self._show_error(first)
        self._forget_code()
        return reads

    @without_bytecode()
    def answer(self, changed: set[Path]) -> bool:
        """Trace the models whose files changed and show what changed in them; return whether a reader is left.

        If `changed` is empty, other files changed that their code may read: only a difference is shown.
        """
        new_rules = self._read_rules(changed)
        reads, shown = True, set[str]()
        for model in self.models:
            before, error_before = model.record, model.error
            if not model.runs_code and not changed & self._files[model.spec.text]:
                if new_rules and before is not None:
                    reads &= self._show_version(model, before)
                continue
            try:
                record = self._trace(model)
                if changed or new_rules or error_before or record != before:
                    reads &= self._show_version(model, before)
            except OutputError:
                raise
            except Exception as error:
                model.error = str(error)
                if model.error not in shown and (changed or model.error != error_before):
                    self._show_error(error)
                shown.add(model.error)
        self._forget_code()
        return reads

    def _trace(self, model: WatchedModel) -> Profile:
        """The current version of a model, which is then its last one. Raises whatever its code raises."""
        names = self._names_of(model)
        with self._changes.while_code_runs():
            if names and self._rules is not None:
                record = self._rules.profile(names[0])
            else:
                record = profile_spec(model.spec.text, self._request)
        model.error = ""
        if record != model.record:
            model.number += 1
            model.record = record
        if model.start is None:
            model.start = Baseline.of_start(record, self._metrics)
        return record

    def _names_of(self, model: WatchedModel) -> list[str]:
        """The names of a model in the configuration, whose settings it has; none if the command has other settings."""
        if self._rules is None or self._request != Request():
            return []
        return self._rules.names_of(model.spec)

    def _show_version(self, model: WatchedModel, before: Profile | None) -> bool:
        assert model.record is not None
        assert model.start is not None
        baseline, verdict, notes = model.start, None, []
        if self._rules is not None and not self._rules_error:
            names, own = self._rules.names_of(model.spec), self._names_of(model)[:1]
            verdict = self._rules.check(names, dict.fromkeys(own, model.record))
            if own and (recorded := self._rules.recorded(own[0], model.record)) is not None:
                baseline = Baseline("the baseline", recorded.totals)
            if names and self._rules.left_out and before is None:
                notes.append(f"rules that run an engine are left to cspprof check: {', '.join(self._rules.left_out)}")
        answer = Answer(model.record, model.number, before, baseline, self._metrics, verdict, notes)
        return self._show(answer_report(answer))

    def _read_rules(self, changed: set[Path]) -> bool:
        """Read the configuration if it changed, and return whether it did. An error in it is shown."""
        if self._rules is not None and not changed & self._rule_files:
            return False
        had_rules = self._rules is not None
        try:
            self._rules = ProjectRules.read(self._config_path)
            self._rules_error = ""
        except CspprofError as error:
            self._rules_error = str(error)
            self._show_error(error)
        return had_rules or self._rules is not None

    def _forget_code(self) -> None:
        """Forget the code of the models, so that the next trace imports their files again, and follow these files."""
        self._registrations.remove_later()
        found = self._modules.forget()
        failed = any(model.error for model in self.models)
        self._module_files = self._module_files | found if failed else found
        self._changes.follow(self.files)


def _nothing_to_watch(spec: Spec) -> CspprofError:
    return CspprofError(
        f"{spec.text} has no file of yours that can change",
        f"Name the file that you edit: path/to/net.py:Net. To compare: cspprof compare {spec.text} path/to/net.py:Net",
    )
