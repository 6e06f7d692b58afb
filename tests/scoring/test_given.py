from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import ScoreConfig
from selftrain.errors import ConfigError
from selftrain.records import Candidate, Group, Prompt, Score
from selftrain.scoring import build, check

PROMPT = Prompt("p", "p", None, "one?", None)


def candidate(number: int, metadata: dict[str, Any]) -> Candidate:
    return Candidate(f"c{number}", "p", number, 0, "1", (), (), "stop_token", 0, "", (), metadata=metadata)


def scores(rows: list[dict[str, Any]], correct_at: float = 0.5, **params: Any) -> list[Score]:
    config = ScoreConfig.model_validate({"scorers": [{"name": "given", "params": params}], "correct_at": correct_at})
    with build(config, Path()) as scorer:
        return list(scorer.score(Group(PROMPT, tuple(candidate(number, row) for number, row in enumerate(rows)))))


def test_the_value_is_the_number_in_the_candidates_own_column() -> None:
    found = scores(
        [{"reward": 0.25}, {"reward": 1}, {"reward": "0.75"}, {"reward": True}, {"reward": -3}], column="reward"
    )
    assert [one.value for one in found] == [0.25, 1.0, 0.75, 1.0, -3.0]
    assert [one.correct for one in found] == [False, True, True, True, False]
    assert found[0].explanation is not None
    assert "reward is 0.25" in found[0].explanation


def test_values_are_raised_to_the_minimum_and_then_scaled() -> None:
    found = scores([{"stars": 5}, {"stars": 1}, {"stars": -2}], column="stars", minimum=0.0, scale=0.2)
    assert [one.value for one in found] == [pytest.approx(1.0), pytest.approx(0.2), 0.0]


@pytest.mark.parametrize("value", [None, "good", math.nan, math.inf, [1.0], {"a": 1}])
def test_a_candidate_without_a_number_is_unscored_and_says_why(value: Any) -> None:
    (found,) = scores([{"reward": value}], column="reward")
    assert found.value is None
    assert found.correct is None
    assert found.error is not None
    assert "holds no number" in found.error


def test_a_number_that_no_mean_can_take_in_is_no_value() -> None:
    found = scores([{"reward": 1e308}, {"reward": -1e308}, {"reward": 1e99}], column="reward")
    assert [one.value for one in found] == [None, None, 1e99]
    assert "reward is -1e+308, and values over 1e+100 cannot be averaged" in str(found[1].error)
    assert [one.value for one in scores([{"reward": 1e99}], column="reward", scale=1e9)] == [None]


def test_a_candidate_without_the_column_names_those_that_it_has() -> None:
    (found,) = scores([{"score": 1.0, "level": 2}], column="reward")
    assert found.value is None
    assert found.error is not None
    assert "brought no column 'reward'" in found.error
    assert "score, level" in found.error


def test_parameters_are_checked_before_any_work() -> None:
    with pytest.raises(ConfigError, match=r"params.colum: there is no such parameter.*did you mean column"):
        check(ScoreConfig.model_validate({"scorers": [{"name": "given", "params": {"colum": "x"}}]}), Path())
    with pytest.raises(ConfigError, match=r"params.scale"):
        check(
            ScoreConfig.model_validate({"scorers": [{"name": "given", "params": {"column": "x", "scale": "two"}}]}),
            Path(),
        )
