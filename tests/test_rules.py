"""Rules: MACs and activations against fvcore, and how a rule is registered."""

from __future__ import annotations

import warnings

import pytest
import torch
from conftest import trace
from torch import nn

import cspprof
from cspprof.ops import Facts, op_rule


@pytest.mark.parametrize("name", ["resnet50", "csp_resnext50", "csp_darknet53"])
def test_fvcore_agrees_on_convolutions(name: str) -> None:
    from fvcore.nn import FlopCountAnalysis

    from cspprof.zoo import catalog

    model = catalog().get(name).factory().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(model, torch.zeros(1, 3, 64, 64))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_operator = analysis.by_operator()
    ours = cspprof.profile(name, (1, 3, 64, 64))
    assert by_operator["conv"] == ours.total("macs")  # fvcore's "flops" are MACs


def test_activations_are_fvcores_on_a_convolutional_net() -> None:
    from fvcore.nn import ActivationCountAnalysis

    from cspprof.zoo import catalog

    model = catalog().get("csp_resnet50").factory().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis = ActivationCountAnalysis(model, torch.zeros(1, 3, 64, 64))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        expected = analysis.total()
    assert cspprof.profile("csp_resnet50", (1, 3, 64, 64)).total("activations") == expected


def test_a_rule_may_leave_out_what_is_no_result() -> None:
    class Pool(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pooled, indices = nn.functional.adaptive_max_pool2d(x, 2, return_indices=True)
            return nn.functional.max_unpool2d(pooled, indices, 2)

    p = trace(Pool(), (1, 4, 4, 4))
    p.self_check()
    pool, unpool = p.ops
    assert len(pool.writes) == 1  # the kernel writes indices whether they are asked for or not
    assert p.total("cio_cspnet") == 64 + 16
    assert [t.dtype for t in unpool.reads] == ["float32", "int64"]  # read by another, they are known all the same
    assert [s.role for s in p.storages] == ["input", "byproduct"]


def test_an_operation_has_one_rule() -> None:
    with pytest.raises(cspprof.core.errors.CspprofError, match=r"operation rule 'aten\.conv2d' is registered already"):
        op_rule("aten.conv2d")(lambda *args, **kwargs: Facts("conv"))
