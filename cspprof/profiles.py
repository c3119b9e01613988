"""`Profile`: the record of one forward pass, together with the calls that users make on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspprof.analysis.int8 import at_int8
from cspprof.analysis.layer_rows import layer_columns, layer_numbers
from cspprof.analysis.receptive_field import LayerField, receptive_fields
from cspprof.core.errors import CspprofError, TraceError
from cspprof.core.inputs import INT8, Inputs, parse_counted_dtype, parse_device
from cspprof.core.printable import printable
from cspprof.core.record import Record
from cspprof.metrics import METRICS, value_of
from cspprof.metrics.memory import live_bytes
from cspprof.render import render
from cspprof.render.notebook_html import tables_html
from cspprof.report.profile import summary_tables
from cspprof.report.summary import summary_report
from cspprof.sources import LoadedModel, Request, cache_key, parse, record_of_spec, source_of
from cspprof.sources.saved_profile import check_request
from cspprof.storage.cache import cached_record
from cspprof.storage.profile_file import load, save

if TYPE_CHECKING:
    import pandas
    from torch import nn


class Profile(Record):
    """What one forward pass of a model did: its operations, layers and tensors, and every number computed from them."""

    @classmethod
    def of(cls, record: Record) -> Profile:
        """The same facts as a `Profile`."""
        return record if isinstance(record, cls) else cls(**{f.name: getattr(record, f.name) for f in fields(Record)})

    def total(self, metric: str) -> Any:
        """The value of a registered metric for the whole model, e.g. `total("cio_hardnet")`: an exact int for a count,
        a float for a ratio or a scaled count, None for a ratio whose denominator is 0 or of which a part is unknown.

        A sum that misses operations is a lower bound; see `missed` and `uncounted`. Raises UnknownNameError.
        """
        return value_of(self, metric)

    def missed(self, metric: str) -> int:
        """The number of calls of which the part in a total is unknown: 0 if the total is exact."""
        return METRICS.get(metric).total(self).missed

    @property
    def live_bytes(self) -> list[int]:
        """Activation memory in bytes that is alive while each operation runs, in execution order; see `peak_bytes`."""
        return live_bytes(self)

    @property
    def receptive_fields(self) -> list[LayerField | None]:
        """The receptive field of each call in `ops`: size, stride, offset and center in pixels of the input, and those
        of the branches that the call joins. None for views, and for outputs that depend on no input."""
        return receptive_fields(self)

    def to_pandas(self) -> pandas.DataFrame:
        """One row per operation that is not a view, in execution order, with every number of a layer.

        The columns are path, kind, stage, in and out (shapes); macs, params, cio_hardnet, cio_cspnet, and every other
        metric of operations; `live_bytes`, the activation memory that is alive while the operation runs; `op`, the name
        of the operation, and `class`, that of the module; kernel, stride, padding, dilation and groups of convolutions
        and pools; `dtype` of the output. A value is NA if it is unknown, and None if the operation has no such
        argument.
        """
        import pandas

        columns = layer_columns(self)
        numbers = layer_numbers(columns)
        frame = pandas.DataFrame(
            {name: pandas.Series(v, dtype=object if name in numbers else None) for name, v in columns.items()}
        )
        for name in numbers:
            known = [v for v in columns[name] if v is not None]
            if all(isinstance(v, int) and abs(v) < 2**63 for v in known):  # floats would lose digits
                frame[name] = pandas.array(columns[name], dtype="Int64" if len(known) < len(frame) else "int64")
            elif not all(isinstance(v, int) for v in known):
                frame[name] = frame[name].astype("float64")
        return frame

    def save(self, path: str | Path) -> Path:
        """Write `*.profile.json` or `*.profile.json.gz`. If writing fails, an existing file stays as it was."""
        return save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a file that `save` wrote. Raises ProfileError."""
        return cls.of(load(Path(path)))

    def __repr__(self) -> str:
        inputs = ", ".join(map(str, self.inputs))
        return printable(f"<Profile {self.label} ({inputs}): {len(self.ops)} operations, {len(self.layers)} layers>")

    def __str__(self) -> str:
        return render("rich", summary_report([self])).decode().rstrip("\n")

    def _repr_html_(self) -> str:
        return tables_html(summary_tables([self]))


def profile_spec(text: str, request: Request | None = None, *, cache: bool = False) -> Profile:
    """The profile of the model that the SPEC `text` names.

    With `cache`, the record may come from the user's cache, if `cache_key` knows everything on which it depends. Raises
    SourceError, or TraceError from the forward.
    """
    wanted = request or Request()
    request = _traced(wanted)
    if not cache:
        return _counted(record_of_spec(text, request), wanted)
    return _counted(cached_record(partial(cache_key, text, request), partial(record_of_spec, text, request)), wanted)


def _traced(request: Request) -> Request:
    """The request for the trace: that of int8 has the dtypes of the model, and `_counted` replaces them."""
    return request._replace(dtype=None) if request.dtype == INT8 else request


def _counted(record: Record, request: Request) -> Profile:
    return Profile.of(at_int8(record) if request.dtype == INT8 else record)


def profile_each(text: str, requests: Iterable[Request]) -> Iterator[Profile | CspprofError]:
    """One profile of the model that the SPEC `text` names for each request, or the error in its place.

    The model is built once and traced for each request, unless the source makes a model for one input only. Records
    come from the user's cache if they are there. The requests must name the same device.
    """
    spec = parse(text)
    source = source_of(spec)
    with ExitStack() as stack:
        loaded: LoadedModel | None = None

        def record(request: Request) -> Record:
            nonlocal loaded
            if not source.takes_other_inputs:
                return source.record(spec, request)
            from cspprof.sources.build import trace_loaded  # imports torch

            if loaded is None:
                loaded = stack.enter_context(source.open_model(spec, request))
            return trace_loaded(loaded, request, partial(source.open_model, spec))

        for wanted in requests:
            request = _traced(wanted)
            try:
                found = cached_record(partial(cache_key, text, request), partial(record, request))
                yield _counted(found, wanted)
            except CspprofError as error:
                yield error


def profile_model(
    model: nn.Module | str | Profile,
    inputs: Inputs | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    train: bool = False,
    deploy: bool = False,
    name: str | None = None,
) -> Profile:
    """The profile of a module, of a SPEC, or the given profile itself; see `cspprof.profile`."""
    dtype, device = parse_counted_dtype(dtype) if dtype else None, parse_device(device) if device else None
    wanted = Request(inputs=inputs, device=device, dtype=dtype, train=train, deploy=deploy)
    if isinstance(model, str):
        return profile_spec(model, wanted)
    request = _traced(wanted)
    if isinstance(model, Record):
        check_request(model, request, model.model)
        return _counted(model, wanted)
    if inputs is None:
        raise TraceError("a module has no default input", "Pass a shape: cspprof.profile(model, (1, 3, 224, 224))")
    from cspprof.trace import trace

    if deploy:
        from cspprof.sources.deployed_form import trace_deployed

        deployed = trace_deployed(model, inputs, name=name, device=device, dtype=request.dtype, train=train)
        return _counted(deployed, wanted)
    return _counted(trace(model, inputs, name=name, device=device, dtype=request.dtype, train=train), wanted)
