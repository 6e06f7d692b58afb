from __future__ import annotations

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from groups import make_candidate, make_prompt
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.evaluation.rounds import (
    gap,
    of_drift,
    of_sampled_answers,
    of_sampling,
    of_scoring,
    of_selection,
    outcomes,
    solved,
)
from selftrain.records import Candidate, Group, Outcome, Score

Row = tuple[str, float | None, str | None]


def group(name: str, *rows: Row, num_tokens: int = 3) -> Group:
    """A prompt with candidates of (text, value, answer); correct from value 1 on, unscored where the value is None."""
    candidates = tuple(make_candidate(name, index, row[0], num_tokens=num_tokens) for index, row in enumerate(rows))
    scores = tuple(
        Score(candidate.id, value, None if value is None else value >= 1.0, answer)
        for candidate, (_, value, answer) in zip(candidates, rows, strict=True)
    )
    return Group(make_prompt(name), candidates, scores)


GROUPS = [
    group("a", ("it is 5", 1.0, "5"), ("5", 1.0, "5"), ("6", 0.25, "6"), ("7", 0.0, "7")),
    group("b", ("x", 0.0, "x"), ("y", 0.5, "y"), ("?", None, None), ("x", 0.0, "x"), num_tokens=9),
    group("c", ("?", None, None), ("?", None, None)),
]


def test_the_entropy_is_the_mean_over_tokens_and_not_over_candidates() -> None:
    long, short = make_candidate("a", 0, "x", num_tokens=9), make_candidate("a", 1, "y", num_tokens=1)
    found = [replace(long, entropy=0.5), replace(short, entropy=2.5)]
    metrics = of_sampling(found, seconds=2.0, tokens_drawn_now=10)
    assert metrics["sample/entropy"] == pytest.approx((9 * 0.5 + 1 * 2.5) / 10)
    assert metrics["sample/token_logprob_mean"] == -1.0
    assert metrics["sample/tokens_per_second"] == 5.0
    silent = replace(short, completion_token_ids=(), logprobs=())
    assert "sample/entropy" not in of_sampling([silent], seconds=0.0, tokens_drawn_now=0)


def test_the_rates_of_a_round_are_over_scored_candidates_and_the_prompts_that_have_any() -> None:
    metrics = of_scoring(GROUPS, {})
    expected = {
        "score/candidates": 10.0,
        "score/unscored_rate": 0.3,
        "score/value_mean": 2.75 / 7,
        "score/correct_rate": 2 / 7,
        "score/prompts_solved_rate": 0.5,
        "score/prompts_all_right_rate": 0.0,
        "score/prompts_all_wrong_rate": 0.5,
        "score/pass_rate/0": 0.5,
        "score/pass_rate/25_50": 0.5,
    }
    assert {key: metrics[key] for key in expected} == pytest.approx(expected)


def test_coverage_is_over_all_prompts_that_were_asked() -> None:
    assert solved(GROUPS) == {"a": True, "b": False, "c": False}
    metrics = of_scoring(GROUPS, {"a": False, "b": True, "c": False, "d": False})
    assert metrics["score/prompts"] == 3.0
    assert metrics["score/prompts_newly_solved"] == 1.0
    assert metrics["score/coverage_cumulative"] == 0.5
    assert metrics["score/coverage_growth"] == 0.25


def test_the_rewards_of_a_round_are_described_over_candidates_and_by_prompt() -> None:
    metrics = of_scoring(GROUPS, {})
    # Sorted: 0 0 0 .25 .5 1 1; a has best 1 and median .625, b has best .5 and median 0.
    expected = {
        "score/value_p10": 0.0,
        "score/value_p50": 0.25,
        "score/value_p90": 1.0,
        "score/value_best_of_n": 0.75,
        "score/value_gap": (0.375 + 0.5) / 2,
    }
    assert {key: metrics[key] for key in expected} == pytest.approx(expected)


