"""The configuration of the gate: `cspprof.toml`, or `[tool.cspprof]` in `pyproject.toml`.

`Settings`, `Model` and `Rule` say which keys are valid. `load` returns a `Config` with every valid entry, and a
`Problem` with file, line and key for every invalid one: one bad entry does not stop the others from being checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from cspprof.core.errors import CspprofError, UnknownNameError
from cspprof.core.files import display_path, read_limited
from cspprof.core.inputs import parse_device, parse_float_dtype, parse_inputs
from cspprof.core.registry import suggestion
from cspprof.core.toml_text import MAX_BYTES, read_toml
from cspprof.core.units import Quantity, parse_quantity, shortened
from cspprof.core.validation import MAX_GLOB
from cspprof.gate.toml_lines import Key, key_lines, nearest_line
from cspprof.measure.engines import ENGINES
from cspprof.metrics import METRICS
from cspprof.metrics.names import check_convention, check_metric, resolve_metric

CONFIG_FILES = ("cspprof.toml", "pyproject.toml")
BASELINE_FILE = "cspprof-baseline.json"
LIMITS = ("max", "max_increase", "min_drop", "max_share")
KINDS = (*LIMITS, "engine_ready")
"""The keys of which a rule has one."""
LATENCY = "latency_ms"
"""The metric of rules on measured time. It is no metric of a record."""
ONE_PERCENT = parse_quantity("1%")
Level = Literal["error", "warn", "off"]

# -- the keys and their values ---------------------------------------------------------------------


def _pydantic_error(message: str, hint: str | None) -> PydanticCustomError:
    return PydanticCustomError("cspprof", "{message}", {"message": message, "hint": hint or ""})


def _validator(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`parse` with its CspprofError as an error that pydantic reports with the key."""

    def validate(value: Any) -> Any:
        try:
            return parse(value)
        except CspprofError as error:
            raise _pydantic_error(error.message, error.hint) from None

    return validate


def _quantity(value: Any) -> Quantity:
    return value if isinstance(value, Quantity) else parse_quantity(value)


def _input_texts(value: str | list[str] | None) -> list[str]:
    """The inputs as a list. Raises CspprofError if one cannot be parsed."""
    texts = [value] if isinstance(value, str) else list(value or ())
    parse_inputs(texts)
    return texts


def _check_metric(name: str) -> str:
    """Return `name` if rules can have it as their metric. Raises UnknownNameError."""
    try:
        return name if name == LATENCY else check_metric(name)
    except UnknownNameError as error:
        if get_close_matches(name, [LATENCY]):
            raise UnknownNameError(error.message, f"Did you mean: {LATENCY}?") from None
        raise


def check_glob(glob: str) -> str:
    """Return `glob` if it is not too long. Raises CspprofError."""
    if len(glob) > MAX_GLOB:
        raise CspprofError(f"a glob has at most {MAX_GLOB} characters, and this one {len(glob):,}", 'Write model = "*"')
    return glob


def _check_engine(name: str) -> str:
    """Return `name` if it is an engine. Raises UnknownNameError."""
    ENGINES.get(name)
    return name


EngineField = Annotated[str, AfterValidator(_validator(_check_engine))]
QuantityField = Annotated[
    Quantity,
    BeforeValidator(_validator(_quantity)),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": "^[+-]?[0-9]"}, {"type": "number"}]}),
]
RatchetField = Annotated[
    bool | Quantity,
    BeforeValidator(_validator(lambda value: value if isinstance(value, bool) else _quantity(value))),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": "^[0-9]"}, {"type": "number"}]}),
]


