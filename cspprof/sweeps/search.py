"""Search a space with Optuna, by ask and tell: its samplers propose candidates, and the rows go to our journal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from cspprof.core.errors import CspprofError, pip_install
from cspprof.core.registry import suggestion
from cspprof.core.units import counted
from cspprof.sweeps.candidate import Row, Status
from cspprof.sweeps.child import Limits
from cspprof.sweeps.executors import Workers
from cspprof.sweeps.front import Goal, known_value
from cspprof.sweeps.journal import Journal
from cspprof.sweeps.runner import run_tasks
from cspprof.sweeps.space import Candidate, Space
from cspprof.sweeps.versions import versions_of

if TYPE_CHECKING:
    from optuna import Study, Trial

SAMPLERS = {"tpe": "TPESampler", "nsga2": "NSGAIISampler", "gp": "GPSampler", "random": "RandomSampler"}
MOST_REPEATS = 30
"""Proposals in a row that are no new candidate, after which a search ends: samplers may converge to known ones."""
UNKNOWN = 1e9
"""How far an unknown value misses a constraint: samplers take finite numbers only."""


class Search(NamedTuple):
    """How many candidates to try, and what proposes them."""

    sampler: str
    trials: int = 200
    seed: int = 0


def search_space(
    space: Space, goal: Goal, search: Search, journal: Journal, workers: Workers, limits: Limits,
    on_rows: Callable[[list[Row]], None], retried: Collection[Status] = (),
) -> str | None:  # fmt: skip
    """Trace the candidates that the sampler proposes, and write a row for each. A candidate that the journal has is not
    traced again, unless its status is `retried`, but counts as a trial.

    Returns a note if the search ended before all trials, because the sampler proposes no new candidate. Raises
    CspprofError for an unknown sampler and without Optuna.
    """
    study = _study(goal, search)
    versions = versions_of(list(space.models))
    waiting: dict[bytes, list[Trial]] = {}
    proposed: dict[bytes, Row | None] = {}
    notes: list[str] = []

    def tasks() -> Iterator[list[Candidate]]:
        repeats = 0
        for number in range(search.trials):
            if len(proposed) == space.full_size or repeats == MOST_REPEATS:
                notes.append(_early_end(search.sampler, number, space.full_size - len(proposed)))
                return
            trial = study.ask()
            candidate = _candidate(trial, space)
            key = candidate.key(versions)
            repeats = repeats + 1 if key in proposed else 0
            if key in waiting:
                waiting[key].append(trial)
                yield []  # the sampler needs the row of this candidate to propose another one
                continue
            if key not in proposed:
                proposed[key] = None if journal.missing([key], retried) else journal.find(key)
            row = proposed[key]
            if row is not None:
                _tell(study, trial, row, goal)
            else:
                waiting[key] = [trial]
                yield [candidate]

    def tell(rows: list[Row]) -> None:
        on_rows(rows)
        journal.add(rows)
        for row in rows:
            proposed[row.key] = row
            for trial in waiting.pop(row.key, ()):
                _tell(study, trial, row, goal)

    run_tasks(tasks(), journal, workers, limits, versions, tell)
    return notes[0] if notes else None


def _early_end(sampler: str, trials: int, left: int) -> str:
    ended = f"The search ended after {counted(trials, 'trial')}"
    if not left:
        return f"{ended}: every candidate was proposed."
    return (
        f"{ended}: {sampler} proposed no new candidate {MOST_REPEATS} times in a row. It left out "
        f"{counted(left, 'candidate')}: try another sampler or --seed, or leave out --search."
    )


def _study(goal: Goal, search: Search) -> Study:
    if search.sampler not in SAMPLERS:
        raise CspprofError(f"there is no sampler {search.sampler!r}", suggestion(search.sampler, SAMPLERS))
    try:
        import optuna
    except ModuleNotFoundError:
        raise CspprofError("optuna is not installed", f"Install it: {pip_install('optuna')}") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = getattr(optuna.samplers, SAMPLERS[search.sampler])(seed=search.seed)
    directions: list[Any] = ["maximize" if o.maximized else "minimize" for o in goal.objectives]
    return optuna.create_study(sampler=sampler, directions=directions)


def _candidate(trial: Trial, space: Space) -> Candidate:
    """The candidate that the sampler chooses. An axis of ascending numbers is ordered, another one is not."""

    def place(name: str, values: Any) -> int:
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
        if numbers and list(values) == sorted(values):
            return trial.suggest_int(name, 0, len(values) - 1)
        return int(trial.suggest_categorical(name, list(range(len(values)))))

    model = place("model", space.models) if len(space.models) > 1 else 0
    return space.candidate(model, {name: place(f"axis {name}", values) for name, values in space.axes.items()})


def _tell(study: Study, trial: Trial, row: Row, goal: Goal) -> None:
    """Tell the sampler the objectives of a candidate. Without numbers, or with an unknown one, its trial has failed."""
    from optuna.trial import TrialState

    for constraint in goal.constraints:
        trial.set_constraint(str(constraint), min(constraint.excess_of(known_value(row, constraint.metric)), UNKNOWN))
    values = [known_value(row, o.name) for o in goal.objectives]
    if row.status != "ok" or None in values:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, [float(v) for v in values if v is not None])
