from __future__ import annotations

from typing import Any

import pytest

from selftrain.config import StopConfig
from selftrain.errors import DataError
from selftrain.evaluation.decisions import best_round, headline, should_stop
from selftrain.records import Outcome, Report


def report(number: int, *, arm: str = "main", **correct: tuple[int, int]) -> Report:
    """A report whose sets have the first so many of so many prompts right."""
    return Report(
        arm=arm,
        round=number,
        metrics={f"evaluate/{name}/pass@1": right / size for name, (right, size) in correct.items()},
        outcomes={
            name: tuple(Outcome(f"{name}{index:03}", index < right, 0, 0) for index in range(size))
            for name, (right, size) in correct.items()
        },
    )


def validated(*percents: int) -> list[Report]:
    return [report(number, validate=(percent, 100)) for number, percent in enumerate(percents)]


@pytest.mark.parametrize(
    ("percents", "min_gain", "best"),
    [
        ((50,), 0.0, 0),
        ((50, 60, 70), 0.0, 2),
        ((50, 70, 60), 0.0, 1),
        ((50, 70, 70), 0.0, 1),
        ((50, 40, 30), 0.0, 0),
        ((50, 50, 50), 0.0, 0),
        ((30, 34, 35), 0.05, 2),
        ((30, 35, 39), 0.05, 1),
        ((30, 33, 36, 39), 0.05, 2),
    ],
)
def test_the_best_round_is_the_earliest_with_the_highest_validation(
    percents: tuple[int, ...], min_gain: float, best: int
) -> None:
    assert best_round(validated(*percents), min_gain=min_gain) == best


def test_a_best_round_needs_validation() -> None:
    with pytest.raises(DataError, match=r"round 0 has no evaluate/validate/pass@1"):
        best_round([report(0, test=(1, 2))])


def stopped(reports: list[Report], *, seconds: float = 0.0, sampled_tokens: int = 0, **stop: Any) -> str | None:
    return should_stop(reports, StopConfig(**stop), seconds=seconds, sampled_tokens=sampled_tokens)


def test_patience_counts_the_rounds_since_the_best() -> None:
    assert stopped(validated(50, 60, 60), patience=2) is None
    assert stopped(validated(50, 60, 60, 59), patience=2) == (
        "2 rounds without a new best on validation since round 1 (stop.patience 2)"
    )
    assert stopped(validated(50, 49), patience=1) is not None
    assert stopped(validated(50, 51, 52), patience=2, min_gain=0.05) is not None
    assert stopped(validated(50, 51, 55), patience=2, min_gain=0.05) is None
    assert stopped(validated(50), patience=1) is None


def test_the_target_is_met_by_the_latest_round() -> None:
    assert stopped(validated(50, 80), target=0.8) == "pass@1 on validation is 80.0%, at or above stop.target 80.0%"
    assert stopped(validated(50, 79), target=0.8) is None


def test_budgets_end_a_run_when_they_are_used_up() -> None:
    reports = validated(50, 60)
    assert stopped(reports, max_hours=1.0, seconds=3599.0) is None
    assert stopped(reports, max_hours=1.0, seconds=3600.0) == (
        "the run's phases took 1.00 hours, at or above stop.max_hours 1"
    )
    assert stopped(reports, max_sampled_tokens=1000, sampled_tokens=999) is None
    assert stopped(reports, max_sampled_tokens=1000, sampled_tokens=1000) == (
        "1,000 tokens were sampled, at or above stop.max_sampled_tokens 1,000"
    )


def test_nothing_stops_a_run_that_was_given_no_reason() -> None:
    assert stopped([report(0, test=(1, 2))], seconds=1e9, sampled_tokens=10**12) is None


