from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from selftrain.errors import DataError, PhaseError
from selftrain.evaluation.rounds import of_texts

KNOBS: dict[str, Any] = {"confidence": 0.95, "resamples": 500, "seed": 0}
CHANGE = "evaluate/retention/nll_change"


def test_the_likelihood_is_per_token_over_all_texts() -> None:
    assert of_texts([[-1.0, -2.0, -3.0], [-4.0], []], None, **KNOBS) == {
        "evaluate/retention/nll": pytest.approx(2.5),
        "evaluate/retention/perplexity": pytest.approx(math.exp(2.5)),
        "evaluate/retention/texts": 3.0,
        "evaluate/retention/tokens": 4.0,
    }


def test_the_change_is_weighted_by_tokens() -> None:
    metrics = of_texts([[-1.0, -2.0, -3.0], [-4.0], []], [[-1.0, -1.0, -1.0], [-5.0], []], **KNOBS)
    assert metrics[CHANGE] == pytest.approx((0 + 1 + 2 - 1) / 4)
    # Of two texts, one of 3 tokens and one of 1: the resamples are the first twice, both, and the second twice.
    assert (metrics[f"{CHANGE}_low"], metrics[f"{CHANGE}_high"]) == (pytest.approx(-1.0), pytest.approx(1.0))


def test_a_policy_that_did_not_change_has_no_change_at_all() -> None:
    logprobs = [[-0.3, -0.1], [-2.7], [-1.1, -0.2, -0.9]]
    metrics = of_texts(logprobs, logprobs, **KNOBS)
    assert [metrics[key] for key in (CHANGE, f"{CHANGE}_low", f"{CHANGE}_high")] == [0.0, 0.0, 0.0]


def test_one_text_has_a_change_and_no_bounds() -> None:
    metrics = of_texts([[-1.0], []], [[-2.0], []], **KNOBS)
    assert metrics[CHANGE] == pytest.approx(-1.0)
    assert f"{CHANGE}_low" not in metrics


def test_a_hopeless_text_has_a_finite_perplexity() -> None:
    assert math.isfinite(of_texts([[-5000.0]], None, **KNOBS)["evaluate/retention/perplexity"])


def test_texts_that_cannot_be_measured_are_refused() -> None:
    with pytest.raises(DataError, match="the 1 retention texts hold no token"):
        of_texts([[]], None, **KNOBS)
    with pytest.raises(ValueError, match="not of the same texts"):
        of_texts([[-1.0]], [[-1.0, -1.0]], **KNOBS)
    with pytest.raises(PhaseError, match="NaN"):
        of_texts([[math.nan]], None, **KNOBS)


def texts(generator: np.random.Generator, size: int, spread: float, slope: float) -> tuple[Any, Any]:
    """Texts of about 55 tokens, and what they cost before and after: 0.05 nats per token more, long ones more so."""
    lengths = np.maximum(2, np.exp(generator.normal(4, spread, size))).astype(int)
    change = 0.05 + slope * (np.log(lengths) - 4) + generator.normal(0, 0.1, size)
    before = [-generator.exponential(3.0, length) for length in lengths]
    after = [row - one + generator.normal(0, 0.5, len(row)) for row, one in zip(before, change, strict=True)]
    return after, before


def coverage(size: int, spread: float, slope: float, trials: int) -> float:
    generator = np.random.default_rng(11)
    # E[tokens * change] / E[tokens], as lognormal lengths have it: their mean log, weighted by length, is 4 + spread^2.
    truth = 0.05 + slope * spread**2
    held = 0
    for _ in range(trials):
        metrics = of_texts(*texts(generator, size, spread, slope), confidence=0.95, resamples=400, seed=3)
        held += metrics[f"{CHANGE}_low"] <= truth <= metrics[f"{CHANGE}_high"]
    return held / trials


def test_a_95_percent_interval_of_the_change_holds_the_truth_about_95_times_in_100() -> None:
    assert 0.92 <= coverage(40, 0.3, 0.0, 500) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "spread", "slope", "least"),
    [(10, 0.3, 0.0, 0.93), (50, 0.3, 0.05, 0.93), (20, 1.0, 0.0, 0.91), (200, 1.0, 0.05, 0.91), (20, 1.0, 0.05, 0.86)],
)
def test_the_coverage_falls_with_few_texts_of_very_different_lengths(
    size: int, spread: float, slope: float, least: float
) -> None:
    assert least <= coverage(size, spread, slope, 2000) <= 0.97
