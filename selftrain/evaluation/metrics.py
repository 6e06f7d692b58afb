"""pass@k, maj@k, and the flat metrics of one set of held-out prompts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlog1py, xlogy

from selftrain.errors import PhaseError
from selftrain.evaluation.statistics import interval_of_mean
from selftrain.records import Outcome

# Votes that come less often than this change no digit of a share; tables of more numbers than this are split.
_NEVER = 1e-20
_CHUNK = 1 << 20


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased chance that one of k answers is correct, from `num_samples` of which `num_correct` were: 1 -
    C(n-c, k) / C(n, k), as a product that cannot overflow (Chen et al. 2021, arXiv 2107.03374, section 2.1).

    Raises ValueError unless 1 <= k <= num_samples and 0 <= num_correct <= num_samples.
    """
    if not (1 <= k <= num_samples and 0 <= num_correct <= num_samples):
        raise ValueError(f"pass@{k} cannot be estimated from {num_correct} correct of {num_samples} answers")
    if num_samples - num_correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / n for n in range(num_samples - num_correct + 1, num_samples + 1))


def maj_at_k(right_answers: Sequence[int], wrong_answers: Sequence[int], num_samples: int, k: int) -> float:
    """Chance that a majority vote among k of `num_samples` answers is right: the mean over all choices of k, exactly
    (the vote: Wang et al. 2022, "Self-Consistency", arXiv 2203.11171).

    The counts say how often each distinct right and each distinct wrong answer was given; answers that nothing could be
    extracted from are in neither and do not vote. A tie goes to each of its answers alike: right answers of t tied ones
    count 1/t each. Without a vote there is no majority, and 0. Raises ValueError unless 1 <= k <= num_samples, and the
    counts are positive and at most num_samples in all.
    """
    right, wrong = tuple(sorted(right_answers)), tuple(sorted(wrong_answers))
    votes = sum(right) + sum(wrong)
    if not (1 <= k <= num_samples and votes <= num_samples and min((*right, *wrong), default=1) >= 1):
        raise ValueError(
            f"maj@{k} cannot be estimated from {num_samples} answers, of which {list(right)} were right and "
            f"{list(wrong)} wrong"
        )
    if not right or not wrong or len({*right, *wrong}) == 1:
        # Whoever wins is right, or wrong; or all answers were given equally often, and have the same chance.
        return len(right) / max(1, len(right) + len(wrong)) * pass_at_k(num_samples, votes, k)
    if k == 1:
        return sum(right) / num_samples
    if k == num_samples:
        most = max(*right, *wrong)
        return right.count(most) / (right.count(most) + wrong.count(most))
    return _chance_of_right_winner(right, wrong, num_samples, k)


