"""What the candidates of a round cover: which prompts are solved, how hard the prompts are, and the fan of pass@k and
maj@k over k."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from selftrain.evaluation.metrics import maj_at_k, pass_at_k
from selftrain.records import Score

LARGEST_K = 1024
"""The fan ends here, however many candidates a prompt has."""
Tally: TypeAlias = tuple[int, int, tuple[int, ...], tuple[int, ...]]


def of_solved(found: Mapping[str, bool], before: Mapping[str, bool]) -> dict[str, float]:
    """Coverage of a round, in which `found` maps each prompt to whether it was solved, after rounds of which `before`
    says the same (RFT's and VinePPO's share of prompts "hit once").

    `prompts_newly_solved` were solved for the first time. `coverage_cumulative` is solved ever / asked ever, this round
    included. `coverage_growth` is how much that rose over the round; it is left out where a prompt was asked for the
    first time, as then what it rises from is a share of other prompts.
    """
    if not found:
        return {}
    new = sum(solved and not before.get(prompt, False) for prompt, solved in found.items())
    asked_before = sum(prompt in before for prompt in found)
    asked_ever = len(before) + len(found) - asked_before
    metrics = {
        "score/prompts": float(len(found)),
        "score/prompts_newly_solved": float(new),
        "score/prompts_newly_solved_rate": new / len(found),
        "score/prompts_asked_before_rate": asked_before / len(found),
        "score/coverage_cumulative": (sum(before.values()) + new) / asked_ever,
    }
    return metrics | ({"score/coverage_growth": new / asked_ever} if asked_before == len(found) else {})


def of_difficulty(counts: Sequence[tuple[int, int]]) -> dict[str, float]:
    """The histogram of difficulty (ReST-EM, Singh et al. 2023, figure 8): from (candidates, right ones) of each prompt,
    the share of prompts with none right, all right, and between, in quarters that hold their upper bound."""
    bins = dict.fromkeys(("0", "0_25", "25_50", "50_75", "75_100", "100"), 0)
    for number, right in counts:
        if right in (0, number):
            bins["0" if right == 0 else "100"] += 1
        else:
            bins[("0_25", "25_50", "50_75", "75_100")[(4 * right - 1) // number]] += 1
    return {f"score/pass_rate/{name}": found / len(counts) for name, found in bins.items()} if counts else {}


def of_fan(groups: Iterable[Sequence[Score]]) -> dict[str, float]:
    """`score/pass@k` and `score/maj@k` for k = 1, 2, 4, ... from the scored candidates of each prompt: the mean over
    the prompts that have k of them. There is no maj@k where nothing was extracted from any candidate."""
    return of_tallies(Counter(tally(scores) for scores in groups))


def tally(scores: Sequence[Score]) -> Tally:
    """Of a prompt's scored candidates: how many, how many right, and the votes for right and for wrong answers."""
    return len(scores), sum(bool(one.correct) for one in scores), *votes(scores)


def of_tallies(tallies: Mapping[Tally, int]) -> dict[str, float]:
    """As `of_fan`, from how many prompts have each tally."""
    largest = min(LARGEST_K, max((number for number, *_ in tallies), default=0))
    votes_cast = any(right or wrong for _, _, right, wrong in tallies)
    metrics: dict[str, float] = {}
    for k in (1 << power for power in range(largest.bit_length())):
        enough = {tally: times for tally, times in tallies.items() if tally[0] >= k}
        num_prompts = sum(enough.values())
        passing = sum(times * pass_at_k(number, correct, k) for (number, correct, _, _), times in enough.items())
        metrics[f"score/pass@{k}"] = passing / num_prompts
        if votes_cast:
            winning = sum(times * maj_at_k(right, wrong, n, k) for (n, _, right, wrong), times in enough.items())
            metrics[f"score/maj@{k}"] = winning / num_prompts
    return metrics


def votes(scores: Iterable[Score]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How often each distinct right and each distinct wrong answer was extracted, most often first.

    An answer is right where a candidate that gave it is: others may have been marked down for more than the answer.
    """
    given: Counter[str] = Counter()
    right: set[str] = set()
    for score in scores:
        if score.answer is not None:
            given[score.answer] += 1
            if score.correct:
                right.add(score.answer)
    counts = [(number, answer in right) for answer, number in given.most_common()]
    return tuple(number for number, good in counts if good), tuple(number for number, good in counts if not good)
