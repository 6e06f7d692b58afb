from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from selftrain.config import SelectConfig
from selftrain.records import Survivor
from selftrain.selection.buffers import as_many, buffered, rounds_in_reach

PROMPTS = st.sampled_from("abc")
ROUNDS = st.lists(st.lists(st.tuples(PROMPTS, st.sampled_from([0.0, 0.5, 1.0])), max_size=4), min_size=1, max_size=4)
COUNTS = st.integers(0, 8)


def survivor(round_number: int, place: int, prompt: str = "a", value: float | None = 1.0) -> Survivor:
    name = f"{round_number}/{place}"
    return Survivor(name, prompt, round_number, (1, 2), (False, True), 1.0, "kept", f"ask {prompt}", name, value)


def own(rounds: list[list[tuple[str, float]]]) -> list[Survivor]:
    return [
        survivor(number, place, prompt, value)
        for number, rows in enumerate(rounds, 1)
        for place, (prompt, value) in enumerate(rows)
    ]


def names(survivors: Any) -> list[str]:
    return [one.candidate_id for one in survivors]


def config(**knobs: Any) -> SelectConfig:
    return SelectConfig.model_validate(knobs)


def test_each_buffer_reaches_as_far_back_as_it_says() -> None:
    assert list(rounds_in_reach(config(buffer="replace"), 4)) == [4]
    assert list(rounds_in_reach(config(buffer="window", window=2), 4)) == [3, 4]
    assert list(rounds_in_reach(config(buffer="window", window=9), 4)) == [1, 2, 3, 4]
    for buffer in ("append", "latest_per_prompt", "best_per_prompt"):
        assert list(rounds_in_reach(config(buffer=buffer), 4)) == [1, 2, 3, 4]


@given(ROUNDS)
def test_replace_window_and_append_take_all_that_they_reach_oldest_first(rounds: list[list[Any]]) -> None:
    for buffer in ("replace", "append", "window"):
        knobs = config(buffer=buffer, window=2 if buffer == "window" else None)
        reached = [one for one in own(rounds) if one.round in rounds_in_reach(knobs, len(rounds))]
        assert buffered(reached, knobs, seed=0) == tuple(reached)


@given(ROUNDS)
def test_latest_per_prompt_takes_all_of_each_prompts_latest_round_with_any(rounds: list[list[Any]]) -> None:
    taken = buffered(own(rounds), config(buffer="latest_per_prompt"), seed=0)
    for prompt in "abc":
        of_prompt = [one for one in own(rounds) if one.prompt_id == prompt]
        latest = max((one.round for one in of_prompt), default=0)
        expected = [one for one in of_prompt if one.round == latest]
        assert [one for one in taken if one.prompt_id == prompt] == expected


@given(ROUNDS, st.integers(1, 3))
def test_best_per_prompt_takes_the_best_values_of_all_rounds(rounds: list[list[Any]], number: int) -> None:
    taken = buffered(own(rounds), config(buffer="best_per_prompt", per_prompt=number), seed=0)
    for prompt in "abc":
        of_prompt = [one for one in own(rounds) if one.prompt_id == prompt]
        order = sorted(of_prompt, key=lambda one: (-(one.value or 0), -one.round, int(one.text.split("/")[1])))
        assert sorted(names(one for one in taken if one.prompt_id == prompt)) == sorted(names(order[:number]))
    assert list(taken) == [one for one in own(rounds) if one in taken], "the order is that of the rounds"


def test_of_equal_values_the_latest_rounds_stay_and_of_those_the_first() -> None:
    rows = [survivor(1, 0), survivor(2, 0), survivor(2, 1), survivor(3, 0, value=0.5)]
    assert names(buffered(rows, config(buffer="best_per_prompt"), seed=0)) == ["2/0"]
    assert names(buffered(rows, config(buffer="best_per_prompt", per_prompt=3), seed=0)) == ["1/0", "2/0", "2/1"]


def test_a_selection_that_looks_at_no_values_draws_for_best_per_prompt() -> None:
    knobs = config(buffer="best_per_prompt", rule="random", count=9)
    rows = [survivor(1, place, value=place / 10) for place in range(10)]
    drawn = Counter(names(buffered(rows, knobs, seed=seed))[0] for seed in range(200))
    assert len(drawn) == 10
    values = [survivor(1, place, value=1.0 - place / 10) for place in range(10)]
    assert names(buffered(rows, knobs, seed=7)) == names(buffered(values, knobs, seed=7))


def test_no_candidate_is_trained_on_twice() -> None:
    rows = [survivor(1, 0), survivor(1, 0), survivor(2, 0), survivor(1, 0)]
    for buffer in ("append", "latest_per_prompt", "best_per_prompt"):
        taken = names(buffered(rows, config(buffer=buffer, per_prompt=5), seed=0))
        assert len(taken) == len(set(taken))


@given(ROUNDS, COUNTS, st.integers(0, 3))
def test_a_control_takes_as_many_as_main_and_keeps_what_its_buffer_chose(
    rounds: list[list[Any]], count: int, seed: int
) -> None:
    rows = own(rounds)
    chosen = buffered(rows, config(buffer="latest_per_prompt"), seed=seed)
    taken = as_many(chosen, rows, count, seed=seed)
    assert len(taken) == min(count, len(rows))
    assert set(names(taken)) <= set(names(chosen)) or set(names(taken)) >= set(names(chosen))
    assert names(taken) == [name for name in names(rows) if name in names(taken)]
