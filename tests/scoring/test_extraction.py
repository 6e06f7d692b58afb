from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from groups import make_group
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from selftrain.config import ExtractConfig, ScoreConfig
from selftrain.scoring import build, json_text
from selftrain.scoring.extraction import extract

KINDS = ("whole", "first_line", "last_line", "boxed", "after", "tag", "code", "json", "regex")
ARGUMENTS = {"after": "####", "tag": "answer", "regex": r"A: (\S+)"}


def config(by: str, take: str = "only", argument: str | None = None) -> ExtractConfig:
    return ExtractConfig.model_validate({"by": by, "argument": argument or ARGUMENTS.get(by), "take": take})


FOUND = [
    ("whole", " as it is\n", " as it is\n"),
    ("first_line", "\n \n one \ntwo", "one"),
    ("last_line", "one\n two\t\n\n", "two"),
    ("boxed", r"so \boxed{42}.", "42"),
    ("boxed", r"\boxed {\frac{1}{2}}", r"\frac{1}{2}"),
    ("boxed", r"\boxed{ \{1, 2\} }", r"\{1, 2\}"),
    ("boxed", r"\boxed{\boxed{42}}", r"\boxed{42}"),
    ("boxed", r"a set { of \boxed{42}", "42"),
    ("boxed", r"\boxed{41 ... no: \boxed{42}", "42"),
    ("boxed", r"\\\boxed{42}", "42"),
    ("after", "work\n#### 42 \nmore", "42"),
    ("after", "**####** 42", "42"),
    ("after", "**#### 42**", "42"),
    ("after", "**####** **42**", "**42**"),
    ("after", "#### 2**3", "2**3"),
    ("tag", "I use <answer> tags.\n<answer>\n42\n</answer>", "42"),
    ("tag", "<answer>a < b</answer>", "a < b"),
    ("code", "Here:\n```python\nprint(1)\n\nx = 2\n```\n", "print(1)\n\nx = 2"),
    ("code", "````\n```\ninner\n```\n````", "```\ninner\n```"),
    ("code", "~~~\nx\n~~~", "x"),
    ("json", '{"b": [1, 2.0], "a": null}', '{"a":null,"b":[1,2.0]}'),
    ("json", 'So:\n```json\n{"a": 1}\n```\nas [1] says', '{"a":1}'),
    ("json", 'The set {x} is {"a": "}{"} as you see', '{"a":"}{"}'),
    ("json", '"text"', '"text"'),
    ("json", 'It is {"a": "\\"[{"}.', '{"a":"\\"[{"}'),
    ("regex", "A: 42 B: 43", "42"),
]


@pytest.mark.parametrize(("by", "text", "answer"), FOUND)
def test_the_answer_is_taken_from_where_the_config_says(by: str, text: str, answer: str) -> None:
    assert extract(text, config(by)).answer == answer


NOT_FOUND = [
    ("first_line", " \n\t", "blank"),
    ("last_line", "", "blank"),
    ("boxed", "42", r"does not hold it (\boxed{})"),
    ("boxed", r"\boxed{42", "does not hold it"),
    ("boxed", r"\boxed{}", "is empty"),
    ("boxed", r"\boxed{41} \boxed{42}", "holds 2 of them"),
    ("boxed", r"\boxed{42} \boxed{42}", "holds 2 of them"),
    ("after", "### 42", "does not hold it (after '####')"),
    ("after", "####\n42", "is empty"),
    ("after", "#### 41 #### 42", "holds 2 of them"),
    ("tag", "<answer>42", "does not hold it (<answer>)"),
    ("tag", "<Answer>42</Answer>", "does not hold it"),
    ("tag", "<answer >42</answer>", "does not hold it"),
    ("tag", "<answer>41</answer><answer>42</answer>", "holds 2 of them"),
    ("code", "`x`", "does not hold it"),
    ("code", "```\nnever closed", "does not hold it"),
    ("code", "```\na\n```\n```\nb\n```", "holds 2 of them"),
    ("json", "no value", "does not hold it"),
    ("json", '{"a": 1, "a": 2}', "does not hold it"),
    ("json", '{"a": NaN}', "does not hold it"),
    ("json", '{"a": 1e999}', "does not hold it"),
    ("json", "{'a': 1}", "does not hold it"),
    ("json", '{"a": {"b": 1}', "does not hold it"),
    ("json", '{"a": 1} or {"a": 2}', "holds 2 of them"),
    ("regex", "A:", "does not hold it"),
]


@pytest.mark.parametrize("knob", ["weight", "cost", "timeout_seconds", "correct_at"])
@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_a_knob_that_is_no_finite_number_is_refused(knob: str, number: float) -> None:
    of_scorer = knob in ("weight", "cost")
    knobs = {"scorers": [{"name": "exact", knob: number}]} if of_scorer else {"scorers": ["exact"], knob: number}
    with pytest.raises(ValidationError, match=knob):
        ScoreConfig.model_validate(knobs)


@pytest.mark.parametrize(("by", "text", "why"), NOT_FOUND)
def test_a_text_without_one_answer_has_none_and_says_why(by: str, text: str, why: str) -> None:
    found = extract(text, config(by))
    assert found.answer is None
    assert why in found.why


