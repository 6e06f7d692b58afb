"""Whose fault it is where a worker does not answer: the text's where a built-in rule is asked, else nobody can tell."""

from __future__ import annotations

from pathlib import Path

import pytest
from groups import make_group

from selftrain.config import ScoreConfig
from selftrain.scoring import SCORERS, Asked, BuiltIn, Verdict, build
from selftrain.scoring.functions import FunctionJudge
from selftrain.scoring.judges import RuleJudge

RULE = """
import os
import time


def rule(text, reference):
    while text == "spin":
        pass
    if text == "sleep":
        time.sleep(60)
    if text == "die":
        os._exit(3)
    return 1.0
"""


@pytest.mark.parametrize(
    ("is_rule", "spin", "sleep", "die"),
    [
        (
            True,
            (0.0, None, "judging it took over the time limit of 0.5 s, twice"),
            (None, "timed out after 0.5 s", None),
            (0.0, None, "judging it ended the process that does so, twice (exit code 3)"),
        ),
        (
            False,
            (None, "timed out after 0.5 s", None),
            (None, "timed out after 0.5 s", None),
            (None, "the worker died twice (exit code 3)", None),
        ),
    ],
    ids=["rule", "function"],
)
def test_what_a_text_does_to_a_rule_makes_it_wrong_and_what_it_does_to_a_users_function_leaves_it_unscored(
    tmp_path: Path, is_rule: bool, spin: object, sleep: object, die: object
) -> None:
    (tmp_path / "rule.py").write_text(RULE)
    group = make_group(["a", "spin", "b", "sleep", "die", "c"])
    judge = FunctionJudge("rule.py:rule", base=tmp_path, params={}, timeout_seconds=0.5, is_rule=is_rule)
    try:
        verdicts = judge.judge(group.prompt, [Asked(one, one.text) for one in group.candidates])
    finally:
        judge.close()
    said = [(verdict.value, verdict.error, verdict.explanation) for verdict in verdicts]
    right = (1.0, None, "the function gave 1")
    assert said == [right, spin, right, sleep, die, right]


def test_a_text_that_a_rule_stumbles_over_is_wrong(tmp_path: Path) -> None:
    group = make_group([f"1{'0' * 400}", "1.5", "1.2"])
    score = {"scorers": [{"name": "json_schema", "params": {"schema": {"multipleOf": 0.5}, "match": "none"}}]}
    with build(ScoreConfig.model_validate(score), tmp_path) as scorer:
        stumbled, right, wrong = scorer.score(group)
    assert (stumbled.value, stumbled.error) == (0.0, None)
    assert "the rule cannot read it: OverflowError" in str(stumbled.explanation)
    assert (right.value, wrong.value) == (1.0, 0.0)


def stumbles(text: str, reference: str) -> Verdict:
    if reference == "useless" or text == "odd":
        raise ValueError("not this one")
    return Verdict(float(text == reference))


def test_a_rule_in_this_process_tells_the_texts_fault_from_the_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORERS, "stumbles", BuiltIn(f"{__name__}:stumbles"))
    for reference, said in (("7", [1.0, 0.0, 0.0]), ("useless", [None, None, None])):
        group = make_group(["7", "odd", "8"], reference=reference)
        judge = RuleJudge("stumbles", SCORERS["stumbles"], {}, Path(), 1.0)
        asked = [Asked(one, one.text) for one in group.candidates]
        assert [one.value for one in judge.judge(group.prompt, asked)] == said
