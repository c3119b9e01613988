"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cspprof.cli import completion
from cspprof.render import RENDERERS

STANDARD_OUTPUT = (Path("-"), Path("/dev/stdout"))
"""Names of `-o` that mean standard output, as without `-o`."""


def _file_or_none(path: Path | None) -> Path | None:
    return None if path in STANDARD_OUTPUT else path


Specs = Annotated[
    list[str],
    typer.Argument(
        metavar="SPEC...",
        help="A zoo name, timm:NAME, torchvision:NAME, file.py:factory, pkg.mod:factory, model.cfg, model.pt2, "
        "model.onnx or x.profile.json; options of the factory follow after commas.",
        show_default=False,
        autocompletion=completion.complete_spec,
    ),
]
Spec = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        help="A model, as in cspprof profile SPEC.",
        show_default=False,
        autocompletion=completion.complete_spec,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help=f"{', '.join(RENDERERS.names())}.",
        autocompletion=completion.complete_format,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write to FILE. The file name ending sets the format.",
        callback=_file_or_none,
    ),
]
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="[NAME=]SHAPE[:DTYPE]",
        help="1x3x256x256, or mask=1x8:bool; NAME:=VALUE for an argument that is no tensor: size:=16,16; repeat for "
        "more inputs.",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="Floating dtype of inputs and weights, e.g. float16. int8: bytes as if all of them were quantized.",
        autocompletion=completion.complete_dtype,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="meta computes no values; cpu runs the forward pass. Default: meta, then cpu if the model needs values.",
        autocompletion=completion.complete_device,
    ),
]
Train = Annotated[bool, typer.Option("--train", help="Trace in training mode instead of eval mode.")]
Deploy = Annotated[
    bool,
    typer.Option(
        "--deploy",
        help="Count the deployed form: branches merged, batch norms folded, activations in place, after a proof on "
        "real tensors that the outputs stay the same.",
    ),
]
DeployBeside = Annotated[
    bool,
    typer.Option(
        "--deploy", help="Each model in its training form and, beside it, in its deployed form (as profile --deploy)."
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 2 if an operation has no rule.")]
Layers = Annotated[bool, typer.Option("--layers", help="List every layer.")]
Depth = Annotated[int | None, typer.Option("--depth", min=0, metavar="N", help="Sum layers into modules at depth N.")]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="kind|stage",
        help="Sum layers by kind or by stage.",
        autocompletion=completion.complete_grouping,
    ),
]
Sort = Annotated[
    str | None,
    typer.Option(
        "--sort",
        metavar="METRIC",
        help="Sort by this metric, largest first.",
        autocompletion=completion.complete_metric,
    ),
]
Ascending = Annotated[bool, typer.Option("--ascending", help="With --sort: smallest first.")]
Top = Annotated[int | None, typer.Option("--top", min=1, metavar="N", help="Show only the first N rows of a list.")]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar="METRICS",
        help="Show only these metrics: macs,cio,peak_bytes. The first that adds up over layers is split into layers.",
        autocompletion=completion.complete_metrics,
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="NAMES",
        help="The columns of the table of layers or groups: kind,out,macs,live_bytes. Names: kind, stage, in, out, "
        "operations, share, rf (the receptive field of layers), and every metric of layers.",
    ),
]
AllMetrics = Annotated[bool, typer.Option("--all", help="Print every metric, not one of each kind.")]
Convention = Annotated[
    str | None,
    typer.Option(
        "--convention",
        metavar="NAME",
        help="Count compute as another tool does: macs, flops, darknet, fvcore … (all: cspprof explain conventions). "
        "hardnet or cspnet sets the rule of cio.",
        autocompletion=completion.complete_convention,
    ),
]
Save = Annotated[Path | None, typer.Option("--save", metavar="FILE", help="Save the profile as x.profile.json.")]
Machine = Annotated[
    str | None,
    typer.Option(
        "--machine",
        metavar="NAME",
        help="Predict the time: calibrated (this machine, after cspprof calibrate), x.calibration.json, the name of "
        "hardware such as i9-9900k, or name:peak_gmacs:gb_per_s.",
        autocompletion=completion.complete_machine,
    ),
]
PredictionEngine = Annotated[
    str | None,
    typer.Option("--engine", metavar="NAME", help="With --machine calibrated: the engine. Default: onnxruntime."),
]
PredictionThreads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", help="With --machine calibrated: its threads. Default: one per core."),
]
Training = Annotated[
    bool,
    typer.Option(
        "--training", help="What a training step costs: MACs, saved activations, peak memory, modules to checkpoint."
    ),
]
Optimizer = Annotated[
    str | None,
    typer.Option("--optimizer", metavar="NAME", help="With --training: sgd (default), momentum or adamw."),
]
