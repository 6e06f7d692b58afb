"""Other trackers beside Weights & Biases, as the run sees them: one process each, which uses Accelerate's tracker."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from selftrain.config import TrackConfig
from selftrain.errors import ConfigError
from selftrain.tracking.mirrors import Mirror

MODULE = "selftrain.tracking.accelerate_process"
# A tracker's modules, any of which will do.
MODULES: dict[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "mlflow": ("mlflow",),
    "comet_ml": ("comet_ml",),
    "aim": ("aim",),
    "clearml": ("clearml",),
    "dvclive": ("dvclive",),
    "swanlab": ("swanlab",),
}
# No telemetry of their own, and nothing about the machine, the code or the console.
_PRIVATE = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "SWANLAB_PROBE_HARDWARE": "false",
    "SWANLAB_PROBE_RUNTIME": "false",
    "SWANLAB_PROBE_REQUIREMENTS": "false",
    "SWANLAB_PROBE_GIT": "false",
    "SWANLAB_PROBE_MONITOR": "false",
    "SWANLAB_TERMINAL_PROXY_TYPE": "none",
}


def check(config: TrackConfig) -> None:
    """See that the trackers' packages are there, without importing any. Raises ConfigError naming what to install."""
    for tracker in config.also:
        if not any(importlib.util.find_spec(module) for module in MODULES[tracker]):
            raise ConfigError(
                f"track.also names {tracker!r}, and its package is not installed; "
                f"run: pip install 'selftrain[{tracker}]', or leave it out"
            )


class AccelerateMirror(Mirror):
    """A running copy of the ledger to one other tracker. `start_seconds` bounds the wait for the tracker's server."""

    restarts = 0

    def __init__(
        self,
        run_dir: Path,
        tracker: str,
        *,
        project: str,
        name: str,
        group: str,
        shown_config: Mapping[str, Any],
        log_path: Path,
        warn: Callable[[str], None],
        start_seconds: float = 30.0,
    ) -> None:
        order = {
            "run_dir": str(run_dir.resolve()),
            "folder": tracker,
            "tracker": tracker,
            "start_seconds": start_seconds,
            "project": project,
            "name": name,
            "group": group,
            "config": dict(shown_config),
        }
        super().__init__(tracker, MODULE, order, log_path=log_path, warn=warn)

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **_PRIVATE}
