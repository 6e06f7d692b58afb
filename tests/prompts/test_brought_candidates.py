from __future__ import annotations

import csv
import json
import math
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selftrain import prompts as prompt_room
from selftrain.config import GeneratorConfig, PromptsConfig
from selftrain.errors import ConfigError, DataError, PhaseError
from selftrain.prompts.brought import BroughtCandidates, check, columns
from selftrain.prompts.cells import Unusable

ROWS = [
    {"prompt": "one?", "completion": "1", "reward": 0.5, "finish_reason": "stop"},
    {"prompt": "two?", "completion": "2", "reward": 0.25, "finish_reason": "length"},
    {"prompt": "one?", "completion": "eins", "reward": 1.0, "finish_reason": "stop"},
    {"prompt": "else?", "completion": "no", "reward": 0.0, "finish_reason": "stop"},
    {"prompt": "one?", "completion": "uno", "reward": 0.75, "finish_reason": "stop_sequence"},
]


def jsonl(folder: Path, rows: Sequence[dict[str, Any]], name: str = "candidates.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def prompts_of(folder: Path, *asked: dict[str, Any], **knobs: Any) -> tuple[PromptsConfig, list[str]]:
    jsonl(folder, [{"reference": None, **one} for one in asked], "train.jsonl")
    config = PromptsConfig.model_validate({"train": "train.jsonl", **knobs})
    return config, [one.id for one in prompt_room.load(config, folder).train.prompts]


OPEN: list[BroughtCandidates] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def brought(folder: Path, asked: tuple[PromptsConfig, list[str]], **generator: Any) -> BroughtCandidates:
    knobs = GeneratorConfig.model_validate({"file": "candidates.jsonl", **generator})
    OPEN.append(BroughtCandidates(knobs, asked[0], folder, asked[1], folder / "spool"))
    return OPEN[-1]


ONE_TWO_THREE = ({"prompt": "one?"}, {"prompt": "two?"}, {"prompt": "three?"})


def written(folder: Path, kind: str) -> str:
    """The rows as a source of that kind; its path."""
    if kind == "jsonl":
        return jsonl(folder, ROWS).name
    if kind == "json":
        (folder / "candidates.json").write_text(json.dumps(ROWS))
    elif kind == "csv":
        with (folder / "candidates.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ROWS[0])
            writer.writeheader()
            writer.writerows(ROWS)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), folder / "candidates.parquet", row_group_size=2)
    else:
        (folder / "candidates").mkdir()
        pq.write_table(pa.Table.from_pylist(ROWS), folder / "candidates" / "data.parquet")
    return {"folder": "candidates"}.get(kind, f"candidates.{kind}")


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "folder"])
def test_candidates_are_found_by_the_words_of_their_prompts_in_any_kind_of_file(tmp_path: Path, kind: str) -> None:
    asked = prompts_of(tmp_path, *ONE_TWO_THREE)
    held = brought(tmp_path, asked, file=written(tmp_path, kind))
    one, two, three = asked[1]
    found = list(held.of(one))
    assert [(it.text, it.finish_reason) for it in found] == [
        ("1", "stop_token"),
        ("eins", "stop_token"),
        ("uno", "stop_string"),
    ]
    assert [float(it.metadata["reward"]) for it in found] == [0.5, 1.0, 0.75]
    assert [list(it.metadata) for it in found] == [["reward"]] * 3, "the prompt's columns stay the prompt's"
    assert [it.finish_reason for it in held.of(two)] == ["length"]
    assert [held.num_held(name) for name in (one, two, three, "never")] == [3, 1, 0, 0]
    assert list(held.of(three)) == []
    assert held.elsewhere.count == 1
    assert len(held.elsewhere.places) == 1
    assert "4" in held.elsewhere.places[0] or "5" in held.elsewhere.places[0], "named by its place"
    assert not list(tmp_path.glob("spool/*")), "what rows are read again from has no name, and leaves nothing behind"


def test_rows_may_hold_lists_of_candidates_and_what_belongs_to_each(tmp_path: Path) -> None:
    asked = prompts_of(tmp_path, *ONE_TWO_THREE)
    jsonl(
        tmp_path,
        [
            {
                "prompt": "one?",
                "completions": ["1", [{"role": "assistant", "content": "eins"}]],
                "rewards": [0.5, 1.0],
                "finish_reason": ["stop", "length"],
                "source": "a",
                "tags": ["x", "y", "z"],
            },
            {"prompt": "two?", "completion": [{"role": "assistant", "content": "2"}], "finish_reason": None},
        ],
    )
    held = brought(tmp_path, asked)
    assert [(it.text, it.finish_reason, it.metadata) for it in held.of(asked[1][0])] == [
        ("1", "stop_token", {"rewards": 0.5, "source": "a", "tags": ["x", "y", "z"]}),
        ("eins", "length", {"rewards": 1.0, "source": "a", "tags": ["x", "y", "z"]}),
    ]
    assert [(it.text, it.finish_reason) for it in held.of(asked[1][1])] == [("2", "stop_token")]
    assert [held.num_held(name) for name in asked[1]] == [2, 1, 0]


