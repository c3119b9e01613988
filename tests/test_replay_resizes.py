"""Sizes asked for a resize are followed where the code of the forward shows that nothing else gets them."""

from __future__ import annotations

import ast
import dis
import functools
import inspect
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models import cait, pvt_v2, swin_transformer, vision_transformer
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cspprof.errors import ReplayError
from cspprof.record import Profile
from cspprof.saving import from_bytes, to_bytes
from cspprof.trace import trace
from cspprof.trace.crops import ANYTHING, crops
from cspprof.trace.steps import instructions, kinds_of

OTHERS = ((1, 3, 16, 16), (1, 3, 20, 14), (2, 3, 8, 26))


class Neck(nn.Module):
    """`line` gets a map and the same of half the size."""

    def __init__(self, line: Callable[..., Any]) -> None:
        super().__init__()
        self.conv, self.line = nn.Conv2d(3, 4, 1), line

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return self.line(y, F.max_pool2d(y, 2))


def recorded(module: nn.Module, *shape: int) -> Profile:
    return from_bytes(to_bytes(trace(module, shape), compressed=False), "a test's")


def assert_followed(module: nn.Module, profile: Profile) -> None:
    for shape in OTHERS:
        made = profile.at(shape)
        assert to_bytes(made, False) == to_bytes(trace(module, shape), False)
        assert made.at(profile.inputs[0].shape) == profile


def one_use(x: Tensor, y: Tensor) -> Tensor:
    size = x.shape[-2:]
    return F.interpolate(F.relu(y), size=size, mode="bilinear", align_corners=False)


def some_uses(x: Tensor, y: Tensor) -> Any:
    size = x.size()[2:]
    y = F.interpolate(y, size=size)
    low = F.max_pool2d(y, 4)
    return interpolate(low.amax(1, keepdim=True), size) + F.interpolate(low, (12, 12)).mean((2, 3), keepdim=True)


def unpacked(x: Tensor, y: Tensor) -> Tensor:
    h, w = x.shape[2:]
    y = F.relu(y)
    return F.interpolate(y, size=(h, w)) * torch.nn.functional.upsample(y, [h, w])


def all_unpacked(x: Tensor, y: Tensor) -> Tensor:
    _, _, h, w = x.size()
    return F.interpolate(y, size=(h, w), mode="bilinear") + x


def starred(x: Tensor, y: Tensor) -> Tensor:
    *_, h, w = x.shape
    _, _, *size = x.shape
    return F.interpolate(y, size=(h, w)) + F.interpolate(y, size=size)


def from_a_generator(x: Tensor, y: Tensor) -> list[Tensor]:
    def made() -> Iterator[Tensor]:
        size = x.shape[2:]
        yield F.interpolate(y, size=size)
        yield F.interpolate(x, size=y.shape[2:])

    return list(made())


def by_number(x: Tensor, y: Tensor) -> Tensor:
    return F.interpolate(y, (int(x.size(2)), x.size(-1)))


def in_a_tuple(x: Tensor, y: Tensor) -> Tensor:
    return F.interpolate(y, size=tuple(x.shape[2:])) + F.interpolate(y, size=list(x.shape)[-2:])


def turned(x: Tensor, y: Tensor) -> Tensor:
    return F.interpolate(y, size=(x.shape[3], x.shape[2]))


def square(x: Tensor, y: Tensor) -> Tensor:
    return F.interpolate(y, size=x.shape[2])


def of_two_maps(x: Tensor, y: Tensor) -> Tensor:
    return F.interpolate(y, size=(x.size(2), y.size(3)))


def half_fixed(x: Tensor, y: Tensor) -> Tensor:
    return F.interpolate(y, size=(12, x.size(3)))


def after_another(x: Tensor, y: Tensor) -> Tensor:
    return F.interpolate(size=x.shape[2:], input=F.interpolate(y, size=(12, 12)))


def in_a_loop(x: Tensor, y: Tensor) -> list[Tensor]:
    made, maps = [], [y, x, F.max_pool2d(x, 3)]
    for low, high in pairwise(maps):
        size = high.shape[-2:]
        if low is not high:
            made.append(F.interpolate(low.relu(), size=size))
    return made


def the_last_of_a_loop(x: Tensor, y: Tensor) -> Tensor:
    for high in (y, x, F.max_pool2d(x, 3)):
        size = high.shape[-2:]
    return F.interpolate(y, size=size)


def in_comprehension(x: Tensor, y: Tensor) -> list[Tensor]:
    return [F.interpolate(low, size=x.shape[2:]) for low in (y, y.relu())]


