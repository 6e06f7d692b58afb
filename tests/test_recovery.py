"""What a message advises works: the same command, or the one it names, goes on from what was kept."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from worlds import model_recipe, receipt_of, results_of, run_here, scripted_recipe, selftrain

from selftrain import alterations
from selftrain.errors import ConfigError, DataError, PhaseError
from selftrain.intact import require_intact
from selftrain.records import Receipt
from selftrain.store import RunDirectory

NEEDS_A_PACKAGE = (
    "from pathlib import Path\n\ndef judge(text, reference):\n"
    "    if not Path(__file__).with_name('installed').exists():\n"
    "        raise ModuleNotFoundError('no module named grader')\n    return text == reference\n"
)


def commits_of(run: Path, key: str) -> int:
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return sum(event.get("key") == key for event in events)


def test_scoring_that_failed_for_want_of_a_package_goes_on_once_it_is_there(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", score={"scorers": ["judge.py:judge"]}, arms=[])
    (tmp_path / "recipe/judge.py").write_text(NEEDS_A_PACKAGE)
    with pytest.raises(PhaseError, match="no module named grader"):
        run_here(recipe, runs_dir=tmp_path)
    answers = list((tmp_path / "tiny").glob("arms/main/rounds/000/evaluation/greedy/*/candidates/*.parquet"))
    before = {path: path.stat().st_mtime_ns for path in answers}
    assert before, "what was sampled is kept"
    (tmp_path / "recipe/installed").touch()
    run = run_here(recipe, runs_dir=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert receipt_of(run, "main/rounds/001/score-wave-00")["metrics"]["score/unscored_rate"] == 0


def test_a_module_beside_the_verifier_is_part_of_it(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", score={"scorers": ["judge.py:judge"]}, arms=[], rounds=1)
    (tmp_path / "recipe/judge.py").write_text(
        "from grading import equal\n\ndef judge(text, reference):\n    return equal(text, reference)\n"
    )
    (tmp_path / "recipe/grading.py").write_text("def equal(a, b):\n    return a == b\n")
    run_here(recipe, runs_dir=tmp_path)
    (tmp_path / "recipe/grading.py").write_text("def equal(a, b):\n    return True\n")
    with pytest.raises(ConfigError, match=r"already committed.*\n  the source of judge\.py:judge changed\n"):
        run_here(recipe, runs_dir=tmp_path)


def test_a_refusal_says_in_words_what_rows_changed_and_by_which_recipe_the_run_was_made(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[], rounds=1)
    run_here(recipe, runs_dir=tmp_path)
    (tmp_path / "recipe/train.jsonl").write_text('{"prompt": "what comes after 7?", "reference": "8"}\n')
    with pytest.raises(ConfigError) as refused:
        run_here(recipe, runs_dir=tmp_path)
    assert "\n  the rows of prompts.train changed\n" in str(refused.value)
    assert f"(the run was made by {recipe.resolve()})" in str(refused.value)
    other = alterations.refusal("key", [], tmp_path / "tiny", Path("/other.yaml"))
    assert f"another recipe, {recipe.resolve()}, and this is /other.yaml" in str(other)


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (f"prompts.test: '(absent)' -> '{'a' * 64}'", "the rows of prompts.test: not there when it was made, and"),
        (f"scoring.sources.v.py:judge: '{'b' * 64}' -> '{'a' * 64}'", "the source of v.py:judge changed"),
        (f"engine_source: '{'b' * 64}' -> None", "the source of the engine's function (sample.params): there when"),
        (f"model: '{'b' * 64}' -> '{'a' * 64}'", "the model's files changed"),
        (f"something: '{'b' * 64}' -> '{'a' * 64}'", "something changed"),
        ("runs_on: 'cpu torch.float32' -> 'cuda torch.bfloat16'", "runs_on: 'cpu torch.float32' -> 'cuda"),
        ("sample.temperature: 0.5 -> None", "sample.temperature: 0.5 -> None"),
    ],
)
def test_digests_are_said_in_words(difference: str, words: str) -> None:
    assert alterations.in_words(difference).startswith(words)


@pytest.mark.parametrize("damage", ["folder gone", "cut short", "empty", "adapter gone", "steps cut"])
def test_a_run_does_not_go_on_without_what_is_committed_and_does_so_once_the_phase_is_done_again(
    tmp_path: Path, damage: str
) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[])
    run = run_here(recipe, "rounds=1", runs_dir=tmp_path)
    folder = run / "arms/main/rounds/001"
    kept = results_of(run)
    blocks = folder / "candidates"
    if damage == "folder gone":
        shutil.rmtree(blocks)
    elif damage == "adapter gone":
        shutil.rmtree(folder / "adapter/improve-00")
    else:
        path = folder / "adapter/improve-00.steps.jsonl" if damage == "steps cut" else next(blocks.glob("**/*.parquet"))
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"is (missing|damaged).*or delete .*/receipts/.*json to redo") as refused:
        run_here(recipe, "rounds=2", runs_dir=tmp_path)
    Path(str(refused.value).partition("or delete ")[2].removesuffix(" to redo that phase")).unlink()
    run_here(recipe, "rounds=1", runs_dir=tmp_path)
    files = {name: content for name, content in results_of(run).items() if isinstance(content, bytes)}
    assert files == {name: content for name, content in kept.items() if isinstance(content, bytes)}


def test_safetensors_files_are_known_to_be_whole_by_their_header(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    save_file({"a": np.zeros(5, dtype=np.float32), "b": np.zeros((2, 2), dtype=np.float32)}, path)
    made = Receipt("k", "train", "main", 1, "", {}, "", 0, {path.name: ""}, {}, 0.0, {})
    require_intact([made], tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="is damaged"):
        require_intact([made], tmp_path)
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(DataError, match="is damaged"):
        require_intact([made], tmp_path)


def test_min_survivors_can_be_lowered_where_it_stopped_the_run(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[])
    (tmp_path / "recipe/answers.py").write_text(
        "def answer(prompt, seed, policy_round):\n    return prompt.reference if policy_round == 0 else 'no'\n"
    )
    with pytest.raises(PhaseError, match=r"round 2 of main: 0 survivors.*lower min_survivors"):
        run_here(recipe, "select.min_survivors=5", runs_dir=tmp_path)
    run = run_here(recipe, "select.min_survivors=0", runs_dir=tmp_path)
    assert commits_of(run, "arms/main/rounds/001/train-improve-00") == 1


def test_a_fork_that_was_killed_goes_on_with_the_same_command(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    run_here(recipe, runs_dir=tmp_path)
    command = ("run", recipe, "train.learning_rate=[1e-4,5e-5]", "--fork", "slower", "--runs-dir", tmp_path)
    for visits in (20, 60, 150):
        assert selftrain(*command, SELFTRAIN_FAULT=str(visits)).returncode == -signal.SIGKILL
    done = selftrain(*command)
    assert done.returncode == 0, done.stderr
    direct = run_here(recipe, "train.learning_rate=[1e-4,5e-5]", "name=direct", runs_dir=tmp_path)
    assert results_of(tmp_path / "slower") == results_of(direct)


def test_a_fork_after_a_round_without_survivors_keeps_the_candidates(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[])
    run_here(recipe, "select.min_completion_tokens=8", "rounds=1", runs_dir=tmp_path)
    done = selftrain("run", recipe, "rounds=1", "--fork", "lower", "--runs-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    same = "arms/main/rounds/001/receipts/sample-wave-00.json"
    assert (tmp_path / "tiny" / same).read_bytes() == (tmp_path / "lower" / same).read_bytes()
    assert receipt_of(tmp_path / "lower", "main/rounds/001/train-improve-00")["metrics"]["train/skipped"] == 0


def test_a_folder_that_is_no_fork_of_the_run_is_not_taken_for_one(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[], rounds=1)
    run_here(recipe, runs_dir=tmp_path)
    run_here(recipe, "name=other", runs_dir=tmp_path)
    done = selftrain("run", recipe, "--fork", "other", "--runs-dir", tmp_path)
    assert done.returncode == 2
    assert "exists and is no fork of" in done.stderr


def test_a_journal_line_that_a_kill_left_out_is_added_in_its_place(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe")
    run_here(recipe, runs_dir=tmp_path / "untouched")
    points = tmp_path / "points"
    in_order = (
        "run",
        recipe,
        "score.overlap=false",
        "--runs-dir",
        tmp_path,
    )  # one thread publishes: the same each time
    assert selftrain(*in_order, "name=count", SELFTRAIN_FAULT=f"count:{points}").returncode == 0
    visits = [number for number, name in enumerate(points.read_text().splitlines(), 1) if name == "before journal"]
    # Killed between the receipt of a sample phase and its line, and then once more further on.
    assert selftrain(*in_order, SELFTRAIN_FAULT=str(visits[4])).returncode == -signal.SIGKILL
    assert selftrain("run", recipe, "--runs-dir", tmp_path, SELFTRAIN_FAULT="40").returncode == -signal.SIGKILL
    run = run_here(recipe, runs_dir=tmp_path)
    assert results_of(run) == results_of(tmp_path / "untouched/tiny")
    assert len(RunDirectory(run).journal_keys()) == len(RunDirectory(run).receipts())


def test_a_killed_extension_is_not_reported_as_finished(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[])
    run_here(recipe, runs_dir=tmp_path)
    assert (
        selftrain("run", recipe, "rounds=5", "--runs-dir", tmp_path, SELFTRAIN_FAULT="30").returncode == -signal.SIGKILL
    )
    status = json.loads(selftrain("status", tmp_path / "tiny", "--json").stdout)
    assert status["state"] == "waiting"
    assert status["stopped"] is None
    assert (status["next"]["arm"], status["next"]["round"]) == ("main", 4)


def test_a_half_precision_policy_passes_its_own_probe_in_the_next_round(tmp_path: Path) -> None:
    from tiny_models import build_model

    recipe = model_recipe(tmp_path / "recipe", build_model(tmp_path / "model"), arms=[], rounds=2)
    run = run_here(recipe, "model.dtype=bfloat16", "evaluate.sampled_rounds=none", runs_dir=tmp_path)
    inputs = receipt_of(run, "main/rounds/002/sample-wave-00")["ingredients"]["inputs"]
    assert inputs["runs_on"] == "cpu torch.bfloat16"


def test_a_model_beside_the_recipe_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny_models import build_model

    build_model(tmp_path / "recipe/model")
    recipe = model_recipe(tmp_path / "recipe", Path("model"), arms=[], rounds=1)
    monkeypatch.chdir(tmp_path.parent)
    run_here(recipe, "evaluate.sampled_rounds=none", runs_dir=tmp_path / "runs")


def test_a_control_that_cannot_draw_as_many_as_main_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The control's own policy answers too long from round 2 on, so that little is left to draw from."""
    recipe = scripted_recipe(tmp_path / "recipe", rounds=2, select={"max_per_prompt": 4, "dedup": "none"})
    (tmp_path / "recipe/answers.py").write_text(
        "SEEN = []\n\ndef answer(prompt, seed, policy_round):\n"
        "    if policy_round == 1:\n        SEEN.append(1)\n"
        "    late = policy_round == 1 and len(SEEN) > 48 + 12\n"
        "    return 'far too long an answer' if late else prompt.reference\n"
    )
    run = run_here(recipe, runs_dir=tmp_path)
    assert "this control trains on less" in capsys.readouterr().err
    assert receipt_of(run, "random_selection/rounds/002/select-improve-00")["metrics"]["select/short_of_main"] > 0


