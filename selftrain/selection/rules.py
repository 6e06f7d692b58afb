"""The rules of `select.rule`: who leaves, who stays, and why, in words that show the numbers.

A rule that ranks the whole round (`OF_THE_ROUND`) is given the candidates of all prompts at once, any other those of
one prompt.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean, pstdev

from selftrain.config import SelectConfig, one
from selftrain.records import Group, seed_from
from selftrain.selection.steps import Row, best_first, drawn_first, value_of

OF_THE_ROUND = ("random", "top_fraction")
# Of the spread of a prompt's values: 0.3 is not above 0.2 + 0.1, which is a little over 0.3 in binary, or under it.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a rule says, by candidate id: why some leave, and why the others stay."""

    leave: Mapping[str, str]
    stay: Mapping[str, str]


Rule = Callable[[Sequence[Row]], Ruling]


def rule(config: SelectConfig, groups: Sequence[Group], *, seed: int) -> Rule:
    """The rule that the config names, for a round whose candidates are `groups` as they were sampled and scored."""
    if config.rule == "threshold":
        return from_threshold(one(config.threshold))
    if config.rule == "above_mean":
        return above_mean(one(config.above_mean), groups)
    if config.rule == "top_fraction":
        assert config.top_fraction is not None
        return top_fraction(one(config.top_fraction), seed=seed)
    if config.rule == "random":
        assert config.count is not None
        return drawn(one(config.count), seed=seed)
    if config.rule == "all":
        return everyone
    return among_best(1 if config.rule == "best_of_n" else one(config.top_k))


def everyone(rows: Sequence[Row]) -> Ruling:
    """All stay."""
    return Ruling({}, {candidate.id: f"value {value_of(score)}; all are kept" for candidate, score in rows})


def from_threshold(threshold: float) -> Rule:
    """Those with a value of at least the threshold stay."""

    def judge(rows: Sequence[Row]) -> Ruling:
        return _ruling(
            rows,
            lambda row: value_of(row[1]) >= threshold,
            leave=lambda row: f"value {value_of(row[1])} under threshold {threshold}",
            stay=lambda row: f"value {value_of(row[1])} reaches threshold {threshold}",
        )

    return judge


def among_best(number: int) -> Rule:
    """The `number` best of the prompt stay; ties go to the first by wave and index."""
    among = "the best of the prompt" if number == 1 else f"among the best {number} of the prompt"

    def judge(rows: Sequence[Row]) -> Ruling:
        best = {row[0].id for row in best_first(rows)[:number]}
        return _best_stay(rows, best, among)

    return judge


def top_fraction(share: float, *, seed: int) -> Rule:
    """Of the n candidates left in the round, the ceil(share * n) best stay, whatever their prompts: one at least.

    RAFT (Dong et al. 2023, arXiv 2304.06767) with its ranking taken over the round instead of within each prompt, which
    is `best_of_n`. Values must be comparable between prompts. Of equal values those stay that are first of their prompt
    (its first with that value, then its second ones, and so on), so that a yes-or-no score does not fill the share with
    all that the first prompts got right; what is left of a tie is drawn by (seed, prompt id). So exactly that many
    stay, whatever the order of the input.
    """

    def judge(rows: Sequence[Row]) -> Ruling:
        # From its digits: 0.1 * 30 is a little over 3 in binary, and its ceiling 4.
        number = math.ceil(Fraction(str(share)) * len(rows))
        seen: Counter[tuple[str, float]] = Counter()
        places: dict[str, tuple[float, int, int, str]] = {}
        for candidate, score in rows:
            value, prompt = value_of(score), candidate.prompt_id
            rank = seen[prompt, value]
            seen[prompt, value] += 1
            places[candidate.id] = -value, rank, seed_from(seed, "tie", prompt), prompt
        best = set(sorted(places, key=places.__getitem__)[:number])
        among = f"among the best {number} of the {len(rows)} left (top_fraction {share:g})"
        return _best_stay(rows, best, among)

    return judge


def above_mean(deviations: float, groups: Sequence[Group]) -> Rule:
    """Those stay whose value v is above mean + deviations * std of their prompt's values.

    Group-relative, as the advantage of GRPO (Shao et al. 2024, arXiv 2402.03300) is. The mean and the standard
    deviation (ddof 0) are over the prompt's candidates as they were sampled and scored, those among them that leave at
    other steps: a prompt's difficulty does not depend on how long its answers were. Unscored candidates do not count.
    Where all values are equal nobody is above the others, and nobody stays.
    """
    values = {group.prompt.id: [score.value for score in group.scores if score.value is not None] for group in groups}

    def judge(rows: Sequence[Row]) -> Ruling:
        if not rows:
            return Ruling({}, {})
        of_prompt = values[rows[0][0].prompt_id]
        low, high = min(of_prompt), max(of_prompt)
        if low == high:
            words = f"all {len(of_prompt)} scored candidates of the prompt have value {high}"
            return Ruling({candidate.id: words for candidate, _ in rows}, {})
        mean, deviation = fmean(of_prompt), pstdev(of_prompt)
        bar = mean + deviations * deviation
        sum_of = f" {'+' if deviations > 0 else '-'} {abs(deviations):g} x {deviation:.4g}" if deviations else ""
        said = f"{bar:.4g} (mean {mean:.4g}{sum_of}, over {len(of_prompt)} candidates of the prompt)"
        return _ruling(
            rows,
            lambda row: value_of(row[1]) - bar > _ROUNDING * (high - low),
            leave=lambda row: f"value {value_of(row[1])} not above {said}",
            stay=lambda row: f"value {value_of(row[1])} is above {said}",
        )

    return judge


def drawn(count: int, *, seed: int) -> Rule:
    """`count` of the candidates of all prompts together stay, whatever their values."""

    def judge(rows: Sequence[Row]) -> Ruling:
        taken = {row[0].id for row in drawn_first(rows, seed=seed)[:count]}
        return _ruling(
            rows,
            lambda row: row[0].id in taken,
            leave=lambda row: f"not among the {count} drawn",
            stay=lambda row: "drawn at random, whatever its value",
        )

    return judge


def _best_stay(rows: Sequence[Row], best: Collection[str], among: str) -> Ruling:
    return _ruling(
        rows,
        lambda row: row[0].id in best,
        leave=lambda row: f"value {value_of(row[1])} not {among}",
        stay=lambda row: f"value {value_of(row[1])} is {among}",
    )


def _ruling(
    rows: Sequence[Row], stays: Callable[[Row], bool], *, leave: Callable[[Row], str], stay: Callable[[Row], str]
) -> Ruling:
    staying = [row for row in rows if stays(row)]
    ids = {row[0].id for row in staying}
    return Ruling(
        {row[0].id: leave(row) for row in rows if row[0].id not in ids}, {row[0].id: stay(row) for row in staying}
    )
