from __future__ import annotations

import itertools
import math
import random
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom, binom, multinomial

from selftrain.errors import DataError
from selftrain.evaluation.metrics import pass_at_k
from selftrain.evaluation.statistics import Interval, interval_of_mean, paired_difference, unpaired_difference

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
    assert one.high == pytest.approx(0.1718, abs=5e-5)
    # Its lower bound, 0.0061, is what Brown, Cai and DasGupta 2001 replace by the one-sided Poisson bound.
    assert one.low == pytest.approx(-math.log(0.95) / 29)
    four = interval_of_mean([1.0] * 4 + [0.0] * 46)
    assert (four.low, four.high) == (pytest.approx(0.0315, abs=5e-5), pytest.approx(0.1884, abs=5e-5))


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
    interval_of_mean(values, resamples=400)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # All at once, the resamples would take 64 MB.
    assert peak < 32_000_000


def test_prompts_on_one_side_alone_are_refused_or_counted() -> None:
    first, second = {"a": 1.0, "b": 0.0, "c": 1.0}, {"a": 1.0, "b": 1.0, "d": 0.0}
    with pytest.raises(DataError, match="2 are on one side alone, such as c"):
        paired_difference(first, second)
    interval = paired_difference(first, second, unmatched="leave_out")
    assert (interval.estimate, interval.num_prompts, interval.left_out) == (-0.5, 2, 2)


def test_an_unpaired_difference_is_that_of_newcombe_or_a_little_wider() -> None:
    # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10.
    many = unpaired_difference([1.0] * 56 + [0.0] * 14, [1.0] * 48 + [0.0] * 32)
    assert (many.low, many.high) == (pytest.approx(0.0524, abs=0.01), pytest.approx(0.3339, abs=0.01))
    few = unpaired_difference([1.0] * 9 + [0.0], [1.0] * 3 + [0.0] * 7)
    assert few.low == pytest.approx(0.1705, abs=5e-5)
    # One wrong answer of ten bounds its own side less closely than Wilson's interval, which Newcombe takes, would.
    assert 0.8090 < few.high < 0.85
    assert (few.method, few.num_prompts) == ("unpaired", 20)


def test_unpaired_sides_leave_more_doubt_than_the_same_prompts_do() -> None:
    first, second = [1.0] * 120 + [0.0] * 80, [1.0] * 100 + [0.0] * 100
    apart, together = unpaired_difference(first, second), paired_difference(by_prompt(first), by_prompt(second))
    assert apart.estimate == pytest.approx(together.estimate) == pytest.approx(0.1)
    assert apart.high - apart.low > 2 * (together.high - together.low)
    mirrored = unpaired_difference(second, first)
    assert (-mirrored.high, -mirrored.low) == (pytest.approx(apart.low), pytest.approx(apart.high))


def test_differences_of_parts_of_a_prompt_that_are_few_have_an_interval_on_the_wide_side() -> None:
    # Means over three seeds: 5 of 100 prompts went up by a third.
    first, second = by_prompt([1 / 3] * 5 + [0.0] * 95), by_prompt([0.0] * 100)
    interval = paired_difference(first, second)
    assert (interval.method, interval.estimate) == ("paired score", pytest.approx(5 / 300))
    assert interval.low < 0.017 - 1.96 * 0.0073 < interval.estimate + 1.96 * 0.0073 < interval.high


def test_what_has_no_interval_is_refused() -> None:
    with pytest.raises(DataError, match="at least one scored prompt"):
        interval_of_mean([])
    with pytest.raises(DataError, match=r"values in \[0, 1\]"):
        interval_of_mean([0.5, 1.5])
    with pytest.raises(DataError, match=r"values in \[0, 1\]"):
        interval_of_mean([0.5, float("nan")])
    with pytest.raises(DataError, match="there are none"):
        paired_difference({"a": 1.0}, {"b": 1.0}, unmatched="leave_out")


