from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.config import ALARM_NAMES, AlarmsConfig
from selftrain.evaluation.alarms import RULES, Alarm, raised

Rounds = dict[int, dict[str, float]]
ENTROPY, KL, ACCEPTANCE = "sample/entropy", "sample/kl_to_base_k3", "score/correct_rate"
DISTINCT, HELD_OUT, AGAIN = (
    "score/distinct_right_per_solved_prompt",
    "evaluate/validate/pass@1",
    "score/prompts_asked_before_rate",
)


def history(columns: Mapping[str, tuple[float | None, ...]]) -> Rounds:
    """Rounds from 0 on, of metrics given by round; None: not measured."""
    number = max(len(values) for values in columns.values())
    return {
        index: {key: values[index] for key, values in columns.items() if values[index : index + 1] not in ((), (None,))}
        for index in range(number)
    }


def names(found: Rounds, *, arm_is_main: bool = True, **knobs: Any) -> list[str]:
    return [alarm.name for alarm in raised(found, AlarmsConfig(**knobs), arm_is_main=arm_is_main)]


def words(found: Rounds) -> str:
    (alarm,) = raised(found, AlarmsConfig())
    assert alarm.round == max(found)
    return alarm.words


def with_last(found: Rounds, **changes: float) -> Rounds:
    """The same, with some metrics of the last round otherwise; __ stands for /."""
    last = max(found)
    return {**found, last: found[last] | {key.replace("__", "/"): value for key, value in changes.items()}}


def test_every_alarm_of_the_config_has_a_rule() -> None:
    assert tuple(RULES) == ALARM_NAMES


# no_survivors, truncation, kept_precision: of one round alone


def test_a_round_that_trained_on_nothing_is_named() -> None:
    assert "nothing to train on" in words({1: {"train/skipped": 1.0}})
    assert names({1: {"train/skipped": 0.0}}) == []
    assert names({1: {"train/skipped": 1.0}, 2: {"train/skipped": 0.0}}) == []


def test_survivors_of_graded_values_are_not_called_wrong() -> None:
    graded = {"select/kept_precision": 0.0, "score/value_p50": 0.91}
    assert "the median value of the candidates is 0.91" in words({1: graded})
    assert "wrong" not in words({1: graded})
    assert "wrong ones teach" in words({1: {**graded, "score/value_p50": 1.0}})


def test_truncation_is_above_its_threshold_and_not_at_it() -> None:
    assert words({1: {"sample/truncated_rate": 0.0512}}).startswith("5.1% of the candidates were cut off")
    assert names({1: {"sample/truncated_rate": 0.05}}) == []
    assert names({1: {"sample/truncated_rate": 0.2}}, truncated_rate=0.2) == []


def test_survivors_that_are_wrong_alarm_main_and_not_a_control() -> None:
    wrong = {1: {"select/kept_precision": 0.949}}
    assert "94.9% of the survivors are correct (alarms.kept_precision 95.0%)" in words(wrong)
    assert names(wrong, arm_is_main=False) == []
    assert names({1: {"select/kept_precision": 0.95}}) == []


# entropy_collapse


COLLAPSED = history(
    {
        ENTROPY: (None, 1.0, 0.7, 0.4),
        "score/prompts": (None, 400.0, 400.0, 400.0),
        "score/pass@1": (None, 0.4, 0.5, 0.6),
        "score/pass@8": (None, 0.8, 0.8, 0.7),
    }
)


def test_entropy_that_is_lost_together_with_pass_at_k_is_a_collapse() -> None:
    text = words(COLLAPSED)
    assert "entropy is 0.4 nats per token, under 50% of round 1's 1" in text
    assert "score/pass@8 fell from 80.0% to 70.0% (best 80.0%)" in text


def test_low_entropy_alone_is_what_learning_looks_like() -> None:
    assert names(with_last(COLLAPSED, **{"score/pass@8": 0.8})) == []
    assert names(with_last(COLLAPSED, **{"score/pass@8": 0.9})) == []


