"""Rows from files of every kind: the same prompts, and what is wrong said in words."""

from __future__ import annotations

import csv
import datetime
import json
import subprocess
import sys
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.config import PromptsConfig
from selftrain.errors import ConfigError, DataError
from selftrain.prompts import PromptSet, load
from selftrain.prompts.files import csv_rows
from selftrain.prompts.rows import read

SUFFIXES = ("jsonl", "json", "csv", "parquet")
CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1, max_size=12)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    kind = path.suffix
    if kind == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    elif kind == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path.name


def train(folder: Path, source: Any, **knobs: Any) -> PromptSet:
    return load(PromptsConfig.model_validate({"format": "text", "train": source, **knobs}), folder).train


@settings(max_examples=40, deadline=None)
@given(st.lists(st.fixed_dictionaries({"prompt": CELL, "reference": CELL, "note": CELL}), min_size=1, max_size=6))
def test_rows_of_text_are_the_same_prompts_from_every_kind_of_file(rows: list[dict[str, str]]) -> None:
    distinct = list({row["prompt"]: row for row in rows}.values())
    with tempfile.TemporaryDirectory() as folder:
        sets = [train(Path(folder), write(Path(folder) / f"a.{suffix}", distinct)) for suffix in SUFFIXES]
    assert len({one.digest for one in sets}) == 1
    assert all(one.prompts == sets[0].prompts for one in sets)
    assert [one.metadata for one in sets[0].prompts] == [{"note": row["note"]} for row in distinct]


def test_a_cell_of_csv_is_the_text_that_is_written(tmp_path: Path) -> None:
    text = '\ufeffprompt,reference,note\r\n007,1e3,"a, ""b""\nc"\r\n\r\nTrue, 2 ,\r\n'
    (tmp_path / "a.csv").write_text(text, encoding="utf-8", newline="")
    first, second = train(tmp_path, "a.csv").prompts
    assert (first.text, first.reference, first.metadata) == ("007", "1e3", {"note": 'a, "b"\nc'})
    assert (second.text, second.reference, second.metadata) == ("True", " 2 ", {"note": ""})


def test_an_empty_cell_of_csv_says_that_there_is_no_reference_and_no_completion(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,reference,completion\nx,,\ny,2,two\n")
    first, second = train(tmp_path, "a.csv").prompts
    assert (first.reference, first.completion) == (None, None)
    assert (second.reference, second.completion) == ("2", "two")


def test_a_cell_of_csv_may_be_longer_than_the_standard_limit(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"prompt,reference\n{'x' * 200_000},1\n")
    assert len(train(tmp_path, "a.csv").prompts[0].text or "") == 200_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("prompt,reference\n", "it is empty"),
        ("prompt,reference\nx\n", r"a\.csv, line 2 has 1 cells, and the first line names 2 columns"),
        ("prompt,reference\nx,1,2\n", r"line 2 has 3 cells"),
        ("prompt,prompt\nx,1\n", "has 'prompt' twice"),
        ("prompt,\nx,1\n", "has no name for column 2"),
        ('prompt,reference\n"x,1\n', "is not CSV"),
        ("prompt;reference\nx, y;1\n", r"its columns look separated by ';'; save it with commas"),
        ("prompt\treference\nx\t1\n", r"its columns look separated by '\\t'; save it with commas"),
    ],
)
def test_bad_csv_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        train(tmp_path, "a.csv")


def test_csv_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"prompt,reference\n" + b"tea,1\n" * 3 + b"caf\xe9,1\n" + b"tea,1\n" * 3)
    with pytest.raises(DataError, match=r"a\.csv, line 5 is not UTF-8 text; save the file as UTF-8"):
        train(tmp_path, "a.csv")


