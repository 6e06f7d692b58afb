"""Trainings shared by several ranks, against the same trainings by one process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from launching import Ended, Launched
from rank_training import run_job
from safetensors.torch import load_file
from tiny_models import build_model

from selftrain.config import ModelConfig
from selftrain.models import Bench
from selftrain.world import World

# Largest difference of a weight between one process and two, in float32 after up to 9 steps at learning rate 1e-3: the
# parts of a batch are summed in another order. Measured: 1e-8 to 2e-7; 8e-7 for the dft loss.
TOLERANCE = 1e-6

TEN = [(number, 6 + 2 * number, 1.0) for number in range(10)]  # in batches of 4, the last one is short
WEIGHTED = [(number, 6 + 2 * number, 0.1 + 0.25 * number) for number in range(10)]
DROPOUT: dict[str, Any] = {"lora": {"r": 4, "lora_dropout": 0.3}, "micro_batch_size": 1, "sft": {"warmup_steps": 2}}
EQUAL: list[dict[str, Any]] = [
    {"name": "one_step", "survivors": TEN[:8], "settings": {"steps": 1, "batch_size": 8}},
    {"name": "short_last_batch", "survivors": TEN},
    {"name": "one_example", "survivors": TEN[:1], "settings": {"epochs": 3}},
    {"name": "accumulation", "survivors": TEN, "settings": {"micro_batch_size": 1}},
    {"name": "weights", "survivors": WEIGHTED, "settings": {"micro_batch_size": 1}},
    {"name": "random_order", "survivors": TEN, "settings": {"sft": {"train_sampling_strategy": "random"}, "epochs": 3}},
    {"name": "other_loss", "survivors": TEN, "settings": {"sft": {"loss_type": "dft"}}},
    {"name": "activation_checkpointing", "survivors": TEN, "settings": {"sft": {"activation_checkpointing": True}}},
    {"name": "going_on", "survivors": TEN, "start": "short_last_batch"},
]
OTHERS: list[dict[str, Any]] = [
    {"name": "whole", "survivors": TEN, "settings": DROPOUT},
    {"name": "parts", "survivors": TEN, "settings": DROPOUT, "stop_at": 2, "stop_rank": 1},
    {"name": "parts", "survivors": TEN, "settings": DROPOUT, "again": True},
    {"name": "diverged", "survivors": TEN, "settings": {"learning_rate": 1e30}},
    {"name": "uneven", "survivors": TEN, "settings": {"batch_size": 5}},
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model") / "tiny", context=64)


def train(model: Path, folder: Path, jobs: list[dict[str, Any]], ranks: int = 2, **plan: Any) -> Ended:
    folder.mkdir(exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps({"model": str(model), "jobs": jobs, **plan}))
    with Launched("rank_training.py", str(folder / "jobs.json"), ranks=ranks, torchrun=True) as launched:
        [ended] = launched.finish(timeout=300)
    return ended


@pytest.fixture(scope="module")
def two(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks made, in one launch: loading TRL takes longer than all these trainings."""
    folder = tmp_path_factory.mktemp("two")
    ended = train(model, folder, [*EQUAL, *OTHERS])
    assert ended.code == 0, ended.output[-4000:]
    assert "Warning" not in ended.output
    return folder


@pytest.fixture(scope="module")
def alone(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    bench = Bench(ModelConfig(path=str(model)), cache_dir=folder / "cache")
    for job in EQUAL:
        (folder / f"{job['name']}.json").write_text(json.dumps(run_job(World(), bench, folder, job)))
    return folder


def weights_of(folder: Path, name: str) -> Mapping[str, Any]:
    tensors: Mapping[str, Any] = load_file(folder / name / "out/adapter_model.safetensors")
    return tensors


def given(folder: Path, name: str, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name / f"rank-{rank}.json").read_text())
    return found


def files_of(folder: Path, name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / name / "out").iterdir()}


@pytest.mark.parametrize("name", [job["name"] for job in EQUAL])
def test_two_ranks_train_what_one_process_trains(alone: Path, two: Path, name: str) -> None:
    one, other = weights_of(alone, name), weights_of(two, name)
    assert one.keys() == other.keys()
    assert max(float((one[key] - other[key]).abs().max()) for key in one) < TOLERANCE
    expected, found = json.loads((alone / f"{name}.json").read_text()), given(two, name)
    assert len(expected["steps"]) == len(found["steps"])
    for row, other_row in zip(expected["steps"], found["steps"], strict=True):
        assert other_row["train/tokens"] == row["train/tokens"]
        assert other_row["train/learning_rate"] == row["train/learning_rate"]
        assert other_row["train/loss"] == pytest.approx(row["train/loss"], rel=1e-5)
        assert other_row["train/grad_norm"] == pytest.approx(row["train/grad_norm"], rel=1e-3)
    for key in ("train/examples", "train/steps", "train/tokens", "train/input_tokens"):
        assert found["metrics"][key] == expected["metrics"][key], key
    for key in ("train/loss", "train/final_loss", "train/adapter_norm", "train/update_norm"):
        assert found["metrics"][key] == pytest.approx(expected["metrics"][key], rel=1e-5), key