def test_a_fall_of_pass_at_k_within_its_doubt_is_none() -> None:
    # 400 prompts at 80 %: half an interval is 3.9 points, of both rounds together 5.7.
    assert names(with_last(COLLAPSED, **{"score/pass@8": 0.75})) == []
    assert names(with_last(COLLAPSED, **{"score/pass@8": 0.735})) == ["entropy_collapse"]


def test_a_slow_fall_is_measured_from_the_best_round() -> None:
    slow = history(
        {
            ENTROPY: (None, 1.0, 0.4, 0.4, 0.4),
            "score/prompts": (None, *[400.0] * 4),
            "score/pass@8": (None, 0.80, 0.77, 0.74, 0.72),
        }
    )
    assert names(slow) == ["entropy_collapse"]
    assert names(with_last(slow, **{"score/pass@8": 0.745})) == []  # it rises again
    assert names({number: slow[number] for number in range(4)}) == ["entropy_collapse"]
    assert names({number: slow[number] for number in range(3)}) == []


def test_entropy_at_its_share_of_the_first_rounds_is_enough() -> None:
    assert names(with_last(COLLAPSED, sample__entropy=0.5)) == []
    assert names(COLLAPSED, entropy_share=0.4) == []
    assert names(with_last(COLLAPSED, sample__entropy=0.499)) == ["entropy_collapse"]


def test_held_out_pass_at_k_counts_for_the_policy_whose_entropy_is_known() -> None:
    # Round 3 sampled from the policy that round 2 left, and round 2 evaluated.
    held_out = {"evaluate/validate/pass@1": (0.5, 0.5, 0.5, 0.5), "evaluate/validate/prompts": (400.0,) * 4}
    fell = history({**held_out, "evaluate/validate/sampled_pass@8": (0.8, 0.8, 0.7, 0.9)})
    held = history({**held_out, "evaluate/validate/sampled_pass@8": (0.8, 0.8, 0.8, 0.5)})
    rising = with_last(COLLAPSED, **{"score/pass@8": 0.9})
    assert names({number: fell[number] | rising[number] for number in fell}) == ["entropy_collapse"]
    assert names({number: held[number] | COLLAPSED[number] for number in held}) == []


def test_test_prompts_have_no_say_where_there_is_validation() -> None:
    tested = history({"evaluate/test/sampled_pass@8": (0.8, 0.8, 0.7, 0.7), "evaluate/test/prompts": (400.0,) * 4})
    rising = with_last(COLLAPSED, **{"score/pass@8": 0.9})
    both = {number: tested[number] | rising[number] for number in tested}
    assert names(both) == ["entropy_collapse"]
    assert names(with_last(both, **{HELD_OUT: 0.5})) == []


def test_pass_at_k_is_of_the_largest_k_that_both_rounds_have() -> None:
    # A later round draws four candidates instead of eight.
    fewer = {number: dict(metrics) for number, metrics in COLLAPSED.items()}
    del fewer[3]["score/pass@8"]
    fewer[2]["score/pass@4"], fewer[3]["score/pass@4"] = 0.7, 0.6
    assert "score/pass@4 fell from 70.0% to 60.0%" in words(fewer)


def test_measured_intervals_say_how_much_is_doubt() -> None:
    narrow = {
        "evaluate/test/sampled_pass@8_low": (0.79, 0.79, 0.69),
        "evaluate/test/sampled_pass@8_high": (0.81, 0.81, 0.71),
    }
    wide = {"evaluate/test/sampled_pass@8_low": (0.7, 0.7, 0.6), "evaluate/test/sampled_pass@8_high": (0.9, 0.9, 0.8)}
    for bounds, expected in ((narrow, ["entropy_collapse"]), (wide, [])):
        measured = history(
            {ENTROPY: (None, 1.0, 0.8, 0.3), "evaluate/test/sampled_pass@8": (0.8, 0.8, 0.7), **bounds, "x": (0.0,) * 4}
        )
        assert names(measured) == expected


def test_in_the_first_rounds_there_is_nothing_to_compare_entropy_with() -> None:
    assert names({1: {ENTROPY: 0.1, "score/pass@8": 0.2}}) == []
    assert names({1: {ENTROPY: 1.0}, 2: {ENTROPY: 0.1}}) == []


