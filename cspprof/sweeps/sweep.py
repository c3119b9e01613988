"""`sweep`: trace the candidates of a design space."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspprof.analysis.constraints import parse_constraints
from cspprof.core.errors import CspprofError, TraceError
from cspprof.core.inputs import Inputs, parse_device
from cspprof.papers.accuracy import ACCURACIES
from cspprof.sweeps.candidate import Row, Status, retried_statuses, trace_module
from cspprof.sweeps.child import Limits
from cspprof.sweeps.executors import Workers, dask_workers, local_workers
from cspprof.sweeps.front import Goal, goal_of, number_name
from cspprof.sweeps.journal import Journal, default_path, merge, open_journal, temporary_path
from cspprof.sweeps.result import Sweep
from cspprof.sweeps.runner import check_journal, run_space
from cspprof.sweeps.search import Search, search_space
from cspprof.sweeps.space import Space, axis_values, check_axes, expand_models, listed, parse_sizes, take
from cspprof.sweeps.trackers import tracking
from cspprof.sweeps.versions import versions_of

if TYPE_CHECKING:
    from torch import nn

NO_LIMITS = Limits()


def sweep(
    models: str | Iterable[str] | Iterable[nn.Module],
    inputs: Inputs | None = None,
    *,
    grid: Mapping[str, Sequence[Any] | str] | None = None,
    size: str | Sequence[int | tuple[int, int]] | None = None,
    batch: Sequence[int] | None = None,
    device: str | None = None,
    where: str | Sequence[str] = (),
    minimize: str | Sequence[str] = (),
    maximize: str | Sequence[str] = (),
    sample: int | None = None,
    search: str | None = None,
    trials: int = 200,
    seed: int = 0,
    journal: str | Path | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    timeout: float = 300,
    memory: int | None = None,
    retry: str | Sequence[str] = (),
    tracker: str | Sequence[str] = (),
) -> Sweep:
    """Every candidate of a design space, traced once, and the Pareto front of those that meet the constraints.

    `models` are SPECs, globs such as `"timm:resnet*"`, or an iterable of them; `grid` has the values of each axis, as a
    list or a range `"0.25:0.75:0.125"`: an option of the factory, or `convert.gamma` and other options of `convert`.
    `where` holds constraints, `"bflops<=1 and cio<=12M"`; `minimize` and `maximize` name metrics, by default the MACs
    and CIO. Rows go to `journal`, and a second run goes on with it. Each candidate runs in a process with at most
    `timeout` seconds and `memory` bytes; `scheduler` is the address of a Dask cluster.

    `search` names a sampler of Optuna, `tpe`, `nsga2`, `gp` or `random`, which proposes `trials` candidates.

    `retry` names the statuses of rows whose candidates run again: `"failed"`, `"timeout"`, `"memory"`, `"crashed"` or
    `"all"`. `tracker` sends each row to MLflow or TensorBoard too: `"mlflow:sqlite:///mlflow.db"`,
    `"tensorboard:runs"`.

    An iterable of modules needs `inputs`. They are traced in this process, without limits.

    >>> import cspprof
    >>> result = cspprof.sweep("csp_peleenet", grid={"fusion": ["csp", "last"]}, minimize="macs")  # doctest: +SKIP
    >>> [row.spec for row in result.front.optimal]  # doctest: +SKIP
    ['csp_peleenet,fusion=last']
    """
    goal = goal_of(
        [number_name(name) for name in listed(minimize)],
        [number_name(name) for name in listed(maximize)],
        parse_constraints(listed(where), ACCURACIES),
    )
    chosen = take([models] if isinstance(models, str) else models, sample)
    first = next(chosen, None)
    path = None if journal is None else Path(journal)
    if first is not None and not isinstance(first, str):
        if inputs is None:
            raise TraceError("modules have no default input", "Pass a shape: cspprof.sweep(modules, (1, 3, 224, 224))")
        modules: Iterable[Any] = chain([first], chosen)
        return sweep_modules(modules, inputs, goal, path or temporary_path(), device, listed(tracker))
    device = parse_device(device) if device else None
    axes = {name: axis_values(name, values) for name, values in (grid or {}).items()}
    if size is not None:
        sizes = size if isinstance(size, str) else ",".join("x".join(map(str, listed(s))) for s in size)
        axes["size"] = parse_sizes(sizes)
    if batch is not None:
        axes["batch"] = list(batch)
    specs = [] if first is None else [first, *chosen]
    space = Space(expand_models([str(s) for s in specs]), axes, device=device, sample=sample, seed=seed)
    return run_sweep(
        space, goal, journal=path, workers=workers, scheduler=scheduler, limits=Limits(timeout, memory),
        search=Search(search, trials, seed) if search is not None else None,
        retried=retried_statuses(listed(retry)), trackers=listed(tracker),
    )  # fmt: skip


def run_sweep(
    space: Space | None,
    goal: Goal,
    *,
    journal: Path | None = None,
    extend: bool = False,
    merged: Sequence[Path] = (),
    workers: int | None = None,
    scheduler: str | None = None,
    limits: Limits = NO_LIMITS,
    search: Search | None = None,
    retried: Collection[Status] = (),
    trackers: Sequence[str] = (),
    on_rows: Callable[[list[Row]], None] = lambda rows: None,
) -> Sweep:
    """Trace the candidates of the space that the journal does not have, and return the result of the whole journal.

    `search` lets a sampler choose the candidates. Those whose row has a `retried` status run again. The `trackers`
    receive all rows of the journal. Without a space, the journal is only read, after the rows of the
    `merged` journals were added. Raises CspprofError.
    """
    if space is None and journal is None:
        raise CspprofError("the space has no model", "Name one: cspprof sweep csp_peleenet --grid gamma=0.25,0.5")
    if space is None and not merged and journal is not None and not journal.exists():
        raise CspprofError(
            f"there is no journal {journal}", "Name a model to start one: cspprof sweep SPEC --journal …"
        )
    path = journal or default_path(space.description() if space else "")
    traced: set[bytes] = set()
    notes: list[str] = []
    with _opened(path) as book, tracking(trackers, notes) as track:

        def took(rows: list[Row]) -> None:
            traced.update(row.key for row in rows)
            track(rows)
            on_rows(rows)

        for other in merged:
            merge(other, book)
        if trackers:
            track(book.rows())
        if space is not None:
            check_axes(space)
            check_journal(space, book, extend)
            with _workers(space, workers, scheduler) as hired:
                if search is None:
                    run_space(space, book, hired, limits, took, retried)
                elif note := search_space(space, goal, search, book, hired, limits, took, retried):
                    notes.append(note)
    return Sweep(path, goal, traced, notes, versions_of(space.models) if space is not None else None)


def sweep_modules(
    modules: Iterable[nn.Module], inputs: Inputs, goal: Goal, journal: Path, device: str | None = None,
    trackers: Sequence[str] = (),
) -> Sweep:  # fmt: skip
    """Trace the modules in this process, one after another. Each may be garbage before the next one is made.

    Raises JournalError; an error of a module becomes part of its row.
    """
    versions = versions_of([])
    traced: set[bytes] = set()
    notes: list[str] = []
    with _opened(journal) as book, tracking(trackers, notes) as track:
        for i, module in enumerate(modules):
            row = trace_module(i, module, inputs, device, versions)
            book.add([row])
            track([row])
            traced.add(row.key)
    return Sweep(journal, goal, traced, notes, versions)


@contextmanager
def _opened(path: Path) -> Iterator[Journal]:
    book = open_journal(path)
    try:
        yield book
    finally:
        book.close()


@contextmanager
def _workers(space: Space, count: int | None, scheduler: str | None) -> Iterator[Workers]:
    if scheduler is None:
        with local_workers(count) as hired:
            yield hired
        return
    with dask_workers(scheduler, list(space.models), len(space)) as hired:
        yield hired
