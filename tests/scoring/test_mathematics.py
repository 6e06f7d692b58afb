from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from groups import make_group, make_prompt
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.config import ScoreConfig
from selftrain.errors import DataError
from selftrain.scoring import build
from selftrain.scoring.combined import CombinedScorer
from selftrain.scoring.expressions import final_answer, refusal
from selftrain.scoring.mathematics import check, math

HONEST = [
    ("42", "42"),
    ("42.", "42"),
    ("**42**", "42"),
    ("$42$", "42"),
    (r"\(42\)", "42"),
    ("−5", "-5"),
    ("1,234", "1234"),
    ("1234", "1,234"),
    ("18 dollars", "18"),
    (r"So \boxed{1{,}234}", "1234"),
    (r"We have \boxed{7}. Thus \boxed{7}", "7"),
    (r"\boxed{\boxed{7}}", "7"),
    (r"12 + 45 \ne 58, so \boxed{57}, not 58", "57"),
    (r"\boxed{\frac12}", "1/2"),
    (r"\boxed{0.5}", r"\frac{1}{2}"),
    (r"\boxed{2\frac{1}{2}}", "2.5"),
    (r"\boxed{-\frac{3}{4}}", "-0.75"),
    (r"\boxed{3.0\times 10^{8}}", "300000000"),
    (r"\boxed{18\text{ cm}}", "18"),
    (r"\boxed{18}", r"18\text{ cm}^2"),
    (r"\boxed{\$18.50}", "18.5"),
    (r"\boxed{90^\circ}", "90"),
    (r"\boxed{50\%}", "50%"),
    (r"\boxed{50 percent}", r"50\%"),
    ("3 * 6 = 18\n#### 18", "She has 3*6=<<3*6=18>>18 eggs.\n#### 18"),
    ("#### 18 dollars", "#### 18"),
    (r"\boxed{18}", r"Then $3 \cdot 6 = \boxed{18}$ eggs."),
    (r"\boxed{x=5}", "5"),
    (r"\boxed{5}", "x=5"),
    (r"\boxed{f(x)=2x}", "2x"),
    (r"\boxed{y=2x+1}", "y = 1+2x"),
    (r"\boxed{x>3}", "x > 3"),
    (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{\sqrt{2}}{2}"),
    (r"\boxed{x^2+2x+1}", "(x+1)^2"),
    (r"\boxed{x^2y^2}", "y^2x^2"),
    ("6xy", "6yx"),
    ("2*pi", r"2\pi"),
    (r"\boxed{e^{x^2}}", r"e^{x^2}"),
    (r"\boxed{\left(\frac12, 3\right)}", r"(\frac{1}{2},3)"),
    (r"\boxed{[0,\infty)}", r"[0, \infty)"),
    (r"\boxed{(-\infty,3)\cup(5,\infty)}", r"(-\infty, 3) \cup (5, \infty)"),
    (r"\boxed{2,1}", "1,2"),
    (r"\boxed{\{2,1\}}", r"\{1,2\}"),
    (r"\boxed{(1,2),(3,4)}", "(3,4), (1,2)"),
    (r"\boxed{\begin{pmatrix}1\\2\end{pmatrix}}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"\boxed{\pm 3}", r"\pm3"),
    (r"\boxed{\text{even}}", "even"),
    ("Evelyn", r"\text{Evelyn}"),
    ("Even", r"\text{even}"),
    ("2√3", r"2\sqrt{3}"),
    ("√(x+1)", r"\sqrt{x+1}"),
    ("18 pi", r"18\pi"),
    ("18 sec", "18"),
]

CHEATS = [
    ("42 pi", "42"),
    ("42", "42 pi"),
    (r"\boxed{42 dozens}", "42"),
    (r"\boxed{42\text{ fifths}}", "42"),
    (r"\boxed{42\text{ sqrt}}", "42"),
    ("", "42"),
    (" . ", "42"),
    ("nan", "42"),
    ("４２", "42"),
    ("40 41 42", "42"),
    ("42\n41", "42"),
    ("The answer is 42", "42"),
    ("definitely not $42$", "42"),
    (r"\boxed{}", "42"),
    (r"\boxed{42", "42"),
    (r"\boxed{41}\boxed{42}", "42"),
    (r"\boxed{42} or \boxed{41}", "42"),
    ("#### 41\n#### 42", "42"),
    (r"\boxed{40,41,42}", "42"),
    (r"\boxed{\{40,41,42\}}", "42"),
    (r"\boxed{40 \text{ or } 42}", "42"),
    (r"\boxed{x = 5 or x = 6}", "5"),
    (r"\boxed{x=5, x=6}", "5"),
    (r"\boxed{5 \lor 6}", "5"),
    (r"\boxed{\pm 42}", "42"),
    (r"\boxed{42?}", "42"),
    (r"\boxed{42 or}", "42"),
    (r"\boxed{41;42}", "42"),
    (r"\boxed{41\;42}", "4142"),
    (r"\boxed{\text{not } 42}", "42"),
    (r"\boxed{42=42}", "42"),
    (r"\boxed{5=5}", "5"),
    (r"\boxed{40=41=42}", "42"),
    (r"\boxed{\sqrt{2}=1.41}", r"\sqrt{2}"),
    (r"\boxed{\approx 42}", "42"),
    (r"\boxed{42\%}", "42"),
    (r"\boxed{4200\%}", "42"),
    (r"\boxed{0.42}", r"42\%"),
    (r"\boxed{50\%}", "50"),
    (r"\boxed{[42,42]}", "42"),
    (r"\boxed{(1,2)}", "[1,2]"),
    (r"\boxed{(1,2)}", r"\{1,2\}"),
    (r"\boxed{(2,1)}", "(1,2)"),
    (r"\boxed{(1,2),(3,4),(5,6)}", "(1,2),(3,4)"),
    (r"\boxed{1,1}", "1,2"),
    (r"\boxed{1,5}", "1.5"),
    (r"\boxed{40+2}", "42"),
    (r"\boxed{6 \cdot 7}", "42"),
    (r"\boxed{84/2}", "42"),
    (r"\boxed{\frac{7!}{120}}", "42"),
    (r"\boxed{\int_0^6 \frac{7x}{3} dx}", "42"),
    (r"\boxed{\sum_{k=1}^{n} k}", r"\frac{n(n+1)}{2}"),
    (r"\boxed{42.0000001}", "42"),
    (r"\boxed{0.333333}", r"\frac{1}{3}"),
    (r"\boxed{\infty}", "42"),
    (r"\boxed{5 \text{ million}}", "5"),
    (r"\boxed{5 million}", "5"),
    (r"\boxed{5}", r"5 \text{ million}"),
    (r"\boxed{5 cm}", r"5\text{ m}"),
    (r"\boxed{y=5}", "x=5"),
    (r"\boxed{x>3}", "x<3"),
    (r"\boxed{x>3}", "3"),
    (r"\boxed{\sqrt{2},\sqrt{3}}", r"\sqrt{2}"),
    (r"\boxed{nabana}", r"\text{banana}"),
    ("1" * 400, "1"),
    ("9**9**9", "42"),
    (r"\boxed{9^{9^{9^9}}}", r"\sqrt{2}"),
    (r"\boxed{2^{999999999}}", r"2^{x}"),
    (r"\boxed{2^{99 \cdot 99 \cdot 99 \cdot 99}}", r"2^{x}"),
    (r"\boxed{" + "9" * 90 + r"\sqrt{2}}", r"\sqrt{2}"),
]


@pytest.fixture(scope="module")
def scorer() -> Iterator[CombinedScorer]:
    with build(ScoreConfig.model_validate({"scorers": ["math"]}), Path()) as built:
        yield built


@pytest.mark.parametrize(("text", "reference"), HONEST)
def test_an_honest_answer_is_right(scorer: CombinedScorer, text: str, reference: str) -> None:
    group = make_group([text], reference=reference)
    scorer.check_references([group.prompt])
    (score,) = scorer.score(group)
    assert (score.value, score.error) == (1.0, None), score.explanation


@pytest.mark.parametrize(("text", "reference"), CHEATS)
def test_a_cheat_is_wrong_and_costs_no_time(scorer: CombinedScorer, text: str, reference: str) -> None:
    group = make_group([text], reference=reference)
    scorer.check_references([group.prompt])
    start = time.monotonic()
    (score,) = scorer.score(group)
    assert (score.value, score.error) == (0.0, None), score.explanation
    assert score.explanation
    assert time.monotonic() - start < 3


MONSTER = r"\boxed{((9^{999})^{999})^{999}}"
POWER = r"(2\sqrt{2})^{61}"  # a reference that lets high powers of brackets be compared at all


@pytest.mark.slow
def test_an_answer_that_takes_for_ever_to_compare_is_wrong(scorer: CombinedScorer) -> None:
    slow, next_one = scorer.score(make_group([MONSTER, r"\boxed{(\sqrt{8})^{61}}"], reference=POWER))
    assert (slow.value, next_one.value) == (0.0, 1.0)
    assert slow.explanation is not None
    assert "it could not be compared within 4 s" in slow.explanation


@pytest.mark.slow
def test_the_worker_is_killed_where_the_time_of_a_candidate_is_shorter_than_that() -> None:
    knobs = ScoreConfig.model_validate({"scorers": ["math"], "timeout_seconds": 1})
    with build(knobs, Path()) as built:
        slow, next_one = built.score(make_group([MONSTER, r"\boxed{(\sqrt{8})^{61}}"], reference=POWER))
    assert (slow.value, slow.error) == (0.0, None)
    assert slow.explanation == "judging it took over the time limit of 1 s, twice"
    assert next_one.value == 1.0


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("", "blank"),
        ("the answer is 5", "holds words"),
        (r"\boxed{1} or \boxed{2}", "2 different answers"),
        (r"\frac{1}{", "does not equal itself"),
        ("x^", "does not equal itself"),
        ("1\n2", "several lines"),
    ],
)
def test_a_reference_that_does_not_equal_itself_is_a_mistake_of_the_data(reference: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(reference)


def test_references_are_checked_in_the_worker_and_named(scorer: CombinedScorer) -> None:
    scorer.check_references([make_prompt(str(number), str(number)) for number in range(300)])
    with pytest.raises(
        DataError,
        match=r"scorer math cannot use the references of 2 prompts:(?s:.*)prompt c: there is no(?s:.*)prompt b",
    ):
        scorer.check_references([make_prompt("a", "1"), make_prompt("b", "one thing"), make_prompt("c", None)])


@given(st.fractions(max_denominator=1000))
def test_a_fraction_equals_itself_in_both_ways_of_writing_it(number: object) -> None:
    top, bottom = number.numerator, number.denominator  # type: ignore[attr-defined]
    reference = rf"\frac{{{top}}}{{{bottom}}}"
    assert math(f"{top}/{bottom}" if bottom > 1 else str(top), reference).value == 1.0
    assert math(f"{top + 1}/{bottom}" if bottom > 1 else str(top + 1), reference).value == 0.0


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789+-*/^(){}[],.=<>x %$\\abcdefgh\n!"))
def test_no_text_breaks_the_reading_of_an_answer(text: str) -> None:
    answer, why = final_answer(text)
    assert why
    if answer is not None:
        refusal(answer, "42")
        assert math(text, "42").value == 0.0 or "42" in text


def test_equal_numbers_count_as_one_answer_in_votes(scorer: CombinedScorer) -> None:
    scores = scorer.score(make_group([r"\boxed{0.5}", r"\boxed{\frac{1}{2}}", "1/2", "50%"], reference="1/2"))
    assert [score.answer for score in scores] == ["1/2", "1/2", "1/2", "50%"]


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        # Letters and words after a number that are no unit of it
        (r"5\text{ i}", "5"),
        (r"5\mathrm{e}", "5"),
        (r"5\text{x}", "5"),
        (r"5\text{ x 2}", "5"),
        (r"5\text{k}", "5"),
        (r"5\text{ six}", "5"),
        ("5 lakh", "5"),
        ("5 grand", "5"),
        ("5 bn", "5"),
        ("5 ab", "5"),
        ("5 xyz", "5"),
        (r"5\text{}^2", "5"),
        # Units that differ
        ("90 rad", r"90^\circ"),
        (r"20^\circ\text{F}", r"20^\circ\text{C}"),
        ("5 cents", r"\$5"),
        (r"\$5", r"5\text{ cents}"),
        ("5 km", "5 m"),
        # Other digits, bases, letters and marks
        ("101", "101_2"),
        ("101_3", "101_2"),
        ("110_2", "101_{2}"),
        ("R-r", "r-R"),
        (r"\pi r^2-\pi R^2", r"\pi(R^2-r^2)"),
        ("f'(x)", "f(x)"),
        (r"\textbf{(B)}", r"\text{(A)}"),
        (r"6\boxed{5}", "5"),
        (r"6\phantom{\boxed{5}}", "5"),
    ],
)
def test_what_only_looks_like_the_reference_is_wrong(answer: str, reference: str) -> None:
    verdict = math(rf"\boxed{{{answer}}}", reference)
    assert verdict.value == 0.0, verdict


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        (r"\textbf{(A)}", r"\text{(A)}"),
        (r"\text{3}", "3"),
        (r"\mathbf{3}", "3"),
        (r"\varnothing", r"\emptyset"),
        ("12 cm^2", "12"),
        (r"12\text{ m/s}^2", "12"),
        ("5 apples", "5 apple"),
        ("90 degrees", r"90^\circ"),
        (r"20^\circ", r"20^\circ\text{C}"),
        (r"20\text{ C}", r"20^\circ\text{C}"),
        (r"5\text{ dollars per hour}", r"\$5"),
        ("5", r"\$5"),
        ("101_{2}", "101_2"),
        ("-r+R", "R-r"),
        ("a - b", "a-b"),
        ("f'(x)=2x", "f'(x)=2x"),
        (r"$\boxed{5}$", "5"),
    ],
)
def test_what_is_only_written_otherwise_is_right(answer: str, reference: str) -> None:
    verdict = math(rf"\boxed{{{answer}}}", reference)
    assert verdict.value == 1.0, verdict


def test_a_box_without_braces_holds_the_one_sign_that_stands_alone() -> None:
    assert [math(text, "5").value for text in (r"So $\boxed 5$.", r"\boxed 5", r"It is \boxed 5 .")] == [1.0] * 3
    assert [math(text, "5").value for text in (r"\boxed 52", r"\boxed 5.2", r"\boxed 5 \boxed{6}")] == [0.0] * 3
