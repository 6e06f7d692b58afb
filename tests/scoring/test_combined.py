from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from groups import make_group, make_prompt
from hypothesis import given
from hypothesis import strategies as st

from selftrain.config import ScoreConfig
from selftrain.errors import ConfigError, DataError, Interrupted
from selftrain.scoring import SCORERS, build, check, rules
from selftrain.scoring.combined import CombinedScorer
from selftrain.scoring.judges import RuleJudge

OF_NUMBERS = ("exact", "normalised", "numeric", "regex", "math", "json_schema")


def config(*scorers: Any, **others: Any) -> ScoreConfig:
    return ScoreConfig.model_validate({"scorers": scorers, **others})


def scorer(*scorers: Any, **others: Any) -> CombinedScorer:
    return build(config(*scorers, **others), Path())


def test_every_built_in_scorer_is_tried_here_or_in_a_file_of_its_own() -> None:
    of_models = {"reward_model", "process_reward_model", "llm_judge"}
    assert set(SCORERS) == {*OF_NUMBERS, *of_models, "choice", "reasoning_gym", "code", "majority", "given"}


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_every_built_in_scorer_gives_one_score_per_candidate_in_order(name: str) -> None:
    params = {"pattern": r"(\d+)"} if name == "regex" else {}
    with scorer({"name": name, "params": params}) as built:
        scores = built.score(make_group(["57", "58", "", " 57 "]))
    assert [score.candidate_id for score in scores] == ["p/0", "p/1", "p/2", "p/3"]
    assert [score.value for score in scores] == [1.0, 0.0, 0.0, 1.0]
    assert [score.correct for score in scores] == [True, False, False, True]
    assert all(score.explanation and score.error is None for score in scores)


def test_the_value_is_the_weighted_mean_of_the_scorers() -> None:
    with scorer({"name": "exact", "weight": 3}, {"name": "numeric", "weight": 1}, correct_at=0.25) as built:
        (half, none) = built.score(make_group(["57.0", "58"]))
    assert (half.value, half.correct, half.parts) == (0.25, True, {"exact": 0.0, "numeric": 1.0})
    assert (none.value, none.correct) == (0.0, False)
    assert (
        half.explanation
        == "exact: the text is '57.0', the reference '57'; numeric: the number '57.0' is the reference's"
    )


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=4))
def test_a_candidate_that_every_scorer_calls_right_is_right_whatever_the_weights(weights: list[float]) -> None:
    built = scorer(*[{"name": "exact", "weight": weight} for weight in weights])
    right, wrong = built.score(make_group(["57", "58"]))
    assert (right.value, right.correct) == (1.0, True)
    assert (wrong.value, wrong.correct) == (0.0, False)
    assert len(right.parts) == len(weights)


