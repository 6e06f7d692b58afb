"""The scorer `majority`: votes worked out by hand, what has no vote, and that no reference is ever read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from groups import make_candidate, make_prompt

from selftrain.config import ScoreConfig
from selftrain.errors import ConfigError
from selftrain.records import Group, Prompt, Score
from selftrain.scoring import Asked, Verdict, build, part_names, truth_of
from selftrain.scoring.combined import CombinedScorer
from selftrain.scoring.functions import FunctionJudge
from selftrain.scoring.majority import Rules, vote

PROMPT = make_prompt("p")


@contextmanager
def scorer_of(*scorers: Any, **knobs: Any) -> Iterator[CombinedScorer]:
    with build(ScoreConfig(scorers=scorers, **knobs), Path()) as scorer:
        yield scorer


def scored(scorer: CombinedScorer, *texts: str, prompt: Prompt = PROMPT, cut: tuple[int, ...] = ()) -> list[Score]:
    candidates = [
        replace(make_candidate("p", index, text), finish_reason="length" if index in cut else "stop_token")
        for index, text in enumerate(texts)
    ]
    return list(scorer.score(Group(prompt, tuple(candidates))))


def values(*texts: str, cut: tuple[int, ...] = (), extract: Any = "whole", **params: Any) -> list[float | None]:
    with scorer_of({"name": "majority", "params": params, "extract": extract}) as scorer:
        return [one.value for one in scored(scorer, *texts, cut=cut)]


RULES = Rules("text", 2, 0.0, 0.0)


@pytest.mark.parametrize(
    ("kinds", "rules", "winner", "share"),
    [
        ([0, 0, 1], RULES, 0, 2 / 3),
        ([0, 1, 1, None], RULES, 1, 2 / 3),
        ([0, 0, 1, 1, 2], RULES, None, 2 / 5),
        ([0], RULES, None, 1.0),
        ([0], replace(RULES, min_votes=1), 0, 1.0),
        ([None, None], RULES, None, None),
        ([], RULES, None, None),
        ([0, 0, 1, 2], replace(RULES, min_agreement=0.5), 0, 0.5),
        ([0, 0, 1, 2, 3], replace(RULES, min_agreement=0.5), None, 0.4),
        ([0, 0, 0, None, None, None], replace(RULES, min_agreement=1.0), 0, 1.0),
        ([0, 0, 0, None, None, None, None], replace(RULES, min_agreement_of_all=0.5), None, 1.0),
        ([0, 0, 0, None, None, None], replace(RULES, min_agreement_of_all=0.5), 0, 1.0),
    ],
)
def test_votes(kinds: list[int | None], rules: Rules, winner: int | None, share: float | None) -> None:
    found = vote(kinds, rules)
    assert (found.winner, found.share) == (winner, None if share is None else pytest.approx(share))
    assert found.why.startswith("the majority" if winner is not None else "no majority")


def test_the_candidates_of_the_majority_are_right_and_the_others_wrong() -> None:
    assert values("5", "6", "5", "7") == [1.0, 0.0, 1.0, 0.0]
    assert values("five", "Five ", "six") == [1.0, 1.0, 0.0]


def test_of_tied_answers_none_wins() -> None:
    with scorer_of("majority") as scorer:
        found = scored(scorer, "5", "6", "5", "6")
    assert [one.value for one in found] == [0.0] * 4
    assert all("no majority: a tie of '5', '6' with 2 of 4 votes each" in str(one.explanation) for one in found)


def test_who_was_cut_off_or_has_no_answer_has_no_vote() -> None:
    assert values("5", "5", "6", "6", "6", cut=(3, 4)) == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert values("5", "", " ", "5") == [1.0, 0.0, 0.0, 1.0]
    boxed = (r"\boxed{5}", r"so \boxed{ 5 }", "it is 6", "6", "6", "6")
    assert values(*boxed, extract="boxed") == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert values(*boxed, extract="boxed", min_agreement=1.0) == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert values(*boxed, extract="boxed", min_agreement_of_all=0.5) == [0.0] * 6
    assert values("a: 5", "a: 5", "6", extract={"regex": r"a: (\d)"}) == [1.0, 1.0, 0.0]


def test_numbers_are_the_same_however_they_are_written() -> None:
    assert values("1,234", "1234.0", "$1234", "7", normalise="number") == [1.0, 1.0, 1.0, 0.0]
    assert values("5", "5%", "5", normalise="number") == [1.0, 0.0, 1.0]
    assert values("0", "-0", "0.00", "5 or 6", "no", normalise="number") == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert values("1e3", "1000", "100", normalise="number") == [1.0, 1.0, 0.0]


def test_expressions_are_the_same_where_each_is_right_for_the_other() -> None:
    texts = (r"\frac{1}{2}", "0.5", "1/2", "2/4", "1/3", "what?", r"\sqrt{2}", r"\frac{2}{\sqrt{2}}")
    assert values(*texts, normalise="math") == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert values("2+3", "5", "5", normalise="math") == [0.0, 1.0, 1.0]
    with scorer_of({"name": "majority", "params": {"normalise": "math"}, "extract": "boxed"}) as scorer:
        found = scored(scorer, r"so \boxed{0.50}", r"\boxed{1/2}", r"\boxed{3}")
    assert [one.value for one in found] == [1.0, 1.0, 0.0]
    assert found[0].answer == found[1].answer, "votes for one answer are counted together"


def test_where_the_machine_fails_at_one_answer_no_vote_of_its_prompt_is_scored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judge = FunctionJudge.judge

    def killed(self: FunctionJudge, prompt: Prompt, asked: Sequence[Asked]) -> list[Verdict]:
        found = judge(self, prompt, asked)
        died = Verdict(None, error="the worker died twice (signal 9)")
        return [died if one.text == "7/2" else verdict for one, verdict in zip(asked, found, strict=True)]

    monkeypatch.setattr(FunctionJudge, "judge", killed)
    with scorer_of({"name": "majority", "params": {"normalise": "math", "min_agreement_of_all": 0.5}}) as scorer:
        found = scored(scorer, "7/2", "5", "what?", "5", "7/2")
    assert [one.value for one in found] == [None, None, 0.0, None, None]
    assert found[0].error == "its answer could not be compared: the worker died twice (signal 9)"
    assert found[1].error is not None, "with its vote 7/2 might have tied with 5"
    assert found[1].error.startswith(
        "the votes on its prompt cannot be counted: of another answer, its answer could not"
    )
    assert found[2].explanation == "no vote: it has no answer; the votes on its prompt cannot be counted"


def test_a_single_answer_is_no_majority_unless_that_is_asked_for() -> None:
    assert values("5") == [0.0]
    assert values("5", min_votes=1) == [1.0]


def test_changing_or_taking_away_references_changes_no_score() -> None:
    texts = ["5", "6", "5", "five", "5 "]
    with scorer_of("majority") as scorer:
        found = [
            scored(scorer, *texts, prompt=replace(PROMPT, reference=reference, completion=completion, metadata=more))
            for reference, completion, more in (
                (None, None, {}),
                ("5", "it is 5", {"answer": "5"}),
                ("6", "6", {"answer": "6", "solution": "6"}),
            )
        ]
        scorer.check_references([replace(PROMPT, reference=None)])
    assert found[0] == found[1] == found[2]
    assert found[0][0].value == 1.0


def test_the_vote_is_counted_once_for_each_prompt() -> None:
    with scorer_of("majority") as scorer:
        found = scored(scorer, "5", "5", "6")
        tied = scored(scorer, "5", "6")
        empty = scored(scorer, "", "")
    assert found[0].extras == {"score/label_coverage": [1.0], "score/majority_share": [pytest.approx(2 / 3)]}
    assert [one.extras for one in found[1:]] == [{}, {}]
    assert tied[0].extras == {"score/label_coverage": [0.0], "score/majority_share": [0.5]}
    assert empty[0].extras == {"score/label_coverage": [0.0]}


def test_the_scorer_of_weight_0_beside_it_is_what_labels_are_measured_by() -> None:
    scorers = ["majority", {"name": "exact", "gate": True, "weight": 0}, {"name": "exact", "weight": 0}]
    config = ScoreConfig(scorers=scorers)
    assert part_names(config.scorers) == ["majority", "exact", "exact#2"]
    assert truth_of(config) == ("exact#2", "majority")
    assert truth_of(ScoreConfig(scorers=["exact"])) == (None, None)
    prompt = replace(PROMPT, reference="6")
    with scorer_of("majority", {"name": "exact", "weight": 0}) as scorer:
        found = scored(scorer, "5", "5", "6", prompt=prompt)
    assert [(one.value, one.parts) for one in found] == [
        (1.0, {"majority": 1.0, "exact": 0.0}),
        (1.0, {"majority": 1.0, "exact": 0.0}),
        (0.0, {"majority": 0.0, "exact": 1.0}),
    ]


def test_parameters_that_it_does_not_have_are_refused() -> None:
    for params, words in (
        ({"normalise": "numbers"}, "did you mean number"),
        ({"min_vote": 3}, "did you mean min_votes"),
        ({"min_agreement": 1.5}, "less than or equal to 1"),
        ({"min_votes": 0}, "greater than or equal to 1"),
    ):
        with pytest.raises(ConfigError, match=words), scorer_of({"name": "majority", "params": params}):
            pass
