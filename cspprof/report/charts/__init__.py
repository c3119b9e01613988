"""Pictures before they are drawn: one registered function per kind, from profiles to a `Chart`.

To add a kind, write a function `(profiles, *, options) -> Chart`, decorate it with `chart`, and name its file at the
end of this one. Its keyword arguments are the options that `cspprof plot KIND` and `cspprof.plot(kind, …)` take.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from cspprof.core.errors import CspprofError, OptionError
from cspprof.core.record import Record
from cspprof.core.registry import Registry
from cspprof.metrics import METRICS
from cspprof.papers.accuracy import ACCURACIES
from cspprof.papers.hardware import hardware
from cspprof.report.chart_model import Chart

Draw = Callable[..., Chart]


@dataclass(frozen=True, slots=True)
class ChartEntry:
    """A kind of chart: what it draws, of which models unless told, and of how many."""

    kind: str
    draw: Draw
    default: tuple[str, ...]
    """SPECs that it is of unless others are named."""
    traced_on: tuple[int, ...] | None
    """The shape that the default models are traced on; None for their own."""
    least: int
    most: int
    variants: tuple[str, ...]
    """Options that one named SPEC is tried with: `fusion=none`, …"""

    @property
    def summary(self) -> str:
        return (self.draw.__doc__ or "").strip().splitlines()[0]

    @property
    def options(self) -> list[str]:
        """Names of the options that its function takes."""
        return [p.name for p in inspect.signature(self.draw).parameters.values() if p.kind is p.KEYWORD_ONLY]

    def specs(self, given: Sequence[str]) -> list[str]:
        """What to trace for the SPECs that were named."""
        if len(given) == 1 and self.variants:
            return [f"{given[0]},{options}" for options in self.variants]
        return list(given or self.default)

    @contextmanager
    def tried(self, given: Sequence[str]) -> Iterator[None]:
        """While the chart's models are made: one that does not take the variants' options is told what to name."""
        try:
            yield
        except OptionError as error:
            if len(given) != 1 or not self.variants:
                raise
            raise CspprofError(
                f"{self.kind} draws one model with {', '.join(self.variants)}; {error.message}",
                f"Name one that takes these (csp_peleenet, …), or every form of yours: cspprof plot {self.kind} "
                f"{given[0]} SPEC…",
            ) from None

    def check(self, models: int, options: Mapping[str, Any]) -> None:
        """Raise CspprofError, before any work, for too few or many models and for options that it does not take."""
        if not self.least <= models <= self.most:
            wanted = str(self.least) if self.least == self.most else f"{self.least} to {self.most}"
            many = "no models" if self.most == 0 else "1 model" if wanted == "1" else f"{wanted} models"
            raise CspprofError(
                f"{self.kind} draws {many}; {models} were named",
                "Name other SPECs." if models <= self.most or self.most == 0 else
                f"Name {self.most} at most, or compare many with: cspprof plot pareto SPEC…",
            )  # fmt: skip
        unknown = [o for o in options if o not in self.options]
        for number in (options.get(o) for o in ("metric", "x", "y")):
            if number is not None and number not in ACCURACIES:
                METRICS.get(number)
        for name in options.get("hardware", ()):
            hardware(name)
        if unknown:
            takes = ", ".join(f"--{o}" for o in self.options) or "no options of its own"
            raise CspprofError(f"{self.kind} does not take --{unknown[0]}", f"It takes {takes}.")


CHARTS: Registry[ChartEntry] = Registry("chart", "cspprof plot --help")


def chart(
    kind: str,
    *,
    default: Sequence[str] = (),
    traced_on: Sequence[int] | None = None,
    models: tuple[int, int] = (1, 6),
    variants: Sequence[str] = (),
) -> Callable[[Draw], Draw]:
    """Register the decorated function as the chart `kind`; its docstring's first line is the summary.

    `default` names the models that it is of when none are given, traced on that shape; `models` how many it can draw.
    """

    def register(function: Draw) -> Draw:
        CHARTS.add(
            kind,
            ChartEntry(
                kind, function, tuple(default), tuple(traced_on) if traced_on else None, *models, tuple(variants)
            ),
        )
        return function

    return register


def draw(kind: str, profiles: Sequence[Record], **options: Any) -> Chart:
    """The chart `kind` of `profiles`. Raises CspprofError where it cannot be drawn of them, saying why."""
    entry = CHARTS.get(kind)
    entry.check(len(profiles), options)
    return entry.draw(profiles, **options)


for _room in ("layers", "change", "roofline", "points", "fusion", "memory", "dense_block"):  # listed in this order
    import_module(f"{__name__}.{_room}")
