"""Three numbers from 10 to 99, to be sorted. Validation and test are the same for every seed; training draws from the
rest of the pool, in which no three numbers of theirs occur in any order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

POOL_SEED = 20_261
SIZES = {"validate": 100, "test": 200}


def _pool() -> list[tuple[int, int, int]]:
    """Every set of three numbers once, in a fixed random order within and among them."""
    generator = random.Random(POOL_SEED)
    pool = generator.sample(list(itertools.combinations(range(10, 100), 3)), 5_000)
    return [tuple(generator.sample(numbers, 3)) for numbers in pool]  # type: ignore[misc]


def _row(numbers: tuple[int, int, int]) -> dict[str, object]:
    smallest_first = sorted(numbers)
    shown = " ".join(map(str, numbers))
    return {
        "numbers": shown,
        "reference": " ".join(map(str, smallest_first)),
        "completion": " " + " ".join(map(str, smallest_first)),
        "identity": smallest_first,
    }


def validate() -> Iterator[dict[str, object]]:
    """100 problems to decide with."""
    yield from map(_row, _pool()[: SIZES["validate"]])


def test() -> Iterator[dict[str, object]]:
    """200 problems to report on."""
    yield from map(_row, _pool()[SIZES["validate"] :][: SIZES["test"]])


def train(size: int = 600, start: int = 0) -> Iterator[dict[str, object]]:
    """`size` problems to learn from, after the first `start` of those that are not held out."""
    yield from map(_row, _pool()[sum(SIZES.values()) + start :][:size])
