"""Whose fault it is where a worker does not answer: the text's where a built-in rule is asked, else nobody can tell."""

from __future__ import annotations

from pathlib import Path

import pytest
from groups import make_group

from selftrain.scoring import Asked
from selftrain.scoring.functions import FunctionJudge

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
