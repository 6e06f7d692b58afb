"""Where metrics go: a ledger in the run directory, and mirrors of it elsewhere.

    ledger              metrics.jsonl: one flat JSON object per row, made again from the receipts at every start
    axes                under which key and on which axis a tracker shows a row
    mirrors             a mirror as the run sees it: a process that is started, looked at and ended
    following           what those processes share: they follow the ledger and remember what is safe elsewhere
    wandb_mirror        Weights & Biases: modes, folders, what to upload later
    wandb_process       its process, the only file that imports wandb; with
                        wandb_runs, wandb_arm, wandb_journal, wandb_tables, wandb_artifacts
    accelerate_mirror   other trackers (`track.also`), through Accelerate's classes
    accelerate_process  their process, the only file that imports accelerate.tracking
    sweeps              runs that a sweep's agent starts

A row names its `arm`, `round`, `phase` and `key` (the receipt it belongs to), then metrics such as `sample/tokens`;
rows of single optimizer steps add `global_step`, which counts up over all rounds of an arm, and `round_step`.
Nothing a mirror does, or fails to do, reaches the run: a row is in the ledger before any mirror sees it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from selftrain.config import TrackConfig
from selftrain.tracking.accelerate_mirror import AccelerateMirror, check
from selftrain.tracking.ledger import ALARM_PHASE, LEDGER_FILE, Ledger, Row, is_timing, without_timings
from selftrain.tracking.ledger import read as read_rows
from selftrain.tracking.mirrors import Mirror
from selftrain.tracking.sweeps import sweep_trial
from selftrain.tracking.wandb_mirror import WandbMirror, mode_of

__all__ = [
    "ALARM_PHASE",
    "LEDGER_FILE",
    "Elsewhere",
    "Ledger",
    "Mirror",
    "Row",
    "Tracker",
    "Tracking",
    "build",
    "check",
    "is_timing",
    "read_rows",
    "sweep_trial",
    "without_timings",
]

CLOSE_SECONDS = 30.0


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

    def __init__(self, ledger: Ledger, mirrors: Sequence[Mirror]) -> None:
        self.ledger = ledger
        self.mirrors = tuple(mirrors)

    def log(self, rows: Iterable[Row]) -> None:
        """Append to the ledger; the mirrors read it from there."""
        self.ledger.append(rows)
        for mirror in self.mirrors:
            mirror.check()

    def close(self) -> None:
        """Give the mirrors half a minute, all of them together, to copy what is left."""
        deadline = time.monotonic() + CLOSE_SECONDS
        for mirror in self.mirrors:
            mirror.done()
        for mirror in self.mirrors:
            mirror.close(max(0.0, deadline - time.monotonic()))


def build(
    run_dir: Path,
    config: TrackConfig,
    *,
    committed: Iterable[Row],
    run_id: str,
    name: str,
    group: str | None = None,
    mirrored_config: Mapping[str, Any],
    log_path: Path,
    warn: Callable[[str], None],
) -> Tracker:
    """Bring the ledger in line with the `committed` rows, then start the mirrors that the config asks for.

    `run_id` stays the same over all attempts of a run. `group` is what the arms, and the seeds of one experiment, are
    shown together under unless the config names a group; the run's name if it is None. `mirrored_config` is shown to
    everyone who can see the W&B project: the caller lists what may be, and nothing is added (where its `arms` is a
    mapping, each arm's run is shown with the arm's own knobs). W&B's own output goes to `log_path`, that of another
    tracker's mirror beside it.
    """
    ledger = Ledger(run_dir / LEDGER_FILE)
    ledger.rebuild(committed)
    group = group or name
    mirrors: list[Mirror] = []
    if mode_of(config.wandb, os.environ) != "disabled":
        mirrors.append(
            WandbMirror(
                run_dir,
                config.wandb,
                run_id=run_id,
                name=name,
                group=group,
                shown_config=mirrored_config,
                log_path=log_path,
                warn=warn,
            )
        )
    mirrors += [
        AccelerateMirror(
            run_dir,
            tracker,
            project=config.wandb.project,
            name=name,
            group=group,
            shown_config=mirrored_config,
            log_path=log_path.with_name(f"{tracker}.log"),
            warn=warn,
        )
        for tracker in dict.fromkeys(config.also)
    ]
    return Tracking(ledger, mirrors)
