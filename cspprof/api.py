"""The calls that most people need: `profile`, `compare`, `plot`, `check`, and published figures: `reproduce`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspprof.analysis.verify import ToolResult, Verification
from cspprof.core.errors import CspprofError, TraceError
from cspprof.core.inputs import Inputs
from cspprof.profiles import Profile, profile_model, profile_spec
from cspprof.results import Chart, Comparison, Reproduction

if TYPE_CHECKING:
    from torch import nn

    from cspprof.csp.closed_form import Block
    from cspprof.csp.closed_form.checking import Check
    from cspprof.gate.checking import Verdict
    from cspprof.sources import Request

    Model = nn.Module | str | Profile


def profile(
    model: Model,
    inputs: Inputs | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    train: bool = False,
    name: str | None = None,
) -> Profile:
    """What one forward pass of `model` does: a module, or a SPEC such as `"resnext50"` or `"timm:resnet50"`.

    `inputs` is a shape `(1, 3, 224, 224)`, a tensor, or a nest of either: a list or tuple holds positional
    arguments, a dict keyword ones. A SPEC knows its own default; a module needs them. On the meta device (the
    default, but for SPECs that need values) nothing is computed; `device="cpu"` carries the forward out.
    `dtype` replaces the floating dtype of inputs and weights. The module comes back untouched.

    >>> import cspprof
    >>> cspprof.profile("resnext50").total("cio_cspnet")
    34411496
    """
    return profile_model(model, inputs, device=device, dtype=dtype, train=train, name=name)


def plot(kind: str, *models: Model, inputs: Inputs | None = None, **options: Any) -> Chart:
    """A chart of the models: `fig7`, `fig8`, `bottleneck`, `stages`, `roofline`, `pareto`, `fusion`, `memory`,
    `closed-form`. Without models, of those that the kind is known for. `options` are those of the kind.

    A notebook shows it; `chart.save("x.pdf")` writes it with a table of what it shows beside it.

    Raises CspprofError where these models cannot be drawn so.

    >>> import cspprof
    >>> chart = cspprof.plot("fig8", "resnext50", "csp_resnext50")
    >>> sum(r["cio_cspnet"] for r in chart.records if r["panel"] == "csp_resnext50")
    32642024
    """
    from cspprof.report.charts import CHARTS, draw

    entry = CHARTS.get(kind)
    named = [m for m in models if isinstance(m, str)]
    chosen = entry.specs(named) if len(named) == len(models) else list(models)
    entry.check(len(chosen), options)
    shape = inputs if models or inputs is not None else entry.traced_on
    with entry.tried(named):
        profiles = [profile(m, shape) for m in chosen]
    return Chart.of(draw(kind, profiles, **options))


def compare(*models: Model, inputs: Inputs | None = None, **options: Any) -> Comparison:
    """Profiles of the models side by side, the first being the base; options as for `profile`.

    >>> import cspprof
    >>> for delta in cspprof.compare("resnext50", "csp_resnext50").deltas(["cio_cspnet"]):
    ...     print(delta.base_value, delta.value, round(delta.relative, 4))
    34411496 32642024 -0.0514
    """
    if len(models) < 2:
        raise CspprofError("comparing takes at least two models", "For one model: cspprof profile SPEC")
    return Comparison(tuple(profile(m, inputs, **options) for m in models))


def reproduce(name: str = "all") -> Reproduction:
    """The published figures of a table or figure (`"table1"`, `"fig8"`, `"hardnet-table4"` …), computed again.

    Every network is traced once. Raises UnknownNameError for a name that there is not.

    >>> import cspprof
    >>> for figure in cspprof.reproduce("fig8").records:
    ...     print(figure["row"], figure["printed"], figure["status"])
    ResNeXt-50, CIO 34.4 M exact
    CSPResNeXt-50, CIO 32.6 M exact
    CSPResNeXt-50, compute −22 % exact
    """
    from cspprof.papers.figures import chosen
    from cspprof.papers.reproduction import reproduced, subjects
    from cspprof.sources import Request

    tables = chosen(name)
    found = reproduced(tables, {s: profile_spec(s.spec, Request(inputs=s.input)) for s in subjects(tables)})
    return Reproduction(found.findings, found.beside)


def check(config: str | Path | None = None, models: Sequence[str] = (), *, against: str | None = None) -> Verdict:
    """Hold a project's models against its rules, as `cspprof check` does: `.ok`, `.failures`, `.problems`.

    `config` is the configuration or a folder in the project (by default the current one), `models` names or globs of
    its models, `against` a git revision to compare with in place of the baseline. Raises CspprofError where there is
    no configuration, model or revision of that name; what else cannot be measured is a problem of the verdict.
    """
    from cspprof.gate.against import record_revision
    from cspprof.gate.checking import check as check_config
    from cspprof.gate.loading import find, load

    read = load(find(None if config is None else Path(config)))
    return check_config(read, models, recorded=record_revision(read, against, models) if against else None)


def verify(spec: str, request: Request | None = None) -> Verification:
    """The MACs of a model beside the counts of torch's `FlopCounterMode` and of fvcore, layer by layer.

    Our trace and torch's counter run where `request` says, on meta by default; fvcore computes the forward, with real
    weights, on the CPU. Raises TraceError if neither counter has a result.
    """
    from cspprof.sources import LoadedModel, Request, open_model
    from cspprof.sources.build import trace_loaded
    from cspprof.trace import other_counters

    request = request or Request()
    versions = other_counters.versions()

    def count(tool: str, loaded: LoadedModel, device: str) -> ToolResult:
        inputs = loaded.inputs if request.inputs is None else request.inputs
        counter = {"flop_counter": other_counters.flop_counter, "fvcore": other_counters.fvcore}[tool]
        try:
            counts = counter(loaded.module, inputs, device=device, dtype=request.dtype, train=request.train)
        except TraceError as error:
            return ToolResult(tool, versions[tool], None, error.message)
        return ToolResult(tool, versions[tool], counts)

    with open_model(spec, request) as loaded:
        record = trace_loaded(loaded, request)
        by_torch = count("flop_counter", loaded, request.device or loaded.device)
    real = "cpu" if request.device in (None, "meta") else request.device
    with open_model(spec, request._replace(device=real)) as loaded:
        by_fvcore = count("fvcore", loaded, real)
    if by_torch.counts is None and by_fvcore.counts is None:
        raise TraceError(
            f"no other tool has a result for {record.label}:\n{by_torch.failure}\n{by_fvcore.failure}",
            f"Our own count: cspprof flops {spec}",
        )
    return Verification(record, (by_torch, by_fvcore))


def check_closed_form(block: Block) -> Check:
    """Build the block from the zoo's parts, trace it, and compare it with the closed form layer by layer."""
    from cspprof.csp.closed_form.checking import compare
    from cspprof.sources import Spec
    from cspprof.sources.build import build_module
    from cspprof.trace import trace
    from cspprof.zoo.form_blocks import Sizes, build_block

    form, numbers = block.form, block.integers()
    h, w, c = (numbers.pop(name) for name in ("h", "w", "c"))
    bypass = int(block.numbers.get("gamma", 0) * c)
    multiplier = float(block.numbers.get("r", 1.7))
    sizes = Sizes(c, bypass=bypass, multiplier=multiplier, **numbers)
    parts: tuple[str, ...] = ()

    def factory() -> nn.Module:
        nonlocal parts
        module, parts = build_block(form.name, sizes, form.base or "", block.c_out if form.base else 0)
        return module

    module, _ = build_module(Spec(form.name, form.name), factory, None)
    return compare(block, trace(module, (1, sizes.a or c, h, w), name=form.name), parts)
