"""pass@k and the flat metrics of one set of held-out prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from selftrain.errors import PhaseError
from selftrain.evaluation.statistics import interval_of_mean
from selftrain.records import Outcome


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
