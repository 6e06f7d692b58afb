"""Choosing among sampled answers by a score: Best-of-k, how well the score ranks, and what that is worth in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import Any

from selftrain.evaluation.metrics import majority_values, sampled_values
from selftrain.evaluation.statistics import Interval, interval_of_mean, paired_difference
from selftrain.evaluation.wording import bounds, points
from selftrain.records import Outcome

PREFIX = "evaluate/sampled/verifier"


@dataclass(frozen=True, slots=True)
class Ranked:
    """The scored answers to one prompt: for each whether it is right, what the verifier gives it, and its
    log-likelihood under the policy that wrote it. `outcome` counts the same answers."""

    outcome: Outcome
    right: tuple[bool, ...]
    by_verifier: tuple[float, ...]
    by_policy: tuple[float, ...]


def best_of_k(right: Sequence[bool], scores: Sequence[float], k: int) -> float:
    """Unbiased chance that the highest scored of k answers is right: the mean over all choices of k of N.

    With the answers sorted from the highest score on, the i-th is the best of C(N-i, k-1) of the C(N, k) choices
    (V-STaR, Hosseini et al. 2024, arXiv 2402.06457, equation 3). Equal scores have no order: each stands for the mean
    over all orders, so that a score which says nothing gives pass@1. Raises ValueError unless 1 <= k <= N, and there is
    one score per answer.
    """
    number = len(right)
    if not 1 <= k <= number or len(scores) != number:
        raise ValueError(f"best-of-{k} cannot be estimated from {number} answers with {len(scores)} scores")
    ranked = sorted(zip(scores, right, strict=True), key=lambda row: -row[0])
    weight, place, chance = k / number, 0, 0.0
    for _, tied in groupby(ranked, key=lambda row: row[0]):
        verdicts = [is_right for _, is_right in tied]
        weights = 0.0
        for _ in verdicts:
            weights += weight
            place += 1
            # C(N-i-1, k-1) / C(N-i, k-1), with i = place.
            weight *= max(0, number - place - k + 1) / (number - place) if place < number else 0.0
        chance += weights * sum(verdicts) / len(verdicts)
    return min(1.0, chance)


def auc(right: Sequence[bool], scores: Sequence[float]) -> float | None:
    """Share of the pairs of a right and a wrong answer in which the right one scores higher, a tie counting half (the
    area under the ROC curve: Hanley and McNeil 1982, Radiology 143:29). None where all are right, or all wrong."""
    ups = [score for score, is_right in zip(scores, right, strict=True) if is_right]
    downs = [score for score, is_right in zip(scores, right, strict=True) if not is_right]
    if not ups or not downs:
        return None
    won = sum((up > down) + 0.5 * (up == down) for up in ups for down in downs)
    return won / (len(ups) * len(downs))


def of_ranked(
    ranked: Sequence[Ranked], ks: Sequence[int], *, confidence: float, resamples: int, seed: int
) -> dict[str, float]:
    """The metrics `evaluate/sampled/verifier/...` of a set's answers, with bounds `..._low` and `..._high`.

    Over the prompts with at least k scored answers: `best_of_k@k`; its paired differences `best_of_k@k_over_pass@1`, to
    taking any of the answers, and `best_of_k@k_over_maj@k`, to a majority vote, where there are votes; and
    `best_of_k@k_by_policy`, the same choice by the policy's own log-likelihood, with `best_of_k@k_over_policy`.
    `pass@k`, of the same answers, is the ceiling. `auc` is the mean over the `auc_prompts` with right and wrong answers
    of the area under the ROC curve within the prompt, `auc_by_policy` the policy's own. Undefined figures are left out.
    """
    settings: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    metrics = {"prompts": float(len(ranked)), "answers": float(sum(len(one.right) for one in ranked))}
    outcomes = [one.outcome for one in ranked]
    has_votes = any(one.right_answers or one.wrong_answers for one in outcomes)
    for k in ks:
        able = [one for one in ranked if len(one.right) >= k]
        metrics[f"best_of_k@{k}_left_out"] = float(len(ranked) - len(able))
        if not able:
            continue
        names = [one.outcome.prompt_id for one in able]
        chosen = dict(zip(names, (best_of_k(one.right, one.by_verifier, k) for one in able), strict=True))
        by_policy = dict(zip(names, (best_of_k(one.right, one.by_policy, k) for one in able), strict=True))
        any_answer = {one.outcome.prompt_id: fmean(one.right) for one in able}
        others = {"over_pass@1": any_answer, "over_policy": by_policy}
        others |= {f"over_maj@{k}": majority_values(outcomes, k)} if has_votes else {}
        key = f"best_of_k@{k}"
        metrics |= _named(key, interval_of_mean(chosen.values(), **settings))
        metrics |= _named(f"{key}_by_policy", interval_of_mean(by_policy.values(), **settings))
        metrics |= _named(f"pass@{k}", interval_of_mean(sampled_values(outcomes, k).values(), **settings))
        for name, other in others.items():
            metrics |= _named(f"{key}_{name}", paired_difference(chosen, other, **settings))
    return {f"{PREFIX}/{name}": value for name, value in (metrics | _of_ranking(ranked, settings)).items()}


def _of_ranking(ranked: Sequence[Ranked], settings: Mapping[str, Any]) -> dict[str, float]:
    areas = [area for one in ranked if (area := auc(one.right, one.by_verifier)) is not None]
    own = [area for one in ranked if (area := auc(one.right, one.by_policy)) is not None]
    metrics = {"auc_prompts": float(len(areas))}
    if areas:
        metrics |= _named("auc", interval_of_mean(areas, **settings))
        metrics |= _named("auc_by_policy", interval_of_mean(own, **settings))
    return metrics


def _named(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


def sentences(metrics: Mapping[str, float], number: int, set_name: str, *, confidence: float) -> tuple[str, ...]:
    """What the verifier of that round is worth at the largest k, in words; nothing where none was measured."""
    found = [key for key in metrics if key.startswith(f"{PREFIX}/best_of_k@") and key.rpartition("@")[2].isdigit()]
    if not found:
        return ()
    k = max(int(key.rpartition("@")[2]) for key in found)
    key = f"{PREFIX}/best_of_k@{k}"
    gain = _interval(metrics, f"{key}_over_pass@1", confidence)
    votes = _interval(metrics, f"{key}_over_maj@{k}", confidence)
    own = _interval(metrics, f"{key}_over_policy", confidence)
    assert gain is not None
    assert own is not None
    any_answer = metrics[key] - gain.estimate
    num_prompts = int(metrics[f"{PREFIX}/prompts"] - metrics[f"{key}_left_out"])
    text = (
        f"{set_name}, round {number}: the best of {k} samples by the verifier is right in {metrics[key]:.1%}, any of "
        f"them in {any_answer:.1%}: {_said(gain)}"
    )
    text += f"; against the majority of {k} {_said(votes)}" if votes is not None else ""
    text += f"; against the choice by the policy's own likelihood {_said(own)}"
    text += f" ({100 * confidence:g} %, paired over {num_prompts} prompts)"
    text += f"; one of {k} is right in {metrics[f'{PREFIX}/pass@{k}']:.1%}, which no choice can beat"
    if f"{PREFIX}/auc" in metrics:
        text += (
            f"; of a right and a wrong answer it prefers the right one in {metrics[f'{PREFIX}/auc']:.1%}, the policy's "
            f"own likelihood in {metrics[f'{PREFIX}/auc_by_policy']:.1%}"
        )
    return (text,)


def _interval(metrics: Mapping[str, float], key: str, confidence: float) -> Interval | None:
    if key not in metrics:
        return None
    low, high = metrics[f"{key}_low"], metrics[f"{key}_high"]
    return Interval(metrics[key], low, high, confidence, "paired bootstrap", 0)


def _said(interval: Interval) -> str:
    said = f"{points(interval.estimate)} points {bounds(interval)}"
    return said if interval.low > 0 or interval.high < 0 else f"{said}, which includes no difference"
