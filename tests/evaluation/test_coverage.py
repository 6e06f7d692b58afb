from __future__ import annotations

import pytest

from selftrain.evaluation.coverage import LARGEST_K, of_difficulty, of_fan, of_solved, votes
from selftrain.records import Score


def score(answer: str | None, correct: bool = False) -> Score:
    return Score("c", float(correct), correct, answer)


def test_in_the_first_round_every_solved_prompt_is_new_and_nothing_can_grow() -> None:
    assert of_solved({"a": True, "b": False, "c": True, "d": False}, {}) == {
        "score/prompts": 4.0,
        "score/prompts_newly_solved": 2.0,
        "score/prompts_newly_solved_rate": 0.5,
        "score/prompts_asked_before_rate": 0.0,
        "score/coverage_cumulative": 0.5,
    }


def test_a_round_that_asks_no_new_prompts_has_a_growth_of_coverage() -> None:
    before = {"a": True, "b": False, "c": False, "d": True, "e": False}
    # a is lost again, which does not make it unsolved; c is solved at last; d and e are not asked.
    metrics = of_solved({"a": False, "b": False, "c": True}, before)
    assert metrics["score/prompts_newly_solved"] == 1.0
    assert metrics["score/prompts_newly_solved_rate"] == pytest.approx(1 / 3)
    assert metrics["score/prompts_asked_before_rate"] == 1.0
    assert metrics["score/coverage_cumulative"] == pytest.approx(3 / 5)
    assert metrics["score/coverage_growth"] == pytest.approx(3 / 5 - 2 / 5)


def test_a_prompt_that_was_never_asked_leaves_growth_undefined() -> None:
    metrics = of_solved({"a": True, "new": True}, {"a": False})
    assert metrics["score/prompts_asked_before_rate"] == 0.5
    assert metrics["score/coverage_cumulative"] == 1.0
    assert "score/coverage_growth" not in metrics
    assert of_solved({}, {"a": True}) == {}


def test_a_prompt_is_in_the_quarter_whose_upper_bound_it_reaches() -> None:
    counts = [(4, 0), (4, 1), (4, 2), (4, 3), (4, 4), (3, 1), (3, 2), (100, 99), (100, 1), (1, 0)]
    assert of_difficulty(counts) == {
        "score/pass_rate/0": 0.2,
        "score/pass_rate/0_25": 0.2,
        "score/pass_rate/25_50": 0.2,
        "score/pass_rate/50_75": 0.2,
        "score/pass_rate/75_100": 0.1,
        "score/pass_rate/100": 0.1,
    }
    assert of_difficulty([]) == {}


def test_the_fan_goes_up_in_doublings_over_the_prompts_with_so_many_candidates() -> None:
    four = [score("7", True), score("7", True), score("8"), score("9")]
    two = [score("8"), score("8")]
    assert of_fan([four, two]) == {
        "score/pass@1": pytest.approx((1 / 2 + 0) / 2),
        "score/maj@1": pytest.approx((1 / 2 + 0) / 2),
        # Of the 6 pairs: {7, 7} is right, four of {7, other} are ties, {8, 9} is wrong.
        "score/pass@2": pytest.approx((5 / 6 + 0) / 2),
        "score/maj@2": pytest.approx(((1 + 4 / 2) / 6 + 0) / 2),
        "score/pass@4": 1.0,
        "score/maj@4": 1.0,
    }


def test_prompts_with_equal_counts_are_each_counted() -> None:
    right, wrong = [score("7", True)], [score("8")]
    assert of_fan([right, right, right, wrong])["score/pass@1"] == 0.75


def test_without_extracted_answers_there_is_no_majority() -> None:
    assert of_fan([[score(None, True), score(None)]]) == {"score/pass@1": 0.5, "score/pass@2": 1.0}
    assert of_fan([]) == {}


def test_the_fan_ends_at_the_largest_k() -> None:
    keys = of_fan([[score("7", True)] * (4 * LARGEST_K)]).keys()
    assert {f"score/pass@{LARGEST_K}", f"score/maj@{LARGEST_K}"} <= keys
    assert f"score/pass@{2 * LARGEST_K}" not in keys


def test_votes_count_each_distinct_answer_and_one_that_was_right_once_is_right() -> None:
    scores = [score("7", True), score("8"), score("7"), score(None), score("9"), score("8"), score("7.0", True)]
    assert votes(scores) == ((2, 1), (2, 1))
    assert votes([]) == ((), ())
