"""Plans of sampling: which prompts go into which block, with which seeds, from the configuration alone."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import overload

from selftrain.config import Config, one, resolved
from selftrain.errors import DataError
from selftrain.records import Block, Policy, Prompt, SamplingParameters, digest, seed_from

TokenIds = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Draw:
    """One sampling of a list of prompts. `stream` names it for seeds and ids (`main/1/0`, `evaluate/test/greedy`).
    `num_candidates` of each prompt; None: all that a file holds of it. `by_generator`: by who writes the training
    candidates, who may be another than the policy. `with_base_logprob`: with what the policy of round 0 makes of them.
    """

    stream: str
    prompts: tuple[Prompt, ...]
    num_candidates: int | None
    parameters: SamplingParameters
    block_size: int
    policy: Policy
    wave: int = 0
    by_generator: bool = False
    with_base_logprob: bool = False

    @property
    def num_blocks(self) -> int:
        """How many blocks the draw takes."""
        return -(-len(self.prompts) // self.block_size)


def for_training(config: Config, round_number: int) -> SamplingParameters:
    """The distribution that candidates of a round are drawn from."""
    knobs = resolved(config.sample, round_number)
    return SamplingParameters(
        temperature=one(knobs.temperature),
        top_p=one(knobs.top_p),
        top_k=one(knobs.top_k),
        min_p=one(knobs.min_p),
        max_new_tokens=one(knobs.max_new_tokens),
        stop_strings=knobs.stop_strings,
    )


def num_candidates(config: Config, round_number: int) -> int | None:
    """Candidates per prompt in that round; None: all that a file holds."""
    count = resolved(config.sample, round_number).num_candidates
    return count if isinstance(count, int) else None


def of_round(config: Config, arm: str, round_number: int, prompts: tuple[Prompt, ...], policy: Policy) -> Draw:
    """The candidates that an arm of that configuration draws in a round."""
    knobs = resolved(config.sample, round_number)
    return Draw(
        stream=f"{arm}/{round_number}/0",
        prompts=prompts,
        num_candidates=num_candidates(config, round_number),
        parameters=for_training(config, round_number),
        block_size=one(knobs.block_size),
        policy=policy,
        by_generator=True,
        with_base_logprob=one(resolved(config.select, round_number).kl_beta) > 0,
    )


def greedy(config: Config) -> SamplingParameters:
    """Greedy decoding, for pass@1."""
    return SamplingParameters(0.0, 1.0, 0, 0.0, _evaluation_tokens(config), config.sample.stop_strings)


def for_pass_at_k(config: Config) -> SamplingParameters:
    """The distribution of sampled evaluation."""
    knobs = config.evaluate
    tokens = _evaluation_tokens(config)
    return SamplingParameters(knobs.temperature, knobs.top_p, 0, 0.0, tokens, config.sample.stop_strings)


def _evaluation_tokens(config: Config) -> int:
    return config.evaluate.max_new_tokens or one(resolved(config.sample, 1).max_new_tokens)


class Blocks(Sequence[Block]):
    """The blocks of a draw, in order, each made when it is asked for: those of a million candidates are never all in
    memory."""

    def __init__(
        self,
        draw: Draw,
        seed: int,
        render: Callable[[Prompt], TokenIds],
        context: int | None,
        held: Callable[[Prompt], int] | None,
    ) -> None:
        self._draw, self._seed, self._held, self._render = draw, seed, held, render
        self._rendered: list[array[int]] | None = None
        self._shared = 0
        if held is None:
            self._rendered = [array("i", render(prompt)) for prompt in draw.prompts]
            if context is not None:
                _refuse_too_long(draw.prompts, self._rendered, context)
            self._shared = shared_prefix_length(self._rendered)

    def __len__(self) -> int:
        return self._draw.num_blocks

    @overload
    def __getitem__(self, index: int) -> Block: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Block]: ...

    def __getitem__(self, index: int | slice) -> Block | Sequence[Block]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        draw, part = self._draw, self._part(index)
        prompts, counts = draw.prompts[part], self._counts(index)
        if self._rendered is None:
            rendered = tuple(self._render(prompt) for prompt in prompts)
        else:
            rendered = tuple(tuple(ids) for ids in self._rendered[part])
        numbered = list(zip(prompts, counts, strict=True))
        return Block(
            index=index,
            prompts=prompts,
            prompt_token_ids=rendered,
            shared_prefix_length=self._shared,
            num_candidates=max(counts),
            seeds=tuple(
                tuple(seed_from(self._seed, draw.stream, one.id, number) for number in range(count))
                for one, count in numbered
            ),
            candidate_ids=tuple(
                tuple(digest([self._seed, draw.stream, one.id, number])[:20] for number in range(count))
                for one, count in numbered
            ),
            wave=draw.wave,
            parameters=draw.parameters,
            policy=draw.policy,
        )

    def num_candidates(self, index: int) -> int:
        """Of all prompts of that block together."""
        return sum(self._counts(index))

    def _part(self, index: int) -> slice:
        return slice(index * self._draw.block_size, (index + 1) * self._draw.block_size)

    def _counts(self, index: int) -> list[int]:
        prompts, limit = self._draw.prompts[self._part(index)], self._draw.num_candidates
        if self._held is None:
            assert limit is not None, "all candidates of a prompt are known only where they exist"
            return [limit] * len(prompts)
        counts = [self._held(prompt) for prompt in prompts]
        return counts if limit is None else [min(count, limit) for count in counts]


def blocks(
    draw: Draw,
    *,
    seed: int,
    render: Callable[[Prompt], TokenIds],
    context: int | None,
    held: Callable[[Prompt], int] | None = None,
) -> Blocks:
    """The blocks of a draw. Raises DataError naming a prompt that leaves no room for an answer.

    `held` says how many candidates of a prompt exist already. Then nothing is to be generated: prompts are rendered
    block by block, share no prefix, and may be of any length.
    """
    return Blocks(draw, seed, render, context, held)


def shared_prefix_length(rendered: Sequence[Sequence[int]]) -> int:
    """How many leading ids all prompts share, leaving at least one id of each to itself; 0 without any."""
    columns = takewhile(lambda ids: len(set(ids)) == 1, zip(*rendered, strict=False))
    common = sum(1 for _ in columns)
    return max(0, min(common, min(len(ids) for ids in rendered) - 1))


def _refuse_too_long(prompts: Sequence[Prompt], rendered: Sequence[Sequence[int]], context: int) -> None:
    for prompt, ids in zip(prompts, rendered, strict=True):
        if len(ids) >= context:
            raise DataError(
                f"prompt {prompt.id} ({prompt.question[:60]!r}...) takes {len(ids)} tokens, and the model's context is "
                f"{context}: shorten it, drop few_shot examples, or leave it out"
            )
