"""Models, files and calls that the situations of `hint_situations.txt` name in Python."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from pathlib import Path
from typing import Any

import torch
from onnx import helper
from onnx_models import F, function_of, node, save_graph, value
from test_exported_program_attacks import (
    RELU,
    archive,
    aten,
    document,
    named,
    tree,
    with_expression,
    zeros,
    zip_file,
)
from test_exported_program_attacks import entry as zip_entry
from test_exported_program_attacks import node as call
from test_onnx import external
from test_onnx_control_flow import doubling, loop_body, save_loop
from torch import nn

from cspprof import Value, advise, compare, convert, plot, profile, sweep
from cspprof.cli.output import write_bytes
from cspprof.core.errors import CspprofError
from cspprof.core.inputs import parse_inputs
from cspprof.core.record import SCHEMA
from cspprof.core.units import parse_quantity
from cspprof.csp.closed_form import CLOSED_FORMS
from cspprof.deployment.random_weights import check_depends_on_input
from cspprof.gate.baseline import dump
from cspprof.gate.baseline import parse as parse_baseline
from cspprof.gate.checking import check, update
from cspprof.gate.config import Rule, check_glob, load
from cspprof.gate.engine_rules import latency_result
from cspprof.gate.init import write_config
from cspprof.gate.measurement import measure
from cspprof.gate.revision_worker import _measure as measure_at
from cspprof.gate.revision_worker import _refuse_working_copy as refuse_working_copy
from cspprof.gate.rules import Outcome, settings_mismatch
from cspprof.measure.ab_session import ABTiming
from cspprof.measure.calibration.calibration_file import Calibration, check_machine
from cspprof.measure.calibration.fit import Prediction, PredictionError, Sample, fit, leave_one_family_out
from cspprof.measure.calibration.kernels import FUSIONS, Shape, kernels, total_work
from cspprof.measure.engines import ENGINES
from cspprof.measure.machine import Machine, cpu_name
from cspprof.measure.parity import check_parity
from cspprof.measure.preparation import _correct_outputs, _Forward
from cspprof.measure.result import Measurement, Timing
from cspprof.measure.session import Session, refuse_without_memory
from cspprof.metrics import metric
from cspprof.metrics.definition import METRICS
from cspprof.papers.paper_table import parse_paper_table
from cspprof.papers.published import parse_tables
from cspprof.papers.recipes import LayerCompression, Network, _total
from cspprof.report.training import training_report
from cspprof.sources.exported_program.memory_limits import RepeatLimit
from cspprof.storage.profile_file import to_dict
from cspprof.sweeps.candidate import Row
from cspprof.sweeps.child import Limits
from cspprof.sweeps.executors import Workers
from cspprof.sweeps.executors import _hired as hired
from cspprof.sweeps.journal import SqliteJournal, TextJournal, merge, open_journal
from cspprof.sweeps.runner import check_journal, run_space
from cspprof.sweeps.space import (
    Space,
    axis_values,
    check_axes,
    expand_models,
    parse_grid,
    parse_shard,
    parse_sizes,
    take,
)
from cspprof.sweeps.space_file import read_space_file
from cspprof.sweeps.versions import versions_of

# -- models ---------------------------------------------------------------------------------------


class Net(nn.Module):
    """(1, 3, 8, 8) -> (1, 8, 8, 8). A function can be given that changes the result."""

    def __init__(self, change: Callable[[torch.Tensor], Any] = lambda y: y) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.change = change

    def forward(self, x: torch.Tensor) -> Any:
        return self.change(self.conv(x))


class Normed(Net):
    """A convolution with a batch norm behind it."""

    def __init__(self, change: Callable[[torch.Tensor], Any] = lambda y: y) -> None:
        super().__init__(change)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> Any:
        return self.change(self.norm(self.conv(x)))


class WrongMerge(Normed):
    """A block whose method for deployment forgets the batch norm."""

    def switch_to_deploy(self) -> None:
        self.norm = nn.Identity()


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return Normed()


def only_on_meta(y: torch.Tensor) -> torch.Tensor:
    if not y.is_meta:
        raise RuntimeError("no kernel")
    return y


class Empty(nn.Module):
    """Returns an object and runs no operation."""

    def forward(self, x: torch.Tensor) -> Any:
        return lambda: x.relu()


class Called(nn.Module):
    """Wraps `Empty` as its hint says."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Empty()

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(x)()


