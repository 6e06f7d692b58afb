"""A note on a combination of knobs, and the rounds that it is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from selftrain import prompts as prompt_room
from selftrain.config import Config, at_round
from selftrain.prompts import PromptSets


@dataclass(frozen=True, slots=True)
class Note:
    """What makes no sense, why, and what to do. `cannot_work`: a run would train on nothing in all rounds."""

    words: str
    cannot_work: bool = False


Advice = Callable[[Config, PromptSets], Note | None]


def rounds_of(config: Config, test: Callable[[dict[str, Any], dict[str, Any]], bool]) -> list[int]:
    """The rounds in which the test of the round's sample and select knobs is true."""
    found = range(1, config.rounds + 1)
    return [number for number in found if test(at_round(config.sample, number), at_round(config.select, number))]


def where(config: Config, rounds: Sequence[int]) -> str:
    """` in rounds 2, 3`; nothing where it is all of them."""
    if len(rounds) == config.rounds:
        return ""
    return f" in round{'s' * (len(rounds) > 1)} {', '.join(map(str, rounds))}"


def are_equal(sample: dict[str, Any]) -> bool:
    """Whether a prompt has only one answer, however many candidates."""
    return bool(sample["temperature"] == 0 or sample["num_candidates"] == 1)


def asked_at_first(config: Config, prompts: PromptSets) -> int:
    """How many prompts round 1 asks."""
    return len(prompt_room.of_round(prompts.train, config.prompts, seed=config.seed, round_number=1))