# diversity_falling


def test_distinct_answers_that_fall_two_rounds_in_a_row_are_named() -> None:
    falling = history({DISTINCT: (None, 3.0, 2.5, 2.4)})
    assert "fell 2 rounds in a row (3.00, 2.50, 2.40; alarms.diversity_rounds, diversity_fall 10%)" in words(falling)
    assert names(falling, diversity_rounds=3) == []
    assert names(falling, diversity_rounds=1) == [], "2.5 to 2.4 is less than a tenth"
    assert names(falling, diversity_rounds=1, diversity_fall=0.01) == ["diversity_falling"]


@pytest.mark.parametrize("values", [(3.0, 2.5, 2.5), (2.4, 2.5, 2.4), (1.0, 1.0, 1.0), (2.5, 2.4), (3.0,)])
def test_distinct_answers_that_do_not_fall_every_round_are_well(values: tuple[float, ...]) -> None:
    assert names(history({DISTINCT: (None, *values)})) == []


def test_distinct_answers_of_fewer_candidates_are_not_compared() -> None:
    falling = {DISTINCT: (None, 3.0, 2.5, 2.0), "score/prompts": (None, 10.0, 10.0, 20.0)}
    assert names(history({**falling, "score/candidates": (None, 80.0, 80.0, 160.0)})) == ["diversity_falling"]
    assert names(history({**falling, "score/candidates": (None, 80.0, 80.0, 80.0)})) == []


# memorising


MEMORISED = history(
    {
        ACCEPTANCE: (None, 0.40, 0.60, 0.66),
        AGAIN: (None, 0.0, 1.0, 1.0),
        HELD_OUT: (0.30, 0.40, 0.405, 0.60),
    }
)


def test_acceptance_that_rises_on_known_prompts_while_held_out_is_flat_is_memorising() -> None:
    # Rounds 2 and 3 sampled from the policies that were evaluated in rounds 1 and 2.
    text = words(MEMORISED)
    assert "acceptance rose from 60.0% to 66.0% on prompts of which 100% were asked before" in text
    assert "evaluate/validate/pass@1 of the same policies went from 40.0% to 40.5%" in text


def test_thresholds_of_memorising() -> None:
    assert names(with_last(MEMORISED, score__correct_rate=0.65)) == ["memorising"]
    assert names(with_last(MEMORISED, score__correct_rate=0.649)) == []
    assert names(MEMORISED, memorising_rise=0.07) == []
    assert names({**MEMORISED, 2: MEMORISED[2] | {HELD_OUT: 0.41}}) == []
    assert names(MEMORISED, memorising_flat=0.005) == []


def test_acceptance_on_fresh_prompts_says_nothing_of_memorising() -> None:
    assert names(with_last(MEMORISED, score__prompts_asked_before_rate=0.49)) == []
    fresh = {number: {key: value for key, value in one.items() if key != AGAIN} for number, one in MEMORISED.items()}
    assert names(fresh) == []


def test_sampled_answers_that_draw_level_with_greedy_ones_are_sharper_and_not_memorised() -> None:
    level = {number: one | ({HELD_OUT: one[HELD_OUT] + 0.3}) for number, one in MEMORISED.items()}
    assert names(level) == []


def test_memorising_is_not_seen_before_two_policies_were_sampled_from() -> None:
    assert names({number: MEMORISED[number] for number in (0, 1)}) == []
    second = {0: {HELD_OUT: 0.4}, 1: {ACCEPTANCE: 0.4, HELD_OUT: 0.4}, 2: {ACCEPTANCE: 0.6, AGAIN: 1.0}}
    assert names(with_last(second, **{HELD_OUT: 0.4})) == ["memorising"]


def test_test_prompts_stand_in_for_validation() -> None:
    renamed = {
        number: {key.replace("validate", "test"): value for key, value in one.items()}
        for number, one in MEMORISED.items()
    }
    assert "evaluate/test/pass@1" in words(renamed)


