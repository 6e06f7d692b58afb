"""Runs on two ranks: the same results as on one, and what happens when a rank dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from tiny_models import build_model
from worlds import model_recipe, pid_of_rank, ranks, results_of, run_here, scripted_recipe

# After one round of training, float32, learning rate 1e-3: the two halves of a batch are summed in another order.
TOLERANCE = 1e-5
ENDS_WITHIN_SECONDS = 60.0
ONE_ROUND = ("rounds=1", "arms=[]")


def finish(process: subprocess.Popen[str], timeout: float = 300) -> str:
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, output[-4000:]
    return output


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 120) -> Any:
    """The first true value of the condition while the process runs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"it did not come to that: {process.communicate(timeout=60)[0][-4000:]}")


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def test_two_ranks_give_what_one_process_gives(tmp_path: Path) -> None:
    arms = ["random_selection", "no_filter", "gold", {"hot": {"sample.temperature": 1.5}}]
    recipe = scripted_recipe(tmp_path / "recipe", arms=arms)
    output = finish(ranks(recipe, runs_dir=tmp_path / "two"))
    assert output.count("headline:") == 1, "one rank speaks"
    one = run_here(recipe, runs_dir=tmp_path / "one")
    assert results_of(tmp_path / "two/tiny") == results_of(one)


@pytest.mark.slow
def test_two_ranks_that_judge_what_they_drew_at_uneven_speed_give_what_one_gives_without_overlap(
    tmp_path: Path,
) -> None:
    changes = {"score": {"scorers": ["judge.py:judge"], "workers": 2}, "sample": {"block_size": 1}}
    recipe = scripted_recipe(tmp_path / "recipe", arms=[], rounds=1, **changes)
    (tmp_path / "recipe/judge.py").write_text(
        "import os, time, zlib\n\ndef judge(text, prompt, reference):\n"
        "    slow = os.environ.get('RANK') == '1'\n"
        "    time.sleep(zlib.crc32((prompt + text).encode()) % 40 / (250 if slow else 2500))\n"
        "    return None if reference == '3' else text == reference\n"
    )
    finish(ranks(recipe, "score.max_unscored_rate=0.2", runs_dir=tmp_path / "two"))
    apart = ("score.overlap=false", "score.workers=1", "score.max_unscored_rate=0.2")
    one = run_here(recipe, *apart, runs_dir=tmp_path / "one")
    assert results_of(tmp_path / "two/tiny") == results_of(one)


@pytest.mark.slow
def test_two_ranks_of_a_real_model_draw_the_same_and_train_to_the_stated_tolerance(tmp_path: Path) -> None:
    recipe = model_recipe(tmp_path / "recipe", build_model(tmp_path / "model"), rounds=2)
    finish(ranks(recipe, runs_dir=tmp_path / "two"))
    one, two = run_here(recipe, runs_dir=tmp_path / "one"), tmp_path / "two/tiny"
    first = "arms/main/rounds/001"
    for pattern in ("candidates/**/*.parquet", "scores/**/*.parquet", "survivors/**/*.parquet"):
        files = sorted(path.relative_to(one) for path in (one / first).glob(pattern))
        assert files
        for file in files:
            assert (one / file).read_bytes() == (two / file).read_bytes(), file
    name = f"{first}/adapter/improve-00/adapter_model.safetensors"
    weights = load_file(one / name), load_file(two / name)
    assert weights[0].keys() == weights[1].keys()
    largest = max(float(abs(weights[0][key] - weights[1][key]).max()) for key in weights[0])
    assert largest < TOLERANCE
    # The second round samples from adapters that differ in their last bits; given one adapter, ranks change nothing.
    assert results_of(two) == results_of(_again(recipe, tmp_path / "again"))


def _again(recipe: Path, runs_dir: Path) -> Path:
    finish(ranks(recipe, runs_dir=runs_dir))
    return runs_dir / "tiny"


@pytest.mark.slow
def test_a_run_begun_by_one_process_goes_on_with_two(tmp_path: Path) -> None:
    recipe = model_recipe(tmp_path / "recipe", build_model(tmp_path / "model"))
    run_here(recipe, "rounds=1", runs_dir=tmp_path / "runs")
    before = results_of(tmp_path / "runs/tiny")
    output = finish(ranks(recipe, "rounds=2", runs_dir=tmp_path / "runs"))
    assert "already done" in output
    after = results_of(tmp_path / "runs/tiny")
    kept = [name for name in before if name.startswith("arms/main/rounds/001")]
    assert kept
    assert all(before[name] == after[name] for name in kept)
    assert "arms/main/rounds/002/receipts/train-improve-00.json" in after