def test_a_fork_that_was_gone_on_with_is_left_alone_by_the_same_fork_again(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[])
    run_here(recipe, "rounds=1", runs_dir=tmp_path)
    cold = ("run", recipe, "rounds=1", "sample.temperature=0.5", "--fork", "cold", "--runs-dir", tmp_path)
    assert selftrain(*cold).returncode == 0
    run_here(recipe, "rounds=3", runs_dir=tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "cold/arms").rglob("*.*")}
    refused = selftrain("run", recipe, "rounds=3", "--fork", "cold", "--runs-dir", tmp_path)
    assert refused.returncode == 2
    assert "sample.temperature: 0.5 -> 1.0" in refused.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "cold/arms").rglob("*.*")} == before
    assert selftrain(*cold[:2], "rounds=2", *cold[3:]).returncode == 0


def test_fewer_rounds_than_are_committed_are_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[])
    run = run_here(recipe, "rounds=2", runs_dir=tmp_path)
    before = results_of(run)
    refused = selftrain("run", recipe, "rounds=1", "--runs-dir", tmp_path)
    assert refused.returncode == 2
    assert "has phases of round 2 committed" in refused.stderr
    assert results_of(run) == before


def test_a_damaged_config_of_a_run_is_named_and_can_be_made_again(tmp_path: Path) -> None:
    recipe = scripted_recipe(tmp_path / "recipe", arms=[], rounds=1)
    run = run_here(recipe, runs_dir=tmp_path)
    (run / "config.json").write_text("{bad")
    refused = selftrain("run", recipe, "--runs-dir", tmp_path)
    assert (refused.returncode, "is damaged" in refused.stderr, "Traceback" in refused.stderr) == (65, True, False)
    (run / "config.json").unlink()
    assert selftrain("run", recipe, "--runs-dir", tmp_path).returncode == 0
