"""Deliberate mistakes: one clear message with the next step, the right exit code, no traceback, nothing lost."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from worlds import command, model_recipe, run_here, scripted_recipe, selftrain

from selftrain.errors import SelftrainError

OVERLAP = {"path": "train.jsonl", "limit": 2}
RAISES = "def judge(text):\n    raise RuntimeError('out of luck')\n"

MISTAKES: dict[str, tuple[dict[str, Any], int, str]] = {
    "a misspelt key": ({"sample": {"num_candidate": 4}}, 2, "did you mean sample.num_candidates?"),
    "a wrong type": ({"rounds": "three"}, 2, "rounds: Input should be a valid integer"),
    "no candidates": ({"sample": {"num_candidates": 0}}, 2, "greater than or equal to 1 (got 0)"),
    "a missing file": ({"prompts": {"train": "nowhere.jsonl"}}, 2, "there is no file"),
    "an empty set": ({"prompts": {"test": "empty.jsonl"}}, 65, "it is empty"),
    "an absent column": (
        {"prompts": {"template": "{question}"}},
        65,
        "no column 'question' (prompts.template uses it; {{ is a plain brace); it has: prompt",
    ),
    "an overlap": ({"prompts": {"test": OVERLAP}}, 65, "also in prompts.test, for example 'what comes after 0?'"),
    "an unknown scorer": ({"score": {"scorers": ["exakt"]}}, 2, "exact"),
    "an unknown scorer parameter": (
        {"score": {"scorers": [{"name": "exact", "params": {"strict": True}}]}},
        2,
        "strict",
    ),
    "a scorer file that is not there": ({"score": {"scorers": ["nowhere.py:judge"]}}, 2, "there is no file"),
    "a scorer that always raises": ({"score": {"scorers": ["judge.py:judge"]}}, 70, "RuntimeError: out of luck"),
    "too few survivors": ({"select": {"min_survivors": 1000}}, 70, "select.min_survivors is 1000; the funnel:"),
    "an unknown engine": ({"sample": {"engine": "vlm"}}, 2, "vlm"),
    "an unknown field of SFTConfig": ({"train": {"sft": {"warmup_stepz": 3}}}, 2, "warmup_steps"),
    "a field that is ours": ({"train": {"sft": {"learning_rate": 1}}}, 2, "train.learning_rate"),
    "an unknown field of LoraConfig": ({"train": {"lora": {"rank": 3}}}, 2, "train.lora"),
    "an unknown arm": ({"arms": ["placebo"]}, 2, "known: random_selection"),
    "a billion candidates": ({"sample": {"num_candidates": 10**9}}, 2, "less than or equal to 100000"),
    "a name that leaves the folder": ({"name": "../up"}, 2, "cannot name a folder"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scripted_recipe(tmp_path / "recipe")
    (tmp_path / "recipe/empty.jsonl").write_text("")
    (tmp_path / "recipe/judge.py").write_text(RAISES)
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_clear_message_and_its_exit_code(folder: Path, mistake: str) -> None:
    changes, code, said = MISTAKES[mistake]
    recipe = scripted_recipe(folder / "recipe", **changes)
    with pytest.raises(SelftrainError) as error:
        run_here(recipe, runs_dir=folder / "runs")
    assert said in str(error.value)
    assert error.value.exit_code == code
    if code == 2:
        assert not (folder / "runs").exists(), "refused before anything was made"


def test_the_command_line_shows_the_message_without_a_traceback(folder: Path) -> None:
    done = selftrain("run", folder / "recipe", "sample.num_candidate=4", "--runs-dir", folder)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("selftrain: ")


@pytest.mark.parametrize("arguments", [["walk"], ["run"], ["run", "quickstart", "--wiht", "x"], ["status"]])
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    done = selftrain(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_everything_truncated_trains_nothing_and_says_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = scripted_recipe(folder / "recipe", sample={"max_new_tokens": 1}, arms=[])
    run_here(recipe, runs_dir=folder / "runs")
    out = capsys.readouterr()
    assert "48 sampled > 48 scored > 0 finished" in out.out
    assert "no survivors" in out.out
    assert "no_survivors" in out.err


def test_a_second_run_on_the_directory_is_refused_in_under_a_second_with_the_holder(folder: Path) -> None:
    (folder / "recipe/answers.py").write_text(
        "import time\ndef answer(prompt, seed, policy_round):\n    time.sleep(0.2)\n    return '1'\n"
    )
    arguments = ("run", folder / "recipe", "--runs-dir", folder / "runs")
    with subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        deadline = time.monotonic() + 60
        while not list(folder.glob("runs/tiny/arms/**/*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.05)
        started = time.monotonic()
        with pytest.raises(SelftrainError, match=f"is in use by pid {first.pid} on ") as error:
            run_here(folder / "recipe/recipe.yaml", runs_dir=folder / "runs")
        assert time.monotonic() - started < 1
        assert error.value.exit_code == 2
        assert first.poll() is None, "the first run is not disturbed"
        first.kill()


def test_a_folder_that_cannot_be_written_ends_with_74(folder: Path) -> None:
    # A file in the way cannot be written into, not even by root.
    (folder / "runs").write_text("in the way")
    done = selftrain("run", folder / "recipe", "--runs-dir", folder / "runs")
    assert done.returncode == 74, done.stderr
    assert "Traceback" not in done.stderr
    assert "choose another --runs-dir" in done.stderr


def test_a_place_where_nobody_makes_folders_ends_with_74(folder: Path) -> None:
    with pytest.raises(SelftrainError, match="choose another --runs-dir") as error:
        run_here(folder / "recipe/recipe.yaml", runs_dir=Path("/proc/nowhere"))
    assert error.value.exit_code == 74


def test_what_a_verifier_wrote_reaches_the_terminal_harmless(folder: Path) -> None:
    (folder / "recipe/judge.py").write_text("def judge(text):\n    raise RuntimeError('boom \\x1b[31mred')\n")
    recipe = scripted_recipe(folder / "recipe", score={"scorers": ["judge.py:judge"]})
    done = selftrain("run", recipe, "--runs-dir", folder / "runs")
    assert "boom red" in done.stderr
    assert "\x1b" not in done.stderr


def test_status_of_a_folder_that_is_no_run_ends_with_2(folder: Path) -> None:
    done = selftrain("status", folder)
    assert done.returncode == 2
    assert "is no run directory" in done.stderr


def test_ranks_that_no_launcher_started_are_told_what_does(folder: Path) -> None:
    done = selftrain("run", folder / "recipe", "--runs-dir", folder, WORLD_SIZE="2", RANK="0")
    assert done.returncode == 2
    assert "start them with torchrun or accelerate launch" in done.stderr
    assert "Traceback" not in done.stderr


def test_damaged_files_are_named_with_the_way_out(folder: Path) -> None:
    run = run_here(folder / "recipe/recipe.yaml", runs_dir=folder / "runs")
    survivors = run / "arms/main/rounds/003/survivors/improve-00/survivors.parquet"
    survivors.write_bytes(survivors.read_bytes()[:-10])
    (run / "arms/main/rounds/003/receipts/train-improve-00.json").unlink()
    with pytest.raises(
        SelftrainError, match=r"survivors\.parquet is damaged.*or delete .*select-improve-00\.json"
    ) as error:
        run_here(folder / "recipe/recipe.yaml", runs_dir=folder / "runs")
    assert error.value.exit_code == 65


def test_a_model_that_is_not_there_is_named(folder: Path) -> None:
    recipe = model_recipe(folder / "recipe", folder / "no-model")
    done = selftrain("run", recipe, "--runs-dir", folder / "runs", HF_HUB_OFFLINE="1")
    assert done.returncode in (2, 69), done.stderr
    assert "no-model" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_prompt_longer_than_the_context_is_named(folder: Path) -> None:
    from tiny_models import build_model

    recipe = model_recipe(
        folder / "recipe", build_model(folder / "model", context=16), prompts={"template": "{prompt} " * 9}
    )
    done = selftrain("run", recipe, "--runs-dir", folder / "runs")
    assert done.returncode == 65, done.stderr
    assert "tokens, and the model's context is 16" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_that_is_not_there_is_refused_by_plan_with_the_places_looked_at(tmp_path: Path) -> None:
    recipe = model_recipe(tmp_path / "recipe", tmp_path)
    refused = selftrain("plan", recipe, "model.path=./no/model")
    assert refused.returncode == 2
    assert str(tmp_path / "recipe" / "no" / "model") in refused.stderr
