"""From kept candidates to training examples: the ids that were sampled are the ids that are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from selftrain.records import Survivor
from selftrain.selection import Kept


def to_survivors(kept: Sequence[Kept], *, round_number: int, prompt_texts: Mapping[str, str]) -> tuple[Survivor, ...]:
    """One Survivor per kept candidate, in order. `prompt_texts` (rendered prompt by prompt id) is for readers.

    The label mask is False on the prompt and True on every completion id, the stop token included: a policy that is
    never shown where to stop forgets to.
    """
    return tuple(
        Survivor(
            candidate_id=one.candidate.id,
            prompt_id=one.candidate.prompt_id,
            round=round_number,
            token_ids=one.candidate.prompt_token_ids + one.candidate.completion_token_ids,
            label_mask=(False,) * len(one.candidate.prompt_token_ids)
            + (True,) * len(one.candidate.completion_token_ids),
            weight=1.0,
            why=one.why,
            prompt_text=prompt_texts[one.candidate.prompt_id],
            text=one.candidate.text,
        )
        for one in kept
    )


def buffer(
    current: Sequence[Survivor], earlier: Sequence[Survivor], mode: Literal["replace", "append"]
) -> tuple[Survivor, ...]:
    """What a round trains on: its own survivors, or those of earlier rounds and then its own, each candidate once."""
    if mode == "replace":
        return tuple(current)
    unique: dict[str, Survivor] = {}
    for survivor in (*earlier, *current):
        unique.setdefault(survivor.candidate_id, survivor)
    return tuple(unique.values())