# Coverage: how often an interval holds the truth. Right and wrong outcomes have so few possible counts that it is
# computed and not drawn: each count's interval, weighted by the chance of that count. What is left out of the sums
# weighs less than 0.5 %.

NEGLIGIBLE = 1e-5
RARE = "so few prompts differ from the others that nearly all that can happen is held"
LUMPY = "the counts that the bounds may lie between are far apart, and this rate is just inside one of them"


@dataclass(frozen=True)
class Scenario:
    """A truth, what a 95 % interval of it is measured to hold, and, where that is not 93 to 97 %, why not."""

    of: Callable[..., float]
    sizes: tuple[int, ...]
    rates: tuple[float, ...]
    holds: float
    why: str = ""

    def __str__(self) -> str:
        return f"{self.of.__name__} of {self.sizes} prompts, {self.rates}"


def mean(sizes: tuple[int, ...], rates: tuple[float, ...]) -> float:
    """`rates`: of right answers."""
    (size,), (rate,) = sizes, rates
    found = 0.0
    for right in range(size + 1):
        chance = float(binom.pmf(right, size, rate))
        if chance > NEGLIGIBLE:
            interval = interval_of_mean([1.0] * right + [0.0] * (size - right))
            found += chance * (interval.low <= rate <= interval.high)
    return found


def paired(sizes: tuple[int, ...], rates: tuple[float, ...]) -> float:
    """`rates`: of prompts that only the first side has right, and that only the second has. All others are ties."""
    (size,), (gained, lost) = sizes, rates
    found = 0.0
    for more, fewer in itertools.product(range(size + 1), repeat=2):
        if more + fewer > size:
            continue
        chance = float(multinomial.pmf([more, fewer, size - more - fewer], size, [gained, lost, 1 - gained - lost]))
        if chance > NEGLIGIBLE:
            interval = pairs(more, fewer, size)
            found += chance * (interval.low - 1e-12 <= gained - lost <= interval.high + 1e-12)
    return found


def unpaired(sizes: tuple[int, ...], rates: tuple[float, ...]) -> float:
    """`rates`: of right answers on each side, which have prompts of their own."""
    found = 0.0
    for counts in itertools.product(*(range(size + 1) for size in sizes)):
        of_sides = list(zip(counts, sizes, rates, strict=True))
        chance = math.prod(float(binom.pmf(count, size, rate)) for count, size, rate in of_sides)
        if chance > NEGLIGIBLE:
            first, second = ([1.0] * count + [0.0] * (size - count) for count, size, _ in of_sides)
            interval = unpaired_difference(first, second)
            found += chance * (interval.low <= rates[0] - rates[1] <= interval.high)
    return found


