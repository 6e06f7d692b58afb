"""The scripted engine: answers come from a function instead of a model. For tests of recipes and of the loop.

Tokens are UTF-8 bytes, and 256 is the stop token. The answer is certain: every log-probability is 0, and so is the
entropy, unless the function says what it should be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain.config import SampleConfig, ThinkingConfig
from selftrain.errors import ConfigError, DataError
from selftrain.plugins import load_function
from selftrain.records import Block, Candidate, FinishReason, Prompt, SamplingParameters
from selftrain.sampling.stopping import before_stop, until_stop, with_stop
from selftrain.sampling.thinking import cut

if TYPE_CHECKING:
    from selftrain.models import Bench

STOP_TOKEN = 256


def one_digit(prompt: Prompt, seed: int, policy_round: int) -> str:
    """The answer where no function is given: a digit that depends on the seed alone."""
    return str(seed % 10)


class ScriptedSampler:
    """Answers of `params.function`: `f(prompt: Prompt, seed: int, policy_round: int) -> str | (str, entropy)`.

    Greedy sampling (temperature 0) passes the seed 0, so that all candidates of a prompt are equal.
    """

    def __init__(
        self,
        config: SampleConfig,
        bench_factory: Callable[[], Bench],
        plugin_dir: Path,
        thinking: ThinkingConfig | None = None,
    ) -> None:
        unknown = sorted(set(config.params) - {"function"})
        if unknown:
            raise ConfigError(f"sample.params: the scripted engine has no {unknown[0]!r}; it takes `function` alone")
        self._stop_strings = config.stop_strings
        self._thinking = thinking
        reference = config.params.get("function")
        self._answer: Callable[[Prompt, int, int], str | tuple[str, float]] = (
            one_digit if reference is None else load_function(str(reference), plugin_dir)
        )

    @property
    def context_length(self) -> None:
        """No limit."""

    def render(self, prompt: Prompt) -> tuple[int, ...]:
        """The prompt's bytes; of messages, one line `role: content` each."""
        if prompt.messages is None:
            return tuple((prompt.text or "").encode())
        return tuple("".join(f"{message.role}: {message.content}\n" for message in prompt.messages).encode())

    def encode_completion(self, prompt: Prompt, text: str) -> tuple[int, ...]:
        """The bytes of the text and of the first stop string, or the stop token where there is none."""
        written = with_stop(text, self._stop_strings, f"the completion of prompt {prompt.id}")
        return (*written.encode(), *([] if self._stop_strings else [STOP_TOKEN]))

    def encode_written(
        self, prompt: Prompt, texts: Sequence[tuple[str, FinishReason]]
    ) -> list[tuple[int, ...] | DataError]:
        """The bytes of each text, and what ends it unless that is its length."""
        return [self._written(prompt, text, reason) for text, reason in texts]

    def _written(self, prompt: Prompt, text: str, reason: FinishReason) -> tuple[int, ...] | DataError:
        try:
            return tuple(text.encode()) if reason == "length" else self.encode_completion(prompt, text)
        except DataError as error:
            return error

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of the bytes."""
        return _decoded(token_ids)

    def sample(self, block: Block) -> tuple[Candidate, ...]:
        """Ask the function once per candidate. DataError when it answers anything else."""
        return tuple(
            self._candidate(block, position, index)
            for position in range(len(block.prompts))
            for index in range(block.num_candidates)
        )

    def _candidate(self, block: Block, position: int, index: int) -> Candidate:
        prompt, seed = block.prompts[position], block.seeds[position][index]
        answer = self._answer(prompt, seed if block.parameters.temperature else 0, block.policy.round)
        entropy = 0.0
        if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], int | float):
            answer, entropy = answer[0], float(answer[1])
        if not isinstance(answer, str):
            raise DataError(
                f"sample.params.function answered prompt {prompt.id} with {answer!r}; it must return a str, or a str "
                "and its entropy"
            )
        ids, text, reason = _finish(answer, block.parameters)
        asked = block.prompt_token_ids[position]
        spoken = cut(self._thinking, text, ids, after=_decoded(asked), decode=_decoded)
        return Candidate(
            id=block.candidate_ids[position][index],
            prompt_id=prompt.id,
            index=index,
            wave=block.wave,
            text=spoken.text,
            prompt_token_ids=asked,
            completion_token_ids=ids,
            finish_reason=reason,
            seed=seed,
            policy_digest=block.policy.digest,
            logprobs=(0.0,) * len(ids),
            entropy=entropy,
            reasoning=spoken.reasoning,
            reasoning_tokens=spoken.reasoning_tokens,
        )


def _decoded(token_ids: Sequence[int]) -> str:
    return bytes(one for one in token_ids if one != STOP_TOKEN).decode(errors="replace")


def _finish(answer: str, parameters: SamplingParameters) -> tuple[tuple[int, ...], str, FinishReason]:
    """Token ids, text and finish reason: what a model that writes `answer` and then stops would leave."""
    stopped = until_stop(answer, parameters.stop_strings)
    ids = (*answer.encode(), STOP_TOKEN) if stopped is None else tuple(stopped.encode())
    if len(ids) > parameters.max_new_tokens:
        ids = ids[: parameters.max_new_tokens]
        return ids, _decoded(ids), "length"
    text = before_stop(answer if stopped is None else stopped, parameters.stop_strings)
    return (ids, answer, "stop_token") if text is None else (ids, text, "stop_string")
