"""The Python API: `profile`, `compare`, `convert`, `gradients`, `advise`, `plot`, `check`, `reproduce` and `audit`.

`verify`, `check_closed_form` and `audit_paper_table` are the functions behind three commands. Each function here traces
models and passes the records to the analysis.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspprof.analysis.verification import ToolResult, Verification
from cspprof.core.errors import CspprofError, NeedsValuesError, SourceError, TraceError
from cspprof.core.inputs import Inputs, parse_device, parse_float_dtype
from cspprof.core.record import Record
from cspprof.csp.advice import Change, suggestions
from cspprof.csp.conversion.plan import Options
from cspprof.metrics.names import check_metric, resolve_metric
from cspprof.papers import audit as paper_audit
from cspprof.papers.paper_table import PaperTable, Row, read_paper_table
from cspprof.papers.published import tables_named
from cspprof.papers.reproduction import networks_of, reproduce_tables
from cspprof.profiles import Profile, profile_each, profile_model, profile_spec
from cspprof.report.charts import CHARTS, draw
from cspprof.results import Advice, Audit, Chart, Comparison, Conversion, Gradients, Reproduction
from cspprof.sources import LoadedModel, Request, Spec, open_model, parse, source_of
from cspprof.storage.cache import disabled

if TYPE_CHECKING:
    from torch import nn

    from cspprof.csp.closed_form import SizedBlock
    from cspprof.csp.closed_form.trace_check import ClosedFormCheck
    from cspprof.gate.checking import Verdict

    Model = nn.Module | str | Profile


def profile(
    model: Model,
    inputs: Inputs | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    train: bool = False,
    deploy: bool = False,
    name: str | None = None,
) -> Profile:
    """The profile of one forward pass of a module, or of a SPEC such as `"resnext50"` or `"timm:resnet50"`.

    `inputs` is a shape `(1, 3, 224, 224)`, a tensor, or a nested structure of these: a list or tuple holds positional
    arguments, a dict keyword arguments. Other values are passed as they are, and `cspprof.Value((8, 8))` is a pair of
    numbers. A bare tuple of integers is a shape, unless the forward's annotation or default of this argument is of
    integers, or it has neither and a tensor is among the arguments. A SPEC has a default input; a module needs
    `inputs`. On the meta device no
    value is computed; `device="cpu"` runs the forward pass. By default the forward runs on meta and, if it needs the
    values of tensors, on the device of the model's weights, with a note.
    `dtype` replaces the floating dtype of inputs and weights; `"int8"` counts bytes as if all of them were quantized.
    With `deploy`, the network as it is deployed: branches merged, batch norms folded, activations in place, after a
    proof on real tensors that the outputs stay the same. The module is left unchanged.

    >>> import cspprof
    >>> cspprof.profile("resnext50").total("cio_cspnet")
    34411496
    """
    return profile_model(model, inputs, device=device, dtype=dtype, train=train, deploy=deploy, name=name)


def plot(kind: str, *models: Model, inputs: Inputs | None = None, device: str | None = None, **options: Any) -> Chart:
    """A chart of the models: `fig7`, `fig8`, `bottleneck`, `stages`, `roofline`, `pareto`, `fusion`, `gradients`,
    `memory`, `receptive-field` or `closed-form`. Without models, the chart shows the default models of its kind.
    `options` are those of the kind.

    A notebook displays the chart; `chart.save("x.pdf")` writes it, with a table of its data beside it.

    Raises CspprofError if the kind cannot show these models.

    >>> import cspprof
    >>> chart = cspprof.plot("fig8", "resnext50", "csp_resnext50")
    >>> sum(r["cio_cspnet"] for r in chart.records if r["panel"] == "csp_resnext50")
    32642024
    """
    entry = CHARTS.get(kind)
    specs = [m for m in models if isinstance(m, str)]
    chosen_models = entry.specs(specs) if len(specs) == len(models) else list(models)
    entry.check(len(chosen_models), options)
    shape = inputs if models or inputs is not None else entry.traced_on
    with entry.explain_variants(specs):
        train = bool(options.get("training"))
        profiles = [profile(m, shape, device=device, train=train) for m in chosen_models]
    return Chart.of(draw(kind, profiles, **options))


def compare(*models: Model, inputs: Inputs | None = None, deploy: bool = False, **options: Any) -> Comparison:
    """Profiles of the models side by side. Changes are relative to the first model. `options` are those of `profile`.
    With `deploy`, each model in its training form and in its deployed form; one model is enough.

    >>> import cspprof
    >>> for delta in cspprof.compare("resnext50", "csp_resnext50").deltas(["cio_cspnet"]):
    ...     print(delta.base_value, delta.value, round(delta.relative, 4))
    34411496 32642024 -0.0514
    """
    if len(models) < 2 - deploy:
        raise CspprofError("compare needs at least two models", "For one model: cspprof.profile(model)")
    if not deploy:
        return Comparison(tuple(profile(m, inputs, **options) for m in models))
    once = {m if isinstance(m, str) else id(m): m for m in models}
    forms = [(m, deployed) for m in once.values() for deployed in (False, True)]
    return Comparison(tuple(profile(m, inputs, deploy=deployed, **options) for m, deployed in forms))


def convert(
    model: nn.Module | str,
    inputs: Inputs | None = None,
    *,
    stages: Sequence[str] = (),
    gamma: float = 0.5,
    fusion: str = "csp",
    split: str | None = None,
    recipe: str = "keep",
    multiple: int = 8,
    device: str | None = None,
    dtype: str | None = None,
    name: str | None = None,
) -> Conversion:
    """The cross stage partial form of a network (CSPNet, Wang et al. 2019): a trainable module, and what it costs.

    `stages` are names of stages or of modules that contain them; by default, every stage that is found. γ, 0 < γ < 1,
    is the fraction of a stage's channels that bypass its blocks; both parts are rounded to a `multiple` of channels, 1
    keeps γ exact. `fusion` is *csp*, *first* or *last* (Fig. 3); `split` is *slice* or *conv*; `recipe` is *keep*,
    which leaves the first block of a residual stage as it is, or *paper*, which replaces it.

    Each stage is run forward and backward before it is used. A stage that cannot be converted stays as it is, and
    `.stages` has the reason. The given module is left unchanged. Raises CspprofError for an impossible option.

    >>> import cspprof
    >>> conversion = cspprof.convert("densenet121")
    >>> conversion.after.total("macs") == cspprof.profile("csp_densenet121").total("macs")
    True
    """
    options = Options(gamma, fusion, recipe, split or "", multiple)
    stages = [part.strip() for part in stages.split(",")] if isinstance(stages, str) else stages or ()
    request = Request(
        inputs, parse_device(device) if device else None, parse_float_dtype(dtype) if dtype else None
    )  # fmt: skip
    from cspprof.trace import trace

    def tracer(inputs: Inputs, default_name: str, device: str, **facts: Any) -> Callable[[nn.Module, str], Record]:
        return lambda module, label: trace(
            module, inputs, name=label or default_name, device=request.device or device, dtype=request.dtype, **facts
        )

    if isinstance(model, str):
        from cspprof.csp.conversion.source_code import factory_code

        spec = parse(model)
        source = source_of(spec)
        if not source.can_be_changed:
            raise SourceError(
                f"{spec.target} ({source.name}) contains no modules that can be converted",
                "Name the model from which it was made, for example: file.py:factory",
            )
        with open_model(model, request) as loaded:
            traced_on = loaded.inputs if inputs is None else inputs
            run = tracer(traced_on, name or loaded.name, loaded.device, source=loaded.source, notes=loaded.notes)
            return _convert(loaded.module, stages, options, factory_code(spec.target, dict(spec.options)), run)
    if isinstance(model, Record):
        raise CspprofError("a profile contains no model that can be converted", "Pass the module, or its SPEC.")
    if inputs is None:
        raise TraceError("a module has no default input", "Pass a shape: cspprof.convert(model, (1, 3, 224, 224))")
    return _convert(model, stages, options, None, tracer(inputs, name or type(model).__name__, "meta"))


def _convert(
    model: nn.Module, stages: Sequence[str], options: Options, factory: tuple[str, str] | None,
    trace: Callable[[nn.Module, str], Record],
) -> Conversion:  # fmt: skip
    """The conversion of a module; `trace` has a module and the name of the record, empty for that of the model."""
    from cspprof.csp.conversion.convert import convert_model
    from cspprof.csp.conversion.refusals import refuse_unconvertible

    refuse_unconvertible(model)
    before = Profile.of(trace(model, ""))
    label = f"CSP {before.model}"
    result = convert_model(model, before, lambda m: trace(m, label), options, stages)
    return Conversion(before, Profile.of(result.record), result.model, model, result.stages, result.edits, factory)


def gradients(model: Model, inputs: Inputs | None = None, **options: Any) -> Gradients:
    """Which gradients of the backward pass update which layers, from the recorded forward pass (CSPNet, Wang et al.
    2019, Eq. 1 to 4). `options` are those of `profile`.

    >>> import cspprof
    >>> plain, csp = cspprof.gradients("densenet121"), cspprof.gradients("csp_densenet121")
    >>> plain.total.uses, plain.total.shared, csp.total.shared
    (656, 519, 4)
    """
    return Gradients(profile(model, inputs, **options))


def advise(
    model: nn.Module | str | Profile,
    inputs: Inputs | None = None,
    *,
    metric: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    name: str | None = None,
) -> Advice:
    """Suggested changes of a network, in widths, groups, stages and memory, the largest gain first.

    Each change is applied to a copy of the module, which is traced again: the numbers of a suggestion are those of the
    two traces, and a change that improves nothing is left out. A profile, or a SPEC without a module, has numbers
    computed from shapes. With `metric`, only what improves this metric, ranked by it. The module is left unchanged.

    >>> import cspprof
    >>> for suggestion in cspprof.advise("resnext50").suggestions[:1]:
    ...     print(suggestion.proposal.metric, suggestion.after < suggestion.before)
    cio_cspnet True
    """
    chosen = None if metric is None else resolve_metric(check_metric(metric))
    if isinstance(model, Record):
        return _advice(profile(model, inputs, device=device, dtype=dtype), None, None, chosen)
    request = Request(inputs, parse_device(device) if device else None, parse_float_dtype(dtype) if dtype else None)
    if not isinstance(model, str):
        if inputs is None:
            raise TraceError("a module has no default input", "Pass a shape: cspprof.advise(model, (1, 3, 224, 224))")
        model = getattr(model, "_orig_mod", model)  # of torch.compile
        before = profile(model, inputs, device=device, dtype=dtype, name=name)
        return _advice(before, model, partial(profile, inputs=inputs, device=device, dtype=dtype, name=name), chosen)
    if not source_of(parse(model)).can_be_changed:
        return _advice(profile_spec(model, request), None, None, chosen)
    from cspprof.sources.build import trace_loaded

    with open_model(model, request) as loaded:

        def run(module: nn.Module) -> Record:
            return trace_loaded(replace(loaded, module=module), on_device, reopen)

        reopen, on_device = partial(open_model, model), request._replace(device=request.device or loaded.device)
        before = Profile.of(trace_loaded(loaded, request, reopen))
        return _advice(before, loaded.module, run, chosen)


def _advice(
    before: Profile, model: nn.Module | None, trace: Callable[[nn.Module], Record] | None, metric: str | None
) -> Advice:
    """The advice for a profile; with `model`, each change is applied to a copy of it and passed to `trace`."""

    def apply(change: Change) -> Record:
        from cspprof.csp.advice.apply import trace_with_change

        assert model is not None
        assert trace is not None
        return trace_with_change(model, before, change, trace)

    return Advice(before, suggestions(before, None if model is None else apply, metric))


def reproduce(name: str = "all") -> Reproduction:
    """The published figures of a table or figure (`"table1"`, `"fig8"`, `"hardnet-table4"` …), computed again.

    Every network is traced once. Raises UnknownNameError for an unknown name.

    >>> import cspprof
    >>> for figure in cspprof.reproduce("fig8").records:
    ...     print(figure["row"], figure["printed"], figure["status"])
    ResNeXt-50, CIO 34.4 M exact
    CSPResNeXt-50, CIO 32.6 M exact
    CSPResNeXt-50, compute −22 % exact
    """
    tables = tables_named(name)
    records = {network: profile_spec(network.spec, Request(inputs=network.input)) for network in networks_of(tables)}
    result = reproduce_tables(tables, records)
    return Reproduction(result.figures, result.related)


def audit(table: str | Path, *, size: str | None = None, ignore: Sequence[str] = ()) -> Audit:
    """The rule and the input size under which each printed number of a table comes out.

    `table` is a CSV file with a line per network, or `"example"`, a part of Table 3 of the CSPNet paper. `size` is the
    input size of rows without one; the columns in `ignore` are left out. Raises CspprofError, with the line and column
    of what is wrong.
    """
    with disabled():
        result = audit_paper_table(read_paper_table(table, size, ignore))
    return Audit(result.table, result.rows)


def audit_paper_table(
    table: PaperTable, each: Callable[[Sequence[Row]], Iterable[Row]] = lambda rows: rows
) -> paper_audit.Audit:
    """The audit of a table: each network is traced at its stated input, and at other sizes if a number does not come
    out there. `each` can show the progress. Raises CspprofError, with the line of a network that cannot be traced."""
    natives: dict[str, Record | None] = {}
    rows = [_traced_row(table, row, natives) for row in each(table.rows)]
    result = paper_audit.audit_table(table, rows)
    for sizes_to_try in (paper_audit.likely_sizes, paper_audit.common_sizes):
        sizes = [sizes_to_try(row, result.rows) for row in result.rows]
        if any(sizes):
            more = [_with_more_sizes(row.traced, s) for row, s in zip(result.rows, sizes, strict=True)]
            result = paper_audit.audit_table(table, more)
    return result


def _traced_row(table: PaperTable, row: Row, natives: dict[str, Record | None]) -> paper_audit.TracedRow:
    """The record of a row at its stated input. `natives` has the records at the networks' own inputs by SPEC, None for
    a network that has none."""
    shape = row.input
    try:
        if row.spec not in natives:
            try:
                natives[row.spec] = profile_spec(row.spec, cache=True)
            except TraceError:
                natives[row.spec] = None
        native = natives[row.spec]
        if len(shape) < 4:
            shape = (1, _channels(native), *shape)
        if native is not None and [t.shape for t in native.inputs] == [shape]:
            return paper_audit.TracedRow(row, native, native)
        return paper_audit.TracedRow(row, profile_spec(row.spec, Request(inputs=shape), cache=True), native)
    except TraceError as error:
        raise CspprofError(
            f"{table.where(row)}: {error.message}",
            f"Try this network alone: cspprof profile {shlex.quote(row.spec)} --input {'x'.join(map(str, shape))}",
        ) from error
    except CspprofError as error:
        hint = error.hint
        if isinstance(error, SourceError) and row.spec == row.name:
            hint = f"{hint}\nA column spec can name the network beside the name that the paper prints."
        raise CspprofError(f"{table.where(row)}: {error.message}", hint) from error


def _channels(native: Record | None) -> int:
    """The channels of a network's images; 3 if they are unknown. Raises CspprofError if its input is no image."""
    if native is None:
        return 3
    if len(native.inputs) != 1 or len(native.inputs[0].shape) != 4:
        raise CspprofError(
            f"the input of {native.model} is not one batch of images (N, C, H, W)", "Leave out the row of this network."
        )
    return native.inputs[0].shape[1]


