"""Two-digit addition: training, validation and test problems that never overlap.

All 4,095 unordered pairs of 10..99 are dealt once, by a fixed shuffle, into three pools; `a + b` and `b + a` are one
problem. `seed` only chooses which problems of a pool are drawn, in which order and which way round, so that the
three sets stay disjoint whatever seeds they are called with. The pairs shown in the recipe's worked examples are in
no pool.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations_with_replacement

SHOWN = {(28, 57), (64, 83)}
POOLS = {"test": (0, 500), "validate": (500, 800), "train": (800, None)}


def train(seed: int = 0, size: int = 3000) -> Iterator[dict[str, object]]:
    """Up to 3,293 problems to learn from."""
    return _draw("train", seed, size)


def validate(seed: int = 0, size: int = 100) -> Iterator[dict[str, object]]:
    """Up to 300 held-out problems that decide which round is best."""
    return _draw("validate", seed, size)


def test(seed: int = 0, size: int = 200) -> Iterator[dict[str, object]]:  # noqa: PT028 - a set, not a test
    """Up to 500 held-out problems that are only reported."""
    return _draw("test", seed, size)


def _draw(pool: str, seed: int, size: int) -> Iterator[dict[str, object]]:
    pairs = [pair for pair in combinations_with_replacement(range(10, 100), 2) if pair not in SHOWN]
    random.Random("selftrain quickstart, as measured").shuffle(pairs)
    pairs = pairs[slice(*POOLS[pool])]
    if not 0 < size <= len(pairs):
        raise ValueError(f"size of {pool} is {size}; there are 1 to {len(pairs)} problems to draw")
    rng = random.Random(f"{pool} {seed}")
    for low, high in rng.sample(pairs, size):
        a, b = (low, high) if rng.random() < 0.5 else (high, low)
        # The completion starts with the space that format text needs between "=" and the answer.
        yield {"a": a, "b": b, "reference": str(a + b), "completion": f" {a + b}", "identity": f"{low}+{high}"}
