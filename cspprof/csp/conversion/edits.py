"""Replace a stage of a model by a CSP stage: the modules, and the code that does the same to another copy."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any, NamedTuple

import torch
from torch import nn

from cspprof.core.kinds import POOLS, Kind
from cspprof.core.record import Record
from cspprof.csp.conversion.channels import CouplingError
from cspprof.csp.conversion.csp_stage import CSPStage
from cspprof.csp.conversion.layers import RULES, Shapes, resize
from cspprof.csp.conversion.plan import StagePlan

ACTIVATIONS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "relu": (lambda: nn.ReLU(inplace=True), "nn.ReLU(inplace=True)"),
    "silu": (lambda: nn.SiLU(inplace=True), "nn.SiLU(inplace=True)"),
    "hardswish": (lambda: nn.Hardswish(inplace=True), "nn.Hardswish(inplace=True)"),
    "hardtanh": (lambda: nn.ReLU6(inplace=True), "nn.ReLU6(inplace=True)"),
    "leaky_relu": (lambda: nn.LeakyReLU(0.1, inplace=True), "nn.LeakyReLU(0.1, inplace=True)"),
    "gelu": (nn.GELU, "nn.GELU()"),
    "mish": (lambda: nn.Mish(inplace=True), "nn.Mish(inplace=True)"),
    "elu": (lambda: nn.ELU(inplace=True), "nn.ELU(inplace=True)"),
}
"""The activation of new layers and its code, by the first activation in the stage. The default is ReLU."""


BUFFERS_OF_NORMS = ("weight", "bias", "running_mean", "running_var")
"""The buffers of batch norms, also of frozen ones."""


class Edit(NamedTuple):
    """A module that replaces another one, and the expression that builds it. In the expression, `{old}` stands for the
    module that is replaced."""

    path: str
    module: nn.Module
    code: str


class Setting(NamedTuple):
    """An attribute of a module inside the blocks that is a number of channels, or contains some."""

    path: str
    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class StageEdits:
    """The edits of one stage: first the layers inside its blocks, then the modules of its container."""

    layers: tuple[Edit, ...]
    settings: tuple[Setting, ...]
    places: tuple[Edit, ...]
    blocks: dict[str, str]
    """The path of each block in the original, by its path inside the new stage's `blocks`."""

    @property
    def stage(self) -> nn.Module:
        """The CSP stage."""
        return self.places[0].module


def stage_edits(model: nn.Module, record: Record, plan: StagePlan) -> StageEdits:
    """The edits for one stage. The modules of `model` are not changed: those of the stage are copies.

    Raises CouplingError for a layer that cannot have another width.
    """
    stage = plan.stage
    copies = {b.path: copy.deepcopy(model.get_submodule(b.path)) for b in stage.blocks}
    trains = {path: any(p.requires_grad for p in block.parameters()) for path, block in copies.items()}
    layers = []
    new_shapes = _shapes_by_layer(record, plan)
    _refuse_shared_weights(model, list(copies), set(new_shapes))
    for path in sorted(new_shapes, key=lambda path: path.count(".")):  # a copied module keeps the layers inside it
        block = next(b for b in copies if path == b or path.startswith(f"{b}."))
        module, shapes = copies[block].get_submodule(path[len(block) + 1 :]), new_shapes[path]
        refuse_other_weights(module, path)
        _refuse_constants(module, shapes, path, trains[block])
        try:
            resized = resize(module, shapes)
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            name = type(module).__name__
            raise CouplingError(f"{path}: {name} cannot be built with other channels: {error}") from error
        layers.append(Edit(path, resized.module, resized.code))
        if path == block:
            copies[path] = resized.module
        else:
            copies[block].set_submodule(path[len(block) + 1 :], resized.module)
    settings = tuple(_settings(copies, plan, {edit.path for edit in layers}))
    blocks = list(copies.values())
    olds = [path_code(model, path) for path in copies]
    if plan.replaces_first:
        blocks.insert(0, copy.deepcopy(blocks[0]))
        olds.insert(0, f"copy.deepcopy({olds[0]})")
    inner = blocks[0]
    if len(blocks) > 1:
        inner = nn.Sequential(*blocks)
        inner.training = model.training
    inner_code = olds[0] if len(olds) == 1 else f"nn.Sequential({', '.join(olds)})"
    new = _NewLayers(model, record, plan)
    arguments = new.arguments()
    for added in (m for m, _ in arguments.values()):
        added.train(model.training)
    module = CSPStage(inner, (plan.bypass, plan.main), **{name: m for name, (m, _) in arguments.items()})
    module.training = model.training  # the blocks keep their modes, as of frozen batch norms
    lines = [inner_code, f"({plan.bypass}, {plan.main})", *(f"{name}={code}" for name, (_, code) in arguments.items())]
    code = "CSPStage(\n" + "".join(f"    {line},\n" for line in lines) + ")"
    replaced = [*stage.blocks, *stage.tail]
    if plan.replaces_first and stage.first is not None:
        replaced.insert(0, stage.first)
    first, *others = replaced
    places = [
        Edit(first.path, module, code),
        *(Edit(b.path, nn.Identity().train(model.training), "nn.Identity()") for b in others),
    ]
    offset = 1 if plan.replaces_first else 0  # the additional block is new
    inside = {"" if len(blocks) == 1 else f".{i}": path for i, path in enumerate(copies, offset)}
    return StageEdits(tuple(layers), settings, tuple(places), inside)


