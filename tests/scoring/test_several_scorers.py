from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from groups import make_group, make_prompt

from selftrain.config import ScoreConfig, ScorerConfig
from selftrain.errors import ConfigError, DataError
from selftrain.records import Group, Prompt
from selftrain.scoring import Asked, Verdict, build
from selftrain.scoring.checking import check_together
from selftrain.scoring.combined import CombinedScorer, Part

GATE = {"name": "exact", "gate": True, "weight": 0}


def reward(**params: Any) -> dict[str, Any]:
    return {"name": "reward_model", "params": {"model": "some/model", **params}}


class Counted:
    """A judge that gives each text its own value, and remembers whom it was asked about."""

    def __init__(self, values: dict[str, float | None], calls: list[tuple[str, list[str]]], name: str) -> None:
        self._values, self._calls, self._name = values, calls, name

    def judge(self, prompt: Prompt, asked: Sequence[Asked]) -> list[Verdict]:
        self._calls.append((self._name, [one.text for one in asked]))
        values = [self._values[one.text] for one in asked]
        return [Verdict(one, error="broken" if one is None else None) for one in values]

    def check_references(self, prompts: object) -> None: ...

    def close(self) -> None: ...


def combined(*parts: tuple[str, dict[str, float | None], dict[str, Any]]) -> tuple[CombinedScorer, list[Any]]:
    calls: list[tuple[str, list[str]]] = []
    made = [
        Part(name, ScorerConfig.model_validate({"name": "exact", **knobs}), Counted(values, calls, name))
        for name, values, knobs in parts
    ]
    return CombinedScorer(made, 1.0), calls


def test_a_gate_decides_alone_and_spares_the_later_scorers() -> None:
    scorer, calls = combined(
        ("dear", {"a": 0.5, "b": 1.0}, {"cost": 5}),
        ("gate", {"a": 1.0, "b": 0.9, "c": None}, {"gate": True, "weight": 0}),
    )
    passed, stopped, unknown = scorer.score(make_group(["a", "b", "c"]))
    assert calls == [("gate", ["a", "b", "c"]), ("dear", ["a"])]
    assert (passed.value, passed.parts) == (0.5, {"dear": 0.5, "gate": 1.0})
    assert (stopped.value, stopped.correct, stopped.error) == (0.0, False, None)
    assert stopped.parts == {"dear": None, "gate": 0.9}
    assert stopped.explanation == "dear: not asked, as gate did not find it right"
    assert (unknown.value, unknown.correct, unknown.error) == (None, None, "gate: broken")


def test_scorers_are_asked_by_cost_gates_first_and_else_as_listed() -> None:
    every = {"a": 1.0}
    scorer, calls = combined(
        ("third", every, {"cost": 2}),
        ("fourth", every, {"cost": 2}),
        ("second", every, {"cost": 2, "gate": True}),
        ("first", every, {"cost": 0}),
    )
    (score,) = scorer.score(make_group(["a"]))
    assert [name for name, _ in calls] == ["first", "second", "third", "fourth"]
    assert list(score.parts) == ["third", "fourth", "second", "first"]


def test_without_a_cost_rules_come_before_processes() -> None:
    entries = [{"name": "f.py:g"}, {"name": "math"}, {"name": "exact", "extract": {"regex": "(.)"}}, {"name": "exact"}]
    parts = [Part(str(one), ScorerConfig.model_validate(one), Counted({}, [], "")) for one in entries]
    assert [part.order[0] for part in parts] == [10.0, 10.0, 10.0, 1.0]


def test_a_gate_counts_in_the_mean_by_its_weight() -> None:
    scorer, _ = combined(("gate", {"a": 1.0}, {"gate": True}), ("other", {"a": 0.5}, {"weight": 3}))
    assert scorer.score(make_group(["a"]))[0].value == pytest.approx(0.625)


def test_a_part_that_could_not_judge_leaves_the_candidate_unscored_unless_a_gate_decided() -> None:
    scorer, calls = combined(
        ("cheap", {"a": None, "b": None}, {"cost": 1}), ("gate", {"a": 0.0, "b": 1.0}, {"cost": 2, "gate": True})
    )
    stopped, unscored = scorer.score(make_group(["a", "b"]))
    assert (stopped.value, stopped.error) == (0.0, None)
    assert stopped.explanation == "cheap: could not judge it: broken"
    assert (unscored.value, unscored.error) == (None, "cheap: broken")
    assert len(calls) == 2


def test_a_part_of_weight_0_is_only_looked_at() -> None:
    scorer, _ = combined(("right", {"a": 1.0, "b": 1.0}, {}), ("length", {"a": -7.0, "b": None}, {"weight": 0}))
    first, second = scorer.score(make_group(["a", "b"]))
    assert (first.value, first.parts) == (1.0, {"right": 1.0, "length": -7.0})
    assert (second.value, second.error, second.parts) == (1.0, None, {"right": 1.0, "length": None})


