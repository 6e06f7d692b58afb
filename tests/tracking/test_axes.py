import pytest

from selftrain.tracking.axes import (
    alarm_of,
    axis_of,
    chart_points,
    patterns,
    run_id,
    run_name,
    shown_config,
    summary_values,
)

PHASE = {"arm": "main", "round": 2, "phase": "train", "key": "main/2/train", "train/loss": 0.5, "train/steps": 4}
STEP = {**PHASE, "global_step": 11, "round_step": 3}
CONTROL = {"arm": "random_selection"}
ALARM = {"arm": "main", "round": 2, "phase": "alarm", "key": "k", "alarm": "no_survivors", "words": "None were left."}


def test_a_phase_lies_on_the_round_and_a_step_on_the_global_step():
    assert chart_points(PHASE) == {"round": 2, "train/loss": 0.5, "train/steps": 4}
    assert chart_points(STEP) == {"global_step": 11, "train_step/loss": 0.5, "train_step/steps": 4}


@pytest.mark.parametrize("row", [PHASE, STEP])
def test_arms_have_the_same_keys_on_the_same_axes(row):
    assert chart_points({**row, **CONTROL}) == chart_points(row)
    assert patterns({**row, **CONTROL}) == patterns(row)


def test_an_arm_is_told_from_main_by_its_name_and_id():
    assert (run_name("a run", "main"), run_id("abc", "main")) == ("a run", "abc")
    assert (run_name("a run", "gold"), run_id("abc", "gold")) == ("a run.gold", "abc-gold")


def test_no_pattern_of_one_axis_covers_a_key_of_the_other():
    rows = [PHASE, STEP, {**PHASE, "phase": "sample", "sample/tokens": 1}]
    for one in rows:
        for other in rows:
            covered = [
                key
                for key in chart_points(one)
                for pattern in patterns(other)
                if key.startswith(pattern.removesuffix("*"))
            ]
            assert not covered or axis_of(one) == axis_of(other)


def test_text_and_nulls_have_no_point():
    assert chart_points({**PHASE, "train/loss": None, "train/steps": "four", "non_finite": "train/loss"}) == {}


def test_a_metric_without_a_section_goes_under_its_phase():
    assert chart_points({**STEP, "train/steps": None, "train/loss": None, "lr": 1e-4}) == {
        "global_step": 11,
        "train_step/lr": 1e-4,
    }


def test_the_summary_sheds_its_prefix_and_is_in_no_chart():
    row = {"arm": "main", "round": 3, "phase": "summary", "key": "summary", "summary/best_round": 2, "summary/x": None}
    assert summary_values(row) == {"best_round": 2}
    assert chart_points(row) == {}


def test_an_alarm_is_a_title_and_a_sentence_and_no_point():
    assert alarm_of(ALARM) == ("main · round 2: no_survivors", "None were left.")
    assert chart_points({**ALARM, "how_much": 1.0}) == {}
    assert patterns(ALARM) == []


def test_an_arm_shows_its_own_knobs_where_main_shows_them():
    config = {
        "sample": {"temperature": 0.7, "stop": {"at": 1}},
        "arms": {"hot": {"sample.temperature": 1.2, "sample.params": {"token": "secret"}, "score.scorers": ["x"]}},
    }
    assert shown_config(config, "hot") == {
        "sample": {"temperature": 1.2, "stop": {"at": 1}},
        "arms": ["hot"],
        "arm": "hot",
    }
    assert shown_config(config, "main")["sample"] == config["sample"]
    assert shown_config({"arms": ["hot"]}, "hot") == {"arms": ["hot"], "arm": "hot"}
