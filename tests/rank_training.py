"""Trainings by `SftTrainer`, given as JSON, on one process or several: python rank_training.py JOBS.json"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.adapters import adapter_digest
from selftrain.config import ModelConfig, RanksConfig, TrainConfig
from selftrain.errors import PhaseError, SelftrainError
from selftrain.records import Digest, Policy, Survivor
from selftrain.world import World

if TYPE_CHECKING:
    from selftrain.models import Bench

SETTINGS: dict[str, Any] = {"batch_size": 4, "epochs": 2, "learning_rate": 1e-3, "lora": {"r": 4}}


def survivor(number: int, length: int, weight: float = 1.0) -> Survivor:
    ids = tuple(10 + (7 * number + 3 * place) % 200 for place in range(length))
    mask = tuple(place >= 3 for place in range(length))
    return Survivor(f"candidate-{number}", f"prompt-{number}", 1, ids, mask, weight, "test", "", "")


def run_job(world: World, bench: Bench, folder: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    """One training into `folder/NAME`; what this rank was given, or the error it was left by.

    Of the job: `name`; `survivors` as (number, length, weight); `settings` over SETTINGS; `start`, the name of a job to
    go on from; `stop_at`, the step after which `stop_rank` (or every rank) is asked to stop; `die_at`, the step at
    which `victim` receives the signal `kill`, or raises.
    """
    import torch

    from selftrain.training.sft import SftTrainer

    place = folder / job["name"]
    (place / "out").mkdir(parents=True, exist_ok=True)
    rows: list[Mapping[str, float]] = []
    generators: list[str] = []

    def on_step(row: Mapping[str, float]) -> None:
        rows.append(row)
        generators.append(hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest())
        if row["train/step"] == job.get("die_at") and world.rank == job["victim"]:
            if job["kill"] == "raise":
                raise PhaseError("no room; make some")
            os.kill(os.getpid(), signal.Signals[job["kill"]])

    def should_stop() -> bool:
        mine = job.get("stop_rank", world.rank) == world.rank
        return "stop_at" in job and mine and len(rows) + 1 >= job["stop_at"]

    start = Policy(bench.config.path, None, 0, Digest("base"))
    if "start" in job:
        adapter = folder / job["start"] / "out"
        start = Policy(bench.config.path, str(adapter), 1, adapter_digest(adapter))
    try:
        training = SftTrainer(lambda: bench).train(
            [survivor(*one) for one in job["survivors"]],
            start=start,
            out=place / "out",
            work=place / "work",
            config=TrainConfig(**{**SETTINGS, **job.get("settings", {})}),
            seed=2**62 + 5,
            should_stop=should_stop,
            on_step=on_step,
            world=world,
        )
    except SelftrainError as error:
        if "die_at" in job:
            raise
        return {"error": f"{type(error).__name__}: {error}", "rows": rows}
    timeless = {key: value for key, value in training.metrics.items() if key != "train/training_seconds"}
    return {"metrics": timeless, "steps": list(training.steps), "rows": rows, "generators": generators}


def main(path: Path) -> None:
    plan = json.loads(path.read_text())
    world = World()  # before torch is imported, as in a run
    from selftrain.models import Bench

    bench = Bench(ModelConfig(path=plan["model"]), cache_dir=path.parent / "cache")
    with world.listening(), world.connected(RanksConfig(dead_after_seconds=plan.get("dead_after_seconds", 30.0))):
        for job in plan["jobs"]:
            given = run_job(world, bench, path.parent, job)
            (path.parent / job["name"] / f"rank-{world.rank}.json").write_text(json.dumps(given))
            world.barrier(f"the end of {job['name']}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except SelftrainError as error:
        print(f"selftrain: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
