"""The rule `math`, in its worker as a run has it, asked about what is made to break it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from groups import make_group, make_prompt
from hostile_mathematics import REFERENCES, hostile_answers

from selftrain.config import ScoreConfig
from selftrain.scoring import Asked, build
from selftrain.scoring.combined import CombinedScorer
from selftrain.scoring.functions import FunctionJudge
from selftrain.scoring.worker import RULE_BYTES

LIMIT_SECONDS = 10.0
MANY = 10_000
SOME = 1_500

BOMBS = (
    ("2^{2^{40}}", "x^{2^{y}}"),
    (r"\frac{(10^6)!}{3}", "n!"),
    (r"\binom{10^9}{5 \cdot 10^8}", r"\binom{n}{k}"),
    (r"\sum_{k=1}^{10^9} k!", r"\sum_{k=1}^{n} k!"),
    (r"\prod_{k=1}^{99999} (k+x)", r"\prod_{k=1}^{n} (k+x)"),
    ("((9^{999})^{999})^{999}", "(x^{9})^{9}"),
    ("(x+y+z+n)^{999}", "(x+y)^{99}"),
    (r"\begin{pmatrix}" + "1&" * 120 + r"1\end{pmatrix}^{999}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^{999}"),
)


@pytest.fixture(scope="module")
def scorer() -> Iterator[CombinedScorer]:
    knobs = ScoreConfig.model_validate({"scorers": ["math"], "timeout_seconds": LIMIT_SECONDS, "workers": 1})
    with build(knobs, Path()) as built:
        yield built


def test_the_references_of_the_hostile_answers_can_be_used(scorer: CombinedScorer) -> None:
    scorer.check_references([make_prompt(str(number), one) for number, one in enumerate(REFERENCES)])


def ask(scorer: CombinedScorer, answers: Iterator[tuple[str, str]]) -> tuple[int, float]:
    """How many were asked about, and the longest time that one of them took."""
    count, slowest = 0, 0.0
    for text, reference in answers:
        start = time.monotonic()
        (score,) = scorer.score(make_group([text], reference=reference))
        slowest = max(slowest, time.monotonic() - start)
        assert (score.value, score.error) == (0.0, None), (text[:200], reference, score)
        assert "time limit" not in str(score.explanation), (text[:200], reference)
        count += 1
    return count, slowest


def test_hostile_answers_are_wrong_and_end_in_time(scorer: CombinedScorer) -> None:
    count, slowest = ask(scorer, hostile_answers(SOME))
    assert count == SOME
    assert slowest < LIMIT_SECONDS


@pytest.mark.slow
def test_ten_thousand_hostile_answers_are_wrong_and_end_in_time(scorer: CombinedScorer) -> None:
    count, slowest = ask(scorer, hostile_answers(MANY))
    assert count == MANY
    assert slowest < LIMIT_SECONDS


def test_hostile_answers_are_the_same_at_every_call_and_of_many_kinds() -> None:
    first, second = list(hostile_answers(400)), list(hostile_answers(400))
    assert first == second
    texts = "".join(text for text, _ in first)
    assert any(0xD800 <= ord(sign) < 0xE000 for sign in texts)
    assert any(len(text) > 90_000 for text, _ in hostile_answers(400))
    assert "\u202e" in texts
    assert "\u200b" in texts


@pytest.mark.slow
@pytest.mark.parametrize(("bomb", "reference"), BOMBS)
def test_what_fills_memory_or_time_is_wrong_and_the_next_answer_is_judged(bomb: str, reference: str) -> None:
    knobs = ScoreConfig.model_validate({"scorers": ["math"], "timeout_seconds": LIMIT_SECONDS, "workers": 1})
    with build(knobs, Path()) as built:
        exploded, next_one = built.score(
            make_group([rf"\boxed{{{bomb}}}", rf"\boxed{{{reference}}}"], reference=reference)
        )
    assert (exploded.value, exploded.error) == (0.0, None), exploded.explanation
    assert next_one.value == 1.0


RULE = """
def prepare():
    pass


def rule(text, reference):
    return float(len(bytearray(int(text) << 20)) > 0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone holds a process to its address space")
def test_a_rule_has_four_more_gigabytes_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "rule.py").write_text(RULE)
    names: dict[str, Any] = {
        "prepare": "rule.py:prepare",
        "timeout_seconds": LIMIT_SECONDS,
        "params": {},
        "base": tmp_path,
    }
    judge = FunctionJudge("rule.py:rule", is_rule=True, **names)
    try:
        group = make_group(["100", str(RULE_BYTES >> 19), "100"])
        verdicts = judge.judge(group.prompt, [Asked(one, one.text) for one in group.candidates])
    finally:
        judge.close()
    assert [verdict.value for verdict in verdicts] == [1.0, None, 1.0]
    assert str(verdicts[1].error).startswith("MemoryError")