def test_with_validation_and_test_the_validated_round_is_reported_on_test() -> None:
    main = [
        report(0, validate=(40, 100), test=(70, 200)),
        report(1, validate=(80, 100), test=(157, 200)),
        report(2, validate=(79, 100), test=(190, 200)),
    ]
    arm = [report(1, arm="random_selection", test=(100, 200)), report(2, arm="random_selection", test=(1, 200))]
    verdict = headline(main, {"random_selection": arm})
    assert (verdict.round, verdict.chosen, verdict.set_name) == (1, "chosen on validation", "test")
    over_start, over_arm = verdict.gains
    assert (over_start.over, over_start.before, over_start.after) == ("round 0", 0.35, 0.785)
    assert over_start.interval.estimate == pytest.approx(0.435)
    assert (over_arm.over, over_arm.before, over_arm.after) == ("random_selection", 0.5, 0.785)
    assert over_start.clear
    assert over_arm.clear
    low, high = over_start.interval.low, over_start.interval.high
    assert verdict.lines == (
        "headline: round 1, chosen on validation, measured on test prompts",
        f"test pass@1 35.0% -> 78.5%: gain of main over round 0 +43.5 points [{100 * low:+.1f}, {100 * high:+.1f}] "
        "(95 %, paired bootstrap over 200 prompts; one training seed)",
        verdict.lines[2],
    )
    assert verdict.lines[2].startswith(
        "test pass@1 78.5% against 50.0%: gain of main over random_selection +28.5 points"
    )


def test_test_prompts_never_choose_the_round() -> None:
    main = [report(0, test=(10, 100)), report(1, test=(90, 100)), report(2, test=(50, 100))]
    verdict = headline(main, {})
    assert (verdict.round, verdict.chosen, verdict.set_name) == (2, "the last round", "test")
    assert verdict.gains[0].after == 0.5
    assert not any("90" in line or "best" in line for line in verdict.lines)


def test_with_validation_alone_the_best_round_is_labelled_as_chosen_on_the_same_prompts() -> None:
    verdict = headline(validated(10, 90, 50), {})
    assert (verdict.round, verdict.chosen, verdict.set_name) == (2, "the last round", "validate")
    assert verdict.gains[0].after == 0.5
    assert verdict.lines[-1] == (
        "best round on validation: 1, pass@1 90.0%, chosen on the same prompts and so flattering"
    )


def test_a_run_that_never_got_better_claims_no_gain() -> None:
    main = [report(0, validate=(50, 100), test=(50, 100)), report(1, validate=(50, 100), test=(99, 100))]
    verdict = headline(main, {"random_selection": main})
    assert (verdict.round, verdict.gains) == (0, ())
    assert verdict.lines[-1] == "no round was better than round 0 on validation, so there is no gain to report"


def test_without_held_out_prompts_nothing_is_claimed() -> None:
    verdict = headline([report(0), report(1)], {})
    assert (verdict.round, verdict.set_name, verdict.gains) == (1, None, ())
    assert "no gain can be claimed" in verdict.lines[0]


def test_an_arm_that_was_not_measured_at_the_round_is_named_and_not_compared() -> None:
    main = [report(0, test=(5, 50)), report(1, test=(30, 50))]
    verdict = headline(main, {"random_selection": [report(0, arm="random_selection", test=(5, 50))]})
    assert [gain.over for gain in verdict.gains] == ["round 0"]
    assert "arm random_selection was not measured on test at round 1, so it is not compared" in verdict.lines


def test_a_gain_that_may_be_none_says_so_and_one_of_zero_has_a_width() -> None:
    main = [report(0, test=(50, 100)), report(1, test=(50, 100))]
    (gain,) = headline(main, {}).gains
    assert not gain.clear
    assert gain.interval.low < 0 < gain.interval.high
    assert headline(main, {}).lines[-1] == (
        "test pass@1 50.0% -> 50.0%: gain of main over round 0 +0.0 points [-3.7, +3.7] "
        "(95 %, paired score interval over 100 prompts; one training seed); this includes no gain at all"
    )


def test_a_prompt_unscored_on_one_side_leaves_the_pair_and_is_counted() -> None:
    before, after = report(0, test=(1, 4)), report(1, test=(3, 4))
    outcomes = (Outcome("test000", None, 0, 0), *after.outcomes["test"][1:])
    verdict = headline([before, Report("main", 1, after.metrics, {"test": outcomes})], {})
    (gain,) = verdict.gains
    assert (gain.before, gain.after, gain.interval.num_prompts) == (0.0, pytest.approx(2 / 3), 3)
    assert "; left out as unscored on one side: 1" in verdict.lines[-1]
