"""How a token is drawn: an exponential race whose noise belongs to the candidate, not to the batch.

In a race every runner v arrives at the time E_v / w_v, with E_v = -log u_v exponential and u_v a hash of (candidate
seed, step, v); the first to arrive is v with probability w_v / sum w, exactly (the Gumbel-max trick in another dress:
Maddison, Tarlow and Minka 2014, "A* Sampling", section 2). Logits that differ in their last bits give another winner
only when two arrivals are within that rounding of each other. The inverse CDF, whose boundaries move with the sum over
all tokens before, flips thousands of times more.

A race over the whole vocabulary would cost a fifth of a small model's step. So groups of tokens race first, each with
the sum of its tokens' weights, then the tokens of the winning group: the same distribution from 1 % of the hashes.
Hashes have 32 bits, so probabilities are right to about 2**-32 of the largest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from selftrain.records import SamplingParameters

RESOLUTION = 2.0**-32
GROUP_SIZE = 256


def _signed(number: int) -> int:
    return (number & (1 << 64) - 1) - ((number & 1 << 63) << 1)


# The constants of splitmix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
GOLDEN = _signed(0x9E3779B97F4A7C15)
FIRST = _signed(0xBF58476D1CE4E5B9)
SECOND = _signed(0x94D049BB133111EB)


def seed_tensor(seeds: Sequence[int], device: torch.device) -> Tensor:
    """64-bit seeds, (rows,) int64; those above 2**63 wrap around."""
    return torch.tensor([_signed(seed) for seed in seeds], dtype=torch.int64, device=device)


def exponentials(seeds: Tensor, step: int, runners: Tensor) -> Tensor:
    """E of (seed, step, runner), float64; seeds and runners are int64 and broadcast. The hash is equal everywhere."""
    keys = _mix(seeds + _signed(GOLDEN * (step + 1)))
    hashed = _mix(keys + (runners + 1) * GOLDEN)
    return -(((hashed >> 32) & 0xFFFFFFFF).double().add_(0.5).mul_(RESOLUTION)).log_()


def _mix(value: Tensor) -> Tensor:
    # int64 multiplication wraps around and `>>` keeps the sign, so the mask makes the shift a logical one.
    value = (value ^ (value >> 30 & (1 << 34) - 1)) * FIRST
    value = (value ^ (value >> 27 & (1 << 37) - 1)) * SECOND
    return value ^ (value >> 31 & (1 << 33) - 1)


def race(logits: Tensor, seeds: Tensor, step: int, rows: Tensor | None = None) -> Tensor:
    """The winners, (seeds,) int64, of float32 logits (rows, vocabulary). Never makes the host wait for an accelerator.

    `rows` says which row each seed draws from; None: the first from the first, and so on. A row of NaN gets an
    arbitrary token; the caller finds its log-probability to be NaN.
    """
    vocabulary = logits.shape[1]
    rows = torch.arange(len(seeds), device=logits.device) if rows is None else rows
    weights = (logits - logits.amax(-1, keepdim=True)).exp_()
    missing = -vocabulary % GROUP_SIZE
    grouped = (pad(weights, (0, missing)) if missing else weights).view(len(logits), -1, GROUP_SIZE)
    # Tokens are the runners 0, 1, ...; groups are -1, -2, ...
    groups = -1 - torch.arange(grouped.shape[1], device=logits.device)
    group = _first(exponentials(seeds[:, None], step, groups), grouped.sum(-1)[rows])
    tokens = group[:, None] * GROUP_SIZE + torch.arange(GROUP_SIZE, device=logits.device)
    place = _first(exponentials(seeds[:, None], step, tokens), grouped[rows, group])
    return group * GROUP_SIZE + place


def _first(noise: Tensor, weights: Tensor) -> Tensor:
    return (noise / weights).argmin(-1)


def truncated(logits: Tensor, parameters: SamplingParameters) -> Tensor:
    """The distribution of the parameters: temperature, then top-k, top-p, min-p, in the order of transformers."""
    if parameters.temperature != 1.0:
        logits = logits / parameters.temperature
    if 0 < parameters.top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(parameters.top_k).values[..., -1:], -math.inf)
    if parameters.top_p < 1.0:
        ascending, order = logits.sort(-1)
        dropped = ascending.softmax(-1).cumsum(-1) <= 1 - parameters.top_p
        dropped[..., -1] = False
        logits = logits.masked_fill(dropped.scatter(-1, order, dropped), -math.inf)
    if parameters.min_p > 0.0:
        logits = logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(parameters.min_p), -math.inf)
    return logits


def draw(
    logits: Tensor, seeds: Tensor, step: int, parameters: SamplingParameters, rows: Tensor | None = None
) -> Tensor:
    """A token for each seed, (seeds,) int64, from float32 logits (rows, vocabulary); `rows` as in `race`.

    Temperature 0 takes the likeliest.
    """
    if parameters.temperature == 0:
        likeliest = logits.argmax(-1)
        return likeliest if rows is None else likeliest[rows]
    return race(truncated(logits, parameters), seeds, step, rows)