class ConfigTable(BaseModel):
    """A table of the configuration. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Model(ConfigTable):
    """A model to measure, and its input."""

    target: str = Field(min_length=1, description="A SPEC, as for every command: net.py:Net, pkg.mod:build …")
    input: Annotated[str | list[str] | None, AfterValidator(_validator(_input_texts))] = Field(
        None, description="1x3x224x224, or a list: ids=1x128:int64 for keywords."
    )
    convention: Annotated[str, AfterValidator(_validator(check_convention))] = Field(
        "cspnet", description="What `cio` (cspnet, hardnet) or `compute` (macs, flops, fvcore …) means for this model."
    )
    dtype: Annotated[str, AfterValidator(_validator(parse_float_dtype))] | None = Field(
        None, description="Floating dtype: float16 …"
    )
    device: Annotated[str, AfterValidator(_validator(parse_device))] | None = Field(
        None, description="meta (computes no values) or cpu."
    )
    train: bool = Field(False, description="Trace in training mode.")
    deploy: bool = Field(False, description="Count the deployed form, as `cspprof profile --deploy`.")

    @model_validator(mode="after")
    def _check_form(self) -> Model:
        if self.train and self.deploy:
            raise _pydantic_error("train and deploy exclude each other", "Remove one of them.")
        return self

    @property
    def inputs(self) -> list[str]:
        return _input_texts(self.input)


class Rule(ConfigTable):
    """A limit on a metric of models, or of their layers; or an engine in which models must run."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [name]} for name in KINDS]})

    id: str = Field(min_length=1, description="The name of the rule in reports.")
    model: Annotated[str, AfterValidator(_validator(check_glob))] = Field(
        "*", description="The models it applies to: a name or a glob."
    )
    layer: str | None = Field(
        None,
        description="The layers it applies to, one by one; `*` matches within a name, `**` across dots. "
        "Absent: whole models.",
    )
    metric: Annotated[str, AfterValidator(_validator(_check_metric))] = Field(
        "cio",
        description="A metric of `cspprof metrics`, or cio, or compute; or latency_ms, the measured time, which is "
        "compared with the revision of `check --against`.",
    )
    engine: EngineField | None = Field(
        None, description="For latency_ms: the engine of `cspprof measure` in which the models run."
    )
    max: QuantityField | None = Field(None, description="At most this much: 24 M, 4.09 G, 200 MB.")
    max_increase: QuantityField | None = Field(None, description="At most this much more than the base: 0%, 100 k.")
    min_drop: QuantityField | None = Field(None, description="At least this much less than the base: 5%.")
    max_share: QuantityField | None = Field(
        None, description="At most this share of the model's total in one layer: 20%."
    )
    engine_ready: EngineField | None = Field(
        None,
        description="Instead of a limit: the models run correctly in this engine of `cspprof measure`.",
    )
    base: str | None = Field(None, description="The model to compare with; absent: the same model in the baseline.")
    level: Level = Field(
        "error", description="error: a failure gives exit code 1; warn: a failure is only reported; off: not checked."
    )
    tolerance: QuantityField = Field(
        parse_quantity("0"), description="How far past the limit a value may be: 0 by default."
    )
    ratchet: RatchetField = Field(
        False,
        description="Also fail if the value is better than the baseline by this much (true: 1%), until it is recorded.",
    )

    @property
    def kind(self) -> str:
        """The key of the limit: `max`, `max_increase`, `min_drop` or `max_share`; or `engine_ready`."""
        return next(name for name in KINDS if getattr(self, name) is not None)

    @property
    def limit(self) -> Quantity:
        """The limit of a rule that has one: not of `engine_ready`."""
        limit: Quantity = getattr(self, self.kind)
        return limit

    @property
    def runs_engine(self) -> bool:
        """Whether the rule needs a run in an engine. All other rules compare counts."""
        return self.metric == LATENCY or self.engine_ready is not None

    @property
    def engine_name(self) -> str:
        """The engine in which the models run; empty for a rule of counts."""
        return self.engine or self.engine_ready or ""

    @property
    def text(self) -> str:
        """The requirement as text: `max_increase = 0% of cio`."""
        if self.engine_ready is not None:
            return f"engine_ready = {self.engine_ready}"
        where = f" in {self.engine}" if self.engine else ""
        return f"{self.kind} = {self.limit.text} of {self.metric}{where}"

    @property
    def needs_baseline(self) -> bool:
        return self.kind in ("max_increase", "min_drop") and self.base is None and not self.runs_engine

    @property
    def ratchet_step(self) -> Quantity | None:
        """The improvement on the baseline that must be recorded; None without a ratchet."""
        return ONE_PERCENT if self.ratchet is True else self.ratchet or None

    def applies_to(self, model: str) -> bool:
        """Whether the rule applies to the model of this name. A model is not compared with itself."""
        return fnmatchcase(model, self.model) and model != self.base

    @model_validator(mode="after")
    def _check_limit(self) -> Rule:
        error = self._limit_error()
        if error is not None:
            raise _pydantic_error(*error)
        return self

    def _limit_error(self) -> tuple[str, str] | None:
        """Message and hint if the keys of the rule do not fit together."""
        limits = [name for name in KINDS if getattr(self, name) is not None]
        if len(limits) != 1:
            what = f"sets {' and '.join(limits)}" if limits else "sets no limit"
            return f"the rule {self.id!r} {what}", f"Give one of: {', '.join(KINDS)}"
        if self.runs_engine:
            return self._engine_error()
        if self.engine is not None:
            return f"engine = {self.engine!r} does not change {self.metric}", f'Remove it, or use metric = "{LATENCY}".'
        kind, limit = self.kind, self.limit
        if limit.value < 0:
            other = {"max_increase": "min_drop", "min_drop": "max_increase"}.get(kind)
            hint = f"Write {other} = {limit.text.lstrip('-−')!r}" if other else "Write a number of at least 0."
            return f"{kind} = {limit.text!r} is negative", hint
        if self.tolerance.value < 0:
            return f"tolerance = {self.tolerance.text!r} is negative", f"Remove it, and lower {kind}."
        if kind == "max" and limit.relative and METRICS.get(resolve_metric(self.metric, "")).unit != "fraction":
            return f"max = {limit.text!r}: max is an amount, not a percentage", "Write an amount, or use max_share."
        if kind == "max_share" and not (limit.relative and limit.value <= 1):
            return f"max_share = {limit.text!r} is not a percentage up to 100%", 'Write for example: max_share = "20%"'
        if kind == "min_drop" and limit.relative and limit.value > 1:
            return f"min_drop = {limit.text!r} is more than 100%", "Write at most 100%."
        if self.base is not None and kind in ("max", "max_share"):
            return f"{kind} does not compare with a base", "Remove base, or use max_increase or min_drop."
        if self.ratchet_step is not None and self.ratchet_step.value < 0:
            return f"ratchet = {self.ratchet_step.text!r} is negative", "Write ratchet = true, or a percentage: 2%"
        if self.ratchet_step is not None and not self.needs_baseline:
            return "ratchet compares with the baseline", "Use it with max_increase or min_drop, without base."
        return None

    def _engine_error(self) -> tuple[str, str] | None:
        """Message and hint if the keys of a rule that runs an engine do not fit together."""
        kind = self.kind
        accepted = {"id", "model", "level", kind, *(() if self.engine_ready else ("metric", "engine"))}
        if self.metric == LATENCY and kind in LIMITS and kind != "max_increase":
            return f"{kind} is no limit of {LATENCY}", 'Compare with a git revision: max_increase = "10%"'
        if others := sorted(self.model_fields_set - accepted):
            what = "engine_ready" if self.engine_ready else LATENCY
            return f"a rule with {what} has no {' or '.join(others)}", f"Remove {' and '.join(others)}."
        if self.engine_ready is not None:
            return None
        if self.engine is None:
            return f"{LATENCY} is measured in an engine, and the rule names none", 'Add one: engine = "onnxruntime"'
        if not self.limit.relative or self.limit.value < 0:
            message = f"max_increase = {self.limit.text!r} of {LATENCY} is not a percentage of at least 0%"
            return message, 'Write for example: max_increase = "10%"'
        return None


