"""Which candidates of a prompt make a preference pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from groups import make_candidate, make_prompt
from hypothesis import given
from hypothesis import strategies as st

from selftrain.exporting.pairs import Kind, pairs
from selftrain.exporting.rows import Answered, Example
from selftrain.records import Candidate, FinishReason, Group, Score

ENDED: tuple[FinishReason, ...] = ("stop_token", "stop_string")


def answered(rows: Sequence[tuple[str, float | None]], kept: Sequence[int], **changes: Any) -> Answered:
    """Candidates by text and value; right from 1 up. `kept` are the indices of survivors."""
    candidates = [replace(make_candidate("p", index, text), **changes) for index, (text, _) in enumerate(rows)]
    scores = tuple(
        Score(one.id, value, None if value is None else value >= 1)
        for one, (_, value) in zip(candidates, rows, strict=True)
    )
    survivors = {candidates[index].id: "kept" for index in kept}
    return Answered(Group(make_prompt("p"), tuple(candidates), scores), survivors)


def found(of: Answered, kind: Kind = "best_worst", limit: int = 1, barred: Sequence[str] = ()) -> list[tuple[str, str]]:
    def as_example(candidate: Candidate, score: Score) -> Example:
        return Example(of.group.prompt, candidate.text, candidate.id, score.value, "", None)

    made = pairs(
        of, kind, limit=limit, finish_reasons=ENDED, as_example=as_example, is_barred=lambda one: one.text in barred
    )
    return [(one.chosen.completion, one.rejected.completion) for one in made]


ROWS: list[tuple[str, float | None]] = [("good", 2.0), ("fair", 1.0), ("poor", 0.5), ("bad", -1.0), ("?", None)]


def test_the_best_survivor_is_paired_with_the_worst_candidate() -> None:
    assert found(answered(ROWS, [0, 1])) == [("good", "bad")]
    assert found(answered(ROWS, [1])) == [("fair", "bad")], "what was not kept is not chosen, however good"
    assert found(answered(ROWS, [])) == []


def test_what_is_barred_from_the_data_set_is_not_rejected_in_it() -> None:
    assert found(answered(ROWS, [0]), barred=["bad"]) == [("good", "poor")]


def test_several_pairs_go_from_the_widest_to_where_the_values_meet() -> None:
    assert found(answered(ROWS, [0, 1]), limit=5) == [("good", "bad"), ("fair", "poor")]
    assert found(answered(ROWS, [0, 1, 2, 3]), limit=5) == [("good", "bad"), ("fair", "poor")]


def test_right_answers_are_paired_with_wrong_ones_alone() -> None:
    rows: list[tuple[str, float | None]] = [("good", 3.0), ("right", 1.0), ("wrong", 0.0)]
    assert found(answered(rows, [0, 1]), "correct_incorrect", 3) == [("good", "wrong")]
    assert found(answered(rows[:2], [0, 1]), "correct_incorrect", 3) == []
    assert found(answered(rows, [2]), "correct_incorrect", 3) == [], "a wrong survivor is not chosen"


def test_equal_values_and_equal_texts_make_no_pair() -> None:
    assert found(answered([("a", 1.0), ("b", 1.0)], [0])) == []
    assert found(answered([("a", 1.0), (" a\n", 0.0)], [0])) == []
    assert found(answered([("a", 1.0), (" a\n", 0.0), ("b", 0.5)], [0])) == [("a", "b")]
    assert found(answered([("a", 1.0), ("  ", 0.0)], [0])) == [], "an empty text is nobody's lesson"


def test_a_text_is_in_one_pair_of_its_prompt() -> None:
    rows: list[tuple[str, float | None]] = [("a", 5.0), ("b", 4.0), ("b ", -5.0), ("c", 0.0)]
    assert found(answered(rows, [0, 1]), limit=3) == [("a", "b ")], "b was kept, and is rejected: it is not chosen too"


def test_what_was_cut_off_is_not_rejected() -> None:
    assert found(answered([("a", 1.0), ("b", 0.0)], [0], finish_reason="length")) == []


@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abcdefg "), st.none() | st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0])), max_size=9
    ),
    kept=st.sets(st.integers(0, 8)),
    limit=st.integers(1, 4),
    kind=st.sampled_from(["best_worst", "correct_incorrect"]),
    order=st.randoms(use_true_random=False),
)
def test_pairs_are_few_strict_of_distinct_texts_and_do_not_depend_on_the_order_of_candidates(
    rows: list[tuple[str, float | None]], kept: set[int], limit: int, kind: Kind, order: Any
) -> None:
    of = answered(rows, [index for index in sorted(kept) if index < len(rows) and rows[index][1] is not None])
    made = found(of, kind, limit)
    assert len(made) <= limit
    used = [text.strip() for pair in made for text in pair]
    assert len(used) == len(set(used))
    both = list(zip(of.group.candidates, of.group.scores, strict=True))
    order.shuffle(both)
    shuffled = Group(of.group.prompt, tuple(one for one, _ in both), tuple(one for _, one in both))
    assert found(replace(of, group=shuffled), kind, limit) == made
