"""The page that puts other counters beside cspprof: it is what its generator writes from the committed results."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import metadata
from typing import Any

import pytest

import cspprof
from cspprof.metrics.conventions import conventions


@pytest.fixture
def comparison(script: Callable[[str], Any]) -> Any:
    pytest.importorskip("timm", reason="most of the networks come from timm")
    return script("docs/comparison")


@pytest.mark.slow
def test_the_page_is_current(comparison: Any) -> None:
    assert comparison.main(["--check"]) == 0, "run: python docs/comparison.py"


def test_the_results_of_cspprof_are_those_of_the_benchmark(comparison: Any, script: Callable[[str], Any]) -> None:
    run, counters = script("benchmarks/run"), comparison.results()
    assert {model: results["cspprof"]["macs"] for model, results in counters.items()} == run.MACS
    assert set(comparison.RULES) < set(run.PEERS)


def test_cspprof_counts_each_probe_as_by_hand(comparison: Any, script: Callable[[str], Any]) -> None:
    probes, document = script("benchmarks/probes"), json.loads(comparison.PROBES.read_text())
    assert document["cases"] == {n: {"title": c.title, "macs": c.macs} for n, c in probes.CASES.items()}
    for name, case in probes.CASES.items():
        model = probes.Probe(case.forward, case.layer())
        assert cspprof.profile(model, probes.SHAPE).total("macs") == case.macs, name
        assert document["tools"]["cspprof"][name] == {"macs": case.macs}


def test_the_number_of_required_packages_is_that_of_the_release(comparison: Any) -> None:
    needs = [n for n in metadata.requires("cspprof") or () if "extra ==" not in n and not n.startswith("torch>")]
    assert comparison.FEATURES["packages that it requires besides torch"][0] == str(len(needs))


SIZES = {("torchprofile", "multihead"): 4}
"""MACs of products of sizes, such as batch × heads, which a TorchScript graph computes with tensors and a record does
not have."""


def test_the_rules_for_other_tools_give_what_these_print_for_the_probes(
    comparison: Any, script: Callable[[str], Any]
) -> None:
    probes, printed = script("benchmarks/probes"), json.loads(comparison.PROBES.read_text())["tools"]
    unknown = set()
    for name, case in probes.CASES.items():
        profile = cspprof.profile(probes.Probe(case.forward, case.layer()).eval(), probes.SHAPE)
        for tool, rule in comparison.RULES.items():
            value = comparison.rule_value(conventions()[rule], profile)
            if value is None:
                unknown.add((tool, name))
            else:
                assert value == printed[tool][name]["macs"] - SIZES.get((tool, name), 0), (tool, name)
    assert unknown == {("ptflops", "product"), ("ptflops", "lstm"), ("thop", "lstm")}
