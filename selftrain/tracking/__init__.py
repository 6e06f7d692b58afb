"""Where metrics go: a ledger in the run directory, and mirrors of it elsewhere.

    ledger          metrics.jsonl: one flat JSON object per row; a projection of the receipts, made again at every start
    wandb_mirror    starts, watches and ends the process that copies the ledger to Weights & Biases
    wandb_process   that process: the only file that imports wandb

A row names its `arm`, `round`, `phase` and `key` (the receipt it belongs to), then metrics such as `sample/tokens`;
rows of single optimizer steps add `global_step`, which counts up over all rounds of an arm, and `round_step`.
Nothing a mirror does, or fails to do, reaches the run: a row is in the ledger before any mirror sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from selftrain.config import TrackConfig
from selftrain.tracking.ledger import Ledger, Row, is_timing, without_timings
from selftrain.tracking.ledger import read as read_rows
from selftrain.tracking.wandb_mirror import Mirror

__all__ = [
    "LEDGER_FILE",
    "Elsewhere",
    "Ledger",
    "Mirror",
    "Row",
    "Tracker",
    "Tracking",
    "build",
    "is_timing",
    "read_rows",
    "without_timings",
]

LEDGER_FILE = "metrics.jsonl"


class Tracker(Protocol):
    """Takes the rows of a phase once it is committed."""

    def log(self, rows: Iterable[Row]) -> None:
        """Keep the rows. Raises DiskError when they cannot be written to the ledger; never for a mirror's sake."""

    def close(self) -> None:
        """End the mirrors, in bounded time."""


class Elsewhere:
    """The tracker of the ranks that write nothing: one rank tracks for all."""

    def log(self, rows: Iterable[Row]) -> None:
        """Drop the rows."""

    def close(self) -> None:
        """Nothing is open."""


class Tracking:
    """The tracker of the rank that writes: the ledger first, then whoever mirrors it."""

    def __init__(self, ledger: Ledger, mirror: Mirror | None) -> None:
        self.ledger = ledger
        self.mirror = mirror

    def log(self, rows: Iterable[Row]) -> None:
        """Append to the ledger; the mirror reads it from there."""
        self.ledger.append(rows)
        if self.mirror is not None:
            self.mirror.check()

    def close(self) -> None:
        """Give the mirror half a minute to copy what is left."""
        if self.mirror is not None:
            self.mirror.close()


def build(
    run_dir: Path,
    config: TrackConfig,
    *,
    committed: Iterable[Row],
    run_id: str,
    name: str,
    mirrored_config: Mapping[str, Any],
    log_path: Path,
    warn: Callable[[str], None],
) -> Tracker:
    """Bring the ledger in line with the `committed` rows, then start the mirrors that the config asks for.

    `run_id` stays the same over all attempts of a run. `mirrored_config` is shown to everyone who can see the W&B
    project: the caller lists what may be, and nothing is added. The mirror's own output goes to `log_path`.
    """
    ledger = Ledger(run_dir / LEDGER_FILE)
    ledger.rebuild(committed)
    mirror = None
    if config.wandb.mode != "disabled":
        mirror = Mirror(
            run_dir, config.wandb, run_id=run_id, name=name, shown_config=mirrored_config, log_path=log_path, warn=warn
        )
    return Tracking(ledger, mirror)
