"""What is exported of an answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from groups import make_candidate, make_prompt

from selftrain.config import ThinkingConfig
from selftrain.exporting import rows
from selftrain.exporting.rows import Example, Pair, Speech
from selftrain.exporting.writing import ROWS_AT_A_TIME, Table
from selftrain.records import Message

CHAT = replace(make_prompt("p"), text=None, messages=(Message("system", "s"), Message("user", "u")), task="sums")
GOOD = Example(CHAT, "5", "p/0", 1.0, "right", "tiny")
TEXT = replace(GOOD, prompt=make_prompt("p"), completion=" 5")


def test_a_conversation_is_exported_as_one_and_a_text_as_a_text() -> None:
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    said = {"role": "assistant", "content": "5"}
    beside = {
        "prompt_id": "p",
        "task": "sums",
        "candidate_id": "p/0",
        "value": 1.0,
        "generator": "tiny",
        "why": "right",
    }
    assert rows.prompt_completion(GOOD) == {"prompt": turns, "completion": [said], **beside}
    assert rows.messages(GOOD) == {"messages": [*turns, said], **beside}
    assert rows.prompt_completion(TEXT) == {"prompt": "ask p", "completion": " 5", **beside, "task": None}
    assert rows.text(TEXT)["text"] == "ask p 5"
    pair = rows.preference(Pair(GOOD, replace(GOOD, completion="6", candidate_id="p/1", value=0.0)))
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == (turns, [said], [{**said, "content": "6"}])
    assert (pair["chosen_value"], pair["rejected_candidate_id"]) == (1.0, "p/1")


@pytest.mark.parametrize(
    ("speech", "completion"),
    [
        (Speech(), "5"),
        (Speech(ThinkingConfig()), "<think>2 + 3\n</think>5"),
        (Speech(ThinkingConfig(), answer_alone=True), "5"),
        (Speech(ThinkingConfig(open="[", close="]")), "[2 + 3\n]5"),
    ],
)
def test_reasoning_is_exported_where_it_is_trained_on(speech: Speech, completion: str) -> None:
    candidate = replace(make_candidate("p", 0, "5"), reasoning="2 + 3\n")
    assert speech.completion(candidate) == completion
    assert speech.completion(make_candidate("p", 0, "5")) == "5"


def test_rows_are_written_in_groups_and_a_table_without_any_is_not_there(tmp_path: Path) -> None:
    with Table(tmp_path, "text", chat=False, tasks=False) as table:
        for _ in range(ROWS_AT_A_TIME + 1):
            table.add(rows.text(TEXT))
    file = pq.ParquetFile(tmp_path / "text.parquet")
    assert [file.metadata.row_group(one).num_rows for one in range(file.num_row_groups)] == [ROWS_AT_A_TIME, 1]
    assert "task" not in file.schema_arrow.names
    assert len((tmp_path / "text.jsonl").read_text().splitlines()) == table.count == ROWS_AT_A_TIME + 1
    with Table(tmp_path, "preference", chat=False, tasks=False):
        pass
    assert sorted(one.name for one in tmp_path.iterdir()) == ["text.jsonl", "text.parquet"]


def test_a_row_is_one_line_however_lines_are_told_apart(tmp_path: Path) -> None:
    text = "a\u2028b\u2029c\x85d\x0be\r\nf\x1cg\0"
    with Table(tmp_path, "text", chat=False, tasks=False) as table:
        table.add({**rows.text(TEXT), "text": text})
    [line] = (tmp_path / "text.jsonl").read_text().splitlines()
    assert json.loads(line)["text"] == text == pq.read_table(tmp_path / "text.parquet")["text"][0].as_py()


def test_of_long_rows_few_are_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftrain.exporting.writing.CHARACTERS_AT_A_TIME", 2000)
    with Table(tmp_path, "text", chat=False, tasks=False) as table:
        for _ in range(3):
            table.add({**rows.text(TEXT), "text": "x" * 1000})
    file = pq.ParquetFile(tmp_path / "text.parquet")
    assert [file.metadata.row_group(one).num_rows for one in range(file.num_row_groups)] == [2, 1]
    assert len((tmp_path / "text.jsonl").read_text().splitlines()) == 3
