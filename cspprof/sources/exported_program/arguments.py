"""The arguments of nodes, and constants, as Python values: what the unions of the schema may hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from cspprof.sources.exported_program.json_values import MalformedError, as_kind, field, shorten, variant

DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 9: torch.complex32, 10: torch.complex64, 11: torch.complex128, 12: torch.bool,
    13: torch.bfloat16, 28: torch.uint16, 29: torch.float8_e4m3fn, 30: torch.float8_e5m2,
    31: torch.float8_e4m3fnuz, 32: torch.float8_e5m2fnuz, 33: torch.float8_e8m0fnu, 34: torch.uint32,
    35: torch.uint64,
}  # fmt: skip
LAYOUTS = {1: torch.sparse_coo, 2: torch.sparse_csr, 3: torch.sparse_csc, 4: torch.sparse_bsr, 5: torch.sparse_bsc,
           7: torch.strided}  # fmt: skip
MEMORY_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d,
                  4: torch.preserve_format}  # fmt: skip
DEVICES = frozenset({"cpu", "cuda", "meta", "mps", "xpu", "hpu", "mtia", "xla", "npu", "privateuseone"})
FLOATS = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}

LARGEST = 2**63


class Ref(NamedTuple):
    """An argument that is the value of an input or of an earlier node."""

    name: str


class Device(NamedTuple):
    """A device that the program names. The trace decides where it really runs."""

    type: str


def _float(value: Any, where: str) -> float:
    if isinstance(value, str) and value in FLOATS:
        return FLOATS[value]
    return float(value) if type(value) is int else as_kind(value, float, where)


def integer(value: Any, where: str) -> int:
    if abs(as_kind(value, int, where)) >= LARGEST:
        raise MalformedError(f"{where} is {value:,}, which has more than 63 bits")
    return int(value)


def one_of(table: dict[int, Any]) -> Callable[[Any, str], Any]:
    def read(value: Any, where: str) -> Any:
        if type(value) is not int or value not in table:
            raise MalformedError(f"{where} has the unknown number {shorten(value)}")
        return table[value]

    return read


def _list_of(item: Callable[[Any, str], Any]) -> Callable[[Any, str], list[Any]]:
    return lambda value, where: [item(x, where) for x in as_kind(value, list, where)]


def _symbolic(literal: str, read: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """A number that another node may give: `{"as_name": …}` or `{literal: …}`."""

    def read_either(value: Any, where: str) -> Any:
        tag, inner = variant(value, where)
        if tag == "as_name":
            return Ref(as_kind(inner, str, where))
        if tag == literal:
            return read(inner, where)
        raise MalformedError(f"{where} is of the kind {shorten(tag)}, which is not read")

    return read_either


def _bool(value: Any, where: str) -> bool:
    return as_kind(value, bool, where)


def _string(value: Any, where: str) -> str:
    return as_kind(value, str, where)


def tensor_ref(value: Any, where: str) -> Ref:
    return Ref(field(value, "name", str, where))


def _optional_tensor(value: Any, where: str) -> Ref | None:
    tag, inner = variant(value, where)
    if tag == "as_none":
        return None
    if tag != "as_tensor":
        raise MalformedError(f"{where} is of the kind {shorten(tag)}, which is not read")
    return tensor_ref(inner, where)


def _device(value: Any, where: str) -> Device:
    kind = field(value, "type", str, where)
    if kind not in DEVICES:
        raise MalformedError(f"{where} is the unknown device {shorten(kind)}")
    return Device(kind)


def _complex(value: Any, where: str) -> complex:
    data = as_kind(value, dict, where)
    return complex(_float(data.get("real"), where), _float(data.get("imag"), where))


ARGUMENTS: dict[str, Callable[[Any, str], Any]] = {
    "as_none": lambda value, where: None,
    "as_tensor": tensor_ref,
    "as_tensors": _list_of(tensor_ref),
    "as_optional_tensor": _optional_tensor,
    "as_optional_tensors": _list_of(_optional_tensor),
    "as_nested_tensors": _list_of(_list_of(tensor_ref)),
    "as_int": integer,
    "as_ints": _list_of(integer),
    "as_int_lists": _list_of(_list_of(integer)),
    "as_float": _float,
    "as_floats": _list_of(_float),
    "as_float_lists": _list_of(_list_of(_float)),
    "as_bool": _bool,
    "as_bools": _list_of(_bool),
    "as_string": _string,
    "as_strings": _list_of(_string),
    "as_complex": _complex,
    "as_sym_int": _symbolic("as_int", integer),
    "as_sym_ints": _list_of(_symbolic("as_int", integer)),
    "as_sym_float": _symbolic("as_float", _float),
    "as_sym_floats": _list_of(_symbolic("as_float", _float)),
    "as_sym_bool": _symbolic("as_bool", _bool),
    "as_sym_bools": _list_of(_symbolic("as_bool", _bool)),
    "as_scalar_type": one_of(DTYPES),
    "as_memory_format": one_of(MEMORY_FORMATS),
    "as_layout": one_of(LAYOUTS),
    "as_device": _device,
}
"""The kinds of arguments that are read. Objects of other classes, operators and tokens are not among them."""

CONSTANTS: dict[str, Callable[[Any, str], Any]] = {
    "as_none": lambda value, where: None, "as_int": integer, "as_float": _float, "as_string": _string,
    "as_bool": _bool,
}  # fmt: skip
