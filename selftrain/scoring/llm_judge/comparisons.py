"""Candidates of a prompt against each other: who meets whom, and what that makes of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selftrain.records import digest


def pairs_of(ids: Sequence[str], opponents: int | None) -> list[tuple[str, str]]:
    """Who meets whom, each pair once: all of them, or, in a ring in the order of the ids' hashes, each the next
    `opponents`. So the pairs depend on the ids alone, and everybody meets about as many."""
    ring = sorted(ids, key=lambda one: (digest(one), one))
    count = len(ring)
    if opponents is None or 2 * opponents >= count - 1:
        return [(ring[i], ring[j]) for i in range(count) for j in range(i + 1, count)]
    return [(one, ring[(i + step) % count]) for i, one in enumerate(ring) for step in range(1, opponents + 1)]


def of_both_orders(first: float, second: float) -> float:
    """What the first of a pair won: `first` is its result where it stood as A, `second` where it stood as B, each 1 for
    a win, 0.5 for a tie, 0. A judge that goes by the order gives half."""
    return (first + second) / 2


def win_rates(results: Mapping[tuple[str, str], float | None]) -> dict[str, tuple[float, int, int]]:
    """By id: the mean over its pairs that have a result, how many those are, and how many it was in. Without any
    result it is not there."""
    won: dict[str, list[float]] = {}
    met: dict[str, int] = {}
    for (one, other), result in results.items():
        for name, value in ((one, result), (other, None if result is None else 1.0 - result)):
            met[name] = met.get(name, 0) + 1
            if value is not None:
                won.setdefault(name, []).append(value)
    return {name: (sum(values) / len(values), len(values), met[name]) for name, values in won.items()}
