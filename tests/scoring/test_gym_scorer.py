from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from groups import make_group, make_prompt

from selftrain.config import ScoreConfig
from selftrain.errors import DataError, DependencyError
from selftrain.scoring import build, check
from selftrain.scoring.combined import CombinedScorer
from selftrain.scoring.gym import reasoning_gym

pytestmark = pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="needs reasoning-gym")


def config(**params: Any) -> ScoreConfig:
    return ScoreConfig.model_validate({"scorers": [{"name": "reasoning_gym", "params": params}]})


def row(task: str, seed: int = 3, **params: Any) -> dict[str, Any]:
    return {"reasoning_gym": {"task": task, "seed": seed, "params": params}}


@pytest.fixture(scope="module")
def scorer() -> Iterator[CombinedScorer]:
    with build(config(), Path()) as built:
        yield built


def answer_of(task: str, seed: int = 3, **params: Any) -> str:
    from reasoning_gym import create_dataset

    return str(create_dataset(task, seed=seed, size=1, **params)[0]["answer"])


@pytest.mark.parametrize("task", ["chain_sum", "countdown", "spiral_matrix", "simple_integration", "knights_knaves"])
def test_a_tasks_own_answer_is_right_and_others_are_wrong(scorer: CombinedScorer, task: str) -> None:
    right = answer_of(task)
    group = make_group([right, f" {right}\n", f"x{right}", "", "banana"], reference=None, **row(task))
    scorer.check_references([group.prompt])
    scores = scorer.score(group)
    assert [score.value for score in scores] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert all(score.error is None for score in scores)
    assert scores[0].answer == right


def test_parameters_and_seed_make_the_same_problem_again(scorer: CombinedScorer) -> None:
    params = {"min_terms": 5, "max_terms": 5}
    group = make_group(
        [answer_of("chain_sum", 8, **params), answer_of("chain_sum", 8)], **row("chain_sum", 8, **params)
    )
    assert [score.value for score in scorer.score(group)] == [1.0, 0.0]


def test_without_full_marks_partial_credit_is_the_value() -> None:
    right = answer_of("chain_sum")
    assert reasoning_gym(f"x{right}", row("chain_sum"), full_marks=False).value == len(right) / (len(right) + 1)
    assert reasoning_gym(right, row("chain_sum"), full_marks=False).value == 1.0


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("spiral_matrix", "entry['answer'].split()"),
        ("string_insertion", "entry['answer']"),
        ("n_queens", "__import__('os').system('touch HACKED')"),
        ("countdown", "exec(chr(112))"),
        ("puzzle24", "exit()"),
        ("polynomial_multiplication", "open(chr(72), chr(119))"),
        ("simple_integration", "x.func.__globals__"),
    ],
)
def test_an_answer_is_never_run_as_code(
    scorer: CombinedScorer, task: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (score,) = scorer.score(make_group([text], **row(task)))
    assert (score.value, score.error) == (0.0, None)
    assert not list(tmp_path.iterdir())


def test_a_puzzle_is_solved_with_its_own_numbers_alone(scorer: CombinedScorer) -> None:
    right = answer_of("puzzle24")
    group = make_group([right, "6*4*1*1", answer_of("puzzle24", seed=4)], reference=None, **row("puzzle24"))
    scorer.check_references([group.prompt])
    assert [score.value for score in scorer.score(group)] == [1.0, 0.0, 0.0]


def test_a_task_that_gives_full_marks_to_any_words_is_refused(scorer: CombinedScorer) -> None:
    with pytest.raises(DataError, match="'game_of_life_halting' gives full marks to any words; judge its answers by"):
        scorer.check_references([make_prompt(metadata=row("game_of_life_halting"))])


def test_prompts_that_say_no_problem_are_refused(scorer: CombinedScorer) -> None:
    with pytest.raises(DataError, match=r"the row says no reasoning_gym(?s:.*)path: reasoning_gym:TASK"):
        scorer.check_references([make_prompt()])
    with pytest.raises(DataError, match="cannot make task 'chain_sums'"):
        scorer.check_references([make_prompt(metadata=row("chain_sums"))])
    scorer.check_references([make_prompt(reference=None, metadata=row("rubiks_cube"))])


@pytest.mark.slow
def test_nothing_that_the_library_prints_reaches_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with build(config(), Path()) as built:
        prompts = [
            replace(make_prompt(metadata=row(task)), id=task) for task in ("rubiks_cube", "game_of_life", "chain_sum")
        ]
        built.check_references(prompts)
        built.score(make_group(["1"], **row("chain_sum")))
    assert capfd.readouterr() == ("", "")


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "reasoning_gym" else found(name))
    with pytest.raises(DependencyError, match=r"pip install 'selftrain\[reasoning-gym\]'"):
        check(config())
