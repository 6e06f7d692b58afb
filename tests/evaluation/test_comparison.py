from __future__ import annotations

import pytest

from selftrain.errors import DataError
from selftrain.evaluation.comparison import Side, against_first, judged_otherwise, warnings


def side(name: str, right: int, size: int = 100, *, first: int = 0) -> Side:
    return Side(name, 3, {f"p{first + number:03}": float(number < right) for number in range(size)})


def test_each_side_is_paired_with_the_first_on_their_common_prompts() -> None:
    found = against_first([side("a", 40), side("b", 60), side("c", 50, 80)], "test")
    assert [(one.over, one.name, one.common) for one in found] == [("a", "b", 100), ("a", "c", 80)]
    assert (found[0].before, found[0].after) == (0.4, 0.6)
    assert (found[1].before, found[1].after) == (40 / 80, 50 / 80)
    assert found[1].interval.left_out == 20
    low, high = (f"{100 * bound:+.1f}" for bound in (found[0].interval.low, found[0].interval.high))
    assert found[0].line == (
        f"b against a: test pass@1 60.0% against 40.0%, +20.0 points [{low}, {high}] "
        "(95 %, paired bootstrap over 100 common prompts)"
    )
    assert "; left out, as only one of the two has or could score them: 20" in found[1].line


def test_a_difference_that_may_be_none_says_so() -> None:
    (found,) = against_first([side("a", 40), side("b", 41)], "test")
    assert "paired score interval" in found.line
    assert found.line.endswith("; this includes no difference at all")


def test_sides_without_a_common_prompt_are_compared_only_where_that_is_asked_for() -> None:
    sides = [side("a", 40), side("b", 60, first=500)]
    with pytest.raises(DataError, match=r"a and b have no test prompt in common \(of 100 and 100\).*--unpaired"):
        against_first(sides, "test")
    (found,) = against_first(sides, "test", unpaired=True)
    assert (found.before, found.after, found.common) == (0.4, 0.6, 0)
    assert found.interval.method == "unpaired"
    assert "(95 %, unpaired interval over 200 prompts); the two were asked different prompts" in found.line


def test_sides_with_common_prompts_stay_paired_where_unpaired_ones_are_allowed() -> None:
    (found,) = against_first([side("a", 40), side("b", 60, first=30)], "test", unpaired=True)
    assert (found.interval.method, found.common) == ("paired bootstrap", 70)


def test_the_same_answer_judged_otherwise_gives_away_another_reference_or_scorer() -> None:
    first = {"p1": ("4", True), "p2": ("5", True), "p3": ("6", False), "p4": ("7", True)}
    second = {"p1": ("4", True), "p2": ("5", False), "p3": ("8", True), "p9": ("7", False)}
    assert judged_otherwise(first, second) == ("p2",)
    lines = warnings(
        "a", "b", "test", scoring=["score.correct_at: 1.0 -> 0.5"], same_set=False, judged_otherwise=("p2",)
    )
    assert lines[0] == "b is scored otherwise than a: score.correct_at: 1.0 -> 0.5"
    assert lines[1].startswith("the test sets of a and b are not the same")
    assert lines[2].startswith(
        "the same answer to the same prompt is right in one and wrong in the other for 1 prompts"
    )
    assert warnings("a", "b", "test", scoring=[], same_set=True, judged_otherwise=()) == []
