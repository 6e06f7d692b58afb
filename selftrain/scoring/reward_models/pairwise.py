"""The value of an answer from which of two is better: how often it would win against the others to its prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations

from selftrain.records import Prompt
from selftrain.scoring.reward_models.members import Member, sigmoid

ALONE = 0.5


def win_rates(member: Member, block: Sequence[tuple[Prompt, Sequence[str]]]) -> list[float | str]:
    """For each answer of each prompt, in order, the mean over the other distinct answers of the probability that it is
    the better one; equal answers share it, and where there is no other one it is 0.5.

    Every pair is read in both orders, and the probability is the mean of both, so that a model's liking for the first
    place cancels: p(i over j) = (s(i, j) + 1 - s(j, i)) / 2, where s is the sigmoid of the model's output. A pair that
    could not be read, as where one of them is too long, counts for neither; an answer without any other pair has the
    reason instead.
    """
    distinct = [list(dict.fromkeys(answers)) for _, answers in block]
    pairs = [
        (number, first, second)
        for number, answers in enumerate(distinct)
        for first, second in permutations(range(len(answers)), 2)
    ]
    read = member.of_pairs(
        [(block[number][0], distinct[number][first], distinct[number][second]) for number, first, second in pairs]
    )
    odds = dict(zip(pairs, read, strict=True))
    rates = [
        [_rate(odds, number, one, len(answers)) for one in range(len(answers))]
        for number, answers in enumerate(distinct)
    ]
    return [
        rates[number][distinct[number].index(answer)] for number, (_, answers) in enumerate(block) for answer in answers
    ]


def _rate(odds: dict[tuple[int, int, int], float | str], number: int, one: int, count: int) -> float | str:
    wins, why = list[float](), None
    for other in range(count):
        if other == one:
            continue
        ahead, behind = odds[number, one, other], odds[number, other, one]
        if isinstance(ahead, str) or isinstance(behind, str):
            why = why or (ahead if isinstance(ahead, str) else str(behind))
            continue
        wins.append((sigmoid(ahead) + 1.0 - sigmoid(behind)) / 2.0)
    return math.fsum(wins) / len(wins) if wins else why or ALONE
