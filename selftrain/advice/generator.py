"""Notes on who writes the candidates, where it is not the policy."""

from __future__ import annotations

from selftrain.advice.note import Note
from selftrain.config import Config, SampleConfig
from selftrain.generators import draws_from_policy
from selftrain.prompts import PromptSets

# What only those generators heed that draw tokens.
_OF_DRAWING = ("temperature", "top_p", "top_k", "min_p", "max_new_tokens")
_UNHEEDED = {"file": _OF_DRAWING, "endpoint": ("top_k", "min_p")}


def same_again(config: Config, prompts: PromptSets) -> Note | None:
    """Rounds that have the same candidates."""
    generator = config.sample.policy
    if generator is None or draws_from_policy(config.sample) or config.rounds == 1:
        return None
    if generator.file is not None:
        asked = config.prompts.per_round
        if asked != "all":
            return None
        return Note(
            f"sample.policy.file holds the same candidates in each of the {config.rounds} rounds: a later one learns "
            "from no others; set rounds to 1, or prompts.per_round to a number, which asks other prompts"
        )
    return Note(
        f"sample.policy: another than the policy writes the candidates of all {config.rounds} rounds: they get no "
        "better with the policy; set rounds to 1, or name `policy` among sample.policy.checkpoints"
    )


def unheeded_knobs(config: Config, prompts: PromptSets) -> Note | None:
    """Knobs of sampling that the generator knows nothing of."""
    generator, sample = config.sample.policy, config.sample
    if generator is None:
        return None
    usual = SampleConfig()
    names = [name for name in _UNHEEDED.get(generator.kind, ()) if getattr(sample, name) != getattr(usual, name)]
    # What is evaluated has its length from here, unless evaluate has one of its own.
    if config.evaluate.max_new_tokens is None and prompts.held_out():
        names = [name for name in names if name != "max_new_tokens"]
    if not names:
        return None
    said = ", ".join(f"sample.{name}" for name in names)
    return Note(f"{said}: no effect on candidates of sample.policy.{generator.kind}; take it out")