def _refuse_shared_weights(model: nn.Module, blocks: Sequence[str], resized: set[str]) -> None:
    """Raise CouplingError if a weight of the blocks has another name outside its block, or in it if its layer gets
    new shapes: the copies of the blocks would have weights of their own."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for shared in (found for found in names.values() if len(found) > 1):
        of_block = [next((b for b in blocks if name.startswith(f"{b}.")), None) for name in shared]
        if any(of_block) and (len(set(of_block)) > 1 or any(name.rpartition(".")[0] in resized for name in shared)):
            raise CouplingError(f"{shared[0]} and {shared[1]} are one weight, and conversion would separate them")


def refuse_other_weights(module: nn.Module, path: str) -> None:
    """Raise CouplingError if a layer has weights that a new layer cannot have: integers, or a subclass of tensors."""
    for name, tensor in module.named_parameters(recurse=False):
        if not tensor.is_floating_point() or tensor.is_quantized:
            raise CouplingError(f"{path}.{name} is quantized ({str(tensor.dtype).removeprefix('torch.')})")
        if type(tensor) is not nn.Parameter or type(tensor.data) is not torch.Tensor:
            raise CouplingError(f"{path}.{name} is a {type(tensor.data).__name__}, which no new layer has")


def _refuse_constants(module: nn.Module, shapes: Shapes, path: str, trains: bool) -> None:
    """Raise CouplingError if a tensor that is not trained has other values for other channels, as a mask of the
    channels: no training would find those of another width. `trains` is whether the block has trained parameters; else
    the whole block is frozen, and its new layers are trained. Norms get the statistics of a new norm."""
    mixes = isinstance(module, (nn.modules.conv._ConvNd, nn.Linear))
    if isinstance(module, tuple(RULES)) and not mixes:
        return
    for name, shape in shapes.items():
        tensor = getattr(module, name)
        frozen = isinstance(tensor, nn.Parameter) and not tensor.requires_grad and trains
        buffer = name in module._buffers and name not in BUFFERS_OF_NORMS
        if not (frozen or buffer):
            continue
        what = "a frozen parameter" if frozen else "a buffer"
        if frozen and mixes:
            raise CouplingError(f"{path}.{name} is {what}, and a layer of another width has other values")
        if tensor.is_meta:
            raise CouplingError(
                f"{path}.{name} is {what}, and only a module has its values: cspprof.convert(module, inputs)"
            )
        axes = [axis for axis, n in enumerate(shape) if n != tensor.shape[axis]]
        if any(not bool((tensor == tensor.narrow(axis, 0, 1)).all()) for axis in axes):
            raise CouplingError(f"{path}.{name} is {what} with a value for each channel, and no other width has them")


def _shapes_by_layer(record: Record, plan: StagePlan) -> dict[str, dict[str, tuple[int, ...]]]:
    """The new shapes of parameters and buffers, by the path of their module."""
    result: dict[str, dict[str, tuple[int, ...]]] = {}
    for storage in record.storages:
        if storage.id in plan.shapes:
            path, _, name = storage.name.rpartition(".")
            result.setdefault(path, {})[name] = plan.shapes[storage.id]
    return result


def _settings(copies: dict[str, nn.Module], plan: StagePlan, resized: set[str]) -> Iterator[Setting]:
    """Set attributes that are a number of channels to the new number, in the copies of the blocks.

    Forwards split maps by such attributes. Whether the guess is right is seen when the stage runs.
    """
    for path, numbers in plan.numbers.items():
        block = next((b for b in copies if path == b or path.startswith(f"{b}.")), None)
        if block is None:
            continue
        module = copies[block].get_submodule(path[len(block) + 1 :])
        if type(module).__module__.startswith("torch.nn.") or (path in resized and isinstance(module, tuple(RULES))):
            continue
        yield from (Setting(path, name, value) for name, value in renumber(module, numbers))


def renumber(module: nn.Module, numbers: dict[int, int]) -> list[tuple[str, Any]]:
    """Replace the numbers of channels among the attributes of a module; the changed attributes and their values."""
    changed = []
    for name, value in list(vars(module).items()):
        new = _renumbered(value, numbers)
        if not name.startswith("_") and new != value:
            setattr(module, name, new)
            changed.append((name, new))
    return changed


def _renumbered(value: Any, numbers: dict[int, int]) -> Any:
    if type(value) is int:
        return numbers.get(value, value)
    if type(value) in (tuple, list) and all(type(n) is int for n in value):
        return type(value)(numbers.get(n, n) for n in value)
    return value


class _NewLayers:
    """The split convolutions and transitions of a stage, each with its code."""

    def __init__(self, model: nn.Module, record: Record, plan: StagePlan) -> None:
        self.model, self.record, self.plan = model, record, plan
        parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        self.device, self.dtype = parameter.device, parameter.dtype
        specs = [record.specs[record.calls.spec[i]] for i in plan.stage.calls]
        used = [s for s in specs if s.kind is Kind.ACTIVATION and s.name.strip("_") in ACTIVATIONS]
        self.activation, self.activation_code = ACTIVATIONS[used[0].name.strip("_") if used else "relu"]

    def arguments(self) -> dict[str, tuple[nn.Module, str]]:
        """The arguments of `CSPStage` behind the blocks and the widths."""
        plan, options = self.plan, self.plan.options
        width = plan.input[1]
        result: dict[str, tuple[nn.Module, str]] = {}
        if plan.replaces_first:
            result |= self._down()
        if plan.split_by_convolutions:
            result["bypass"] = self._pointwise(width, plan.bypass)
            result["main"] = self._pointwise(width, plan.main)
        if options.fusion != "first":
            result["block_transition"] = self._pointwise(plan.c_blocks, plan.c_transition)
        pool = self._pool()
        if pool is not None:
            result["pool"] = pool
        if options.fusion != "last":
            result["transition"] = self._pointwise(plan.joined, plan.c_out, not self._output_is_modified())
        return result

    def _output_is_modified(self) -> bool:
        """Whether an operation behind the stage changes its output in place, such as an activation. The stage then ends
        without an activation: autograd needs the output of a ReLU unchanged."""
        last = (*self.plan.stage.blocks, *self.plan.stage.tail)[-1]
        storage = self.record.ops[last.exit].writes[0].storage
        return any(
            op.kind is not Kind.VIEW and op.spec.name.endswith("_") and any(t.storage == storage for t in op.writes)
            for op in self.record.ops[last.calls.stop :]
        )

    def _down(self) -> dict[str, tuple[nn.Module, str]]:
        """The strided 3×3 convolution in front of the split, if the first block reduces the map. It has the groups of
        the grouped convolutions in the blocks."""
        before, after = self.plan.input, self.plan.stage.input
        stride = -(-before[2] // after[2])
        if stride == 1:
            return {}
        specs = [self.record.specs[self.record.calls.spec[i]] for i in self.plan.stage.calls]
        groups = {int(s.attrs.get("groups", 1)) for s in specs if s.kind is Kind.CONV}
        fitting = [g for g in groups if 1 < g < before[1] and before[1] % g == 0]
        channels = before[1]
        return {"down": self._layer(channels, channels, 3, stride, min(fitting, default=1))}

    def _pointwise(self, c_in: int, c_out: int, activated: bool = True) -> tuple[nn.Module, str]:
        return self._layer(c_in, c_out, 1, activated=activated)

    def _layer(
        self, c_in: int, c_out: int, k: int, stride: int = 1, groups: int = 1, activated: bool = True
    ) -> tuple[nn.Module, str]:
        """Convolution, batch norm, activation."""
        with self.device:
            convolution = nn.Conv2d(c_in, c_out, k, stride, k // 2, groups=groups, bias=False)
            activation = [self.activation()] if activated else []
            module = nn.Sequential(convolution, nn.BatchNorm2d(c_out), *activation).to(self.dtype)
        numbers = f"{c_in}, {c_out}, {k}" + (f", {stride}, {k // 2}" if k > 1 else "")
        grouped = f", groups={groups}" if groups > 1 else ""
        activation_code = f", {self.activation_code}" if activated else ""
        code = f"nn.Sequential(nn.Conv2d({numbers}{grouped}, bias=False), nn.BatchNorm2d({c_out}){activation_code})"
        return module, code

    def _pool(self) -> tuple[nn.Module, str] | None:
        """The pool of the tail."""
        for block in self.plan.stage.tail:
            calls, specs = self.record.calls, self.record.specs
            for i in block.calls:
                if specs[calls.spec[i]].kind in POOLS:
                    path = self.record.layers[calls.layer[i]].path
                    module = self.model.get_submodule(path)
                    if not type(module).__name__.endswith(("Pool2d", "AvgPool", "MaxPool")):
                        raise CouplingError(f"{path}: the pool of the transition is not a module of its own")
                    return copy.deepcopy(module), path_code(self.model, path)
        return None


def apply_edits(model: nn.Module, edits: StageEdits) -> Callable[[], None]:
    """Put the stage into the model. The returned function takes it out again."""
    before = [(edit.path, model.get_submodule(edit.path)) for edit in edits.places]

    def undo() -> None:
        for path, module in before:
            set_module(model, path, module)

    for edit in edits.places:
        set_module(model, edit.path, edit.module)
    return undo


def set_module(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    model.get_submodule(parent)._modules[name] = module


def weight_names(plain: nn.Module, converted: nn.Module, edits: Sequence[StageEdits]) -> dict[str, str]:
    """For each entry of the state dict of `converted`: the name of the entry of `plain` that has its values, or an
    empty text if the entry is new or has a new shape."""
    original = plain.state_dict()
    renamed: dict[str, str] = {}
    resized = {edit.path for stage in edits for edit in stage.layers}
    for stage in edits:
        place = stage.places[0].path
        for new, old in stage.blocks.items():
            renamed[f"{place}.blocks{new}"] = old
    names = {}
    for name in converted.state_dict():
        old = name
        for new in sorted(renamed, key=len, reverse=True):
            if name.startswith(f"{new}."):
                old = renamed[new] + name[len(new) :]
                break
        else:
            if any(name.startswith(f"{stage.places[0].path}.") for stage in edits):
                old = ""
        if old not in original or old.rpartition(".")[0] in resized:
            old = ""
        names[name] = old
    return names


# -- code ---------------------------------------------------------------------------------------------


def path_code(model: nn.Module, path: str) -> str:
    """The expression for a module: `model.layer1[0].conv1`."""
    code, module = "model", model
    for name in path.split("."):
        if name.isdecimal() and isinstance(module, (nn.Sequential, nn.ModuleList)):
            code += f"[{name}]"
        elif name.isidentifier() and not iskeyword(name):
            code += f".{name}"
        else:
            code += f".get_submodule({name!r})"
        module = module._modules[name]  # type: ignore[assignment]  # the path exists
    return code


def assignment_code(model: nn.Module, edit: Edit) -> str:
    """The statement that puts a module into its place."""
    place = path_code(model, edit.path)
    code = edit.code.replace("{old}", place)
    match = re.fullmatch(r"(.*)\.get_submodule\((.*)\)", place)
    return f"{match[1]}.set_submodule({match[2]}, {code})" if match else f"{place} = {code}"


def code_lines(model: nn.Module, edits: Sequence[StageEdits]) -> list[str]:
    """The statements of all stages. `model` is the model before the edits."""
    lines = []
    for stage in edits:
        lines += [assignment_code(model, edit) for edit in stage.layers]
        lines += [f"{path_code(model, path)}.{name} = {value!r}" for path, name, value in stage.settings]
        lines += [assignment_code(model, edit) for edit in stage.places]
    return lines