def test_prompts_may_come_from_the_same_file_and_do_not_keep_its_candidates(tmp_path: Path) -> None:
    jsonl(tmp_path, [{"prompt": "one?", "reference": "1", "completions": ["1", "2"], "level": 3}])
    config = PromptsConfig.model_validate({"train": "candidates.jsonl"})
    (prompt,) = prompt_room.load(config, tmp_path).train.prompts
    assert prompt.metadata == {"level": 3}
    held = brought(tmp_path, (config, [prompt.id]))
    assert [it.metadata for it in held.of(prompt.id)] == [{"level": 3}, {"level": 3}]


def test_conversations_templates_and_ids_name_prompts_too(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "one?"}]
    asked = prompts_of(tmp_path, {"messages": turns}, {"prompt": "two?"})
    answered = [*turns, {"role": "assistant", "content": "a known answer, which is no candidate"}]
    jsonl(tmp_path, [{"messages": answered, "completion": "1"}, {"prompt": "two?", "completion": "2"}])
    held = brought(tmp_path, asked)
    assert [[it.text for it in held.of(name)] for name in asked[1]] == [["1"], ["2"]]

    asked = prompts_of(tmp_path, {"q": "one"}, {"q": "two"}, template="{q}?")
    jsonl(tmp_path, [{"q": "two", "completion": "2", "level": 1}])
    held = brought(tmp_path, asked)
    assert [it.metadata for it in held.of(asked[1][1])] == [{"level": 1}]
    jsonl(tmp_path, [{"asked": "two?", "completion": "2"}])
    held = brought(tmp_path, asked, file={"path": "candidates.jsonl", "template": "{asked}"})
    assert [it.text for it in held.of(asked[1][1])] == ["2"]

    jsonl(tmp_path, [{"id": asked[1][0], "completion": "1"}])
    held = brought(tmp_path, asked, prompt_id="id")
    assert [(it.text, it.metadata) for it in held.of(asked[1][0])] == [("1", {})]


def test_several_files_are_a_mix_and_parts_of_one_are_skipped_and_limited(tmp_path: Path) -> None:
    asked = prompts_of(tmp_path, *ONE_TWO_THREE)
    jsonl(tmp_path, ROWS, "a.jsonl")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "b.parquet")
    part = {"path": "a.jsonl", "skip": 1, "limit": 2}
    held = brought(tmp_path, asked, file={"mix": {"a": part, "b": {"path": "b.parquet", "skip": 4}}})
    assert [[it.text for it in held.of(name)] for name in asked[1]] == [["eins", "uno"], ["2"], []]
    assert held.elsewhere.count == 0


@pytest.mark.parametrize(
    ("row", "knobs", "words"),
    [
        ({"question": "one?", "completion": "1"}, {}, "no column 'prompt'.*it has: question, completion.*prompt_id"),
        ({"prompt": "one?", "answer": "1"}, {}, "no column 'completion'.*it has: prompt, answer"),
        ({"prompt": "one?", "completion": None}, {}, "completion holds the candidate.*is None"),
        ({"prompt": "one?", "completions": []}, {}, "completions is an empty list"),
        ({"prompt": "one?", "completion": "1", "finish_reason": "bored"}, {}, "says 'bored'; known are stop,"),
        ({"prompt": "one?", "completion": "1"}, {"prompt_id": "id"}, "no column 'id'.*it has: prompt, completion"),
    ],
)
def test_a_row_that_is_no_candidate_is_named_with_what_it_has(
    tmp_path: Path, row: dict[str, Any], knobs: dict[str, Any], words: str
) -> None:
    asked = prompts_of(tmp_path, *ONE_TWO_THREE)
    jsonl(tmp_path, [row])
    generator = GeneratorConfig.model_validate({"file": "candidates.jsonl", **knobs})
    for look in (lambda: check(generator, asked[0], tmp_path), lambda: brought(tmp_path, asked, **knobs)):
        with pytest.raises(DataError, match=f"(?s)candidates.jsonl, line 1.*{words}|{words}"):
            look()
    good = {"prompt": "one?", "completion": "1", "id": asked[1][0]}
    jsonl(tmp_path, [good, good, row])
    check(generator, asked[0], tmp_path)
    with pytest.raises(DataError, match=r"candidates.jsonl, line 3"):
        brought(tmp_path, asked, **knobs)