IMAGE = (1, 3, 8, 8)
LEAF = {"type": None, "context": None, "children_spec": []}


def endless(y: torch.Tensor) -> Any:
    """An iterator without an end."""
    while True:
        yield y


def waiting(y: torch.Tensor) -> Any:
    """A future of another thread that is not done."""
    from concurrent.futures import Future

    return Future()


async def later(y: torch.Tensor) -> torch.Tensor:
    await asyncio.sleep(0)
    return y.relu()


def threaded(net: Net) -> Net:
    """A forward that calls a layer in another thread."""

    def in_thread(y: torch.Tensor) -> torch.Tensor:
        thread = threading.Thread(target=net.conv, args=(torch.zeros(IMAGE),))
        thread.start()
        thread.join()
        return y

    net.change = in_thread
    return net


def lazy_after_a_forward() -> nn.Module:
    module = nn.LazyConv2d(8, 1)
    module(torch.zeros(IMAGE))
    return module


def fake() -> torch.Tensor:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.zeros(IMAGE)


def nested() -> torch.Tensor:
    return torch.nested.nested_tensor([torch.zeros(3, 8, 8), torch.zeros(3, 4, 8)])


def jagged() -> torch.Tensor:
    return torch.nested.nested_tensor([torch.zeros(3, 8), torch.zeros(4, 8)], layout=torch.jagged)


def documented(spec: Any) -> int:
    """One for each operation."""
    return 1


def remove(function: Any) -> None:
    """Unregister the metric `mine`."""
    METRICS.remove("mine")


class FromValues(Net):
    """A forward that reads a value."""

    def forward(self, x: torch.Tensor) -> Any:
        return self.conv(x) if x.sum() > -1 else x


def operator(name: str) -> Any:
    """A higher-order operator that torch cannot run step by step."""
    from torch._ops import HigherOrderOperator

    if name not in torch._ops._higher_order_ops:

        class Operator(HigherOrderOperator):
            def __init__(self) -> None:
                super().__init__(name)

            def __call__(self, function: Any, x: torch.Tensor) -> Any:
                return super().__call__(function, x)

        return Operator()
    return torch._ops._higher_order_ops[name]


def packed(x: torch.Tensor) -> torch.Tensor:
    """Attention without a kernel on the CPU."""
    q = x.new_zeros(1, 8, 2, 4)
    return torch.ops.aten._flash_attention_forward(q, q, q, None, None, 8, 8, 0.0, False, False)[0]


def optimized(module: nn.Module) -> nn.Module:
    return torch.jit.optimize_for_inference(torch.jit.script(module.eval()))


def incomplete() -> Any:
    return profile("forwards.py:UnknownOp")


