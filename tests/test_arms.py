from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from worlds import receipt_of, results_of, run_here, scripted_recipe, selftrain

from selftrain import tables
from selftrain.records import Survivor
from selftrain.tracking.ledger import read

HIGH_TEMPERATURE = {"high_temperature": {"sample.temperature": 1.5, "evaluate_rounds": "all"}}


def survivors_of(run: Path, arm: str, number: int) -> list[Survivor]:
    path = run / f"arms/{arm}/rounds/{number:03d}/survivors/improve-00/survivors.parquet"
    return tables.read(path, Survivor)


def train_metrics(run: Path, arm: str, number: int) -> dict[str, Any]:
    metrics: dict[str, Any] = receipt_of(run, f"{arm}/rounds/{number:03d}/train-improve-00")["metrics"]
    return metrics


def with_seed_data(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": f"what comes after {n}?", "completion": f"it is {n + 1}"} for n in range(50, 53)]
    (folder / "seed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sets = {"train": "train.jsonl", "validate": "validate.jsonl", "test": "test.jsonl", "format": "text"}
    return scripted_recipe(folder, prompts={**sets, "seed_data": "seed.jsonl"}, **changes)


def test_every_control_has_as_many_examples_and_updates_as_main_in_every_round(tmp_path: Path) -> None:
    arms = ["random_selection", "seed_only", "gold"]
    run = run_here(with_seed_data(tmp_path / "recipe", arms=arms), runs_dir=tmp_path)
    for number in (1, 2, 3):
        kept = len(survivors_of(run, "main", number))
        steps = train_metrics(run, "main", number)["train/steps"]
        for arm in arms:
            assert len(survivors_of(run, arm, number)) == kept
            assert train_metrics(run, arm, number)["train/steps"] == steps


def test_no_filter_trains_on_every_finished_candidate_in_as_many_updates_as_main(tmp_path: Path) -> None:
    run = run_here(scripted_recipe(tmp_path / "recipe", arms=["no_filter"]), runs_dir=tmp_path)
    for number in (1, 2, 3):
        assert len(survivors_of(run, "no_filter", number)) == 48 > len(survivors_of(run, "main", number))
        steps = [train_metrics(run, arm, number)["train/steps"] for arm in ("main", "no_filter")]
        assert steps[0] == steps[1]


def test_seed_only_and_gold_train_on_texts_that_the_data_gives_and_the_funnel_says_so(tmp_path: Path) -> None:
    run = run_here(with_seed_data(tmp_path / "recipe", arms=["seed_only", "gold"]), runs_dir=tmp_path)
    seed, gold = survivors_of(run, "seed_only", 1), survivors_of(run, "gold", 1)
    assert {one.text for one in seed} == {"it is 51", "it is 52", "it is 53"}
    assert all(int(one.text) == int(one.prompt_text.split()[-1].rstrip("?")) + 1 for one in gold)
    counts = [
        receipt_of(run, f"{arm}/rounds/001/select-improve-00")["metrics"].get("select/from_references", 0.0)
        for arm in ("main", "seed_only", "gold")
    ]
    assert counts == [0.0, 0.0, float(len(gold))]
    assert not (run / "arms/gold/rounds/001/candidates").exists()


def test_an_arm_with_overrides_shares_what_is_the_same_and_does_the_rest_itself(tmp_path: Path) -> None:
    arms = {**HIGH_TEMPERATURE, "slow": {"train.learning_rate": 1e-5}}
    run = run_here(scripted_recipe(tmp_path / "recipe", arms=arms), runs_dir=tmp_path)
    own = {arm: {path.name for path in (run / f"arms/{arm}/rounds/001/receipts").iterdir()} for arm in arms}
    assert own["slow"] == {"train-improve-00.json", "round.json"}, "candidates, scores and survivors are main's"
    assert {"sample-wave-00.json", "score-wave-00.json"} <= own["high_temperature"]
    ingredients = receipt_of(run, "high_temperature/rounds/001/sample-wave-00")["ingredients"]
    assert ingredients["config"]["sample"]["temperature"] == 1.5
    assert not (run / "arms/high_temperature/rounds/000/evaluation").exists(), "the baseline is main's"
    verdict = json.loads((run / "verdict.json").read_text())
    assert {gain["over"] for gain in verdict["gains"]} >= {"round 0", "high_temperature", "slow"}


def test_every_arm_is_scored_in_evaluation_as_main_is(tmp_path: Path) -> None:
    arms = {"lenient": {"score.scorers": [{"name": "regex", "params": {"pattern": "(.*)"}}], "score.correct_at": 0.0}}
    run = run_here(scripted_recipe(tmp_path / "recipe", arms=arms), runs_dir=tmp_path)
    parts = [
        receipt_of(run, f"{arm}/rounds/003/evaluate")["ingredients"]["config"]["scoring"] for arm in ("main", "lenient")
    ]
    assert parts[0] == parts[1]


def test_the_shared_diagnostic_does_one_round_from_mains_start_and_candidates(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=["random_selection_shared"])
    run = run_here(recipe, runs_dir=tmp_path)
    headline = json.loads((run / "verdict.json").read_text())["round"]
    done = sorted(int(path.parent.parent.name) for path in (run / "arms").glob("random*/rounds/*/receipts/train*.json"))
    assert done == sorted({headline, 3})
    inputs = {
        arm: receipt_of(run, f"{arm}/rounds/003/train-improve-00")["ingredients"]["inputs"]
        for arm in ("main", "random_selection_shared")
    }
    assert inputs["main"]["start"] == inputs["random_selection_shared"]["start"]
    sampled = {one.candidate_id for one in survivors_of(run, "random_selection_shared", 3)}
    from selftrain.records import Candidate

    files = (run / "arms/main/rounds/003/candidates/wave-00").glob("*.parquet")
    assert sampled <= {one.id for path in files for one in tables.read(path, Candidate)}


@pytest.mark.parametrize("arm", ["random_selection", "no_filter", "gold", "random_selection_shared"])
def test_a_control_of_a_main_that_kept_nothing_trains_on_nothing(tmp_path: Path, arm: str) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[arm])
    (tmp_path / "recipe/answers.py").write_text("def answer(prompt, seed, policy_round):\n    return 'no idea'\n")
    run = run_here(recipe, runs_dir=tmp_path)
    assert train_metrics(run, arm, 3)["train/skipped"] == 1.0


def test_an_arm_added_later_leaves_the_rest_as_it_was(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[])
    run = run_here(recipe, runs_dir=tmp_path / "a")
    before = {key: value for key, value in results_of(run).items() if "/main/" in key}
    recipe = scripted_recipe(tmp_path / "recipe", arms=HIGH_TEMPERATURE)
    run_here(recipe, runs_dir=tmp_path / "a")
    assert before == {key: value for key, value in results_of(run).items() if "/main/" in key}
    at_once = run_here(recipe, runs_dir=tmp_path / "b")
    assert results_of(run) == results_of(at_once)


def test_changing_an_arms_knob_after_it_ran_is_refused_and_taking_it_out_is_not(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=HIGH_TEMPERATURE)
    run_here(recipe, runs_dir=tmp_path)
    scripted_recipe(tmp_path / "recipe", arms={"high_temperature": {"sample.temperature": 1.4}})
    refused = selftrain("run", recipe, "--runs-dir", tmp_path)
    assert refused.returncode == 2
    assert "sample.temperature: 1.5 -> 1.4" in refused.stderr
    scripted_recipe(tmp_path / "recipe", arms=[])
    run_here(recipe, runs_dir=tmp_path)


def test_a_regressed_round_is_not_built_upon_where_the_guard_is_set(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=["random_selection"])
    (tmp_path / "recipe/answers.py").write_text(
        "import zlib\n\ndef answer(prompt, seed, policy_round):\n"
        "    luck = (seed or zlib.crc32(prompt.id.encode())) % 10\n"
        "    return prompt.reference if luck < (5, 9, 1, 9)[policy_round] else '0'\n"
    )
    run = run_here(recipe, "stop.max_regression=0.1", "name=guarded", runs_dir=tmp_path)
    adapters = {n: receipt_of(run, f"main/rounds/{n:03d}/train-improve-00") for n in (1, 2, 3)}
    third = receipt_of(run, "main/rounds/003/sample-wave-00")["ingredients"]["inputs"]["policy"]
    assert third == adapters[1]["output"], "round 2 fell, so round 3 samples from round 1"
    assert adapters[3]["ingredients"]["inputs"]["start"] == adapters[1]["output"]
    control = receipt_of(run, "random_selection/rounds/003/sample-wave-00")["ingredients"]["inputs"]["policy"]
    assert control == receipt_of(run, "random_selection/rounds/001/train-improve-00")["output"], "as main decided"


def test_an_alarm_is_told_kept_in_the_ledger_and_can_stop_the_run(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[])
    (tmp_path / "recipe/answers.py").write_text("def answer(prompt, seed, policy_round):\n    return 'no idea'\n")
    done = selftrain("run", recipe, "alarms.stop_on=[no_survivors]", "--runs-dir", tmp_path)
    assert done.returncode == 0
    assert "no_survivors" in done.stderr
    rows = [row for row in read(tmp_path / "tiny/metrics.jsonl") if row["phase"] == "alarm"]
    assert [(row["round"], row["alarm"]) for row in rows] == [(1, "no_survivors")]
    assert "alarms.stop_on" in done.stdout


def test_a_table_in_an_arms_overrides_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    from selftrain.compose import compose
    from selftrain.config import config_of_arm

    recipe = scripted_recipe(
        tmp_path,
        train={"lora": {"r": 16, "lora_alpha": 64, "lora_dropout": 0.05}},
        arms={"rank32": {"train": {"lora": {"r": 32}}}},
    )
    config = compose(str(recipe)).config
    assert config_of_arm(config, config.arms[0]).train.lora == {"r": 32, "lora_alpha": 64, "lora_dropout": 0.05}


def test_gold_with_a_growing_buffer_shows_the_prompts_of_all_rounds_so_far(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=["gold"])
    run = run_here(recipe, "select.buffer=append", "prompts.per_round=4", runs_dir=tmp_path)
    prompts = {arm: {one.prompt_id for one in survivors_of(run, arm, 3)} for arm in ("main", "gold")}
    assert len(survivors_of(run, "gold", 3)) == len(survivors_of(run, "main", 3))
    assert len(prompts["gold"]) >= len(prompts["main"]) > 4


def test_a_budget_counts_what_main_spent_so_that_arms_do_not_shorten_it(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    tokens = receipt_of(run_here(recipe, "name=a", "rounds=1", runs_dir=tmp_path), "main/rounds/001/sample-wave-00")
    limit = int(2.5 * tokens["metrics"]["sample/tokens"])
    run_here(recipe, "name=b", "rounds=2", runs_dir=tmp_path)
    extended = run_here(recipe, "name=b", "rounds=4", f"stop.max_sampled_tokens={limit}", runs_dir=tmp_path)
    at_once = run_here(recipe, "name=c", "rounds=4", f"stop.max_sampled_tokens={limit}", runs_dir=tmp_path)
    last = [max(int(path.name) for path in (run / "arms/main/rounds").iterdir()) for run in (extended, at_once)]
    assert last[0] == last[1]


@pytest.mark.parametrize(
    "change",
    ["evaluate.trained_prompts=3", "stop.max_regression=0.1", "model.path=other", "evaluate.drift_candidates=7"],
)
def test_what_would_alter_a_finished_run_is_refused_before_anything_is_touched_and_a_fork_goes_on(
    tmp_path: Path, change: str
) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    run = run_here(recipe, runs_dir=tmp_path)
    before = (run / "verdict.json").read_bytes(), (run / "config.json").read_bytes()
    refused = selftrain("run", recipe, change, "--runs-dir", tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert before == ((run / "verdict.json").read_bytes(), (run / "config.json").read_bytes())
    forked = selftrain("run", recipe, change, "--runs-dir", tmp_path, "--fork", "other")
    assert forked.returncode == 0, forked.stderr
    assert (tmp_path / "other/verdict.json").exists()


def test_an_arm_that_shares_a_whole_round_with_main_is_finished_when_the_run_is(tmp_path: Path) -> None:
    from selftrain.outlook import status_of

    arms = {"late": {"train.learning_rate": [1e-4, 1e-4, 5e-5]}}
    run = run_here(scripted_recipe(tmp_path / "recipe", arms=arms), runs_dir=tmp_path)
    assert status_of(run)["state"] == "finished"


def test_what_was_kept_of_another_task_is_told_with_a_paired_interval(tmp_path: Path) -> None:
    folder = tmp_path / "recipe"
    folder.mkdir(parents=True)
    rows = [{"prompt": f"what comes before {n}?", "reference": str(n - 1)} for n in range(300, 340)]
    (folder / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sets = {"train": "train.jsonl", "validate": "validate.jsonl", "test": "test.jsonl", "format": "text"}
    recipe = scripted_recipe(folder, prompts={**sets, "retention": "other.jsonl"})
    run = run_here(recipe, runs_dir=tmp_path)
    lines = json.loads((run / "verdict.json").read_text())["lines"]
    assert any(line.startswith("retention, round 0") and "paired" in line for line in lines)


def test_an_arms_scorer_that_cannot_use_the_references_is_refused_before_main_begins(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms={"numbers": {"score.scorers": ["numeric"]}})
    train = tmp_path / "recipe/train.jsonl"
    train.write_text(re.sub(r'"reference": "\d+"', '"reference": "many"', train.read_text()))
    (tmp_path / "recipe/answers.py").write_text("def answer(prompt, seed, policy_round):\n    return 'x'\n")
    done = selftrain("run", recipe, "--runs-dir", tmp_path)
    assert done.returncode in (2, 65)
    assert not list((tmp_path / "tiny").glob("arms/*/rounds/*/receipts/*.json"))
