from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from groups import make_candidate, make_scored
from hypothesis import given
from hypothesis import strategies as st

from selftrain.config import SelectConfig
from selftrain.errors import PhaseError
from selftrain.records import Group
from selftrain.selection import select, shaping

FINITE = st.floats(-1e6, 1e6)


def group(name: str, *values: float | None, base: float | None = None) -> Group:
    rows = [
        (replace(make_candidate(name, index, f"answer {index}"), base_logprob=base), value)
        for index, value in enumerate(values)
    ]
    return make_scored(name, rows)


def shaped(groups: list[Group], **knobs: Any) -> list[list[float | None]]:
    shape = shaping.over(SelectConfig.model_validate(knobs), groups)
    return [[score.value for score in shape(one).scores] for one in groups]


def test_global_minmax_is_over_the_round_and_per_prompt_minmax_over_each_prompt() -> None:
    groups = [group("p", 0.0, 5.0, None), group("q", 10.0, 20.0)]
    assert shaped(groups, normalise="global_minmax") == [[0.0, 0.25, None], [0.5, 1.0]]
    assert shaped(groups, normalise="per_prompt_minmax") == [[0.0, 1.0, None], [0.0, 1.0]]


def test_zscore_has_the_standard_deviation_of_the_whole_round_with_ddof_0() -> None:
    found = shaped([group("p", 1.0, 3.0), group("q", 5.0, 7.0, None)], normalise="zscore")
    deviation = math.sqrt(((-3) ** 2 + (-1) ** 2 + 1 + 3**2) / 4)
    assert found == [[-3 / deviation, -1 / deviation], [1 / deviation, 3 / deviation, None]]


@pytest.mark.parametrize("values", [(0.1,), (0.1, 0.1, 0.1), (-3.0, -3.0)])
def test_a_single_value_or_equal_ones_become_the_middle(values: tuple[float, ...]) -> None:
    groups = [group("p", *values)]
    assert shaped(groups, normalise="global_minmax") == [[0.5] * len(values)]
    assert shaped(groups, normalise="per_prompt_minmax") == [[0.5] * len(values)]
    assert shaped(groups, normalise="zscore") == [[0.0] * len(values)]


def test_a_round_in_which_nothing_was_scored_has_nothing_to_shape() -> None:
    for name in ("global_minmax", "per_prompt_minmax", "zscore"):
        assert shaped([group("p", None, None), group("q")], normalise=name) == [[None, None], []]
        assert shaped([], normalise=name) == []


@given(st.lists(st.lists(FINITE, max_size=4), max_size=4), st.sampled_from(["global_minmax", "per_prompt_minmax"]))
def test_minmax_lies_between_0_and_1_and_keeps_the_order_within_a_prompt(values: list[list[float]], name: str) -> None:
    groups = [group(f"p{number}", *row) for number, row in enumerate(values)]
    for before, after in zip(values, shaped(groups, normalise=name), strict=True):
        found = [one for one in after if one is not None]
        assert all(0.0 <= one <= 1.0 for one in found)
        assert all(
            not (one < other and moved > also)
            for one, moved in zip(before, found, strict=True)
            for other, also in zip(before, found, strict=True)
        )


@given(st.lists(FINITE, min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_what_a_value_becomes_does_not_depend_on_the_order_of_the_candidates(
    values: list[float], shuffler: Any
) -> None:
    order = shuffler.sample(range(len(values)), len(values))
    (first,) = shaped([group("p", *values)], normalise="zscore")
    (second,) = shaped([group("p", *(values[place] for place in order))], normalise="zscore")
    assert [first[place] for place in order] == second


def test_the_penalty_is_the_log_ratio_to_round_0_times_beta_and_comes_before_normalise() -> None:
    """Three tokens at -1 each: log p is -3."""
    groups = [group("p", 1.0, 2.0, None, base=-5.0)]
    assert shaped(groups, kl_beta=0.25) == [[1.0 - 0.25 * 2.0, 2.0 - 0.25 * 2.0, None]]
    other = [
        replace(
            groups[0],
            candidates=tuple(replace(one, base_logprob=-3.0 - 8.0 * one.index) for one in groups[0].candidates),
        )
    ]
    assert shaped(other, kl_beta=0.25) == [[1.0, 2.0 - 0.25 * 8.0, None]]
    assert shaped(other, kl_beta=0.25, normalise="global_minmax") == [[1.0, 0.0, None]]


def test_the_penalty_ranks_and_survivors_keep_their_values() -> None:
    far, near = (
        replace(make_candidate("p", index, f"{index}"), base_logprob=-3.0 - 40.0 * (1 - index)) for index in (0, 1)
    )
    groups = [make_scored("p", [(far, 3.0), (near, 2.0)])]
    plain = select(groups, SelectConfig(rule="best_of_n"), seed=0)
    ranked = select(groups, SelectConfig(rule="best_of_n", kl_beta=0.1), seed=0)
    assert [(one.candidate.id, one.score.value) for one in plain.kept] == [("p/0", 3.0)]
    assert [(one.candidate.id, one.score.value) for one in ranked.kept] == [("p/1", 2.0)]
    assert ranked.reasons == {"p/0": "value -1.0 not the best of the prompt; raw value 3.0"}


@pytest.mark.parametrize("lacks", ["base_logprob", "logprobs"])
def test_a_candidate_without_log_probabilities_is_refused_in_words(lacks: str) -> None:
    made = group("p", 1.0, base=-3.0)
    (candidate,) = made.candidates
    without = replace(candidate, base_logprob=None) if lacks == "base_logprob" else replace(candidate, logprobs=())
    with pytest.raises(PhaseError, match=r"select\.kl_beta: candidate p/0 has no log-probability"):
        select([replace(made, candidates=(without,))], SelectConfig(kl_beta=0.1), seed=0)
    assert select(
        [replace(made, candidates=(without,))], SelectConfig(kl_beta=0.1, rule="random", count=1), seed=0
    ).kept
