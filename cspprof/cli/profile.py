"""The commands `profile`, `cio`, `flops` and `compare`: the metrics of models, and where changes come from."""

from __future__ import annotations

from typing import Annotated

import typer

from cspprof.analysis.comparison import check_additive
from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter
from cspprof.cli.specs import check_layer_metric, profile_specs
from cspprof.core.errors import CspprofError
from cspprof.core.files import check_writable
from cspprof.metrics import CONVENTIONS, METRICS
from cspprof.report.profile import CIO_METRICS, FLOPS_METRICS, Breakdown, profile_report


def profile_command(
    specs: o.Specs, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, strict: o.Strict = False, layers: o.Layers = False,
    depth: o.Depth = None, by: o.By = None, sort: o.Sort = None, top: o.Top = None,
    convention: o.Convention = None, save: o.Save = None,
) -> None:  # fmt: skip
    """Print every metric of each model."""
    if save is not None:
        if len(specs) != 1:
            raise CspprofError("--save writes one profile", "Name one SPEC.")
        if not save.name.endswith((".profile.json", ".profile.json.gz")):
            raise CspprofError(f"a saved profile cannot be named {save.name}", f"Write: --save {save}.profile.json")
        check_writable(save)
    breakdown = _breakdown("macs", layers, depth, by, sort, top, convention)
    writer = ReportWriter(format, output)
    profiles = profile_specs(specs, input, dtype, device, train, strict)
    if save is not None:
        profiles[0].save(save)
    writer.write(profile_report("profile", profiles, list(METRICS), "macs", breakdown, convention))


def cio_command(
    specs: o.Specs, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, strict: o.Strict = False, layers: o.Layers = False,
    depth: o.Depth = None, by: o.By = None, sort: o.Sort = None, top: o.Top = None,
    convention: o.Convention = None,
) -> None:  # fmt: skip
    """Print the convolutional input/output of each model, the change from the first, and where it comes from."""
    breakdown = _breakdown("cio_cspnet", layers, depth, by, sort, top, convention)
    writer = ReportWriter(format, output)
    profiles = profile_specs(specs, input, dtype, device, train, strict)
    writer.write(profile_report("cio", profiles, CIO_METRICS, "cio_cspnet", breakdown, convention))


def flops_command(
    specs: o.Specs, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, strict: o.Strict = False, layers: o.Layers = False,
    depth: o.Depth = None, by: o.By = None, sort: o.Sort = None, top: o.Top = None,
    convention: o.Convention = None,
) -> None:  # fmt: skip
    """Print MACs, FLOPs and BFLOPs by the three published rules, and where a change comes from."""
    breakdown = _breakdown("macs", layers, depth, by, sort, top, convention)
    writer = ReportWriter(format, output)
    profiles = profile_specs(specs, input, dtype, device, train, strict)
    writer.write(profile_report("flops", profiles, FLOPS_METRICS, "macs", breakdown, convention))


def compare_command(
    specs: o.Specs, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, strict: o.Strict = False, layers: o.Layers = False,
    depth: o.Depth = None, by: o.By = None, sort: o.Sort = None, top: o.Top = None,
    convention: o.Convention = None,
    metric: Annotated[str, typer.Option("--metric", help="Explain the change in this metric.")] = "cio_cspnet",
) -> None:  # fmt: skip
    """Print two or more models side by side in every metric. Changes are relative to the first model."""
    if len(specs) < 2:
        raise CspprofError("compare needs at least two models", f"For one model: cspprof profile {specs[0]}")
    check_additive(metric)
    breakdown = _breakdown(metric, layers, depth, by, sort, top, convention)
    writer = ReportWriter(format, output)
    profiles = profile_specs(specs, input, dtype, device, train, strict)
    writer.write(profile_report("compare", profiles, list(METRICS), metric, breakdown, convention))


def _breakdown(
    focus: str, layers: bool, depth: int | None, by: str | None, sort: str | None, top: int | None,
    convention: str | None,
) -> Breakdown:  # fmt: skip
    """Which layers the report lists. Raises CspprofError for options that contradict each other."""
    if convention is not None:
        CONVENTIONS.get(convention)
    if sort is not None and sort != "params":
        check_layer_metric(sort)
    if by is not None and depth is not None:
        raise CspprofError("--by and --depth exclude each other", "Use one of them.")
    if layers and (by is not None or depth is not None):
        raise CspprofError("--layers lists single layers, --by and --depth groups of them", "Use one of them.")
    if by not in (None, "kind", "stage"):
        raise CspprofError(f"cannot group by {by!r}", "Group by one of: kind, stage")
    if top is not None and sort is None:
        sort = focus
    return Breakdown(layers or sort is not None, depth, by, sort, top)
