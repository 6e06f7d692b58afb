"""Intervals of values that may be any number: a reward model's scores, grades of a judge.

`statistics` is about values in [0, 1]. Others are moved there and the bounds moved back: from the least value seen, or
0, to the greatest, or 1. The bootstrap gives the same bounds on any scale; only where nearly all values are the same,
and a score interval takes its place, do the ends of the scale count, as what further values are expected to keep to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from selftrain.evaluation.statistics import Interval, interval_of_mean, paired_difference, unpaired_difference


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the number line, `low` to `low + width`, that holds [0, 1]."""

    low: float
    width: float

    def scaled(self, value: float) -> float:
        """Where a value within it lies, from 0 to 1."""
        return min(1.0, max(0.0, (value - self.low) / self.width))

    def level(self, interval: Interval) -> Interval:
        """The interval of a mean of scaled values, on the scale that they came from."""
        return self._moved(interval, self.low)

    def difference(self, interval: Interval) -> Interval:
        """The interval of a difference of such means, on the scale that they came from."""
        return self._moved(interval, 0.0)

    def _moved(self, interval: Interval, by: float) -> Interval:
        estimate, low, high = (by + self.width * one for one in (interval.estimate, interval.low, interval.high))
        return replace(interval, estimate=estimate, low=low, high=high)


UNIT = Span(0.0, 1.0)
"""Of values that are in [0, 1] as they are."""


def span_of(*sides: Iterable[float]) -> Span:
    """The span of all values of all sides. For values in [0, 1] it is that, and nothing is moved."""
    values = [0.0, 1.0, *(value for side in sides for value in side)]
    return Span(min(values), max(values) - min(values))


def mean_of_values(values: Iterable[float], **settings: Any) -> Interval:
    """`interval_of_mean` for finite values of any size; `settings` as there. Raises DataError where there is none."""
    values = list(values)
    span = span_of(values)
    return span.level(interval_of_mean(map(span.scaled, values), **settings))


def difference_of_values(first: Mapping[str, float], second: Mapping[str, float], **settings: Any) -> Interval:
    """`paired_difference` for finite values of any size; `settings` as there. Raises DataError as it does."""
    span = span_of(first.values(), second.values())
    sides = ({prompt: span.scaled(value) for prompt, value in side.items()} for side in (first, second))
    return span.difference(paired_difference(*sides, **settings))


def unpaired_difference_of_values(first: Iterable[float], second: Iterable[float], **settings: Any) -> Interval:
    """`unpaired_difference` for finite values of any size; `settings` as there. Raises DataError as it does."""
    one, other = list(first), list(second)
    span = span_of(one, other)
    return span.difference(unpaired_difference(map(span.scaled, one), map(span.scaled, other), **settings))