class Blocks(nn.Module):
    """(1, 16, 8, 8) -> the same: three residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Residual() for _ in range(3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.blocks(x)
        return y


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x).relu()


BLOCKS = (1, 16, 8, 8)


def uncopyable() -> nn.Module:
    """Three blocks with a lock, which cannot be copied."""
    model = Blocks()
    model.lock = threading.Lock()
    return model


def lazy_block(run: bool = False) -> nn.Module:
    """Three blocks behind a layer that gets its shapes in a first forward."""
    model = nn.Sequential(nn.LazyConv2d(16, 1), Blocks())
    if run:
        model(torch.zeros(IMAGE))
    return model


def compiled() -> nn.Module:
    model = Blocks()
    model.blocks[0] = torch.compile(model.blocks[0])
    return model


def quantized() -> nn.Module:
    model = Blocks()
    model.head = nn.Linear(16, 4)
    torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, inplace=True)
    return model


# -- the gate -------------------------------------------------------------------------------------


def verdict(
    rules: str, models: str = '[models.net]\ntarget = "net.py:Net"\n', record: bool = False, last: bool = False
) -> Any:  # fmt: skip
    """Check `net.py:Net` by rules in TOML. Raises CspprofError with the hint of what is not as it should be."""
    Path("cspprof.toml").write_text(models + rules)
    config = load(Path("cspprof.toml"))
    if record:
        update(config)
    result = check(config)
    wrong = [*result.problems, *result.unknown, *result.failures]
    if wrong:
        raise CspprofError(wrong[-last].message, wrong[-last].hint)
    return result


def configured(rules: str) -> Any:
    """Read rules in TOML for `net.py:Net`. Raises CspprofError with the first problem."""
    Path("cspprof.toml").write_text('[models.net]\ntarget = "net.py:Net"\n' + rules)
    config = load(Path("cspprof.toml"))
    if config.problems:
        raise CspprofError(config.problems[0].message, config.problems[0].hint)
    return config


def noisy_time(max_increase: str) -> Any:
    """Judge a network whose two measurements of the base differ by 25 %. Raises CspprofError if nothing can be said."""
    rule = Rule.model_validate({"id": "r", "metric": "latency_ms", "engine": "torch", "max_increase": max_increase})
    samples = [[[seconds] * 3] * 2 for seconds in (0.4, 0.5, 0.4)]
    timing = ABTiming(*(Timing("torch", 0, rounds=rounds) for rounds in samples))
    result = latency_result(rule, "net", timing, "main")
    if result.outcome is Outcome.UNKNOWN:
        raise CspprofError(result.message, result.hint)
    return result


def rule(text: str, of: str = "macs") -> str:
    return f'[[rules]]\nid = "r"\nmetric = "{of}"\n{text}\n'


TWO_INPUTS = '[models.net]\ntarget = "net.py:Net"\n[models.b]\ntarget = "net.py:Net"\ninput = ["1x3x9x9"]\n'
ONE_INPUT = '[models.net]\ntarget = "net.py:Net"\n[models.b]\ntarget = "net.py:Net"\n'
BROKEN_BASE = '[models.net]\ntarget = "net.py:Net"\n[models.b]\ntarget = "forwards.py:Crashes"\n'
OTHER_LAYERS = (
    '[models.net]\ntarget = "forwards.py:Embedding"\ninput = ["1x8:int64"]\n'
    '[models.b]\ntarget = "forwards.py:Identity"\ninput = ["1x8:int64"]\n'
)


def load_text(text: str) -> Any:
    Path("cspprof.toml").write_text(text)
    return load(Path("cspprof.toml"))


def ratchet() -> Any:
    """The baseline has a wider network than there is now."""
    wide = '[models.net]\ntarget = "net.py:Net,width=16"\n'
    verdict(rule('max_increase = "0%"'), models=wide, record=True)
    return verdict(rule('max_increase = "0%"\nratchet = true'))


def fixture(writer: Any = None, config: str = "") -> Any:
    """The fixture `cspprof` of pytest, in a project with this configuration."""
    from cspprof.gate.pytest_fixture import CostAssertions

    if config:
        Path("cspprof.toml").write_text(config)
    return CostAssertions(Path.cwd(), Path.cwd(), writer)


def recorded(model: Any, change: Callable[[str], str] = lambda text: text, **options: Any) -> Any:
    """The fixture in a project whose baseline has this model, in a file that is changed."""
    measurements = record(model, **options)
    file = Path("cspprof-baseline.json")
    file.write_text(change(dump(measurements).decode()))
    return fixture()


def record(*models: Any, names: Any = (None, None), **options: Any) -> Any:
    """The measurements that tests would record."""
    from cspprof.gate.pytest_baseline import BaselineWriter

    writer = BaselineWriter(None)  # type: ignore[arg-type]  # the configuration is used at the end of a run only
    for model, name in zip(models, names, strict=False):
        fixture(writer).assert_matches_baseline(model, name=name, **options)
    entries = [entry for by_name in writer.entries.values() for entry in by_name.values()]
    return {name: m for entry in entries for name, m in parse_baseline(entry.encode(), "an entry").items()}


def against_a_revision(shape_text: str) -> Any:
    """Compare with a revision that was measured on 1x3x8x8."""
    now, then = (measure("net", profile(Net(), shape), "cspnet") for shape in (parse_inputs([shape_text]), IMAGE))
    if mismatch := settings_mismatch(now, then, "HEAD"):
        raise CspprofError(*mismatch)


def baseline(text: str, rules: str = 'max_increase = "0%"') -> Any:
    """Check a rule that compares, with this text in the baseline; `record` writes a new one."""
    Path("cspprof-baseline.json").write_text(text)
    return verdict(rule(rules))


# -- files ----------------------------------------------------------------------------------------


def cfg(*sections: str, net: str = "width=8 height=8 channels=3", image: Any = None) -> Any:
    """The profile of a Darknet cfg with these sections: `[convolutional] filters=8`."""
    text = "\n".join(" ".join([f"[net] {net}", *sections]).split(" ")) + "\n"
    Path("x.cfg").write_text(text.replace("[", "\n["))
    return profile("x.cfg", image)


def graph(nodes: list[Any], inputs: list[Any], outputs: list[Any], *, image: Any = None, **options: Any) -> Any:
    """The profile of an ONNX graph of these nodes."""
    return profile(save_graph(Path("x.onnx"), nodes, inputs, outputs, **options), image)


def program(
    written: Any, extra: dict[str, bytes] | None = None, image: Any = None, device: Any = None, **weights: Any
) -> Any:  # fmt: skip
    """The profile of an exported program with this document, and these further files in its archive."""
    return profile(str(archive(Path("x.pt2"), written, extra, **weights)), image, device=device)


def compressed() -> Any:
    """A program whose archive is compressed."""
    size = 256 << 20
    return profile(str(zip_file(Path("x.pt2"), [zip_entry("m/models/model.json", zeros(size), size)])))


def with_argument(kind: str) -> Any:
    """A program that takes an object of another class."""
    written = document()
    signature = written["graph_module"]["module_call_graph"][0]["signature"]
    signature["in_spec"] = signature["in_spec"].replace(json.dumps(LEAF), json.dumps(tree(kind, [LEAF])), 1)
    return written


def without_sizes() -> Any:
    """A program that does not state the size of a dimension."""
    written = document()
    size = {"as_expr": {"expr_str": "s0", "hint": None}}
    written["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][1] = size
    return written


ASSERTION = call(
    "torch.ops.aten._assert_scalar.default", [], self={"as_bool": False}, assert_msg={"as_string": "x is too small"}
)
SPLIT = aten("split.Tensor", "y", self=named("x"), split_size={"as_int": 1})
SPLIT["outputs"] = [{"as_tensors": [{"name": "y"}]}]


def pickled_weights() -> Any:
    """A program of torch 2.7."""
    with zipfile.ZipFile("x.pt2", "w") as to:
        to.writestr("serialized_exported_program.json", json.dumps(document()))
        to.writestr("serialized_state_dict.pt", b"a pickle")
        to.writestr("serialized_constants.pt", b"a pickle")
        to.writestr("serialized_example_inputs.pt", b"a pickle")
        to.writestr("version", "8.1")
    return "x.pt2"


def long_recurrence(length: int) -> Any:
    recurrent = call(
        "torch.ops.aten.gru.input", [named("y"), named("h")], input=named("s"), hx=named("s0"),
        params={"as_tensors": [{"name": "w"}, {"name": "w"}]}, has_biases={"as_bool": False},
        num_layers={"as_int": 1}, dropout={"as_float": 0.0}, train={"as_bool": False},
        bidirectional={"as_bool": False}, batch_first={"as_bool": False},
    )  # fmt: skip
    return document(
        aten("new_empty.default", "s", self=named("x"), size={"as_ints": [length, 1, 1]}),
        aten("new_empty.default", "s0", self=named("x"), size={"as_ints": [1, 1, 1]}),
        aten("new_empty.default", "w", self=named("x"), size={"as_ints": [3, 1]}),
        recurrent,
    )


def large_values(size: int) -> Any:
    """A program that reads a value, so that its tensors have data."""
    number = call("torch.ops.aten.item.default", [{"as_sym_float": {"as_name": "n"}}], self=named("s"))
    return document(
        aten("sum.default", "s", self=named("x")),
        number,
        aten("new_full.default", "a", self=named("x"), size={"as_ints": [size]}, fill_value={"as_float": 1.0}),
        aten("relu.default", "y", self=named("a")),
    )


def sequence(name: str) -> Any:
    """An input of ONNX that is a sequence of tensors."""
    return helper.make_tensor_sequence_value_info(name, F, [2, 4])


MAXOUT = LayerCompression("Maxout", Network("resnet10"))


def tables(text: str) -> Any:
    """The published figures in a data file."""
    return parse_tables(text)


def figure(entry: str, more: str = "") -> Any:
    return parse_tables(f'[t]\ntitle = "T"\n[[t.figures]]\nrow = "r"\n{entry}\n{more}')


def paper_table(*lines: str) -> Any:
    """A paper's table with these lines."""
    return parse_paper_table("\n".join(lines).encode(), "t.csv")