def test_files_that_are_not_there_or_empty_are_named(tmp_path: Path) -> None:
    asked = prompts_of(tmp_path, *ONE_TWO_THREE)
    with pytest.raises(ConfigError, match=r"sample.policy.file: there is no file .*candidates.jsonl"):
        brought(tmp_path, asked)
    jsonl(tmp_path, [])
    with pytest.raises(DataError, match=r"sample.policy.file: candidates.jsonl gave no rows"):
        brought(tmp_path, asked)
    jsonl(tmp_path, ROWS)
    with pytest.raises(DataError, match="gave no rows after the first 9"):
        brought(tmp_path, asked, file={"path": "candidates.jsonl", "skip": 9})


def test_the_columns_that_candidates_bring_are_known_from_the_first_row(tmp_path: Path) -> None:
    asked = prompts_of(tmp_path, *ONE_TWO_THREE)
    jsonl(tmp_path, ROWS)
    generator = GeneratorConfig.model_validate({"file": "candidates.jsonl"})
    assert columns(generator, asked[0], tmp_path) == {"reward": None}
    jsonl(tmp_path, [{**ROWS[0], "share": math.nan}, *ROWS])
    assert columns(generator, asked[0], tmp_path) == {"reward": None, "share": Unusable("NaN or infinity")}


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "function"])
def test_nan_is_no_value_wherever_it_stands(tmp_path: Path, kind: str) -> None:
    asked = prompts_of(tmp_path, *ONE_TWO_THREE)
    rows = [
        {"prompt": "one?", "completions": ["1", "i"], "reward": [1.0, math.nan], "note": math.nan, "by": "a"},
        {"prompt": "two?", "completions": ["2", "ii"], "reward": [0.5, 1.0], "note": math.inf, "by": "b"},
        {"prompt": "three?", "completions": ["3", "iii"], "reward": [0.5, 1.0], "note": 2.5, "by": "c"},
    ]
    jsonl(tmp_path, rows)
    (tmp_path / "candidates.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "candidates.parquet")
    (tmp_path / "rows.py").write_text(f"from math import inf, nan\ndef rows():\n    yield from {rows!r}\n")
    held = brought(tmp_path, asked, file="rows.py:rows" if kind == "function" else f"candidates.{kind}")
    found = [[dict(one.metadata) for one in held.of(name)] for name in asked[1]]
    assert found == [
        [{"reward": 1.0, "by": "a"}, {"reward": None, "by": "a"}],
        [{"reward": 0.5, "by": "b"}, {"reward": 1.0, "by": "b"}],
        [{"reward": 0.5, "note": 2.5, "by": "c"}, {"reward": 1.0, "note": 2.5, "by": "c"}],
    ]


def test_half_a_character_is_named_with_its_row_and_column(tmp_path: Path) -> None:
    asked = prompts_of(tmp_path, *ONE_TWO_THREE)
    jsonl(tmp_path, [*ROWS, {"prompt": "one?", "completion": "see \ud83d", "reward": 1.0}])
    with pytest.raises(
        DataError, match=r"line 6: the column 'completion' holds half a character \('\\ud83d'\)"
    ) as error:
        brought(tmp_path, asked)
    assert "mend that text, or take the row out" in str(error.value)
    assert "leave that column out" not in str(error.value)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    asked = prompts_of(tmp_path, *ONE_TWO_THREE)
    path = jsonl(tmp_path, ROWS)
    held = brought(tmp_path, asked)
    assert len(list(held.of(asked[1][0]))) == 3
    path.write_text(path.read_text().replace("eins", "zwei") + "\n")
    with pytest.raises(PhaseError, match="was changed while it was read"):
        list(held.of(asked[1][0]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_hundred_thousand_rows_take_linear_time_and_little_memory(tmp_path: Path, kind: str) -> None:
    def measured(number: int) -> tuple[float, int]:
        folder = tmp_path / str(number)
        folder.mkdir()
        rows = ({"prompt": f"{at * 7919 % number // 10}?" * 20, "completion": "w " * 200} for at in range(number))
        if kind == "jsonl":
            path = folder / "candidates.jsonl"
            with path.open("w") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            path = folder / "candidates.parquet"
            pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=5000)
        config = PromptsConfig.model_validate({"train": {"path": path.name, "columns": {"reference": None}}})
        started = time.process_time()
        tracemalloc.start()
        ids = [one.id for one in prompt_room.load(config, folder).train.prompts]
        _, of_prompts = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        held = brought(folder, (config, ids), file=path.name)
        assert sum(len(list(held.of(name))) for name in ids) == number
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < of_prompts + 30_000_000, "what is held of a row is a few numbers"
        return time.process_time() - started, of_prompts

    small, _ = measured(10_000)
    large, held = measured(100_000)
    assert large < 15 * small
    assert held < 60_000_000, "ten thousand prompts, not a hundred thousand rows"
