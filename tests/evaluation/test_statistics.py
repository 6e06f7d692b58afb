from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.errors import DataError
from selftrain.evaluation.statistics import Interval, interval_of_mean, paired_difference

FEW_RESAMPLES = 400


def by_prompt(values: list[float]) -> dict[str, float]:
    return {f"p{number:04}": value for number, value in enumerate(values)}


def pairs(gained: int, lost: int, size: int) -> Interval:
    """The difference of two sides that differ on `gained` and `lost` prompts and are both right on the others."""
    first = [1.0] * gained + [0.0] * lost + [1.0] * (size - gained - lost)
    second = [0.0] * gained + [1.0] * lost + [1.0] * (size - gained - lost)
    return paired_difference(by_prompt(first), by_prompt(second))


def test_outcomes_that_are_all_equal_have_the_score_interval() -> None:
    z2 = 1.959963984540054**2
    right, wrong = interval_of_mean([1.0] * 50), interval_of_mean([0.0] * 50)
    assert (right.estimate, right.high, right.method) == (1.0, 1.0, "score")
    assert right.low == pytest.approx(50 / (50 + z2))
    assert (wrong.estimate, wrong.low) == (0.0, 0.0)
    assert wrong.high == pytest.approx(z2 / (50 + z2))


def test_few_right_answers_have_the_score_interval_of_wilson() -> None:
    # Newcombe 1998, Statistics in Medicine 17:857, table I: 1 of 29.
    one = interval_of_mean([1.0] + [0.0] * 28)
    assert (one.low, one.high) == (pytest.approx(0.0061, abs=5e-5), pytest.approx(0.1718, abs=5e-5))


def test_few_discordant_pairs_have_the_score_interval_of_tango() -> None:
    # Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33:2850: 1 and 7 discordant of 21 pairs.
    interval = pairs(1, 7, 21)
    assert interval.method == "paired score"
    assert (interval.low, interval.high) == (pytest.approx(-0.517, abs=1e-3), pytest.approx(-0.026, abs=1e-3))


def test_no_discordant_pairs_leave_an_interval_around_zero() -> None:
    interval = pairs(0, 0, 200)
    z2 = 1.959963984540054**2
    assert interval.estimate == 0.0
    assert interval.high == pytest.approx(z2 / (200 + z2)) == pytest.approx(-interval.low)


@pytest.mark.parametrize("size", [1, 2, 9, 10, 300])
def test_pairs_that_all_differ_alike_leave_an_interval_below_one(size: int) -> None:
    interval = pairs(size, 0, size)
    assert interval.estimate == 1.0
    assert -1.0 <= interval.low < 1.0
    assert interval.high == pytest.approx(1.0)


VALUES = st.one_of(
    st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=40),
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
    st.tuples(st.floats(0, 1), st.integers(1, 20)).map(lambda pair: [pair[0]] * pair[1]),
)


@given(VALUES)
@settings(max_examples=60)
def test_an_interval_of_a_mean_has_width_and_holds_the_estimate(values: list[float]) -> None:
    interval = interval_of_mean(values, resamples=FEW_RESAMPLES)
    assert 0.0 <= interval.low <= interval.high <= 1.0
    assert interval.low - 1e-12 <= interval.estimate <= interval.high + 1e-12
    if len({round(value, 6) for value in values}) == 1:
        assert interval.high - interval.low > 1e-6
    assert interval == interval_of_mean(values[::-1], resamples=FEW_RESAMPLES)


