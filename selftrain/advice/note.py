"""A note on a combination of knobs, and the rounds that it is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from selftrain import prompts as prompt_room
from selftrain.config import Config, at_round
from selftrain.prompts import PromptSets

UNBOUNDED = 10**9


@dataclass(frozen=True, slots=True)
class Note:
    """What makes no sense, why, and what to do. `cannot_work`: a run would train on nothing in all rounds."""

    words: str
    cannot_work: bool = False


Advice = Callable[[Config, PromptSets], Note | None]


def distinct_rounds(config: Config) -> range:
    """The first rounds, up to the last one whose knobs may differ from those before: all later ones have its knobs."""
    sections = (config.prompts, config.sample, config.select, config.train)
    schedules = (values for section in sections for _, values in section if isinstance(values, tuple))
    return range(1, min(config.rounds, max(map(len, schedules), default=1) or 1) + 1)


def rounds_of(config: Config, test: Callable[[dict[str, Any], dict[str, Any]], bool]) -> list[int]:
    """The rounds in which the test of the round's sample and select knobs is true."""
    looked_at = distinct_rounds(config)
    found = [number for number in looked_at if test(_drawn(config, number), at_round(config.select, number))]
    is_true_to_the_end = bool(found) and found[-1] == looked_at[-1]
    return found + list(range(looked_at[-1] + 1, config.rounds + 1)) * is_true_to_the_end


def _drawn(config: Config, number: int) -> dict[str, Any]:
    """The round's sample knobs; of a file's candidates, which knobs have no effect on, as if there were many of any."""
    sample = at_round(config.sample, number)
    if config.sample.policy is not None and config.sample.policy.file is not None:
        sample |= {"temperature": 1.0, "max_new_tokens": UNBOUNDED}
    return sample | ({"num_candidates": UNBOUNDED} if sample["num_candidates"] == "all" else {})


def where(config: Config, rounds: Sequence[int]) -> str:
    """` in rounds 2, 3` or ` in rounds 4 to 20`; nothing where it is all of them."""
    if len(rounds) == config.rounds:
        return ""
    if len(rounds) > 3 and rounds[-1] - rounds[0] == len(rounds) - 1:
        return f" in rounds {rounds[0]} to {rounds[-1]}"
    return f" in round{'s' * (len(rounds) > 1)} {', '.join(map(str, rounds))}"


def starts_of(config: Config) -> set[str]:
    """Every `train.init_from` after round 1."""
    last = distinct_rounds(config)[-1]
    return {at_round(config.train, number)["init_from"] for number in range(2, min(last + 1, config.rounds) + 1)}


def are_equal(sample: dict[str, Any]) -> bool:
    """Whether a prompt has only one answer, however many candidates."""
    return bool(sample["temperature"] == 0 or sample["num_candidates"] == 1)


def asked_at_first(config: Config, prompts: PromptSets) -> int:
    """How many prompts round 1 asks."""
    return len(prompt_room.of_round(prompts.train, config.prompts, seed=config.seed, round_number=1))