PHASES = {
    # where the victim is, and what the recipe does to keep it there for a while
    "sampling": lambda run: any(run.glob("arms/main/rounds/001/candidates/wave-00/*.parquet")),
    "judging": lambda run: any(run.glob("arms/main/rounds/001/scores/wave-00/*.parquet")),
    "training": lambda run: any(run.glob("arms/main/rounds/001/.work-train-00/checkpoint-*")),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Callable[[str], dict[str, Any]]:
    """The results of a run that nothing happened to, by where the others are disturbed."""
    known: dict[str, dict[str, Any]] = {}

    def results(phase: str) -> dict[str, Any]:
        phase = "sampling" if phase == "barrier" else phase  # of one recipe
        if phase not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            finish(ranks(slow_recipe(folder, phase, model), *ONE_ROUND, runs_dir=folder / "runs"))
            known[phase] = results_of(folder / "runs/tiny")
        return known[phase]

    return results


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("phase", [*PHASES, "barrier"])
@pytest.mark.parametrize("victim", [0, 1])
def test_one_lost_rank_ends_the_others_and_the_resumed_run_is_as_if_nothing_had_happened(
    tmp_path: Path,
    started: list[subprocess.Popen[str]],
    undisturbed: Callable[[str], dict[str, Any]],
    model: Path,
    phase: str,
    kind: signal.Signals,
    victim: int,
) -> None:
    recipe = slow_recipe(tmp_path, phase, model)
    run = tmp_path / "runs/tiny"
    # One of them with the default patience, the others with less to save time.
    patience = [] if (phase, victim) == ("training", 1) else ["ranks.dead_after_seconds=8"]
    slow_ranks = "0 1" if phase == "sampling" else str(1 - victim) if phase == "barrier" else ""
    process = ranks(recipe, *ONE_ROUND, *patience, runs_dir=tmp_path / "runs", SLOW=slow_ranks)
    started.append(process)
    reached = PHASES["sampling" if phase == "barrier" else phase]
    wait_for(lambda: reached(run), process)
    if phase == "barrier":
        time.sleep(3.0)  # the victim has done its blocks and waits for the other, which is slow
    lost, other = pid_of_rank(process, victim), pid_of_rank(process, 1 - victim)
    assert lost is not None
    assert other is not None
    os.kill(lost, kind)
    began = time.monotonic()
    while Path(f"/proc/{other}").exists() and time.monotonic() - began < 2 * ENDS_WITHIN_SECONDS:
        time.sleep(0.1)
    seconds = time.monotonic() - began
    print(f"{phase}, rank {victim} {kind.name}: the other ended after {seconds:.1f} s")
    assert seconds < ENDS_WITHIN_SECONDS
    with contextlib.suppress(ProcessLookupError):
        os.kill(lost, signal.SIGKILL)  # what is stopped hears nothing else
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "same command" in output
    finish(ranks(recipe, *ONE_ROUND, runs_dir=tmp_path / "runs"))
    assert results_of(run) == undisturbed(phase)


def slow_recipe(folder: Path, phase: str, model: Path) -> Path:
    """A recipe that takes its time: a real model's training, or a scripted sampler on the ranks in SLOW."""
    if phase == "training":
        recipe = model_recipe(folder / "recipe", model, evaluate={"sampled_rounds": "none"})
        slow = "learning_rate: 0.001\n  steps: 60\n  checkpoint_steps: 5"
        recipe.write_text(recipe.read_text().replace("learning_rate: 0.001", slow))
        return recipe
    if phase == "judging":
        score = {"scorers": ["judge.py:judge"], "workers": 2}
        recipe = scripted_recipe(folder / "recipe", evaluate={"sampled_rounds": "none"}, score=score)
        (folder / "recipe/judge.py").write_text(
            "import time\n\ndef judge(text, reference):\n"
            "    time.sleep(0.4 if int(reference) < 100 else 0)\n    return text == reference\n"
        )
        return recipe
    recipe = scripted_recipe(folder / "recipe", evaluate={"sampled_rounds": "none"})
    answers = folder / "recipe/answers.py"
    answers.write_text(
        f"import os, time\n{answers.read_text()}\n\nquick = answer\n\n\n"
        "def answer(prompt, seed, policy_round):\n"
        "    if seed and os.environ.get('RANK') in os.environ.get('SLOW', '').split():\n"
        "        time.sleep(0.6)\n"
        "    return quick(prompt, seed, policy_round)\n"
    )
    return recipe
