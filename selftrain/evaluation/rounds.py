"""The metrics of a round, phase by phase, from its candidates and scores alone; and what they say of each held-out
prompt. No figure is NaN: one that is not defined (nothing kept, nothing right) is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from selftrain.evaluation import collapse, coverage, figures, retention
from selftrain.evaluation.metrics import majority_values, sampled_values
from selftrain.evaluation.statistics import interval_of_mean
from selftrain.evaluation.tallies import SamplingTally, ScoringTally, SelectionTally, judged_of
from selftrain.records import Candidate, Group, Outcome, Score


def of_sampling(candidates: Iterable[Candidate], *, seconds: float, tokens_drawn_now: int) -> dict[str, float]:
    """Counts, lengths in tokens, truncation, duplication, entropy; and the rate of this attempt. A prompt's candidates
    come together.

    `sample/entropy` is -sum p log p over the whole vocabulary at temperature 1, in nats, the mean over all sampled
    tokens (as in Xiong et al. 2025, arXiv 2504.11343). `sample/token_logprob_mean` is its estimate from the sampled
    tokens alone, with the other sign. `seconds` and `tokens_drawn_now` cover what this attempt drew, which after a
    resume is less than the whole phase. For mean lengths see `of_token_counts`.
    """
    tally = SamplingTally()
    for one in candidates:
        tally.add(one)
    return tally.metrics(seconds=seconds, tokens_drawn_now=tokens_drawn_now)


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


def of_scoring(groups: Iterable[Group], before: Mapping[str, bool]) -> dict[str, float]:
    """What a round's candidates got right, by candidate and by prompt. One group per prompt, scored.

    `before` maps the prompts asked in earlier rounds of the arm to whether they were ever solved. Rates are over scored
    candidates, and over prompts that have any; unscored ones are counted apart. Only coverage (`of_solved`) is over all
    prompts asked: one whose candidates could not be scored is not solved yet. `score/correct_rate` is acceptance, as
    sampled, before any filter. For the tasks of a mix see `tasks.of_scoring`.
    """
    tally = ScoringTally()
    for group in groups:
        tally.add(group)
    return tally.metrics(before)


def solved(groups: Sequence[Group]) -> dict[str, bool]:
    """By prompt id: whether a candidate of the prompt is right. An unscored one is not."""
    return {group.prompt.id: any(score.correct for _, score in judged_of(group)) for group in groups}


def of_selection(
    kept: Sequence[tuple[Candidate, Score]], *, sampled_candidates: int, sampled_tokens: int
) -> dict[str, float]:
    """The quality and the price of what was kept; nothing where nothing was.

    `select/kept_precision` is the share of right ones among the kept with a verdict: below 1 for rules that do not ask
    for it. `select/tokens_per_kept` and `select/candidates_per_kept` are what was sampled per kept candidate (the
    inverse of acceptance after all filters), `select/kept_tokens_mean` the mean length in completion tokens. For the
    other keys see `collapse.of_duplication`.
    """
    tally = SelectionTally()
    for candidate, score in sorted(kept, key=lambda row: row[0].prompt_id):
        tally.add(candidate, score)
    return tally.metrics(sampled_candidates=sampled_candidates, sampled_tokens=sampled_tokens)


def outcomes(groups: Sequence[Group], *, greedy: bool) -> list[Outcome]:
    """One Outcome per prompt, in order: of its one greedy answer, or of its sampled answers and the votes in them. What
    could not be scored is left out of the counts."""
    found = []
    for group in groups:
        scored = [score for _, score in judged_of(group)]
        right = [bool(score.correct) for score in scored]
        if greedy:
            of_it = figures.of_score(next(iter(group.scores), None))
            found.append(Outcome(group.prompt.id, right[0] if right else None, 0, 0, **of_it))
        else:
            votes, of_all = coverage.votes(scored), figures.of_scores(group.scores)
            found.append(Outcome(group.prompt.id, None, len(right), sum(right), *votes, **of_all))
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
        of_k = {f"evaluate/{set_name}/sampled_pass@{k}": passing}
        if votes_cast:
            of_k[f"evaluate/{set_name}/maj@{k}"] = majority_values(found, k)
        for key, values in of_k.items():
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
