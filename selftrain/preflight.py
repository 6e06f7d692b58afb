"""Everything about a recipe that can be checked before a model is loaded or a directory made."""

from __future__ import annotations

from selftrain import prompts as prompt_room
from selftrain import sampling, scoring, tracking, training
from selftrain.compose import Composed
from selftrain.config import config_of_arm
from selftrain.fingerprints import Fingerprints
from selftrain.prompts import PromptSet, PromptSets
from selftrain.rooms import Rooms


def check(composed: Composed, *, ranks: int = 1) -> tuple[PromptSets, Fingerprints]:
    """Check plug-ins, pass-through tables, shares of ranks, and prompts; return the prompts, and the fingerprints."""
    config = composed.config
    for one in (config, *(config_of_arm(config, arm) for arm in config.arms if arm.overrides)):
        sampling.check(one.sample)
        scoring.check(one.score)
        training.check(one.train, ranks=ranks)
    tracking.check(config.track)
    prompts = prompt_room.load(config.prompts, composed.folder)
    return prompts, Fingerprints(config, composed.folder, digests(prompts))


def prompt_sets(prompts: PromptSets) -> dict[str, PromptSet]:
    """Every set of prompts that there is, by name."""
    sets = {"train": prompts.train, **prompts.held_out()}
    if prompts.seed_data is not None:
        sets["seed_data"] = prompts.seed_data
    if prompts.retention is not None and prompts.retention.prompts is not None:
        sets["retention"] = prompts.retention.prompts
    return sets


def digests(prompts: PromptSets) -> dict[str, str]:
    """What stands for the content of each set."""
    found = {name: one.digest for name, one in prompt_sets(prompts).items()}
    return found | ({"retention": prompts.retention.digest} if prompts.retention is not None else {})


def check_references(rooms: Rooms, prompts: PromptSets) -> None:
    """Raise DataError where a scorer cannot use a reference of the prompts it will judge."""
    for one in (prompts.train, *prompts.held_out().values()):
        rooms.scorer.check_references(one.prompts)
    if prompts.retention is not None and prompts.retention.prompts is not None:
        rooms.retention_scorer.check_references(prompts.retention.prompts.prompts)
