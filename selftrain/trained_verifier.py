"""What the trained verifier adds to a plan and to a status: when it is trained and asked. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping

from selftrain.arms import Arm, names_round
from selftrain.config import Config, RoundNames
from selftrain.records import Receipt


def in_words(config: Config, number: int) -> str:
    """What is done with it after that round, to follow the words for the round's evaluation."""
    knobs = config.verifier
    if knobs is None or not names_round(knobs.rounds, number, last=config.rounds):
        return ""
    return (
        f"; train a verifier on right and wrong candidates of all rounds so far, at most {knobs.pairs_per_prompt} "
        "pairs per prompt, to choose among the samples (its time is not in the estimate)"
    )


def phases(config: Config, arm: Arm, number: int, committed: Mapping[str, Receipt]) -> dict[str, RoundNames]:
    """Its phases of a round, with the rounds that name them. `committed` are the receipts by key: of a verifier that
    had nothing to learn from, nothing is asked."""
    if config.verifier is None or not number:
        return {}
    found: dict[str, RoundNames] = {"verifier": config.verifier.rounds}
    is_held_out = config.prompts.validate_ is not None or config.prompts.test is not None
    is_sampled = is_held_out and names_round(config.evaluate.sampled_rounds, number, last=config.rounds)
    trained = committed.get(arm.key(number, "verifier"))
    if is_sampled and (trained is None or trained.files):
        found["evaluate-verifier"] = config.verifier.rounds
    return found
