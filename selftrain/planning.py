"""Plans of sampling: which prompts go into which block, with which seeds, from the configuration alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from selftrain.config import Config, one, resolved
from selftrain.errors import DataError
from selftrain.records import Block, Policy, Prompt, SamplingParameters, digest, seed_from

TokenIds = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Draw:
    """One sampling of a list of prompts. `stream` names it for seeds and ids (`main/1/0`, `evaluate/test/greedy`)."""

    stream: str
    prompts: tuple[Prompt, ...]
    num_candidates: int
    parameters: SamplingParameters
    block_size: int
    policy: Policy
    wave: int = 0

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


def blocks(draw: Draw, *, seed: int, render: Callable[[Prompt], TokenIds], context: int | None) -> list[Block]:
    """The blocks of a draw, in order. Raises DataError naming a prompt that leaves no room for an answer."""
    rendered = [render(prompt) for prompt in draw.prompts]
    if context is not None:
        _refuse_too_long(draw.prompts, rendered, context)
    shared = shared_prefix_length(rendered)
    planned = []
    for index in range(draw.num_blocks):
        part = slice(index * draw.block_size, (index + 1) * draw.block_size)
        planned.append(_block(draw, index, part, rendered[part], shared, seed))
    return planned


def _block(draw: Draw, index: int, part: slice, rendered: Sequence[TokenIds], shared: int, seed: int) -> Block:
    prompts = draw.prompts[part]
    numbers = range(draw.num_candidates)
    return Block(
        index=index,
        prompts=prompts,
        prompt_token_ids=tuple(rendered),
        shared_prefix_length=shared,
        num_candidates=draw.num_candidates,
        seeds=tuple(tuple(seed_from(seed, draw.stream, one.id, number) for number in numbers) for one in prompts),
        candidate_ids=tuple(
            tuple(digest([seed, draw.stream, one.id, number])[:20] for number in numbers) for one in prompts
        ),
        wave=draw.wave,
        parameters=draw.parameters,
        policy=draw.policy,
    )


def shared_prefix_length(rendered: Sequence[TokenIds]) -> int:
    """How many leading ids all prompts share, leaving at least one id of each to itself."""
    columns = takewhile(lambda ids: len(set(ids)) == 1, zip(*rendered, strict=False))
    common = sum(1 for _ in columns)
    return min(common, min(len(ids) for ids in rendered) - 1)


def _refuse_too_long(prompts: Sequence[Prompt], rendered: Sequence[TokenIds], context: int) -> None:
    for prompt, ids in zip(prompts, rendered, strict=True):
        if len(ids) >= context:
            raise DataError(
                f"prompt {prompt.id} ({prompt.question[:60]!r}...) takes {len(ids)} tokens, and the model's context is "
                f"{context}: shorten it, drop few_shot examples, or leave it out"
            )