# -- the files of the situations ----------------------------------------------------------------

NETWORK = '''\
import sys
import torch
from torch import nn


class Base(nn.Module):
    example_input_shape = (1, 3, 8, 8)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)

    def forward(self, x):
        return self.conv(x)


class Resized(Base):
    def forward(self, x, size):
        return nn.functional.interpolate(self.conv(x), size=size)


class Scaled(Base):
    def forward(self, x, labels=None):
        if labels is None:
            raise ValueError("labels are required")
        return self.conv(x) * labels.sum()


class Checked(Base):
    example_input_shape = (1, 3, 9, 9)

    def forward(self, x):
        assert x.shape[-1] % 2 == 0, "the width must be even"
        return self.conv(x)


class WrongCall(Base):
    def forward(self, x):
        return self.conv(x, x)


class WrongChannels(Base):
    example_input_shape = (1, 4, 8, 8)


class NoForward(nn.Module):
    pass


class Exits(Base):
    def forward(self, x):
        sys.exit(3)


class OnCuda(Base):
    def forward(self, x):
        return self.conv(x.to("cuda:7"))


class OnItsDevice(Base):
    def forward(self, x):
        return self.conv(x.to(x.device))


class TooLarge(Base):
    def forward(self, x):
        return torch.zeros(10**15, device="cpu")


class OfThatSize(Base):
    def forward(self, x):
        return torch.zeros(10**15, device=x.device)


class Detached(Base):
    def forward(self, x):
        y = self.conv(x).detach().sum()
        return torch.autograd.grad(y, x)[0]


class Attached(Base):
    def forward(self, x):
        x.requires_grad_()
        return torch.autograd.grad(self.conv(x).sum(), x)[0]


class MixedDtypes(Base):
    def forward(self, x):
        return self.conv(x.long())


class OneDtype(Base):
    def forward(self, x):
        return self.conv(x.long().to(self.conv.weight.dtype))


class NoAttribute(Base):
    def forward(self, x):
        return self.nothing(x)


class Values(Base):
    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else x


class Embedding(nn.Module):
    example_input_shape = (1, 8)

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)

    def forward(self, ids):
        return self.embedding(ids)


class Batch(Base):
    def forward(self, batch):
        return self.conv(batch["key"])


class Tagged(Base):
    def forward(self, x):
        return torch.linalg.matrix_exp(self.conv(x).new_zeros(4, 4))


class UnknownOp(Base):
    def forward(self, x):
        return torch.linalg.eig(self.conv(x)[0])[0]


class Identity(nn.Module):
    def forward(self, x):
        return x


class Linear(nn.Module):
    example_input_shape = (1, 8)

    def __init__(self, width=4):
        super().__init__()
        self.linear = nn.Linear(8, width)

    def forward(self, x):
        return self.linear(x)


class Once(Base):
    """Other tools run the forward again, or in the tracer of TorchScript."""

    calls = 0

    def forward(self, x):
        Once.calls += 1
        if Once.calls > 1 or torch.jit.is_tracing():
            raise RuntimeError("this forward runs once")
        return self.conv(x)


class Late(type):
    @property
    def example_input_shape(cls):
        sys.exit(3)


class ExitsLate(nn.Conv2d, metaclass=Late):
    def __init__(self):
        super().__init__(3, 8, 1)


class Needs(Base):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 1)


class Crashes(Base):
    def __init__(self, width=0):
        super().__init__()
        if not width:
            raise RuntimeError("no width")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x).relu()


class Stages(nn.Module):
    """Three residual blocks and an operation that ONNX does not have."""

    example_input_shape = (1, 16, 8, 8)

    def __init__(self, exotic=True):
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.exotic = exotic

    def forward(self, x):
        x = self.blocks(x)
        return torch.special.i1e(x) if self.exotic else x
'''

