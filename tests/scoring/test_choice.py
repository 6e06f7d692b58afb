from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from groups import make_group, make_prompt
from hypothesis import given
from hypothesis import strategies as st

from selftrain.config import ScoreConfig
from selftrain.errors import DataError
from selftrain.scoring import build
from selftrain.scoring.choice import check, choice

FRUIT = {"options": ["an apple", "A pear", "a plum", "an apple pie"]}
ARC = {"options": {"text": ["gas", "ice", "steam"], "label": ["1", "2", "3"]}}


@pytest.mark.parametrize(
    "text",
    [
        *("B", "(B)", "B.", "B)", " b\n", "(b)", "**B**", r"\text{B}", "$B$", "B) a warm one", "(B) words", "B: yes"),
        *("**B.** a warm one", "**(B)** **words**"),
    ],
)
def test_a_letter_is_the_answer_in_every_way_of_writing_it(text: str) -> None:
    assert choice(text, "B", {}).value == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "A, B",
        "A B",
        "AB",
        "A or B",
        "B or C",
        "B. C.",
        "B) C",
        "B. or c",
        "BB",
        "The answer is B",
        "ABCD",
        "(A)(B)",
        "B/C",
        "*",
        "B. or A maybe",
        "B. and a",
        "**B.** or **C.**",
        "**B** **C**",
    ],
)
def test_anything_but_one_letter_is_wrong(text: str) -> None:
    assert choice(text, "B", {}).value == 0.0


@pytest.mark.parametrize(
    "text", ["B", "B) a pear", "B. A pear.", "a pear", " A  PEAR ", "(B) A pear", "**A pear**", "**B.** a pear"]
)
@pytest.mark.parametrize("reference", ["B", "a pear", "1"])
def test_with_the_choices_known_their_text_is_an_answer_too(text: str, reference: str) -> None:
    found = choice(text, reference, FRUIT, choices="options")
    assert (found.value, found.answer) == (1.0, "B")


@pytest.mark.parametrize(
    "text", ["A) a pear", "B) a plum", "pear", "a pear, a plum", "E", "B) a pear or a plum", "B, C", "apple"]
)
def test_with_the_choices_known_a_letter_with_another_text_is_wrong(text: str) -> None:
    assert choice(text, "B", FRUIT, choices="options").value == 0.0


@pytest.mark.parametrize("text", ["$x^2$", "x^2", "C) $x^2$", "**C.** x^2"])
def test_a_choice_that_is_written_as_mathematics_can_be_repeated_as_it_is(text: str) -> None:
    assert choice(text, "C", {"options": ["1", "2", "$x^2$"]}, choices="options").value == 1.0


def test_labels_of_the_data_are_letters_too() -> None:
    assert choice("2", "2", ARC, choices="options").value == 1.0
    assert choice("ice", "2", ARC, choices="options").answer == "2"
    assert choice("B", "2", ARC, choices="options").value == 0.0


def test_a_letter_that_is_another_choices_text_is_no_answer() -> None:
    swapped = {"options": ["B", "A"]}
    found = choice("A", "0", swapped, choices="options")
    assert (found.value, found.explanation) == (0.0, "the text could mean the choices A, B")


@pytest.mark.parametrize(
    ("reference", "metadata", "choices", "message"),
    [
        ("BC", {}, None, "no letter from A to Z"),
        ("the pear", {}, None, "no letter"),
        (None, {}, None, "no reference"),
        ("a pear", FRUIT, "choices", "no column 'choices' of choices; there are: options"),
        ("a peach", FRUIT, "options", "names none of the choices"),
        ("7", FRUIT, "options", "names none of the choices"),
        ("2", {"options": ["1", "2", "3"]}, "options", "could mean the choices B, C"),
        ("A", {"options": ["B", "A"]}, "options", "could mean"),
        ("A", {"options": "AB"}, "options", "must hold a list"),
        ("A", {"options": {"text": ["a", "b"], "label": ["x"]}}, "options", "the labels"),
    ],
)
def test_a_reference_that_does_not_say_which_is_a_mistake_of_the_data(
    reference: str | None, metadata: dict[str, Any], choices: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check(reference, metadata, choices=choices)


@given(st.text())
def test_no_text_breaks_it_and_two_letters_never_pay(text: str) -> None:
    for metadata, choices in (({}, None), (FRUIT, "options")):
        found = choice(text, "B", metadata, choices=choices)
        assert found.value in (0.0, 1.0)
    for first in "AB":
        for second in "CD":
            for between in (" ", ", ", " or ", "/", ") ", ". "):
                assert choice(f"{first}{between}{second}", first, {}).value == 0.0


def test_the_choices_come_from_the_prompts_row() -> None:
    entry = {"name": "choice", "params": {"choices": "options"}, "extract": {"after": "Answer:"}}
    with build(ScoreConfig.model_validate({"scorers": [entry]}), Path()) as scorer:
        group = make_group(["Pears are best.\nAnswer: B", "Answer: a plum", "B"], reference="a pear", **FRUIT)
        scorer.check_references([group.prompt])
        scores = scorer.score(group)
        with pytest.raises(DataError, match=r"scorer choice cannot use(?s:.*)there is no column 'options'"):
            scorer.check_references([make_prompt(reference="B")])
    assert [(score.value, score.answer) for score in scores] == [(1.0, "B"), (0.0, "C"), (0.0, None)]
    assert scores[0].explanation == "answer 'B' (from after 'Answer:'); B is the right choice"
