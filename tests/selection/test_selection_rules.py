from __future__ import annotations

import math
import random
import re
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from groups import make_candidate, make_scored
from hypothesis import given
from hypothesis import strategies as st

from selftrain.config import SelectConfig
from selftrain.records import Group
from selftrain.selection import Selection, select

VALUES = st.sampled_from([0.0, 0.25, 0.5, 1.0])
ROUNDS = st.lists(st.lists(VALUES, max_size=6), max_size=5)


def chosen(groups: list[Group], *, seed: int = 0, **config: Any) -> Selection:
    return select(groups, SelectConfig.model_validate(config), seed=seed)


def kept(selection: Selection) -> list[str]:
    return [one.candidate.id for one in selection.kept]


def group(prompt_id: str, *values: float | None) -> Group:
    """Candidates with different texts and these values."""
    rows = [(make_candidate(prompt_id, index, f"answer {index}"), value) for index, value in enumerate(values)]
    return make_scored(prompt_id, rows)


def of_round(values: list[list[float]]) -> list[Group]:
    return [group(f"p{number}", *row) for number, row in enumerate(values)]


@given(ROUNDS, st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.9, 1.0]), st.integers(0, 3))
def test_top_fraction_keeps_exactly_its_share_of_the_round_rounded_up_and_the_best_values(
    values: list[list[float]], share: float, seed: int
) -> None:
    selection = chosen(of_round(values), rule="top_fraction", top_fraction=share, seed=seed)
    all_values = sorted((value for row in values for value in row), reverse=True)
    number = math.ceil(Fraction(str(share)) * len(all_values))
    assert sorted((one.score.value or 0.0 for one in selection.kept), reverse=True) == all_values[:number]


@pytest.mark.parametrize(("share", "number"), [(0.1, 3), (0.3, 9), (0.01, 1), (0.999, 30), (1.0, 30)])
def test_a_share_is_meant_as_it_is_written(share: float, number: int) -> None:
    """0.1 * 30 is a little over 3 in binary."""
    groups = [group(f"p{one}", *[0.5] * 10) for one in range(3)]
    assert len(kept(chosen(groups, rule="top_fraction", top_fraction=share))) == number


def test_of_equal_values_top_fraction_takes_each_prompts_first_before_any_second() -> None:
    groups = [group(f"p{number}", 1.0, 1.0, 1.0, 0.0) for number in range(6)]
    selection = chosen(groups, rule="top_fraction", top_fraction=0.25)
    assert kept(selection) == [f"p{number}/0" for number in range(6)]
    # 9 of 24: every prompt's first, and the second of three prompts, which the seed draws.
    taken = {
        tuple(name for name in kept(chosen(groups, rule="top_fraction", top_fraction=0.375, seed=seed)))
        for seed in range(20)
    }
    assert all({f"p{number}/0" for number in range(6)} < set(names) and len(names) == 9 for names in taken)
    assert len(taken) > 3


@given(ROUNDS, st.integers(0, 3), st.sampled_from(["top_fraction", "above_mean"]))
def test_the_order_of_the_input_decides_nothing(values: list[list[float]], seed: int, rule: str) -> None:
    groups = of_round(values)
    knobs: dict[str, Any] = {"rule": rule, "top_fraction": 0.4}
    shuffled = random.Random(seed).sample(groups, len(groups))
    assert sorted(kept(chosen(groups, **knobs))) == sorted(kept(chosen(shuffled, **knobs)))


def test_top_fraction_is_of_what_the_steps_before_it_left() -> None:
    long = make_candidate("p", 0, "best", num_tokens=9)
    rows = [(long, 1.0), *((make_candidate("p", index, f"a{index}"), index / 10) for index in range(1, 5))]
    selection = chosen([make_scored("p", rows)], rule="top_fraction", top_fraction=0.5, max_completion_tokens=5)
    assert kept(selection) == ["p/3", "p/4"]
    assert selection.kept[0].why == "value 0.3 is among the best 2 of the 4 left (top_fraction 0.5)"
    assert selection.reasons["p/1"] == "value 0.1 not among the best 2 of the 4 left (top_fraction 0.5)"