def test_nobody_is_asked_about_candidates_that_are_all_stopped() -> None:
    scorer, calls = combined(("gate", {"a": 0.0}, {"gate": True}), ("later", {}, {}))
    assert scorer.score(make_group(["a", "a"]))[1].value == 0.0
    assert calls == [("gate", ["a", "a"])]


def of_task(task: str | None, texts: list[str]) -> Group:
    group = make_group(texts)
    return replace(group, prompt=replace(group.prompt, task=task))


def test_scorers_of_other_tasks_have_no_part() -> None:
    scorer, calls = combined(
        ("numbers", {"a": 1.0}, {"tasks": ["arithmetic"]}),
        ("words", {"a": 0.0}, {"tasks": ["logic", "trivia"]}),
        ("all", {"a": 1.0}, {"weight": 0}),
    )
    assert scorer.score(of_task("arithmetic", ["a"]))[0].parts == {"numbers": 1.0, "all": 1.0}
    assert scorer.score(of_task("trivia", ["a"]))[0].parts == {"words": 0.0, "all": 1.0}
    assert [name for name, _ in calls] == ["numbers", "all", "words", "all"]
    (nobody,) = scorer.score(of_task("history", ["a"]))
    assert (nobody.value, nobody.parts) == (None, {"all": 1.0})
    assert nobody.error == "no scorer judges task 'history'; name it in the tasks of one"
    with pytest.raises(
        DataError, match=r"judges prompt p of task 'history'; score.scorers names the tasks arithmetic, lo"
    ):
        scorer.check_references([of_task("history", []).prompt])


def test_references_are_checked_only_by_the_scorers_of_their_task() -> None:
    entries = [{"name": "numeric", "tasks": ["sums"]}, {"name": "exact", "tasks": ["words"]}]
    with build(ScoreConfig.model_validate({"scorers": entries}), Path()) as scorer:
        scorer.check_references(
            [replace(make_prompt(reference="five"), task="words"), replace(make_prompt(reference="5"), task="sums")]
        )
        with pytest.raises(DataError, match="scorer numeric cannot use"):
            scorer.check_references([replace(make_prompt(reference="five"), task="sums")])


def test_extras_of_several_scorers_do_not_hide_each_other(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(
            "def reward(completions, log_extra, log_metric):\n"
            f"    log_extra('why', ['{name}'] * len(completions)); log_metric('m', {len(name)})\n"
            "    return [1.0] * len(completions)"
        )
    config = ScoreConfig.model_validate({"scorers": ["one.py:reward", "two.py:reward"]})
    with build(config, tmp_path) as scorer:
        (score,) = scorer.score(make_group(["a"]))
    assert score.extras == {"why": "one", "score/m": [3.0, 3.0], "two.py:reward: why": "two"}


def test_one_answer_is_explained_for_a_person() -> None:
    entries = [{"name": "regex", "params": {"pattern": "(.)"}, "gate": True, "weight": 0, "cost": 20}]
    entries += [{"name": "numeric", "extract": "boxed"}]
    with build(ScoreConfig.model_validate({"scorers": entries}), Path()) as scorer:
        score = scorer.explain(make_prompt(), r"\boxed{57}")
    assert score.parts == {"regex": 0.0, "numeric": 1.0}
    assert (score.value, score.answer) == (0.0, "57")
    assert score.explanation == (
        "regex: the pattern occurs 10 times, and exactly one is wanted (take: only); "
        "numeric: answer '57' (from \\boxed{}); the number '57' is the reference's"
    )


@pytest.mark.parametrize(
    ("scorers", "why"),
    [
        ([GATE, reward()], "reward_model may give less than 0, and what the gate exact refuses has value 0"),
        ([GATE, reward(output="probability", combine="uncertainty", model=None, models=["a", "b"])], "leave out scale"),
        ([GATE, {"name": "given", "params": {"column": "stars"}}], "set minimum: 0 in its params"),
        ([{**reward(), "extract": {"tag": "answer"}}], "what its extract .tag. refuses has value 0"),
    ],
)
def test_a_gate_before_values_under_zero_is_refused(scorers: list[Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        check_together(ScoreConfig(scorers=scorers).scorers)


@pytest.mark.parametrize(
    "scorers",
    [
        [GATE, reward(output="probability")],
        [GATE, reward(pairwise=True)],
        [GATE, {"name": "given", "params": {"column": "stars", "minimum": 0.0}}],
        [{**GATE, "tasks": ["sums"]}, "numeric", {**reward(), "tasks": ["poems"]}],
        [GATE, "numeric", {**reward(), "weight": 0}],
        [reward(), "exact"],
    ],
)
def test_a_gate_before_values_from_zero_up_is_not(scorers: list[Any]) -> None:
    check_together(ScoreConfig(scorers=scorers).scorers)