def test_one_part_without_a_value_leaves_the_whole_unscored(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text("def grade(text):\n    return {'a': 1, 'b': None}[text]")
    with build(config("half.py:grade", "exact"), tmp_path) as built:
        scored, unscored = built.score(make_group(["a", "b"], reference="b"))
    assert scored.value == 0.5
    assert (unscored.value, unscored.correct) == (None, None)
    assert unscored.parts == {"half.py:grade": None, "exact": 1.0}
    assert unscored.error == "half.py:grade: the function returned None"


def test_a_text_on_which_a_pattern_backtracks_for_ever_is_wrong() -> None:
    entry = {"name": "regex", "params": {"pattern": r"^((?:a+)+)$"}}
    with scorer(entry, timeout_seconds=0.5) as built:
        scores = built.score(make_group(["aaaa", "a" * 60 + "!", "57"], reference="aaaa"))
    assert [score.value for score in scores] == [1.0, 0.0, 0.0]
    assert scores[1].explanation == "judging it took over the time limit of 0.5 s, twice"


def test_a_prompt_without_a_reference_is_refused_at_load_and_unscored_otherwise() -> None:
    built = scorer("exact")
    with pytest.raises(DataError, match="prompt p: there is no reference"):
        built.check_references([make_prompt(reference=None)])
    (score,) = built.score(make_group(["57"], reference=None))
    assert (score.value, score.correct, score.error) == (None, None, "the prompt has no reference")


def test_references_that_a_rule_cannot_use_are_counted_and_shown() -> None:
    built = scorer("numeric")
    built.check_references([make_prompt(str(number), str(number)) for number in range(9)])
    with pytest.raises(DataError, match=r"references of 7 prompts:(?s:.*)prompt x4(?s:.*)and 2 more"):
        built.check_references([make_prompt(f"x{number}", "no number") for number in range(7)])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("numerc", "did you mean numeric"),
        (
            "accuracy",
            "unknown scorer 'accuracy'; known: exact, normalised, .*, json_schema, reasoning_gym",
        ),
        ({"name": "exact", "params": {"stirp": True}}, r"params.stirp: there is no such parameter; known: strip"),
        ({"name": "exact", "params": {"strip": "yes"}}, "params.strip"),
        ({"name": "exact", "params": {"stirp": True}}, "did you mean strip"),
        ({"name": "numeric", "params": {"take": "best"}}, "params.take"),
        ({"name": "regex", "params": {"pattern": "(a)", "compare": "numerik"}}, "did you mean numeric"),
        ({"name": "math", "params": {"tolerance": 1}}, "no such parameter; known: fallback"),
        ({"name": "math", "extract": "code"}, "would find nothing right: a block of code is no expression"),
        ({"name": "numeric", "extract": "json"}, "compared by json_schema"),
        ({"name": "choice", "extract": "code"}, "no letter"),
        ({"name": "json_schema", "extract": "boxed"}, "would find nothing right"),
        ({"name": "json_schema", "params": {"match": "none"}}, "would find every JSON value right"),
        ({"name": "json_schema", "params": {"match": "subst"}}, "did you mean subset"),
        ({"name": "json_schema", "params": {"schema": {"type": "objekt"}}}, "params.schema: it is no JSON schema"),
        ({"name": "json_schema", "params": {"schema": {"$ref": "https://e.org/s.json"}}}, "leads nowhere"),
        ({"name": "numeric", "params": {"tolerance": -1}}, "params.tolerance"),
        ({"name": "numeric", "params": {"tolerance": "much"}}, "params.tolerance"),
        ({"name": "regex"}, "params.pattern is missing"),
        ({"name": "regex", "params": {"pattern": "("}}, "not a regular expression"),
        ({"name": "regex", "params": {"pattern": "57"}}, "needs one group"),
        ({"name": "regex", "params": {"pattern": "(a)(b)"}}, "needs one group"),
    ],
)
def test_a_mistake_in_the_config_is_refused_with_the_remedy(entry: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(config(entry))


def test_a_whole_number_is_a_tolerance() -> None:
    check(config({"name": "numeric", "params": {"tolerance": 1}}))


def test_a_closed_scorer_judges_no_more() -> None:
    built = scorer("exact")
    built.close()
    with pytest.raises(Interrupted, match="closed"):
        built.score(make_group(["57"]))


def test_every_part_is_closed_whatever_another_one_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    def broken(self: RuleJudge) -> None:
        closed.append(self)
        raise RuntimeError("it does not close")

    built = scorer("exact", "normalised")
    monkeypatch.setattr(RuleJudge, "close", broken)
    with pytest.raises(RuntimeError, match="does not close"):
        built.close()
    assert len(closed) == 2


def test_a_rule_that_runs_out_of_memory_leaves_its_candidate_unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(text: str, **knobs: Any) -> str:
        raise MemoryError

    with scorer("normalised") as built:
        monkeypatch.setattr(rules, "normal_form", full)
        (score,) = built.score(make_group(["57"]))
    assert score.value is None
    assert score.error is not None
    assert "MemoryError" in score.error