@pytest.mark.parametrize("name", [job["name"] for job in EQUAL])
def test_all_ranks_are_given_the_same_training(two: Path, name: str) -> None:
    first, second = given(two, name, 0), given(two, name, 1)
    for key in ("metrics", "steps", "rows"):
        assert first[key] == second[key]
    assert sorted(files_of(two, name)) == ["adapter_config.json", "adapter_model.safetensors", "probe.json"]


def test_each_rank_draws_its_own_dropout(two: Path) -> None:
    pairs = zip(given(two, "whole", 0)["generators"], given(two, "whole", 1)["generators"], strict=True)
    assert all(one != other for one, other in pairs)


def test_a_training_interrupted_on_one_rank_stops_on_all_and_goes_on_to_the_same_bytes(two: Path) -> None:
    whole, parts = given(two, "whole"), given(two, "parts")
    # The first call was asked to stop on rank 1 alone, at step 2; the second call made the rest.
    assert [row["train/step"] for row in parts["rows"]] == [3, 4, 5, 6]
    assert [row["train/step"] for row in given(two, "parts", 1)["rows"]] == [3, 4, 5, 6]
    assert parts["steps"] == whole["steps"]
    assert parts["metrics"] == whole["metrics"]
    assert files_of(two, "parts") == files_of(two, "whole")


def test_a_checkpoint_of_two_ranks_is_complete_and_of_no_use_to_one(two: Path, model: Path, tmp_path: Path) -> None:
    [checkpoint] = (two / "parts/work").glob("checkpoint-*")
    marked = json.loads((two / "parts/work/checkpoint.json").read_text())["files"]
    assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt", "scheduler.pt"} <= set(marked)
    assert set(marked) == {path.name for path in checkpoint.iterdir()}
    job = {"name": "parts", "survivors": TEN, "settings": DROPOUT}
    shutil.copytree(two / "parts/work", tmp_path / "parts/work")
    bench = Bench(ModelConfig(path=str(model)), cache_dir=tmp_path / "cache")
    alone = run_job(World(), bench, tmp_path, job)
    assert [row["train/step"] for row in alone["rows"]] == [1, 2, 3, 4, 5, 6]


def test_divergence_ends_the_training_on_all_ranks(two: Path) -> None:
    errors = {given(two, "diverged", rank)["error"] for rank in (0, 1)}
    [error] = errors
    assert "training diverged" in error
    assert files_of(two, "diverged") == {}


def test_a_batch_that_ranks_cannot_share_evenly_is_refused_by_all(two: Path) -> None:
    for rank in (0, 1):
        assert given(two, "uneven", rank)["error"].startswith("ConfigError: train.batch_size 5 is no multiple of the 2")


def test_three_ranks_resume_to_the_same_bytes(model: Path, tmp_path: Path) -> None:
    # With two ranks any order of summation gives the same bits; with three it must be the same order.
    survivors = [(number, 6 + 2 * number, 1.0) for number in range(20)]
    settings = {"batch_size": 6, "lora": {"r": 16}, "epochs": 3, "sft": {"ddp_bucket_cap_mb": 1}}
    job: dict[str, Any] = {"survivors": survivors, "settings": settings}
    jobs = [{**job, "name": "whole"}, {**job, "name": "parts", "stop_at": 5, "stop_rank": 2}, {**job, "name": "parts"}]
    ended = train(model, tmp_path, jobs, ranks=3)
    assert ended.code == 0, ended.output[-4000:]
    assert len(given(tmp_path, "parts")["rows"]) == 12 - 5
    assert files_of(tmp_path, "parts") == files_of(tmp_path, "whole")


@pytest.mark.parametrize(
    ("how", "victim"), [("SIGKILL", 0), ("SIGKILL", 1), ("SIGSTOP", 0), ("SIGSTOP", 1), ("raise", 0), ("raise", 1)]
)
def test_a_rank_lost_in_a_step_ends_the_other_and_training_goes_on_from_the_checkpoint(
    model: Path, two: Path, tmp_path: Path, how: str, victim: int
) -> None:
    job = {"name": "run", "survivors": TEN, "settings": {"checkpoint_steps": 2}}
    lost = train(model, tmp_path, [{**job, "die_at": 4, "victim": victim, "kill": how}], dead_after_seconds=8)
    told = [line for line in lost.output.splitlines() if line.startswith("selftrain: ")]
    assert lost.code != 0
    assert lost.seconds < 60
    if how == "raise":
        assert "selftrain: no room; make some" in told
        assert any(f"rank {victim} failed at 'optimizer step " in line for line in told)
        assert len(told) == 2
    else:
        assert len(told) == 1, told
        assert f"rank {victim} " in told[0]
        assert "run the same command again to go on" in told[0]
    assert files_of(tmp_path, "run") == {}
    again = train(model, tmp_path, [job])
    assert again.code == 0, again.output[-4000:]
    # Checkpoints change nothing: this is the training that nobody disturbed.
    assert [row["train/step"] for row in given(tmp_path, "run")["rows"]] == [3, 4, 5, 6]
    assert files_of(tmp_path, "run") == files_of(two, "short_last_batch")
