from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.errors import PhaseError
from selftrain.evaluation.metrics import maj_at_k, majority_values, pass_at_k, sampled_values, summarise
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


def vote_among(right: Sequence[int], wrong: Sequence[int], num_samples: int, k: int) -> float:
    """The mean over all choices of k answers, one by one."""
    answers: list[tuple[bool, int] | None] = [(True, index) for index, count in enumerate(right) for _ in range(count)]
    answers += [(False, index) for index, count in enumerate(wrong) for _ in range(count)]
    answers += [None] * (num_samples - len(answers))
    shares = []
    for choice in itertools.combinations(answers, k):
        given = Counter(answer for answer in choice if answer is not None)
        winners = [answer for answer, votes in given.items() if votes == max(given.values())]
        shares.append(Fraction(sum(is_right for is_right, _ in winners), len(winners)) if winners else Fraction(0))
    return float(sum(shares) / len(shares))


def vote_by_counts(right: Sequence[int], wrong: Sequence[int], num_samples: int, k: int) -> float:
    """The same mean over all vectors of votes, each as often as it comes."""
    silent = num_samples - sum(right) - sum(wrong)
    total = Fraction(0)
    for votes in itertools.product(*(range(count + 1) for count in (*right, *wrong))):
        if k - silent <= sum(votes) <= k and (most := max(votes, default=0)):
            ways = math.prod(math.comb(count, given) for count, given in zip((*right, *wrong), votes, strict=True))
            share = Fraction(votes[: len(right)].count(most), votes.count(most))
            total += ways * math.comb(silent, k - sum(votes)) * share
    return float(total / math.comb(num_samples, k))


def partitions(total: int, largest: int) -> Iterator[tuple[int, ...]]:
    """All ways to give at most `total` answers, by how often each distinct one was given."""
    yield ()
    for first in range(min(total, largest), 0, -1):
        yield from ((first, *rest) for rest in partitions(total - first, first))


@pytest.mark.parametrize("num_samples", range(1, 7))
def test_maj_at_k_is_the_mean_over_all_choices_of_k_answers(num_samples: int) -> None:
    for right in partitions(num_samples, num_samples):
        for wrong in partitions(num_samples - sum(right), num_samples):
            for k in range(1, num_samples + 1):
                assert maj_at_k(right, wrong, num_samples, k) == pytest.approx(
                    vote_among(right, wrong, num_samples, k), abs=1e-12
                )


@pytest.mark.parametrize(
    ("right", "wrong", "num_samples"),
    [((12,), (9, 4), 30), ((5, 5), (6, 6, 2), 24), ((20,), (20,), 64), ((3,), (1,) * 9, 20), ((40,), (41,), 100)],
)
def test_maj_at_k_is_exact_for_more_answers(right: tuple[int, ...], wrong: tuple[int, ...], num_samples: int) -> None:
    for k in (2, 3, 4, 8, num_samples // 2, num_samples - 1, num_samples):
        assert maj_at_k(right, wrong, num_samples, k) == pytest.approx(
            vote_by_counts(right, wrong, num_samples, k), abs=1e-11
        )


def test_a_majority_of_one_is_pass_at_1_where_every_answer_was_extracted() -> None:
    assert maj_at_k([3, 2], [4, 1], 10, 1) == pytest.approx(pass_at_k(10, 5, 1)) == pytest.approx(0.5)


def test_a_vote_is_split_between_ties_and_won_by_the_most_frequent_answer() -> None:
    assert maj_at_k([3], [2, 2, 1], 8, 8) == 1.0
    assert maj_at_k([2], [3, 1], 6, 6) == 0.0
    assert maj_at_k([2], [2, 2], 6, 6) == pytest.approx(1 / 3)
    assert maj_at_k([2, 2], [2], 6, 6) == pytest.approx(2 / 3)
    assert maj_at_k([2, 2], [1], 5, 5) == 1.0


def test_answers_without_an_extracted_one_do_not_vote() -> None:
    assert maj_at_k([], [], 4, 2) == 0.0
    assert maj_at_k([1], [], 4, 4) == 1.0
    assert maj_at_k([1], [], 4, 2) == pytest.approx(0.5)  # 3 of the 6 pairs hold it
    assert maj_at_k([], [3], 4, 2) == 0.0


@given(st.lists(st.integers(1, 300), max_size=4), st.lists(st.integers(1, 300), max_size=6), st.data())
@settings(max_examples=40, deadline=None)
def test_maj_at_k_of_many_answers_is_a_chance(right: list[int], wrong: list[int], data: st.DataObject) -> None:
    votes = sum(right) + sum(wrong)
    num_samples = data.draw(st.integers(max(1, votes), votes + 50))
    k = data.draw(st.integers(1, min(num_samples, 200)))
    value = maj_at_k(right, wrong, num_samples, k)
    assert 0.0 <= value <= 1.0
    # One side's chance is the other's complement, where anybody votes.
    assert value + maj_at_k(wrong, right, num_samples, k) == pytest.approx(pass_at_k(num_samples, votes, k), abs=1e-9)


@pytest.mark.parametrize(
    ("right", "wrong", "num_samples", "k"), [([2], [3], 4, 1), ([1], [1], 2, 3), ([1], [], 1, 0), ([0], [1], 2, 1)]
)
def test_maj_at_k_that_cannot_be_estimated_is_refused(
    right: list[int], wrong: list[int], num_samples: int, k: int
) -> None:
    with pytest.raises(ValueError, match="cannot be estimated"):
        maj_at_k(right, wrong, num_samples, k)


def test_majorities_are_of_the_prompts_with_k_scored_answers() -> None:
    found = [Outcome("a", None, 4, 3, (2, 1), (1,)), Outcome("b", None, 1, 0, (), (1,)), Outcome("c", True, 0, 0)]
    assert majority_values(found, 1) == {"a": 0.75, "b": 0.0}
    assert majority_values(found, 4) == {"a": 1.0}
