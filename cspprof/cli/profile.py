"""Commands that measure models: profile, cio, flops, compare, bottleneck."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cspprof.analysis.comparison import check_explainable
from cspprof.cli import options as o
from cspprof.cli.output import Outlet, tracked
from cspprof.core.errors import CspprofError, IncompleteError
from cspprof.core.files import check_writable
from cspprof.core.inputs import known_device, known_float, parse_inputs
from cspprof.metrics import CONVENTIONS, METRICS
from cspprof.profiles import Profile, profile_spec
from cspprof.report.notes import incomplete
from cspprof.report.profile import CIO, FLOPS, Breakdown, analysis
from cspprof.sources import Request


def measure(
    specs: Sequence[str], inputs: list[str] | None, dtype: str | None, device: str | None, train: bool, strict: bool
) -> list[Profile]:
    """The profiles of the named models, in order."""
    dtype, device = known_float(dtype) if dtype else None, known_device(device) if device else None
    request = Request(inputs=parse_inputs(inputs or (), dtype or "float32"), device=device, dtype=dtype, train=train)
    found = {spec: profile_spec(spec, request, cache=True) for spec in tracked(list(dict.fromkeys(specs)))}
    profiles = [found[spec] for spec in specs]
    unknown = [incomplete(p) for p in profiles if not p.complete]
    if strict and unknown:
        raise IncompleteError("\n".join(unknown), "Teach cspprof the operation: see cspprof.op_rule.")
    return profiles


def profile_command(
    specs: o.Specs, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, strict: o.Strict = False, layers: o.Layers = False,
    depth: o.Depth = None, by: o.By = None, sort: o.Sort = None, top: o.Top = None,
    convention: o.Convention = None, save: o.Save = None,
) -> None:  # fmt: skip
    """Every registered number of each model."""
    if save is not None:
        if len(specs) != 1:
            raise CspprofError("--save keeps one profile", "Name one SPEC.")
        if not save.name.endswith((".profile.json", ".profile.json.gz")):
            raise CspprofError(f"{save} could not be used as a SPEC later", f"Call it {save.name}.profile.json")
        check_writable(save)
    outlet, how = _plan("macs", format, output, layers, depth, by, sort, top, convention)
    profiles = measure(specs, input, dtype, device, train, strict)
    if save is not None:
        profiles[0].save(save)
    outlet.emit(analysis("profile", profiles, [m for m, _ in METRICS.items()], "macs", how, convention))


def cio_command(
    specs: o.Specs, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, strict: o.Strict = False, layers: o.Layers = False,
    depth: o.Depth = None, by: o.By = None, sort: o.Sort = None, top: o.Top = None,
    convention: o.Convention = None,
) -> None:  # fmt: skip
    """Convolutional input/output of each model, the change from the first, and where it comes from."""
    outlet, how = _plan("cio_cspnet", format, output, layers, depth, by, sort, top, convention)
    profiles = measure(specs, input, dtype, device, train, strict)
    outlet.emit(analysis("cio", profiles, CIO, "cio_cspnet", how, convention))


def flops_command(
    specs: o.Specs, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, strict: o.Strict = False, layers: o.Layers = False,
    depth: o.Depth = None, by: o.By = None, sort: o.Sort = None, top: o.Top = None,
    convention: o.Convention = None,
) -> None:  # fmt: skip
    """MACs, FLOPs and BFLOPs by the three published rules, and where a change comes from."""
    outlet, how = _plan("macs", format, output, layers, depth, by, sort, top, convention)
    profiles = measure(specs, input, dtype, device, train, strict)
    outlet.emit(analysis("flops", profiles, FLOPS, "macs", how, convention))


def compare_command(
    specs: o.Specs, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, strict: o.Strict = False, layers: o.Layers = False,
    depth: o.Depth = None, by: o.By = None, sort: o.Sort = None, top: o.Top = None,
    convention: o.Convention = None,
    metric: Annotated[str, typer.Option("--metric", help="Explain the change in this number.")] = "cio_cspnet",
) -> None:  # fmt: skip
    """Two or more models side by side in every number; the first is the base."""
    if len(specs) < 2:
        raise CspprofError("comparing takes at least two models", f"For one model: cspprof profile {specs[0]}")
    check_explainable(metric)
    outlet, how = _plan(metric, format, output, layers, depth, by, sort, top, convention)
    profiles = measure(specs, input, dtype, device, train, strict)
    outlet.emit(analysis("compare", profiles, [m for m, _ in METRICS.items()], metric, how, convention))


def bottleneck_command(
    specs: o.Specs, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, strict: o.Strict = False,
    metric: Annotated[str, typer.Option("--metric", "--sort", help="Largest by this number.")] = "macs",
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="How many layers.")] = 10,
) -> None:  # fmt: skip
    """The largest layers of each model, their share and the cumulative share."""
    if METRICS.get(metric).of_op is None:
        raise CspprofError(
            f"{metric} is a number of whole models", "Take one of layers: macs, cio_cspnet, traffic_bytes"
        )
    from cspprof.report.bottleneck import bottleneck  # and with it every chart

    outlet = Outlet(format, output)
    outlet.emit(bottleneck(measure(specs, input, dtype, device, train, strict), metric, top))


def _plan(
    focus: str, format_name: str | None, output: Path | None, layers: bool, depth: int | None, by: str | None,
    sort: str | None, top: int | None, convention: str | None,
) -> tuple[Outlet, Breakdown]:  # fmt: skip
    """Everything that can be refused before the work is refused here."""
    if convention is not None:
        CONVENTIONS.get(convention)
    if sort not in (None, "params") and METRICS.get(str(sort)).of_op is None:
        raise CspprofError(f"{sort} is a number of whole models", "Sort by one of layers: macs, cio_cspnet, params")
    if by is not None and depth is not None:
        raise CspprofError("--by and --depth group in two ways at once", "Give one of them.")
    if layers and (by is not None or depth is not None):
        raise CspprofError("--layers lists what --by and --depth fold together", "Give one of them.")
    if by not in (None, "kind", "stage"):
        raise CspprofError(f"cannot group by {by!r}", "Group by one of: kind, stage")
    if top is not None and sort is None:
        sort = focus
    how = Breakdown(layers or sort is not None, depth, by, sort, top)
    return Outlet(format_name, output), how
