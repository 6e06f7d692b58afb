"""Which candidates of a prompt make a preference pair.

A chosen one is a survivor; a rejected one is any candidate of the same prompt that ended as survivors may and was
scored. The best is paired with the worst, the second best with the second worst, and so on, for as long as the value of
the first is greater: equal values say nothing about which is better.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Literal

from selftrain.exporting.rows import Answered, Example, Pair
from selftrain.records import Candidate, FinishReason, Score

Kind = Literal["best_worst", "correct_incorrect"]


def pairs(
    answered: Answered,
    kind: Kind,
    *,
    limit: int,
    finish_reasons: Collection[FinishReason],
    as_example: Callable[[Candidate, Score], Example],
    is_barred: Callable[[Candidate], bool] = lambda candidate: False,
) -> Iterator[Pair]:
    """At most `limit` pairs of one prompt, the widest apart first.

    `correct_incorrect` takes right candidates and wrong ones alone. Texts that are equal but for white space around
    them never make a pair and are used once; an empty one is nobody's lesson and is not rejected, nor is one that
    `is_barred` from the data set. Ties go by wave and index.
    """
    rows = sorted(zip(answered.group.candidates, answered.group.scores, strict=True), key=_place)
    scored = [(candidate, score) for candidate, score in rows if score.value is not None]
    kept = [row for row in scored if row[0].id in answered.kept and (kind == "best_worst" or row[1].correct is True)]
    others = [
        (candidate, score)
        for candidate, score in scored
        if candidate.finish_reason in finish_reasons
        and candidate.text.strip()
        and (kind == "best_worst" or score.correct is False)
    ]
    best = [as_example(*row) for row in sorted(kept, key=lambda row: -_value(row[1]))]
    # Barred ones are asked for one by one: finding out takes time, and most are never come to.
    worst = (as_example(*row) for row in sorted(others, key=lambda row: _value(row[1])) if not is_barred(row[0]))
    used: set[str] = set()
    for chosen in best:
        if len(used) == 2 * limit:
            return
        if chosen.completion.strip() in used:
            continue
        used.add(chosen.completion.strip())
        rejected = next((one for one in worst if one.completion.strip() not in used), None)
        if rejected is None or chosen.value is None or rejected.value is None or chosen.value <= rejected.value:
            return
        used.add(rejected.completion.strip())
        yield Pair(chosen, rejected)


def _place(row: tuple[Candidate, Score]) -> tuple[int, int, str]:
    return row[0].wave, row[0].index, row[0].id


def _value(score: Score) -> float:
    assert score.value is not None
    return score.value