def asked_of_a_crop(x: Tensor, y: Tensor) -> Tensor:
    z = x[:, :, 1:]
    size = z.shape[2:]
    z = F.avg_pool2d(z, 3, 1)
    return F.interpolate(y, size=size) + z.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(
    "line",
    [
        one_use, some_uses, unpacked, all_unpacked, starred, from_a_generator, by_number,
        in_a_tuple, turned, square, of_two_maps, half_fixed,
        after_another, in_a_loop, in_comprehension, asked_of_a_crop,
        lambda x, y: F.interpolate(y, size=x.shape[2:]) + F.interpolate(y, None, 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("first", [(1, 3, 12, 12), (1, 3, 10, 12)])
def test_a_size_for_resizes_alone_is_followed(line: Callable[..., Any], first: tuple[int, ...]) -> None:
    module = Neck(line)
    assert_followed(module, recorded(module, *first))


@pytest.mark.parametrize(
    ("mode", "antialias"),
    [("nearest-exact", False), ("area", False), ("bilinear", False), ("bilinear", True), ("bicubic", True)],
)
def test_every_way_to_resize(mode: str, antialias: bool) -> None:
    module = Neck(lambda x, y: F.interpolate(y, size=x.shape[2:], mode=mode, antialias=antialias))
    assert_followed(module, recorded(module, 1, 3, 12, 12))


def test_whatever_stands_between_the_model_and_torch() -> None:
    module = Neck(one_use)
    with torch.device("meta"):
        profile = recorded(module, 1, 3, 12, 12)
    assert to_bytes(profile.at((1, 3, 16, 18)), False) == to_bytes(trace(module, (1, 3, 16, 18)), False)


# -- other uses ---------------------------------------------------------------------------------------


def resize(y: Tensor, size: Any) -> Tensor:
    """Somebody's own, which may do anything with it."""
    return F.interpolate(y[:, :, : size[0] // 2], size=size)


def branched(x: Tensor, y: Tensor) -> Tensor:
    h, w = x.shape[2:]
    y = F.interpolate(y, size=(h, w))
    return y.relu() if h > 12 else y


def reckoned(x: Tensor, y: Tensor) -> Tensor:
    h = x.size(2)
    return F.interpolate(y, size=(h, x.size(3))) * (h // 7)


def handed_on(x: Tensor, y: Tensor) -> Tensor:
    size = x.shape[2:]
    return resize(F.interpolate(y, size=size), size)


def truth(x: Tensor, y: Tensor) -> Tensor:
    size = x.shape[2:]
    y = F.interpolate(y, size=size)
    return y.relu() if 12 in size else y


def stored_twice(x: Tensor, y: Tensor) -> Tensor:
    size = x.shape[2:]
    if y.is_cuda:
        size = (3, 3)
    return F.interpolate(y, size=size)


def kept_from_before(x: Tensor, y: Tensor) -> Tensor:
    for high in (x, y, F.max_pool2d(x, 3)):
        h, w = high.shape[2:]
        if high is x:
            size = (h, w)
    return F.interpolate(y, size=size)


def walrus(x: Tensor, y: Tensor) -> Tensor:
    y = F.interpolate(y, size=(size := x.shape[2:]))
    return y * size[0]


def twice_an_argument(x: Tensor, y: Tensor) -> Tensor:
    size = x.shape[2:]
    return functools.partial(F.interpolate, y, size=size)()


def enclosed(x: Tensor, y: Tensor) -> Tensor:
    size = x.shape[2:]
    y = F.interpolate(y, size=size)
    return (lambda: y * size[0])()


def by_locals(x: Tensor, y: Tensor) -> Tensor:
    size = x.shape[2:]
    y = F.interpolate(y, size=size)
    return y * locals()["size"][0]


def channels(x: Tensor, y: Tensor) -> Tensor:
    _c, h, w = x.shape[1:]
    return F.interpolate(y, size=(h, w)) * h


def returned(x: Tensor, y: Tensor) -> Any:
    size = x.shape[2:]
    return F.interpolate(y, size=size), y.new_zeros(size)


def mode_by_size(x: Tensor, y: Tensor) -> Tensor:
    size = x.shape[2:]
    return F.interpolate(y, size=size, mode="nearest" if size[0] > 12 else "bilinear")


class Interpolating:
    @staticmethod
    def interpolate(y: Tensor, size: Any) -> Tensor:
        return F.interpolate(y, size=(24, 24) if size[0] > 12 else (12, 12))


def another_function(x: Tensor, y: Tensor) -> Tensor:
    return Interpolating.interpolate(y, size=x.shape[2:])


def another_in_its_place(x: Tensor, y: Tensor) -> Tensor:
    try:
        return F.interpolate(y, size=x.shape[2:], mode="unheard of")
    except NotImplementedError:
        return F.interpolate(y, size=(12, 12))


def one_of_two(x: Tensor, y: Tensor) -> Tensor:
    """Both are 12×12 in one storage."""
    z = x.narrow(2, 0, 12).relu_()
    return F.interpolate(z, size=x.shape[2:])


@pytest.mark.parametrize(
    "line",
    [
        branched, reckoned, handed_on, truth, stored_twice, kept_from_before, walrus, twice_an_argument, enclosed,
        by_locals, the_last_of_a_loop, channels, returned, mode_by_size, another_function,
        another_in_its_place, one_of_two,
        lambda x, y: resize(y, x.shape[2:]),
        lambda x, y: F.interpolate(y, size=x.shape[2:]) if x.shape[2] == 12 else y,
    ],
)  # fmt: skip
def test_a_size_that_something_else_gets_too_is_refused(line: Callable[..., Any]) -> None:
    profile = recorded(Neck(line), 1, 3, 12, 12)
    with pytest.raises(ReplayError, match=r"not on record|cannot tell apart"):
        profile.at((1, 3, 16, 16))
    assert profile.at((1, 3, 12, 12)) == profile


def test_a_tensor_asks_as_ever_after_a_resize() -> None:
    before = torch.Tensor.dim
    recorded(Neck(one_use), 1, 3, 12, 12)
    assert torch.Tensor.dim is before


# -- bytecode -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arg", "expected"),
    [
        ("LOAD_FAST_BORROW", 1, [("load", "y")]),
        ("LOAD_FAST_BORROW_LOAD_FAST_BORROW", 0x01, [("load", "x"), ("load", "y")]),
        ("STORE_FAST_STORE_FAST", 0x23, [("store", "h"), ("store", "w")]),
        ("STORE_FAST_LOAD_FAST", 0x21, [("store", "h"), ("load", "y")]),
        ("LOAD_SMALL_INT", 2, [("value", 2)]),
        ("BINARY_SLICE", 0, [("cut", 0)]),
        ("CALL_KW", 2, [("call_with", 2)]),
        ("CALL_FUNCTION_EX", 1, [("other", None)]),
        ("AN_INSTRUCTION_TO_COME", 3, [("other", None)]),
    ],
)
def test_instructions_of_other_versions(name: str, arg: int, expected: list[tuple[str, Any]]) -> None:
    """Of what is not understood, nothing is believed: the steps say `other`."""

    def asking(x: Tensor, y: Tensor) -> Tensor:
        h, w = x.shape[2:]
        return y[:h, :w]

    assert kinds_of(name, arg, asking.__code__) == expected


CODES = [one_of_two.__code__, Neck.forward.__code__, F.interpolate.__code__, F.multi_head_attention_forward.__code__]


@pytest.mark.parametrize("code", CODES)
def test_code_is_read_as_python_reads_it(code: CodeType) -> None:
    read = [i for i in dis.get_instructions(code) if i.opname != "EXTENDED_ARG"]
    assert [(i.offset, i.opname, i.arg or 0) for i in read] == [*instructions(code)]
    for i in read:
        told = [value for kind, value in kinds_of(i.opname, i.arg or 0, code) if kind in NAMED]
        assert told in ([], [i.argval], [*i.argval] if isinstance(i.argval, tuple) else None), i


NAMED = ("load", "store", "global", "attribute", "method", "value")
INDEXES = ("BINARY_SUBSCR", "BINARY_SLICE", "BINARY_OP")


def indexes(module: ModuleType) -> Iterator[tuple[CodeType, dict[str, Any], int, ast.Subscript]]:
    """Every index in the functions of a module and of its classes: code, globals, instruction, and its source."""
    found = [v for v in vars(module).values() if getattr(v, "__module__", "") == module.__name__]
    found += [v for cls in found if isinstance(cls, type) for v in vars(cls).values()]
    codes = [f.__code__ for f in found if isinstance(f, FunctionType) and f.__code__.co_filename == module.__file__]
    tree = ast.walk(ast.parse(inspect.getsource(module)))
    nodes = {(n.lineno, n.col_offset, n.end_lineno, n.end_col_offset): n for n in tree if isinstance(n, ast.Subscript)}
    for code in codes:
        for i in dis.get_instructions(code):
            p = i.positions
            node = nodes.get((p.lineno, p.col_offset, p.end_lineno, p.end_col_offset)) if p else None
            if node is not None and i.opname in INDEXES and isinstance(node.ctx, ast.Load):
                yield code, vars(module), i.offset, node


def goes_up_to_a_stop(part: ast.expr) -> bool:
    """Whether a part of an index is a slice whose stop may lie beyond the end: not one counted from there."""
    stop = part.upper if isinstance(part, ast.Slice) else None
    return stop is not None and not (isinstance(stop, ast.UnaryOp) and isinstance(stop.operand, ast.Constant))


@pytest.mark.parametrize("module", [swin_transformer, vision_transformer, pvt_v2, cait, torch.nn.functional])
def test_crops_are_those_of_the_source(module: ModuleType) -> None:
    known = 0
    for code, names, place, node in indexes(module):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        dots = [i for i, part in enumerate(parts) if isinstance(part, ast.Constant) and part.value is ...]
        cropped = [i for i, part in enumerate(parts) if goes_up_to_a_stop(part)]
        expected = tuple([i - len(parts) if dots and i > dots[0] else i for i in cropped])
        found = crops(code, place, names)
        assert found.dims == expected or (found == ANYTHING and cropped), ast.unparse(node)
        known += found.dims is not None
    assert known >= 5


@pytest.mark.parametrize(
    "index",
    [
        lambda x, c: x[: (20 if c else None)],
        lambda x, c: x[: (None if c else 20)],
        lambda x, c: x[: (c and None)],
    ],
)
def test_a_stop_of_two_ways_may_crop(index: FunctionType) -> None:
    (place,) = [i.offset for i in dis.get_instructions(index) if i.opname in INDEXES]
    assert crops(index.__code__, place, {}).dims in ((0,), None)
