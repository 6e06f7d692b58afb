from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from groups import make_candidate
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.errors import PhaseError
from selftrain.evaluation import collapse
from selftrain.records import Candidate, Score


def judged(prompt_id: str, *rows: tuple[str, bool], num_tokens: int = 3) -> list[collapse.Judged]:
    candidates = [
        make_candidate(prompt_id, number, text, num_tokens=num_tokens) for number, (text, _) in enumerate(rows)
    ]
    return [(one, Score(one.id, float(right), right)) for one, (_, right) in zip(candidates, rows, strict=True)]


def kept(prompt_id: str, text: str, ids: tuple[int, ...]) -> Candidate:
    return Candidate("c", prompt_id, 0, 0, text, (1,), ids, "stop_token", 0, "policy", ())


def test_distinct_right_answers_are_counted_per_solved_prompt() -> None:
    many = judged("a", ("x = 1", True), ("X  =\n1 ", True), ("so x = 1", True), ("x = 2", False))
    one, unsolved = judged("b", ("5", True), ("5", True)), judged("c", ("6", False), ("7", False))
    key = "score/distinct_right_per_solved_prompt"
    assert collapse.of_right_answers([many, one, unsolved]) == {key: (2 + 1) / 2}
    assert collapse.of_right_answers([unsolved]) == {}


def test_lengths_are_told_apart_by_correctness() -> None:
    rows = [
        (make_candidate("a", length, "", num_tokens=length), Score("", 0.0, right))
        for length, right in [(1, True), (2, True), (3, True), (10, False), (20, False)]
    ]
    assert collapse.of_lengths(rows) == {
        "score/right_tokens_p50": 2.0,
        "score/right_tokens_p95": pytest.approx(2.9),
        "score/wrong_tokens_p50": 15.0,
        "score/wrong_tokens_p95": pytest.approx(19.5),
    }
    assert set(collapse.of_lengths(rows[:3])) == {"score/right_tokens_p50", "score/right_tokens_p95"}


def test_duplicates_are_counted_within_prompts_and_over_all() -> None:
    found = [kept("a", "x", (1, 2, 1, 2)), kept("a", "x", (1, 2)), kept("b", "x", (3,)), kept("b", "y", (2, 1))]
    assert collapse.of_duplication(found) == {
        "select/duplicate_rate": 1 - 3 / 4,
        "select/duplicate_text_rate": 1 - 2 / 4,
        "select/distinct_2": 2 / 5,  # 12 21 12, 12, none, 21
    }
    assert "select/distinct_2" not in collapse.of_duplication([kept("a", "x", (1,)), kept("a", "", ())])
    assert collapse.of_duplication([]) == {}


@given(st.lists(st.lists(st.integers(0, 3), max_size=6), max_size=12), st.integers(1, 8))
@settings(max_examples=100)
def test_bigrams_are_those_inside_the_sequences_however_they_are_split(ids: list[list[int]], chunk: int) -> None:
    bigrams = [pair for one in ids for pair in pairwise(one)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collapse, "CHUNK", chunk)
        metrics = collapse.of_duplication([kept("a", "x", tuple(one)) for one in ids])
    assert metrics.get("select/distinct_2") == (len(set(bigrams)) / len(bigrams) if bigrams else None)


def test_kl_is_the_mean_of_both_estimators_over_tokens_and_of_sums_over_candidates() -> None:
    policy, base = [[-1.0, -0.5], [-2.0], []], [[-2.0, -0.5], [-1.5], []]
    # d = 1, 0, -0.5
    assert collapse.of_kl_to_base(policy, base, "sample") == {
        "sample/drift_candidates": 3.0,
        "sample/kl_to_base_k1": pytest.approx(0.5 / 3),
        "sample/kl_to_base_k3": pytest.approx((math.exp(-1) + 0 + math.exp(0.5) - 1.5) / 3),
        "sample/kl_to_base_per_sequence": pytest.approx(0.5 / 3),
    }
    assert collapse.of_kl_to_base([[], []], [[], []], "sample") == {"sample/drift_candidates": 2.0}
    assert collapse.of_kl_to_base([], [], "sample") == {"sample/drift_candidates": 0.0}


def test_both_estimators_come_out_at_the_kl_of_two_known_distributions() -> None:
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.3, 0.3, 0.4])
    drawn = np.random.default_rng(0).choice(3, size=(20_000, 5), p=p)
    metrics = collapse.of_kl_to_base(np.log(p)[drawn].tolist(), np.log(q)[drawn].tolist(), "sample")
    kl = float((p * np.log(p / q)).sum())
    assert metrics["sample/kl_to_base_k1"] == pytest.approx(kl, rel=0.02)
    assert metrics["sample/kl_to_base_k3"] == pytest.approx(kl, rel=0.02)
    assert metrics["sample/kl_to_base_per_sequence"] == pytest.approx(5 * kl, rel=0.02)


def test_a_policy_that_is_the_base_model_has_no_kl() -> None:
    logprobs = [[-0.25, -3.0]] * 4
    metrics = collapse.of_kl_to_base(logprobs, logprobs, "sample")
    assert [value for key, value in metrics.items() if "kl" in key] == [0.0, 0.0, 0.0]


def test_a_token_that_the_policy_all_but_rules_out_does_not_overflow() -> None:
    metrics = collapse.of_kl_to_base([[-5000.0]], [[-0.1]], "sample")
    assert metrics["sample/kl_to_base_k1"] == pytest.approx(-4999.9)
    assert metrics["sample/kl_to_base_k3"] == pytest.approx(math.exp(collapse.MOST_NATS) - 1 - collapse.MOST_NATS)


def test_log_probabilities_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="not of the same tokens"):
        collapse.of_kl_to_base([[-1.0]], [[-1.0, -1.0]], "sample")
    with pytest.raises(PhaseError, match="1 of 2 log-probabilities are NaN or infinite"):
        collapse.of_kl_to_base([[-1.0, -1.0]], [[-1.0, -math.inf]], "sample")
