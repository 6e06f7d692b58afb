"""What a judge must never find good, asked about in every round: master keys, and answers to other questions.

A policy finds what a judge falls for sooner than a person does. "One Token to Fool LLM-as-a-Judge" (Zhao et al. 2025,
arXiv 2507.08794): texts without content, as ":" or "Thought process:", are found right by many judges, up to 80 % of
the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selftrain.records import Prompt, seed_from
from selftrain.scoring import Asked

MASTER_KEYS = (":", "Thought process:", "Solution", "Let's solve this problem step by step.")
OTHERS_ANSWER = "the answer to another prompt"
SPACE = 2**63
SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Canary:
    """A text that is no answer to the prompt, and what to call it."""

    prompt: Prompt
    name: str
    text: str


def is_chosen(prompt_id: str, share: float) -> bool:
    """Whether canaries are asked about at this prompt: so at the same ones in every round and on every machine."""
    return seed_from("canary", prompt_id) < share * SPACE


def canaries_of(block: Sequence[tuple[Prompt, Sequence[Asked]]], index: int, *, swapped: bool) -> list[Canary]:
    """The canaries of the block's prompt of that index: all master keys, and (`swapped`) one candidate of another
    prompt, where there is one that is surely no answer to this."""
    prompt, asked = block[index]
    found = [Canary(prompt, repr(key), key) for key in MASTER_KEYS]
    if not swapped:
        return found
    own = {_plain(one.text) for one in asked}
    for offset in range(1, len(block)):
        other, of_other = block[(index + offset) % len(block)]
        if other.identity == prompt.identity or _same(other.reference, prompt.reference):
            continue
        left = [one.text for one in of_other if _plain(one.text) not in own]
        if left:
            return [*found, Canary(prompt, OTHERS_ANSWER, left[0])]
    return found


def _same(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and _plain(one) == _plain(other)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