def gaps(before: float, now: float, held: tuple[float, float] = (0.6, 0.6), size: float = 5000.0) -> Rounds:
    return history(
        {
            "evaluate/trained_gap": (None, before, now),
            "evaluate/trained/pass@1": (None, held[0] + before, held[1] + now),
            "evaluate/trained/prompts": (None, size, size),
            HELD_OUT: (0.5, *held),
            "evaluate/validate/prompts": (size, size, size),
        }
    )


def test_on_fresh_prompts_the_gap_between_trained_and_held_out_shows_memorising() -> None:
    text = words(gaps(0.10, 0.16))
    assert "pass@1 on trained prompts is 16.0% above that on held-out ones, after 10.0%" in text
    assert names(gaps(0.10, 0.149)) == []
    assert names(gaps(0.10, 0.16, held=(0.6, 0.61))) == []
    assert names(gaps(0.10, 0.16, held=(0.6, 0.59))) == ["memorising"]


def test_a_gap_of_few_trained_prompts_must_grow_by_more_than_its_doubt() -> None:
    assert names(gaps(0.05, 0.20, size=64.0)) == []
    assert names(gaps(0.05, 0.38, size=64.0)) == ["memorising"]


def test_the_first_gap_has_nothing_to_grow_from() -> None:
    assert names({0: {HELD_OUT: 0.5}, 1: {HELD_OUT: 0.5, "evaluate/trained_gap": 0.4}}) == []


# coverage_stalled, kl_jump


def test_coverage_stalls_only_where_it_could_have_grown() -> None:
    stalled = {3: {"score/coverage_growth": 0.0049, "score/coverage_cumulative": 0.62}}
    assert "grew by 0.49% to 62.0% in a round that asked no new prompts" in words(stalled)
    assert names({3: {"score/coverage_growth": 0.005}}) == []
    assert names({3: {"score/coverage_cumulative": 0.62}}) == []


def test_kl_that_doubles_is_a_jump() -> None:
    jump = history({KL: (None, 0.0, 0.06, 0.12)})
    assert "went from 0.06 to 0.12 nats per token" in words(jump)
    assert names(with_last(jump, **{KL: 0.119})) == []
    assert names(jump, kl_ratio=2.1) == []
    assert names(jump, kl_floor=0.12) == []


def test_the_first_step_away_from_the_base_model_is_no_jump() -> None:
    assert names(history({KL: (None, 0.0, 0.4)})) == []
    assert names(history({KL: (None, 2e-5, 0.4)})) == []
    assert names(history({KL: (None, 0.4)})) == []
    # After a warm-up on seed data, round 1 samples from a policy that has moved.
    assert names(history({KL: (None, 0.1, 0.4)})) == ["kl_jump"]


# labels_falling, reward_hacking


LABELS, TRUTH, VALUE = "score/label_accuracy", "score/truth_share", "score/value_mean"


def test_labels_that_are_right_less_often_than_in_the_best_round_are_named() -> None:
    said = words(history({LABELS: (None, 0.7, 0.8, 0.74)}))
    assert said.startswith("74.0% of the labels are right, after 80.0% in round 2 (alarms.label_fall 5.0%)")
    assert names(history({LABELS: (None, 0.7, 0.8, 0.76)})) == []
    assert names(history({LABELS: (None, 0.7, 0.8, 0.76)}), label_fall=0.03) == ["labels_falling"]
    assert names(history({LABELS: (None, 0.7, 0.8, 0.9)})) == []
    assert names(history({LABELS: (None, 0.7)})) == []


def test_labels_of_few_prompts_must_fall_by_more_than_their_doubt() -> None:
    wide = {f"{LABELS}_low": (None, 0.6, 0.5), f"{LABELS}_high": (None, 1.0, 0.9)}
    assert names(history({LABELS: (None, 0.8, 0.7), **wide})) == []
    assert names(history({LABELS: (None, 0.8, 0.5), **wide})) == ["labels_falling"]


