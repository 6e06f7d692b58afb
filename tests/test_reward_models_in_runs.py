"""Runs that are judged by a really trained tiny reward model."""

from __future__ import annotations

import json
import shutil
import signal
import weakref
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_model
from tiny_rewards import tiny_reward_model
from worlds import model_recipe, ranks, receipt_of, results_of, run_here, scripted_recipe, selftrain

from selftrain import tables
from selftrain.errors import ConfigError
from selftrain.models import Bench
from selftrain.records import Candidate, Score, Survivor
from selftrain.scoring.reward_models.loading import Weights

# Answers as the tiny reward models know them; the same for the same seed.
TALKING = """
import random

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog")


def answer(prompt, seed, policy_round):
    generator = random.Random(f"{prompt.id} {seed}")
    words = [generator.choice(WORDS) for _ in range(generator.randint(1, 6))]
    return " ".join(words + (["thank you"] if generator.random() < 0.4 else []))
"""


@pytest.fixture(scope="module")
def liking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_reward_model(tmp_path_factory)


def talking_recipe(folder: Path, model: Path, **changes: Any) -> Path:
    """A scripted policy and a real reward model; three blocks of four prompts, two rounds."""
    scorer = {"name": "reward_model", "params": {"model": str(model)}}
    recipe = scripted_recipe(
        folder,
        **{
            "rounds": 1,
            "arms": [],
            "score": {"scorers": [scorer], "correct_at": 0.0, **changes.pop("score", {})},
            "sample": {"max_new_tokens": 64, **changes.pop("sample", {})},
            "select": {"rule": "best_of_n"},
            "evaluate": {"sampled_rounds": "none", "block_size": 4, "resamples": 100, "trained_prompts": 0},
            **changes,
        },
    )
    (folder / "answers.py").write_text(TALKING)
    return recipe


def in_round(run: Path, pattern: str) -> list[Path]:
    return sorted((run / "arms/main/rounds/001").glob(pattern))


def test_each_prompts_best_candidate_by_the_reward_model_is_kept(tmp_path: Path, liking: Path) -> None:
    run = run_here(talking_recipe(tmp_path / "recipe", liking), runs_dir=tmp_path)
    candidates = {
        one.id: one for path in in_round(run, "candidates/**/*.parquet") for one in tables.read(path, Candidate)
    }
    scores = [one for path in in_round(run, "scores/**/*.parquet") for one in tables.read(path, Score)]
    (path,) = in_round(run, "survivors/**/*.parquet")
    kept = {one.candidate_id for one in tables.read(path, Survivor)}
    best: dict[str, tuple[float, str]] = {}
    for one in scores:
        assert one.value is not None
        prompt = candidates[one.candidate_id].prompt_id
        best[prompt] = max(best.get(prompt, (one.value, one.candidate_id)), (one.value, one.candidate_id))
    assert len(scores) == 48
    assert {candidates[one].text for one in kept} == {candidates[name].text for _, name in best.values()}
    assert sum("thank you" in candidates[one].text for one in kept) > len(kept) / 2


def test_judged_while_sampling_or_after_it_the_files_are_the_same(tmp_path: Path, liking: Path) -> None:
    recipe = talking_recipe(tmp_path / "recipe", liking)
    runs = [
        results_of(run_here(recipe, *overrides, runs_dir=tmp_path / name))
        for name, overrides in (("a", ()), ("b", ("score.overlap=false",)), ("c", ("score.one_model_at_a_time=true",)))
    ]
    assert runs[0] == runs[1] == runs[2]


def test_blocks_that_are_left_when_a_run_ends_are_judged_to_the_same_bits(tmp_path: Path, liking: Path) -> None:
    recipe = talking_recipe(tmp_path / "recipe", liking)
    whole = run_here(recipe, runs_dir=tmp_path / "whole")
    again = tmp_path / "again"
    again.mkdir()
    shutil.copytree(whole, again / "tiny")
    scores = in_round(again / "tiny", "scores/wave-00/*.parquet")
    assert len(scores) == 3
    scores[1].unlink()
    for path in (again / "tiny/arms/main/rounds/001/receipts").glob("*.json"):
        if not path.name.startswith("sample"):
            path.unlink()
    run_here(recipe, runs_dir=again)
    assert results_of(again / "tiny") == results_of(whole)


