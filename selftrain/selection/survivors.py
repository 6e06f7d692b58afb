"""From kept candidates to training examples: the ids that were sampled are the ids that are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from selftrain.records import Candidate, Survivor
from selftrain.selection import Kept


def to_survivors(
    kept: Sequence[Kept],
    *,
    round_number: int,
    prompt_texts: Mapping[str, str],
    train_on: Literal["completion", "answer"] = "completion",
) -> tuple[Survivor, ...]:
    """One Survivor per kept candidate, in order, as `to_survivor` says. `prompt_texts` are by prompt id."""
    return tuple(
        to_survivor(
            one, round_number=round_number, prompt_text=prompt_texts[one.candidate.prompt_id], train_on=train_on
        )
        for one in kept
    )


def to_survivor(
    one: Kept, *, round_number: int, prompt_text: str, train_on: Literal["completion", "answer"] = "completion"
) -> Survivor:
    """The training example that a kept candidate is. `prompt_text` (the rendered prompt) is for readers.

    The label mask is False on the prompt and True on every completion id, the stop token included: a policy that is
    never shown where to stop forgets to. With `train_on` answer it is False on the reasoning too; what is nothing else
    has left at a step of selection.
    """
    return Survivor(
        candidate_id=one.candidate.id,
        prompt_id=one.candidate.prompt_id,
        round=round_number,
        token_ids=one.candidate.prompt_token_ids + one.candidate.completion_token_ids,
        label_mask=_label_mask(one.candidate, train_on),
        weight=1.0,
        why=one.why,
        prompt_text=prompt_text,
        text=one.candidate.text,
        value=one.score.value,
    )


def _label_mask(candidate: Candidate, train_on: Literal["completion", "answer"]) -> tuple[bool, ...]:
    skipped = candidate.reasoning_tokens if train_on == "answer" else 0
    trained = len(candidate.completion_token_ids) - skipped
    return (False,) * (len(candidate.prompt_token_ids) + skipped) + (True,) * trained
