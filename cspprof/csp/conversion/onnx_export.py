"""The converted network as an ONNX graph."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Sequence

import torch
from torch import nn

from cspprof.core.errors import CspprofError
from cspprof.core.tensors import TensorSpec
from cspprof.csp.conversion.proof import with_values

HEAD = 64
"""The bytes of an ONNX file in which the name of its producer is."""
PRODUCER = b"\x12\x07cspprof"
"""The field `producer_name` of an ONNX file that cspprof wrote: a later run replaces only such a file."""


def is_own_onnx(head: bytes) -> bool:
    return PRODUCER in head[:HEAD]


def onnx_bytes(model: nn.Module, inputs: Sequence[TensorSpec]) -> bytes:
    """The graph of `model` in eval mode, for inputs of these shapes. Weights that have no values get random ones.

    Raises CspprofError if torch cannot export it.
    """
    on_meta = any(p.is_meta for p in model.parameters())
    real = with_values(model) if on_meta else copy.deepcopy(model).cpu()
    dtypes = {name: getattr(torch, name) for name in {t.dtype for t in inputs}}
    arguments = tuple(
        torch.randn(t.shape, dtype=dtypes[t.dtype])
        if "float" in t.dtype
        else torch.zeros(t.shape, dtype=dtypes[t.dtype])
        for t in inputs
    )
    file = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(real.eval(), arguments, file, dynamo=False, opset_version=17)  # type: ignore[arg-type]  # it writes to files too
    except Exception as error:  # the exporter raises errors of many classes
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise CspprofError(
            f"torch cannot export the network: {type(error).__name__}: {reason}", "Write code instead: -o net_csp.py"
        ) from error
    data = file.getvalue()
    return data[:HEAD].replace(b"\x12\x07pytorch", PRODUCER) + data[HEAD:]
