from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from blocks import BASE, block_of, chat

from selftrain.config import SampleConfig
from selftrain.models import Bench
from selftrain.records import Candidate
from selftrain.sampling.entropy import normalisers_and_entropies
from selftrain.sampling.race import draw, seed_tensor
from selftrain.sampling.transformers_engine import TransformersSampler

QUESTIONS = chat("1 + 2 =", "what is 10 + 20 ?", "the quick brown fox jumps over the lazy dog", "7")


def exact(logits: torch.Tensor) -> torch.Tensor:
    logprobs = logits.double().log_softmax(-1)
    return torch.special.entr(logprobs.exp()).sum(-1)


def normal(rows: int, vocabulary: int, *, scale: float) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(0)) * scale


@pytest.mark.parametrize("scale", [0.0, 0.1, 3.0, 30.0])
@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 300), (17, 49_152)])
def test_entropies_are_those_of_float64_to_rounding(rows: int, vocabulary: int, scale: float) -> None:
    logits = normal(rows, vocabulary, scale=scale) + 20
    normalisers, entropies = normalisers_and_entropies(logits)
    torch.testing.assert_close(entropies.double(), exact(logits), atol=2e-5, rtol=2e-6)
    torch.testing.assert_close(normalisers.double(), logits.double().logsumexp(-1), atol=4e-6, rtol=1e-6)


def test_normalisers_are_bitwise_those_of_the_whole_batch_and_the_logits_stay_as_they_are() -> None:
    logits = normal(20, 5000, scale=3.0)
    before = logits.clone()
    normalisers, _ = normalisers_and_entropies(logits)
    assert torch.equal(normalisers, logits.logsumexp(-1))
    assert torch.equal(logits, before)


def test_tokens_that_cannot_come_add_nothing_to_the_entropy() -> None:
    logits = normal(3, 400, scale=1.0)
    padded = torch.cat([logits, torch.full((3, 50), -math.inf), torch.full((3, 50), -1e30)], dim=1)
    torch.testing.assert_close(normalisers_and_entropies(padded)[1], normalisers_and_entropies(logits)[1])
    certain = torch.full((1, 400), -math.inf)
    certain[0, 7] = 12.0
    assert normalisers_and_entropies(certain)[1].abs().item() == 0.0


def direct(bench: Bench, one: Candidate) -> float:
    """The definition, in float64, from a plain forward pass over prompt and completion."""
    ids = torch.tensor([one.prompt_token_ids + one.completion_token_ids])
    with torch.no_grad():
        logits = bench.mount(BASE)(input_ids=ids).logits[0]
    return exact(logits[len(one.prompt_token_ids) - 1 : -1]).mean().item()


@pytest.mark.parametrize("knobs", [{}, {"temperature": 0.0}, {"temperature": 0.6, "top_p": 0.8, "top_k": 20}])
def test_a_candidates_entropy_is_the_mean_over_its_tokens_of_the_raw_policys(
    chat_bench: Bench, knobs: dict[str, float]
) -> None:
    """Rows stop at different steps, and the stop token's step counts."""
    sampler = TransformersSampler(SampleConfig(stop_token_ids=tuple(range(160, 320))), lambda: chat_bench, Path())
    candidates = sampler.sample(block_of(sampler, QUESTIONS, num_candidates=6, max_new_tokens=20, **knobs))  # type: ignore[arg-type]
    assert knobs or len({len(one.completion_token_ids) for one in candidates}) > 2
    for one in candidates:
        assert one.entropy == pytest.approx(direct(chat_bench, one), abs=1e-5)
        assert 0 < one.entropy < math.log(320)


def test_the_tokens_are_the_ones_drawn_from_the_logits_alone(chat_bench: Bench) -> None:
    """A loop of its own, which computes nothing but draws, gives the same ids."""
    sampler = TransformersSampler(SampleConfig(), lambda: chat_bench, Path())
    block = block_of(sampler, QUESTIONS[:1], num_candidates=1, max_new_tokens=8)
    (one,) = sampler.sample(block)
    ids = list(one.prompt_token_ids)
    seeds = seed_tensor(block.seeds[0], torch.device("cpu"))
    for step in range(len(one.completion_token_ids)):
        with torch.no_grad():
            logits = chat_bench.mount(BASE)(input_ids=torch.tensor([ids])).logits[:, -1]
        ids.append(int(draw(logits, seeds, step, block.parameters)))
    assert tuple(ids[len(one.prompt_token_ids) :]) == one.completion_token_ids
