from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from groups import make_prompt
from hypothesis import given
from hypothesis import strategies as st

from selftrain.errors import DataError
from selftrain.records import Message, Prompt, Survivor
from selftrain.selection.demonstrations import demonstrations, num_without_answer

STOP = 256


def encode(prompt: Prompt, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple((prompt.text or "").encode()), (*text.encode(), STOP)


def shown(number: int) -> list[Prompt]:
    return [replace(make_prompt(f"p{one}"), completion=f" {one}") for one in range(number)]


def demonstrate(prompts: list[Prompt], count: int, *, seed: int = 0, round_number: int = 1) -> list[Survivor]:
    return demonstrations(
        prompts, count=count, seed=seed, round_number=round_number, encode=encode, why="a demonstration"
    )


@given(st.integers(1, 12), st.integers(0, 60), st.integers(0, 5))
def test_each_is_used_equally_often_or_once_more(number: int, count: int, seed: int) -> None:
    found = demonstrate(shown(number), count, seed=seed)
    assert len(found) == count
    used = Counter(one.prompt_id for one in found)
    assert {used[f"p{one}"] for one in range(number)} <= {count // number, -(-count // number)}
    for start in range(0, count - number + 1, number):
        assert len({one.prompt_id for one in found[start : start + number]}) == number, "whole shuffles"
    assert len({one.candidate_id for one in found}) == count


@given(st.permutations(shown(7)), st.integers(0, 20))
def test_the_order_of_the_prompts_does_not_matter(prompts: list[Prompt], count: int) -> None:
    assert demonstrate(prompts, count) == demonstrate(shown(7), count)


def test_seed_and_round_choose_others_and_every_pass_is_a_shuffle_of_its_own() -> None:
    prompts = shown(20)
    orders = {
        tuple(one.prompt_id for one in demonstrate(prompts, 5, seed=seed, round_number=number))
        for seed in (0, 1)
        for number in (1, 2)
    }
    assert len(orders) == 4
    names = [one.prompt_id for one in demonstrate(prompts, 40)]
    assert names[:20] != names[20:]
    assert sorted(names[:20]) == sorted(names[20:])
    assert demonstrate(prompts, 40) == demonstrate(prompts, 40)


def test_ids_tell_prompts_passes_rounds_and_reasons_apart() -> None:
    first, second = demonstrate(shown(6), 12), demonstrate(shown(6), 12, round_number=2)
    other = demonstrations(shown(6), count=12, seed=0, round_number=1, encode=encode, why="gold")
    assert len({one.candidate_id for one in (*first, *second, *other)}) == 36


def test_an_example_is_prompt_and_completion_ids_and_learns_the_whole_completion() -> None:
    prompt = replace(make_prompt("p", "57"), completion=" 57")
    (one,) = demonstrate([prompt], 1, round_number=3)
    assert one.token_ids == (*b"ask p", *b" 57", STOP)
    assert one.label_mask == (False,) * 5 + (True,) * 4
    assert (one.prompt_id, one.round, one.weight, one.why) == ("p", 3, 1.0, "a demonstration")
    assert (one.prompt_text, one.text) == ("ask p", " 57")


def test_messages_are_shown_to_readers_turn_by_turn() -> None:
    turns = (Message("system", "Be brief."), Message("user", "1 + 2?"))
    (one,) = demonstrate([replace(make_prompt(), text=None, messages=turns)], 1)
    assert one.prompt_text == "system: Be brief.\nuser: 1 + 2?"


def test_a_completion_goes_before_the_reference_and_prompts_without_either_are_left_out() -> None:
    prompts = [
        replace(make_prompt("both", "57"), completion="fifty-seven"),
        make_prompt("reference", "58"),
        make_prompt("neither", None),
    ]
    found = demonstrate(prompts, 4)
    assert {(one.prompt_id, one.text) for one in found} == {("both", "fifty-seven"), ("reference", "58")}
    assert num_without_answer(prompts) == 1


def test_several_answers_to_one_prompt_are_examples_of_their_own() -> None:
    prompts = [replace(make_prompt("p"), completion=one) for one in ("1", "one")]
    found = demonstrate(prompts, 4)
    assert Counter(one.text for one in found) == {"1": 2, "one": 2}
    assert len({one.candidate_id for one in found}) == 4


def test_each_is_encoded_once_however_often_it_is_used() -> None:
    asked: list[str] = []

    def counting(prompt: Prompt, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        asked.append(prompt.id)
        return encode(prompt, text)

    prompts = Random(0).sample(shown(3), 3)
    demonstrations(prompts, count=9, seed=0, round_number=1, encode=counting, why="gold")
    assert sorted(asked) == ["p0", "p1", "p2"]


def test_nothing_to_demonstrate_is_an_error_unless_nothing_is_asked_for() -> None:
    prompts = [make_prompt("neither", None)]
    assert demonstrate(prompts, 0) == []
    with pytest.raises(DataError, match=r"none of the 1 prompts has a completion or a reference"):
        demonstrate(prompts, 1)
