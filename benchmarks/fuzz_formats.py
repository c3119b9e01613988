"""The formats that `fuzz.py` tries: for each valid inputs to begin with, a way to change them, and their reader.

A reader of a file also computes from what it read, as commands do. To add a format, add a line to `FORMATS`.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import fuzz_mutations as mutations

Mutate = Callable[[Random, bytes, Sequence[bytes]], bytes]


class Format(NamedTuple):
    """A kind of input."""

    ending: str
    """Of its files; empty for a text of the command line."""
    seeds: Callable[[], list[bytes]]
    mutate: Mutate
    read: Callable[[Any], object]
    """Reads a file, or a text, and computes from it."""


# -- Darknet cfg -------------------------------------------------------------------------------------------

CFGS = """\
[net]
width=32
height=32
channels=3
# comment
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
groups=1
dilation=2
activation=leaky
[maxpool]
size=2
stride=2
[upsample]
stride=2
scale=0.5
[route]
layers=-1,-3
[shortcut]
from=-4
weights_type=per_channel
weights_normalization=softmax
activation=linear
[reorg]
stride=2
[avgpool]
[connected]
output=10
activation=mish
[softmax]
groups=2
temperature=1
[dropout]
probability=.5
---
[net]
width=16
height=16
channels=4
[conv]
filters=18
size=1
antialiasing=1
stride_x=2
stride_y=1
xnor=1
[local]
filters=18
size=3
pad=1
[normalization]
size=5
alpha=0.0001
[scale_channels]
from=-2
[sam]
from=-1
[implicit]
filters=18
atoms=1
[route]
layers=3
groups=2
group_id=1
[crop]
crop_width=4
crop_height=4
[local_avgpool]
size=3
stride=1
padding=1
[batchnorm]
[activation]
activation=swish
[maxpool]
maxpool_depth=1
out_channels=3
[conv]
filters=18
binary=1
[conv]
filters=18
[conv]
filters=18
share_index=-1
[yolo]
mask=0,1
anchors=1,2, 3,4
classes=4
num=6
[cost]
"""


def _cfgs() -> list[bytes]:
    texts = CFGS.split("---\n")
    head = "[net]\nwidth=16\nheight=16\nchannels=3\n"
    sections = [f"[{s}" for text in texts for s in text.split("[")[2:]]
    first = "[conv]\nfilters=18\n" * 4
    singles = [f"{head}{first}{section}" for section in sections]
    return [text.encode() for text in (*texts, *singles)]


# -- ONNX --------------------------------------------------------------------------------------------------


@cache
def _onnx_models() -> list[Any]:
    """Small graphs with convolutions, shape arithmetic, functions, branches, loops and external data."""
    import numpy
    from onnx import TensorProto, helper, numpy_helper

    f32, i64, boolean = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
    node, value = helper.make_node, helper.make_tensor_value_info
    x, y = value("x", f32, [1, 4, 8, 8]), value("y", f32, None)

    def weight(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(numpy.zeros(shape, numpy.float32), name)

    def numbers(name: str, *values: int) -> Any:
        return numpy_helper.from_array(numpy.array(values, numpy.int64), name)

    def scalar(name: str, number: Any, kind: Any = numpy.int64) -> Any:
        return numpy_helper.from_array(numpy.array(number, kind), name)

    def model(nodes: list[Any], weights: Sequence[Any] = (), inputs: Sequence[Any] = (x,), **options: Any) -> Any:
        opsets = [helper.make_opsetid(domain, 1) for domain in ("my", "com.microsoft", "ai.onnx.ml")]
        graph = helper.make_graph(nodes, "g", list(inputs), [y], list(weights))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), *opsets], **options)

    def body(nodes: list[Any], inputs: Sequence[Any], outputs: Sequence[Any], weights: Sequence[Any] = ()) -> Any:
        return helper.make_graph(nodes, "body", list(inputs), list(outputs), list(weights))

    state = value("s", f32, [1, 4, 8, 8])
    again = value("again", boolean, [])
    loop = body(
        [node("Conv", ["s", "cw"], ["o"], pads=[1, 1, 1, 1]), node("Identity", ["again"], ["go"])],
        [value("i", i64, []), again, state], [value("go", boolean, []), value("o", f32, [1, 4, 8, 8])],
    )  # fmt: skip
    scan = body([node("Add", ["s", "t"], ["o"]), node("Identity", ["o"], ["u"])],
                [value("s", f32, [8, 8]), value("t", f32, [8, 8])],
                [value("o", f32, [8, 8]), value("u", f32, [8, 8])])  # fmt: skip
    branches = [body([node(op, ["x"], ["b"])], [], [value("b", f32, [1, 4, 8, 8])]) for op in ("Relu", "Sigmoid")]
    outside = TensorProto(name="e", data_type=f32, dims=[4, 4, 3, 3], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", "weights.bin"), ("offset", "0"), ("length", "576")):
        entry = outside.external_data.add()
        entry.key, entry.value = key, text
    half = helper.make_function(
        "my", "Half", ["a", "k"], ["c"],
        [node("Conv", ["a", "k"], ["b"], strides=[2, 2]), node("Block", ["b"], ["c"], domain="my")],
        [helper.make_opsetid("", 18), helper.make_opsetid("my", 1)], ["alpha"],
    )  # fmt: skip
    block = helper.make_function("my", "Block", ["a"], ["b"], [node("LeakyRelu", ["a"], ["b"])],
                                 [helper.make_opsetid("", 18)])  # fmt: skip
    scoped = node("Relu", ["x"], ["y"], name="/features/features.0/act/Relu")
    pair = scoped.metadata_props.add()
    pair.key, pair.value = "pkg.torch.onnx.name_scopes", "['', 'layer1', 'layer1.0', 'relu']"
    return [
        model([node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2], dilations=[1, 1], group=2),
               node("BatchNormalization", ["c", "b", "b", "b", "b"], ["n"]), node("Relu", ["n"], ["r"]),
               node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
               node("GlobalAveragePool", ["m"], ["p"]), node("Flatten", ["p"], ["f"]),
               node("Gemm", ["f", "g"], ["y"], transB=1)],
              [weight("w", 8, 2, 3, 3), weight("b", 8), weight("g", 10, 8)]),
        model([node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"]), node("Mul", ["n", "two"], ["m"]),
               node("Unsqueeze", ["m", "axis"], ["u"]), node("Concat", ["u", "rest"], ["t"], axis=0),
               node("Expand", ["x", "t"], ["e"]), node("Reshape", ["e", "flat"], ["r"]),
               node("ReduceMean", ["r", "axis"], ["y"], keepdims=0)],
              [scalar("zero", 0), scalar("two", 2), numbers("axis", 0), numbers("rest", 4, 8, 8),
               numbers("flat", 8, -1)]),
        model([node("Loop", ["n", "c", "x"], ["y"], body=loop)],
              [scalar("n", 3), scalar("c", True, bool), weight("cw", 4, 4, 3, 3)]),
        model([node("Squeeze", ["x", "axis"], ["q"]), node("ReduceSum", ["q", "axis"], ["z"], keepdims=0),
               node("Scan", ["z", "q"], ["last", "y"], body=scan, num_scan_inputs=1)], [numbers("axis", 0)]),
        model([node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])], [scalar("c", True, bool)]),
        model([node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])], (),
              [x, value("c", boolean, [])]),
        model([node("Half", ["x", "w"], ["y"], domain="my", alpha=0.1)], [weight("w", 4, 4, 3, 3)],
              functions=[half, block]),
        model([node("Conv", ["x", "e"], ["y"])], [outside]),
        model([scoped]),
        model([node("FusedConv", ["x", "w"], ["a"], domain="com.microsoft", pads=[1, 1, 1, 1], activation="Relu"),
               node("ReorderInput", ["a"], ["b"], domain="com.microsoft.nchwc"),
               node("FusedMatMul", ["b", "b"], ["y"], domain="com.microsoft", transB=1)], [weight("w", 4, 4, 3, 3)]),
        model([node("QuantizeLinear", ["x", "sc", "zp"], ["q"]),
               node("QLinearConv", ["q", "sc", "zp", "w", "sc", "zp", "sc", "zp"], ["c"]),
               node("DequantizeLinear", ["c", "sc", "zp"], ["y"])],
              [scalar("sc", 1.0, numpy.float32), scalar("zp", 0, numpy.uint8),
               numpy_helper.from_array(numpy.zeros((4, 4, 3, 3), numpy.uint8), "w")]),
        model([node("ConstantOfShape", ["n"], ["z"], value=weight("v", 1)), node("Range", ["a", "l", "d"], ["r"]),
               node("Tile", ["z", "n"], ["t"]), node("Einsum", ["t", "t"], ["m"], equation="ij,jk->ik"),
               node("Resize", ["x", "", "sizes"], ["big"]), node("Pad", ["big", "pads"], ["p"]),
               node("DepthToSpace", ["p"], ["d2"], blocksize=2),
               node("Split", ["d2"], ["s1", "s2"], axis=3, num_outputs=2),
               node("ConvTranspose", ["s1", "tw"], ["y"], strides=[2, 2], output_padding=[1, 1])],
              [numbers("n", 2, 2), scalar("a", 0), scalar("l", 5), scalar("d", 1),
               numbers("pads", 0, 0, 1, 1, 0, 0, 1, 1),
               numpy_helper.from_array(numpy.array([1, 1, 2, 2], numpy.float32), "sizes"), weight("tw", 1, 3, 3, 3)]),
        model([node("Transpose", ["x"], ["t"], perm=[2, 0, 1, 3]), node("Reshape", ["t", "to"], ["q"]),
               node("LSTM", ["q", "w", "r"], ["h", "last"], hidden_size=4),
               node("MultiHeadAttention", ["q", "q", "q"], ["y"], domain="com.microsoft", num_heads=2)],
              [numbers("to", 8, 1, 32), weight("w", 1, 16, 32), weight("r", 1, 16, 4)]),
    ]  # fmt: skip


def _mutate_onnx(rng: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Half of the time the structure, else the bytes."""
    if rng.random() < 0.5:
        return mutations.mutate_bytes(rng, data, seeds)
    models = _onnx_models()
    return mutations.mutate_message(rng, rng.choice(models), models)


