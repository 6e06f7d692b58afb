from selftrain.tracking.axes import axis_of, chart_points, patterns, summary_values

PHASE = {"arm": "main", "round": 2, "phase": "train", "key": "main/2/train", "train/loss": 0.5, "train/steps": 4}
STEP = {**PHASE, "global_step": 11, "round_step": 3}
CONTROL = {"arm": "random_selection"}


def test_a_phase_lies_on_the_round_and_a_step_on_the_global_step():
    assert chart_points(PHASE) == {"round": 2, "train/loss": 0.5, "train/steps": 4}
    assert chart_points(STEP) == {"global_step": 11, "train_step/loss": 0.5, "train_step/steps": 4}


def test_another_arm_has_its_own_keys_on_the_same_axes():
    assert chart_points({**PHASE, **CONTROL}) == {
        "round": 2,
        "random_selection/train/loss": 0.5,
        "random_selection/train/steps": 4,
    }
    assert patterns({**STEP, **CONTROL}) == ["random_selection/train_step/*"]


def test_no_pattern_of_one_axis_covers_a_key_of_the_other():
    rows = [PHASE, STEP, {**PHASE, **CONTROL}, {**STEP, **CONTROL}]
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


def test_the_summary_sheds_its_prefix():
    row = {"arm": "main", "round": 3, "phase": "summary", "key": "summary", "summary/best_round": 2, "summary/x": None}
    assert summary_values(row) == {"best_round": 2}
