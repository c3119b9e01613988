"""What a project may write in its `pyproject.toml` or `cspprof.toml`, and what of it makes no sense."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from cspprof.core.errors import CspprofError
from cspprof.core.inputs import parse_device, parse_float_dtype, parse_inputs
from cspprof.core.units import Quantity, parse_quantity
from cspprof.gate.metric_names import known_convention, known_metric, metric_of
from cspprof.metrics import METRICS

BASELINE = "cspprof-baseline.json"
Level = Literal["error", "warn", "off"]
LIMITS = ("max", "max_increase", "min_drop", "max_share")


def _told(error: CspprofError) -> PydanticCustomError:
    return PydanticCustomError("cspprof", "{message}", {"message": error.message, "hint": error.hint or ""})


def _refuse(message: str, hint: str) -> PydanticCustomError:
    return _told(CspprofError(message, hint))


def _quantity(written: Any) -> Quantity:
    if isinstance(written, Quantity):
        return written
    try:
        return parse_quantity(written)
    except CspprofError as error:
        raise _told(error) from None


def _asked_of(check: Any) -> BeforeValidator:
    """A validator that lets `check` raise our own errors."""

    def validate(value: Any) -> Any:
        if isinstance(value, str):
            try:
                check(value)
            except CspprofError as error:
                raise _told(error) from None
        return value

    return BeforeValidator(validate)


Amount = Annotated[
    Quantity,
    BeforeValidator(_quantity),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": "^[+-]?[0-9]"}, {"type": "number"}]}),
]
ONE_PERCENT = parse_quantity("1%")
Gain = Annotated[
    bool | Quantity,
    BeforeValidator(lambda written: written if isinstance(written, bool) else _quantity(written)),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": "^[0-9]"}, {"type": "number"}]}),
]


class Entry(BaseModel):
    """A table of the configuration; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Model(Entry):
    """A model that is measured: what it is, and on what input."""

    target: str = Field(min_length=1, description="A SPEC, as every command takes it: net.py:Net, pkg.mod:build …")
    input: str | list[str] | None = Field(None, description="1x3x224x224, or a list: ids=1x128:int64 for keywords.")
    convention: Annotated[str, _asked_of(known_convention)] = Field(
        "cspnet", description="What `cio` (cspnet, hardnet) or `compute` (macs, flops, fvcore …) means for this model."
    )
    dtype: Annotated[str, _asked_of(parse_float_dtype)] | None = Field(None, description="Floating dtype: float16 …")
    device: Annotated[str, _asked_of(parse_device)] | None = Field(None, description="meta (nothing computed) or cpu.")
    train: bool = Field(False, description="Trace in training mode.")

    @property
    def inputs(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else list(self.input or ())

    @model_validator(mode="after")
    def _readable(self) -> Model:
        try:
            parse_inputs(self.inputs)
        except CspprofError as error:
            raise _told(error) from None
        return self


class Rule(Entry):
    """A limit on a number of models, or of their layers."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [name]} for name in LIMITS]})

    id: str = Field(min_length=1, description="What reports call it.")
    model: str = Field("*", description="Which models: a name or a glob.")
    layer: str | None = Field(
        None,
        description="Which layers, each for itself: `*` within a name, `**` across dots. Absent: whole models.",
    )
    metric: Annotated[str, _asked_of(known_metric)] = Field("cio", description="A number of `cspprof metrics`, or cio.")
    max: Amount | None = Field(None, description="At most this much: 24 M, 4.09 G, 200 MB.")
    max_increase: Amount | None = Field(None, description="At most this much more than the base: 0%, 100 k.")
    min_drop: Amount | None = Field(None, description="At least this much less than the base: 5%.")
    max_share: Amount | None = Field(None, description="The largest layer's part of the whole, at most: 20%.")
    base: str | None = Field(None, description="The model to compare with; absent: the same model in the baseline.")
    level: Level = Field("error", description="error: exit code 1; warn: said, no more; off: not checked.")
    tolerance: Amount = Field(parse_quantity("0"), description="How far past the limit still holds: 0 by default.")
    ratchet: Gain = Field(
        False, description="Better than the baseline by this much (true: 1%) fails too, until it is recorded."
    )

    @property
    def kind(self) -> str:
        return next(name for name in LIMITS if getattr(self, name) is not None)

    @property
    def limit(self) -> Quantity:
        found: Quantity = getattr(self, self.kind)
        return found

    @property
    def needs_baseline(self) -> bool:
        return self.kind in ("max_increase", "min_drop") and self.base is None

    @property
    def gain(self) -> Quantity | None:
        """How much better than the baseline has to be recorded; None where that is not asked."""
        return ONE_PERCENT if self.ratchet is True else self.ratchet or None

    @model_validator(mode="after")
    def _one_limit(self) -> Rule:
        given = [name for name in LIMITS if getattr(self, name) is not None]
        if len(given) != 1:
            said = f"sets {' and '.join(given)}" if given else "sets no limit"
            raise _refuse(f"the rule {self.id!r} {said}", f"Give one of: {', '.join(LIMITS)}")
        kind, limit = self.kind, self.limit
        if limit.value < 0:
            other = {"max_increase": "min_drop", "min_drop": "max_increase"}.get(kind)
            hint = f"Write {other} = {limit.text.lstrip('-−')!r}" if other else "Write a number of at least 0."
            raise _refuse(f"{kind} = {limit.text!r} is negative", hint)
        if self.tolerance.value < 0:
            raise _refuse(f"tolerance = {self.tolerance.text!r} is negative", f"Leave it out, and lower {kind}.")
        if kind == "max" and limit.relative and METRICS.get(metric_of(self.metric, "")).unit != "fraction":
            raise _refuse(f"max = {limit.text!r} is a part of nothing", "Write an amount, or use max_share.")
        if kind == "max_share" and not (limit.relative and limit.value <= 1):
            raise _refuse(
                f"max_share = {limit.text!r} is no part of the whole", 'Write a percentage: max_share = "20%"'
            )
        if kind == "min_drop" and limit.relative and limit.value > 1:
            raise _refuse(f"min_drop = {limit.text!r} is more than all", "Write at most 100%.")
        if self.base is not None and kind in ("max", "max_share"):
            raise _refuse(f"{kind} compares with no other model", "Leave base out, or use max_increase or min_drop.")
        if self.gain is not None and not self.needs_baseline:
            raise _refuse("ratchet compares with the baseline", "Use it with max_increase or min_drop, without base.")
        return self


class Settings(Entry):
    """`[tool.cspprof]` in `pyproject.toml`, or the whole of `cspprof.toml`."""

    baseline: str = Field(BASELINE, description="The baseline's file, from the folder of the configuration.")
    models: dict[str, Model] = Field(default_factory=dict)
    rules: list[Rule] = Field(default_factory=list)


def schema() -> dict[str, Any]:
    """The JSON schema of `[tool.cspprof]`, as published in `cspprof/schemas/`."""
    made = Settings.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "cspprof.config/1"}
