from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.errors import PhaseError
from selftrain.evaluation.metrics import pass_at_k, sampled_values, summarise
from selftrain.records import Outcome


@pytest.mark.parametrize("num_samples", range(1, 8))
def test_pass_at_k_is_the_share_of_all_choices_of_k_answers_with_a_correct_one(num_samples: int) -> None:
    for num_correct, k in itertools.product(range(num_samples + 1), range(1, num_samples + 1)):
        choices = list(itertools.combinations([True] * num_correct + [False] * (num_samples - num_correct), k))
        assert pass_at_k(num_samples, num_correct, k) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_pass_at_k_of_all_answers_asks_whether_any_was_correct() -> None:
    assert [pass_at_k(8, correct, 8) for correct in (0, 1, 8)] == [0.0, 1.0, 1.0]


def test_pass_at_1_is_the_share_of_correct_answers() -> None:
    assert all(pass_at_k(10, correct, 1) == pytest.approx(correct / 10) for correct in range(11))


@given(st.integers(1, 5000), st.data())
def test_pass_at_k_is_exact_for_large_numbers(num_samples: int, data: st.DataObject) -> None:
    num_correct, k = data.draw(st.integers(0, num_samples)), data.draw(st.integers(1, num_samples))
    expected = 1 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)
    assert pass_at_k(num_samples, num_correct, k) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("num_samples", "num_correct", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 1), (0, 0, 1), (4, -1, 1)])
def test_pass_at_k_that_cannot_be_estimated_is_refused(num_samples: int, num_correct: int, k: int) -> None:
    with pytest.raises(ValueError, match="cannot be estimated"):
        pass_at_k(num_samples, num_correct, k)


OUTCOMES = [Outcome("a", True, 4, 2), Outcome("b", False, 4, 0), Outcome("c", None, 1, 1), Outcome("d", True, 2, 1)]


def test_the_summary_of_a_set_counts_unscored_prompts_apart_from_wrong_ones() -> None:
    metrics = summarise("test", OUTCOMES, truncated=1)
    low, high = metrics.pop("evaluate/test/pass@1_low"), metrics.pop("evaluate/test/pass@1_high")
    assert low < 2 / 3 < high
    assert metrics == {
        "evaluate/test/pass@1": pytest.approx(2 / 3),
        "evaluate/test/prompts": 4.0,
        "evaluate/test/unscored": 1.0,
        "evaluate/test/truncated": 1.0,
    }


def test_sampled_pass_at_k_is_of_the_prompts_with_k_scored_answers() -> None:
    assert sampled_values(OUTCOMES, 1) == {"a": 0.5, "b": 0.0, "c": 1.0, "d": 0.5}
    assert sampled_values(OUTCOMES, 2) == {"a": pytest.approx(5 / 6), "b": 0.0, "d": 1.0}
    assert sampled_values(OUTCOMES, 4) == {"a": 1.0, "b": 0.0}
    assert sampled_values(OUTCOMES, 5) == {}


def test_a_set_of_which_nothing_was_scored_has_no_figure() -> None:
    with pytest.raises(PhaseError, match="none of the 1 prompts of test"):
        summarise("test", [Outcome("a", None, 0, 0)], truncated=0)