def test_variety_lengths_and_the_fan_are_of_scored_candidates() -> None:
    metrics = of_scoring(GROUPS, {})
    expected = {
        "score/distinct_right_per_solved_prompt": 2.0,
        "score/right_tokens_p50": 3.0,
        "score/wrong_tokens_p50": 9.0,
        "score/pass@1": (2 / 4 + 0) / 2,
        "score/pass@2": (5 / 6 + 0) / 2,
        "score/pass@4": 1.0,  # only a has four scored candidates
        "score/maj@4": 1.0,
    }
    assert {key: metrics[key] for key in expected} == pytest.approx(expected)
    assert "score/pass@8" not in metrics


def test_a_round_of_which_nothing_was_scored_has_no_undefined_figure() -> None:
    metrics = of_scoring([GROUPS[2]], {})
    assert metrics["score/unscored_rate"] == 1.0
    assert metrics["score/coverage_cumulative"] == 0.0
    assert not {key for key in metrics if "@" in key or "value_p" in key or "distinct" in key or "tokens" in key}
    assert of_scoring([], {})["score/candidates"] == 0.0


ROWS = st.tuples(st.sampled_from("xyz"), st.sampled_from([None, 0.0, 0.5, 1.0]), st.sampled_from([None, "1", "2"]))


@given(
    st.lists(st.lists(ROWS, min_size=1, max_size=5), max_size=5),
    st.dictionaries(st.sampled_from("01234"), st.booleans()),
)
@settings(max_examples=200)
def test_every_figure_of_any_round_is_a_finite_float(rounds: list[list[Row]], before: dict[str, bool]) -> None:
    groups = [group(str(number), *rows) for number, rows in enumerate(rounds)]
    kept = [pair for one in groups for pair in zip(one.candidates, one.scores, strict=True)]
    metrics = of_scoring(groups, before) | of_selection(kept, sampled_candidates=9, sampled_tokens=99)
    json.dumps(metrics, allow_nan=False)
    assert {type(value) for value in metrics.values()} <= {float}
    shares = [value for key, value in metrics.items() if key.endswith("_rate") or "@" in key or "coverage" in key]
    assert all(-1e-12 <= value <= 1 + 1e-12 for value in shares)
    histogram = [value for key, value in metrics.items() if "/pass_rate/" in key]
    assert not histogram or sum(histogram) == pytest.approx(1.0)
    if any(key.startswith("score/pass@") for key in metrics):
        per_prompt = [[bool(one.correct) for one in g.scores if one.value is not None] for g in groups]
        shares = [sum(one) / len(one) for one in per_prompt if one]
        assert metrics["score/pass@1"] == pytest.approx(sum(shares) / len(shares))


def kept_row(prompt_id: str, text: str, correct: bool | None) -> tuple[Candidate, Score]:
    candidate = make_candidate(prompt_id, 0, text, num_tokens=4)
    return candidate, Score(candidate.id, 1.0, correct)


def test_what_was_kept_has_a_precision_and_a_price() -> None:
    kept = [kept_row("a", "x", True), kept_row("a", "x", True), kept_row("b", "x", False), kept_row("b", "y", None)]
    assert of_selection(kept, sampled_candidates=32, sampled_tokens=400) == {
        "select/kept_precision": pytest.approx(2 / 3),
        "select/duplicate_rate": 0.25,
        "select/duplicate_text_rate": 0.5,
        "select/distinct_2": pytest.approx(3 / 12),
        "select/tokens_per_kept": 100.0,
        "select/candidates_per_kept": 8.0,
        "select/kept_tokens_mean": 4.0,
    }


def test_without_survivors_or_verdicts_nothing_is_made_up() -> None:
    assert of_selection([], sampled_candidates=32, sampled_tokens=400) == {}
    only = of_selection([kept_row("a", "x", None)], sampled_candidates=2, sampled_tokens=8)
    assert "select/kept_precision" not in only


