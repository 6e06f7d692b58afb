"""Files written a part at a time: the same bytes as files written at once, there whole or not at all."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from groups import make_candidate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selftrain import tables
from selftrain.errors import DiskError
from selftrain.publishing import LINES_AT_ONCE, Lines, Publication
from selftrain.records import Candidate, Survivor
from selftrain.store import file_sha256, write_jsonl


def survivor(number: int) -> Survivor:
    return Survivor(
        candidate_id=f"c{number}",
        prompt_id="p",
        round=1,
        token_ids=tuple(range(number % 7)),
        label_mask=tuple(token % 2 == 0 for token in range(number % 7)),
        weight=1.0,
        why="because",
        prompt_text="ask",
        text=f"answer {number}",
        value=None if number % 3 == 0 else number / 3,
    )


@pytest.mark.parametrize("number", [0, 1, 3, 4])
def test_a_table_of_few_rows_has_the_bytes_of_one_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 4)
    rows = [survivor(one) for one in range(number)]
    expected = tables.write(tmp_path / "whole.parquet", rows, Survivor, fingerprint="f")
    with tables.Writer(tmp_path / "grown.parquet", Survivor, fingerprint="f") as table:
        for row in rows:
            table.add(row)
        assert table.rows == number
        assert table.publish() == expected == file_sha256(tmp_path / "grown.parquet")


def test_a_table_of_many_rows_is_read_as_it_was_written_and_comes_out_the_same_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 10)
    rows = [survivor(one) for one in range(37)]
    hashes = set()
    for name in ("first", "second"):
        with tables.Writer(tmp_path / f"{name}.parquet", Survivor, fingerprint="f") as table:
            for row in rows:
                table.add(row)
            hashes.add(table.publish())
        assert tables.read(tmp_path / f"{name}.parquet", Survivor) == rows
        assert tables.fingerprint_of(tmp_path / f"{name}.parquet") == "f"
    assert len(hashes) == 1


def test_lines_have_the_bytes_of_lines_written_at_once(tmp_path: Path) -> None:
    rows = [{"candidate_id": f"c{number}", "why": "ü" * 900} for number in range(100)]
    assert sum(map(len, map(json.dumps, rows))) > LINES_AT_ONCE
    with Lines(tmp_path / "grown.jsonl") as lines:
        for row in rows:
            lines.add(row)
        assert lines.publish() == write_jsonl(tmp_path / "whole.jsonl", rows)
    assert (tmp_path / "grown.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_what_is_not_published_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"old": 1}])
    with contextlib.suppress(RuntimeError), Lines(path) as lines:
        lines.add({"new": 2})
        raise RuntimeError("midway")
    with contextlib.suppress(RuntimeError), tables.Writer(path, Survivor, fingerprint="f") as table:
        table.add(survivor(1))
        raise RuntimeError("midway")
    assert [one.name for one in tmp_path.iterdir()] == ["rows.jsonl"]
    assert json.loads(path.read_text()) == {"old": 1}


def test_a_folder_in_which_nothing_can_be_written_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DiskError, match="a file is in the way"):
        Publication(tmp_path / "file" / "in" / "rows.jsonl")


TEXTS = st.text(st.characters(), max_size=6) | st.just("\ud83d lone")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, st.lists(st.integers(0, 2**31 - 1), max_size=4), st.none() | TEXTS), max_size=5))
def test_candidates_are_read_as_they_were_written_but_for_what_is_no_unicode(
    tmp_path: Path, rows: list[tuple[str, list[int], str | None]]
) -> None:
    candidates = [
        replace(
            make_candidate("p", number, text),
            completion_token_ids=tuple(ids),
            logprobs=tuple(-0.5 * one for one in range(len(ids))),
            reasoning=reasoning,
            metadata={} if reasoning is None else {"from": [1, None]},
        )
        for number, (text, ids, reasoning) in enumerate(rows)
    ]
    tables.write(tmp_path / "candidates.parquet", candidates, Candidate, fingerprint="f")

    def written(text: str | None) -> str | None:
        return None if text is None else text.encode("utf-8", "backslashreplace").decode()

    expected = [replace(one, text=str(written(one.text)), reasoning=written(one.reasoning)) for one in candidates]
    assert tables.read(tmp_path / "candidates.parquet", Candidate) == expected


def test_columns_that_nobody_looks_at_are_empty_and_the_others_as_ever(tmp_path: Path) -> None:
    candidates = [replace(make_candidate("p", number, f"{number}"), metadata={"a": 1}) for number in range(3)]
    tables.write(tmp_path / "candidates.parquet", candidates, Candidate, fingerprint="f")
    found = tables.read(tmp_path / "candidates.parquet", Candidate, without=("metadata", "logprobs", "extras"))
    assert found == [replace(one, metadata={}, logprobs=()) for one in candidates]
