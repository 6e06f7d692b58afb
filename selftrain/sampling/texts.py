"""Candidates made of texts that the policy did not sample: an existing file's, an endpoint's, another model's."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from selftrain.config import ThinkingConfig
from selftrain.errors import DataError
from selftrain.records import NO_LOGPROBS, Block, Candidate, FinishReason
from selftrain.sampling.stopping import before_stop
from selftrain.sampling.thinking import cut

if TYPE_CHECKING:
    from selftrain.sampling import Sampler

LOGGER = logging.getLogger("selftrain")


class Written(Protocol):
    """A text that somebody wrote as the answer to a prompt."""

    @property
    def text(self) -> str:
        """All of it, reasoning included."""

    @property
    def finish_reason(self) -> FinishReason:
        """How it ended."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What else is known of it."""


class Texts:
    """Makes candidates of texts: reasoning cut off, and the ids that the policy would have left, by its own sampler.

    Without that (None), where no model is loaded, prompts are not rendered and candidates have no ids. A text that
    cannot be written in the policy's tokens, or not within its context, has none either: it is judged, and leaves at
    selection.
    """

    def __init__(self, policy: Sampler | None, thinking: ThinkingConfig | None) -> None:
        self.policy = policy
        self._thinking = thinking
        self._has_told = False

    def candidates(self, block: Block, position: int, written: Sequence[Written], digest: str) -> list[Candidate]:
        """One Candidate per text, in order: the first ones of the block's prompt at that position. `digest` stands for
        who wrote them. There are no log-probabilities."""
        prompt, policy = block.prompts[position], self.policy
        asked: tuple[int, ...] = ()
        found: Sequence[tuple[int, ...] | DataError] = [()] * len(written)
        shown = ""
        if policy is not None:
            asked = policy.render(prompt)
            shown = policy.decode(asked) if self._thinking is not None else ""
            found = policy.encode_written(prompt, [(one.text, one.finish_reason) for one in written])
        return [
            self._candidate(block, (position, index), one, asked, shown, ids, digest)
            for index, (one, ids) in enumerate(zip(written, found, strict=True))
        ]

    def _candidate(
        self,
        block: Block,
        at: tuple[int, int],
        one: Written,
        asked: tuple[int, ...],
        shown: str,
        found: tuple[int, ...] | DataError,
        digest: str,
    ) -> Candidate:
        position, index = at
        name, stops = block.candidate_ids[position][index], block.parameters.stop_strings
        limit = None if self.policy is None else self.policy.context_length
        if limit is not None and not isinstance(found, DataError) and len(asked) + len(found) > limit:
            found = DataError(f"with its prompt it has {len(asked) + len(found)} tokens, and the context is {limit}")
        ids = () if isinstance(found, DataError) else found
        if isinstance(found, DataError) and not self._has_told:
            self._has_told = True
            LOGGER.warning("candidate %s cannot be trained on, and others may be as it: %s", name, found)
        text = before_stop(one.text, stops)
        ended: FinishReason = "stop_string" if stops and one.finish_reason != "length" else one.finish_reason
        decode = self.policy.decode if self.policy is not None else lambda _: ""
        answer = cut(self._thinking, one.text if text is None else text, ids, after=shown, decode=decode)
        return Candidate(
            id=name,
            prompt_id=block.prompts[position].id,
            index=index,
            wave=block.wave,
            text=answer.text,
            prompt_token_ids=asked,
            completion_token_ids=ids,
            finish_reason=ended,
            seed=block.seeds[position][index],
            policy_digest=digest,
            logprobs=(),
            logprobs_of=NO_LOGPROBS,
            reasoning=answer.reasoning,
            reasoning_tokens=answer.reasoning_tokens,
            metadata=one.metadata,
        )