class Settings(ConfigTable):
    """`[tool.cspprof]` in `pyproject.toml`, or the whole of `cspprof.toml`."""

    baseline: str = Field(
        BASELINE_FILE, description="The file of the baseline, relative to the folder of the configuration."
    )
    models: dict[str, Model] = Field(default_factory=dict)
    rules: list[Rule] = Field(default_factory=list)


def config_schema() -> dict[str, Any]:
    """The JSON schema of `[tool.cspprof]`, as published in `cspprof/schemas/`."""
    schema = Settings.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "cspprof.config/1"}


# -- a project's configuration ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be read or measured: where it is, what is wrong, and what to write instead."""

    where: str
    """`pyproject.toml:14`, or the name of a model or file."""
    message: str
    hint: str = ""
    line: int | None = None
    """The line in the configuration."""
    model: str = ""
    """The model of the configuration that it belongs to."""


@dataclass(frozen=True)
class Config:
    """The valid models and rules of a configuration, and its problems."""

    path: Path
    models: Mapping[str, Model]
    rules: tuple[Rule, ...]
    baseline: Path
    problems: tuple[Problem, ...] = ()
    rule_lines: Mapping[str, int] = field(default_factory=dict)
    model_lines: Mapping[str, int] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def name(self) -> str:
        return display_path(self.path)

    @property
    def table(self) -> str:
        """The beginning of the names of tables in the file: `tool.cspprof.` or nothing."""
        return "tool.cspprof." if self.path.name == "pyproject.toml" else ""

    def select_models(self, globs: Sequence[str]) -> list[str]:
        """The models that any of `globs` matches (all if there are none), in the order of the configuration.

        Raises UnknownNameError for a glob that matches no model.
        """
        for glob in globs:
            if not any(fnmatchcase(model, glob) for model in self.models):
                raise UnknownNameError(f"{self.name} has no model named {glob!r}", suggestion(glob, self.models))
        return [model for model in self.models if not globs or any(fnmatchcase(model, glob) for glob in globs)]

    def model_problem(self, name: str, message: str, hint: str) -> Problem:
        """A problem at the line of a model."""
        line = self.model_lines.get(name)
        return Problem(f"{self.name}:{line or 1}", f"{name}: {message}", hint, line, name)

    def rule_problem(self, rule: str, message: str, hint: str) -> Problem:
        """A problem at the line of a rule."""
        line = self.rule_lines.get(rule)
        return Problem(f"{self.name}:{line or 1}", message, hint, line)


