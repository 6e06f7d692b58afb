"""Overlaps with evaluation sets: planted ones are found and named, others are not."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from groups import make_candidate
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.records import Score
from selftrain.selection import contamination
from selftrain.selection.contamination import Contaminated, EvaluationText, Overlaps

NAMES = ("Natalia", "Weng", "Betty", "Julie", "James", "Mark", "Albert", "Ken", "Tina", "Alexis")
THINGS = ("clips", "pages", "flowers", "eggs", "pizzas", "books", "vlogs", "crayons", "carrots", "bottles")
PLACES = ("at the market", "in the garden", "on the train", "at the library", "during the fair", "near the harbour")


def problem(seed: int) -> str:
    """A word problem of the kind of GSM8K, of some 30 words."""
    rng = random.Random(seed)
    name, thing, place = rng.choice(NAMES), rng.choice(THINGS), rng.choice(PLACES)
    first, second, price = rng.sample(range(11, 99), 3)
    return (
        f"{name} sold {first} {thing} {place} in April, and then {second} more {thing} than that in May. If each of "
        f"them costs ${price}, how much money did {name} earn altogether in the two months?"
    )


def overlaps(texts: Sequence[str], *, kind: str = "question", n: int = 13, common: int | None = None) -> Overlaps:
    of = [EvaluationText("prompts.test", f"t{number}", kind, text) for number, text in enumerate(texts)]
    return Overlaps(of, n, common=common)


def test_a_planted_problem_is_found_whatever_its_case_and_punctuation_and_is_named() -> None:
    held_out = [problem(seed) for seed in range(50)]
    index = overlaps(held_out)
    planted = "Here is one I know: " + held_out[17].upper().replace(",", " --").replace("$", "USD ") + " Let us see."
    found = index.find(planted)
    assert found is not None
    assert (found.text.name, found.number) == ("t17", 13)
    assert found.words in " ".join(contamination.words(held_out[17]))
    assert str(found).startswith("13 words with prompts.test (question of t17): '")


def test_problems_of_the_same_kind_with_other_words_are_left() -> None:
    held_out = [
        "Weng earns $12 an hour for babysitting. Yesterday she did 50 minutes of babysitting. How much did she earn?"
    ]
    index = overlaps(held_out)
    for seed in range(200):
        assert index.find(problem(seed)) is None
    assert (
        index.find("Weng earns $12 an hour for babysitting, and yesterday she did an hour. How much is that?") is None
    )


WORD = st.sampled_from([f"w{number}" for number in range(6)])


@given(st.lists(WORD, min_size=1, max_size=30), st.lists(WORD, min_size=1, max_size=30), st.integers(4, 13))
@settings(max_examples=200, deadline=None)
def test_long_texts_overlap_where_they_share_an_n_gram_and_nowhere_else(
    one: list[str], other: list[str], n: int
) -> None:
    def grams(of: list[str]) -> set[tuple[str, ...]]:
        return {tuple(of[i : i + n]) for i in range(len(of) - n + 1)}

    is_found = overlaps([" ".join(one)], n=n).find(" ".join(other)) is not None
    if len(one) >= n:
        assert is_found == bool(grams(one) & grams(other))
    elif is_found:
        assert " ".join(one) in " ".join(other)


def test_a_text_of_8_to_12_words_is_found_whole_with_its_punctuation() -> None:
    index = overlaps(["What is the sum of 12 and (30 - 4)?", "What is the sum of 12 and (30 + 4)?"])
    found = index.find("Q: What is the sum of 12 and (30 + 4)? A:")
    assert found is not None
    assert (found.text.name, found.number) == ("t1", 9)
    assert index.find("Q: What is the sum of 12 and (30 * 4)?") is None
    assert index.find("What is the sum of 12 and 30") is None


def test_a_short_question_counts_where_it_is_the_same_and_a_short_answer_never() -> None:
    index = overlaps(["What is 12 + 30?"])
    assert index.find("what is  12 + 30") is not None
    assert index.find("What is 12 - 30?") is None
    assert index.find("I was asked: What is 12 + 30? It is 42.") is None
    assert overlaps(["It is 42 apples."], kind="reference").num_texts == 0
    assert overlaps(["42"]).num_texts == 0


def test_the_longest_overlap_is_told_first() -> None:
    index = overlaps(["a b c d e f g h", "a b c d e f g h i j k l m n"])
    found = index.find("x a b c d e f g h i j k l m n")
    assert found is not None
    assert (found.number, found.text.name) == (13, "t1")


def test_words_common_to_many_training_prompts_count_for_nothing_if_so_asked() -> None:
    said = "Solve the following problem step by step and put the final answer into a box at the very end."
    held_out = [f"{said} {problem(seed)}" for seed in range(5)]
    asked = [f"{said} {problem(seed)}" for seed in range(100, 140)]
    of = [EvaluationText("prompts.test", str(number), "question", text) for number, text in enumerate(held_out)]
    assert all(Overlaps(of, 13).find(one) for one in asked)
    index = Overlaps(of, 13, common=10, asked=asked)
    assert not any(index.find(f"{said} {words}") for words in ("A train leaves.", "Natalia and Weng went to sea."))
    assert index.find(f"{said} {problem(3)}") is not None
    assert index.find(problem(3)) is not None


def test_an_overlapping_prompt_takes_all_of_its_candidates_and_an_overlapping_completion_leaves_alone() -> None:
    held_out = [problem(1), problem(2)]
    asked = {"p": problem(50), "q": held_out[0]}
    told: list[Contaminated] = []
    step = contamination.step(overlaps(held_out), asked.__getitem__, told.append)

    def rows(name: str, texts: Sequence[str]) -> list[tuple[object, Score]]:
        return [(make_candidate(name, n, text), Score(f"{name}/{n}", 1.0, True)) for n, text in enumerate(texts)]

    of_completion = step(rows("p", ["It is 7.", f"That reminds me: {held_out[1]}"]))  # type: ignore[arg-type]
    assert list(of_completion) == ["p/1"]
    assert of_completion["p/1"].startswith("its completion shares 13 words with prompts.test (question of t1)")
    of_prompt = step(rows("q", ["It is 7.", "It is 8."]))  # type: ignore[arg-type]
    assert list(of_prompt) == ["q/0", "q/1"]
    assert all(
        why.startswith("its prompt shares 13 words with prompts.test (question of t0)") for why in of_prompt.values()
    )
    assert [(one.candidate_id, one.found_in, one.evaluation) for one in told] == [
        ("p/1", "completion", "t1"),
        ("q/0", "prompt", "t0"),
        ("q/1", "prompt", "t0"),
    ]
    assert step([]) == {}


def test_the_tally_writes_a_row_for_each_and_counts_prompts_once() -> None:
    rows: list[dict[str, str]] = []
    tally = contamination.Tally(rows.append)
    for number, where in enumerate(("prompt", "prompt", "completion")):
        tally.add(Contaminated(f"c{number}", "p", where, "a b c", "prompts.test", "t0", "question"))
    assert tally.metrics() == {"select/contaminated": 3.0, "select/contaminated_prompts": 1.0}
    assert rows[0] == {
        "candidate_id": "c0",
        "prompt_id": "p",
        "found_in": "prompt",
        "words": "a b c",
        "source": "prompts.test",
        "evaluation": "t0",
        "kind": "question",
    }


def test_fewer_words_than_four_per_n_gram_are_refused() -> None:
    from selftrain.config import DecontaminateConfig

    with pytest.raises(ValueError, match="greater than or equal to 4"):
        DecontaminateConfig(ngram=3)