FAST = [
    Scenario(mean, (20,), (0.5,), 0.959),
    Scenario(mean, (20,), (0.3,), 0.975, LUMPY),
    Scenario(mean, (20,), (0.02,), 0.993, RARE),
    Scenario(mean, (30,), (0.1,), 0.974, LUMPY),
    Scenario(mean, (30,), (0.3,), 0.963),
    Scenario(mean, (50,), (0.1,), 0.992, LUMPY),
    Scenario(mean, (50,), (0.5,), 0.967),
    Scenario(mean, (50,), (0.02,), 0.982, RARE),
    Scenario(mean, (50,), (0.98,), 0.982, RARE),
    Scenario(mean, (200,), (0.3,), 0.955),
    Scenario(mean, (200,), (0.02,), 0.938),
    Scenario(mean, (200,), (0.98,), 0.938),
    Scenario(mean, (1000,), (0.02,), 0.950),
    Scenario(mean, (1000,), (0.98,), 0.950),
    Scenario(paired, (20,), (0.2, 0.05), 0.969),
    Scenario(paired, (20,), (0.02, 0.0), 1.0, RARE),
    Scenario(paired, (30,), (0.1, 0.1), 0.952),
    Scenario(paired, (50,), (0.05, 0.05), 0.953),
    Scenario(paired, (50,), (0.01, 0.01), 0.998, RARE),
    Scenario(unpaired, (20, 30), (0.5, 0.4), 0.954),
    Scenario(unpaired, (20, 30), (0.02, 0.02), 1.0, RARE),
]
SLOW = [
    Scenario(paired, (30,), (0.2, 0.05), 0.941),
    Scenario(paired, (50,), (0.2, 0.05), 0.958),
    Scenario(paired, (50,), (0.4, 0.02), 0.963),
    Scenario(paired, (50,), (0.3, 0.3), 0.959),
    Scenario(paired, (200,), (0.2, 0.05), 0.957),
    Scenario(paired, (200,), (0.1, 0.1), 0.959),
    Scenario(paired, (200,), (0.4, 0.02), 0.954),
    Scenario(paired, (100,), (0.3, 0.3), 0.957),
    Scenario(paired, (200,), (0.02, 0.0), 0.938),
    Scenario(paired, (200,), (0.01, 0.01), 0.958),
    Scenario(unpaired, (50, 50), (0.5, 0.4), 0.947),
    Scenario(unpaired, (50, 50), (0.1, 0.05), 0.973, LUMPY),
    Scenario(unpaired, (50, 50), (0.02, 0.02), 0.998, RARE),
    Scenario(unpaired, (50, 50), (0.98, 0.9), 0.982, LUMPY),
    Scenario(unpaired, (40, 100), (0.5, 0.4), 0.948),
]


@pytest.mark.parametrize("scenario", [*FAST, *(pytest.param(one, marks=pytest.mark.slow) for one in SLOW)], ids=str)
def test_a_95_percent_interval_holds_the_truth_93_to_97_times_in_100_or_more_often_for_a_reason(
    scenario: Scenario,
) -> None:
    assert scenario.of(scenario.sizes, scenario.rates) == pytest.approx(scenario.holds, abs=0.006)
    assert scenario.holds > 0.97 if scenario.why else 0.93 <= scenario.holds <= 0.97


@pytest.mark.parametrize("size", [20, 30, 50, 100, 200])
def test_there_is_no_rate_at_which_an_interval_of_a_mean_holds_the_truth_less_than_92_times_in_100(size: int) -> None:
    # Whatever the bounds, the coverage jumps as the rate passes one of them; 92 is where the worst rate ends up.
    intervals = [interval_of_mean([1.0] * right + [0.0] * (size - right)) for right in range(size + 1)]
    rates = np.concatenate([np.linspace(0.001, 0.05, 200), np.linspace(0.05, 0.5, 451)])
    chances = binom.pmf(np.arange(size + 1)[:, None], size, rates)
    holds = [[one.low <= rate <= one.high for rate in rates] for one in intervals]
    coverage = (chances * np.array(holds)).sum(axis=0)
    assert coverage.min() >= 0.92
    assert 0.95 <= coverage.mean() <= 0.97


def drawn_coverage(size: int, trials: int, solved: float) -> float:
    """Of the mean of pass@4 from 8 answers per prompt, the prompts' rates spread out (beta) around `solved`."""
    generator = np.random.default_rng(7)
    values = np.array([pass_at_k(8, right, 4) for right in range(9)])
    weights = betabinom.pmf(np.arange(9), 8, 0.5 * solved, 0.5 * (1 - solved))
    truth = float(weights @ values)
    counts = generator.choice(9, size=(trials, size), p=weights / weights.sum())
    intervals = [interval_of_mean(values[row], resamples=1000) for row in counts]
    return sum(one.low <= truth <= one.high for one in intervals) / trials


@pytest.mark.parametrize(
    ("size", "solved"),
    [(50, 0.3), (200, 0.3), (200, 0.05)],
)
@pytest.mark.slow
def test_a_95_percent_interval_of_pass_at_k_holds_the_truth_93_to_97_times_in_100(size: int, solved: float) -> None:
    # 2000 trials of a true 95 % have a standard deviation of 0.5 points.
    assert 0.93 <= drawn_coverage(size, 2000, solved) <= 0.97
