from __future__ import annotations

import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.scoring.numerals import numerals, same
from selftrain.scoring.rules import check_reference, check_regex, exact, normalised, numeric, regex


def answered(text: str, reference: str, **params: object) -> bool:
    return numeric(text, reference, **params).value == 1.0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        (" 57", "57"),
        ("57.", "57"),
        ("57,", "57"),
        ("The answer is 57", "57"),
        ("**57**", "57"),
        ("$57", "57"),
        ("=57", "57"),
        ("57 apples", "57"),
        ("-> 57", "57"),
        ("\\boxed{57}", "57"),
        ("057", "57"),
        ("57.0", "57"),
        ("+57", "57"),
        ("5.7e1", "57"),
        ("1,234", "1234"),
        ("1,234,567.5", "1234567.5"),
        ("1234", "1,234"),
        (".5", "0.5"),
        ("-5", "-5"),
        ("−5", "-5"),
        ("(-5)", "-5"),
        ("50%", "50%"),
        ("50 percent", "50%"),
        ("50\\%", "50 %"),
        ("1e999999999", "1e999999999"),
        ("57!", "57"),
    ],
)
def test_a_text_with_the_one_right_number_is_correct(text: str, reference: str) -> None:
    assert answered(text, reference)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("", "57"),
        ("fifty-seven", "57"),
        ("58", "57"),
        ("157", "57"),
        ("57 58", "57"),
        ("57 57", "57"),
        ("57 or 58", "57"),
        ("57apples", "57"),
        ("x57", "57"),
        ("1/57", "57"),
        ("57/1", "57"),
        ("10-57", "57"),
        ("10–57", "57"),
        ("57^1", "57"),
        ("57²", "57"),
        ("57½", "57"),
        ("1,57", "57"),
        ("57,1", "57"),
        ("0,057", "57"),
        ("1,2345", "12345"),
        ("12,34", "1234"),
        ("1.2.3", "1.2"),
        ("57..", "57"),
        ("1\u00a0057", "57"),
        ("1\u202f057", "57"),
        ("٥٧", "57"),
        ("５７", "57"),
        ("5７", "57"),
        ("57%", "57"),
        ("57 %", "57"),
        ("57\\%", "57"),
        ("57 percent", "57"),
        ("57％", "57"),
        ("57", "57%"),
        ("0.57", "57%"),
        ("-57", "57"),
        ("- 57", "57"),
        ("-$57", "57"),
        ("-(57)", "57"),
        ("-  $ 57", "57"),
        ("-        57", "57"),
        (r"-\boxed{57}", "57"),
        (r"-\text{57}", "57"),
        ("minus 57", "57"),
        ("√57", "57"),
        (r"\sqrt{57}", "57"),
        ("x^57", "57"),
        ("57^2", "57"),
        ("57‰", "57"),
        ("57 million", "57"),
        ("57 dozens", "57"),
        ("57 pi", "57"),
        (r"57\pi", "57"),
        ("−57", "57"),
        ("--57", "57"),
        ("57-", "57"),
        ("0x39", "57"),
        ("5_7", "57"),
        ("57e", "57"),
        ("57e0.0", "57"),
        ("nan", "57"),
        ("Infinity", "57"),
        ("57.0000001", "57"),
        ("1e999999999", "57"),
        ("1e99999999999999999999999999", "57"),
        ("9" * 5000, "57"),
    ],
)
def test_a_text_that_is_not_plainly_the_number_is_wrong(text: str, reference: str) -> None:
    assert not answered(text, reference)


def test_take_chooses_among_several_numbers() -> None:
    assert answered("12 + 45 = 57", "57", take="last")
    assert answered("57, that is 12 + 45", "57", take="first")
    assert not answered("12 + 45 = 57", "57")
    assert not answered("12 + 45 = 57 apples2", "57", take="last")


def test_a_tolerance_is_the_largest_difference_that_is_correct() -> None:
    assert answered("0.3", "0.1", tolerance=0.2)
    assert not answered("0.31", "0.1", tolerance=0.2)
    assert not answered("1e999999999", "1", tolerance=0.2)
    assert not answered("1" + "0" * 30 + "1", "1" + "0" * 31, tolerance=0.5)


def test_a_huge_exponent_costs_no_time() -> None:
    start = time.monotonic()
    for text in ("1e999999999999999999", "1e-999999999999999999", "1e999999999", "9e99999"):
        for tolerance in (0.0, 1e-6):
            assert not answered(text, "57", tolerance=tolerance)
    assert time.monotonic() - start < 0.5


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{}", " {}", "{}.", "so {} it is", "{:,}", "\n{}\n", "**{}**"]))
def test_a_number_is_read_back_from_every_way_of_writing_it(number: int, form: str) -> None:
    assert answered(form.format(number), str(number))


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))
def test_two_numbers_are_the_same_answer_only_when_equal(first: int, second: int) -> None:
    assert answered(str(first), str(second)) == (first == second)


