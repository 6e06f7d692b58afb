from __future__ import annotations

import json
from pathlib import Path

import pytest
from worlds import receipt_of, results_of, run_here, scripted_recipe

from selftrain import tables
from selftrain.errors import PhaseError
from selftrain.records import Candidate, Score, Survivor

NOBODY_IS_RIGHT = "def answer(prompt, seed, policy_round):\n    return 'no idea'\n"
WORSE_EVERY_ROUND = (
    "import zlib\n\ndef answer(prompt, seed, policy_round):\n"
    "    luck = (seed or zlib.crc32(prompt.id.encode())) % 10\n"
    "    return prompt.reference if luck < 8 - 3 * policy_round else '0'\n"
)


def train_start(run: Path, arm: str, number: int) -> str:
    start: str = receipt_of(run, f"{arm}/rounds/{number:03d}/train-improve-00")["ingredients"]["inputs"]["start"]
    return start


def adapter(run: Path, arm: str, number: int) -> str:
    output: str = receipt_of(run, f"{arm}/rounds/{number:03d}/train-improve-00")["output"]
    return output


def test_two_runs_of_one_seed_are_equal_and_another_seed_is_not(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    first, second = (run_here(recipe, runs_dir=tmp_path / name) for name in "ab")
    other = run_here(recipe, "seed=1", runs_dir=tmp_path / "c")
    assert results_of(first) == results_of(second)
    survivors = "arms/main/rounds/001/survivors/improve-00/survivors.parquet"
    assert (first / survivors).read_bytes() != (other / survivors).read_bytes()


def test_training_starts_from_base_previous_or_best_as_the_config_says(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[])
    base = run_here(recipe, "train.init_from=base", "name=b", runs_dir=tmp_path)
    assert train_start(base, "main", 3) == train_start(base, "main", 1)
    previous = run_here(recipe, "train.init_from=previous", "name=p", runs_dir=tmp_path)
    assert train_start(previous, "main", 3) == adapter(previous, "main", 2)
    (tmp_path / "recipe/answers.py").write_text(WORSE_EVERY_ROUND)
    best = run_here(recipe, "train.init_from=best", "name=best", runs_dir=tmp_path)
    assert train_start(best, "main", 3) == train_start(best, "main", 1), "round 0 stayed the best"


def test_every_round_samples_from_the_policy_of_the_round_before(tmp_path: Path) -> None:
    run = run_here(scripted_recipe(tmp_path / "recipe"), runs_dir=tmp_path)
    for arm in ("main", "random_selection"):
        inputs = receipt_of(run, f"{arm}/rounds/002/sample-wave-00")["ingredients"]["inputs"]
        assert inputs["policy"] == adapter(run, arm, 1)


def test_the_control_shares_round_one_and_draws_as_many_survivors_whatever_their_score(tmp_path: Path) -> None:
    run = run_here(scripted_recipe(tmp_path / "recipe"), runs_dir=tmp_path)
    assert not (run / "arms/random_selection/rounds/001/candidates").exists()
    wrong = 0
    for number in (1, 2, 3):
        counts = {}
        for arm in ("main", "random_selection"):
            survivors = tables.read(
                run / f"arms/{arm}/rounds/{number:03d}/survivors/improve-00/survivors.parquet", Survivor
            )
            counts[arm] = len(survivors)
            home = "main" if number == 1 else arm
            files = (run / f"arms/{home}/rounds/{number:03d}/scores/wave-00").glob("*.parquet")
            correct = {one.candidate_id: one.correct for path in files for one in tables.read(path, Score)}
            if arm == "main":
                assert all(correct[one.candidate_id] for one in survivors)
            else:
                wrong += sum(not correct[one.candidate_id] for one in survivors)
        assert counts["main"] == counts["random_selection"]
        steps = [
            receipt_of(run, f"{arm}/rounds/{number:03d}/train-improve-00")["metrics"]["train/steps"] for arm in counts
        ]
        assert steps[0] == steps[1]
    assert wrong > 0


def test_a_round_without_survivors_keeps_the_policy_says_so_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    (tmp_path / "recipe/answers.py").write_text(NOBODY_IS_RIGHT)
    run = run_here(recipe, runs_dir=tmp_path)
    captured = capsys.readouterr()
    assert "round 1 · train · no survivors, so no training; the policy stays as it is" in captured.out
    assert "main · round 1 · no_survivors" in captured.err, "which is an alarm too"
    receipt = receipt_of(run, "main/rounds/003/train-improve-00")
    assert receipt["metrics"]["train/skipped"] == 1.0
    assert receipt["output"] == receipt["ingredients"]["inputs"]["start"]
    assert not (run / "best").exists()


def test_fewer_survivors_than_wanted_is_an_error_with_the_funnel_and_nothing_is_lost(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    with pytest.raises(PhaseError, match=r"8 survivors, and select.min_survivors is 9; the funnel: 48 sampled"):
        run_here(recipe, "select.min_survivors=9", runs_dir=tmp_path)
    run = run_here(recipe, "select.min_survivors=8", runs_dir=tmp_path)
    commits = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert sum(event.get("key") == "arms/main/rounds/001/sample-wave-00" for event in commits) == 1


def test_stopping_by_patience_ends_early_and_promotes_the_best_validated_round(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    (tmp_path / "recipe/answers.py").write_text(WORSE_EVERY_ROUND)
    run = run_here(recipe, "rounds=5", "stop.patience=2", runs_dir=tmp_path)
    assert (run / "arms/main/rounds/002").exists()
    assert not (run / "arms/main/rounds/003").exists()
    assert not (run / "arms/random_selection/rounds/003").exists()
    assert json.loads((run / "verdict.json").read_text())["best_round"] == 0


def test_a_target_and_the_budgets_end_a_run(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[])
    for name, knob, last in (
        ("t", "stop.target=0.1", 1),
        ("k", "stop.max_sampled_tokens=1", 1),
        ("n", "stop.target=1.0", 3),
    ):
        run = run_here(recipe, f"name={name}", knob, runs_dir=tmp_path)
        assert max(int(path.name) for path in (run / "arms/main/rounds").iterdir()) == last


def test_append_trains_on_all_rounds_so_far(tmp_path: Path) -> None:
    run = run_here(scripted_recipe(tmp_path / "recipe"), "select.buffer=append", runs_dir=tmp_path)
    survivors = tables.read(run / "arms/main/rounds/003/survivors/improve-00/survivors.parquet", Survivor)
    assert {one.round for one in survivors} == {1, 2, 3}
    assert len({one.candidate_id for one in survivors}) == len(survivors)


def test_without_held_out_prompts_the_last_round_is_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    run = run_here(recipe, "prompts.validate=null", "prompts.test=null", runs_dir=tmp_path)
    assert (run / "best").resolve().parent.parent.name == "003"
    assert "no gain can be claimed" in capsys.readouterr().out


def test_with_test_prompts_alone_the_headline_is_the_last_round(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    run = run_here(recipe, "prompts.validate=null", runs_dir=tmp_path)
    verdict = json.loads((run / "verdict.json").read_text())
    assert (verdict["round"], verdict["chosen"], verdict["set_name"]) == (3, "the last round", "test")
    assert [gain["over"] for gain in verdict["gains"]] == ["round 0", "random_selection"]


def test_what_a_scorer_cannot_judge_is_neither_right_nor_wrong_nor_kept(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", score={"scorers": ["judge.py:judge"], "max_unscored_rate": 0.9})
    (tmp_path / "recipe/judge.py").write_text(
        "def judge(text, reference):\n    if int(text) % 2:\n        raise ValueError('odd')\n"
        "    return text == reference\n"
    )
    run = run_here(recipe, "arms=[]", runs_dir=tmp_path)
    scores = [
        one
        for path in (run / "arms/main/rounds/001/scores/wave-00").glob("*.parquet")
        for one in tables.read(path, Score)
    ]
    unscored = {one.candidate_id for one in scores if one.value is None}
    assert unscored
    assert all(one.correct is None and one.error for one in scores if one.value is None)
    survivors = tables.read(run / "arms/main/rounds/001/survivors/improve-00/survivors.parquet", Survivor)
    assert not unscored & {one.candidate_id for one in survivors}
    with pytest.raises(PhaseError, match=r"could not be scored \(score.max_unscored_rate is 0.01\).*ValueError: odd"):
        run_here(recipe, "arms=[]", "score.max_unscored_rate=0.01", "name=strict", runs_dir=tmp_path)


def test_every_candidate_is_either_a_survivor_or_rejected_with_a_reason(tmp_path: Path) -> None:
    run = run_here(scripted_recipe(tmp_path / "recipe"), runs_dir=tmp_path)
    folder = run / "arms/main/rounds/002"
    candidates = [one.id for path in (folder / "candidates/wave-00").iterdir() for one in tables.read(path, Candidate)]
    kept = [one.candidate_id for one in tables.read(folder / "survivors/improve-00/survivors.parquet", Survivor)]
    rejected = [json.loads(line) for line in (folder / "survivors/improve-00/rejected.jsonl").read_text().splitlines()]
    assert sorted(candidates) == sorted(kept + [row["candidate_id"] for row in rejected])
    assert all(row["why"] for row in rejected)
