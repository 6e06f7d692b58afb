"""recipes/vstar as it is shipped, at the scale of a test: a tiny random model in place of SmolLM2."""

from __future__ import annotations

from pathlib import Path

from tiny_models import build_model
from worlds import receipt_of, run_here

from selftrain import tables
from selftrain.compose import compose, recipes
from selftrain.records import Pair, Survivor

TINY = (
    "rounds=2",
    "prompts.per_round=8",
    "prompts.validate.limit=4",
    "prompts.test.limit=4",
    "sample.num_candidates=4",
    "sample.stop_strings=[' ','1','2','3','e','a','o','n','t','s']",
    "evaluate.num_samples=4",
    "evaluate.ks=[1,2,4]",
    "evaluate.resamples=100",
    "evaluate.trained_prompts=0",
    "evaluate.drift_candidates=0",
    "train.lora.r=4",
    "verifier.lora={r: 4}",
)


def test_the_recipe_says_what_the_paper_says() -> None:
    config = compose("vstar").config
    assert config.verifier is not None
    assert config.sample.num_candidates == 16
    assert config.train.init_from == "base"
    assert config.select.buffer == "append"
    assert config.select.max_per_prompt is None
    assert config.rounds == 3
    assert config.verifier.score == "likelihood"
    assert config.verifier.rounds == ("last",)


def test_a_tiny_model_goes_through_it_to_a_verifier_that_chooses(tmp_path: Path) -> None:
    model = build_model(tmp_path / "model", context=128)
    (tmp_path / "judge.py").write_text("def judge(text):\n    return len(text) % 2 == 0\n")
    scorer = f"score.scorers=['{tmp_path}/judge.py:judge']"
    run = run_here(recipes()["vstar"], *TINY, f"model.path={model}", scorer, runs_dir=tmp_path / "runs")
    folder = run / "arms/main/rounds/002"
    survivors = tables.read(folder / "survivors/improve-00/survivors.parquet", Survivor)
    assert {one.round for one in survivors} == {1, 2}, "right answers accumulate"
    pairs = tables.read(folder / "verifier/pairs.parquet", Pair)
    assert {one.chosen_round for one in pairs} == {1, 2}, "and so do pairs"
    assert receipt_of(run, "main/rounds/002/verifier")["metrics"]["verifier/steps"] >= 1
    metrics = receipt_of(run, "main/rounds/002/evaluate-verifier")["metrics"]
    key = "evaluate/sampled/verifier/best_of_k@4"
    assert metrics[f"{key}_low"] <= metrics[key] <= metrics[f"{key}_high"]
    assert metrics[key] <= metrics["evaluate/sampled/verifier/pass@4"] + 1e-9
    assert {f"{key}_over_pass@1", f"{key}_over_policy"} <= metrics.keys()