@given(VALUES, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_swapping_the_sides_mirrors_a_difference_and_pairs_are_found_by_prompt(
    values: list[float], shuffler: random.Random
) -> None:
    first, second = by_prompt(values), by_prompt(shuffler.sample(values, len(values)))
    interval = paired_difference(first, second, resamples=FEW_RESAMPLES)
    mirrored = paired_difference(dict(reversed(second.items())), first, resamples=FEW_RESAMPLES)
    assert mirrored.estimate == pytest.approx(-interval.estimate)
    assert (-mirrored.high, -mirrored.low) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert interval.high >= interval.low
    if first == second:
        assert interval.high > 0 > interval.low


def test_a_bootstrap_interval_is_that_of_the_normal_approximation_for_many_prompts() -> None:
    interval = interval_of_mean([1.0] * 300 + [0.0] * 700)
    half = 1.96 * (0.3 * 0.7 / 1000) ** 0.5
    assert interval.method == "bootstrap"
    assert (interval.low, interval.high) == (pytest.approx(0.3 - half, abs=2e-3), pytest.approx(0.3 + half, abs=2e-3))


def test_a_difference_of_correlated_sides_is_narrower_than_of_independent_ones() -> None:
    right = [1.0] * 100 + [0.0] * 100
    same = paired_difference(by_prompt([1.0] * 20 + right[:180]), by_prompt(right))
    mixed = paired_difference(by_prompt([1.0, 0.0] * 100), by_prompt(right))
    assert same.high - same.low < mixed.high - mixed.low
    assert {same.method, mixed.method} == {"paired bootstrap"}


def test_the_seed_decides_the_resamples() -> None:
    values = [float(number) for number in np.random.default_rng(0).random(50)]
    assert interval_of_mean(values, seed=1) == interval_of_mean(values, seed=1)
    assert interval_of_mean(values, seed=1) != interval_of_mean(values, seed=2)


def test_a_large_set_is_resampled_in_bounded_memory() -> None:
    values = np.random.default_rng(0).random(20_000)
    tracemalloc.start()
    interval_of_mean(values, resamples=1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # All at once, the indices and values alone would take 320 MB.
    assert peak < 64_000_000


def test_prompts_on_one_side_alone_are_refused_or_counted() -> None:
    first, second = {"a": 1.0, "b": 0.0, "c": 1.0}, {"a": 1.0, "b": 1.0, "d": 0.0}
    with pytest.raises(DataError, match="2 are on one side alone, such as c"):
        paired_difference(first, second)
    interval = paired_difference(first, second, unmatched="leave_out")
    assert (interval.estimate, interval.num_prompts, interval.left_out) == (-0.5, 2, 2)


def test_what_has_no_interval_is_refused() -> None:
    with pytest.raises(DataError, match="at least one scored prompt"):
        interval_of_mean([])
    with pytest.raises(DataError, match=r"values in \[0, 1\]"):
        interval_of_mean([0.5, 1.5])
    with pytest.raises(DataError, match=r"values in \[0, 1\]"):
        interval_of_mean([0.5, float("nan")])
    with pytest.raises(DataError, match="there are none"):
        paired_difference({"a": 1.0}, {"b": 1.0}, unmatched="leave_out")


def coverage(draw: Callable[[np.random.Generator], Interval], truth: float, trials: int) -> float:
    generator = np.random.default_rng(7)
    intervals = [draw(generator) for _ in range(trials)]
    return sum(one.low <= truth <= one.high for one in intervals) / trials


def share(probability: float, size: int = 200) -> Callable[[np.random.Generator], Interval]:
    return lambda generator: interval_of_mean((generator.random(size) < probability).astype(float), resamples=1000)


def difference(gained: float, lost: float, size: int = 200) -> Callable[[np.random.Generator], Interval]:
    """Sides that differ on few prompts: their correlation is high."""

    def draw(generator: np.random.Generator) -> Interval:
        u, base = generator.random(size), generator.random(size) < 0.5
        first = np.where(u < gained, True, np.where(u < gained + lost, False, base))
        second = np.where(u < gained, False, np.where(u < gained + lost, True, base))
        sides = (by_prompt([float(value) for value in side]) for side in (first, second))
        return paired_difference(*sides, resamples=1000)

    return draw


def test_a_95_percent_interval_of_a_share_holds_the_truth_about_95_times_in_100() -> None:
    # 600 trials of a true 95 % have a standard deviation of 0.9 points.
    assert 0.92 <= coverage(share(0.3), 0.3, 600) <= 0.98


def test_a_95_percent_interval_of_a_paired_difference_holds_the_truth_about_95_times_in_100() -> None:
    assert 0.92 <= coverage(difference(0.2, 0.05), 0.15, 600) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("probability", [0.3, 0.7])
def test_the_coverage_of_a_share_is_within_93_to_97_percent(probability: float) -> None:
    assert 0.93 <= coverage(share(probability), probability, 4000) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("gained", "lost"), [(0.2, 0.05), (0.1, 0.1), (0.4, 0.02)])
def test_the_coverage_of_a_paired_difference_is_within_93_to_97_percent(gained: float, lost: float) -> None:
    assert 0.93 <= coverage(difference(gained, lost), gained - lost, 4000) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("probability", "size"), [(0.5, 20), (0.2, 50), (0.05, 50), (0.02, 200), (0.98, 200)])
def test_the_coverage_of_a_small_set_or_a_rare_success_stays_above_92_percent(probability: float, size: int) -> None:
    assert coverage(share(probability, size), probability, 4000) >= 0.92
