"""Options that every command spells the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cspprof.render import RENDERERS

Specs = Annotated[
    list[str],
    typer.Argument(
        metavar="SPEC...",
        help="A zoo name, timm:NAME, torchvision:NAME, file.py:factory, pkg.mod:factory, model.cfg, model.pt2, "
        "model.onnx or x.profile.json; factory options follow after commas.",
        show_default=False,
    ),
]
Format = Annotated[
    str | None,
    typer.Option("--format", "-f", metavar="FORMAT", help=f"{', '.join(RENDERERS.names())}."),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write to FILE; its ending chooses the format."),
]
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input", metavar="[NAME=]SHAPE[:DTYPE]", help="1x3x256x256, or mask=1x8:bool; repeat for more inputs."
    ),
]
Dtype = Annotated[str | None, typer.Option("--dtype", help="Floating dtype of inputs and weights, e.g. float16.")]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="DEVICE", help="meta computes nothing; cpu runs the forward. Default: meta where that does."
    ),
]
Train = Annotated[bool, typer.Option("--train", help="Trace in training mode instead of eval mode.")]
Strict = Annotated[bool, typer.Option("--strict", help="Operations without a rule are an error (exit 2).")]
Layers = Annotated[bool, typer.Option("--layers", help="List every layer.")]
Depth = Annotated[int | None, typer.Option("--depth", min=0, metavar="N", help="Roll layers up to modules N deep.")]
By = Annotated[str | None, typer.Option("--by", metavar="kind|stage", help="Group layers by sort or by stage.")]
Sort = Annotated[str | None, typer.Option("--sort", metavar="METRIC", help="Largest first by this number.")]
Top = Annotated[int | None, typer.Option("--top", min=1, metavar="N", help="Only the first N rows of a list.")]
Convention = Annotated[
    str | None,
    typer.Option(
        "--convention",
        metavar="NAME",
        help="Count compute as another tool does: macs, flops, darknet, fvcore … (all: cspprof explain conventions).",
    ),
]
Save = Annotated[Path | None, typer.Option("--save", metavar="FILE", help="Keep the profile: x.profile.json.")]
