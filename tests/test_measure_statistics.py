"""Medians, intervals, warm-up and the least difference of a session: exact values."""

from __future__ import annotations

import pytest

from cspprof.measure.statistics import (
    Estimate,
    is_difference,
    is_warm,
    least,
    least_difference,
    median_estimate,
    median_of,
    ratio_estimate,
)

ROUNDS = [[1.0, 2.0, 3.0], [2.0, 4.0], [3.0, 5.0, 7.0, 9.0]]


def test_the_median_and_the_minimum_are_those_of_all_samples() -> None:
    assert median_of(ROUNDS) == 3.0
    assert median_of([[1.0, 2.0], [3.0, 4.0]]) == 2.5
    assert least(ROUNDS) == 1.0
    with pytest.raises(ValueError, match="no samples"):
        median_of([[], []])


def test_equal_samples_have_an_interval_of_width_0() -> None:
    assert median_estimate([[2.0] * 5] * 3) == Estimate(2.0, 2.0, 2.0)
    assert ratio_estimate([[2.0] * 5] * 3, [[3.0] * 4] * 3) == Estimate(1.5, 1.5, 1.5)


def test_a_fixed_seed_gives_a_fixed_interval() -> None:
    assert median_estimate(ROUNDS) == median_estimate(ROUNDS) == Estimate(*MEDIAN)
    assert median_estimate(ROUNDS, seed=1).value == MEDIAN[0]
    assert ratio_estimate(ROUNDS, [[2 * t for t in samples] for samples in ROUNDS]).value == 2.0


MEDIAN = (3.0, 2.0, 7.0)


def test_an_interval_contains_its_value() -> None:
    for seed in range(5):
        estimate = median_estimate([[1.0, 1.1, 1.3], [1.2, 1.0, 1.4]], seed)
        assert estimate.low <= estimate.value <= estimate.high


def test_one_round_gives_an_interval_of_its_samples() -> None:
    estimate = median_estimate([[1.0, 2.0, 3.0, 4.0, 5.0]])
    assert (estimate.value, estimate.low >= 1.0, estimate.high <= 5.0, estimate.low < estimate.high) == (
        3.0, True, True, True,
    )  # fmt: skip


def test_a_change_of_the_machine_between_rounds_does_not_widen_the_interval_of_a_ratio() -> None:
    """Round 2 is twice as slow for both models: their ratio is 1.5 in each round."""
    base = [[1.0] * 5, [2.0] * 5, [1.0] * 5]
    other = [[1.5] * 5, [3.0] * 5, [1.5] * 5]
    assert ratio_estimate(base, other) == Estimate(1.5, 1.5, 1.5)
    assert median_estimate(base).high == 2.0


def test_rounds_that_only_one_model_has_are_left_out_of_a_ratio() -> None:
    assert ratio_estimate([[1.0], [1.0], [9.0]], [[2.0], [2.0]]) == Estimate(2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("times", "warm"),
    [
        ([1.0] * 5, False),  # the two windows of three runs need six
        ([1.0] * 6, True),
        ([9.0, 5.0, 3.0] + [1.0] * 3, False),
        ([9.0, 5.0, 3.0] + [1.0] * 6, True),
        ([1.0] * 3 + [1.04] * 3, True),  # the tolerance is 5 %
        ([1.0] * 3 + [1.06] * 3, False),
        ([1.06] * 3 + [1.0] * 3, False),
        ([1.0, 50.0, 1.0, 1.0, 1.0, 70.0], True),  # medians ignore single slow runs
        ([], False),
    ],
)
def test_a_warm_up_ends_when_the_medians_of_two_windows_agree(times: list[float], warm: bool) -> None:
    assert is_warm(times) is warm


@pytest.mark.parametrize(
    ("same", "expected"),
    [
        (Estimate(1.0, 1.0, 1.0), 0.0),
        (Estimate(1.01, 0.98, 1.03), 0.03),
        (Estimate(0.97, 0.95, 1.01), 0.05),
        (Estimate(1.02, 1.01, 1.02), 0.02),
    ],
)
def test_the_least_difference_is_the_largest_distance_of_the_pair_of_equal_models(
    same: Estimate, expected: float
) -> None:
    assert least_difference(same) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ratio", "tolerance", "differs"),
    [
        (Estimate(0.80, 0.78, 0.82), 0.03, True),
        (Estimate(1.20, 1.15, 1.25), 0.03, True),
        (Estimate(0.80, 0.60, 1.01), 0.03, False),  # the interval contains 1
        (Estimate(0.98, 0.97, 0.99), 0.03, False),  # closer to 1 than the A/A pair
        (Estimate(0.75, 0.7, 0.8), 0.25, False),  # exactly at the limit
        (Estimate(1.0, 1.0, 1.0), 0.0, False),
    ],
)
def test_a_difference_is_claimed_only_outside_the_interval_and_the_tolerance(
    ratio: Estimate, tolerance: float, differs: bool
) -> None:
    assert is_difference(ratio, tolerance) is differs


def test_the_half_width_is_relative_to_the_value() -> None:
    assert Estimate(2.0, 1.5, 2.5).half_width == 0.25
    assert Estimate(0.0, 0.0, 0.0).half_width == 0.0
