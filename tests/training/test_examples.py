from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from selftrain.records import Survivor
from selftrain.training.examples import ExampleOrder, to_dataset, without_fillers

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


@given(LENGTHS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
def test_ranks_share_the_batches_of_one_process_and_fill_only_the_last(
    lengths: list[int], ranks: int, micro: int, accumulation: int, epoch: int
) -> None:
    batch_size = ranks * micro * accumulation
    alone = order(lengths, batch_size)
    shared = ExampleOrder(lengths, batch_size, "group_by_length", 3, share=ranks * micro)
    alone.epoch = shared.epoch = epoch
    indices, filled = list(alone), list(shared)
    assert len(filled) == len(shared)
    # Micro-batches go round the ranks, as Accelerate deals them out.
    chunks = [filled[begin : begin + micro] for begin in range(0, len(filled), micro)]
    assert len(chunks) % ranks == 0, "every rank has as many"
    per_step = ranks * accumulation
    for step, begin in enumerate(range(0, len(chunks), per_step)):
        of_step = [index for chunk in chunks[begin : begin + per_step] for index in chunk if index < len(lengths)]
        assert of_step == indices[step * batch_size : (step + 1) * batch_size]
    assert len(filled) - len(indices) < ranks * micro


def test_a_filler_has_no_label_and_is_dropped_where_there_is_an_example() -> None:
    survivors = [Survivor(f"c{n}", "p", 1, (n, 2, 3), (False, True, True), 1.0, "test", "", "") for n in range(3)]
    assert len(to_dataset(survivors)) == 3
    rows = list(to_dataset(survivors, filler=True))
    assert rows[3] == {"input_ids": [0, 2], "labels": [-100, -100], "weight": 0.0}
    assert without_fillers([rows[1], rows[3], rows[3]]) == [rows[1]]
    assert without_fillers([rows[3], rows[3]]) == [rows[3]]
