"""Everything about a recipe that can be checked before a model is loaded or a directory made."""

from __future__ import annotations

from selftrain import prompts as prompt_room
from selftrain import sampling, scoring, training
from selftrain.compose import Composed
from selftrain.fingerprints import Fingerprints
from selftrain.prompts import PromptSets


def check(composed: Composed) -> tuple[PromptSets, Fingerprints]:
    """Check plug-ins, pass-through tables and prompts; return the prompts, and the parts of the fingerprints."""
    config = composed.config
    sampling.check(config.sample)
    scoring.check(config.score)
    training.check(config.train)
    prompts = prompt_room.load(config.prompts, composed.folder)
    sets = {"train": prompts.train, **prompts.held_out()}
    return prompts, Fingerprints(config, composed.folder, {name: one.digest for name, one in sets.items()})