@given(st.text())
def test_no_text_breaks_a_rule(text: str) -> None:
    verdicts = [exact(text, "57"), normalised(text, "57", punctuation=False, articles=False), numeric(text, "57")]
    verdicts.append(regex(text, "57", pattern=r"(\d+)", take="last", compare="numeric"))
    for verdict in verdicts:
        assert verdict.value in (0.0, 1.0)
        assert verdict.explanation


@given(st.text(alphabet="0123456789.,-+eE%/ −٣５x$()"))
def test_a_numeral_is_read_whole_or_not_at_all(text: str) -> None:
    for numeral in numerals(text):
        if numeral.number is not None:
            assert Decimal(numeral.text.replace(",", "").replace("−", "-")) == numeral.number


@given(st.decimals(allow_nan=False, allow_infinity=False), st.decimals(0, 10, allow_nan=False))
def test_a_number_is_the_same_as_itself(number: Decimal, tolerance: Decimal) -> None:
    assert same(number, number, tolerance)


def test_exact_forgives_white_space_at_the_ends_and_nothing_else() -> None:
    assert exact(" Paris\n", "Paris").value == 1.0
    assert exact("paris", "Paris").value == 0.0
    assert exact("Paris.", "Paris").value == 0.0
    assert exact(" Paris", "Paris", strip=False).value == 0.0
    assert exact("Par is", "Paris").value == 0.0


@pytest.mark.parametrize("text", ["4⁶", "⁴⁶", "₄₆", "4₆", "⁴6"])
def test_normalised_keeps_raised_and_lowered_digits_apart(text: str) -> None:
    assert normalised(text, "46").value == 0.0
    assert normalised(text, text).value == 1.0


def test_normalised_reads_a_raised_digit_as_a_power() -> None:
    assert normalised("x² + 1", "x^2 + 1").value == 1.0


@pytest.mark.parametrize("text", ["±46", "± 46", "\\pm 46", "$\\pm46$", "∓46", "\\mp{46}"])
def test_numeric_takes_plus_or_minus_for_no_number(text: str) -> None:
    assert numeric(text, "46").value == 0.0


def test_normalised_folds_case_white_space_and_compatible_characters() -> None:
    assert normalised("  THE\tﬁne  Straße ", "the fine strasse").value == 1.0
    assert normalised("the cat.", "cat").value == 0.0
    assert normalised("The cat.", "cat", punctuation=False, articles=False).value == 1.0
    assert normalised("theatre", "atre", articles=False).value == 0.0


@given(st.text())
def test_normalised_ignores_white_space_and_case_around_any_reference(text: str) -> None:
    if "".join(text.split()):
        assert normalised(f"\t {text.strip()} \n", text).value == 1.0


def test_regex_takes_the_one_group_or_the_one_named_answer() -> None:
    assert regex("#### 57", "57", pattern=r"#### (\d+)").answer == "57"
    named = r"(so|thus) (?P<answer>\d+)"
    assert regex("thus 57", "57", pattern=named).value == 1.0
    assert regex("nothing", "57", pattern=named).value == 0.0
    assert regex("a", "57", pattern=r"a(b)?").explanation == "the pattern occurs, but its group matched nothing"


def test_regex_wants_one_match_unless_told_which() -> None:
    text = "#### 56\n#### 57"
    assert regex(text, "57", pattern=r"#### (\d+)").value == 0.0
    assert regex(text, "57", pattern=r"#### (\d+)", take="last").value == 1.0
    assert regex(text, "56", pattern=r"#### (\d+)", take="first").value == 1.0
    assert regex("A: 57.0", "57", pattern=r"A: (\S+)", compare="numeric").value == 1.0
    assert regex("A: PARIS", "Paris", pattern=r"A: (\S+)", compare="normalised").value == 1.0


@pytest.mark.parametrize("reference", ["", "  ", "five", "1 or 2", "1/2", "1,2"])
def test_a_reference_that_is_no_number_is_a_mistake_of_the_data(reference: str) -> None:
    with pytest.raises(ValueError, match="reference"):
        check_reference(numeric, reference, {})
    with pytest.raises(ValueError, match="reference"):
        check_regex(reference, pattern="(.*)", compare="numeric")


def test_a_reference_that_would_pay_for_an_empty_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="blank"):
        check_reference(exact, " ", {})
    with pytest.raises(ValueError, match="nothing is left"):
        check_reference(normalised, "The.", {"punctuation": False, "articles": False})
    check_reference(normalised, "The.", {})