def test_outcomes_hold_what_was_scored_and_how_often_each_answer_was_given() -> None:
    assert outcomes(GROUPS, greedy=False) == [
        Outcome("a", None, 4, 2, (2,), (1, 1), value=2.25 / 4),
        Outcome("b", None, 3, 0, (), (2, 1), value=0.5 / 3),
        Outcome("c", None, 0, 0),
    ]
    assert outcomes(GROUPS, greedy=True) == [
        Outcome("a", True, 0, 0, value=1.0),
        Outcome("b", False, 0, 0, value=0.0),
        Outcome("c", None, 0, 0),
    ]


def test_sampled_answers_have_pass_and_majority_with_bounds_over_the_same_prompts() -> None:
    found = outcomes(GROUPS, greedy=False)
    metrics = of_sampled_answers("test", found, (1, 2, 4), confidence=0.95, resamples=200, seed=0)
    assert metrics["evaluate/test/sampled_pass@2"] == pytest.approx((5 / 6 + 0) / 2)
    # Of the 6 pairs of a: {5, 5} is right and four are ties with 5.
    assert metrics["evaluate/test/maj@2"] == pytest.approx(((1 + 4 / 2) / 6 + 0) / 2)
    assert metrics["evaluate/test/maj@2_low"] < metrics["evaluate/test/maj@2"] < metrics["evaluate/test/maj@2_high"]
    assert metrics["evaluate/test/maj@4"] == 1.0
    assert metrics["evaluate/test/sampled_pass@4_left_out"] == 2.0
    assert metrics["evaluate/test/maj@1"] == pytest.approx(metrics["evaluate/test/sampled_pass@1"])


def test_answers_that_nobody_extracted_have_no_majority() -> None:
    metrics = of_sampled_answers("test", [Outcome("a", None, 4, 2)], (1,), confidence=0.95, resamples=200, seed=0)
    assert "evaluate/test/sampled_pass@1" in metrics
    assert not [key for key in metrics if "maj" in key]


def test_the_gap_is_to_validation_and_to_test_where_there_is_none() -> None:
    both = {"evaluate/trained/pass@1": 0.9, "evaluate/validate/pass@1": 0.6, "evaluate/test/pass@1": 0.5}
    assert gap(both) == {"evaluate/trained_gap": pytest.approx(0.3)}
    del both["evaluate/validate/pass@1"]
    assert gap(both) == {"evaluate/trained_gap": pytest.approx(0.4)}
    assert gap({"evaluate/trained/pass@1": 0.9}) == gap({"evaluate/test/pass@1": 0.9}) == {}


def test_drift_is_named_by_where_its_candidates_are_from() -> None:
    keys = {"kl_to_base_k1", "kl_to_base_k3", "kl_to_base_per_sequence", "drift_candidates"}
    assert of_drift([[-1.0]], [[-2.0]], "evaluate/sampled").keys() == {f"evaluate/sampled/{key}" for key in keys}
    assert of_drift([[-1.0]], [[-2.0]], "sample")["sample/kl_to_base_k3"] == pytest.approx(math.exp(-1.0))


@pytest.mark.slow
@pytest.mark.parametrize("per_prompt", [8, 64])
def test_a_round_of_a_hundred_thousand_candidates_is_measured_in_seconds(per_prompt: int) -> None:
    generator = np.random.default_rng(0)
    answers = generator.zipf(1.7, (100_000 // per_prompt, per_prompt)).tolist()
    tokens = tuple(range(100))
    groups = [
        group(f"p{number}", *((f"it is {one}", float(one == 1 + number % 2), str(one)) for one in row))
        for number, row in enumerate(answers)
    ]
    groups = [
        replace(
            g,
            candidates=tuple(replace(one, completion_token_ids=tokens, logprobs=(-1.0,) * 100) for one in g.candidates),
        )
        for g in groups
    ]
    kept = [pair for one in groups for pair in zip(one.candidates, one.scores, strict=True)]
    started = time.process_time()
    of_sampling([candidate for candidate, _ in kept], seconds=1.0, tokens_drawn_now=1)
    metrics = of_scoring(groups, solved(groups))
    of_selection(kept, sampled_candidates=100_000, sampled_tokens=10_000_000)
    assert time.process_time() - started < 30
    assert metrics["score/coverage_growth"] == 0.0
