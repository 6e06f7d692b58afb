"""Values and parts at evaluation, against cases worked out by hand."""

from __future__ import annotations

from itertools import combinations

import pytest
from groups import make_candidate, make_prompt
from hypothesis import given
from hypothesis import strategies as st

from selftrain.evaluation import figures
from selftrain.evaluation.collapse import of_words
from selftrain.evaluation.metrics import best_value_of_k, pass_at_k
from selftrain.evaluation.rounds import outcomes
from selftrain.evaluation.spans import (
    difference_of_values,
    mean_of_values,
    span_of,
    unpaired_difference_of_values,
)
from selftrain.evaluation.statistics import interval_of_mean, paired_difference
from selftrain.records import Group, Outcome, Score

SETTINGS = {"confidence": 0.95, "resamples": 2000, "seed": 0}


def group(name: str, *rows: tuple[float | None, dict[str, float | None]]) -> Group:
    candidates = tuple(make_candidate(name, index, "x") for index in range(len(rows)))
    scores = tuple(
        Score(one.id, value, None if value is None else value >= 1.0, parts=parts)
        for one, (value, parts) in zip(candidates, rows, strict=True)
    )
    return Group(make_prompt(name), candidates, scores)


def test_a_greedy_answer_has_its_own_value_and_parts_and_sampled_ones_the_means_of_those_that_have_them() -> None:
    rows = [(0.5, {"a": 1.0, "b": 0.0}), (None, {"a": 0.5, "b": None}), (1.0, {"a": 1.0, "b": None})]
    one = group("p", *rows)
    greedy = outcomes([group("p", rows[0])], greedy=True)
    assert greedy == [Outcome("p", False, 0, 0, value=0.5, parts={"a": 1.0, "b": 0.0})]
    sampled = outcomes([one], greedy=False)
    assert (sampled[0].value, sampled[0].parts) == (0.75, {"a": pytest.approx(2.5 / 3), "b": 0.0})
    unscored = outcomes([group("p", (None, {"a": 1.0, "b": None}))], greedy=True)
    assert unscored == [Outcome("p", None, 0, 0, value=None, parts={"a": 1.0, "b": None})]


def test_a_single_scorer_that_says_right_or_wrong_adds_no_figures() -> None:
    found = outcomes([group("p", (1.0, {"exact": 1.0})), group("q", (0.0, {"exact": 0.0}))], greedy=True)
    assert figures.beside(found) == []
    assert figures.of_greedy("test", found, SETTINGS) == {}
    assert figures.of_sampled("test", [group("p", (1.0, {}), (0.0, {}))], (1, 2), SETTINGS) == {}


def test_graded_values_and_every_part_have_means_with_bounds_over_the_prompts_that_have_them() -> None:
    found = [
        Outcome("p", False, 0, 0, value=0.25, parts={"exact": 0.0, "look.py:short": 3.0}),
        Outcome("q", True, 0, 0, value=1.0, parts={"exact": 1.0, "look.py:short": None}),
        Outcome("r", None, 0, 0, value=None, parts={"exact": None, "look.py:short": 5.0}),
    ]
    metrics = figures.of_greedy("test", found, SETTINGS)
    assert metrics["evaluate/test/value"] == 0.625
    assert metrics["evaluate/test/part/exact"] == 0.5
    assert metrics["evaluate/test/part/exact_left_out"] == 1.0
    assert metrics["evaluate/test/part/short"] == 4.0
    for name in ("value", "part/exact", "part/short"):
        key = f"evaluate/test/{name}"
        assert metrics[f"{key}_low"] < metrics[key] < metrics[f"{key}_high"]


def test_two_functions_of_one_name_keep_their_files_in_the_keys() -> None:
    names = ["part/a.py:judge", "part/b.py:judge", "part/b.py:other", "value"]
    assert list(figures.keys_of(names).values()) == ["part/a.py:judge", "part/b.py:judge", "part/other", "value"]


def test_a_part_that_repeats_pass_at_1_tells_nothing_more() -> None:
    side = [Outcome("p", True, 0, 0, value=1.0, parts={"exact": 1.0, "length": 12.0})]
    assert not figures.tells_more("part/exact", side)
    assert figures.tells_more("part/length", side)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=7), st.data())