@given(st.lists(VALUES, min_size=1, max_size=8), st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]))
def test_above_mean_keeps_those_above_mean_and_deviations_of_their_prompt(values: list[float], times: float) -> None:
    selection = chosen([group("p", *values)], rule="above_mean", above_mean=times)
    mean = sum(values) / len(values)
    bar = mean + times * math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    clear = {f"p/{index}" for index, value in enumerate(values) if value > bar + 1e-6}
    not_clear = {f"p/{index}" for index, value in enumerate(values) if abs(value - bar) <= 1e-6}
    if len(set(values)) == 1:
        assert kept(selection) == []
    else:
        assert clear <= set(kept(selection)) <= clear | not_clear
        assert max(values) in {one.score.value for one in selection.kept} or times > 0


@pytest.mark.parametrize("value", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("times", [-2.0, 0.0])
def test_a_prompt_whose_values_are_all_equal_keeps_none_whatever_rounding_says(value: float, times: float) -> None:
    selection = chosen([group("p", value, value, value)], rule="above_mean", above_mean=times)
    assert kept(selection) == []
    assert set(selection.reasons.values()) == {f"all 3 scored candidates of the prompt have value {value}"}


def test_the_mean_is_over_the_candidates_as_sampled_and_scored() -> None:
    """The two truncated failures leave before, and still say that the prompt is hard; the unscored one says nothing."""
    ends = ["length", "length", "stop_token", "stop_token", "stop_token"]
    values: list[float | None] = [0.0, 0.0, 0.5, 0.75, None]
    rows = [
        (make_candidate("p", index, f"a{index}", finish_reason=end), value)  # type: ignore[arg-type]
        for index, (end, value) in enumerate(zip(ends, values, strict=True))
    ]
    selection = chosen([make_scored("p", rows)], rule="above_mean")
    assert kept(selection) == ["p/2", "p/3"], "the mean is 0.3125 over four, and would be 0.625 over the finished two"
    assert selection.kept[0].why == "value 0.5 is above 0.3125 (mean 0.3125, over 4 candidates of the prompt)"
    assert dict(selection.funnel.steps) == {
        "sampled": 5,
        "scored": 4,
        "finished": 2,
        "length": 2,
        "dedup": 2,
        "rule": 2,
    }


def test_the_words_of_above_mean_show_mean_deviation_and_number() -> None:
    selection = chosen([group("p", 0.0, 1.0, 0.5, 0.5)], rule="above_mean", above_mean=1.0)
    (why,) = [one.why for one in selection.kept]
    assert re.fullmatch(r"value 1.0 is above 0.8536 \(mean 0.5 \+ 1 x 0.3536, over 4 candidates of the prompt\)", why)
    assert selection.reasons["p/2"].startswith("value 0.5 not above 0.8536 (mean 0.5 + 1 x 0.3536")


def test_a_bar_that_is_met_and_not_passed_keeps_nobody() -> None:
    """Of two values the higher one is exactly one deviation above the mean, whatever binary makes of it."""
    for low, high in ((0.1, 0.2), (0.3, 0.7), (0.2, 0.9)):
        assert kept(chosen([group("p", low, high)], rule="above_mean", above_mean=1.0)) == []


def test_the_cap_comes_after_the_share_and_leaves_each_prompts_best() -> None:
    groups = [group("p0", 1.0, 0.9, 0.8, 0.7), group("p1", 0.1, 0.2, 0.3, 0.4)]
    selection = chosen(groups, rule="top_fraction", top_fraction=0.5, max_per_prompt=2)
    assert kept(selection) == ["p0/0", "p0/1"]
    assert Counter(selection.reasons.values())["over max_per_prompt 2"] == 2


@pytest.mark.parametrize("knob", ["threshold", "above_mean", "top_fraction"])
@pytest.mark.parametrize("value", [math.nan, math.inf, [1.0, math.nan]])
def test_a_bar_that_is_no_number_is_refused_with_the_configuration(knob: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{knob}[\s\S]*(finite|less than or equal|greater than)"):
        SelectConfig.model_validate({"rule": knob, "top_fraction": 0.5, knob: value})