def test_a_reward_that_rises_while_truth_falls_is_named() -> None:
    said = words(history({TRUTH: (None, 0.6, 0.5), VALUE: (None, 0.25, 0.75)}))
    assert "50.0% of the candidates are right, after 60.0% in round 1" in said
    assert "mean value went from 0.25 to 0.75" in said
    assert names(history({TRUTH: (None, 0.6, 0.5), VALUE: (None, 0.75, 0.25)})) == [], "both fell: it tells of that"
    assert names(history({TRUTH: (None, 0.6, 0.58), VALUE: (None, 0.25, 0.75)})) == []
    sized = {TRUTH: (None, 0.6, 0.5), VALUE: (None, 0.2, 0.7), "score/prompts": (None, 40.0, 40.0)}
    assert names(history(sized)) == [], "within the doubt of 40 prompts"


# All of them


ALL = {
    "no_survivors": {1: {"train/skipped": 1.0}},
    "truncation": {1: {"sample/truncated_rate": 0.5}},
    "entropy_collapse": COLLAPSED,
    "diversity_falling": history({DISTINCT: (None, 3.0, 2.5, 2.4)}),
    "memorising": MEMORISED,
    "kept_precision": {1: {"select/kept_precision": 0.5}},
    "coverage_stalled": {2: {"score/coverage_growth": 0.0}},
    "kl_jump": history({KL: (None, 0.0, 0.1, 0.3)}),
    "labels_falling": history({LABELS: (None, 0.7, 0.8, 0.6)}),
    "reward_hacking": history({TRUTH: (None, 0.5, 0.6, 0.4), VALUE: (None, 0.5, 0.6, 0.7)}),
}


@pytest.mark.parametrize("name", ALARM_NAMES)
def test_an_alarm_that_is_off_is_silent(name: str) -> None:
    assert names(ALL[name]) == [name]
    assert names(ALL[name], off=(name,)) == []


@pytest.mark.parametrize("name", ALARM_NAMES)
def test_only_the_last_round_raises(name: str) -> None:
    quiet: dict[str, float] = {}
    assert names({**ALL[name], max(ALL[name]) + 1: quiet}) == []


@pytest.mark.parametrize("name", ALARM_NAMES)
def test_a_missing_metric_or_round_never_raises(name: str) -> None:
    found = ALL[name]
    for number, metrics in found.items():
        for key in metrics:
            without = {other: value for other, value in metrics.items() if other != key}
            assert names({**found, number: without}) in ([], [name])
    for number in set(found) - {max(found)}:
        assert names({other: metrics for other, metrics in found.items() if other != number}) in ([], [name])


def test_without_rounds_there_is_nothing_to_say() -> None:
    assert raised({}, AlarmsConfig()) == []
    assert raised({0: {HELD_OUT: 0.1, "evaluate/test/sampled_pass@8": 0.5}}, AlarmsConfig()) == []


def test_several_alarms_come_in_the_order_of_the_config() -> None:
    several = with_last(MEMORISED, train__skipped=1.0, select__kept_precision=0.1, sample__truncated_rate=0.9)
    found = raised(several, AlarmsConfig())
    assert [one.name for one in found] == ["no_survivors", "truncation", "memorising", "kept_precision"]
    assert all(isinstance(one, Alarm) and one.round == 3 for one in found)


KEYS = [
    *(ENTROPY, KL, ACCEPTANCE, DISTINCT, HELD_OUT, AGAIN),
    *("score/pass@4", "score/prompts", "score/candidates", "score/coverage_growth", "train/skipped"),
    *("evaluate/trained_gap", "evaluate/test/pass@1", "evaluate/test/sampled_pass@4"),
    "evaluate/test/sampled_pass@4_low",
]


@given(
    st.dictionaries(
        st.integers(0, 5), st.dictionaries(st.sampled_from(KEYS), st.sampled_from([0.0, 0.05, 0.5, 1.0])), max_size=6
    )
)
@settings(max_examples=300)
def test_whatever_was_measured_the_words_are_plain_and_whole(found: Rounds) -> None:
    for alarm in raised(found, AlarmsConfig()):
        assert alarm.round == max(found)
        assert alarm.name in ALARM_NAMES
        assert alarm.words
        assert not any(word in alarm.words for word in ("nan", "inf ", "None"))
        assert "\n" not in alarm.words


