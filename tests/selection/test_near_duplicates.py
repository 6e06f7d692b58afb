"""Of nearly equal texts one stays: similarity as it is defined, whatever the order, and one that stays is named."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from groups import make_candidate
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.config import SelectConfig
from selftrain.errors import ConfigError, DependencyError
from selftrain.records import Score
from selftrain.selection import Entry, minhash, near_duplicates
from selftrain.selection.minhash import Sketches, band_rows
from selftrain.selection.words import words

HERE = Path(__file__).parent
NAMED = re.compile(r"nearly the same as (\S+) \((\d\.\d{3})\)")


def knobs(**near: object) -> SelectConfig:
    return SelectConfig.model_validate({"near_duplicates": near})


def jaccard(one: str, other: str, n: int) -> float:
    """By its definition, on sets of tuples."""
    of = [words(one), words(other)]
    sets = [{tuple(each[i : i + n]) for i in range(len(each) - n + 1)} or {tuple(each)} for each in of]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def in_prompt(
    texts: Sequence[str], values: Sequence[float] | None = None, **near: object
) -> dict[int, tuple[int, float]]:
    """Which of a prompt's candidates leave, by number: whom they resemble, and how much."""
    given = values or [1.0] * len(texts)
    rows = [
        (make_candidate("p", number, text), Score(f"p/{number}", value, True))
        for number, (text, value) in enumerate(zip(texts, given, strict=True))
    ]
    step = near_duplicates.step(knobs(**near), HERE)
    assert callable(step)
    found = {}
    for name, why in step(rows).items():
        match = NAMED.fullmatch(why)
        assert match is not None
        found[int(name[2:])] = int(match[1][2:]), float(match[2])
    return found


def over_round(
    texts: Sequence[str], values: Sequence[float] | None = None, **near: object
) -> dict[int, tuple[int, float]]:
    """The same over a round of prompts with two candidates each."""
    given = values or [1.0] * len(texts)
    step = near_duplicates.step(knobs(within="all", **near), HERE)
    assert not callable(step)
    entries = (
        Entry(f"c{number}", f"p{number // 2}", text, value, "")
        for number, (text, value) in enumerate(zip(texts, given, strict=True))
    )
    left = list(step.leaving(entries))
    assert [number for number, _ in left] == sorted(number for number, _ in left)
    matches = {number: NAMED.fullmatch(why) for number, why in left}
    return {number: (int(match[1][1:]), float(match[2])) for number, match in matches.items() if match is not None}


STORY = "the farmer had twelve hens and sold five of them at the market for three coins each on a rainy day in may"


def test_the_best_value_stays_and_of_equal_ones_the_first() -> None:
    near = STORY.replace("rainy", "sunny")
    assert in_prompt([STORY, near], by="minhash", threshold=0.5) == {1: (0, pytest.approx(15 / 23, abs=1e-3))}
    assert list(in_prompt([STORY, near], [0.5, 1.0], by="minhash", threshold=0.5)) == [0]
    assert list(over_round([STORY, near], [0.5, 1.0], by="minhash", threshold=0.5)) == [0]
    assert list(over_round([STORY, near], by="minhash", threshold=0.5)) == [1]


def test_with_rule_random_values_are_not_looked_at() -> None:
    config = SelectConfig.model_validate({"rule": "random", "count": 1, "near_duplicates": {"threshold": 0.5}})
    step = near_duplicates.step(config, HERE)
    assert callable(step)
    rows = [(make_candidate("p", n, STORY), Score(f"p/{n}", value, True)) for n, value in enumerate([0.0, 1.0])]
    assert list(step(rows)) == ["p/1"]


def test_the_reasoning_counts_as_written() -> None:
    rows = [(make_candidate("p", n, "4"), Score(f"p/{n}", 1.0, True)) for n in range(2)]
    step = near_duplicates.step(knobs(), HERE)
    assert callable(step)
    assert list(step(rows)) == ["p/1"]
    thought = [STORY, "quite another way to come to the number four, by counting sheep over a fence"]
    from dataclasses import replace

    rows = [(replace(candidate, reasoning=thought[n]), score) for n, (candidate, score) in enumerate(rows)]
    assert step(rows) == {}


def test_ratio_is_the_share_of_characters_that_an_edit_leaves() -> None:
    assert in_prompt(["abcd", "abce"], by="ratio", threshold=0.75) == {1: (0, 0.75)}
    assert in_prompt(["abcd", "abce"], by="ratio", threshold=0.76) == {}
    assert in_prompt(["", ""], by="ratio", threshold=1.0) == {1: (0, 1.0)}
    at_the_bound = ["a" * 25, "a" * 17 + "b" * 8]  # 1 - 16 / 50
    assert in_prompt(at_the_bound, by="ratio", threshold=0.68) == {1: (0, 0.68)}


def test_texts_shorter_than_an_n_gram_are_compared_whole() -> None:
    assert in_prompt(["Yes.", "yes", "No.", "?!", "?!", "..."], by="minhash", threshold=1.0) == {
        1: (0, 1.0),
        4: (3, 1.0),
    }


