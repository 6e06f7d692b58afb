"""Runs that a sweep's agent starts: each trial is a run of its own, under the id that the agent gave it."""

from __future__ import annotations

from collections.abc import Mapping

SWEEP_ID, RUN_ID = "WANDB_SWEEP_ID", "WANDB_RUN_ID"


def sweep_trial(environment: Mapping[str, str]) -> str | None:
    """What tells this trial from the others of its sweep: the id of its W&B run; None outside a sweep."""
    return environment.get(RUN_ID) or None if environment.get(SWEEP_ID) else None
