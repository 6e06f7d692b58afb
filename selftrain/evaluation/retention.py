"""What a policy keeps of what it could: its likelihood of texts that have nothing to do with the task."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from selftrain.errors import DataError
from selftrain.evaluation.collapse import flat

_CHUNK = 1 << 20


def of_logprobs(logprobs: Sequence[Sequence[float]]) -> dict[str, float]:
    """`evaluate/retention/nll`, the negative log-likelihood in nats per token over all tokens of all texts;
    `perplexity`, its exponential; `texts`; and `tokens`, those with a log-probability. Raises DataError without one."""
    values = flat(logprobs)
    if not len(values):
        raise DataError(
            f"the {len(logprobs)} retention texts hold no token that follows another, so nothing can be measured; "
            "give longer texts in prompts.retention"
        )
    nll = -float(values.mean())
    figures = {
        "nll": nll,
        "perplexity": math.exp(min(nll, 700.0)),  # exp(710) overflows
        "texts": float(len(logprobs)),
        "tokens": float(len(values)),
    }
    return {f"evaluate/retention/{name}": value for name, value in figures.items()}


def of_change(
    logprobs: Sequence[Sequence[float]],
    base: Sequence[Sequence[float]],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> dict[str, float]:
    """`evaluate/retention/nll_change`: the nats per token that the same texts cost more than at `base`; with bounds,
    `..._low` and `..._high`, where there are two texts or more.

    The change is a ratio, all texts' change in nats over all their tokens, so whole texts are resampled, with their
    tokens (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 10, the patch data); percentile
    bounds, widened for few texts as in `statistics` (Hesterberg 2015). Where texts' lengths vary a hundredfold and the
    change goes with the length, 20 texts hold the truth 89 times in 100 for 95 %. Raises ValueError where the texts
    differ.
    """
    lengths = [len(one) for one in logprobs]
    if lengths != [len(one) for one in base]:
        raise ValueError("the log-probabilities at round 0 are not of the same texts")
    difference = flat(base) - flat(logprobs)
    ends = np.cumsum(lengths)
    running = np.concatenate([[0.0], difference.cumsum()])
    changes = running[ends] - running[ends - lengths]
    tokens = np.array(lengths, dtype=np.float64)
    metrics = {"evaluate/retention/nll_change": float(difference.mean())}
    if np.count_nonzero(tokens) > 1:
        low, high = _bounds(changes, tokens, confidence=confidence, resamples=resamples, seed=seed)
        metrics |= {"evaluate/retention/nll_change_low": low, "evaluate/retention/nll_change_high": high}
    return metrics


def _bounds(
    changes: NDArray[np.float64], tokens: NDArray[np.float64], *, confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Percentile bounds of sum(changes) / sum(tokens) over resampled texts, in chunks so that memory stays bounded."""
    changes, tokens = changes[tokens > 0], tokens[tokens > 0]
    size, generator = len(tokens), np.random.default_rng(seed)
    step = max(1, _CHUNK // size)
    ratios = []
    for start in range(0, resamples, step):
        drawn = generator.integers(0, size, (min(step, resamples - start), size))
        ratios.append(changes[drawn].sum(axis=1) / tokens[drawn].sum(axis=1))
    # The spread of resamples falls short by sqrt((n-1)/n), and normal tails are too thin for small n.
    tail = float(ndtr(math.sqrt(size / (size - 1)) * stdtrit(size - 1, (1 - confidence) / 2)))
    low, high = np.quantile(np.concatenate(ratios), [tail, 1 - tail])
    return float(low), float(high)