def test_json_is_an_array_or_an_object_with_one_list(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "reference": 1}, {"prompt": "y", "reference": 2}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "b.json").write_text(json.dumps({"version": 3, "data": rows}))
    assert train(tmp_path, "a.json").prompts == train(tmp_path, "b.json").prompts
    assert [one.text for one in train(tmp_path, "a.json").prompts] == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "it is empty"),
        ('{"a": [], "b": []}', r"an object with 2 lists \(its keys: a, b\)"),
        ("{}", r"0 lists \(its keys: none\)"),
        ("3", "holds a int"),
        ("[1]", "row 1 of a.json holds a int"),
        ("[{]", "a.json is not JSON"),
        ('[\n{"a" 1}]', r"a.json is not JSON: Expecting ':' delimiter \(line 2, column 6\)$"),
        ("[" * 100_000, "a.json is not JSON"),
    ],
)
def test_bad_json_is_refused_with_its_row(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=said):
        train(tmp_path, "a.json")


def test_columns_of_a_table_that_json_cannot_hold_are_left_out_unless_they_are_used(tmp_path: Path) -> None:
    row = {
        "prompt": "x",
        "reference": 3,
        "image": {"bytes": b"png", "path": None},
        "sound": b"wav",
        "share": float("nan"),
        "kept": {"a": [1, 2], "b": None},
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (prompt,) = train(tmp_path, "a.parquet").prompts
    assert (prompt.reference, prompt.metadata) == ("3", {"kept": {"a": [1, 2], "b": None}})
    for name, what in (("image", "images or sound"), ("sound", "values of type bytes"), ("share", "NaN")):
        with pytest.raises(DataError, match=f"row 1 of a.parquet: the column '{name}' holds {what}"):
            train(tmp_path, {"path": "a.parquet", "columns": {"prompt": name}})
        with pytest.raises(DataError, match=f"the column '{name}' holds"):
            train(tmp_path, {"path": "a.parquet", "template": f"Look: {{{name}}}"})
    with pytest.raises(DataError, match=r"the column 'image\.bytes' holds images"):
        train(tmp_path, {"path": "a.parquet", "columns": {"reference": "image.bytes"}})


def test_decimals_and_dates_of_a_table_are_numbers_and_text(tmp_path: Path) -> None:
    when = datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    row = {
        "prompt": "x",
        "reference": Decimal("3"),
        "reward": Decimal("0.25"),
        "whole": Decimal("2.00"),
        "parts": [{"share": Decimal("0.5")}],
        "at": when,
        "day": when.date(),
        "hour": when.time(),
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (prompt,) = train(tmp_path, "a.parquet").prompts
    assert prompt.reference == "3"
    assert json.loads(json.dumps(prompt.metadata)) == {
        "reward": 0.25,
        "whole": 2.0,
        "parts": [{"share": 0.5}],
        "at": "2020-01-02T03:04:05+00:00",
        "day": "2020-01-02",
        "hour": "03:04:05",
    }
    assert [one.text for one in train(tmp_path, {"path": "a.parquet", "template": "{day}: {reward}"}).prompts] == [
        "2020-01-02: 0.25"
    ]


def test_a_line_that_is_not_json_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "x", "reference": 1}\n{"prompt": "y\n')
    with pytest.raises(DataError, match=r"^a\.jsonl, line 2 is not JSON: Unterminated string .*\(column 12\)$"):
        train(tmp_path, "a.jsonl")


def test_nan_matters_where_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "x", "reference": 1, "share": NaN, "parts": {"a": NaN, "b": 2}}\n')
    (prompt,) = train(tmp_path, "a.jsonl").prompts
    assert prompt.metadata == {"parts": {"a": None, "b": 2}}
    for name in ("share", "parts", "parts.a"):
        with pytest.raises(DataError, match=rf"line 1: the column '{name}' holds NaN or infinity, which is not read"):
            train(tmp_path, {"path": "a.jsonl", "columns": {"reference": name}})


@pytest.mark.parametrize("column", ["prompt", "reference", "completion", "note"])
def test_half_a_character_in_a_row_is_named_with_its_column(tmp_path: Path, column: str) -> None:
    row = {"prompt": "x", "reference": "1", "completion": "2", "note": "3", column: "\ud83d"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=rf"line 1: the column '{column}' holds half a character .*mend that text"):
        train(tmp_path, "a.jsonl")


def test_a_function_is_told_to_leave_out_what_is_not_json(tmp_path: Path) -> None:
    (tmp_path / "rows.py").write_text("def make():\n    yield {'prompt': 'x', 'reference': 1, 'image': b'png'}\n")
    with pytest.raises(
        DataError,
        match=r"row 1 of rows\.py:make: the column 'image' holds something that is not plain JSON.*leave that",
    ):
        train(tmp_path, "rows.py:make")


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(DataError, match=r"a\.parquet is not a Parquet file that can be read"):
        train(tmp_path, "a.parquet")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_skip_and_limit_make_several_sets_of_one_file(tmp_path: Path, suffix: str) -> None:
    name = write(tmp_path / f"a.{suffix}", [{"prompt": f"{n}?", "reference": f"{n}"} for n in range(600)])
    sources = [{"path": name, "limit": 590}, {"path": name, "skip": 590, "limit": 4}, {"path": name, "skip": 594}]
    sets = [train(tmp_path, source) for source in sources]
    assert [one.text for one in sets[1].prompts] == ["590?", "591?", "592?", "593?"]
    assert [len(one.prompts) for one in sets] == [590, 4, 6]
    with pytest.raises(DataError, match=r"gave no rows after the first 600 \(skip\)"):
        train(tmp_path, {"path": name, "skip": 600})


def test_places_count_from_the_beginning_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"prompt": "x", "reference": 1}, {"prompt": "y"}])
    with pytest.raises(DataError, match=r"a\.jsonl, line 2 has no column 'reference'"):
        train(tmp_path, {"path": "a.jsonl", "skip": 1})