def find(start: Path | None = None) -> Path:
    """The nearest configuration file: in the folder `start`, or above it in the same repository.

    If `start` is a file, it is returned. Raises CspprofError if there is no configuration.
    """
    start = start or Path.cwd()
    if start.is_file():
        return start
    if not start.exists():
        raise CspprofError(f"there is no file {start}", "Name the configuration: --config path/to/pyproject.toml")
    folder = start.resolve()
    for place in (folder, *folder.parents):
        for name in CONFIG_FILES:
            if (place / name).is_file() and (name != "pyproject.toml" or _has_table(place / name)):
                return place / name
        if (place / ".git").exists():
            break
    raise CspprofError(
        "no configuration found: no cspprof.toml and no [tool.cspprof] in a pyproject.toml, here or in a folder above",
        "Write one with: cspprof init",
    )


def _has_table(path: Path) -> bool:
    try:
        text = read_limited(path, MAX_BYTES).decode(errors="replace")
    except OSError:
        return True  # so that `load` says what is wrong
    return "tool.cspprof" in text.replace(" ", "").replace('"', "")


def load(path: Path) -> Config:
    """Read a configuration. Raises CspprofError if the file cannot be read, is not TOML, or has no [tool.cspprof]."""
    try:
        text, document = read_toml(path)
    except OSError as error:
        raise CspprofError(
            f"cannot read {display_path(path)}: {error.strerror}", "Name another with --config."
        ) from None
    except ValueError as error:
        lines = read_limited(path, MAX_BYTES).count(b"\n") + 1
        reason = str(error).replace("at end of document", f"at end of document, line {lines}")
        raise CspprofError(f"{display_path(path)} is not TOML: {reason}", "Correct the syntax there.") from None
    prefix: tuple[str, ...] = ()
    tools = document.get("tool")
    if isinstance(tools, dict) and "cspprof" in tools:
        prefix, document = ("tool", "cspprof"), tools["cspprof"]
        if not isinstance(document, dict):
            raise CspprofError(f"{display_path(path)}: tool.cspprof is no table", "Write it as: [tool.cspprof]")
    elif path.name == "pyproject.toml":
        raise CspprofError(f"{display_path(path)} has no [tool.cspprof]", "Write a configuration with: cspprof init")
    return _Loader(path, prefix, key_lines(text)).config(document)


