"""Metrics of a round from its candidates and scores alone; and what they say of each held-out prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from selftrain.evaluation.metrics import sampled_values
from selftrain.evaluation.statistics import interval_of_mean
from selftrain.records import Candidate, Group, Outcome, Score


def of_sampling(candidates: Sequence[Candidate], *, seconds: float, tokens_drawn_now: int) -> dict[str, float]:
    """Counts, lengths in tokens, truncation, duplication; and the rate of this attempt.

    `seconds` and `tokens_drawn_now` cover what this attempt drew, which after a resume is less than the whole phase.
    """
    lengths = np.array([len(one.completion_token_ids) for one in candidates])
    texts = defaultdict(set)
    for one in candidates:
        texts[one.prompt_id].add(one.completion_token_ids)
    logprobs = np.array([value for one in candidates for value in one.logprobs])
    return {
        "sample/prompts": float(len(texts)),
        "sample/candidates": float(len(candidates)),
        "sample/tokens": float(lengths.sum()),
        "sample/completion_tokens_mean": float(lengths.mean()),
        "sample/completion_tokens_p50": float(np.quantile(lengths, 0.5)),
        "sample/completion_tokens_p95": float(np.quantile(lengths, 0.95)),
        "sample/truncated_rate": float(np.mean([one.finish_reason == "length" for one in candidates])),
        "sample/distinct_rate": sum(len(one) for one in texts.values()) / len(candidates),
        "sample/token_logprob_mean": float(logprobs.mean()) if len(logprobs) else 0.0,
        "sample/generating_seconds": seconds,
        "sample/tokens_per_second": tokens_drawn_now / seconds if seconds > 0 else 0.0,
    }


def of_scoring(scores: Sequence[Score], prompt_of: Mapping[str, str]) -> dict[str, float]:
    """Shares of right, wrong and unscored candidates, and of prompts by how many of their candidates are right.

    `prompt_of` maps candidate ids to prompt ids. Rates are over scored candidates; unscored ones are counted apart.
    """
    scored = [one for one in scores if one.value is not None]
    right: dict[str, list[bool]] = defaultdict(list)
    for one in scored:
        right[prompt_of[one.candidate_id]].append(bool(one.correct))
    num_prompts = len(right)

    def share(count: int) -> float:
        return count / num_prompts if num_prompts else 0.0

    return {
        "score/candidates": float(len(scores)),
        "score/unscored_rate": 1.0 - len(scored) / len(scores) if scores else 0.0,
        "score/value_mean": float(np.mean([one.value for one in scored if one.value is not None])) if scored else 0.0,
        "score/correct_rate": float(np.mean([bool(one.correct) for one in scored])) if scored else 0.0,
        "score/prompts_solved_rate": share(sum(any(one) for one in right.values())),
        "score/prompts_all_right_rate": share(sum(all(one) for one in right.values())),
        "score/prompts_all_wrong_rate": share(sum(not any(one) for one in right.values())),
    }


def outcomes(groups: Sequence[Group], *, greedy: bool) -> list[Outcome]:
    """One Outcome per prompt, in order: of its one greedy answer, or of its sampled answers. What could not be scored
    is left out of the counts."""
    found = []
    for group in groups:
        scored = [bool(score.correct) for score in group.scores if score.value is not None]
        if greedy:
            found.append(Outcome(group.prompt.id, scored[0] if scored else None, 0, 0))
        else:
            found.append(Outcome(group.prompt.id, None, len(scored), sum(scored)))
    return found


def of_sampled_answers(
    set_name: str, found: Sequence[Outcome], ks: Sequence[int], *, confidence: float, resamples: int, seed: int
) -> dict[str, float]:
    """`evaluate/<set>/sampled_pass@k` with bounds, over the prompts with at least k scored answers, by the unbiased
    estimator (Chen et al. 2021); `..._left_out` counts the others."""
    metrics: dict[str, float] = {}
    for k in ks:
        values = sampled_values(found, k)
        key = f"evaluate/{set_name}/sampled_pass@{k}"
        metrics[f"{key}_left_out"] = float(len(found) - len(values))
        if values:
            interval = interval_of_mean(values.values(), confidence=confidence, resamples=resamples, seed=seed)
            metrics |= {key: interval.estimate, f"{key}_low": interval.low, f"{key}_high": interval.high}
    return metrics
