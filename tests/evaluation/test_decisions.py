from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import scripted_recipe

from selftrain.compose import compose
from selftrain.config import StopConfig
from selftrain.errors import DataError
from selftrain.evaluation.decisions import best_round, current_round, rules_on_validation, should_stop
from selftrain.evaluation.verdicts import headline
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


@pytest.mark.parametrize(
    ("percents", "max_regression", "current"),
    [
        ((50, 60, 40), None, 2),
        ((50, 60, 55), 0.1, 2),
        ((50, 60, 50), 0.1, 2),
        ((50, 60, 49), 0.1, 1),
        ((50, 45, 39), 0.1, 0),
        ((50, 60, 60), 0.0, 2),
        ((50, 60, 59), 0.0, 1),
        ((35, 30), 0.05, 1),
        ((50,), 0.0, 0),
        ((50, 60, 40, 58), 0.05, 3),
    ],
)
def test_a_round_that_fell_too_far_below_the_best_is_not_built_upon(
    percents: tuple[int, ...], max_regression: float | None, current: int
) -> None:
    assert current_round(validated(*percents), max_regression) == current


def test_a_fall_is_judged_on_the_prompts_that_every_round_could_score() -> None:
    first, second = validated(50, 50)
    # The twenty easiest prompts timed out: over the others nothing fell.
    outcomes = tuple(
        Outcome(one.prompt_id, None if index < 20 else one.greedy, 0, 0)
        for index, one in enumerate(second.outcomes["validate"])
    )
    later = Report("main", 1, {"evaluate/validate/pass@1": 30 / 80}, {"validate": outcomes})
    assert current_round([first, later], 0.05) == 1


def test_the_guard_needs_validation() -> None:
    assert current_round([report(0, test=(1, 2))], None) == 0
    with pytest.raises(DataError, match=r"round 0 has no evaluate/validate/pass@1"):
        current_round([report(0, test=(1, 2))], 0.1)


def test_the_rules_by_which_validation_steers_a_run_are_named(tmp_path: Path) -> None:
    quiet = compose(str(scripted_recipe(tmp_path))).config
    assert rules_on_validation(quiet) == ()
    changes = ("stop.patience=2", "stop.target=0.9", "stop.max_regression=0.1", "train.init_from=[base,best]")
    steered = compose(str(tmp_path), overrides=changes).config
    assert rules_on_validation(steered) == (
        "stop.patience",
        "stop.target",
        "stop.max_regression",
        "train.init_from: best",
    )


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
        "arms are measured at main's round, which validation chose among main's rounds and not among the arms' own",
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


def test_where_validation_also_steered_the_run_even_the_last_round_is_labelled() -> None:
    lines = headline(validated(10, 90, 50), {}, decided_by=("stop.patience", "stop.target")).lines
    assert lines[-1] == (
        "the same prompts decided how the run went (stop.patience, stop.target), so the figures of round 2 flatter it "
        "too; prompts.test would not"
    )
    both = [report(0, validate=(5, 10), test=(5, 10)), report(1, validate=(6, 10), test=(8, 10))]
    assert not any("flatter" in line for line in headline(both, {}, decided_by=("stop.patience",)).lines)


@pytest.mark.parametrize("sets", [("validate",), ("test",), ("validate", "test")])
@pytest.mark.parametrize("values", [(2, 9, 5), (2, 5, 9), (9, 5, 2)])
def test_no_figure_of_a_best_round_stands_on_the_prompts_that_chose_it_without_a_label(
    sets: tuple[str, ...], values: tuple[int, ...]
) -> None:
    main = [report(number, **dict.fromkeys(sets, (value, 10))) for number, value in enumerate(values)]
    retention = {number: texts(10.0, 0.0) for number in range(3)}
    verdict = headline(main, {"random_selection": main}, retention=retention)
    best = [line for line in verdict.lines if "best" in line]
    assert all(line.endswith("chosen on the same prompts and so flattering") for line in best)
    assert len(best) == (sets == ("validate",))
    if verdict.chosen == "chosen on validation":
        assert verdict.set_name == "test"
    else:
        assert verdict.round == 2


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


def test_a_run_of_which_round_0_alone_was_measured_claims_no_gain() -> None:
    verdict = headline([report(0, test=(50, 100))], {})
    assert verdict.gains == ()
    assert verdict.lines[-1] == "nothing but round 0 was measured, so there is no gain to report"


def test_an_arm_with_knobs_of_its_own_is_named_with_them_and_is_no_control() -> None:
    main = [report(0, test=(5, 50)), report(1, test=(30, 50))]
    arms = {"high_temp": [report(1, arm="high_temp", test=(20, 50))]}
    overrides = {"high_temp": {"sample.temperature": 1.2, "select.rule": "top_k", "train.epochs": [1, 2]}}
    line = headline(main, arms, overrides=overrides).lines[2]
    assert line.startswith(
        "test pass@1 60.0% against 40.0%: "
        "main against high_temp (sample.temperature 1.2, select.rule top_k, train.epochs [1, 2]) +20.0 points ["
    )
    assert "gain of" not in line


