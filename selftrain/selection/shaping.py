"""Shaped values: what rules see instead of the values that scorers gave (`select.kl_beta`, `select.normalise`).

Rules, the tie-breaks of duplicates and the caps see the shaped value; filters, survivors and files have the raw one.
Rule `random` looks at no value, so nothing is shaped for it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from selftrain.config import SelectConfig, one
from selftrain.errors import PhaseError
from selftrain.records import Candidate, Group, Score

OF_THE_ROUND = ("global_minmax", "zscore")
ALL_EQUAL = 0.5
"""What `global_minmax` and `per_prompt_minmax` make of values that are all equal."""

Shape = Callable[[Group], Group]


def shapes(config: SelectConfig) -> bool:
    """Whether rules see anything but the raw values. `config` resolved for one round."""
    return config.rule != "random" and (config.normalise != "none" or one(config.kl_beta) > 0)


def over(config: SelectConfig, groups: Iterable[Group]) -> Shape:
    """What gives a group of the round its shaped values; unscored candidates stay unscored.

    First v - kl_beta * log(p / p0), as `penalised` says; then, of these values v over the scored candidates,

        global_minmax      (v - min) / (max - min) over the round, 0.5 where all are equal
        per_prompt_minmax  the same over the prompt
        zscore             (v - mean) / std (ddof 0) over the round, 0 where all are equal

    `groups` are read once, for what is taken over the round, and otherwise not at all. All candidates that were scored
    count, those among them that leave at a step of selection: what a value becomes does not depend on the filters.
    """
    beta = one(config.kl_beta)

    def before(group: Group) -> Group:
        return penalised(group, beta) if beta > 0 else group

    if config.normalise == "none":
        return before
    if config.normalise == "per_prompt_minmax":
        return lambda group: _within(before(group))
    values = array("d")
    for group in groups:
        values.extend(values_of(before(group).scores))
    move = _between(values) if config.normalise == "global_minmax" else _standard(values)
    return lambda group: _mapped(before(group), move)


def penalised(group: Group, beta: float) -> Group:
    """The group with each value v replaced by v - beta * (log p - log p0), for candidates ranked as RAFT does.

    log p is the log-probability of the whole completion under the policy that wrote it (the sum of `logprobs`, at
    temperature 1), log p0 that under the policy of round 0 (`base_logprob`), in nats: RAFT (Dong et al. 2023, arXiv
    2304.06767), equation 5. Raises PhaseError for a candidate that lacks one of them.
    """
    scores = tuple(
        score if score.value is None else replace(score, value=score.value - beta * _log_ratio(candidate))
        for candidate, score in zip(group.candidates, group.scores, strict=True)
    )
    return replace(group, scores=scores)


def values_of(scores: Iterable[Score]) -> list[float]:
    """The values that there are."""
    return [score.value for score in scores if score.value is not None]


def _log_ratio(candidate: Candidate) -> float:
    if candidate.base_logprob is None or len(candidate.logprobs) != len(candidate.completion_token_ids):
        lacks = "under the policy of round 0" if candidate.base_logprob is None else "of its tokens"
        raise PhaseError(
            f"select.kl_beta: candidate {candidate.id} has no log-probability {lacks}; it takes candidates that this "
            "run's own policy wrote, sampled with the same kl_beta above 0. Sample them again in a run of another name "
            "(name=NEW), or set select.kl_beta: 0"
        )
    return math.fsum(candidate.logprobs) - candidate.base_logprob


def _between(values: Sequence[float]) -> Callable[[float], float]:
    if not values:
        return lambda value: value
    low, high = min(values), max(values)
    if low == high:
        return lambda value: ALL_EQUAL
    return lambda value: (value - low) / (high - low)


def _standard(values: Sequence[float]) -> Callable[[float], float]:
    if not values:
        return lambda value: value
    # Sums are exact, so that the order of the candidates moves no bit.
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    if min(values) == max(values) or not deviation:
        return lambda value: 0.0
    return lambda value: (value - mean) / deviation


def _within(group: Group) -> Group:
    return _mapped(group, _between(values_of(group.scores)))


def _mapped(group: Group, move: Callable[[float], float]) -> Group:
    scores = (score if score.value is None else replace(score, value=move(score.value)) for score in group.scores)
    return replace(group, scores=tuple(scores))
