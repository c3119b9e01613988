"""The calls that most people need: `profile`, `compare`, `plot`, `check`, and published figures: `reproduce`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspprof.comparison import Comparison
from cspprof.comparison import compare as compare_profiles
from cspprof.inputs import Inputs, known_device, known_float
from cspprof.record import Profile

if TYPE_CHECKING:
    from torch import nn

    from cspprof.gate.checking import Verdict
    from cspprof.marks import Chart
    from cspprof.reproduction import Reproduction

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
    dtype, device = known_float(dtype) if dtype else None, known_device(device) if device else None
    if isinstance(model, (Profile, str)):
        from cspprof.sources import Request, profile_spec
        from cspprof.sources.saved_profile import granted

        request = Request(inputs=inputs, device=device, dtype=dtype, train=train)
        if isinstance(model, str):
            return profile_spec(model, request)
        return granted(model, request, model.model)
    from cspprof.errors import TraceError
    from cspprof.trace import trace

    if inputs is None:
        raise TraceError(
            "a module does not say what it is called with", "Pass a shape: cspprof.profile(model, (1, 3, 224, 224))"
        )
    return trace(model, inputs, name=name, device=device or "meta", dtype=dtype, train=train)


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
    from cspprof.charts import CHARTS, draw

    entry = CHARTS.get(kind)
    named = [m for m in models if isinstance(m, str)]
    chosen = entry.specs(named) if len(named) == len(models) else list(models)
    entry.check(len(chosen), options)
    shape = inputs if models or inputs is not None else entry.traced_on
    with entry.tried(named):
        profiles = [profile(m, shape) for m in chosen]
    return draw(kind, profiles, **options)


def compare(*models: Model, inputs: Inputs | None = None, **options: Any) -> Comparison:
    """Profiles of the models side by side, the first being the base; options as for `profile`.

    >>> import cspprof
    >>> for delta in cspprof.compare("resnext50", "csp_resnext50").deltas(["cio_cspnet"]):
    ...     print(delta.base_value, delta.value, round(delta.relative, 4))
    34411496 32642024 -0.0514
    """
    return compare_profiles(*(profile(m, inputs, **options) for m in models))


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
    from cspprof.reproduction import chosen, reproduced, subjects
    from cspprof.sources import Request, profile_spec

    tables = chosen(name)
    return reproduced(tables, {s: profile_spec(s.spec, Request(inputs=s.input)) for s in subjects(tables)})


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