# -- saved profiles, measurements, baselines -----------------------------------------------------------------


@cache
def _record(i: int) -> Any:
    """The profile of one of the cfg files."""
    import cspprof

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{i}.cfg"
        path.write_bytes(_cfgs()[i])
        return cspprof.profile(str(path))


@cache
def _records() -> list[Any]:
    import cspprof

    return [_record(0), _record(1), cspprof.profile("resnet10", (1, 3, 32, 32))]


def _profiles() -> list[bytes]:
    from cspprof.storage import profile_file

    return [profile_file.to_bytes(record, compressed=False) for record in _records()]


def _mutate_profile(rng: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    import gzip

    changed = mutations.mutate_json(rng, data, seeds)
    if rng.random() < 0.1:
        changed = gzip.compress(changed, 1)
        return mutations.mutate_bytes(rng, changed, seeds) if rng.random() < 0.5 else changed
    return changed


def _measurements() -> list[bytes]:
    from cspprof.measure.machine import Machine
    from cspprof.measure.result import EngineRun, MeasuredModel, Measurement, Timing

    machine = Machine("CPU", 1, 1 << 30, "Linux", "3.11")
    measured = Measurement(machine, "2026-01-02T03:04:05+00:00", 1, 1, None)
    measured.engines.append(EngineRun("torch"))
    for i, record in enumerate((_record(2), _record(3))):  # small ones
        measured.models.append(MeasuredModel(f"net{i}", f"net{i}", [], replace(record, model=f"net{i}")))
        measured.timings.append(Timing("torch", i, rounds=[[1.0, 1.5], [1.25]]))
    with tempfile.TemporaryDirectory() as folder:
        measured.save(Path(folder) / "x.measured.json")
        return [(Path(folder) / "x.measured.json").read_bytes()]


def _baselines() -> list[bytes]:
    from cspprof.gate.baseline import dump
    from cspprof.gate.measurement import measure

    return [dump({f"net{i}": measure(f"net{i}", record, "cspnet") for i, record in enumerate(_records())})]


CONFIGS = """\
baseline = "cspprof-baseline.json"

[models.net]
target = "net.py:Net"
input = "1x3x224x224"
device = "cpu"

[[rules]]
id = "budget"
model = "net*"
metric = "macs"
max = "1.5 G"
level = "error"

[[rules]]
id = "ratchet"
metric = "cio_cspnet"
max_increase = "1%"
tolerance = 0
ratchet = true
---
[models]
a = "resnet50"
b = {target = "csp_resnet50,gamma=0.5", input = ["1x3x64x64", "mask=1x8:bool"], dtype = "float16"}

[[rules]]
id = "share"
metric = "params"
max_share = "20%"
base = "a"

[[rules]]
id = "ready"
engine_ready = "onnxruntime"
"""
SPACES = """\
models = ["csp_peleenet", "timm:resnet*"]
grid.gamma = "0.25:0.75:0.125"
grid.fusion = ["csp", "first"]
grid.depths = [[1, 2, 3], [2, 2, 2]]
size = [224, "256x320"]
batch = [1, 8]
where = "macs<=2 G and params<3M"
minimize = ["macs"]
"""


TABLE = """\
model,SPEC,input,"#Params (M)",BFLOPs,Memory,top-1
PeleeNet,peleenet,256,2.79,1.017,12.5 MiB,72.6
ResNet-50,"resnet50,num_classes=10",224x320,22.73,9.74,1.5e3 kB,
"CSP, half",csp_resnet50,1x3x256x256,"21,570,000",8.97 G,,75
"""


# -- exported programs ---------------------------------------------------------------------------------------


def _programs() -> list[bytes]:
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.head(torch.cat([y, y[:, :, : y.shape[2] // 2]], 2).mean((2, 3)))

    class Choice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda t: t.relu(), lambda t: t.sigmoid(), (x,))

    found = []
    for net, shape, dynamic in ((Net(), (2, 3, 8, 8), {0: "n"}), (Choice(), (2, 4), None)):
        shapes = None if dynamic is None else ({0: torch.export.Dim("n", min=2, max=64)},)
        program = torch.export.export(net.eval(), (torch.zeros(shape),), dynamic_shapes=shapes)
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        found.append(buffer.getvalue())
    return found


def _mutate_program(rng: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Most of the time one of the JSON documents, else the bytes of the archive."""
    if rng.random() < 0.2:
        return mutations.mutate_bytes(rng, data, seeds)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    chosen = rng.choice([name for name in entries if name.endswith(".json")])
    entries[chosen] = encoded = mutations.mutate_json(rng, entries[chosen], [entries[chosen]])
    if rng.random() < 0.05:
        entries[rng.choice((f"{chosen}2", "../x", "archive/data/x.so", chosen.upper()))] = encoded
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


# -- texts of the command line -------------------------------------------------------------------------------

SPECS = (
    "resnext50", "csp_resnet50,gamma=0.5,fusion=first", "darknet53,depths=(1,2,3,4,5),num_classes=10", "net.py:Net",
    "pkg.mod:build,width='a,b'", "missing.cfg", "missing.onnx", "missing.pt2", "x.profile.json.gz", "timm:resnet18",
    "torchvision:resnet18,num_classes=7", "vgg16,x={'a':[1,2]}", "https://example.org/a.onnx", "a/b/..", "../x", "nope",
)  # fmt: skip
QUANTITIES = ("24 M", "4.09 G", "200 MB", "1.5 MiB", "+2%", "24_000_000", "1,000", "-3e5", "−1 k", "12 MACs/element")
INPUTS = (
    "1x3x224x224", "mask=1x8:bool", "size:=8,8", "size=(8, 8)", "mode:=up", "1,3,4:half", "scalar", "x=[1, {'a': 2}]",
    "scale:=0.5",
)  # fmt: skip
CONSTRAINTS = ("macs<=2 G", "params<3M and cio_cspnet >= 1e6", "bflops<=1 and cio<=12M", "peak_bytes < 200 MB")
GRIDS = (
    "gamma=0.25:0.75:0.125",
    "fusion=csp,first",
    "depths=(1,2),(3,4)",
    "convert.gamma=0.5",
    "size=1:4",
    "n='a',\"b\"",
)
SIZES = ("224,256x320", "192:320:32", "1/4", "csp_*", "timm:resnet[0-9]*", "csp_peleenet,gamma=0.5")


def _texts(texts: Sequence[str]) -> Callable[[], list[bytes]]:
    return lambda: [text.encode() for text in texts]


def _mutate_argument(rng: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    return mutations.encoded(mutations.mutate_text(rng, data.decode(), [s.decode() for s in seeds]))


# -- readers -------------------------------------------------------------------------------------------------


def _use(record: Any) -> None:
    """Compute every metric, show the profile, and write and read it again. It is shown in Markdown: the same report as
    in a terminal, whose table takes ten times as long to draw."""
    from cspprof.metrics import METRICS
    from cspprof.profiles import Profile
    from cspprof.render import render
    from cspprof.report.summary import summary_report
    from cspprof.storage import profile_file

    for name in METRICS:
        METRICS.get(name).total(record)
    render("markdown", summary_report([Profile.of(record)]))
    data = profile_file.to_bytes(record, compressed=False)
    again = profile_file.to_bytes(profile_file.from_bytes(data, "again.profile.json"), compressed=False)
    assert json.loads(again) == json.loads(data), "a record changes if it is saved and read"


def _read_source(path: Path) -> None:
    from cspprof.sources import record_of_spec

    _use(record_of_spec(str(path)))


def _read_measurement(path: Path) -> None:
    from cspprof.measure.result import Measurement
    from cspprof.storage import measured_file

    for record in measured_file.records(path).values():
        _use(record)
    Measurement.load(path).rows()


def _read_baseline(path: Path) -> None:
    from cspprof.gate import baseline

    read = baseline.read(path)
    assert read is not None
    assert baseline.parse(baseline.dump(read), "again.json") == read, "a baseline changes if it is written and read"
    baseline.changed_totals(read, read)


def _read_config(path: Path) -> None:
    from cspprof.gate import config

    read = config.load(path)
    for problem in read.problems:
        assert problem.where, "a problem of a configuration names no place"
        assert problem.message, "a problem of a configuration has no message"
    for rule in read.rules:
        rule.applies_to("net")


def _read_table(path: Path) -> None:
    from cspprof.papers.paper_table import read_paper_table

    read_paper_table(path)


def _read_space(path: Path) -> None:
    from cspprof.analysis.constraints import parse_constraints
    from cspprof.sweeps.space_file import read_space_file

    read = read_space_file(path)
    parse_constraints(read["where"])


def _read_spec(text: str) -> None:
    """The SPEC and its source. Code that it names does not run: only networks of the zoo are built."""
    from cspprof.sources import open_model, parse, record_of_spec, source_of
    from cspprof.sources.spec import Request

    spec = parse(text)
    source = source_of(spec).name
    if source == "zoo":
        with open_model(text, Request()):
            pass
    elif source not in ("factory", "timm", "torchvision"):
        record_of_spec(text)


def _read_grid(text: str) -> None:
    from cspprof.sweeps.space import Space, parse_grid

    space = Space(["resnet10"], parse_grid([text]), sample=3)
    space.description()
    for candidate in space:
        candidate.key("versions")


def _read_sizes(text: str) -> None:
    """A text in each of the small grammars of `cspprof sweep`."""
    from cspprof.core.errors import CspprofError
    from cspprof.sweeps.space import expand_models, parse_shard, parse_sizes, parse_values

    for read in (parse_sizes, parse_shard, lambda t: parse_values(t, "--batch")):
        try:
            read(text)
        except CspprofError:
            continue
    expand_models([text])


def _read_quantity(text: str) -> None:
    from cspprof.core.units import distinct_texts, parse_quantity

    value = parse_quantity(text).value
    float(value)
    distinct_texts(value, value + 1, "")


def _read_input(text: str) -> None:
    from cspprof.core.inputs import arguments, parse_inputs

    inputs = parse_inputs([text, "other=1x3"])
    arguments(inputs, lambda leaf: leaf.nbytes)


def _read_constraint(text: str) -> None:
    from cspprof.analysis.constraints import parse_constraints

    for constraint in parse_constraints([text]):
        constraint.excess_of(10**12)


FORMATS: dict[str, Format] = {
    "cfg": Format(".cfg", _cfgs, mutations.mutate_text_bytes, _read_source),
    "onnx": Format(".onnx", lambda: [m.SerializeToString() for m in _onnx_models()], _mutate_onnx, _read_source),
    "pt2": Format(".pt2", _programs, _mutate_program, _read_source),
    "profile": Format(".profile.json", _profiles, _mutate_profile, _read_source),
    "measured": Format(".measured.json", _measurements, mutations.mutate_json, _read_measurement),
    "baseline": Format(".json", _baselines, mutations.mutate_json, _read_baseline),
    "config": Format(".toml", _texts(CONFIGS.split("---\n")), mutations.mutate_text_bytes, _read_config),
    "space": Format(".toml", _texts([SPACES]), mutations.mutate_text_bytes, _read_space),
    "audit": Format(".csv", _texts([TABLE]), mutations.mutate_text_bytes, _read_table),
    "spec": Format("", _texts(SPECS), _mutate_argument, _read_spec),
    "quantity": Format("", _texts(QUANTITIES), _mutate_argument, _read_quantity),
    "input": Format("", _texts(INPUTS), _mutate_argument, _read_input),
    "where": Format("", _texts(CONSTRAINTS), _mutate_argument, _read_constraint),
    "grid": Format("", _texts(GRIDS), _mutate_argument, _read_grid),
    "sizes": Format("", _texts(SIZES), _mutate_argument, _read_sizes),
}


def argument_text(data: bytes) -> str:
    """The text of the command line that the bytes of an input stand for."""
    return data.decode("utf-8", "surrogateescape")