# The quick start, seed 0, as measured: recipes/quickstart, main, with sampled evaluation in every round.
QUICKSTART = history(
    {
        "train/skipped": (None, 0.0, 0.0, 0.0),
        "sample/truncated_rate": (None, 0.0703, 0.0, 0.0),
        ENTROPY: (None, 1.0011, 0.1601, 0.0749),
        KL: (None, 0.0, 0.3152, 0.2555),
        "score/prompts": (None, 128.0, 128.0, 128.0),
        "score/candidates": (None, 512.0, 512.0, 512.0),
        ACCEPTANCE: (None, 0.25, 0.5996, 0.7676),
        "score/pass@1": (None, 0.25, 0.5996, 0.7676),
        "score/pass@2": (None, 0.3685, 0.6771, 0.8177),
        "score/pass@4": (None, 0.4844, 0.7344, 0.8438),
        DISTINCT: (None, 1.0, 1.0, 1.0),
        AGAIN: (None, 0.0, 0.0, 0.0),
        "score/coverage_cumulative": (None, 0.4844, 0.6094, 0.6875),
        "select/kept_precision": (None, 1.0, 1.0, 1.0),
        "evaluate/trained/pass@1": (None, 0.9032, 1.0, 1.0),
        "evaluate/trained/prompts": (None, 62.0, 64.0, 64.0),
        "evaluate/trained_gap": (None, 0.2632, 0.28, 0.24),
        HELD_OUT: (0.33, 0.64, 0.72, 0.76),
        "evaluate/validate/pass@1_low": (0.24, 0.54, 0.63, 0.67),
        "evaluate/validate/pass@1_high": (0.43, 0.73, 0.81, 0.84),
        "evaluate/test/pass@1": (0.375, 0.64, 0.735, 0.72),
        "evaluate/test/sampled_pass@4": (0.37, 0.785, 0.85, 0.815),
        "evaluate/test/sampled_pass@4_low": (0.305, 0.725, 0.8, 0.76),
        "evaluate/test/sampled_pass@4_high": (0.44, 0.84, 0.895, 0.87),
    }
)


def up_to(found: Rounds, last: int) -> Rounds:
    return {number: metrics for number, metrics in found.items() if number <= last}


def test_the_quick_start_learns_without_an_alarm() -> None:
    # Before it has learnt anything, the base model goes on past the answer: 7 % of round 1's candidates are cut off.
    assert names(up_to(QUICKSTART, 1)) == ["truncation"]
    assert names(up_to(QUICKSTART, 1), truncated_rate=0.1) == []
    assert [names(up_to(QUICKSTART, last)) for last in (0, 2, 3)] == [[], [], []]


@pytest.mark.parametrize("unseen", ["evaluate/validate", "evaluate/test", "evaluate/trained"])
def test_the_quick_start_is_quiet_whichever_sets_it_has(unseen: str) -> None:
    fewer = {
        number: {key: value for key, value in metrics.items() if not key.startswith(unseen)}
        for number, metrics in QUICKSTART.items()
    }
    assert [names(up_to(fewer, last)) for last in (2, 3)] == [[], []]


def test_a_last_round_that_chance_makes_worse_is_no_alarm() -> None:
    # 128 fresh prompts and 100 held-out ones: a few points either way are chance.
    unlucky = with_last(
        QUICKSTART, **{"score/pass@4": 0.70, ACCEPTANCE: 0.62, HELD_OUT: 0.70, "evaluate/trained_gap": 0.34}
    )
    assert names(unlucky) == []


def test_rules_that_follow_one_policy_into_the_next_round_are_silent_after_a_fallback() -> None:
    jumping = {1: {KL: 0.01}, 2: {KL: 0.2}, 3: {KL: 0.9}}
    assert names(jumping) == ["kl_jump"]
    assert names({**jumping, 3: {KL: 0.9, "sample/policy_round": 2.0}}) == ["kl_jump"]
    assert names({**jumping, 3: {KL: 0.9, "sample/policy_round": 1.0}}) == []
