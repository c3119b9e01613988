"""The page of oracles: its counts are current, and every test and file that it names exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import CHECKOUT

import cspprof


@pytest.fixture
def fidelity(script: Callable[[str], Any]) -> Any:
    return script("docs/fidelity")


def test_the_page_is_current(fidelity: Any) -> None:
    assert fidelity.main(["--check"]) == 0, "run: python docs/fidelity.py"


def test_every_test_and_script_that_the_page_names_exists(fidelity: Any) -> None:
    for oracles in fidelity.families().values():
        for entry in (entry for oracle in oracles for entry in oracle.reproduce):
            file, _, test = entry.partition("::")
            if entry.startswith("test_"):
                assert not test or test in fidelity.functions(file), entry
            elif not entry.startswith("cspprof "):
                assert (CHECKOUT / entry.split()[0]).is_file(), entry


def test_counts_of_lists_are_those_of_the_tests(fidelity: Any) -> None:
    import test_training

    assert fidelity.length("test_training.py", "OPERATIONS") == len(test_training.OPERATIONS)
    assert fidelity.zoo() == len(test_training.ZOO)
    with pytest.raises(ValueError, match="cannot be counted"):
        fidelity.length("test_zoo.py", "TWINS")


def test_a_count_that_does_not_exist_is_an_error(fidelity: Any) -> None:
    with pytest.raises(KeyError):
        fidelity.filled("{list test_zoo.py NO_SUCH_LIST}")
    with pytest.raises(LookupError):
        fidelity.filled("{page docs/index.md no such text (x)}")


def test_every_network_far_from_its_measured_peak_has_a_reason(fidelity: Any) -> None:
    compared = fidelity.comparisons()
    assert {spec for spec, (difference, reason) in compared.items() if abs(difference) > 0.05 and not reason} == set()
    assert set((CHECKOUT / "cspprof" / "data" / "zoo_names.txt").read_text().split()) <= set(compared)


def test_a_committed_count_is_that_of_a_new_trace(fidelity: Any) -> None:
    pytest.importorskip("timm", reason="the extra timm is not installed")
    committed = {row["architecture"]: int(row["macs"]) for row in fidelity.table(fidelity.TIMM)}
    assert cspprof.profile("timm:mobilenetv3_small_050").total("macs") == committed["mobilenetv3_small_050"]