@lru_cache(maxsize=1 << 16)
def _chance_of_right_winner(right: tuple[int, ...], wrong: tuple[int, ...], num_samples: int, k: int) -> float:
    """maj@k by dynamic programming over the distinct answers, as a product of generating functions.

    Let each answer be chosen with chance k / num_samples: given that k are chosen, all choices are alike. For m winning
    votes, an answer given c times contributes B(x) = sum over v < m of P(v) x^v, plus y P(m) x^m where it ties for the
    lead, P being binomial; one that cannot reach m contributes its whole binomial. In their product the coefficient of
    x^k y^t is the chance of k votes and t winners. It is read at roots of unity (a Fourier transform), which multiplies
    polynomials for all m at once; 1/t is the integral of y^(t-1) over [0, 1], which Gauss' rule gives exactly.
    """
    right_given, wrong_given = Counter(right), Counter(wrong)
    counts = sorted(right_given | wrong_given)
    share, size = k / num_samples, 1 << num_samples.bit_length()
    roots = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    votes = np.arange(k + 1)
    tables = {count: _binomial(count, k, share) for count in counts}
    low = max(0, int(np.searchsorted(tables[counts[-1]].cumsum(), _NEVER)) - 1)
    most = max(int(np.flatnonzero(table > _NEVER)[-1]) for table in tables.values())
    total = np.zeros(len(roots), dtype=np.complex128)
    while low < most:
        able = [count for count in counts if count > low]
        numbers = [right_given[count] + wrong_given[count] for count in able]
        others = num_samples - sum(count * number for count, number in zip(able, numbers, strict=True))
        points, weights = _gauss(math.ceil(min(sum(numbers), k // (low + 1)) / 2))
        high = min(able[0], most, low + max(1, _CHUNK // (len(roots) * len(points))))
        winning = np.arange(low + 1, high + 1)[:, None]
        # Axes: winning votes, values of y, roots. `ways` is the product, `won` the same with one right winner named.
        ways: NDArray[np.complex128] = np.broadcast_to((1 - share + share * roots) ** others, (1, 1, len(roots)))
        won = np.zeros_like(ways)
        for count, number in zip(able, numbers, strict=True):
            table = tables[count]
            fewer = np.fft.rfft(np.where(votes < winning, table, 0.0), size)[:, None]
            tied = (table[winning] * roots**winning)[:, None]
            factor = fewer + points * tied
            rest = factor ** (number - 1) if number > 1 else 1.0
            won = won * factor * rest + right_given[count] * tied * rest * ways
            ways = ways * factor * rest
        total += np.einsum("mys,y->s", won, weights)
        low = high
    chance = np.fft.irfft(total, size)[k] / _binomial(num_samples, k, share)[k]
    return float(min(max(chance, 0.0), 1.0))


def _binomial(size: int, most: int, share: float) -> NDArray[np.float64]:
    """The chances of 0 to `most` successes in `size` trials."""
    numbers = np.arange(min(size, most) + 1)
    ways = gammaln(size + 1) - gammaln(numbers + 1) - gammaln(size - numbers + 1)
    chances = np.exp(ways + xlogy(numbers, share) + xlog1py(size - numbers, -share))
    return np.pad(chances, (0, max(0, most - size)))


@lru_cache(maxsize=64)
def _gauss(num_points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (as a column) and weights on [0, 1]: exact for polynomials of degree up to 2 num_points - 1."""
    points, weights = np.polynomial.legendre.leggauss(num_points)
    return (points[:, None] + 1) / 2, weights / 2


def best_value_of_k(values: Sequence[float], k: int) -> float:
    """Unbiased mean of the greatest of k answers' values, from those of all of a prompt's answers: with them in
    ascending order, the sum over i of C(i-1, k-1) / C(n, k) times the i-th. Of values 0 and 1 it is pass@k.

    Raises ValueError unless 1 <= k <= the number of values.
    """
    if not 1 <= k <= len(values):
        raise ValueError(f"the best of {k} cannot be estimated from {len(values)} values")
    ways = [math.comb(place, k - 1) for place in range(len(values))]
    whole = math.comb(len(values), k)
    return math.fsum(one / whole * value for one, value in zip(ways, sorted(values), strict=True))


def greedy_values(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """1 or 0 by prompt id for the greedy answers that were scored."""
    return {outcome.prompt_id: float(outcome.greedy) for outcome in outcomes if outcome.greedy is not None}


def sampled_values(outcomes: Sequence[Outcome], k: int) -> dict[str, float]:
    """pass@k by prompt id, where at least k sampled answers were scored."""
    return {
        outcome.prompt_id: pass_at_k(outcome.num_samples, outcome.num_correct, k)
        for outcome in outcomes
        if outcome.num_samples >= k
    }


def majority_values(outcomes: Sequence[Outcome], k: int) -> dict[str, float]:
    """maj@k by prompt id, where at least k sampled answers were scored."""
    return {
        outcome.prompt_id: maj_at_k(outcome.right_answers, outcome.wrong_answers, outcome.num_samples, k)
        for outcome in outcomes
        if outcome.num_samples >= k
    }


def summarise(
    set_name: str,
    outcomes: Sequence[Outcome],
    *,
    truncated: int,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, float]:
    """The metrics of a set's greedy answers, as `evaluate/<set>/...`: `pass@1`, its bounds `pass@1_low` and
    `pass@1_high`, and the counts `prompts`, `unscored` and `truncated`. `truncated` counts answers cut off.

    Raises PhaseError where not one answer was scored.
    """
    greedy = greedy_values(outcomes)
    if not greedy:
        raise PhaseError(
            f"none of the {len(outcomes)} prompts of {set_name} could be scored, so there is no pass@1; "
            "the errors in its scores say why"
        )
    interval = interval_of_mean(greedy.values(), confidence=confidence, resamples=resamples, seed=seed)
    figures = {
        "pass@1": interval.estimate,
        "pass@1_low": interval.low,
        "pass@1_high": interval.high,
        "prompts": float(len(outcomes)),
        "unscored": float(len(outcomes) - len(greedy)),
        "truncated": float(truncated),
    }
    return {f"evaluate/{set_name}/{name}": value for name, value in figures.items()}
