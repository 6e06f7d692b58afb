"""Runs whose labels are votes: no reference has a say, what labels are worth is told, and the avalanche is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from worlds import ranks, receipt_of, results_of, run_here, scripted_recipe, selftrain

from selftrain import tables
from selftrain.errors import ConfigError
from selftrain.records import Score
from selftrain.tracking.ledger import read

# Answers by what is asked and not by the reference; right less often after every round, and ever more of one mind.
VOTERS = '''
import zlib


def answer(prompt, seed, policy_round):
    """Every third prompt's voters are led astray by what they learnt; a few say something of their own."""
    number = int(prompt.question.split()[-1].rstrip("?"))
    luck = (seed or zlib.crc32(prompt.id.encode())) % 10
    if luck < 2 - policy_round:
        return str(1000 + seed % 89)
    return str(number + (2 if number % 3 < policy_round else 1))
'''
BESIDE: list[Any] = ["majority", {"name": "exact", "weight": 0}]


def recipe_of(folder: Path, scorers: list[Any], **changes: Any) -> Path:
    changes = {"score": {"scorers": scorers}, "sample": {"num_candidates": 8}, **changes}
    changes["evaluate"] = {"scorers": ["exact"], **changes.get("evaluate", {})}
    recipe = scripted_recipe(folder, **changes)
    (folder / "answers.py").write_text(VOTERS)
    return recipe


def scores_of(run: Path) -> list[Score]:
    return [one for path in sorted(run.glob("arms/main/**/scores/**/*.parquet")) for one in tables.read(path, Score)]


@pytest.fixture(scope="module")
def voted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voted")
    return run_here(recipe_of(folder / "recipe", BESIDE), runs_dir=folder)


def test_changing_or_leaving_out_references_changes_nothing_that_is_learnt(tmp_path: Path) -> None:
    found = []
    for number, reference in enumerate(("{}", "no answer {}", None)):
        recipe = recipe_of(
            tmp_path / f"recipe-{number}",
            ["majority"],
            arms=[],
            rounds=2,
            evaluate={"trained_prompts": 0},
            prompts={"train": {"path": "train.jsonl", "columns": {"reference": reference and "reference"}}},
        )
        rows = [
            {
                "prompt": f"what comes after {n}?",
                **({} if reference is None else {"reference": reference.format(n + 1)}),
            }
            for n in range(12)
        ]
        (recipe.parent / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        run = run_here(recipe, runs_dir=tmp_path / f"runs-{number}")
        survivors = [path.read_bytes() for path in sorted(run.glob("arms/main/**/rejected.jsonl"))]
        adapters = [path.read_bytes() for path in sorted(run.glob("arms/main/**/adapter/**/*.safetensors"))]
        assert survivors
        assert adapters
        found.append((scores_of(run), survivors, adapters))
    assert found[0] == found[1] == found[2]
    assert any(one.value == 1.0 for one in found[0][0])


def test_what_the_labels_are_worth_is_told_by_the_scorer_of_weight_0(voted: Path) -> None:
    rounds = [receipt_of(voted, f"main/rounds/{number:03}/score-wave-00")["metrics"] for number in (1, 2, 3)]
    assert [one["score/label_coverage"] for one in rounds] == [1.0, 1.0, 1.0]
    accuracy = [one["score/label_accuracy"] for one in rounds]
    assert accuracy == pytest.approx([1.0, 8 / 12, 4 / 12]), "a third of the prompts are led astray in each round"
    assert rounds[0]["score/truth_share"] == rounds[0]["score/correct_rate"] < 1.0
    assert rounds[0]["score/reward_accuracy"] == 1.0
    assert rounds[2]["score/truth_share"] < 0.5 < rounds[2]["score/correct_rate"]
    kept = receipt_of(voted, "main/rounds/002/select-improve-00")["metrics"]
    assert kept["select/kept_precision"] == 1.0, "by the labels"
    assert kept["select/kept_truth_share"] < 1.0, "by the references"
    control = receipt_of(voted, "random_selection/rounds/002/score-wave-00")["metrics"]
    assert "score/label_accuracy" in control


def test_the_avalanche_is_an_alarm(voted: Path) -> None:
    found = {(row["round"], row["alarm"]) for row in read(voted / "metrics.jsonl") if row["phase"] == "alarm"}
    assert (3, "labels_falling") in found
    assert not any(name == "reward_hacking" for _, name in found)


def test_a_vote_cannot_judge_held_out_answers(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", score={"scorers": ["majority"]})
    with pytest.raises(ConfigError, match="a held-out prompt has one greedy answer"):
        run_here(recipe, runs_dir=tmp_path)


@pytest.mark.slow
def test_killed_while_votes_are_counted_a_run_ends_as_if_untouched(voted: Path, tmp_path: Path) -> None:
    recipe = voted.parent / "recipe/recipe.yaml"
    for visits in (9, 14):
        killed = selftrain("run", recipe, "--runs-dir", tmp_path, SELFTRAIN_FAULT=str(visits))
        assert killed.returncode != 0
    done = selftrain("run", recipe, "--runs-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert results_of(tmp_path / "tiny") == results_of(voted)


@pytest.mark.slow
def test_two_ranks_count_the_same_votes(voted: Path, tmp_path: Path) -> None:
    process = ranks(voted.parent / "recipe/recipe.yaml", runs_dir=tmp_path)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert scores_of(tmp_path / "tiny") == scores_of(voted)
    key = "main/rounds/003/score-wave-00"
    one, other = (receipt_of(run, key)["metrics"] for run in (voted, tmp_path / "tiny"))
    for name in ("label_accuracy", "label_accuracy_low", "label_coverage", "majority_share", "reward_pairs_right"):
        assert one.get(f"score/{name}") == other.get(f"score/{name}")