def test_the_best_value_of_k_is_the_mean_over_all_choices_of_k(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    choices = [max(one) for one in combinations(values, k)]
    assert best_value_of_k(values, k) == pytest.approx(sum(choices) / len(choices))


def test_the_best_value_of_k_of_zeros_and_ones_is_pass_at_k() -> None:
    assert best_value_of_k([0.0, 1.0, 1.0, 0.0, 0.0], 2) == pytest.approx(pass_at_k(5, 2, 2))
    with pytest.raises(ValueError, match="best of 3"):
        best_value_of_k([0.0, 1.0], 3)


def test_sampled_values_leave_out_prompts_with_too_few_scored_answers() -> None:
    groups = [group("p", (0.2, {}), (0.6, {})), group("q", (0.4, {}), (None, {})), group("r", (None, {}), (None, {}))]
    metrics = figures.of_sampled("test", groups, (1, 2), SETTINGS)
    assert metrics["evaluate/test/sampled_value"] == pytest.approx((0.4 + 0.4) / 2)
    assert metrics["evaluate/test/sampled_value_best@1"] == pytest.approx(0.4)
    assert metrics["evaluate/test/sampled_value_best@2"] == pytest.approx(0.6)


def test_distinct_n_divides_by_all_words() -> None:
    # a b a / A c: words a, b, c of 5; pairs (a b), (b a), (a c) of 5 words.
    assert of_words(["a b a", "A c"], "evaluate/test") == {
        "evaluate/test/distinct_1": 3 / 5,
        "evaluate/test/distinct_2": 3 / 5,
    }
    assert of_words(["", "  "], "x") == {}


def test_values_within_0_and_1_have_the_same_intervals_as_shares() -> None:
    values = [index / 40 for index in range(40)]
    assert mean_of_values(values, **SETTINGS) == interval_of_mean(values, **SETTINGS)
    first = {str(index): value for index, value in enumerate(values)}
    second = {str(index): 1 - value for index, value in enumerate(values)}
    assert difference_of_values(first, second, **SETTINGS) == paired_difference(first, second, **SETTINGS)


def test_the_interval_of_values_on_another_scale_is_that_of_the_scaled_ones_moved_back() -> None:
    unit = {str(index): (index * 7 % 40) / 39 for index in range(40)}
    other = {key: ((index * 11) % 40) / 39 for index, key in enumerate(unit)}

    def wide(values: dict[str, float]) -> dict[str, float]:
        return {key: 20 * value - 15 for key, value in values.items()}

    assert span_of(wide(unit).values()) == span_of([-15.0, 5.0])
    near = paired_difference(unit, other, **SETTINGS)
    far = difference_of_values(wide(unit), wide(other), **SETTINGS)
    assert far.estimate == pytest.approx(20 * near.estimate)
    # Rounding splits some equal values, and so changes which resamples are drawn.
    assert (far.low, far.high) == (pytest.approx(20 * near.low, abs=0.3), pytest.approx(20 * near.high, abs=0.3))
    level = mean_of_values(wide(unit).values(), **SETTINGS)
    assert level.low == pytest.approx(20 * interval_of_mean(unit.values(), **SETTINGS).low - 15, abs=0.3)


def test_no_interval_has_no_width_where_few_values_differ() -> None:
    same = {str(index): -3.0 for index in range(30)}
    found = difference_of_values(same, same, **SETTINGS)
    assert (found.estimate, found.method) == (0.0, "paired score")
    assert found.low < 0 < found.high
    assert mean_of_values(same.values(), **SETTINGS).low <= -3.0 < mean_of_values(same.values(), **SETTINGS).high


def test_unpaired_values_may_be_of_any_size() -> None:
    first, second = [4.0 + index / 10 for index in range(20)], [float(index) for index in range(20)]
    found = unpaired_difference_of_values(first, second)
    assert found.estimate == pytest.approx(4.95 - 9.5)
    assert found.low < found.estimate < found.high
