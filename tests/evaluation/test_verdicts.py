"""Decisions, verdicts and seeds by value: the same statistics as pass@1, on the scale of the values."""

from __future__ import annotations

import pytest

from selftrain.config import StopConfig
from selftrain.errors import DataError
from selftrain.evaluation.comparison import Side, against_first
from selftrain.evaluation.decisions import best_round, current_round, headline_round, should_stop
from selftrain.evaluation.seeds import gain, level, measured, verdict
from selftrain.evaluation.statistics import paired_difference
from selftrain.evaluation.verdicts import headline
from selftrain.records import Outcome, Report

SIZE = 60


def graded(
    number: int, right: int, shift: float, *, sets: tuple[str, ...] = ("validate", "test"), arm: str = "main"
) -> Report:
    """A report with the first so many prompts right, and values that lie around `shift` beside that."""
    outcomes = tuple(
        Outcome(
            f"p{index:03}",
            index < right,
            0,
            0,
            value=shift + (index * 7 % SIZE) / SIZE,
            parts={"reward": shift + (index * 7 % SIZE) / SIZE, "exact": float(index < right)},
        )
        for index in range(SIZE)
    )
    metrics = {f"evaluate/{name}/pass@1": right / SIZE for name in sets}
    return Report(arm, number, metrics, dict.fromkeys(sets, outcomes))


ROUNDS = [graded(0, 20, -3.0), graded(1, 40, -2.5), graded(2, 30, 1.5)]


def test_the_best_round_and_the_guard_go_by_what_the_recipe_decides_by() -> None:
    assert (best_round(ROUNDS), best_round(ROUNDS, by="value")) == (1, 2)
    assert best_round(ROUNDS, by="value", min_gain=5.0) == 0
    assert (headline_round(ROUNDS)[0], headline_round(ROUNDS, "value")[0]) == (1, 2)
    falling = [ROUNDS[0], ROUNDS[2], ROUNDS[1]]
    assert [current_round(falling, bound, "value") for bound in (3.9, 4.1)] == [2, 1]
    assert current_round(falling, 0.1) == 1, "pass@1 rose"


def test_stop_rules_go_by_the_value() -> None:
    def why(**knobs: float) -> str | None:
        stop = StopConfig.model_validate(knobs)
        return should_stop(ROUNDS, stop, seconds=0, sampled_tokens=0, by="value")

    assert why(target=1.9) == "value on validation is 1.992, at or above stop.target 1.900"
    assert why(target=2.1) is None
    assert why(patience=1) is None
    assert why(patience=2, min_gain=5.0) is not None


def test_deciding_by_value_needs_values() -> None:
    bare = Report("main", 0, {"evaluate/validate/pass@1": 0.5}, {"validate": (Outcome("p", True, 0, 0),)})
    with pytest.raises(DataError, match="no evaluate/validate/value"):
        best_round([bare], by="value")


def test_a_verdict_has_value_and_parts_before_and_after_with_paired_intervals() -> None:
    arm = graded(1, 25, -2.9, arm="control")
    found = headline(ROUNDS[:2], {"control": [arm]})
    assert [(one.over, one.figure) for one in found.gains] == [("round 0", "pass@1"), ("control", "pass@1")]
    assert [(one.over, one.figure) for one in found.values] == [
        (over, figure) for figure in ("value", "part/reward", "part/exact") for over in ("round 0", "control")
    ]
    value = found.values[0]
    assert (value.before, value.after) == (pytest.approx(-3 + 59 / 120), pytest.approx(-2.5 + 59 / 120))
    assert value.interval.estimate == pytest.approx(0.5)
    assert value.interval.low < 0.5 < value.interval.high, "every prompt gained alike, and still there is a width"
    said = [line for line in found.lines if line.startswith("test ")]
    assert [line.split(":")[0] for line in said] == [
        "test pass@1 33.3% -> 66.7%",
        "test pass@1 66.7% against 41.7%",
        "test value -2.508 -> -2.008",
        "test value -2.008 against -2.408",
    ], "parts that repeat pass@1 or value are not said again"
    by_value = headline(ROUNDS, {}, by="value")
    assert by_value.round == 2
    assert by_value.lines[1].startswith("test value -2.508 -> 1.992: gain of main over round 0 +4.500 [")


def test_a_graded_value_of_shares_has_the_interval_of_the_paired_bootstrap() -> None:
    sides = [{f"p{index}": (index * step % 50) / 50 for index in range(50)} for step in (7, 11)]
    reports = [
        Report(
            "main",
            number,
            {},
            {"test": tuple(Outcome(name, value > 0.5, 0, 0, value=value) for name, value in side.items())},
        )
        for number, side in enumerate(sides)
    ]
    found = headline(reports, {}).values[0].interval
    assert found == paired_difference(sides[1], sides[0])


def test_seeds_tell_of_values_over_seeds_over_prompts_and_over_both() -> None:
    """Twenty times the values are twenty times the figures."""
    small = {seed: {f"p{index}": (index * (seed + 3) % 41) / 41 for index in range(41)} for seed in (0, 1, 2)}
    large = {seed: {name: 20 * value for name, value in of.items()} for seed, of in small.items()}
    none = {seed: dict.fromkeys(of, 0.0) for seed, of in small.items()}
    one, other = gain("round 0", small, none), gain("round 0", large, none, figure="value")
    assert other.figure == "value"
    assert other.mean == pytest.approx(20 * one.mean)
    assert other.per_seed == pytest.approx([20 * each for each in one.per_seed])
    assert one.over_both is not None
    assert other.over_both is not None
    assert other.over_both.low == pytest.approx(20 * one.over_both.low, abs=0.3)
    assert other.over_both.low <= other.over_prompts.low < other.mean
    reached = level("main", large, figure="value")
    assert reached.mean == pytest.approx(20 * level("main", small).mean)
    assert other.shown(1.25) == "+1.250"
    assert reached.shown(1.25) == "1.250"


def test_the_verdict_of_seeds_has_the_other_figures_and_begins_with_what_decides() -> None:
    def runs(figure: str) -> list:
        return [
            measured(seed, [graded(0, 20, -3.0), graded(1, 40 + seed, -2.5 + seed)], {}, figure=figure, by="value")
            for seed in (0, 1)
        ]

    found = verdict(runs("pass@1"), beside=[runs("value")], by="value")
    assert [(one.what, one.is_gain, one.figure) for one in found.values] == [
        ("round 0", False, "value"),
        ("main", False, "value"),
        ("round 0", True, "value"),
    ]
    assert found.values[2].per_seed == pytest.approx([0.5, 1.5])
    assert found.lines[1].startswith("test value: gain of main over round 0: +1.000, the mean of 2 seeds (+0.500, +1.5")
    assert found.gains[0].figure == "pass@1"


def test_runs_are_compared_by_value_too() -> None:
    first = Side("a", 1, {f"p{index}": float(index) for index in range(30)}, "value")
    other = Side("b", 2, {f"p{index}": float(index) + index % 3 for index in range(30)}, "value")
    (found,) = against_first([first, other], "test")
    assert (found.figure, found.interval.estimate) == ("value", pytest.approx(1.0))
    assert found.line.startswith("b against a: test value 15.500 against 14.500, +1.000 [+0.")