def test_other_weights_of_the_reward_model_are_another_experiment(tmp_path: Path, liking: Path) -> None:
    model = tmp_path / "recipe/mine"
    shutil.copytree(liking, model)
    recipe = talking_recipe(tmp_path / "recipe", Path("mine"))
    run_here(recipe, runs_dir=tmp_path)
    run_here(recipe, runs_dir=tmp_path)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.25}))
    with pytest.raises(ConfigError, match="the source of model mine changed"):
        run_here(recipe, runs_dir=tmp_path)


def test_the_disagreement_of_several_models_is_a_metric(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, liking: Path
) -> None:
    other = tiny_reward_model(tmp_path_factory, seed=1)
    both = {"name": "reward_model", "params": {"models": [str(liking), str(other)], "combine": "uncertainty"}}
    recipe = talking_recipe(tmp_path / "recipe", liking, score={"scorers": [both]})
    metrics = receipt_of(run_here(recipe, runs_dir=tmp_path), "main/rounds/001/score-wave-00")["metrics"]
    assert 0 < metrics["score/reward_model/disagreement"] < 10


class Watched:
    """Which models were loaded, and that no two of them ever were at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.order: list[str] = []
        self._there: list[tuple[str, weakref.ref[Any]]] = []
        load_policy, load_reward = Bench._load, Weights._load

        def of_policy(bench: Bench) -> None:
            self.require_gone("policy")
            load_policy(bench)
            self._there.append(("policy", weakref.ref(bench._model)))

        def of_reward(weights: Weights) -> Any:
            self.require_gone("reward")
            model = load_reward(weights)
            self._there.append(("reward", weakref.ref(model)))
            return model

        monkeypatch.setattr(Bench, "_load", of_policy)
        monkeypatch.setattr(Weights, "_load", of_reward)

    def require_gone(self, name: str) -> None:
        assert [one for one, model in self._there if model() is not None] == []
        self.order.append(name)


def test_one_model_at_a_time_is_ever_in_memory_and_the_results_are_equal(
    tmp_path: Path, liking: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = {"name": "reward_model", "params": {"model": str(liking)}}
    recipe = model_recipe(
        tmp_path / "recipe",
        build_model(tmp_path / "model"),
        rounds=1,
        arms=[],
        score={"scorers": [scorer], "correct_at": 0.0},
        select={"rule": "best_of_n"},
        evaluate={"sampled_rounds": "none", "trained_prompts": 0, "drift_candidates": 8},
    )
    together = results_of(run_here(recipe, runs_dir=tmp_path / "together"))
    with monkeypatch.context() as patched:
        watched = Watched(patched)
        alone = run_here(recipe, "score.one_model_at_a_time=true", runs_dir=tmp_path / "alone")
    assert results_of(alone) == together
    assert watched.order.count("policy") >= 2
    assert watched.order.count("reward") >= 3
    assert any(pair == ("reward", "policy") for pair in zip(watched.order, watched.order[1:], strict=False))


def test_an_answer_is_judged_from_the_terminal(tmp_path: Path, liking: Path) -> None:
    recipe = talking_recipe(tmp_path / "recipe", liking)
    done = selftrain("verify", recipe, "--answer", "fox thank you", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["value"] > 0
    assert said["explanation"].startswith("reward ")


@pytest.mark.slow
def test_a_run_that_was_killed_again_and_again_ends_as_if_untouched(tmp_path: Path, liking: Path) -> None:
    recipe = talking_recipe(tmp_path / "recipe", liking, sample={"block_size": 2})
    whole = run_here(recipe, runs_dir=tmp_path / "whole")
    for visits in (12, 22, 38):
        killed = selftrain("run", recipe, "--runs-dir", tmp_path / "killed", SELFTRAIN_FAULT=str(visits))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = selftrain("run", recipe, "--runs-dir", tmp_path / "killed")
    assert done.returncode == 0, done.stderr
    assert results_of(tmp_path / "killed/tiny") == results_of(whole)


@pytest.mark.slow
def test_two_ranks_share_the_blocks_and_give_what_one_gives(tmp_path: Path, liking: Path) -> None:
    recipe = talking_recipe(tmp_path / "recipe", liking, sample={"block_size": 2})
    launched = ranks(recipe, runs_dir=tmp_path / "two")
    output, _ = launched.communicate(timeout=600)
    assert launched.returncode == 0, output[-4000:]
    one = run_here(recipe, runs_dir=tmp_path / "one")
    assert results_of(tmp_path / "two/tiny") == results_of(one)
