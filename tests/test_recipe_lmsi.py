"""recipes/lmsi as it is shipped, with a policy that answers from a function, and once with a tiny real model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_models import build_model
from worlds import receipt_of, run_here

from selftrain.compose import compose, recipes

TINY = (
    "rounds=2",
    "prompts.per_round=8",
    "prompts.validate.params={size: 6}",
    "prompts.test.params={size: 6}",
    "sample.num_candidates=8",
    "evaluate.resamples=100",
    "evaluate.trained_prompts=4",
    "evaluate.drift_candidates=0",
)
# Sure of every other sum, and right about it; of the others it is sure too, and wrong, more so after a round.
ANSWERS = """
def answer(prompt, seed, policy_round):
    low, high = (int(word) for word in prompt.question.splitlines()[-1].rstrip("=").split("+"))
    right = low + high
    if seed and seed % 7 < 2 - policy_round:
        return f" {right + 5 + seed % 30}"
    return f" {right if right % 2 == 0 or policy_round > 1 else right + 10}"
"""


def test_the_recipe_votes_on_training_problems_and_measures_by_references() -> None:
    config = compose("lmsi").config
    assert [(one.name, one.weight) for one in config.score.scorers] == [("majority", 1.0), ("exact", 0.0)]
    assert [one.name for one in config.evaluate.scorers] == ["exact"]
    assert {arm.name for arm in config.arms} == {"verified", "random_selection"}
    assert config.sample.num_candidates == 16


def test_labels_come_from_votes_and_their_worth_from_references(tmp_path: Path) -> None:
    (tmp_path / "answers.py").write_text(ANSWERS)
    scripted = ("sample.engine=scripted", f"sample.params={{function: '{tmp_path}/answers.py:answer'}}")
    run = run_here(recipes()["lmsi"], *TINY, *scripted, "train.trainer=scripted", runs_dir=tmp_path)
    scored = receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]
    assert scored["score/label_coverage"] == 1.0
    assert 0 < scored["score/label_accuracy"] < 1
    kept = receipt_of(run, "main/rounds/001/select-improve-00")["metrics"]
    assert kept["select/kept"] == 16
    assert kept["select/kept_truth_share"] == pytest.approx(scored["score/label_accuracy"])
    assert "score/label_accuracy" not in receipt_of(run, "verified/rounds/001/score-wave-00")["metrics"]
    verified = receipt_of(run, "verified/rounds/001/select-improve-00")["metrics"]
    assert verified["select/kept"] < kept["select/kept"], "the verifier refuses what the vote labels wrongly"
    assert {one["over"] for one in json.loads((run / "verdict.json").read_text())["gains"]} >= {"round 0"}


def test_a_tiny_model_goes_through_it(tmp_path: Path) -> None:
    model = build_model(tmp_path / "model")
    run = run_here(
        recipes()["lmsi"],
        *TINY,
        "rounds=1",
        f"model.path={model}",
        "sample.temperature=0.05",
        "score.scorers=[{name: majority, params: {normalise: text}}, {name: exact, weight: 0}]",
        "select.finish_reasons=[stop_token, stop_string, length]",
        "train.lora.r=4",
        "arms=[]",
        runs_dir=tmp_path,
    )
    scored = receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]
    assert scored["score/candidates"] == 64
    assert 0 <= scored["score/truth_share"] <= 1
    assert (run / "verdict.json").is_file()
