"""Bounds on what a text is like."""

from __future__ import annotations

import time

import pytest
from groups import make_candidate

from selftrain.config import QualityConfig, SelectConfig
from selftrain.errors import ConfigError, PhaseError
from selftrain.records import Score
from selftrain.selection import quality
from selftrain.selection.words import words


def reasons(texts: list[str], **knobs: object) -> list[str | None]:
    """Why each of the texts leaves; None where it stays."""
    rows = [(make_candidate("p", index, text), Score(f"p/{index}", 1.0, True)) for index, text in enumerate(texts)]
    left = quality.step(QualityConfig.model_validate(knobs))(rows)
    return [left.get(candidate.id) for candidate, _ in rows]


def test_words_are_runs_of_letters_and_digits_in_lower_case() -> None:
    assert words("Don't — x=3.14, Straße_A") == ["don", "t", "x", "3", "14", "strasse", "a"]
    assert words("2+2=4, THEN stop.") == ["2", "2", "4", "then", "stop"]


def test_a_character_of_a_script_without_spaces_is_a_word_and_marks_stay_with_their_letters() -> None:
    assert words("你好, world") == ["你", "好", "world"]
    assert words("हिन्दी") == ["हिन्दी"]


def test_texts_out_of_the_bounds_in_words_leave_with_their_number() -> None:
    assert reasons(["one two", "one two three", "a b c d e", ""], min_words=3, max_words=4) == [
        "under 3 words (2)",
        None,
        "over 4 words (5)",
        "under 3 words (0)",
    ]


def test_repeated_word_4_grams_are_counted_from_their_second_time_on() -> None:
    once, thrice = "a b c d e f g h", " ".join(["we go on and on"] * 3)
    assert quality.repeated(words(once)) == 0.0
    # 15 words have 12 4-grams, of which 5 are distinct.
    assert quality.repeated(words(thrice)) == pytest.approx(7 / 12)
    assert quality.repeated(["a", "b", "c"]) == 0.0
    assert reasons([once, thrice], max_repeated_ngrams=0.5) == [
        None,
        "over 0.5 of its word 4-grams repeated (0.583)",
    ]


def test_symbols_are_neither_letters_with_their_marks_nor_digits_nor_white_space() -> None:
    assert quality.symbols("ab 12\n") == 0.0
    assert quality.symbols("हिन्दी") == 0.0
    assert quality.symbols("a+b=") == 0.5
    assert quality.symbols("") == 0.0
    assert reasons(["fine", "#!$%"], max_symbols=0.3) == [None, "over 0.3 of its characters symbols (1)"]


@pytest.mark.parametrize(
    "text",
    ["So it is.", "ok 😊", "so 👍🏽", r"\boxed{3}", "```\n", "she said “yes”", "终于。", "$4$", "*done.*", "l'été »"],
)
def test_a_text_ends_whole(text: str) -> None:
    assert quality.ends_whole(text)
    assert reasons([text], ends_whole=True) == [None]


@pytest.mark.parametrize("text", ["and then", "that is,", "first:", "- ", "", "#### 42"])
def test_a_text_ends_in_the_middle(text: str) -> None:
    assert reasons([text], ends_whole=True) == ["ends in the middle"]


def test_what_a_pattern_finds_leaves_and_is_quoted() -> None:
    found = reasons(["As an AI language model, I cannot.", "It is 4."], without=["(?i)as an ai", "never"])
    assert found == ["holds 'As an AI' (without '(?i)as an ai')", None]


def test_a_pattern_that_is_none_is_refused_before_a_run() -> None:
    with pytest.raises(ConfigError, match=r"select.quality.without: '\(a' is no regular expression"):
        quality.check(SelectConfig(quality=QualityConfig(without=("fine", "(a"))))
    quality.check(SelectConfig(quality=QualityConfig(without=("fine",))))


def test_a_pattern_that_would_take_for_ever_ends_the_phase_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "SECONDS", 0.2)
    started = time.monotonic()
    with pytest.raises(PhaseError, match=r"'\(a\|aa\)\+\$' took over 0.2 s on candidate p/1 \(61 characters\)"):
        reasons(["b", "a" * 60 + "b"], without=[r"(a|aa)+$"])
    assert time.monotonic() - started < 10


def test_bounds_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="min_words 5 is over max_words 4"):
        QualityConfig(min_words=5, max_words=4)
