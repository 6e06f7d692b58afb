"""recipes/raft as it is shipped, with a tiny policy and a tiny reward model that its own script trains."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny_models import build_model
from worlds import receipt_of, run_here

from selftrain import tables
from selftrain.compose import compose, recipes
from selftrain.plugins import load_function
from selftrain.records import Candidate, Score, Survivor

RECIPE = next(path for name, path in recipes().items() if name == "raft")
FOLDER = RECIPE.parent if RECIPE.is_file() else RECIPE
TINY = (
    "rounds=1",
    "prompts.per_round=6",
    "prompts.validate.limit=4",
    "prompts.test.limit=4",
    "sample.num_candidates=3",
    "sample.max_new_tokens=12",
    "select.finish_reasons=[stop_token,length]",
    "train.batch_size=4",
    "train.lora.r=4",
    "evaluate.resamples=100",
    "evaluate.drift_candidates=0",
)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """recipes/raft/reward.py."""
    function: Any = load_function("reward.py:train", FOLDER)
    return sys.modules[function.__module__]


def test_the_sets_share_no_topic_and_no_task() -> None:
    rows = {name: list(load_function(f"instructions.py:{name}", FOLDER)()) for name in ("train", "validate", "test")}
    assert {name: len(of_set) for name, of_set in rows.items()} == {"train": 160, "validate": 16, "test": 64}
    for column in ("topic", "task", "prompt"):
        seen = [{row[column] for row in of_set} for of_set in rows.values()]
        assert sum(map(len, seen)) == len(set().union(*seen))
    assert all("{" not in row["prompt"] for of_set in rows.values() for row in of_set)


@pytest.mark.parametrize(
    ("text", "is_whole", "is_brief", "is_polite"),
    [
        ("Happy to help! Start slowly.", True, True, True),
        ("Start slowly.", True, True, False),
        ("Thank you, start slow", False, True, True),
        ("word " * 31 + "please.", True, False, True),
        ("", False, False, False),
    ],
)
def test_the_measures_say_what_they_are_called(text: str, is_whole: bool, is_brief: bool, is_polite: bool) -> None:
    measures = {
        name: load_function(f"measures.py:{name}", FOLDER) for name in ("whole", "brief", "polite", "asked_for")
    }
    assert [measures[name](text) for name in ("whole", "brief", "polite")] == [is_whole, is_brief, is_polite]
    assert measures["asked_for"](text) is (is_whole and is_brief and is_polite)


def test_the_pairs_prefer_what_is_kinder_ends_or_is_shorter(script: ModuleType) -> None:
    found = script.pairs("train", 60, seed=3)
    assert found == script.pairs("train", 60, seed=3)
    words = [[len(one[side][0]["content"].split()) for one in found] for side in ("chosen", "rejected")]
    assert sum(words[0]) < sum(words[1])
    ends = [sum(one[side][0]["content"].endswith((".", "!")) for one in found) for side in ("chosen", "rejected")]
    assert ends[0] > ends[1]
    assert all("silly" not in one["chosen"][0]["content"] or one["chosen"] != one["rejected"] for one in found)


def test_the_recipe_runs_with_a_reward_model_that_its_script_trained(tmp_path: Path, script: ModuleType) -> None:
    policy = build_model(tmp_path / "policy", context=2048)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries about each other
        measured = script.train(str(policy), tmp_path / "reward", count=16, held_out=8, longest=1024)
    assert 0 <= measured["eval_accuracy"] <= 1
    config = compose("raft").config
    named = {"name": "reward_model", "params": {"model": str(tmp_path / "reward")}}
    mine = [one.model_dump(mode="json", exclude_unset=True) for one in config.evaluate.scorers]
    scorers = json.dumps([named if one["name"] == "reward_model" else one for one in mine])
    overrides = (f"model.path={policy}", f"score.scorers={json.dumps([named])}", f"evaluate.scorers={scorers}")
    run = run_here(RECIPE, *TINY, *overrides, runs_dir=tmp_path)
    assert [one.name for one in config.score.scorers] == ["reward_model"]
    evaluated = receipt_of(run, "main/rounds/001/evaluate")["metrics"]
    assert {name for name in evaluated if "asked_for" in name}
    assert receipt_of(run, "random_selection/rounds/001/evaluate")["metrics"].keys() <= evaluated.keys()
    first = run / "arms/main/rounds/001"
    candidates = {one.id: one for path in first.glob("candidates/**/*.parquet") for one in tables.read(path, Candidate)}
    scores = {one.candidate_id: one for path in first.glob("scores/**/*.parquet") for one in tables.read(path, Score)}
    (survivors,) = first.glob("survivors/**/*.parquet")
    kept = tables.read(survivors, Survivor)
    assert len(kept) == 6
    for one in kept:
        others = [scores[key].value for key, other in candidates.items() if other.prompt_id == one.prompt_id]
        assert one.value == max(value for value in others if value is not None)
