from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from groups import make_group
from hypothesis import given
from hypothesis import strategies as st

from selftrain.config import ScoreConfig, ScorerConfig
from selftrain.scoring import build
from selftrain.scoring.expressions import read
from selftrain.scoring.mathematics import math
from selftrain.scoring.perturbing import as_text, of_mathematics, perturbed

OPTIONS = {"choices": ["red", "blue", "green"]}
MATHEMATICS = [
    ("42", {"43", "420", "-42", "52", r"42\%"}),
    ("0", {"1"}),
    ("1/3", {r"\frac{4}{3}", r"-\frac{1}{3}", "3"}),
    ("2.5", {"25", "3.5", "-2.5"}),
    (r"50\%", {"50", r"51\%"}),
    ("18 dollars", {r"19\text{ dollars}"}),
    ("She has 40 + 2 of them.\n#### 42", {"43"}),
    ("(1,2)", {"(2,1)"}),
    (r"\{1,2,3\}", {r"\{1,2\}", r"\{1,2,3,4\}"}),
    ("x>3", {"x<3"}),
    (r"2\sqrt{3}", {r"3\sqrt{3}", r"-2\sqrt{3}", r"2\sqrt{3}+1"}),
    (r"\infty", {r"-\infty"}),
    ("even", {"not even"}),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", {r"\begin{pmatrix}2\\2\end{pmatrix}"}),
    (r"(-\infty,3)\cup(5,\infty)", {r"(-\infty,3)"}),
]
OTHERS: list[tuple[dict[str, Any], str, dict[str, Any], set[str]]] = [
    ({"name": "exact"}, "Paris", {}, {"not Paris", "Parit"}),
    ({"name": "normalised", "params": {"punctuation": False}}, "the red house.", {}, {"the red", "red the house."}),
    ({"name": "numeric"}, "18", {}, {"19", "180", "-18", "18%"}),
    ({"name": "numeric", "params": {"tolerance": 5}}, "18", {}, {"180", "28"}),
    ({"name": "numeric"}, "1e999999", {}, {"-1E+999999"}),
    ({"name": "regex", "params": {"pattern": "is (.*)", "compare": "numeric"}}, "7", {}, {"8", "70"}),
    ({"name": "choice"}, "B", {}, {"A", "C"}),
    ({"name": "choice", "params": {"choices": "choices"}}, "blue", OPTIONS, {"A", "C", "red", "green"}),
    ({"name": "json_schema"}, '{"n": 1}', {}, {'{"n":2}', "{}"}),
    ({"name": "json_schema", "params": {"match": "subset"}}, '{"n": 1}', {}, {'{"n":2}', "{}"}),
    ({"name": "verifier.py:mine"}, "18", {}, {"19"}),
    ({"name": "verifier.py:mine"}, "red house", {}, {"house red"}),
]


@pytest.mark.parametrize(("reference", "some"), MATHEMATICS)
def test_mathematical_answers_near_the_reference_are_wrong(reference: str, some: set[str]) -> None:
    near = of_mathematics(reference)
    assert some <= set(near), near
    assert [one for one in near if math(rf"\boxed{{{one}}}", reference).value != 0.0] == []


@pytest.mark.parametrize(("scorer", "reference", "metadata", "some"), OTHERS)
def test_answers_near_the_reference_are_wrong_by_every_rule(
    scorer: dict[str, Any], reference: str, metadata: dict[str, Any], some: set[str], tmp_path: Path
) -> None:
    config = ScorerConfig.model_validate(scorer)
    near = perturbed(reference, config, metadata)
    assert some <= set(near), near
    assert near == perturbed(reference, config, metadata)
    if ":" in config.name:
        return
    texts = [f"it is {one}" if config.name == "regex" else one for one in near]
    with build(ScoreConfig.model_validate({"scorers": [scorer]}), tmp_path) as built:
        group = make_group(texts, reference=reference, **metadata)
        assert {score.value for score in built.score(group)} == {0.0}


def test_nothing_is_made_up_where_nothing_is_known_to_be_wrong() -> None:
    assert perturbed(None, ScorerConfig(name="exact")) == ()
    assert perturbed("7", ScorerConfig(name="reasoning_gym")) == ()
    assert perturbed('{"n": 1}', ScorerConfig(name="json_schema", params={"match": "none"})) == ()
    assert of_mathematics("no final answer here") == ()
    assert "-\\pm 3" not in of_mathematics(r"\pm 3")
    assert all("+1" not in one for one in of_mathematics("x^2+C"))


def test_a_subset_may_have_more_and_a_whole_object_may_not() -> None:
    whole, subset = (
        perturbed('{"n": 1}', ScorerConfig(name="json_schema", params={"match": match}))
        for match in ("exact", "subset")
    )
    assert '{"n":1,"x":null}' in whole
    assert '{"n":1,"x":null}' not in subset


@given(st.one_of(st.integers(-(10**30), 10**30), st.decimals(allow_nan=False, allow_infinity=False, places=4)))
def test_no_number_near_another_equals_it(number: int | Decimal) -> None:
    reference = f"{number:f}" if isinstance(number, Decimal) else str(number)
    for one in of_mathematics(reference):
        given_one = read(one)
        assert given_one.number is not None
        assert given_one.number / (100 if given_one.percent else 1) != Fraction(number)
        assert math(one, reference).value == 0.0


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3), st.sampled_from([0, 0.5, 3, 1000]))
def test_numbers_near_another_are_more_than_the_tolerance_away(number: Decimal, tolerance: float) -> None:
    scorer = ScorerConfig(name="numeric", params={"tolerance": tolerance})
    for one in perturbed(f"{number:f}", scorer):
        value = Fraction(one.removesuffix("%")) / (100 if one.endswith("%") else 1)
        assert abs(value - Fraction(number)) > tolerance


@given(st.text(min_size=1, max_size=40))
def test_changed_words_are_other_words_once_normalised(text: str) -> None:
    from selftrain.scoring.rules import normal_form

    for one in perturbed(text, ScorerConfig(name="normalised")):
        assert normal_form(one) != normal_form(text)


@pytest.mark.parametrize(
    ("extract", "text"),
    [
        ("boxed", r"\boxed{43}"),
        ({"after": "####"}, "#### 43"),
        ({"tag": "answer"}, "<answer>43</answer>"),
        ("code", "```\n43\n```"),
        ("last_line", "43"),
        ({"regex": "is (.*)"}, None),
    ],
)
def test_an_answer_is_written_where_the_scorer_looks_for_it(extract: Any, text: str | None) -> None:
    assert as_text("43", ScorerConfig.model_validate({"name": "exact", "extract": extract})) == text
    assert as_text("43", ScorerConfig(name="math")) == r"\boxed{43}"
    assert as_text("x = 1", ScorerConfig(name="code")) == "```\nx = 1\n```"


def test_a_solution_has_mutants_of_the_function_that_the_tests_are_of() -> None:
    scorer = ScorerConfig(name="code", params={"entry_point": "name", "prepend": "begins"})
    near = perturbed("    return n + 1\n", scorer, {"name": "f", "begins": "def f(n):\n"})
    assert near
    for source in near:
        found: dict[str, Any] = {}
        exec(source, found)  # ours, and one line long
        assert found["f"](5) != 6
