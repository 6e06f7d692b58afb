"""The Weights & Biases mirror as the run sees it, and the folders it leaves under `wandb/`.

A process that cannot start online (no network, no login) is started once more offline. What could not be uploaded is
copied by the next attempt, or by `wandb sync` from the folders here.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from selftrain.config import WandbConfig
from selftrain.tracking.following import MIRRORED_FILE, Mirrored
from selftrain.tracking.mirrors import Mirror
from selftrain.tracking.sweeps import RUN_ID, SWEEP_ID, sweep_trial

Mode = Literal["online", "offline", "disabled"]
MODULE = "selftrain.tracking.wandb_process"
FOLDER = "wandb"
API_SECONDS = 10


def mode_of(config: WandbConfig, environment: Mapping[str, str]) -> Mode:
    """The config's mode, unless the environment's WANDB_MODE asks for less: it can turn the mirror down, never up."""
    modes: tuple[Mode, ...] = ("disabled", "offline", "online")
    asked = environment.get("WANDB_MODE", "")
    return min(config.mode, asked, key=modes.index) if asked in modes else config.mode


def fragments(run_dir: Path) -> list[Path]:
    """The folders that W&B wrote for this run, oldest first: one per attempt and arm."""
    return sorted(path for path in (run_dir / FOLDER).glob("*run-*") if path.is_dir() and not path.is_symlink())


def sync_command(run_dir: Path, mode: Mode) -> str:
    """What uploads the offline fragments, or the online ones that were not closed."""
    folder = run_dir / FOLDER
    if mode == "offline":
        return f"wandb sync {shlex.quote(str(folder))}/offline-run-*"
    left = Mirrored(folder / MIRRORED_FILE).open
    found = [path for path in fragments(run_dir) if path.name in left] or fragments(run_dir)[-1:] or [folder]
    return f"wandb sync {' '.join(shlex.quote(str(path)) for path in found)}"


class WandbMirror(Mirror):
    """A running copy of the ledger to W&B: one run per arm, all in one group.

    `shown_config` is all that W&B is told of the config. `start_seconds` bounds the wait for W&B's server. A sweep's
    agent decides the project, the entity and the group of the run that it started: the one with its trial's id.
    """

    def __init__(
        self,
        run_dir: Path,
        config: WandbConfig,
        *,
        run_id: str,
        name: str,
        group: str,
        shown_config: Mapping[str, Any],
        log_path: Path,
        warn: Callable[[str], None],
        start_seconds: float = 20.0,
    ) -> None:
        self.run_dir = run_dir.resolve()
        self.mode = mode_of(config, os.environ)
        is_trial = sweep_trial(os.environ) == run_id
        order = {
            "run_dir": str(self.run_dir),
            "folder": FOLDER,
            "mode": self.mode,
            "config": dict(shown_config),
            "start_seconds": start_seconds,
            "table_rows": config.table_rows,
            "artifacts": list(config.artifacts),
            "sweep": os.environ[SWEEP_ID] if is_trial else None,
            "name": name,
            "run": {
                "id": run_id,
                "project": (os.environ.get("WANDB_PROJECT") if is_trial else None) or config.project,
                "entity": (os.environ.get("WANDB_ENTITY") if is_trial else None) or config.entity,
                "group": config.group or (None if is_trial else group),
                "tags": list(config.tags),
            },
        }
        super().__init__("Weights & Biases", MODULE, order, log_path=log_path, warn=warn)

    def _environment(self) -> dict[str, str]:
        # WANDB_SERVICE names the wandb-core of another user of wandb in this process: sharing it would share its fate.
        # With a sweep's id in its environment wandb would take every arm for the one run that the agent started.
        kept = {
            key: value
            for key, value in super()._environment().items()
            if key not in ("WANDB_SERVICE", SWEEP_ID, RUN_ID)
        }
        own = {"WANDB_ERROR_REPORTING": "false"}
        # What W&B's own defaults would let an outage cost per call, and where it stages what is to be uploaded.
        usual = {"WANDB_HTTP_TIMEOUT": str(API_SECONDS), "WANDB_DATA_DIR": str(self.run_dir / FOLDER)}
        return {**usual, **kept, **own}

    def _fallback(self, words: str) -> bool:
        if self.mode != "online":
            return False
        self.mode = self._order["mode"] = "offline"
        self.warn(
            f"Weights & Biases could not start online ({words}); the run goes on and is mirrored "
            f"offline, upload later: {sync_command(self.run_dir, self.mode)}"
        )
        return True

    def _later(self) -> str:
        found = fragments(self.run_dir)
        return f"; upload what it has: {sync_command(self.run_dir, self.mode)}" if found else ""
