"""Best-of-k and AUC against the definitions, counted out."""

from __future__ import annotations

from itertools import combinations, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.evaluation.best_of_k import PREFIX, Ranked, auc, best_of_k, of_ranked, sentences
from selftrain.evaluation.metrics import pass_at_k
from selftrain.records import Outcome

SETTINGS = {"confidence": 0.95, "resamples": 500, "seed": 0}
# Few different scores, so that there are ties.
answers = st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=6)


def counted_out(rows: list[tuple[bool, int]], k: int) -> float:
    """Every choice of k answers, and of those every order: the first of the highest ones is taken."""
    found = []
    for chosen in combinations(rows, k):
        for order in permutations(chosen):
            found.append(max(order, key=lambda row: row[1])[0])
    return sum(found) / len(found)


@settings(max_examples=150, deadline=None)
@given(answers, st.integers(1, 6))
def test_best_of_k_is_the_mean_over_all_choices_of_k_and_all_orders_of_ties(
    rows: list[tuple[bool, int]], k: int
) -> None:
    k = min(k, len(rows))
    right, scores = zip(*rows, strict=True)
    assert best_of_k(right, scores, k) == pytest.approx(counted_out(rows, k), abs=1e-12)


@given(answers, st.integers(1, 6))
def test_no_choice_beats_pass_at_k_and_a_score_that_says_nothing_gives_pass_at_1(
    rows: list[tuple[bool, int]], k: int
) -> None:
    k = min(k, len(rows))
    right, scores = zip(*rows, strict=True)
    ceiling = pass_at_k(len(rows), sum(right), k)
    assert best_of_k(right, scores, k) <= ceiling + 1e-12
    assert best_of_k(right, right, k) == pytest.approx(ceiling)
    assert best_of_k(right, [1.0] * len(rows), k) == pytest.approx(sum(right) / len(right))
    assert best_of_k(right, scores, 1) == pytest.approx(sum(right) / len(right))


def test_of_many_answers_nothing_overflows() -> None:
    right = [index % 7 == 0 for index in range(4000)]
    assert best_of_k(right, right, 2000) == pytest.approx(1.0)
    assert best_of_k(right, [-one for one in right], 2000) == pytest.approx(0.0)


@pytest.mark.parametrize(("number", "k"), [(3, 0), (3, 4), (0, 1)])
def test_more_than_there_is_cannot_be_estimated(number: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"best-of-{k} cannot be estimated from {number} answers"):
        best_of_k([True] * number, [1.0] * number, k)


@given(answers)
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[bool, int]]) -> None:
    ups, downs = ([score for is_right, score in rows if is_right is wanted] for wanted in (True, False))
    area = auc(*zip(*rows, strict=True))
    if not ups or not downs:
        assert area is None
    else:
        won = sum(1.0 if up > down else 0.5 if up == down else 0.0 for up, down in product(ups, downs))
        assert area == pytest.approx(won / len(ups) / len(downs))


def ranked(name: str, right: tuple[bool, ...], by_verifier: tuple[float, ...], by_policy: tuple[float, ...]) -> Ranked:
    number = sum(right)
    votes = ((number,) if number else ()), ((len(right) - number,) if number < len(right) else ())
    return Ranked(Outcome(name, None, len(right), number, *votes), right, by_verifier, by_policy)


def test_the_figures_of_a_verifier_that_knows_and_a_policy_that_errs() -> None:
    rows = [ranked(str(index), (True, False, False), (2.0, 1.0, 0.0), (0.0, 1.0, 2.0)) for index in range(40)]
    rows.append(ranked("short", (True,), (0.0,), (0.0,)))
    metrics = of_ranked(rows, (1, 3), **SETTINGS)
    assert metrics[f"{PREFIX}/best_of_k@3"] == 1.0
    assert metrics[f"{PREFIX}/best_of_k@3_left_out"] == 1.0
    assert metrics[f"{PREFIX}/best_of_k@3_over_pass@1"] == pytest.approx(2 / 3)
    assert metrics[f"{PREFIX}/best_of_k@3_over_maj@3"] == 1.0
    assert metrics[f"{PREFIX}/best_of_k@3_by_policy"] == 0.0
    assert metrics[f"{PREFIX}/best_of_k@3_over_policy"] == 1.0
    assert metrics[f"{PREFIX}/best_of_k@3_over_policy_low"] > 0.8
    assert metrics[f"{PREFIX}/pass@3"] == 1.0
    assert metrics[f"{PREFIX}/best_of_k@1"] == pytest.approx((40 / 3 + 1) / 41)
    assert (metrics[f"{PREFIX}/auc"], metrics[f"{PREFIX}/auc_by_policy"]) == (1.0, 0.0)
    assert metrics[f"{PREFIX}/auc_prompts"] == 40.0
    (said,) = sentences(metrics, 3, "test", confidence=0.95)
    assert said.startswith(
        "test, round 3: the best of 3 samples by the verifier is right in 100.0%, any of them in 33.3%: +66.7 points "
    )
    assert "against the majority of 3 +100.0 points" in said
    assert "paired over 40 prompts" in said, "the one with a single answer is left out"
    assert "prefers the right one in 100.0%, the policy's own likelihood in 0.0%" in said


def test_without_votes_or_wrong_answers_the_figures_that_need_them_are_left_out() -> None:
    rows = [Ranked(Outcome("p", None, 2, 2), (True, True), (0.0, 1.0), (0.0, 1.0))]
    metrics = of_ranked(rows, (2, 4), **SETTINGS)
    assert not [key for key in metrics if "maj" in key or key.endswith(("/auc", "auc_by_policy"))]
    assert metrics[f"{PREFIX}/best_of_k@4_left_out"] == 1.0
    assert f"{PREFIX}/best_of_k@4" not in metrics
    (said,) = sentences(metrics, 1, "validate", confidence=0.95)
    assert "which includes no difference" in said
    assert "majority" not in said
    assert sentences({}, 1, "test", confidence=0.95) == ()
