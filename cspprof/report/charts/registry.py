"""The registry of charts: a chart is a function from records to a `Chart`, and its options are keyword arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cspprof.core.errors import CspprofError, OptionError
from cspprof.core.registry import Registry
from cspprof.metrics import METRICS
from cspprof.papers.accuracy import ACCURACIES
from cspprof.papers.hardware import hardware
from cspprof.report.chart_model import Chart

ChartFunction = Callable[..., Chart]


@dataclass(frozen=True, slots=True)
class ChartEntry:
    """A registered chart: its function, its default models, and how many models it can show."""

    kind: str
    function: ChartFunction
    default: tuple[str, ...]
    """The SPECs of the default models."""
    traced_on: tuple[int, ...] | None
    """The input shape of the default models; None for their native inputs."""
    least: int
    most: int
    variants: tuple[str, ...]
    """The options that a single SPEC is traced with: `fusion=none`, …"""

    @property
    def summary(self) -> str:
        return (self.function.__doc__ or "").strip().splitlines()[0]

    @property
    def options(self) -> list[str]:
        """The names of the options that the chart accepts."""
        return [p.name for p in inspect.signature(self.function).parameters.values() if p.kind is p.KEYWORD_ONLY]

    def specs(self, given: Sequence[str]) -> list[str]:
        """The SPECs to trace: the given ones, the variants of a single SPEC, or the default models."""
        if len(given) == 1 and self.variants:
            return [f"{given[0]},{options}" for options in self.variants]
        return list(given or self.default)

    @contextmanager
    def explain_variants(self, given: Sequence[str]) -> Iterator[None]:
        """Explain an OptionError from a single SPEC that does not accept the options of the variants."""
        try:
            yield
        except OptionError as error:
            if len(given) != 1 or not self.variants:
                raise
            raise CspprofError(
                f"{self.kind} traces a single SPEC with {', '.join(self.variants)}; {error.message}",
                f"Give a SPEC that accepts these options, such as csp_peleenet, or several SPECs: "
                f"cspprof plot {self.kind} {given[0]} SPEC…",
            ) from None

    def check(self, models: int, options: Mapping[str, Any]) -> None:
        """Raise CspprofError for too few or too many models, and for an option or value that the chart rejects."""
        if not self.least <= models <= self.most:
            wanted = str(self.least) if self.least == self.most else f"{self.least} to {self.most}"
            many = "no models" if self.most == 0 else "1 model" if wanted == "1" else f"{wanted} models"
            raise CspprofError(
                f"{self.kind} shows {many}, not {models}",
                "Give another number of SPECs." if models <= self.most or self.most == 0 else
                f"Give at most {self.most} SPECs, or compare many models with: cspprof plot pareto SPEC…",
            )  # fmt: skip
        unknown = [o for o in options if o not in self.options]
        for metric in (options.get(o) for o in ("metric", "x", "y")):
            if metric is not None and metric not in ACCURACIES:
                METRICS.get(metric)
        for name in options.get("hardware", ()):
            hardware(name)
        if unknown:
            accepted = (
                f"Its options: {', '.join(f'--{o}' for o in self.options)}" if self.options else "It has no options."
            )
            raise CspprofError(f"{self.kind} has no option --{unknown[0]}", accepted)


CHARTS: Registry[ChartEntry] = Registry("chart", "cspprof plot --help")


def chart(
    kind: str,
    *,
    default: Sequence[str] = (),
    traced_on: Sequence[int] | None = None,
    models: tuple[int, int] = (1, 6),
    variants: Sequence[str] = (),
) -> Callable[[ChartFunction], ChartFunction]:
    """Register the decorated function as the chart `kind`; the first line of its docstring is the summary.

    `default` are the SPECs to show if none are given, traced on the shape `traced_on`; `models` is the least and the
    greatest number of models.
    """

    def register(function: ChartFunction) -> ChartFunction:
        shape = tuple(traced_on) if traced_on else None
        CHARTS.add(kind, ChartEntry(kind, function, tuple(default), shape, *models, tuple(variants)))
        return function

    return register
