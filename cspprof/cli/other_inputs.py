"""The command that asks what a network would do on other inputs: whatif."""

from __future__ import annotations

from typing import Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.analyse import measure, profiled
from cspprof.cli.output import Outlet
from cspprof.errors import CspprofError, ReplayError
from cspprof.record import Profile, TensorSpec
from cspprof.whatif import Answer, check_metrics, table, variations

Spec = Annotated[str, typer.Argument(metavar="SPEC", help="A model or a saved profile, as for every command.",
                                     show_default=False)]  # fmt: skip
Size = Annotated[str | None, typer.Option("--size", metavar="SIZES", help="Heights and widths: 224,256,320x384.")]
Batch = Annotated[str | None, typer.Option("--batch", metavar="BATCHES", help="Batch sizes: 1,8.")]
Dtypes = Annotated[str | None, typer.Option("--dtype", metavar="DTYPES", help="Floating dtypes: float32,float16.")]
Metric = Annotated[list[str] | None, typer.Option("--metric", metavar="METRIC", help="A number; repeat for more.")]


def whatif_command(
    spec: Spec, size: Size = None, batch: Batch = None, dtype: Dtypes = None, metric: Metric = None,
    format: o.Format = None, output: o.Output = None, strict: o.Strict = False,
) -> None:  # fmt: skip
    """One model on inputs of other sizes, batches and dtypes, replayed from one record of it.

    Where the record cannot say what happens there, a model is traced again; of a saved profile the row stays open, and
    the exit code is 2.
    """
    outlet, metrics = Outlet(format, output), check_metrics(metric or ())
    profile = measure([spec], None, None, None, False, strict)[0]
    answers = [_answer(spec, profile, given) for given in variations(profile, size, batch, dtype)]
    outlet.emit(table(profile.label, answers, metrics))
    if any(a.problem for a in answers):
        raise typer.Exit(2)


def _answer(spec: str, profile: Profile, given: TensorSpec) -> Answer:
    from cspprof.sources import Request

    try:
        try:
            return Answer(given, profile.at([given], dtype=given.dtype))
        except ReplayError:
            return Answer(given, profiled(spec, Request(inputs=[given], dtype=given.dtype)))
    except CspprofError as error:
        return Answer(given, None, error.message)