def _with_more_sizes(row: paper_audit.TracedRow, sizes: Sequence[tuple[int, ...]]) -> paper_audit.TracedRow:
    """The row with the records of its network at further input sizes. A size at which it fails is left out."""
    if not sizes:
        return row
    requests = [Request(inputs=(*row.record.inputs[0].shape[:2], *size)) for size in sizes]
    found = zip(sizes, profile_each(row.row.spec, requests), strict=True)
    return replace(row, others={**row.others, **{size: r for size, r in found if isinstance(r, Record)}})


def check(config: str | Path | None = None, models: Sequence[str] = (), *, against: str | None = None) -> Verdict:
    """Check a project's models against its rules, as `cspprof check` does. The verdict has `.ok`, `.failures` and
    `.problems`.

    `config` is the configuration file or a folder of the project (default: the current folder), `models` are names or
    globs of its models, `against` is a git revision that replaces the baseline. Raises CspprofError if there is no such
    configuration, model or revision; a model that cannot be profiled is a problem of the verdict.
    """
    from cspprof.gate.checking import check as check_config
    from cspprof.gate.config import find, load
    from cspprof.gate.revision import measured_revision

    settings = load(find(None if config is None else Path(config)))
    with measured_revision(settings, against, models) if against else nullcontext() as reference:
        return check_config(settings, models, reference=reference)


