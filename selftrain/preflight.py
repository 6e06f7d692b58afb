"""Everything about a recipe that can be checked before a model is loaded or a directory made."""

from __future__ import annotations

from selftrain import prompts as prompt_room
from selftrain import scoring
from selftrain.compose import Composed
from selftrain.fingerprints import Fingerprints
from selftrain.prompts import PromptSets
from selftrain.training.fields import check_tables


def check(composed: Composed) -> tuple[PromptSets, Fingerprints]:
    """Check plug-ins, pass-through tables and prompts; return the prompts, and the parts of the fingerprints."""
    config = composed.config
    check_tables(config.train)
    scoring.check(config.score)
    prompts = prompt_room.load(config.prompts, composed.folder)
    sets = {"train": prompts.train, **prompts.held_out()}
    return prompts, Fingerprints(config, composed.folder, {name: one.digest for name, one in sets.items()})
