"""What math-verify 0.9 says of answers that are meant to fool a verifier, and what the rule `math` says of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from groups import make_group

from selftrain.config import ScoreConfig
from selftrain.errors import ConfigError
from selftrain.scoring import build
from selftrain.scoring.mathematics import check, math, prepare

# (what it is, the text, the reference, whether math-verify takes it, whether the rule does, why they differ)
PROBES = [
    ("correct and boxed", r"So \boxed{42}.", "42", True, True, ""),
    ("wrong", r"\boxed{41}", "42", False, False, ""),
    ("empty", "", "42", False, False, ""),
    ("white space and punctuation", " . , ", "42", False, False, ""),
    ("two boxes, wrong then right", r"\boxed{41} \boxed{42}", "42", False, False, ""),
    ("two boxes, right then wrong", r"\boxed{42} \boxed{41}", "42", False, False, ""),
    ("a list of guesses in one box", r"\boxed{40, 41, 42}", "42", False, False, ""),
    ("a set of guesses", r"\boxed{\{40,41,42\}}", "42", False, False, ""),
    ("guesses with or", r"\boxed{40 \text{ or } 42}", "42", False, False, ""),
    ("plain numbers sprayed", "40 41 42", "42", True, False, "the last number is no answer"),
    ("plain numbers sprayed, the last one wrong", "42 41 7", "42", False, False, ""),
    ("the bare number", "42", "42", True, True, ""),
    ("plus or minus", r"\boxed{\pm 42}", "42", False, False, ""),
    ("x=42", r"\boxed{x=42}", "42", True, True, ""),
    ("an equation whose last side is right", r"\boxed{41=42}", "42", True, False, "the reference is no equation"),
    ("a trivial equation", r"\boxed{42=42}", "42", True, False, "the reference is no equation"),
    ("a chain of them", r"\boxed{40=41=42}", "42", True, False, "the reference is no equation"),
    ("percent for a number", r"\boxed{42\%}", "42", True, False, "42 % is 0.42"),
    ("percent of a hundredfold", r"\boxed{4200\%}", "42", True, False, "written in another form than the reference"),
    ("a number for percent", r"\boxed{0.42}", r"42\%", True, False, "written in another form than the reference"),
    ("an interval around it", r"\boxed{[42,42]}", "42", True, False, "an interval is no number"),
    ("a tuple for an interval", r"\boxed{(1,2)}", "[1,2]", False, False, ""),
    ("a tuple for a set", r"\boxed{(1,2)}", r"\{1,2\}", False, False, ""),
    ("a tuple in another order", r"\boxed{(2,1)}", "(1,2)", False, False, ""),
    ("a bare list in another order", r"\boxed{2,1}", "1,2", True, True, ""),
    ("a sum not worked out", r"\boxed{40+2}", "42", True, False, "a plain number is written as one"),
    (
        "the question asked again",
        r"\boxed{\int_0^6 \frac{7x}{3} dx}",
        "42",
        True,
        False,
        "no integral in the other",
    ),
    ("a factorial not worked out", r"\boxed{\frac{7!}{120}}", "42", True, False, "no factorial in the reference"),
    ("nearly it", r"\boxed{42.0000001}", "42", False, False, ""),
    ("six digits of a third", r"\boxed{0.333333}", r"\frac{1}{3}", True, False, "numbers are compared exactly"),
    ("two digits of a third", r"\boxed{0.33}", r"\frac{1}{3}", False, False, ""),
    ("a unit", r"\boxed{42\text{ cm}}", "42", True, True, ""),
    ("not it", r"\boxed{\text{not } 42}", "42", False, False, ""),
    ("not it, in words", "definitely not $42$", "42", True, False, "words are around it"),
    ("not a number", r"\boxed{nan}", "42", False, False, ""),
    ("infinity", r"\boxed{\infty}", "42", False, False, ""),
    ("the same letters in another order", r"\boxed{nabana}", r"\text{banana}", False, False, ""),
    ("a word", r"\boxed{banana}", r"\text{banana}", False, True, "equal words are equal"),
    ("a power that takes for ever", r"\boxed{9^{9^{9^{9}}}}", "42", False, False, ""),
    ("fullwidth digits", r"\boxed{４２}", "42", False, False, ""),
    ("a box in a box", r"\boxed{\boxed{42}}", "42", True, True, ""),
    ("a box that is never closed", r"\boxed{42", "42", False, False, "where it ends nobody knows"),
    ("thousands", r"\boxed{1,234}", "1234", True, True, ""),
    ("a decimal comma", r"\boxed{1,5}", "1.5", False, False, "it is a list of two numbers elsewhere"),
    ("a column for a tuple", r"\boxed{\begin{pmatrix}1\\2\end{pmatrix}}", "(1,2)", False, False, ""),
    ("a symbol", r"\boxed{x}", "x", True, True, ""),
    ("a letter of a choice", r"\boxed{A}", "A", True, True, ""),
    ("other letters for a choice", r"\boxed{B}", "A", False, False, ""),
    ("words around it", "The answer is 42", "42", True, False, "no mark says which part is the answer"),
]


@pytest.fixture(scope="module", autouse=True)
def _prepared() -> Iterator[None]:
    before = logging.root.manager.disable
    prepare()  # for a worker's process: it ends all logging
    yield
    logging.disable(before)


@pytest.mark.parametrize(
    ("text", "reference", "right"), [(row[1], row[2], row[4]) for row in PROBES], ids=[row[0] for row in PROBES]
)
def test_no_probe_fools_the_rule(text: str, reference: str, right: bool) -> None:
    check(reference)
    start = time.monotonic()
    verdict = math(text, reference)
    assert (verdict.value == 1.0) is right, verdict.explanation
    assert verdict.explanation
    assert time.monotonic() - start < 2


def test_the_rule_differs_from_the_library_only_where_a_reason_is_given() -> None:
    assert [row[0] for row in PROBES if (row[3] != row[4]) and not row[5]] == []
    assert [row[0] for row in PROBES if not row[3] and row[4]] == ["a word"]


MATHS = [(text, reference) for _, text, reference, *_ in PROBES]


@pytest.mark.parametrize(("text", "reference"), [one for one in MATHS if one[0].endswith("}")])
def test_words_after_the_box_change_nothing(text: str, reference: str) -> None:
    before = math(text, reference)
    after = math(f"Let me see.\n\n{text}\n\nThat is 42, or 1, as x = 5 or 1,234 shows. QED", reference)
    assert (after.value, after.answer) == (before.value, before.answer)


def test_grouped_digits_are_thousands_only_where_they_can_be() -> None:
    assert math(r"\boxed{0,333}", "333").value == 0.0
    assert math(r"\boxed{0,333}", "0.333").value == 0.0
    assert math(r"\boxed{10,333}", "10333").value == 1.0


@pytest.mark.parametrize(
    ("text", "reference", "right"),
    [
        ("She has 40 + 2 apples. The answer is 42.", "42", True),
        ("So it costs $1,234.50 in all", "1234.5", True),
        ("It was 50% of them", r"50\%", True),
        ("It was 50% of them", "50", False),
        ("I say 40, 41, 42", "42", True),
        ("It is 42. No: 41", "42", False),
        ("That makes 40+2", "42", False),
        ("That makes 42 million", "42", False),
        (r"The answer is 42, so \boxed{41}", "42", False),
        ("#### 41\nThe answer is 42", "42", False),
        (r"\boxed{41} or \boxed{42}: 42", "42", False),
        (r"So it is \boxed{42", "42", False),
        ("no number", "42", False),
    ],
)
def test_the_last_number_counts_only_where_it_is_asked_for(text: str, reference: str, right: bool) -> None:
    assert math(text, reference, fallback="last_number").value == float(right)
    assert math(text, reference).value == 0.0
    check(reference, fallback="last_number")


@pytest.mark.parametrize("reference", [r"\text{banana split}", "x>3", "(1,2)", r"2\sqrt{3}", r"\boxed{18}", "#### 18"])
def test_a_reference_that_refuses_wrong_copies_of_itself_is_taken(reference: str) -> None:
    check(reference)


def test_a_reference_that_a_wrong_copy_equals_is_a_mistake_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    from selftrain.scoring import mathematics

    monkeypatch.setattr(mathematics, "_difference", lambda *_, **__: None)
    with pytest.raises(ValueError, match=r"the wrong answer '43' equals the reference '42' by this rule"):
        check("42")


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{ 42 }",
        "\\boxed{\n42\n}",
        "\\boxed{\t42}",
        "\\boxed{\u00a042\u00a0}",
        r"\boxed{\,42\;}",
        r"\boxed{$42$}",
        r"$$\boxed{42}$$",
        r"\[ \boxed{42} \]",
        r"**\boxed{42}**",
        r"\boxed {42}",
    ],
)
def test_white_space_and_print_around_the_answer_change_nothing(text: str) -> None:
    assert math(text, "42").value == 1.0


@pytest.mark.parametrize("sign", ["\u200b", "\u202e", "\u2066", "\ufeff", "\x00", "\x08", "\ud800", "\u0336"])
def test_signs_that_nobody_sees_make_an_answer_wrong(sign: str) -> None:
    for text in (f"\\boxed{{4{sign}2}}", f"\\boxed{{{sign}42}}", f"\\boxed{{42{sign}}}"):
        assert math(text, "42").value == 0.0
    assert math(f"\\boxed{{41{sign}42}}", "42").value == 0.0


def test_the_fallback_is_a_parameter_of_the_scorer() -> None:
    knobs: dict[str, Any] = {"name": "math", "params": {"fallback": "last_number"}}
    with build(ScoreConfig.model_validate({"scorers": [knobs], "workers": 1}), Path()) as scorer:
        group = make_group(["It is 42.", "It is 41."], reference="#### 42")
        scorer.check_references([group.prompt])
        assert [score.value for score in scorer.score(group)] == [1.0, 0.0]
    knobs["params"] = {"fallback": "last"}
    with pytest.raises(ConfigError, match=r"params\.fallback: .*'none' or 'last_number'"):
        build(ScoreConfig.model_validate({"scorers": [knobs]}), Path())


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (r"\sqrt{2}", r"\boxed{1.414214}"),
        (r"\sqrt{2}", r"\boxed{1.4142135623730951}"),
        (r"\pi", r"\boxed{3.14159265}"),
        (r"(\sqrt{2}, 1)", r"\boxed{(1.414214, 1)}"),
        ("1.414214x", r"\boxed{\sqrt{2}x}"),
        (r"5\text{ cm}^2", r"\boxed{5\text{ cm}}"),
        ("$12", r"\boxed{12\text{ cents}}"),
        ("12", r"\boxed{12\text{xy}}"),
        ("12", r"\boxed{12\text{ xyz}}"),
    ],
)
def test_no_rounding_and_no_other_unit_is_accepted(reference: str, answer: str) -> None:
    assert math(answer, reference).value == 0.0


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (r"\frac{x}{2}", r"\boxed{0.5x}"),
        (r"\frac{5\pi}{2}", r"\boxed{2.5\pi}"),
        ("0.5x", r"\boxed{\frac{x}{2}}"),
        (r"5\text{ cm}^2", r"\boxed{5\text{ cm}^2}"),
        (r"5\text{ cm}^2", r"\boxed{5}"),
        ("$12", r"\boxed{\$12}"),
        ("12", r"\boxed{$12}"),
        ("5", r"\boxed{5\text{th}}"),
        ("60", r"\boxed{60\text{ mph}}"),
    ],
)
def test_a_decimal_that_is_exact_and_a_unit_left_out_are_accepted(reference: str, answer: str) -> None:
    assert math(answer, reference).value == 1.0
