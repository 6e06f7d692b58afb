from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from selftrain.training.examples import ExampleOrder

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=200)


def order(lengths: list[int], batch_size: int, strategy: str = "group_by_length", seed: int = 3) -> ExampleOrder:
    return ExampleOrder(lengths, batch_size, strategy, seed)


@given(LENGTHS, st.integers(1, 20), st.sampled_from(["group_by_length", "random", "sequential"]), st.integers(0, 9))
def test_an_epoch_visits_every_example_once(lengths: list[int], batch_size: int, strategy: str, epoch: int) -> None:
    examples = order(lengths, batch_size, strategy)
    examples.epoch = epoch
    assert sorted(examples) == list(range(len(lengths)))


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    lengths = [1 + 7 * n % 50 for n in range(100)]
    first, second = order(lengths, 8), order(lengths, 8)
    list(first)
    first.epoch = second.epoch = 3
    assert list(first) == list(second)
    second.epoch = 4
    assert list(first) != list(second)
    assert list(first) != list(order(lengths, 8, seed=4))


def test_batches_hold_examples_of_like_length_and_do_not_come_sorted() -> None:
    lengths = list(range(1, 65))
    indices = list(order(lengths, 8))
    batches = [[lengths[index] for index in indices[begin : begin + 8]] for begin in range(0, 64, 8)]
    assert all(max(batch) - min(batch) == 7 for batch in batches)
    longest = [max(batch) for batch in batches]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)
