"""Runs against each other: at the headline round of each, on the prompts that both were asked, pair by pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from selftrain.errors import DataError
from selftrain.evaluation.figures import CORRECT, Values
from selftrain.evaluation.spans import difference_of_values, unpaired_difference_of_values
from selftrain.evaluation.statistics import Interval
from selftrain.evaluation.wording import change, change_bounds, level, named, unit

Judged: TypeAlias = Mapping[str, tuple[str, bool]]
"""The scored answers of one side: (answer, whether it was right) by prompt id."""


@dataclass(frozen=True, slots=True)
class Side:
    """An arm of a run at its headline round: a figure of greedy answers by prompt id (of `pass@1`: 1 or 0, the unscored
    left out)."""

    name: str
    round: int
    values: Values
    figure: str = CORRECT


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better the side `name` is than the side `over`, whose levels of `figure` are `after` and `before`: over
    `common` prompts, or, unpaired, each over its own. `line` says it in words."""

    over: str
    name: str
    before: float
    after: float
    interval: Interval
    common: int
    line: str
    figure: str = CORRECT


def against_first(
    sides: Sequence[Side],
    set_name: str,
    *,
    unpaired: bool = False,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[Difference, ...]:
    """Each side but the first, against the first. With `unpaired`, sides without a common prompt are compared as two
    draws of prompts.

    Raises DataError where two sides have no prompt in common and `unpaired` is not set.
    """
    first, found = sides[0], []
    for other in sides[1:]:
        common = first.values.keys() & other.values.keys()
        if common:
            interval = difference_of_values(
                other.values,
                first.values,
                confidence=confidence,
                resamples=resamples,
                seed=seed,
                unmatched="leave_out",
            )
        elif unpaired:
            interval = unpaired_difference_of_values(
                other.values.values(), first.values.values(), confidence=confidence, resamples=resamples, seed=seed
            )
        else:
            raise DataError(
                f"{first.name} and {other.name} have no {set_name} prompt in common (of {len(first.values)} and "
                f"{len(other.values)}), so nothing pairs them: choose another --set, or compare them with --unpaired, "
                "which takes their prompts for two draws of the same kind and needs many more of them"
            )
        before, after = (_mean(one.values, common or one.values.keys()) for one in (first, other))
        line = _sentence(first, other, set_name, before, after, interval)
        found.append(Difference(first.name, other.name, before, after, interval, len(common), line, first.figure))
    return tuple(found)


def judged_otherwise(first: Judged, second: Judged) -> tuple[str, ...]:
    """The prompts, by id, of which the same answer is right on one side and wrong on the other: what judged them, the
    reference or the scorer, cannot be the same."""
    return tuple(
        prompt
        for prompt in sorted(first.keys() & second.keys())
        if first[prompt][0] == second[prompt][0] and first[prompt][1] != second[prompt][1]
    )


def warnings(
    first: str, second: str, set_name: str, *, scoring: Sequence[str], same_set: bool, judged_otherwise: Sequence[str]
) -> list[str]:
    """Why a difference between two runs may be one of references or scorers, in words. `scoring` says what of it
    differs, one line each; `same_set` whether the sets have the same prompts and references."""
    lines = []
    if scoring:
        lines.append(f"{second} is scored otherwise than {first}: {'; '.join(scoring)}")
    if not same_set:
        lines.append(
            f"the {set_name} sets of {first} and {second} are not the same: prompts are paired by their text, and "
            "their references may differ"
        )
    if judged_otherwise:
        lines.append(
            f"the same answer to the same prompt is right in one and wrong in the other for {len(judged_otherwise)} "
            f"prompts, such as {judged_otherwise[0]}: their references or scorers do differ"
        )
    return lines


def _mean(values: Values, prompts: Iterable[str]) -> float:
    taken = [values[prompt] for prompt in prompts]
    return sum(taken) / len(taken)


def _sentence(first: Side, other: Side, set_name: str, before: float, after: float, interval: Interval) -> str:
    figure = first.figure
    method = interval.method if "bootstrap" in interval.method else f"{interval.method} interval"
    kind = "" if interval.method == "unpaired" else "common "
    text = (
        f"{other.name} against {first.name}: {set_name} {named(figure)} {level(figure, after)} against "
        f"{level(figure, before)}, {change(figure, interval.estimate)}{unit(figure)} {change_bounds(figure, interval)} "
        f"({100 * interval.confidence:g} %, {method} over {interval.num_prompts} {kind}prompts)"
    )
    if interval.method == "unpaired":
        text += "; the two were asked different prompts, so the bounds hold how prompts differ as well"
    if interval.left_out:
        text += f"; left out, as only one of the two has or could score them: {interval.left_out}"
    return text if interval.low > 0 or interval.high < 0 else f"{text}; this includes no difference at all"
