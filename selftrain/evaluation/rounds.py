"""Metrics of a round's sampling and scoring, from the candidates and scores alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from selftrain.records import Candidate, Score


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
