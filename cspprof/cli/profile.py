"""The commands `profile`, `cio`, `flops` and `compare`: the metrics of models, and where changes come from."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cspprof.analysis.comparison import adds_up, check_additive
from cspprof.analysis.headline import headline
from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter, print_written, writing
from cspprof.cli.prediction import check_options, machine_named, report_of
from cspprof.cli.specs import check_deployed, check_layer_metric, each_spec, profile_specs
from cspprof.core.errors import CspprofError
from cspprof.core.files import check_replaceable, check_writable
from cspprof.core.inputs import INT8
from cspprof.core.record import Record
from cspprof.measure.calibration.report import Listing
from cspprof.metrics import CONVENTIONS, METRICS
from cspprof.metrics.names import CIO_CONVENTIONS, check_convention, resolve_metric, split_metrics
from cspprof.metrics.training_memory import DEFAULT_OPTIMIZER, optimizer_named
from cspprof.report.layer_tables import Breakdown, split_columns
from cspprof.report.profile import (
    CIO_METRICS,
    FLOPS_METRICS,
    MOST_SIDE_BY_SIDE,
    cio_metrics,
    every_metric,
    profile_report,
    short_metrics,
)
from cspprof.report.training import training_report
from cspprof.storage.profile_file import is_own


def profile_command(
    specs: o.Specs, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, deploy: o.Deploy = False, strict: o.Strict = False,
    layers: o.Layers = False, depth: o.Depth = None, by: o.By = None, sort: o.Sort = None,
    ascending: o.Ascending = False, top: o.Top = None,
    metric: o.Metrics = None, columns: o.Columns = None, convention: o.Convention = None,
    all_metrics: o.AllMetrics = False, save: o.Save = None, machine: o.Machine = None,
    engine: o.PredictionEngine = None, threads: o.PredictionThreads = None, training: o.Training = False,
    optimizer: o.Optimizer = None,
) -> None:  # fmt: skip
    """Print what each model costs: parameters, compute, memory traffic and peak memory. With --all: every metric.

    With --machine, predict the time of a forward pass and of each layer instead, with the error of the prediction.
    With --training, print what a training step costs: MACs, the activations that autograd keeps, the peak memory, and
    the modules to checkpoint. With --deploy, print what the network costs as it is deployed.
    """
    if training:
        _check_training({
            "--metric": metric, "--convention": convention, "--all": all_metrics, "--sort": sort, "--columns": columns,
            "--by": by, "--depth": depth is not None, "--machine": machine, "--deploy": deploy,
            "--dtype int8": dtype == INT8,
        })  # fmt: skip
        optimizer_named(optimizer or DEFAULT_OPTIMIZER)
    elif optimizer is not None:
        raise CspprofError("--optimizer needs --training", f"Write: --training --optimizer {optimizer}")
    if save is not None:
        if len(specs) != 1:
            raise CspprofError("--save writes one profile", "Name one SPEC.")
        check_profile_path(save)
    content = _content(list(METRICS), "macs", metric, convention)
    breakdown = _breakdown(content, layers, depth, by, sort, ascending, top, columns)
    chosen_machine = None
    if machine is not None:
        check_options({
            "--metric": metric, "--convention": convention, "--all": all_metrics, "--sort": sort,
            "--columns": columns, "--train": train,
        })  # fmt: skip
        chosen_machine = machine_named(machine, engine, threads)
    elif engine is not None or threads is not None:
        option = "--engine" if engine is not None else "--threads"
        raise CspprofError(f"{option} needs --machine", f"Write: --machine calibrated, or leave out {option}.")
    writer = ReportWriter(format, output)
    profiles = profile_specs(specs, input, dtype, device, train, strict, training, deploy)
    if save is not None:
        written = writing(save)
        profiles[0].save(save)
        print_written(written)
    if training:
        writer.write(training_report(profiles, optimizer or DEFAULT_OPTIMIZER, top, layers))
        return
    if chosen_machine is not None:
        writer.write(report_of(chosen_machine, profiles, Listing(layers, top, depth, by)))
        return
    metrics, hints = content.metrics, []
    if not metric:
        content = content._replace(metrics=every_metric(profiles))
        metrics = content.metrics if all_metrics else short_metrics(profiles, convention)
        if len(metrics) < len(content.metrics):
            hints = ["--all prints every metric, --metric NAMES chooses metrics."]
    writer.write(
        profile_report(
            "profile", profiles, metrics, content.focus, breakdown, content.tool, content.metrics, hints, bool(metric)
        )
    )


def _check_training(options: Mapping[str, object]) -> None:
    """Raise CspprofError for an option that has no meaning beside --training."""
    for option, value in options.items():
        if value:
            raise CspprofError(
                f"--training and {option} exclude each other", f"Leave out {option}, or leave out --training."
            )


def check_profile_path(path: Path) -> None:
    """Raise CspprofError if a profile cannot be saved there."""
    if not path.name.endswith((".profile.json", ".profile.json.gz")):
        ending = ".profile.json.gz" if path.name.endswith(".gz") else ".profile.json"
        name = path.name.removesuffix(".gz").removesuffix(".json").removesuffix(".profile")
        stem = Path(name).stem or "x"
        raise CspprofError(
            f"the name of a saved profile ends in .profile.json or .profile.json.gz, unlike {path.name}",
            f"Write: --save {shlex.quote(str(path.with_name(stem + ending)))}",
        )
    check_writable(path)
    check_replaceable(path, is_own, "a saved profile", "--save FILE")


def cio_command(
    specs: o.Specs, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, deploy: o.Deploy = False, strict: o.Strict = False,
    layers: o.Layers = False, depth: o.Depth = None, by: o.By = None, sort: o.Sort = None,
    ascending: o.Ascending = False, top: o.Top = None,
    metric: o.Metrics = None, columns: o.Columns = None, convention: o.Convention = None,
) -> None:  # fmt: skip
    """Print the convolutional input/output of each model, the change from the first, and where it comes from."""
    content = _content(CIO_METRICS, "cio", metric, convention)
    breakdown = _breakdown(content, layers, depth, by, sort, ascending, top, columns)
    writer = ReportWriter(format, output)
    profiles = profile_specs(specs, input, dtype, device, train, strict, deploy=deploy)
    if not metric:
        content = content._replace(metrics=cio_metrics(profiles)).with_headline(profiles)
    writer.write(
        profile_report("cio", profiles, content.metrics, content.focus, breakdown, content.tool, chosen=bool(metric))
    )


def flops_command(
    specs: o.Specs, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, deploy: o.Deploy = False, strict: o.Strict = False,
    layers: o.Layers = False, depth: o.Depth = None, by: o.By = None, sort: o.Sort = None,
    ascending: o.Ascending = False, top: o.Top = None,
    metric: o.Metrics = None, columns: o.Columns = None, convention: o.Convention = None,
) -> None:  # fmt: skip
    """Print MACs, FLOPs and BFLOPs by the three published rules, and where a change comes from."""
    content = _content(FLOPS_METRICS, "macs", metric, convention)
    breakdown = _breakdown(content, layers, depth, by, sort, ascending, top, columns)
    writer = ReportWriter(format, output)
    profiles = profile_specs(specs, input, dtype, device, train, strict, deploy=deploy)
    writer.write(
        profile_report("flops", profiles, content.metrics, content.focus, breakdown, content.tool, chosen=bool(metric))
    )


def compare_command(
    specs: o.Specs, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, deploy: o.DeployBeside = False, strict: o.Strict = False,
    layers: o.Layers = False, depth: o.Depth = None, by: o.By = None, sort: o.Sort = None,
    ascending: o.Ascending = False, top: o.Top = None,
    metric: o.Metrics = None, columns: o.Columns = None, convention: o.Convention = None,
) -> None:  # fmt: skip
    """Print two or more models side by side in every metric. Changes are relative to the first model.

    With --deploy, each model in its training form and in its deployed form; one SPEC is enough.

    Four or more models: one row per model, with one metric of each kind unless --metric chooses them.
    """
    specs = each_spec(specs)
    if deploy:
        check_deployed(train)
        specs = list(dict.fromkeys(specs))
    elif len(specs) < 2:
        raise CspprofError("compare needs at least two models", f"For one model: cspprof profile {specs[0]}")
    content = _content(list(METRICS), "cio", metric, convention)
    check_additive(content.focus)
    breakdown = _breakdown(content, layers, depth, by, sort, ascending, top, columns)
    writer = ReportWriter(format, output)
    profiles = profile_specs(specs, input, dtype, device, train, strict)
    if deploy:
        deployed = profile_specs(specs, input, dtype, device, train, strict, deploy=True)
        profiles = [form for pair in zip(profiles, deployed, strict=True) for form in pair]
    metrics, hints = content.metrics, []
    if not metric:
        content = content._replace(metrics=every_metric(profiles)).with_headline(profiles)
        metrics = content.metrics
        if len(profiles) > MOST_SIDE_BY_SIDE:
            metrics = short_metrics(profiles, convention)
            hints = ["--metric NAMES chooses metrics, -o FILE.csv writes all of them."]
    writer.write(
        profile_report(
            "compare", profiles, metrics, content.focus, breakdown, content.tool, content.metrics, hints, bool(metric)
        )
    )


class _Content(NamedTuple):
    """The metrics that a report shows, the metric that it splits into layers, and the convention."""

    metrics: Sequence[str]
    focus: str
    convention: str | None

    @property
    def tool(self) -> str | None:
        """The tool by whose convention compute is counted; None for a convention of CIO."""
        return self.convention if self.convention in CONVENTIONS else None

    def with_headline(self, profiles: Sequence[Record]) -> _Content:
        """The content with `traffic_bytes` in place of CIO as its focus, if CIO does not describe one of the models.
        A chosen convention of CIO stays."""
        return self if self.convention in CIO_CONVENTIONS else self._replace(focus=headline(profiles))


def _content(metrics: Sequence[str], focus: str, chosen: list[str] | None, convention: str | None) -> _Content:
    """The values of `--metric` and `--convention`, checked: without `--metric`, the given metrics and focus.

    Of several chosen metrics, the first that adds up over the layers is the focus. Raises UnknownNameError.
    """
    if convention is not None:
        check_convention(convention)
    focus = resolve_metric(focus, convention)
    if chosen:
        metrics = split_metrics(chosen, convention)
        focus = next((m for m in metrics if adds_up(m)), metrics[0] if len(metrics) == 1 else focus)
    return _Content(metrics, focus, convention)


def _breakdown(
    content: _Content, layers: bool, depth: int | None, by: str | None, sort: str | None, ascending: bool,
    top: int | None, columns: str | None,
) -> Breakdown:  # fmt: skip
    """Which layers the report lists. Raises CspprofError for options that contradict each other."""
    if sort is not None:
        sort = resolve_metric(sort, content.convention)
        check_layer_metric(sort)
    if ascending and sort is None:
        raise CspprofError("--ascending needs a metric to sort by", "Write for example: --sort moc --ascending")
    if by is not None and depth is not None:
        raise CspprofError("--by and --depth exclude each other", "Use one of them.")
    if layers and (by is not None or depth is not None):
        raise CspprofError("--layers lists single layers, --by and --depth groups of them", "Use one of them.")
    if by not in (None, "kind", "stage"):
        raise CspprofError(f"cannot group by {by!r}", "Group by one of: kind, stage. By module: --depth 1")
    listed = layers or sort is not None or top is not None or columns is not None
    how = Breakdown(listed, depth, by, sort, top, ascending)
    return how if columns is None else how._replace(columns=split_columns(columns, how, content.convention))