T = TypeVar("T", bound=ConfigTable)
EXAMPLES = {"target": 'target = "net.py:Net"', "id": 'id = "cio-budget"'}
"""What to write for a required key."""


@dataclass
class _Loader:
    path: Path
    prefix: tuple[str, ...]
    """The names of the table that holds the configuration: `("tool", "cspprof")` in `pyproject.toml`."""
    lines: dict[Key, int]
    problems: list[Problem] = field(default_factory=list)

    def config(self, document: dict[str, Any]) -> Config:
        tables = dict(document)
        models = tables.pop("models") if isinstance(tables.get("models"), dict) else {}
        rules = tables.pop("rules") if isinstance(tables.get("rules"), list) else []
        self._validated(Settings, (), tables)
        baseline = tables.get("baseline")
        valid_models = {
            name: model for name, entry in models.items() if (model := self._validated(Model, ("models", name), entry))
        }
        valid_rules: dict[str, Rule] = {}
        rule_lines: dict[str, int] = {}
        for i, entry in enumerate(rules):
            rule = self._validated(Rule, ("rules", i), entry)
            if rule is None:
                continue
            line = self._line(("rules", i, "id"))
            if rule.id in valid_rules:
                message = f"two rules have the id {rule.id!r}; the other is on line {rule_lines[rule.id]}"
                where = f"{display_path(self.path)}:{line}"
                self.problems.append(Problem(where, message, "Give each rule an id of its own.", line))
            else:
                valid_rules[rule.id], rule_lines[rule.id] = rule, line
        return Config(
            self.path,
            valid_models,
            tuple(valid_rules.values()),
            self.path.parent / (baseline if isinstance(baseline, str) else BASELINE_FILE),
            tuple(self.problems),
            rule_lines,
            {name: self._line(("models", name)) for name in valid_models},
        )

    def _validated(self, table: type[T], key: Key, entry: Any) -> T | None:
        """The entry as a `table`; None, and its problems, if it is not valid."""
        try:
            return table.model_validate(entry)
        except ValidationError as error:
            first: dict[Key, ErrorDetails] = {}
            for detail in error.errors(include_url=False):
                first.setdefault(detail["loc"][:1], detail)  # a value is reported once for each type that it may have
            self.problems += [self._problem(table, (*key, *loc), detail) for loc, detail in first.items()]
            return None

    def _problem(self, table: type[ConfigTable], key: Key, detail: ErrorDetails) -> Problem:
        line = self._line(key)
        name = str(key[-1]) if key else ""
        message, hint = detail["msg"], detail.get("ctx", {}).get("hint", "")
        if detail["type"] == "extra_forbidden":
            message, hint = "unknown key", suggestion(name, table.model_fields)
        elif detail["type"] == "missing":
            message, hint = "this key is required", f"Add it: {EXAMPLES.get(name, f'{name} = …')}"
        elif not hint:
            now = shortened(repr(detail["input"]), 80)
            hint = f"It is {now} now. The guide lists the keys and their values: docs/guide/ci.md"
        model = str(key[1]) if key[:1] == ("models",) and len(key) > 1 else ""
        return Problem(
            f"{display_path(self.path)}:{line}", f"{_dotted((*self.prefix, *key))}: {message}", hint, line, model
        )

    def _line(self, key: Key) -> int:
        return nearest_line(self.lines, (*self.prefix, *key)) or 1


def _dotted(key: Key) -> str:
    """`tool.cspprof.rules[0].max`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).removeprefix(".")
