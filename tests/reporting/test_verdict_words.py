"""What is said of a candidate: right or wrong only where its value can say so."""

from __future__ import annotations

import json
from typing import Any

import pytest

from selftrain.config import ScoreConfig
from selftrain.reporting.verifying import verdict_lines
from selftrain.summaries import right_words, scored_words, verdict_of

EXACT_ALONE: Any = ("exact",)
VOTE: Any = ("majority",)
EXACT: Any = {"name": "exact", "weight": 0}
GIVEN: Any = {"name": "given", "params": {"column": "x"}}


def said(scorers: tuple[Any, ...], value: float | None, correct: bool | None, **parts: float | None) -> str:
    score = {"value": value, "correct": correct, "parts": json.dumps(parts)}
    return verdict_of(ScoreConfig(scorers=scorers), score)


@pytest.mark.parametrize(
    ("scorers", "value", "correct", "parts", "words"),
    [
        (("exact",), 1.0, True, {"exact": 1.0}, "right"),
        (("exact",), 0.0, False, {"exact": 0.0}, "wrong"),
        (("exact",), None, None, {"exact": None}, ""),
        ((GIVEN,), 0.996, False, {"given": 0.996}, "not correct (score.correct_at 1)"),
        ((GIVEN,), 3.5, True, {"given": 3.5}, "correct (score.correct_at 1)"),
        (
            (GIVEN, EXACT),
            0.996,
            False,
            {"given": 0.996, "exact": 1.0},
            "not correct (score.correct_at 1), right by exact",
        ),
        (("majority", EXACT), 1.0, True, {"majority": 1.0, "exact": 1.0}, "right"),
        (("majority", EXACT), 1.0, True, {"majority": 1.0, "exact": 0.0}, "agrees with the vote, wrong by exact"),
        (("majority", EXACT), 0.0, False, {"majority": 0.0, "exact": 1.0}, "differs from the vote, right by exact"),
        (("math", EXACT), 1.0, True, {"math": 1.0, "exact": 0.0}, "right, wrong by exact"),
    ],
)
def test_a_candidate_is_called_what_its_value_can_say(
    scorers: tuple[Any, ...], value: float | None, correct: bool | None, parts: dict[str, float | None], words: str
) -> None:
    assert said(scorers, value, correct, **parts) == words


def test_candidates_are_counted_as_what_they_are() -> None:
    graded: Any = [{"value": 0.3}, {"value": 1.0}, {"value": None}]
    plain: Any = [{"value": 0.0}, {"value": None}]
    assert right_words(ScoreConfig(scorers=(GIVEN,), correct_at=0.5), graded) == "correct (score.correct_at 0.5)"
    assert right_words(ScoreConfig(scorers=EXACT_ALONE), plain) == "right"
    assert right_words(ScoreConfig(scorers=VOTE), plain) == "voted for"


def test_the_line_of_a_scored_round_tells_graded_values_by_their_median() -> None:
    plain = {"score/correct_rate": 0.614, **dict.fromkeys(("score/value_p10", "score/value_p50"), 0.0)}
    plain["score/value_p90"] = 1.0
    assert scored_words(ScoreConfig(scorers=EXACT_ALONE), plain) == "61.4% correct"
    assert scored_words(ScoreConfig(scorers=VOTE), plain) == "61.4% agree with the vote"
    assert scored_words(ScoreConfig(scorers=(GIVEN,)), {**plain, "score/value_p50": 0.91}) == "median value 0.91"


def test_verify_calls_no_graded_value_wrong() -> None:
    data: dict[str, Any] = {
        **dict.fromkeys(("task", "reference", "reasoning", "answer", "error")),
        **dict.fromkeys(("recipe", "set", "prompt_id", "prompt", "text"), "x"),
        "notes": [],
        "scorers": [],
        "extras": {},
        "correct_at": 1.0,
        "correct": False,
        "value": 0.996,
    }
    assert verdict_lines(data)[-1].text == "value 0.996, not correct (score.correct_at 1)"
    assert verdict_lines({**data, "value": 0.0})[-1].text.startswith("wrong: value 0")
