from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chisquare
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from selftrain.records import SamplingParameters
from selftrain.sampling.race import RESOLUTION, draw, exponentials, race, seed_tensor, truncated

CPU = torch.device("cpu")


def seeds_of(count: int, start: int = 0) -> torch.Tensor:
    return seed_tensor([(start + number) * 0x9E3779B97F4A7C15 % 2**63 for number in range(count)], CPU)


def normal(rows: int, vocabulary: int, *, scale: float, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * scale


def test_a_token_of_probability_zero_never_wins() -> None:
    logits = normal(2000, 700, scale=1.0)
    logits[:, 1::2] = -math.inf
    assert not (race(logits, seeds_of(2000), 0) % 2).any()
    only = torch.full((1, 700), -math.inf)
    only[0, 699] = -50.0
    assert race(only, seeds_of(1), 0).tolist() == [699]


def test_what_a_row_draws_depends_on_its_own_logits_and_seed_alone() -> None:
    logits = normal(64, 700, scale=2.0)
    together = race(logits, seeds_of(64), 5)
    assert race(logits[40:41], seeds_of(64)[40:41], 5).item() == together[40]
    assert torch.equal(race(logits.flip(0), seeds_of(64).flip(0), 5).flip(0), together)


@pytest.mark.parametrize("vocabulary", [300, 512, 1000])
def test_draws_over_several_groups_follow_the_distribution(vocabulary: int) -> None:
    count = 20_000
    logits = normal(1, vocabulary, scale=0.5)
    drawn = race(logits.expand(count, -1), seeds_of(count), 0).bincount(minlength=vocabulary)
    expected = logits[0].double().softmax(-1) * count
    assert chisquare(drawn.numpy(), expected.numpy()).pvalue > 1e-4


def test_draws_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.02, 0.01])
    count = 20_000
    logits = probabilities.log().expand(count, -1)
    for step in (0, 1, 1000):
        drawn = race(logits, seeds_of(count), step).bincount(minlength=6)
        assert chisquare(drawn.numpy(), probabilities.double().numpy() * count).pvalue > 1e-4


def test_draws_of_steps_and_of_neighbouring_seeds_are_independent() -> None:
    count = 20_000
    logits = torch.zeros(count, 4)
    neighbours = seed_tensor(list(range(count)), CPU)
    first, second = race(logits, neighbours, 0), race(logits, neighbours, 1)
    for pairs in (first * 4 + second, first[:-1] * 4 + first[1:]):
        assert chisquare(pairs.bincount(minlength=16).numpy()).pvalue > 1e-4


def test_the_noise_is_exponential_and_bounded_below() -> None:
    noise = exponentials(seeds_of(500)[:, None], 3, torch.arange(500))
    assert noise.min() > RESOLUTION / 4
    assert noise.mean().item() == pytest.approx(1.0, abs=0.01)
    assert noise.var().item() == pytest.approx(1.0, abs=0.03)


def test_the_noise_is_the_same_on_every_machine() -> None:
    noise = exponentials(seed_tensor([0, 2**63 + 5, -1], CPU), 2, torch.tensor([0, 7, 49151]))
    assert noise.tolist() == pytest.approx(EXPECTED, rel=1e-12)


def reference_noise(seed: int, step: int, token: int) -> float:
    """The same hash in Python's unbounded integers."""
    mask, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(value: int) -> int:
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & mask
        value = (value ^ value >> 27) * 0x94D049BB133111EB & mask
        return value ^ value >> 31

    key = mix((seed + golden * (step + 1)) & mask)
    return -math.log(((mix((key + golden * (token + 1)) & mask) >> 32) + 0.5) / 2**32)


EXPECTED = [reference_noise(0, 2, 0), reference_noise(2**63 + 5, 2, 7), reference_noise(-1 & 2**64 - 1, 2, 49151)]


def test_rounding_flips_practically_no_draw_where_the_inverse_cdf_flips_many() -> None:
    logits = normal(4000, 1000, scale=0.3)
    moved = logits + normal(4000, 1000, scale=1e-5, seed=1) + torch.linspace(0, 6e-5, 1000)
    uniform = torch.rand(4000, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def inverse_cdf(values: torch.Tensor) -> torch.Tensor:
        return torch.searchsorted(values.double().softmax(-1).cumsum(-1), uniform)[:, 0]

    flips = (race(logits, seeds_of(4000), 0) != race(moved, seeds_of(4000), 0)).sum().item()
    inverse = (inverse_cdf(logits) != inverse_cdf(moved)).sum().item()
    assert flips <= 2
    assert inverse > 10


def test_truncation_keeps_what_transformers_keeps() -> None:
    logits = normal(50, 300, scale=3.0)
    parameters = SamplingParameters(temperature=0.7, top_p=0.9, top_k=40, min_p=0.02, max_new_tokens=1)
    processors = LogitsProcessorList(
        [TemperatureLogitsWarper(0.7), TopKLogitsWarper(40), TopPLogitsWarper(0.9), MinPLogitsWarper(0.02)]
    )
    torch.testing.assert_close(truncated(logits, parameters), processors(torch.zeros(50, 1), logits))


def test_parameters_that_truncate_nothing_leave_the_logits_alone() -> None:
    logits = normal(2, 300, scale=3.0)
    assert truncated(logits, SamplingParameters(1.0, 1.0, 0, 0.0, 1)) is logits
    assert truncated(logits, SamplingParameters(1.0, 1.0, 300, 0.0, 1)) is logits


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = normal(20, 300, scale=3.0)
    assert torch.equal(draw(logits, seeds_of(20), 0, SamplingParameters(0.0, 0.5, 3, 0.1, 1)), logits.argmax(-1))


def test_a_row_of_nan_does_not_disturb_the_others() -> None:
    logits = normal(3, 50, scale=1.0)
    alone = race(logits, seeds_of(3), 0)
    logits[1] = math.nan
    assert race(logits, seeds_of(3), 0)[[0, 2]].tolist() == alone[[0, 2]].tolist()