def test_a_file_is_read_no_further_than_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,reference\nx,1\ny,2\nbroken\n")
    assert len(train(tmp_path, {"path": "a.csv", "limit": 2}).prompts) == 2
    assert next(csv_rows(tmp_path / "a.csv", "a.csv", PromptsConfig(train="a.csv").train.columns))[0] == "a.csv, line 2"


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"params": {"n": 1}}, "params is for a function or reasoning_gym, and a.jsonl is a .jsonl file"),
        ({"split": "test"}, "split is for a hub data set or folder"),
        ({"subset": "main"}, "subset is for a hub data set or folder"),
        ({"stream": True}, "stream is for a hub data set or folder"),
        ({"revision": "abc"}, "revision is for a hub data set, and"),
    ],
)
def test_a_knob_without_effect_is_refused(tmp_path: Path, knobs: dict[str, Any], said: str) -> None:
    write(tmp_path / "a.jsonl", [{"prompt": "x", "reference": 1}])
    with pytest.raises(ConfigError, match=said):
        train(tmp_path, {"path": "a.jsonl", **knobs})


def test_what_is_set_by_name_is_said_by_name(tmp_path: Path) -> None:
    source = PromptsConfig.model_validate({"train": "nowhere.csv"}).train
    with pytest.raises(ConfigError, match=r"prompts\.train\.mix\.sums: there is no file .*nowhere\.csv"):
        read(source, tmp_path, "prompts.train.mix.sums")


def test_files_of_text_and_functions_load_nothing_heavy(tmp_path: Path) -> None:
    for suffix in ("jsonl", "json", "csv"):
        write(tmp_path / f"a.{suffix}", [{"prompt": suffix, "reference": "1"}])
    (tmp_path / "rows.py").write_text("def make():\n    yield {'prompt': 'f', 'reference': 1}\n")
    code = (
        "import sys\nfrom pathlib import Path\nfrom selftrain.config import PromptsConfig\n"
        "from selftrain.prompts import load\n"
        "mix = {'a': 'a.jsonl', 'b': 'a.json', 'c': 'a.csv', 'd': 'rows.py:make'}\n"
        f"sets = load(PromptsConfig.model_validate({{'train': {{'mix': mix}}}}), Path({str(tmp_path)!r}))\n"
        "print(len(sets.train.prompts), [name for name in ('torch', 'pyarrow', 'datasets', 'numpy', 'reasoning_gym')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "4 []"