def verify(spec: str, request: Request | None = None) -> Verification:
    """The MACs of a model beside the counts of torch's `FlopCounterMode` and of fvcore, layer by layer.

    Our trace and torch's counter run on the device of `request`, meta by default; fvcore runs the forward pass with
    real weights, on the CPU. Raises TraceError if neither counter has a result.
    """
    from cspprof.sources.build import trace_loaded
    from cspprof.trace.fallbacks import ON_DEVICE
    from cspprof.verification import other_counters

    request = request or Request()
    versions = other_counters.versions()

    counters = {
        "flop_counter": other_counters.count_with_flop_counter,
        "fvcore": other_counters.count_with_fvcore,
    }

    def count(tool: str, loaded: LoadedModel, device: str) -> ToolResult:
        inputs = loaded.inputs if request.inputs is None else request.inputs
        try:
            counts = counters[tool](loaded.module, inputs, device=device, dtype=request.dtype, train=request.train)
        except TraceError as error:
            return ToolResult(tool, versions[tool], None, error.message)
        return ToolResult(tool, versions[tool], counts)

    reopen = partial(open_model, spec)
    with reopen(request) as loaded:
        try:
            record = trace_loaded(loaded, request._replace(device=request.device or loaded.device), reopen)
        except NeedsValuesError:
            if request.device is not None:
                raise
            found = verify(spec, request._replace(device="cpu"))
            notes = (*found.record.notes, ON_DEVICE.format(device="CPU"))
            return replace(found, record=replace(found.record, notes=notes))
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


def check_closed_form(block: SizedBlock) -> ClosedFormCheck:
    """The closed form of a block compared, layer by layer, with a trace of the block built from parts of the zoo."""
    from cspprof.csp.closed_form.trace_check import check_block
    from cspprof.sources.build import build_module
    from cspprof.trace import trace
    from cspprof.zoo.form_blocks import BlockSizes, build_block, build_partial_block, counted_submodules

    form, numbers = block.form, block.python_numbers()
    height, width = numbers.pop("h"), numbers.pop("w")
    sizes = BlockSizes(**numbers)  # type: ignore[arg-type]

    def factory() -> nn.Module:
        if form.plain:
            return build_partial_block(form.plain, sizes, block.c_out)
        return build_block(form.name, sizes)

    module, _ = build_module(Spec(form.name, form.name), factory, None)
    record = trace(module, (1, sizes.c_in, height, width), name=form.name)
    return check_block(block, record, counted_submodules(form.name))
