"""Questions made by reasoning_gym."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import PromptsConfig
from selftrain.errors import ConfigError, DependencyError, SelftrainError
from selftrain.prompts import PromptSet, gym, load

reasoning_gym = pytest.importorskip("reasoning_gym")

# Run in a process of its own: every task's items, and whether each comes out alone as it does among others.
EVERY_TASK = """
import contextlib, io, json, sys, warnings
warnings.simplefilter("ignore")
import reasoning_gym
from reasoning_gym.factory import DATASETS
found = {}
with contextlib.redirect_stdout(io.StringIO()):
    for task in sorted(set(DATASETS) - {"composite"}):
        whole = reasoning_gym.create_dataset(task, seed=30_000_000, size=12)
        found[task] = [[whole[i]["question"], whole[i]["answer"]] for i in range(12)]
json.dump(found, sys.stdout)
"""


def made(task: str, params: dict[str, Any] | None = None, **source: Any) -> PromptSet:
    data = {"train": {"path": f"reasoning_gym:{task}", "params": params or {}, **source}}
    return load(PromptsConfig.model_validate(data), Path()).train


def entry_of(metadata: Any) -> Any:
    """The entry again, as a scorer makes it."""
    assert list(metadata) == ["reasoning_gym"]
    by = json.loads(json.dumps(metadata["reasoning_gym"]))
    assert sorted(by) == ["params", "seed", "task"]
    return reasoning_gym.create_dataset(by["task"], seed=by["seed"], size=1, **by["params"])[0]


@pytest.mark.parametrize(
    ("task", "params"),
    [
        ("chain_sum", {"size": 30, "seed": 3, "min_terms": 2, "max_terms": 3}),
        ("gsm_symbolic", {"size": 12, "seed": 2}),
        ("acre", {"size": 6, "seed": 1}),
        ("number_format", {"size": 5}),
        ("propositional_logic", {"size": 4, "seed": 7}),
        ("word_ladder", {"size": 4, "seed": 7}),
    ],
)
def test_the_entry_of_every_row_can_be_made_again(task: str, params: dict[str, Any]) -> None:
    found = made(task, params).prompts
    for prompt in found:
        assert prompt.messages is not None
        entry = entry_of(prompt.metadata)
        assert prompt.messages[-1].content == entry["question"]
        assert prompt.reference in (entry["answer"], None)
    known = {key: value for key, value in params.items() if key not in ("size", "seed")}
    assert all(one.metadata["reasoning_gym"]["params"] == known for one in found)
    has_no_answer = task in ("propositional_logic", "word_ladder")
    assert all((one.reference is None) == has_no_answer for one in found)


def test_seeds_share_no_items_and_the_same_seed_gives_the_same_ones() -> None:
    params = {"size": 200, "min_digits": 4, "max_digits": 6}
    one, again, other = (made("chain_sum", {**params, "seed": seed}) for seed in (1, 1, 2))
    assert one.digest == again.digest
    assert not {prompt.id for prompt in one.prompts} & {prompt.id for prompt in other.prompts}
    seeds = [prompt.metadata["reasoning_gym"]["seed"] for prompt in other.prompts]
    assert seeds == list(range(20_000_000, 20_000_200))
    assert [one.metadata["reasoning_gym"]["seed"] for one in made("chain_sum", {"size": 2}).prompts] == [0, 1]


def test_skip_and_limit_take_a_part_of_the_items() -> None:
    whole = made("chain_sum", {"size": 20, "seed": 5}).prompts
    assert made("chain_sum", {"size": 20, "seed": 5}, skip=4, limit=3).prompts == whole[4:7]
    assert len(made("chain_sum", {"seed": 5}, limit=600).prompts) <= gym.DEFAULT_SIZE


def test_the_columns_are_known_and_can_still_be_set() -> None:
    asked = made("chain_sum", {"size": 1}, template="Q: {question}", columns={"reference": None}).prompts[0]
    assert asked.messages is not None
    assert asked.messages[-1].content.startswith("Q: State the final answer")
    assert asked.reference is None
    written_out = PromptsConfig.model_validate({"train": {"path": "reasoning_gym:chain_sum", "params": {"size": 1}}})
    read_again = PromptsConfig.model_validate(written_out.model_dump(mode="json", by_alias=True))
    assert load(read_again, Path()).train.prompts[0].reference is not None


def test_the_same_question_twice_is_a_duplicate_whatever_answer_it_shows() -> None:
    found = made("coin_flip", {"size": 60})
    assert found.num_duplicates > 0
    assert len(found.prompts) + found.num_duplicates == 60


@pytest.mark.parametrize(
    ("task", "params", "said"),
    [
        ("chain_sums", {}, r"prompts\.train: reasoning_gym has no task 'chain_sums'; did you mean chain_sum"),
        ("sudok", {}, "did you mean sudoku or mini_sudoku"),
        ("zzzz", {}, "it has: ab, acre"),
        ("composite", {}, r"name them in prompts\.train\.mix"),
        ("ransom_note", {}, "gives other questions in every process, so no run could be resumed"),
        ("chain_sum", {"terms": 3}, "unexpected keyword argument 'terms'; its parameters: min_terms, max_terms"),
        ("chain_sum", {"min_terms": -2}, "min_terms must be positive; its parameters"),
        ("chain_sum", {"size": 0}, r"params\.size must be a whole number of at least 1, not 0"),
        ("chain_sum", {"size": 10_000_001}, "size can be at most 10,000,000"),
        ("chain_sum", {"seed": -1}, r"params\.seed must be a whole number of at least 0, not -1"),
        ("chain_sum", {"seed": "two"}, "not 'two'"),
        ("chain_sum", {"min_terms": date(2026, 1, 1)}, "not plain JSON"),
    ],
)
def test_mistakes_are_named_with_the_way_on(task: str, params: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        made(task, params)


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(DependencyError, match=r"pip install 'selftrain\[reasoning-gym\]'"):
        made("chain_sum")


def test_what_tasks_print_does_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    made("boxnet", {"size": 2})
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_every_task_but_those_named_asks_the_same_in_every_process() -> None:
    found = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-W", "ignore", "-c", EVERY_TASK]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        found.append(json.loads(done.stdout))
    one, other = found
    questions = {task for task in one if [q for q, _ in one[task]] != [q for q, _ in other[task]]}
    answers = {task for task in one if [a for _, a in one[task]] != [a for _, a in other[task]]} - questions
    # list_functions draws from the process's own generator in a few of its tasks alone, so it may come out alike.
    assert questions | {"list_functions"} == set(gym.UNREPEATABLE)
    assert answers == set(gym.ANSWERS_VARY)


@pytest.mark.slow
def test_every_other_task_can_be_asked_and_its_entries_made_again() -> None:
    from reasoning_gym.factory import DATASETS

    for task in sorted(set(DATASETS) - {"composite", *gym.UNREPEATABLE}):
        try:
            found = made(task, {"size": 4, "seed": 4}).prompts
        except SelftrainError as error:
            pytest.fail(f"{task}: {error}")
        for prompt in found:
            assert prompt.messages is not None
            with gym._quiet():
                entry = entry_of(prompt.metadata)
            assert prompt.messages[-1].content == entry["question"], task
