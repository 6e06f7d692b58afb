"""Each alarm in a run that is made to trigger it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from tiny_models import build_model
from worlds import model_recipe, run_here, scripted_recipe

from selftrain.tracking.ledger import read

LUCK = "import zlib\n\n\ndef luck_of(prompt, seed):\n    return (seed or zlib.crc32(prompt.id.encode())) % 10\n\n\n"


def alarms_of(run: Path) -> dict[str, list[int]]:
    """The rounds of main at which each alarm was raised, as the ledger has them."""
    found: dict[str, list[int]] = {}
    for row in read(run / "metrics.jsonl"):
        if row["phase"] == "alarm" and row["arm"] == "main":
            assert len(row["words"]) > 40
            found.setdefault(row["alarm"], []).append(row["round"])
    return found


def scripted_run(folder: Path, answers: str, *overrides: str, **changes: Any) -> Path:
    recipe = scripted_recipe(folder / "recipe", **{"arms": [], **changes})
    (folder / "recipe/answers.py").write_text(LUCK + answers)
    return run_here(recipe, *overrides, runs_dir=folder)


def test_no_survivors(tmp_path: Path) -> None:
    run = scripted_run(tmp_path, "def answer(prompt, seed, policy_round):\n    return 'no idea'\n")
    assert alarms_of(run)["no_survivors"] == [1, 2, 3]


def test_truncation(tmp_path: Path) -> None:
    run = scripted_run(
        tmp_path,
        "def answer(prompt, seed, policy_round):\n    return '1 ' * 20 if luck_of(prompt, seed) < 4 else '1'\n",
    )
    assert alarms_of(run)["truncation"] == [1, 2, 3]


def test_kept_precision_where_the_rule_keeps_wrong_ones(tmp_path: Path) -> None:
    run = scripted_run(
        tmp_path,
        "def answer(prompt, seed, policy_round):\n    return prompt.reference if luck_of(prompt, seed) < 5 else '0'\n",
        "select.rule=all",
    )
    assert alarms_of(run)["kept_precision"] == [1, 2, 3]


def test_coverage_that_stalls(tmp_path: Path) -> None:
    run = scripted_run(
        tmp_path,
        "def answer(prompt, seed, policy_round):\n    return prompt.reference if int(prompt.reference) % 2 else '0'\n",
    )
    assert alarms_of(run)["coverage_stalled"] == [2, 3], "there is no growth to speak of in the first round"


def test_memorising(tmp_path: Path) -> None:
    """Better every round at the prompts of training, which have numbers below 100, and at nothing else."""
    run = scripted_run(
        tmp_path,
        "def answer(prompt, seed, policy_round):\n"
        "    right = int(prompt.reference) < 100 and luck_of(prompt, seed) < 3 + 3 * policy_round\n"
        "    return prompt.reference if right else '0'\n",
    )
    assert 3 in alarms_of(run)["memorising"]


def test_right_answers_that_become_fewer(tmp_path: Path) -> None:
    """Every answer is right, in as many wordings as the policy is young."""
    run = scripted_run(
        tmp_path,
        "def answer(prompt, seed, policy_round):\n"
        "    return 'so ' * (luck_of(prompt, seed) % (4 - policy_round)) + prompt.reference\n",
        score={"scorers": [{"name": "regex", "params": {"pattern": r"(\d+)"}}]},
        select={"dedup": "none"},
        sample={"max_new_tokens": 40},
    )
    assert alarms_of(run)["diversity_falling"] == [3], "two falls in a row"


def test_entropy_that_collapses_while_fewer_prompts_can_be_solved(tmp_path: Path) -> None:
    run = scripted_run(
        tmp_path,
        "def answer(prompt, seed, policy_round):\n"
        "    solvable = int(prompt.reference) % 12 < 12 - 4 * policy_round\n"
        "    right = solvable and luck_of(prompt, seed) < 5 + policy_round\n"
        "    return (prompt.reference if right else '0'), 2.0 / 4**policy_round\n",
        "evaluate.sampled_rounds=none",
    )
    assert 3 in alarms_of(run)["entropy_collapse"]


def test_a_policy_that_runs_away_from_the_base_model(tmp_path: Path) -> None:
    """A random model, made less random by larger embeddings, learns its own answers by heart."""
    model = build_model(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"] *= 5
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    recipe = model_recipe(
        tmp_path / "recipe",
        model,
        arms=[],
        select={"rule": "all", "max_per_prompt": 1, "dedup": "none", "finish_reasons": ["stop_token", "length"]},
        train={"learning_rate": 5e-3, "epochs": 60},
        sample={"temperature": 0.7, "num_candidates": 8},
    )
    run = run_here(recipe, runs_dir=tmp_path)
    assert alarms_of(run)["kl_jump"] == [3]
