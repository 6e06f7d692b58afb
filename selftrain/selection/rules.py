"""The rules of `select.rule`: who leaves, who stays, and why, in words that show the numbers.

A rule that ranks the whole round (`OF_THE_ROUND`) is a step over the round, which holds on to some numbers of each
candidate; any other is given the candidates of one prompt. Values are the shaped ones.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean, pstdev
from typing import Protocol

import numpy as np

from selftrain.config import SelectConfig, one
from selftrain.records import Group, seed_from
from selftrain.selection import Entry
from selftrain.selection.shaping import values_of
from selftrain.selection.steps import Row, best_first, draw_key, value_of

OF_THE_ROUND = ("random", "top_fraction")
# Of the spread of a prompt's values: 0.3 is not above 0.2 + 0.1, which is a little over 0.3 in binary, or under it.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a rule says, by candidate id: why some leave, and why the others stay."""

    leave: Mapping[str, str]
    stay: Mapping[str, str]


Rule = Callable[[Group, Sequence[Row]], Ruling]
"""Given the prompt with all its candidates as sampled and scored, and those that are left."""


class RoundRule(Protocol):
    """A rule over the whole round: a `RoundStep` that can say why the others stay, once all entries are read."""

    def leaving(self, entries: Iterator[Entry]) -> Iterator[tuple[int, str]]:
        """As `RoundStep.leaving`."""

    def stays(self, value: float) -> str:
        """Why a candidate of that value stays."""


def rule(config: SelectConfig) -> Rule:
    """The rule that the config names, where it is one over the candidates of a prompt."""
    if config.rule == "threshold":
        return from_threshold(one(config.threshold))
    if config.rule == "above_mean":
        return above_mean(one(config.above_mean))
    if config.rule == "all":
        return everyone
    return among_best(1 if config.rule == "best_of_n" else one(config.top_k))


def round_rule(config: SelectConfig, *, seed: int) -> RoundRule | None:
    """The rule that the config names, where it is one of `OF_THE_ROUND`."""
    if config.rule == "top_fraction":
        assert config.top_fraction is not None
        return TopFraction(one(config.top_fraction), seed=seed)
    if config.rule == "random":
        assert config.count is not None
        return Drawn(one(config.count), seed=seed)
    return None


def everyone(group: Group, rows: Sequence[Row]) -> Ruling:
    """All stay."""
    return Ruling({}, {candidate.id: f"value {value_of(score)}; all are kept" for candidate, score in rows})


def from_threshold(threshold: float) -> Rule:
    """Those with a value of at least the threshold stay."""

    def judge(group: Group, rows: Sequence[Row]) -> Ruling:
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

    def judge(group: Group, rows: Sequence[Row]) -> Ruling:
        best = {row[0].id for row in best_first(rows)[:number]}
        return _best_stay(rows, best, among)

    return judge


class TopFraction:
    """Of the n candidates left in the round, the ceil(share * n) best stay, whatever their prompts: one at least.

    RAFT (Dong et al. 2023, arXiv 2304.06767) with its ranking taken over the round instead of within each prompt, which
    is `best_of_n`. Values must be comparable between prompts. Of equal values those stay that are first of their prompt
    (its first with that value, then its second ones, and so on), so that a yes-or-no score does not fill the share with
    all that the first prompts got right; what is left of a tie is drawn by (seed, prompt id). So exactly that many
    stay, whatever the order of the input.
    """

    def __init__(self, share: float, *, seed: int) -> None:
        self._share, self._seed = share, seed
        self._among = ""

    def leaving(self, entries: Iterator[Entry]) -> Iterator[tuple[int, str]]:
        """All but the best, with the value. Holds three numbers of each candidate."""
        values, ranks, ties = array("d"), array("q"), array("q")
        prompt, seen, tie = None, Counter[float](), 0
        for entry in entries:
            if entry.prompt_id != prompt:
                prompt, seen, tie = entry.prompt_id, Counter(), seed_from(self._seed, "tie", entry.prompt_id)
            values.append(entry.value)
            ranks.append(seen[entry.value])
            ties.append(tie)
            seen[entry.value] += 1
        # From its digits: 0.1 * 30 is a little over 3 in binary, and its ceiling 4.
        number = math.ceil(Fraction(str(self._share)) * len(values))
        self._among = f"among the best {number} of the {len(values)} left (top_fraction {self._share:g})"
        order = np.lexsort((np.array(ties), np.array(ranks), -np.array(values)))
        for left in np.sort(order[number:]).tolist():
            yield left, f"value {values[left]} not {self._among}"

    def stays(self, value: float) -> str:
        """With the value."""
        return f"value {value} is {self._among}"


class Drawn:
    """`count` of the candidates of all prompts together stay, whatever their values: those first in the order that
    comes from (seed, candidate id)."""

    def __init__(self, count: int, *, seed: int) -> None:
        self._count, self._seed = count, seed

    def leaving(self, entries: Iterator[Entry]) -> Iterator[tuple[int, str]]:
        """All but those drawn. Holds one number of each candidate."""
        keys = array("q", (draw_key(entry.candidate_id, self._seed) for entry in entries))
        for left in np.sort(np.argsort(np.array(keys), kind="stable")[self._count :]).tolist():
            yield left, f"not among the {self._count} drawn"

    def stays(self, value: float) -> str:
        """The same for all."""
        return "drawn at random, whatever its value"


def above_mean(deviations: float) -> Rule:
    """Those stay whose value v is above mean + deviations * std of their prompt's values.

    Group-relative, as the advantage of GRPO (Shao et al. 2024, arXiv 2402.03300) is. The mean and the standard
    deviation (ddof 0) are over the prompt's candidates as they were sampled and scored, those among them that leave at
    other steps: a prompt's difficulty does not depend on how long its answers were. Unscored candidates do not count.
    Where all values are equal nobody is above the others, and nobody stays.
    """

    def judge(group: Group, rows: Sequence[Row]) -> Ruling:
        if not rows:
            return Ruling({}, {})
        of_prompt = values_of(group.scores)
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