MEASURED_SCHEMA = "cspprof.measured/1"


def measured(*names: str) -> str:
    """A file of measurements with these models."""
    record = to_dict(profile("resnet10"))
    return json.dumps({"schema": MEASURED_SCHEMA, "models": [{"name": name, "record": record} for name in names]})


def calibrated() -> Calibration:
    """A calibration of torch on this machine, with which the time of resnet10 can be predicted."""
    work = total_work(profile("resnet10"), kernels(profile("resnet10"), FUSIONS["torch"]))
    error = PredictionError((Prediction("a", "a", 1.0, 1.1), Prediction("b", "b", 2.0, 2.1)))
    machine, versions = Machine(cpu_name(), 1, 1 << 30, "Linux", "3.11"), ENGINES.get("torch").versions()
    return Calibration(
        "torch", 1, machine, "2026-01-02T03:04:05+00:00", versions, {}, Shape(), dict.fromkeys(work, 1e-9), error, {}
    )


FILES = {
    "broken.calibration.json": "{",
    "old.calibration.json": '{"schema": "cspprof.calibration/0"}',
    "damaged.calibration.json": '{"schema": "cspprof.calibration/1"}',
    "broken.measured.json": "{",
    "old.measured.json": '{"schema": "cspprof.measured/0"}',
    "damaged.measured.json": json.dumps({"schema": MEASURED_SCHEMA, "models": [3]}),
    "empty.measured.json": measured(),
    "one.measured.json": measured("a"),
    "two.measured.json": measured("a", "b"),
    "json/nets.py": "from torch import nn\n\n\ndef Net():\n    return nn.Conv2d(3, 8, 1)\n",
    "bare/net.py": "from torch import nn\n\n\ndef Net():\n    return nn.Conv2d(3, 8, 1)\n",
    "bare/pyproject.toml": "[project]\nname = 'x'\n",
    "scalar/pyproject.toml": "[tool]\ncspprof = 3\n",
    "forwards.py": NETWORK,
    "exits.py": "raise SystemExit(3)\n",
    "printed.csv": "model,input,MACs\nnet.py:Net,8,1536\n",
    "printed_words.csv": "model,input,MACs\nforwards.py:Embedding,8,1536\n",
    "printed_name.csv": "model,input,MACs\nResNet 10,8,1536\n",
    "printed_vector.csv": "model,input,MACs\nforwards.py:Linear,8,1536\n",
    "nothing.py": "number = 1\n",
    "missing_import.py": "import no_such_library_anywhere\n\n\ndef Net():\n    pass\n",
    "crashing_import.py": "1 / 0\n",
    "beside/lib/wanted.py": "from torch import nn\n\nNet = nn.Identity\n",
    "beside/lib/app/__init__.py": "",
    "beside/needs_it.py": "import wanted\n\n\ndef Net():\n    return wanted.Net()\n",
    "beside/src/wanted.py": "from torch import nn\n\nNet = nn.Identity\n",
    "package/__init__.py": "",
    "package/layers.py": "from torch import nn\n\nwidth = 4\n",
    "package/part/__init__.py": "",
    "package/part/net.py": "from ..layers import nn\n\n\ndef Net():\n    return nn.Conv2d(3, 8, 1)\n",
    "src/inside.py": "from torch import nn\n\n\ndef Net():\n    return nn.Conv2d(3, 8, 1)\n",
    "old.profile.json": '{"schema": "cspprof.record/0"}\n',
    "damaged.profile.json": json.dumps({"schema": SCHEMA, "model": 3}),
}


