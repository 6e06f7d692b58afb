"""Sets of several tasks: what they hold, how a round is shared out among them, and what stands for them."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from selftrain.config import Config, PromptsConfig
from selftrain.errors import DataError
from selftrain.fingerprints import Parts
from selftrain.prompts import load, of_round, shares

WEIGHTS = st.dictionaries(
    st.sampled_from("abcdefgh"), st.sampled_from([0.1, 0.2, 0.3, 1.0, 1.5, 2.0, 7.25, 1e-6, 1e6]), min_size=1
)


def write(path: Path, start: int, count: int, **columns: Any) -> str:
    rows = [{"prompt": f"{n}?", "reference": n + 1, **columns} for n in range(start, start + count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.name


def config(**knobs: Any) -> PromptsConfig:
    return PromptsConfig.model_validate({"format": "text", **knobs})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate("abc"):
        write(tmp_path / f"{name}.jsonl", 100 * number, 30)
    write(tmp_path / "few.jsonl", 900, 2)
    return tmp_path


@given(WEIGHTS, st.integers(1, 500))
def test_shares_sum_to_the_number_and_are_each_within_one_of_the_exact_share(
    weights: dict[str, float], number: int
) -> None:
    found = shares(weights, number)
    total = sum(Fraction(str(weight)) for weight in weights.values())
    assert list(found) == list(weights)
    assert sum(found.values()) == number
    for task, share in found.items():
        assert abs(share - number * Fraction(str(weights[task])) / total) < 1


@given(WEIGHTS, st.integers(1, 500))
def test_a_task_of_more_weight_never_has_a_smaller_share(weights: dict[str, float], number: int) -> None:
    found = shares(weights, number)
    in_order = sorted(weights, key=lambda task: weights[task])
    for one, other in pairwise(in_order):
        assert found[one] <= found[other] or weights[one] == weights[other]


@given(WEIGHTS, st.integers(1, 50), st.integers(0, 20))
def test_turns_move_only_what_is_left_over_among_equals(weights: dict[str, float], number: int, turn: int) -> None:
    first, later = shares(weights, number), shares(weights, number, turn)
    assert sum(first.values()) == sum(later.values())
    assert all(abs(first[task] - later[task]) <= 1 for task in weights)
    moved = [Fraction(str(weights[task])) for task in weights if first[task] != later[task]]
    total = sum(Fraction(str(weight)) for weight in weights.values())
    assert len({weight * number / total % 1 for weight in moved}) <= 1


def test_equal_tasks_take_turns_where_there_are_more_of_them_than_prompts(folder: Path) -> None:
    mix = {"a": "a.jsonl", "b": "b.jsonl", "c": "c.jsonl"}
    knobs = config(train={"mix": mix}, per_round=2)
    train = load(knobs, folder).train
    drawn = [of_round(train, knobs, seed=3, round_number=number) for number in range(1, 7)]
    assert [[one.task for one in of] for of in drawn[:3]] == [["a", "b"], ["b", "c"], ["a", "c"]]
    assert len({one.id for of in drawn for one in of}) == 12, "nothing twice before a task is used up"


def test_ties_go_by_the_order_of_the_mix_and_decimals_are_what_is_written() -> None:
    assert shares({"b": 1.0, "a": 1.0, "c": 1.0}, 4) == {"b": 2, "a": 1, "c": 1}
    assert shares({"a": 1.0, "b": 2.0}, 1) == {"a": 0, "b": 1}
    assert shares({"a": 0.1, "b": 0.2, "c": 0.3}, 60) == {"a": 10, "b": 20, "c": 30}


def test_a_weight_that_is_no_finite_number_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"a\.weight\s+Input should be a finite number"):
        config(train={"mix": {"a": {"path": "a.jsonl", "weight": float("inf")}, "b": "b.jsonl"}}, per_round=4)


def test_every_prompt_has_its_task_and_each_source_its_own_columns_and_template(folder: Path) -> None:
    (folder / "d.csv").write_text("question,answer\nyes or no,no\n")
    own = {"path": "d.csv", "columns": {"prompt": "question", "reference": "answer"}, "template": "Q: {question}"}
    train = load(config(train={"mix": {"sums": {"path": "a.jsonl", "limit": 2}, "logic": own}}), folder).train
    assert [(one.task, one.text, one.reference) for one in train.prompts] == [
        ("sums", "0?", "1"),
        ("sums", "1?", "2"),
        ("logic", "Q: yes or no", "no"),
    ]
    assert train.tasks == ("sums", "logic")
    assert load(config(train="a.jsonl"), folder).train.tasks == ()


def test_the_same_prompt_in_two_tasks_is_refused_with_both(folder: Path) -> None:
    write(folder / "d.jsonl", 29, 3)
    mix = {"first": "a.jsonl", "second": "d.jsonl"}
    said = r"d\.jsonl, line 1: the same prompt stands in two tasks of prompts\.train, 'first' and 'second': '29\?'"
    with pytest.raises(DataError, match=said):
        load(config(train={"mix": mix}), folder)
    with pytest.raises(DataError, match=r"two tasks of prompts\.seed_data"):
        load(config(train="b.jsonl", seed_data={"mix": mix}), folder)
    mix["second"] = {"path": "d.jsonl", "template": "Again: {prompt}"}  # type: ignore[assignment]
    assert len(load(config(train={"mix": mix}), folder).train.prompts) == 33


def test_the_digest_covers_tasks_and_their_order_but_not_weights(folder: Path) -> None:
    def digest(mix: Any, **knobs: Any) -> str:
        return load(config(train={"mix": mix}, **knobs), folder).train.digest

    plain = digest({"x": "a.jsonl", "y": "b.jsonl"})
    assert digest({"x": "a.jsonl", "z": "b.jsonl"}) != plain
    assert digest({"y": "b.jsonl", "x": "a.jsonl"}) != plain
    assert digest({"x": {"path": "a.jsonl", "weight": 3}, "y": "b.jsonl"}, per_round=4) == plain
    assert digest({"x": "a.jsonl"}) != load(config(train="a.jsonl"), folder).train.digest


def test_a_round_has_each_tasks_share_and_goes_through_each_task_on_its_own(folder: Path) -> None:
    mix = {"a": "a.jsonl", "b": {"path": "b.jsonl", "weight": 2}, "c": {"path": "c.jsonl", "weight": 0.5}}
    knobs = config(train={"mix": mix}, per_round=[7, 14])
    train = load(knobs, folder).train
    drawn = [of_round(train, knobs, seed=3, round_number=number) for number in (1, 2, 3, 4)]
    counts = [{task: sum(one.task == task for one in of) for task in mix} for of in drawn]
    assert counts == [{"a": 2, "b": 4, "c": 1}] + [{"a": 4, "b": 8, "c": 2}] * 3
    for task in mix:
        ids = [one.id for of in drawn for one in of if one.task == task]
        assert len(set(ids)) == len(ids), "nothing twice before a task is used up"
    assert [one.task for one in drawn[0]] == ["a"] * 2 + ["b"] * 4 + ["c"]


def test_a_task_that_is_used_up_begins_again_and_a_small_one_gives_all_it_has(folder: Path) -> None:
    knobs = config(train={"mix": {"few": "few.jsonl", "a": "a.jsonl"}}, per_round=6)
    train = load(knobs, folder).train
    for number in (1, 2, 5):
        drawn = of_round(train, knobs, seed=0, round_number=number)
        assert sorted(one.text or "" for one in drawn if one.task == "few") == ["900?", "901?"]
        assert sum(one.task == "a" for one in drawn) == 3
    everything = config(train={"mix": {"few": "few.jsonl", "a": "a.jsonl"}})
    assert of_round(train, everything, seed=0, round_number=1) == train.prompts


def test_a_mix_of_one_task_asks_what_the_set_without_tasks_asks(folder: Path) -> None:
    alone, mixed = config(train="a.jsonl", per_round=7), config(train={"mix": {"only": "a.jsonl"}}, per_round=7)
    sets = load(alone, folder).train, load(mixed, folder).train
    for number in range(1, 12):
        first = of_round(sets[0], alone, seed=5, round_number=number)
        assert [one.id for one in first] == [one.id for one in of_round(sets[1], mixed, seed=5, round_number=number)]


def test_one_tasks_prompts_do_not_depend_on_the_others(folder: Path) -> None:
    def of_a(other: str) -> list[str]:
        knobs = config(train={"mix": {"a": "a.jsonl", "other": other}}, per_round=8)
        drawn = of_round(load(knobs, folder).train, knobs, seed=1, round_number=3)
        return [one.id for one in drawn if one.task == "a"]

    assert of_a("b.jsonl") == of_a("c.jsonl")


def test_a_task_of_training_may_not_vanish_into_what_is_held_out(folder: Path) -> None:
    mix = {"few": "few.jsonl", "a": "a.jsonl"}
    with pytest.raises(DataError, match=r"prompts\.train\.mix\.few: every one of them is also a held-out prompt"):
        load(config(train={"mix": mix}, test="few.jsonl", overlap="drop_from_train"), folder)
    part = {"path": "a.jsonl", "limit": 3}
    train = load(config(train={"mix": mix}, test=part, overlap="drop_from_train"), folder).train
    assert (train.num_overlapping, train.tasks) == (3, ("few", "a"))


def test_a_config_that_is_written_out_can_be_read_again(folder: Path) -> None:
    knobs = config(train={"mix": {"b": {"path": "b.jsonl", "weight": 2}, "a": "a.jsonl"}}, per_round=4)
    assert config(**knobs.model_dump(mode="json", by_alias=True)) == knobs
    with pytest.raises(ValueError, match="template stands beside mix"):
        config(train={"mix": {"a": "a.jsonl"}, "template": "{prompt}"})


def test_retention_that_is_also_trained_on_is_an_error_or_leaves_training(folder: Path) -> None:
    kept = {"path": "a.jsonl", "skip": 28}
    for name in ("train", "seed_data"):
        sets = {"train": "b.jsonl", name: "a.jsonl", "retention": kept}
        with pytest.raises(DataError, match=rf"2 of the {name} prompts are also in prompts\.retention, .*'28\?'"):
            load(config(**sets), folder)
        left = getattr(load(config(**sets, overlap="drop_from_train"), folder), name)
        assert (len(left.prompts), left.num_overlapping) == (28, 2)
    assert load(config(train="b.jsonl", test="a.jsonl", retention=kept), folder).retention is not None


def test_retention_may_be_a_mix_of_texts_or_of_prompts(folder: Path) -> None:
    for name, texts in (("news", ["One.", "Two."]), ("code", ["def f(): ..."])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    mix = {"news": "news.jsonl", "code": "code.jsonl"}
    kept = load(config(train="a.jsonl", retention={"mix": mix}), folder).retention
    assert kept is not None
    assert (kept.texts, kept.tasks) == (("One.", "Two.", "def f(): ..."), ("news", "news", "code"))
    asked = load(config(train="a.jsonl", retention={"mix": {"b": "b.jsonl", "c": "c.jsonl"}}), folder).retention
    assert asked is not None
    assert asked.prompts is not None
    assert asked.prompts.tasks == ("b", "c")
    with pytest.raises(DataError, match=r"b\.jsonl, line 1 has no column 'text'"):
        load(config(train="a.jsonl", retention={"mix": {"news": "news.jsonl", "b": "b.jsonl"}}), folder)


def test_weights_enter_the_fingerprint_of_sampling_where_they_share_a_round_out(folder: Path) -> None:
    def prompts_part(train: Any, per_round: Any, number: int = 1) -> Any:
        data = {"model": {"path": "none"}, "score": {"scorers": ["exact"]}, "name": "x"}
        whole = Config.model_validate({**data, "prompts": {"train": train, "per_round": per_round}})
        return Parts(whole, folder, {"train": "digest"}).part("sample", number)["prompts"]

    two = {"mix": {"b": {"path": "b.jsonl", "weight": 2}, "a": "a.jsonl"}}
    assert prompts_part(two, 4)["weights"] == [["b", 2.0], ["a", 1.0]]
    assert prompts_part(two, ["all", 4], 2)["weights"] == [["b", 2.0], ["a", 1.0]]
    assert "weights" not in prompts_part({"mix": {"b": "b.jsonl", "a": "a.jsonl"}}, "all")
    assert prompts_part("a.jsonl", 4) == {"train": "digest", "format": "chat", "per_round": [4]}
