"""The metrics of a round, phase by phase, from its candidates and scores alone; and what they say of each held-out
prompt. No figure is NaN: one that is not defined (nothing kept, nothing right) is left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean, median

import numpy as np

from selftrain.evaluation import collapse, coverage, retention, tasks
from selftrain.evaluation.metrics import majority_values, sampled_values
from selftrain.evaluation.statistics import interval_of_mean
from selftrain.records import Candidate, Group, Outcome, Score


def of_sampling(candidates: Sequence[Candidate], *, seconds: float, tokens_drawn_now: int) -> dict[str, float]:
    """Counts, lengths in tokens, truncation, duplication, entropy; and the rate of this attempt.

    `sample/entropy` is -sum p log p over the whole vocabulary at temperature 1, in nats, the mean over all sampled
    tokens (as in Xiong et al. 2025, arXiv 2504.11343). `sample/token_logprob_mean` is its estimate from the sampled
    tokens alone, with the other sign. `seconds` and `tokens_drawn_now` cover what this attempt drew, which after a
    resume is less than the whole phase. For mean lengths see `of_token_counts`.
    """
    lengths = np.array([len(one.completion_token_ids) for one in candidates])
    texts = defaultdict(set)
    for one in candidates:
        texts[one.prompt_id].add(one.completion_token_ids)
    num_logprobs = sum(len(one.logprobs) for one in candidates)
    logprob = sum(sum(one.logprobs) for one in candidates) / num_logprobs if num_logprobs else 0.0
    metrics = {
        "sample/prompts": float(len(texts)),
        "sample/candidates": float(len(candidates)),
        "sample/tokens": float(lengths.sum()),
        "sample/completion_tokens_p50": float(np.quantile(lengths, 0.5)),
        "sample/completion_tokens_p95": float(np.quantile(lengths, 0.95)),
        "sample/truncated_rate": float(np.mean([one.finish_reason == "length" for one in candidates])),
        "sample/distinct_rate": sum(len(one) for one in texts.values()) / len(candidates),
        "sample/token_logprob_mean": logprob,
        "sample/generating_seconds": seconds,
        "sample/tokens_per_second": tokens_drawn_now / seconds if seconds > 0 else 0.0,
    }
    if lengths.any():
        metrics["sample/entropy"] = float(lengths @ [one.entropy for one in candidates] / lengths.sum())
    return metrics | of_token_counts(candidates, "sample")


def of_token_counts(candidates: Sequence[Candidate], prefix: str) -> dict[str, float]:
    """`<prefix>/completion_tokens_mean`: tokens of a candidate, stop token included; and where any of them reasons,
    `<prefix>/reasoning_tokens_mean`: what a candidate spends on that, closing tag included, 0 for those without any."""
    metrics = {f"{prefix}/completion_tokens_mean": fmean(len(one.completion_token_ids) for one in candidates)}
    if all(one.reasoning is None for one in candidates):
        return metrics
    return metrics | {f"{prefix}/reasoning_tokens_mean": fmean(one.reasoning_tokens for one in candidates)}


def of_drift(
    policy_logprobs: Sequence[Sequence[float]], base_logprobs: Sequence[Sequence[float]], prefix: str
) -> dict[str, float]:
    """KL of the policy to the base model over the tokens of some of its candidates, per token and per sequence, as
    `collapse.of_kl_to_base` says; `<prefix>/drift_candidates` counts them. One row of each per candidate, at
    temperature 1."""
    return collapse.of_kl_to_base(policy_logprobs, base_logprobs, prefix)


def of_scoring(groups: Sequence[Group], before: Mapping[str, bool]) -> dict[str, float]:
    """What a round's candidates got right, by candidate and by prompt. One group per prompt, scored.

    `before` maps the prompts asked in earlier rounds of the arm to whether they were ever solved. Rates are over scored
    candidates, and over prompts that have any; unscored ones are counted apart. Only coverage (`of_solved`) is over all
    prompts asked: one whose candidates could not be scored is not solved yet. `score/correct_rate` is acceptance, as
    sampled, before any filter. For the tasks of a mix see `tasks.of_scoring`.
    """
    num_candidates = sum(len(group.candidates) for group in groups)
    judged = [rows for group in groups if (rows := _judged(group))]
    scored = [row for rows in judged for row in rows]
    counts = [(len(rows), sum(bool(score.correct) for _, score in rows)) for rows in judged]
    num_prompts = max(1, len(judged))
    values = [[score.value for _, score in rows if score.value is not None] for rows in judged]
    return {
        "score/candidates": float(num_candidates),
        "score/unscored_rate": 1.0 - len(scored) / num_candidates if num_candidates else 0.0,
        "score/value_mean": float(np.mean([value for row in values for value in row])) if scored else 0.0,
        "score/correct_rate": sum(right for _, right in counts) / len(scored) if scored else 0.0,
        "score/prompts_solved_rate": sum(right > 0 for _, right in counts) / num_prompts,
        "score/prompts_all_right_rate": sum(right == number for number, right in counts) / num_prompts,
        "score/prompts_all_wrong_rate": sum(right == 0 for _, right in counts) / num_prompts,
        **coverage.of_solved(solved(groups), before),
        **coverage.of_difficulty(counts),
        **coverage.of_fan([[score for _, score in rows] for rows in judged]),
        **_of_values(values),
        **collapse.of_right_answers(judged),
        **collapse.of_lengths(scored),
        **tasks.of_scoring(groups),
    }


def _judged(group: Group) -> list[collapse.Judged]:
    """The candidates that were scored, with their scores."""
    rows = zip(group.candidates, group.scores, strict=True)
    return [(candidate, score) for candidate, score in rows if score.value is not None]


def _of_values(values: Sequence[Sequence[float]]) -> dict[str, float]:
    """Values by prompt: quantiles over all candidates; and the best of each prompt, `value_best_of_n`, with what it is
    above the median, `value_gap`, means over prompts: the gain that choosing can bring (Llama 2, Touvron et al. 2023,
    figure 7)."""
    if not values:
        return {}
    tenth, half, nine_tenths = np.quantile([value for row in values for value in row], [0.1, 0.5, 0.9])
    return {
        "score/value_p10": float(tenth),
        "score/value_p50": float(half),
        "score/value_p90": float(nine_tenths),
        "score/value_best_of_n": fmean(max(row) for row in values),
        "score/value_gap": fmean(max(row) - median(row) for row in values),
    }


def solved(groups: Sequence[Group]) -> dict[str, bool]:
    """By prompt id: whether a candidate of the prompt is right. An unscored one is not."""
    return {group.prompt.id: any(score.correct for _, score in _judged(group)) for group in groups}


def of_selection(
    kept: Sequence[tuple[Candidate, Score]], *, sampled_candidates: int, sampled_tokens: int
) -> dict[str, float]:
    """The quality and the price of what was kept; nothing where nothing was.

    `select/kept_precision` is the share of right ones among the kept with a verdict: below 1 for rules that do not ask
    for it. `select/tokens_per_kept` and `select/candidates_per_kept` are what was sampled per kept candidate (the
    inverse of acceptance after all filters), `select/kept_tokens_mean` the mean length in completion tokens. For the
    other keys see `collapse.of_duplication`.
    """
    if not kept:
        return {}
    candidates = [candidate for candidate, _ in kept]
    verdicts = [score.correct for _, score in kept if score.correct is not None]
    metrics = {
        **collapse.of_duplication(candidates),
        "select/tokens_per_kept": sampled_tokens / len(kept),
        "select/candidates_per_kept": sampled_candidates / len(kept),
        "select/kept_tokens_mean": fmean(len(one.completion_token_ids) for one in candidates),
    }
    return metrics | ({"select/kept_precision": sum(verdicts) / len(verdicts)} if verdicts else {})


def outcomes(groups: Sequence[Group], *, greedy: bool) -> list[Outcome]:
    """One Outcome per prompt, in order: of its one greedy answer, or of its sampled answers and the votes in them. What
    could not be scored is left out of the counts."""
    found = []
    for group in groups:
        scored = [score for _, score in _judged(group)]
        right = [bool(score.correct) for score in scored]
        if greedy:
            found.append(Outcome(group.prompt.id, right[0] if right else None, 0, 0))
        else:
            found.append(Outcome(group.prompt.id, None, len(right), sum(right), *coverage.votes(scored)))
    return found


def of_sampled_answers(
    set_name: str, found: Sequence[Outcome], ks: Sequence[int], *, confidence: float, resamples: int, seed: int
) -> dict[str, float]:
    """`evaluate/<set>/sampled_pass@k` by the unbiased estimator (Chen et al. 2021) and `evaluate/<set>/maj@k`, with
    bounds, over the prompts with at least k scored answers; `..._left_out` counts the others. There is no maj@k where
    nothing was extracted from any answer: then there are no votes."""
    metrics: dict[str, float] = {}
    votes_cast = any(one.right_answers or one.wrong_answers for one in found)
    for k in ks:
        passing = sampled_values(found, k)
        metrics[f"evaluate/{set_name}/sampled_pass@{k}_left_out"] = float(len(found) - len(passing))
        figures = {f"evaluate/{set_name}/sampled_pass@{k}": passing}
        if votes_cast:
            figures[f"evaluate/{set_name}/maj@{k}"] = majority_values(found, k)
        for key, values in figures.items():
            if values:
                interval = interval_of_mean(values.values(), confidence=confidence, resamples=resamples, seed=seed)
                metrics |= {key: interval.estimate, f"{key}_low": interval.low, f"{key}_high": interval.high}
    return metrics


def gap(metrics: Mapping[str, float]) -> dict[str, float]:
    """`evaluate/trained_gap`: greedy pass@1 on prompts of the round that was trained on, less that on held-out ones
    (validate, else test), where both were measured (ReST-EM, Singh et al. 2023, figure 4). Where both are drawn alike,
    it is 0 but for chance until something is memorised."""
    trained = metrics.get("evaluate/trained/pass@1")
    held_out = metrics.get("evaluate/validate/pass@1", metrics.get("evaluate/test/pass@1"))
    return {} if trained is None or held_out is None else {"evaluate/trained_gap": trained - held_out}


def of_texts(
    logprobs: Sequence[Sequence[float]],
    base: Sequence[Sequence[float]] | None,
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> dict[str, float]:
    """Retention on texts, one row of log-probabilities per text, as `retention` says: `evaluate/retention/nll`,
    `perplexity`, `texts`, `tokens`; with `base`, the same texts at round 0, `nll_change` and its bounds."""
    metrics = retention.of_logprobs(logprobs)
    if base is None:
        return metrics
    return metrics | retention.of_change(logprobs, base, confidence=confidence, resamples=resamples, seed=seed)
