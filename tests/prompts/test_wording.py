"""The words of a data set itself, without those of the recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain import prompts as prompt_room
from selftrain.config import PromptsConfig, SourceConfig
from selftrain.errors import ConfigError, DataError
from selftrain.prompts import wording

ROW = {"question": "How many legs has a cat?", "hint": "look {closely}", "reference": "4"}


def config_of(tmp_path: Path, rows: list[dict[str, Any]], **prompts: Any) -> PromptsConfig:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PromptsConfig.model_validate({"train": {"path": "rows.jsonl", **prompts.pop("train", {})}, **prompts})


def own(tmp_path: Path, rows: list[dict[str, Any]], **prompts: Any) -> list[str]:
    config = config_of(tmp_path, rows, **prompts)
    loaded = prompt_room.load(config, tmp_path)
    return [wording.own_text(one, config, config.train) for one in loaded.train.prompts]


@pytest.mark.parametrize("format_", ["chat", "text"])
def test_template_system_message_and_worked_examples_are_left_out(tmp_path: Path, format_: str) -> None:
    shown = {"few_shot": [{"prompt": "Q: How many legs has a hen? A:", "completion": " 2"}], "format": format_}
    template = "Think step by step. Q: {question} ({hint}) A:"
    assert own(tmp_path, [ROW], template=template, **shown) == ["How many legs has a cat?\nlook {closely}"]
    shown |= {"system": "Be brief."} if format_ == "chat" else {}
    assert own(tmp_path, [{"prompt": "How?", "reference": "so"}], **shown) == ["How?"]


def test_a_template_of_the_source_is_the_one_left_out(tmp_path: Path) -> None:
    train = {"template": "<{question}>"}
    assert own(tmp_path, [ROW], template="[{question}]", train=train) == ["How many legs has a cat?"]


def test_earlier_turns_count(tmp_path: Path) -> None:
    turns = [("system", "Be kind."), ("user", "Hello."), ("assistant", "Hi."), ("user", "Who are you?")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns], "reference": "x"}
    assert own(tmp_path, [row]) == ["Hello.\nHi.\nWho are you?"]


PIECE = st.text(alphabet="ab{} .", max_size=6)


@given(PIECE, PIECE, st.lists(st.text(alphabet="xyz", max_size=5), min_size=2, max_size=2))
def test_what_a_template_took_in_is_found_again(before: str, between: str, fields: list[str]) -> None:
    literal = [one.replace("{", "{{").replace("}", "}}") for one in (before, between, "END")]
    template = f"{literal[0]}{{a}}{literal[1] or '|'}{{b}}{literal[2]}"
    text = template.format(a=fields[0], b=fields[1])
    assert wording.within_template(text, template) == "\n".join(fields)
    assert wording.within_template("something else", template) == "something else"


def test_a_source_gives_questions_references_completions_and_texts(tmp_path: Path) -> None:
    rows = [
        {"prompt": "How?", "reference": "so", "completion": "So it is."},
        {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]},
        {"text": "Once upon a time."},
        {"prompt": "When?", "reference": 7},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(wording.of_source(SourceConfig(path="rows.jsonl"), tmp_path, "against.0"))
    assert [(kind, text) for _, kind, text in found] == [
        ("question", "How?"),
        ("reference", "so"),
        ("completion", "So it is."),
        ("question", "Why?"),
        ("completion", "Because."),
        ("text", "Once upon a time."),
        ("question", "When?"),
    ]
    assert "rows.jsonl" in found[0][0]


def test_a_source_without_known_columns_says_which_it_has(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "How?", "answer": "so"}\n')
    with pytest.raises(
        DataError, match=r"has no text to compare with: .* it has: question, answer.*columns of against.0"
    ):
        list(wording.of_source(SourceConfig(path="rows.jsonl"), tmp_path, "against.0"))
    known = SourceConfig.model_validate(
        {"path": "rows.jsonl", "columns": {"prompt": "question", "reference": "answer"}}
    )
    assert len(list(wording.of_source(known, tmp_path, "against.0"))) == 2
    with pytest.raises(ConfigError, match=r"against.0: there is no file"):
        list(wording.of_source(SourceConfig(path="gone.jsonl"), tmp_path, "against.0"))
