"""What every engine keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from blocks import block_of, chat

from selftrain.config import SampleConfig
from selftrain.models import Bench
from selftrain.records import FINISH_REASONS, Block
from selftrain.sampling import SAMPLERS, Sampler, build

QUESTIONS = chat("1 + 2 =", "what is 10 + 20 ?", "the quick brown fox jumps over", "7")


@pytest.fixture(params=sorted(SAMPLERS))
def sampler(request: pytest.FixtureRequest, chat_bench: Bench, tmp_path: Path) -> Sampler:
    return build(SampleConfig(engine=request.param), lambda: chat_bench, tmp_path)


@pytest.fixture
def block(sampler: Sampler) -> Block:
    return block_of(sampler, QUESTIONS, num_candidates=3, wave=2)


def test_candidates_come_prompt_by_prompt_and_name_where_they_are_from(sampler: Sampler, block: Block) -> None:
    candidates = sampler.sample(block)
    assert [one.id for one in candidates] == [name for names in block.candidate_ids for name in names]
    assert [one.index for one in candidates] == [0, 1, 2] * len(QUESTIONS)
    assert [one.seed for one in candidates] == [seed for seeds in block.seeds for seed in seeds]
    for number, one in enumerate(candidates):
        assert one.prompt_id == block.prompts[number // 3].id
        assert one.prompt_token_ids == block.prompt_token_ids[number // 3]
        assert (one.wave, one.policy_digest) == (2, block.policy.digest)
        assert one.finish_reason in FINISH_REASONS
        assert 1 <= len(one.completion_token_ids) == len(one.logprobs) <= block.parameters.max_new_tokens
        assert all(logprob <= 0 for logprob in one.logprobs)


def test_a_block_gives_the_same_candidates_alone_after_others_and_in_any_order(
    sampler: Sampler, block: Block, chat_bench: Bench, tmp_path: Path
) -> None:
    other = block_of(sampler, chat("something else", "and a longer one than that"), num_candidates=2)
    alone = sampler.sample(block)
    before = sampler.sample(other)
    fresh = build(SampleConfig(engine=ENGINE_OF[type(sampler).__name__]), lambda: chat_bench, tmp_path)
    assert fresh.sample(other) == before
    assert fresh.sample(block) == sampler.sample(block) == alone


ENGINE_OF = {place.partition(":")[2]: name for name, place in SAMPLERS.items()}


def test_seeds_tell_candidates_apart(sampler: Sampler) -> None:
    block = block_of(sampler, QUESTIONS[:1], num_candidates=8)
    assert len({one.completion_token_ids for one in sampler.sample(block)}) > 1


def test_equal_seeds_give_equal_candidates(sampler: Sampler) -> None:
    block = block_of(sampler, QUESTIONS[:1], num_candidates=3)
    equal = replace(block, seeds=((5, 5, 5),))
    assert len({one.text for one in sampler.sample(equal)}) == 1


def test_one_token_is_enough(sampler: Sampler) -> None:
    for one in sampler.sample(block_of(sampler, QUESTIONS, num_candidates=2, max_new_tokens=1)):
        assert len(one.completion_token_ids) == 1


def test_greedy_candidates_of_a_prompt_are_equal_but_for_their_names(sampler: Sampler) -> None:
    candidates = sampler.sample(block_of(sampler, QUESTIONS, num_candidates=3, temperature=0.0))
    assert len({(one.prompt_id, one.text, one.completion_token_ids) for one in candidates}) == len(QUESTIONS)
    assert len({one.id for one in candidates}) == 3 * len(QUESTIONS)
