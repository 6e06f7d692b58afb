"""The process that copies metrics.jsonl to Weights & Biases: the only file that imports wandb.

Nothing is sent but rows, the shown config, tables of candidates, artifacts and alarms: no code, console, git, host or
machine data.
"""

from __future__ import annotations

from typing import Any

import wandb

from selftrain.tracking.axes import MAIN_ARM, run_id, run_name, shown_config
from selftrain.tracking.following import follow
from selftrain.tracking.wandb_runs import Runs


def open_run(order: dict[str, Any], arm: str) -> Any:
    """The W&B run of one arm, beside those of other arms. Raises what wandb raises, within `start_seconds`."""
    seconds = order["start_seconds"]
    is_main = arm == MAIN_ARM
    settings = wandb.Settings(
        mode=order["mode"],
        silent=True,
        console="off",
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        host="",
        program="selftrain",
        program_relpath="selftrain",
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        init_timeout=seconds,
        login_timeout=seconds,
        finish_timeout=seconds,
        finish_timeout_raises=True,
        # The run that a sweep's agent started is main's; the other arms stand beside it, in no sweep.
        sweep_id=order["sweep"] if is_main else None,
    )
    run = order["run"]
    return wandb.init(
        dir=order["run_dir"],
        id=run_id(run["id"], arm),
        name=run_name(order["name"], arm),
        project=run["project"],
        entity=run["entity"],
        group=run["group"] or (None if is_main else order["name"]),
        job_type=arm,
        tags=run["tags"],
        config=shown_config(order["config"], arm),
        resume="allow",
        reinit="create_new",
        settings=settings,
    )


def main() -> None:
    """Copy until the run is done or dead, then close and note what is safe."""
    follow(lambda order, mirrored: Runs(wandb, order, mirrored, open_run))


if __name__ == "__main__":
    main()