# -- sweeps ---------------------------------------------------------------------------------------


def journal_of_another_space(extend: bool = False) -> None:
    """Open a journal for a space, and use it for another one."""
    Path("other.sweep").unlink(missing_ok=True)
    journal = SqliteJournal(Path("other.sweep"))
    try:
        check_journal(Space(["resnet10"]), journal, False)
        check_journal(Space(["resnet50"]), journal, extend)
    finally:
        journal.close()


def journal_of_a_later_version(later: int = 99) -> None:
    """Open a journal whose format has another version."""
    Path("later.sweep").unlink(missing_ok=True)
    SqliteJournal(Path("later.sweep")).close()
    with sqlite3.connect("later.sweep") as database:
        database.execute(f"PRAGMA user_version = {later}")
    open_journal(Path("later.sweep")).close()


def journal_on_a_full_disk(pages: int = 8) -> None:
    """Write more rows than the database may have pages for."""
    Path("full.sweep").unlink(missing_ok=True)
    journal = SqliteJournal(Path("full.sweep"))
    try:
        journal._database.execute(f"PRAGMA max_page_count = {pages}")
        journal.add([Row(bytes([i] * 16), i, "a" * 900, {}, "", "ok", {}, (), "", 0, "") for i in range(200)])
    finally:
        journal.close()


