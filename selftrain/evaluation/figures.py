"""The figures that a set of held-out prompts has, each a number per prompt: `pass@1`, `value`, `part/<scorer>`.

`pass@1` is the correctness of greedy answers, 0 or 1. `value` is what the scorers gave, where they grade: where it is
that 0 or 1 again for every answer, it is no figure of its own. Where several scorers judge, each is a part; one that
was not asked about an answer (a gate had decided) has no number there, and its mean is over the other prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, TypeAlias

from selftrain.config import Config
from selftrain.evaluation.metrics import best_value_of_k, greedy_values
from selftrain.evaluation.spans import mean_of_values
from selftrain.records import Group, Outcome, Score

CORRECT = "pass@1"
VALUE = "value"
PART = "part/"

Values: TypeAlias = Mapping[str, float]
"""A figure of single prompts, by prompt id. Those without one are left out."""


def decided_by(config: Config) -> str:
    """The figure that validation decides by."""
    return VALUE if config.evaluate.decide_by == "value" else CORRECT


def per_prompt(outcomes: Iterable[Outcome], figure: str) -> dict[str, float]:
    """The figure by prompt id; empty for one that these outcomes do not have."""
    if figure == CORRECT:
        return greedy_values(tuple(outcomes))
    if figure == VALUE:
        return {one.prompt_id: one.value for one in outcomes if one.value is not None}
    name = figure.removeprefix(PART)
    return {one.prompt_id: value for one in outcomes if (value := one.parts.get(name)) is not None}


def beside(*sets: Sequence[Outcome]) -> list[str]:
    """The figures beside pass@1 of greedy answers, of any of the sets: value, then parts in the order of scorers."""
    outcomes = [one for of_set in sets for one in of_set]
    values = {one.value for one in outcomes if one.value is not None and one.value != one.greedy}
    parts = dict.fromkeys(name for one in outcomes if len(one.parts) > 1 for name in one.parts)
    return [VALUE] * bool(values) + [f"{PART}{name}" for name in parts]


def told(*sides: Sequence[Outcome]) -> list[str]:
    """Those of `beside` that a person is told of: without parts that repeat pass@1 or value on every side."""
    return [one for one in beside(*sides) if one == VALUE or tells_more(one, *sides)]


def tells_more(figure: str, *sides: Sequence[Outcome]) -> bool:
    """Whether a part says anything that pass@1 and value do not, on any side."""
    return not any(
        all(per_prompt(side, figure) == per_prompt(side, other) for side in sides)
        for other in (CORRECT, VALUE)
        if other != figure
    )


def keys_of(figures: Iterable[str]) -> dict[str, str]:
    """How metrics name each figure: a part that is a function of the user's by the function's name alone, unless two
    have it."""
    figures = list(figures)
    short = {one: PART + one.rpartition(":")[2] if one.startswith(PART) and ":" in one else one for one in figures}
    counts = Counter(short.values())
    return {one: name if counts[name] == 1 else one for one, name in short.items()}


def of_score(score: Score | None) -> dict[str, Any]:
    """`value` and `parts` of an Outcome for one answer; None for an answer that is not there."""
    return {} if score is None else {"value": score.value, "parts": dict(score.parts)}


def of_scores(scores: Sequence[Score]) -> dict[str, Any]:
    """The same of several answers: the means over those that have a value, or that part."""
    values = [one.value for one in scores if one.value is not None]
    parts: dict[str, float | None] = {}
    for name in dict.fromkeys(name for one in scores for name in one.parts):
        known = [value for one in scores if (value := one.parts.get(name)) is not None]
        parts[name] = fmean(known) if known else None
    return {"value": fmean(values) if values else None, "parts": parts}


def of_greedy(set_name: str, outcomes: Sequence[Outcome], settings: Mapping[str, Any]) -> dict[str, float]:
    """`evaluate/<set>/value` and `evaluate/<set>/part/<name>` of greedy answers, with `..._low` and `..._high`, where
    there are such figures; of a part also `..._left_out`, the prompts without it. `settings` are those of
    `interval_of_mean`."""
    metrics: dict[str, float] = {}
    for figure, key in keys_of(beside(outcomes)).items():
        values = per_prompt(outcomes, figure)
        metrics |= _with_bounds(f"evaluate/{set_name}/{key}", values.values(), settings)
        if figure != VALUE:
            metrics[f"evaluate/{set_name}/{key}_left_out"] = float(len(outcomes) - len(values))
    return metrics


def of_sampled(
    set_name: str, groups: Sequence[Group], ks: Sequence[int], settings: Mapping[str, Any]
) -> dict[str, float]:
    """Where sampled answers are graded: `evaluate/<set>/sampled_value`, their mean, and
    `evaluate/<set>/sampled_value_best@k`, the greatest value of k of them (`metrics.best_value_of_k`), with bounds;
    over the prompts with any, or k, scored answers."""
    scored = [[score for score in group.scores if score.value is not None] for group in groups]
    if all(score.value == score.correct for scores in scored for score in scores):
        return {}
    values = [[score.value for score in scores if score.value is not None] for scores in scored if scores]
    metrics = _with_bounds(f"evaluate/{set_name}/sampled_value", [fmean(row) for row in values], settings)
    for k in ks:
        best = [best_value_of_k(row, k) for row in values if len(row) >= k]
        metrics |= _with_bounds(f"evaluate/{set_name}/sampled_value_best@{k}", best, settings)
    return metrics


def _with_bounds(key: str, values: Iterable[float], settings: Mapping[str, Any]) -> dict[str, float]:
    values = list(values)
    if not values:
        return {}
    interval = mean_of_values(values, **settings)
    return {key: interval.estimate, f"{key}_low": interval.low, f"{key}_high": interval.high}
