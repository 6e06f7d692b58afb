"""Signs that a policy narrows or drifts: variety of right answers, duplication, lengths, KL to the base model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from selftrain.errors import PhaseError
from selftrain.records import Candidate, Score

Judged = tuple[Candidate, Score]
"""A candidate and its score."""

MOST_NATS = 20.0
"""In k3 a token counts as at most so much likelier under the base model: one beyond that would be the whole mean, or
overflow."""
CHUNK = 1 << 20
"""About so many tokens are held at a time while bigrams are counted."""


def of_right_answers(groups: Sequence[Sequence[Judged]]) -> dict[str, float]:
    """`score/distinct_right_per_solved_prompt` (RFT, Yuan et al. 2023, table 2: gains follow distinct solutions, not
    accepted ones): different texts of right candidates, letter case and white space aside, per prompt with any."""
    texts = [{" ".join(one.text.casefold().split()) for one, score in rows if score.correct} for rows in groups]
    solved = [len(one) for one in texts if one]
    return {"score/distinct_right_per_solved_prompt": sum(solved) / len(solved)} if solved else {}


def of_lengths(rows: Iterable[Judged]) -> dict[str, float]:
    """Median and 95th percentile of completion tokens of right and of wrong candidates: `score/right_tokens_p50`, ...
    Where wrong ones grow longer than right ones, look at truncation. Left out where there are none."""
    lengths: dict[str, list[int]] = {"right": [], "wrong": []}
    for candidate, score in rows:
        lengths["right" if score.correct else "wrong"].append(len(candidate.completion_token_ids))
    return {
        f"score/{name}_tokens_p{percent}": float(np.quantile(found, percent / 100))
        for name, found in lengths.items()
        if found
        for percent in (50, 95)
    }


def of_duplication(candidates: Sequence[Candidate]) -> dict[str, float]:
    """How much of what was kept repeats itself. `select/duplicate_rate` is 1 - distinct (prompt, text) / kept,
    `select/duplicate_text_rate` the same over all prompts together, `select/distinct_2` the share of distinct bigrams
    of completion tokens among all bigrams (after Li et al. 2016, arXiv 1510.03055, who divide by all tokens).

    The last falls as sets grow, so compare it between sets of one size. Undefined figures are left out.
    """
    if not candidates:
        return {}
    pairs, texts = {(one.prompt_id, one.text) for one in candidates}, {one.text for one in candidates}
    metrics = {
        "select/duplicate_rate": 1 - len(pairs) / len(candidates),
        "select/duplicate_text_rate": 1 - len(texts) / len(candidates),
    }
    distinct, total = _bigrams([one.completion_token_ids for one in candidates])
    return metrics | ({"select/distinct_2": distinct / total} if total else {})


def _bigrams(sequences: Sequence[Sequence[int]]) -> tuple[int, int]:
    """How many distinct bigrams, and how many in all. A part of the sequences at a time, to bound memory."""
    ends = np.cumsum([len(one) for one in sequences])
    distinct: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    total = first = 0
    while first < len(sequences):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + CHUNK)))
        ids = np.fromiter(chain.from_iterable(sequences[first:last]), dtype=np.int64)
        inside = np.ones(len(ids), dtype=bool)
        inside[ends[first:last][ends[first:last] > before] - before - 1] = False  # the last token begins no bigram
        found = (ids[:-1] << 32 | ids[1:])[inside[:-1]]
        distinct, total, first = np.union1d(distinct, found), total + len(found), last
    return len(distinct), total


def of_kl_to_base(
    policy_logprobs: Sequence[Sequence[float]], base_logprobs: Sequence[Sequence[float]], prefix: str
) -> dict[str, float]:
    """KL(policy || base) from the log-probabilities that both give to the policy's candidates, at temperature 1, in
    nats: with d = log policy - log base per token, `<prefix>/kl_to_base_k1` is the mean of d, `..._k3` the mean of
    exp(-d) - 1 + d (never negative, and of less variance), both over tokens; `..._per_sequence` is the mean over
    candidates of their sum of d. After Schulman 2020, "Approximating KL Divergence" (joschu.net/blog/kl-approx.html).

    Unbiased for candidates drawn at temperature 1 from the whole vocabulary; of others they say how far the policy
    moved on what it was drawn to say. Raises ValueError where the shapes differ, PhaseError for NaN or infinity.
    """
    lengths = [len(one) for one in policy_logprobs]
    if lengths != [len(one) for one in base_logprobs]:
        raise ValueError("the policy's and the base model's log-probabilities are not of the same tokens")
    metrics = {f"{prefix}/drift_candidates": float(len(lengths))}
    if not sum(lengths):
        return metrics
    policy, base = (flat(one) for one in (policy_logprobs, base_logprobs))
    difference = policy - base
    metrics[f"{prefix}/kl_to_base_k1"] = float(difference.mean())
    bounded = difference.clip(min=-MOST_NATS)
    metrics[f"{prefix}/kl_to_base_k3"] = float((np.expm1(-bounded) + bounded).mean())
    metrics[f"{prefix}/kl_to_base_per_sequence"] = float(difference.sum()) / len(lengths)
    return metrics


def flat(logprobs: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """All log-probabilities in a row. Raises PhaseError where one is NaN or infinite."""
    found = np.fromiter(chain.from_iterable(logprobs), dtype=np.float64)
    if not np.isfinite(found).all():
        raise PhaseError(
            f"{int((~np.isfinite(found)).sum())} of {len(found)} log-probabilities are NaN or infinite; try "
            "model.dtype: float32, or a lower learning rate"
        )
    return found