class FakeClient:
    """A client of a Dask cluster with so many threads, whose workers have these packages."""

    def __init__(self, threads: int = 1, packages: str = "") -> None:
        self.threads = threads
        self.packages = packages or versions_of(["resnet10"])

    def wait_for_workers(self, count: int, timeout: float) -> None:
        pass

    def scheduler_info(self, n_workers: int) -> Any:
        return {"workers": {"tcp://a": {"nthreads": self.threads}}}

    def run(self, function: Any, models: list[str]) -> dict[str, str]:
        return {"tcp://a": self.packages}

    def get_executor(self, **options: Any) -> Any:
        return None


def cluster(threads: int = 1, packages: str = "") -> Any:
    return hired(FakeClient(threads, packages), "tcp://a:8786", ["resnet10"], 10)


class KilledWorkerError(Exception):
    __module__ = "distributed.scheduler"


class LosingExecutor(Executor):
    """An executor of which each of the first tasks loses its worker, or the scheduler."""

    def __init__(self, times: int, error: BaseException) -> None:
        self.times, self.error = times, error

    def submit(self, function: Any, *arguments: Any, **keywords: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.times -= 1
        if self.times >= 0:
            future.set_exception(self.error)
        else:
            future.set_result([])
        return future


def workers_that_go(times: int = 99, error: BaseException | None = None) -> None:
    Path("lost.sweep").unlink(missing_ok=True)
    executor = LosingExecutor(times, error or KilledWorkerError())
    run_space(
        Space(["resnet10"]), SqliteJournal(Path("lost.sweep")), Workers(executor, 1, 1), Limits(), lambda rows: None
    )


# -- measure --------------------------------------------------------------------------------------


def correct_outputs(module: nn.Module) -> Any:
    """What `measure` compares the outputs of engines with."""
    calls = [((torch.rand(1, 3, 8, 8),), {}) for _ in range(2)]
    return _correct_outputs(module.eval(), _Forward(module, *calls))