def test_the_arm_that_shares_mains_candidates_is_called_a_diagnostic_of_one_round() -> None:
    main = [report(0, test=(5, 50)), report(1, test=(20, 50)), report(2, test=(30, 50))]
    name = "random_selection_shared"
    lines = headline(main, {name: [report(2, arm=name, test=(20, 50))]}).lines
    assert "gain of main over random_selection_shared +20.0 points" in lines[2]
    assert (
        "that arm is a diagnostic of round 2 alone: it starts where main started in that round and draws from main's "
        "own candidates, so it does not control for earlier rounds"
    ) in lines[2]


def texts(perplexity: float, change: float, within: float | None = 0.02) -> dict[str, float]:
    figures = {"perplexity": perplexity, "nll_change": change}
    if within is not None:
        figures |= {"nll_change_low": change - within, "nll_change_high": change + within}
    return {f"evaluate/retention/{name}": value for name, value in figures.items()}


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (texts(12.92, 0.048), "12.92, +0.048 nats per token [+0.028, +0.068] (95 %): some of it was forgotten"),
        (texts(12.4, 0.01), "12.40, +0.010 nats per token [-0.010, +0.030] (95 %): no clear change"),
        (texts(11.0, -0.11), "11.00, -0.110 nats per token [-0.130, -0.090] (95 %): nothing was forgotten"),
        (texts(12.92, 0.048, None), "12.92, +0.048 nats per token; one text alone cannot say how sure that is"),
    ],
)
def test_what_was_forgotten_of_unrelated_texts_is_said_in_words(after: dict[str, float], said: str) -> None:
    main = [report(0, test=(5, 50)), report(1, test=(30, 50))]
    lines = headline(main, {}, retention={0: texts(12.31, 0.0), 1: after}).lines
    assert lines[-1] == f"retention, round 0 -> 1: perplexity of unrelated texts 12.31 -> {said}"


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (80, "61.0% -> 40.0%, -21.0 points"),
        (121, "61.0% -> 60.5%, -0.5 points"),
        (160, "61.0% -> 80.0%, +19.0 points"),
    ],
)
def test_what_was_forgotten_of_unrelated_prompts_is_said_with_a_paired_interval(after: int, said: str) -> None:
    main = [report(0, test=(5, 50), retention=(122, 200)), report(1, test=(30, 50), retention=(after, 200))]
    lines = headline(main, {}, retention={one.round: one.metrics for one in main}).lines
    assert lines[-1].startswith(f"retention, round 0 -> 1: pass@1 on unrelated prompts {said}")
    assert lines[-1].endswith({80: "some of it was forgotten", 121: "no clear change", 160: "it grew"}[after])


def test_retention_that_was_not_measured_at_the_headline_round_is_said_to_be_unknown() -> None:
    main = [report(0, validate=(5, 50), test=(5, 50)), report(1, validate=(30, 50), test=(30, 50))]
    main.append(report(2, validate=(20, 50), test=(20, 50)))
    lines = headline(main, {}, retention={0: texts(12.31, 0.0), 2: texts(13.0, 0.05)}).lines
    assert lines[-1].startswith("retention was not measured at round 1, so what was forgotten by round 1 is not known")


def noisy_run(generator: np.random.Generator, rounds: int, size: int) -> list[Report]:
    """Rounds that are all equally good: each answers each prompt anew, with that prompt's own chance of being right."""
    reports = []
    ease = {name: generator.random(size) for name in ("validate", "test")}
    for number in range(rounds + 1):
        right = {name: generator.random(size) < chance for name, chance in ease.items()}
        outcomes = {
            name: tuple(Outcome(f"{name}{index}", bool(one), 0, 0) for index, one in enumerate(of_set))
            for name, of_set in right.items()
        }
        metrics = {f"evaluate/{name}/pass@1": float(of_set.mean()) for name, of_set in right.items()}
        reports.append(Report("main", number, metrics, outcomes))
    return reports


def gains_of_noise(trials: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Of runs without any true gain: the gain reported on test, that of the same round on validation, and how often
    the interval of the former holds 0."""
    generator, on_test, on_validation, held = np.random.default_rng(5), [], [], []
    for _ in range(trials):
        main = noisy_run(generator, rounds=4, size=60)
        verdict = headline(main, {}, resamples=400)
        assert verdict.chosen == "chosen on validation"
        on_test.append(sum(gain.after - gain.before for gain in verdict.gains))
        values = [one.metrics["evaluate/validate/pass@1"] for one in main]
        on_validation.append(values[verdict.round] - values[0])
        held += [gain.interval.low <= 0 <= gain.interval.high for gain in verdict.gains]
    return np.array(on_test), np.array(on_validation), float(np.mean(held))


@pytest.mark.parametrize("trials", [300, pytest.param(4000, marks=pytest.mark.slow)])
def test_the_choice_of_the_best_of_equally_good_rounds_flatters_validation_and_not_test(trials: int) -> None:
    on_test, on_validation, held = gains_of_noise(trials)
    # A gain on 60 prompts has a standard deviation of 7.5 points.
    error = on_test.std() / trials**0.5
    assert error < 0.01
    assert abs(on_test.mean()) < 3 * error
    assert on_validation.mean() > 0.05
    assert 0.93 - 2 * (0.05 * 0.95 / trials) ** 0.5 <= held <= 0.97 + 2 * (0.05 * 0.95 / trials) ** 0.5


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
