"""A server as generator: each candidate is one answer of it, asked for with the candidate's own seed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from selftrain.config import EndpointConfig
from selftrain.endpoint import Answer, Endpoint, Failure, Request, shown_url
from selftrain.errors import PhaseError
from selftrain.records import Block, Candidate, Digest, FinishReason, Message, Prompt
from selftrain.sampling.texts import Texts

LOGGER = logging.getLogger("selftrain")
WHERE = "sample.policy.endpoint"
# Servers take seeds of 32 or 64 bits, with a sign.
SEEDS = 2**31
# How a server says that an answer came to an end of its own. Anything else (length, a content filter) cut it.
ENDED = (None, "stop", "eos", "eos_token", "end_turn", "stop_sequence")


@dataclass(frozen=True, slots=True)
class Said:
    """One answer of the server."""

    text: str
    finish_reason: FinishReason
    metadata: dict[str, Any]


class EndpointSampler:
    """Asks for every candidate of a block at once, `concurrency` at a time. Of greedy candidates of a prompt, which are
    all the same one, a single time. `who` stands for the server and its model in the candidates."""

    def __init__(self, config: EndpointConfig, texts: Texts, who: Digest) -> None:
        self._endpoint = Endpoint(config, WHERE)
        self._texts, self._who = texts, who

    @property
    def context_length(self) -> int | None:
        """The policy's, which is to be trained on prompt and completion; the server's is not known."""
        return None if self._texts.policy is None else self._texts.policy.context_length

    def render(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt as the policy's token ids; none where no model is loaded."""
        return () if self._texts.policy is None else self._texts.policy.render(prompt)

    def sample(self, block: Block) -> tuple[Candidate, ...]:
        """All candidates of the block. PhaseError: the server did not answer them all, whatever was tried."""
        each = block.num_candidates if block.parameters.temperature else 1
        requests = [
            _request(block, prompt, seed)
            for prompt, seeds in zip(block.prompts, block.seeds, strict=True)
            for seed in seeds[:each]
        ]
        said = [self._said(one, block, at // each) for at, one in enumerate(self._endpoint.complete(requests))]
        self._log()
        found: list[Candidate] = []
        for position in range(len(block.prompts)):
            of_prompt = said[position * each : (position + 1) * each] * (block.num_candidates // each)
            found += self._texts.candidates(block, position, of_prompt, self._who)
        return tuple(found)

    def close(self) -> None:
        """End the connections."""
        self._endpoint.close()

    def _log(self) -> None:
        sums = self._endpoint.totals
        LOGGER.info(
            "%s so far: %d requests (%d repeated), %d prompt tokens and %d completion tokens as the server counts them",
            WHERE,
            sums.requests,
            sums.retries,
            sums.prompt_tokens,
            sums.completion_tokens,
        )

    def _said(self, answer: Answer | Failure, block: Block, position: int) -> Said:
        prompt = block.prompts[position]
        if isinstance(answer, Failure):
            out = "look after it"
            if answer.advice is not None:
                out = answer.advice
            elif answer.kind == "refused":
                out = f"leave prompt {prompt.id} out (prompts.train.exclude)"
            raise PhaseError(
                f"{shown_url(self._endpoint.config)} did not answer prompt {prompt.id} ({prompt.question[-60:]!r}): "
                f"{answer.reason}. The candidates of the blocks before are kept; {out}, and run the same command again"
            )
        (text,), (ended,) = answer.texts, answer.finish_reasons
        is_known = ended in ENDED or ended == "length"
        metadata = {} if is_known else {"finish_reason": ended}
        return Said(text, "stop_token" if ended in ENDED else "length", metadata)


def _request(block: Block, prompt: Prompt, seed: int) -> Request:
    how = block.parameters
    return Request(
        messages=prompt.messages or (Message("user", prompt.text or ""),),
        max_tokens=how.max_new_tokens,
        temperature=how.temperature,
        top_p=how.top_p if how.top_p < 1 else None,
        seed=seed % SEEDS,
        stop=how.stop_strings,
    )
