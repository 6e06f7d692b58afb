"""`select.kl_beta` in whole runs: what a candidate's likelihood at round 0 is, and whom it ranks first."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tiny_models import build_model
from worlds import model_recipe, receipt_of, run_here, scripted_recipe

from selftrain import tables
from selftrain.compose import compose
from selftrain.errors import ConfigError
from selftrain.records import Candidate, Score, Survivor

BETA = 0.3
VERIFIER = (
    'def grade(text):\n    """Equal for many texts, so that the penalty decides."""\n    return float(len(text) % 2)\n'
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """Round 1 without the penalty; round 2 with it, sampled by a policy far from round 0."""
    folder = tmp_path_factory.mktemp("kl")
    recipe = model_recipe(
        folder / "recipe",
        model,
        select={"rule": "best_of_n", "kl_beta": [BETA, 0.0, BETA], "max_per_prompt": None, "dedup": "none"},
        score={"scorers": ["verifier.py:grade"]},
        prompts={"validate": None, "test": None},
        train={"learning_rate": 0.05},
        arms=[],
        rounds=3,
    )
    (recipe.parent / "verifier.py").write_text(VERIFIER)
    return run_here(recipe, runs_dir=folder / "runs")


def candidates_of(run: Path, number: int) -> list[Candidate]:
    files = sorted((run / f"arms/main/rounds/{number:03d}/candidates/wave-00").iterdir())
    return [one for path in files for one in tables.read(path, Candidate)]


def by_hand(model: Path, candidate: Candidate) -> float:
    """The log-probability of the completion after the prompt, by one plain forward pass of the base model."""
    import torch
    from transformers import AutoModelForCausalLM

    ids = [*candidate.prompt_token_ids, *candidate.completion_token_ids]
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(model)(torch.tensor([ids])).logits[0].double()
    rows = torch.log_softmax(logits, dim=-1)[len(candidate.prompt_token_ids) - 1 : -1]
    return float(rows.gather(1, torch.tensor(candidate.completion_token_ids)[:, None]).sum())


def test_under_the_policy_of_round_0_a_candidate_of_its_own_is_as_likely_as_when_it_was_sampled(run: Path) -> None:
    found = candidates_of(run, 1)
    assert all(one.base_logprob == math.fsum(one.logprobs) for one in found)


def test_a_round_without_the_penalty_does_not_ask_for_it_and_its_fingerprint_is_another(run: Path) -> None:
    assert all(one.base_logprob is None for one in candidates_of(run, 2))
    parts = [
        receipt_of(run, f"main/rounds/{number:03d}/sample-wave-00")["ingredients"]["config"] for number in (1, 2, 3)
    ]
    assert ["base_logprob" in one for one in parts] == [True, False, True]


def test_a_later_policys_candidates_are_read_by_the_policy_of_round_0(run: Path, model: Path) -> None:
    found = candidates_of(run, 3)
    for one in found[::7]:
        assert one.base_logprob == pytest.approx(by_hand(model, one), abs=1e-3)
    ratios = [math.fsum(one.logprobs) - float(one.base_logprob or 0.0) for one in found]
    assert max(map(abs, ratios)) > 0.5, "the policy is to have moved"


def test_the_survivor_of_each_prompt_has_the_best_value_after_the_penalty(run: Path) -> None:
    folder = run / "arms/main/rounds/003"
    scores = {
        one.candidate_id: one
        for path in sorted((folder / "scores/wave-00").glob("*.parquet"))
        for one in tables.read(path, Score)
    }
    survivors = tables.read(folder / "survivors/improve-00/survivors.parquet", Survivor)
    shaped: dict[str, dict[str, float]] = {}
    for one in candidates_of(run, 3):
        ratio = math.fsum(one.logprobs) - float(one.base_logprob or 0.0)
        shaped.setdefault(one.prompt_id, {})[one.id] = float(scores[one.id].value or 0.0) - BETA * ratio
    assert len(survivors) == len(shaped)
    for survivor in survivors:
        of_prompt = shaped[survivor.prompt_id]
        assert of_prompt[survivor.candidate_id] == max(of_prompt.values())
        assert survivor.value == scores[survivor.candidate_id].value
    first = [max(of_prompt, key=lambda name: scores[name].value or 0.0) for of_prompt in shaped.values()]
    assert {one.candidate_id for one in survivors} != set(first), "without the penalty others would survive"


def test_the_penalty_is_refused_where_no_policy_of_the_run_writes_the_candidates(tmp_path: Path) -> None:
    recipe = str(scripted_recipe(tmp_path / "scripted", select={"kl_beta": 0.1}))
    with pytest.raises(ConfigError, match=r"sample\.engine: scripted has no model; set select\.kl_beta: 0"):
        compose(recipe)
    (tmp_path / "scripted" / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    recipe = str(
        scripted_recipe(
            tmp_path / "scripted", select={"kl_beta": [0.0, 0.1]}, sample={"policy": {"file": "rows.jsonl"}}
        )
    )
    with pytest.raises(ConfigError, match=r"with sample\.policy: file another writes the candidates"):
        compose(recipe)