@pytest.mark.parametrize("take", ["only", "first", "last"])
@pytest.mark.parametrize("by", ["boxed", "after", "tag", "code", "json", "regex"])
def test_take_chooses_among_several(by: str, take: str) -> None:
    form = {
        "boxed": "\\boxed{%s}\n",
        "after": "#### %s\n",
        "tag": "<answer>%s</answer>\n",
        "code": "```\n%s\n```\n",
        "json": "[%s] ",
        "regex": "A: %s\n",
    }[by]
    found = extract("".join(form % number for number in (1, 2, 3)), config(by, take))
    answer = found.answer.strip("[]") if found.answer else None
    assert answer == {"only": None, "first": "1", "last": "3"}[take]
    assert ("3" in found.why) == (take == "only")


PIECES = st.sampled_from(
    [
        "\\boxed{",
        "{",
        "}",
        "\\{",
        "####",
        "<answer>",
        "</answer>",
        "```",
        "```json\n",
        "\n",
        "[",
        "]",
        '"',
        "1",
        " ",
        "\\",
    ]
)


@given(st.sampled_from(KINDS), st.one_of(st.text(), st.lists(PIECES).map("".join)), st.sampled_from(["only", "last"]))
def test_no_text_breaks_an_extraction_and_an_answer_stands_in_the_text(by: str, text: str, take: str) -> None:
    found = extract(text, config(by, take if by not in ("whole", "first_line", "last_line") else "only"))
    assert found.why
    if found.answer is not None and by != "json":
        assert found.answer in text
    if found.answer is not None and by == "json":
        assert json_text.strict(found.answer) == json.loads(found.answer)


@settings(max_examples=40)
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda one: st.lists(one)), st.text("abc. \n")
)
def test_a_json_list_among_words_is_found_whole(value: Any, words: str) -> None:
    found = extract(f"{words}{json.dumps([value])}{words}", config("json"))
    assert found.answer is not None
    assert json.loads(found.answer) == [value]


@pytest.mark.parametrize("by", [one for one in KINDS if one != "regex"])
@pytest.mark.parametrize(
    "piece", ["\\boxed{", "{", "[", '["', "####", "<answer>", "```\n", "\\", "}", "\\boxed{}", "{}", "\n"]
)
def test_extraction_takes_time_linear_in_the_text(by: str, piece: str) -> None:
    start = time.monotonic()
    extract(piece * 20_000, config(by))
    assert time.monotonic() - start < 1.0


def test_the_explanation_has_both_halves() -> None:
    scorers = [{"name": "numeric", "extract": "boxed"}]
    with build(ScoreConfig.model_validate({"scorers": scorers}), Path()) as scorer:
        right, wrong, none = scorer.score(make_group([r"12 + 45 = \boxed{57}", r"\boxed{apples}", "57"]))
    assert (right.value, right.answer) == (1.0, "57")
    assert right.explanation == "answer '57' (from \\boxed{}); the number '57' is the reference's"
    assert (wrong.value, wrong.answer) == (0.0, "apples")
    assert wrong.explanation == "answer 'apples' (from \\boxed{}); the text holds no number"
    assert (none.value, none.answer, none.correct, none.error) == (0.0, None, False, None)
    assert none.explanation == "no answer: the text does not hold it (\\boxed{})"


def test_a_text_on_which_a_pattern_backtracks_for_ever_is_wrong_and_the_next_one_is_judged() -> None:
    entry = {"name": "exact", "extract": {"regex": r"^((?:a+)+)$"}}
    knobs = ScoreConfig.model_validate({"scorers": [entry], "timeout_seconds": 0.5})
    with build(knobs, Path()) as scorer:
        scores = scorer.score(make_group(["aaaa", "a" * 60 + "!", "57"], reference="aaaa"))
    assert [score.value for score in scores] == [1.0, 0.0, 0.0]
    assert scores[1].explanation == "judging it took over the time limit of 0.5 s, twice"


def test_long_answers_reach_the_scorer_whole_through_the_worker() -> None:
    knobs = ScoreConfig.model_validate({"scorers": [{"name": "exact", "extract": {"regex": r"(?s)A: (.*)"}}]})
    long = "x" * 50_000
    with build(knobs, Path()) as scorer:
        (score,) = scorer.score(make_group([f"A: {long}"], reference=long))
    assert score.value == 1.0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("boxd", "did you mean boxed"),
        ({"tags": "answer"}, "did you mean tag"),
        ("tag", "needs its argument"),
        ({"boxed": "x"}, "takes no argument"),
        ({"regex": "a(b)(c)"}, "needs one group"),
        ({"by": "last_line", "take": "last"}, "has no effect"),
    ],
)
def test_a_mistake_in_extract_is_refused_with_the_remedy(value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScoreConfig.model_validate({"scorers": [{"name": "exact", "extract": value}]})


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ("1", "1.0", True),
        ("1", "true", False),
        ("0", "false", False),
        ("[1, 2]", "[2, 1]", False),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', True),
        ('"1"', "1", False),
        ("null", "0", False),
        ("9007199254740993", "9007199254740992.0", False),
        ("[]", "{}", False),
    ],
)
def test_json_values_are_equal_by_value_and_type(first: str, second: str, equal: bool) -> None:
    assert json_text.same(json_text.strict(first), json_text.strict(second)) is equal
