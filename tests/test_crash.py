"""Kill -9 at any moment, the same command again: the end is that of a run nobody touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from worlds import command, model_recipe, results_of, scripted_recipe, selftrain

from selftrain.store import RunDirectory

KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A recipe, its finished run, and the publish points that the run passed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    recipe = scripted_recipe(folder / "recipe")
    points = folder / "points"
    done = selftrain("run", recipe, "--runs-dir", folder / "runs", SELFTRAIN_FAULT=f"count:{points}")
    assert done.returncode == 0, done.stderr
    return recipe, folder / "runs" / "tiny", points.read_text().splitlines()


DIES_IN_THE_SECOND_BLOCK = """
import os, pathlib, signal
first_answer, asked = answer, []

def answer(prompt, seed, policy_round):
    asked.extend([prompt.id] if seed and int(prompt.reference) <= 12 else [])
    if len(asked) == 20 and not pathlib.Path(__file__).with_name("killed").exists():
        pathlib.Path(__file__).with_name("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return first_answer(prompt, seed, policy_round)
"""


def test_what_a_killed_attempt_spent_on_a_phase_is_counted_and_the_time_between_is_not(tmp_path: Path) -> None:
    recipe, run = scripted_recipe(tmp_path / "recipe", arms=[]), tmp_path / "tiny"
    with (recipe.parent / "answers.py").open("a") as file:
        file.write(DIES_IN_THE_SECOND_BLOCK)
    assert selftrain("run", recipe, "--runs-dir", tmp_path).returncode == KILLED
    # As if the attempt had begun to sample 50 seconds before its last block, a thousand seconds ago.
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "begin"
    assert events[-1]["task"].endswith("001/sample-wave-00")
    ended = time.time() - 1000
    for path in run.glob("arms/**/*"):
        os.utime(path, (ended, ended))
    for event in events:
        event["time"] = ended - 50
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert selftrain("run", recipe, "--runs-dir", tmp_path).returncode == 0
    (receipt,) = [one for one in RunDirectory(run).receipts() if one.key.endswith("main/rounds/001/sample-wave-00")]
    assert 50 < receipt.seconds < 100
    assert receipt.metrics["sample/phase_seconds"] == receipt.seconds
    assert all(one.seconds < 40 for one in RunDirectory(run).receipts() if one.key != receipt.key)


def commits_of(run: Path) -> list[str]:
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event["key"] for event in events if event["event"] == "commit"]


def test_killed_at_ten_publish_points_a_run_ends_as_if_untouched(
    undisturbed: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    recipe, reference, points = undisturbed
    assert {"before write", "after write", "after fsync", "after rename", "before receipt"} <= set(points)
    assert {"after receipt", "before journal", "before folder rename", "after folder rename"} <= set(points)
    run = tmp_path / "tiny"
    # One run, killed again and again; each attempt gets a little further, to a point of another kind.
    for visits in (1, 4, 9, 15, 22, 30, 41, 53, 66, 80):
        killed = selftrain("run", recipe, "--runs-dir", tmp_path, SELFTRAIN_FAULT=str(visits))
        assert killed.returncode == KILLED
    done = selftrain("run", recipe, "--runs-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert results_of(run) == results_of(reference)
    assert sorted(commits_of(run)) == sorted(set(commits_of(run))), "something committed was done again"
    assert not list(run.glob("**/.tmp-*"))


@pytest.mark.parametrize("point", ["after folder rename", "before receipt", "before journal", "after receipt"])
def test_killed_in_the_middle_of_a_commit_nothing_is_lost_or_doubled(
    undisturbed: tuple[Path, Path, list[str]], tmp_path: Path, point: str
) -> None:
    recipe, reference, points = undisturbed
    visits = [number for number, name in enumerate(points, 1) if name == point][-2]
    assert selftrain("run", recipe, "--runs-dir", tmp_path, SELFTRAIN_FAULT=str(visits)).returncode == KILLED
    assert selftrain("run", recipe, "--runs-dir", tmp_path).returncode == 0
    assert results_of(tmp_path / "tiny") == results_of(reference)


def test_a_torn_journal_line_is_dropped(undisturbed: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    recipe, reference, _ = undisturbed
    assert selftrain("run", recipe, "--runs-dir", tmp_path, SELFTRAIN_FAULT="60").returncode == KILLED
    with (tmp_path / "tiny" / "events.jsonl").open("a") as journal:
        journal.write('{"event": "comm')
    assert selftrain("run", recipe, "--runs-dir", tmp_path).returncode == 0
    assert results_of(tmp_path / "tiny") == results_of(reference)
    commits_of(tmp_path / "tiny")


def test_a_finished_run_goes_on_to_more_rounds_and_keeps_what_it_has(
    undisturbed: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    recipe, _, _ = undisturbed
    assert selftrain("run", recipe, "--runs-dir", tmp_path).returncode == 0
    run = tmp_path / "tiny"
    before = {path: path.read_bytes() for path in run.glob("arms/main/rounds/00[0-3]/**/*") if path.is_file()}
    done = selftrain("run", recipe, "rounds=5", "--runs-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "main · rounds 0-3 already done" in done.stdout
    assert (run / "arms/main/rounds/005/receipts/round.json").exists()
    assert {path: path.read_bytes() for path in before} == before


def test_a_changed_learning_rate_is_refused_with_the_difference_and_the_ways_on(
    undisturbed: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    recipe, reference, _ = undisturbed
    refused = selftrain("run", recipe, "train.learning_rate=5e-5", "--runs-dir", reference.parent)
    assert refused.returncode == 2
    assert "train.learning_rate: 0.0001 -> 5e-05" in refused.stderr
    assert "--fork" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_fork_keeps_what_the_change_leaves_as_it_was(undisturbed: tuple[Path, Path, list[str]]) -> None:
    recipe, reference, _ = undisturbed
    change = "train.learning_rate=[1e-4,5e-5]"
    done = selftrain("run", recipe, change, "--fork", "slower", "--runs-dir", reference.parent)
    assert done.returncode == 0, done.stderr
    fork = reference.parent / "slower"
    same = "arms/main/rounds/001/receipts/train-improve-00.json"
    other = "arms/main/rounds/002/receipts/train-improve-00.json"
    assert json.loads((fork / same).read_text()) == json.loads((reference / same).read_text())
    assert json.loads((fork / other).read_text())["ingredients"]["config"]["train"]["learning_rate"] == 5e-5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_asked_to_stop_a_run_leaves_with_75_and_goes_on_later(
    undisturbed: tuple[Path, Path, list[str]], tmp_path: Path, number: signal.Signals
) -> None:
    recipe, reference, _ = undisturbed
    with subprocess.Popen(
        command("run", recipe, "--runs-dir", tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        deadline = time.monotonic() + 60
        while not (tmp_path / "tiny/arms/main/rounds/000/receipts").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 75, said
    assert "run the same command again" in said
    assert selftrain("run", recipe, "--runs-dir", tmp_path).returncode == 0
    assert results_of(tmp_path / "tiny") == results_of(reference)


SLOW_JUDGE = (
    "import time, zlib\n\ndef judge(text, prompt, reference):\n"
    "    time.sleep(zlib.crc32((prompt + text).encode()) % 40 / 1000)\n    return text == reference\n"
)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_killed_while_it_samples_and_judges_at_once_a_run_ends_as_if_nothing_was_judged_meanwhile(
    tmp_path: Path, workers: int
) -> None:
    changes = {"score": {"scorers": ["judge.py:judge"]}, "sample": {"block_size": 1}, "evaluate": {"block_size": 2}}
    recipe = scripted_recipe(tmp_path / "recipe", arms=[], rounds=2, **changes)
    (tmp_path / "recipe/judge.py").write_text(SLOW_JUDGE)
    apart = selftrain("run", recipe, "score.overlap=false", "--runs-dir", tmp_path / "apart")
    assert apart.returncode == 0, apart.stderr
    words = ("run", recipe, f"score.workers={workers}", "--runs-dir", tmp_path)
    for visits in (3, 10, 24, 31, 45, 58, 70, 83):
        assert selftrain(*words, SELFTRAIN_FAULT=str(visits)).returncode == KILLED
    left = selftrain(*words)
    assert left.returncode == 0, left.stderr
    assert results_of(tmp_path / "tiny") == results_of(tmp_path / "apart/tiny")
    assert sorted(commits_of(tmp_path / "tiny")) == sorted(set(commits_of(tmp_path / "tiny")))


@pytest.mark.slow
def test_a_real_model_killed_at_twenty_moments_ends_as_if_untouched(tmp_path: Path) -> None:
    """Ten publish points and ten moments by the clock: survivors, adapters and metrics equal an untouched run's."""
    from tiny_models import build_model

    recipe = model_recipe(tmp_path / "recipe", build_model(tmp_path / "model"))
    untouched = time.monotonic()
    assert selftrain("run", recipe, "--runs-dir", tmp_path / "untouched").returncode == 0
    seconds = time.monotonic() - untouched
    for visits in (2, 7, 13, 20, 26, 33, 37, 44, 52, 61):
        killed = selftrain("run", recipe, "--runs-dir", tmp_path / "killed", SELFTRAIN_FAULT=str(visits))
        assert killed.returncode in (KILLED, 0)
    for share in (0.35, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85):
        running = subprocess.Popen(
            command("run", recipe, "--runs-dir", tmp_path / "killed"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds * share)
        running.kill()
        running.wait()
    done = selftrain("run", recipe, "--runs-dir", tmp_path / "killed")
    assert done.returncode == 0, done.stderr
    assert results_of(tmp_path / "killed/tiny") == results_of(tmp_path / "untouched/tiny")
    commits = commits_of(tmp_path / "killed/tiny")
    assert len(commits) == len(set(commits))