LETTERS = st.lists(st.sampled_from("abcdefgh"), min_size=0, max_size=14).map(" ".join)


@given(st.lists(LETTERS, min_size=1, max_size=12), st.sampled_from([0.3, 0.5, 0.8, 1.0]), st.sampled_from([1, 2, 5]))
@settings(max_examples=60, deadline=None)
def test_no_two_that_stay_are_as_similar_as_the_threshold_and_none_leaves_for_less(
    texts: list[str], threshold: float, n: int
) -> None:
    left = in_prompt(texts, by="minhash", threshold=threshold, ngram=n)
    stay = [number for number in range(len(texts)) if number not in left]
    for place, one in enumerate(stay):
        assert all(jaccard(texts[one], texts[other], n) < threshold for other in stay[:place])
    for number, (other, similarity) in left.items():
        assert other in stay
        assert jaccard(texts[number], texts[other], n) >= threshold
        assert similarity == pytest.approx(jaccard(texts[number], texts[other], n), abs=1e-3)


@given(st.lists(LETTERS, min_size=2, max_size=10, unique=True), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_who_stays_does_not_depend_on_the_order_where_values_differ(texts: list[str], rng: random.Random) -> None:
    values = [float(number) for number in range(len(texts))]
    order = list(range(len(texts)))
    rng.shuffle(order)
    for find in (in_prompt, over_round):
        straight = find(texts, values, threshold=0.5, ngram=2)
        shuffled = find([texts[one] for one in order], [values[one] for one in order], threshold=0.5, ngram=2)
        assert set(straight) == {order[number] for number in shuffled}


def many(number: int, seed: int = 0) -> list[str]:
    """Texts of 60 words: every tenth one with a copy in which one word is another, or none is."""
    rng = random.Random(seed)
    texts = [" ".join(rng.choices([f"w{i}" for i in range(5000)], k=60)) for _ in range(number)]
    for place in range(10, number, 10):
        copy = texts[place - 7].split()
        if place % 20:
            copy[30] = "other"
        texts[place] = " ".join(copy)
    return texts


def test_a_round_too_large_to_compare_pair_by_pair_loses_few_pairs_and_no_equal_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = many(600)
    found = over_round(texts, threshold=0.8)
    expected = {place: place - 7 for place in range(10, 600, 10)}
    assert {number: other for number, (other, _) in found.items()}.items() <= expected.items()
    equal = {place for place in expected if not place % 20}
    assert equal <= found.keys()
    assert len(found) >= 0.95 * len(expected)
    monkeypatch.setattr(minhash, "COMPARED_DIRECTLY", 10_000)
    assert over_round(texts, threshold=0.8).keys() == expected.keys()


def test_what_is_found_does_not_depend_on_how_many_texts_are_taken_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = many(600)
    whole = over_round(texts, threshold=0.8)
    monkeypatch.setattr(minhash, "_CHUNK", 7)
    assert over_round(texts, threshold=0.8) == whole


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("permutations", [16, 128, 256])
def test_bands_find_the_recall_at_the_threshold(threshold: float, permutations: int) -> None:
    rows = band_rows(threshold, permutations)
    recall = 1 - (1 - threshold**rows) ** (permutations // rows)
    assert recall >= minhash.RECALL or rows == 1


def test_no_texts_have_no_duplicates() -> None:
    with Sketches(0.8, ngram=5, permutations=64) as none:
        assert none.similar([]) == {}
    assert over_round([]) == {}


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        DependencyError, match=r"rapidfuzz, which is not installed; run `pip install 'selftrain\[filters\]'`"
    ):
        near_duplicates.check(knobs(by="ratio"), HERE)


def test_a_model_that_is_nowhere_or_none_of_embeddings_is_refused_before_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"select.near_duplicates.model: there is no './nothing'"):
        near_duplicates.check(knobs(by="embedding", model="./nothing"), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"select.near_duplicates.model: .*is neither a folder with a saved model"):
        near_duplicates.check(knobs(by="embedding", model="empty"), tmp_path)
    (tmp_path / "empty/adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"holds neither modules.json nor config.json"):
        near_duplicates.check(knobs(by="embedding", model="empty"), tmp_path)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "modules.json").write_text('[{"type": "custom_st.Transformer"}]')
    with pytest.raises(ConfigError, match=r"needs code of its own \(custom_st.Transformer\), which is never run"):
        near_duplicates.check(knobs(by="embedding", model="foreign"), tmp_path)


def test_knobs_that_do_not_go_together_are_refused() -> None:
    for near, words_of_it in (
        ({"by": "embedding"}, "by: embedding and model go together"),
        ({"model": "x"}, "by: embedding and model go together"),
        ({"by": "ratio", "within": "all"}, "by: ratio compares every pair"),
        ({"by": "ratio", "ngram": 3}, "ngram is for by: minhash"),
    ):
        with pytest.raises(ValueError, match=words_of_it):
            knobs(**near)
