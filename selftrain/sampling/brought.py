"""The generator that writes nothing: candidates that exist already."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Protocol

from selftrain.records import Block, Candidate, Prompt
from selftrain.sampling.texts import Texts, Written


class Held(Protocol):
    """Texts by the prompt that they answer."""

    def num_held(self, prompt_id: str) -> int:
        """How many there are."""

    def of(self, prompt_id: str) -> Iterable[Written]:
        """All of them, in an order that never changes."""

    def close(self) -> None:
        """Give back what they are read from."""


class BroughtSampler:
    """Gives the first candidates of each prompt, in the order in which they are held. `digest` stands for all."""

    def __init__(self, held: Held, texts: Texts, digest: str) -> None:
        self.held, self.digest = held, digest
        self._texts = texts

    @property
    def context_length(self) -> None:
        """No limit: nothing is generated."""

    def num_held(self, prompt: Prompt) -> int:
        """How many candidates of that prompt there are."""
        return self.held.num_held(prompt.id)

    def render(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt as the policy's token ids; none where no model is loaded."""
        return () if self._texts.policy is None else self._texts.policy.render(prompt)

    def sample(self, block: Block) -> tuple[Candidate, ...]:
        """So many candidates of each of the block's prompts as it has ids for."""
        found: list[Candidate] = []
        for position, (prompt, names) in enumerate(zip(block.prompts, block.candidate_ids, strict=True)):
            written = list(islice(self.held.of(prompt.id), len(names)))
            found += self._texts.candidates(block, position, written, self.digest)
        return tuple(found)

    def close(self) -> None:
        """Give back what the texts are read from."""
        self.held.close()
