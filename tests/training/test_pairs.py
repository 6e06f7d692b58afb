"""Which right and wrong candidates are paired."""

from __future__ import annotations

import dataclasses

from groups import make_candidate
from hypothesis import given
from hypothesis import strategies as st

from selftrain.records import Candidate, Score
from selftrain.training.pairs import Pairing


def candidate(name: int, *ids: int, prompt: str = "p", **changes: object) -> Candidate:
    made = make_candidate(prompt, name, str(ids))
    return dataclasses.replace(made, completion_token_ids=ids, **changes)  # type: ignore[arg-type]


def paired(*rows: tuple[Candidate, bool | None], per_prompt: int = 100, seed: int = 0) -> list[tuple[str, str]]:
    pairing = Pairing(per_prompt=per_prompt, seed=seed)
    for one, correct in rows:
        value = None if correct is None else float(correct)
        pairing.add(one, Score(one.id, value, correct))
    drawn = pairing.drawn()
    assert pairing.num_prompts == len({right.split("/")[0] for right, _ in drawn})
    return drawn


def test_every_right_one_is_paired_with_every_wrong_one_of_its_prompt_and_of_no_other() -> None:
    rows = [(candidate(0, 1), True), (candidate(1, 2), False), (candidate(2, 3), True), (candidate(3, 4), False)]
    other = [(candidate(0, 1, prompt="q"), True), (candidate(0, 9, prompt="r"), False)]
    assert paired(*rows, *other) == [("p/0", "p/1"), ("p/0", "p/3"), ("p/2", "p/1"), ("p/2", "p/3")]


def test_equal_tokens_count_once_and_what_could_not_be_scored_not_at_all() -> None:
    rows = [(candidate(0, 1), True), (candidate(1, 1), True), (candidate(2, 2), False), (candidate(3, 2), False)]
    assert paired(*rows, (candidate(4, 5), None)) == [("p/0", "p/2")]


def test_tokens_that_were_found_right_once_and_wrong_once_are_in_no_pair() -> None:
    rows = [(candidate(0, 1), True), (candidate(1, 1), False), (candidate(2, 1), True), (candidate(3, 2), False)]
    assert paired(*rows) == []
    assert paired(*rows, (candidate(4, 7), True)) == [("p/4", "p/3")]


def test_a_right_one_has_come_to_its_end_and_a_wrong_one_need_not() -> None:
    cut = candidate(0, 1, finish_reason="length"), candidate(1, 2, finish_reason="length")
    rows = [(cut[0], True), (cut[1], False)]
    assert paired(*rows) == []
    assert paired(*rows, (candidate(2, 3), True)) == [("p/2", "p/1")]


def test_a_prompt_that_was_rendered_otherwise_is_another_one() -> None:
    rows = [(candidate(0, 1), True), (candidate(1, 2, prompt_token_ids=(5, 6)), False)]
    assert paired(*rows) == []


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 12), st.integers(0, 3))
def test_of_too_many_pairs_so_many_are_drawn_all_different_and_again_the_same(
    right: int, wrong: int, cap: int, seed: int
) -> None:
    rows = [(candidate(index, index), index < right) for index in range(right + wrong)]
    drawn = paired(*rows, per_prompt=cap, seed=seed)
    everything = paired(*rows)
    assert len(everything) == right * wrong
    assert len(set(drawn)) == len(drawn) == min(cap, right * wrong)
    assert set(drawn) <= set(everything)
    assert paired(*rows, per_prompt=cap, seed=seed) == drawn


def test_another_seed_draws_others() -> None:
    rows = [(candidate(index, index), index < 10) for index in range(20)]
    assert len({tuple(paired(*rows, per_prompt=3, seed=seed)) for seed in range(8)}) > 4
