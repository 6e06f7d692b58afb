"""Columns by name: conversations, nested columns, numbers; and what a row may not hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.config import Columns, PromptsConfig
from selftrain.errors import DataError
from selftrain.prompts import load
from selftrain.prompts.building import build
from selftrain.records import Prompt


def one(folder: Path, row: dict[str, Any], source: dict[str, Any] | None = None, **knobs: Any) -> Prompt:
    (folder / "a.jsonl").write_text(json.dumps(row) + "\n")
    data = {"train": {"path": "a.jsonl", **(source or {})}, **knobs}
    (prompt,) = load(PromptsConfig.model_validate(data), folder).train.prompts
    return prompt


def turns(prompt: Prompt) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in prompt.messages or ()]


DIALOGUE = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "3 + 4?"},
]
SHAREGPT = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "Hi"},
    {"from": "gpt", "value": "Hello"},
    {"from": "human", "value": "3 + 4?"},
]


def test_a_prompt_column_may_be_a_conversation_in_either_spelling(tmp_path: Path) -> None:
    expected = [(turn["role"], turn["content"]) for turn in DIALOGUE]
    by_role = one(tmp_path, {"prompt": DIALOGUE, "reference": 7})
    by_speaker = one(tmp_path, {"prompt": SHAREGPT, "reference": 7})
    in_messages = one(tmp_path, {"messages": DIALOGUE, "reference": 7})
    named = one(tmp_path, {"conversations": SHAREGPT, "reference": 7}, {"columns": {"messages": "conversations"}})
    assert turns(by_role) == turns(by_speaker) == turns(in_messages) == turns(named) == expected
    assert by_role.id == by_speaker.id == in_messages.id == named.id
    assert named.metadata == {}


def test_worked_examples_come_after_the_rows_own_system_message(tmp_path: Path) -> None:
    shown = one(tmp_path, {"prompt": DIALOGUE, "reference": 7}, few_shot=[{"prompt": "q", "completion": "r"}])
    assert [role for role, _ in turns(shown)] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert turns(shown)[1] == ("user", "q")


def test_two_system_messages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1 has a system message of its own \('Be brief.'\), and prompts.system"):
        one(tmp_path, {"prompt": DIALOGUE, "reference": 7}, system="Be long.")
    assert turns(one(tmp_path, {"prompt": DIALOGUE[1:], "reference": 7}, system="Be long."))[0][1] == "Be long."


def test_one_turn_is_plain_text_where_the_format_is_text_and_more_are_refused(tmp_path: Path) -> None:
    assert one(tmp_path, {"prompt": DIALOGUE[1:2], "reference": 7}, format="text").text == "Hi"
    with pytest.raises(DataError, match=r"is a conversation of 4 messages; set prompts.format: chat"):
        one(tmp_path, {"prompt": DIALOGUE, "reference": 7}, format="text")


def test_parts_of_text_are_joined(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "3 + "}, {"text": "4", "image": None}, "?"]
    assert turns(one(tmp_path, {"prompt": [{"role": "user", "content": parts}], "reference": 7})) == [
        ("user", "3 + 4?")
    ]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "image"}, r"images are not supported: a\.jsonl, line 1 has a part of type 'image'"),
        ({"type": "image_url", "image_url": {"url": "x"}}, "images are not supported"),
        ({"type": "input_audio"}, "recordings are not supported"),
        ({"type": "video"}, "videos are not supported"),
        ({"type": "text"}, "a part that is no text"),
        (3, "a part that is no text"),
    ],
)
def test_parts_that_are_no_text_are_refused_by_name(tmp_path: Path, part: Any, said: str) -> None:
    content = [{"type": "text", "text": "What is this?"}, part]
    with pytest.raises(DataError, match=said):
        one(tmp_path, {"prompt": [{"role": "user", "content": content}], "reference": 7})


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ([{"role": "user"}], "a message needs role and content"),
        ([{"role": "user", "content": None}], "content must be text, not NoneType"),
        ([{"from": "narrator", "value": "x"}], "from 'narrator'; known are human, user, gpt"),
        ([{"from": "gpt", "value": "y"}], "prompt holds the assistant's turn alone"),
        (
            [{"role": role, "content": "x"} for role in ("user", "assistant", "assistant")],
            "prompt ends with two turns of the assistant",
        ),
        (
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}],
            "the completion is empty",
        ),
        ([], "the prompt must be text or a number, not list"),
    ],
)
def test_conversations_that_cannot_be_asked_are_refused(tmp_path: Path, prompt: Any, said: str) -> None:
    with pytest.raises(DataError, match=rf"a\.jsonl, line 1.*{said}"):
        one(tmp_path, {"prompt": prompt, "reference": 7})


def test_a_completion_may_be_one_turn_of_the_assistant(tmp_path: Path) -> None:
    row = {"prompt": DIALOGUE, "completion": [{"role": "assistant", "content": "7"}], "reference": 7}
    assert one(tmp_path, row).completion == "7"
    with pytest.raises(DataError, match="completion must be text or one turn of the assistant, not turns of: user"):
        one(tmp_path, {**row, "completion": [{"role": "user", "content": "7"}]})


def test_a_dotted_name_looks_into_columns_unless_there_is_one_of_that_name(tmp_path: Path) -> None:
    row = {"asked": {"text": "x"}, "answers": {"text": ["1", "2"]}, "answer.text": "literal"}
    columns = {"prompt": "asked.text", "reference": "answers.text.1"}
    inside = one(tmp_path, row, {"columns": columns}, format="text")
    assert (inside.text, inside.reference) == ("x", "2")
    literal = one(tmp_path, row, {"columns": {**columns, "reference": "answer.text"}}, format="text")
    assert literal.reference == "literal"
    assert "answer.text" not in literal.metadata
    template = {"template": "{asked.text} {asked[text]} {answers.text[0]:>3} {answer.text}", "columns": columns}
    assert one(tmp_path, row, template, format="text").text == "x x   1 literal"


def test_a_missing_column_is_met_with_what_there_is_and_the_nearest_name(tmp_path: Path) -> None:
    row = {"prompt": "x", "answer": {"text": "1"}, "referense": 3}
    with pytest.raises(DataError, match="it has: prompt, answer, referense; did you mean 'referense'"):
        one(tmp_path, row)
    with pytest.raises(DataError, match=r"no column 'answer.txt' .*did you mean 'answer.text'"):
        one(tmp_path, row, {"columns": {"reference": "answer.txt"}})
    with pytest.raises(DataError, match=r"no column 'nothing' .*it has: prompt, answer, referense$"):
        one(tmp_path, row, {"columns": {"reference": "nothing"}})


@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (7.0, "7.0"), (0.25, "0.25"), (True, "True"), (False, "False"), ("007", "007")]
)
def test_numbers_and_booleans_are_references_as_python_writes_them(tmp_path: Path, value: Any, text: str) -> None:
    assert one(tmp_path, {"prompt": "x", "reference": value}).reference == text


def test_a_source_may_have_a_template_of_its_own(tmp_path: Path) -> None:
    row = {"prompt": "x", "reference": 1}
    assert one(tmp_path, row, {"template": "[{prompt}]"}, format="text", template="({prompt})").text == "[x]"
    assert one(tmp_path, row, format="text", template="({prompt})").text == "(x)"


TURN = st.sampled_from(["first ", "then ", "last "])
ENDINGS = st.lists(st.tuples(TURN, TURN), min_size=1, max_size=3)


@given(ENDINGS, st.sampled_from(["messages", "prompt"]), st.booleans())
def test_the_answer_that_a_conversation_ends_with_is_never_shown(
    pairs: list[tuple[str, str]], name: str, is_demonstration: bool
) -> None:
    conversation = [
        {"role": role, "content": f"{text}{number}"}
        for number, pair in enumerate(pairs)
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    config = PromptsConfig.model_validate({"train": "a.jsonl", "system": "Be brief."})
    built = build({name: conversation}, Columns(), config, "row 1", is_demonstration=is_demonstration)
    shown = [{"role": role, "content": content} for role, content in turns(built)]
    assert shown == [{"role": "system", "content": "Be brief."}, *conversation[:-1]]
    assert built.completion == built.reference == conversation[-1]["content"]
    assert built.metadata == {}


ENDED = [{"role": "user", "content": "3 + 4?"}, {"role": "assistant", "content": "That is 7."}]


def test_a_column_of_its_own_comes_before_the_answer_of_a_conversation(tmp_path: Path) -> None:
    both = one(tmp_path, {"messages": ENDED, "reference": 7})
    assert (turns(both), both.reference, both.completion) == ([("user", "3 + 4?")], "7", "That is 7.")
    assert one(tmp_path, {"messages": ENDED, "completion": "7"}).completion == "7"
    without = one(tmp_path, {"messages": ENDED}, {"columns": {"reference": None}})
    assert (without.reference, without.completion) == (None, "That is 7.")
    with pytest.raises(DataError, match=r"has no column 'answr'"):
        one(tmp_path, {"messages": ENDED}, {"columns": {"reference": "answr"}})


def test_a_template_shows_no_whole_conversation(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the column 'prompt' is a conversation, and prompts.template uses it"):
        one(tmp_path, {"prompt": ENDED, "reference": 7}, template="Answer: {prompt}")
    part = one(tmp_path, {"prompt": ENDED, "reference": 7}, template="Answer: {prompt[0][content]}")
    assert turns(part) == [("user", "Answer: 3 + 4?")]


@pytest.mark.parametrize(("reference", "text"), [({"b": 1, "a": [2]}, '{"a":[2],"b":1}'), ([1, "x"], '[1,"x"]')])
def test_an_object_or_a_list_is_a_reference_as_its_json(tmp_path: Path, reference: Any, text: str) -> None:
    assert one(tmp_path, {"prompt": "x", "reference": reference}).reference == text
    with pytest.raises(DataError, match="holds NaN"):
        one(tmp_path, {"prompt": "x", "reference": [float("nan")]})
