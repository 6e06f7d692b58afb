"""Rows from text files: JSON lines, JSON, CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selftrain.config import Columns
from selftrain.errors import DataError
from selftrain.prompts.cells import finite
from selftrain.prompts.rows import Numbered, Row


def json_lines(path: Path, name: str) -> Numbered:
    """One object per line; blank lines are skipped. `name` is the file in errors, as the recipe writes it."""
    return ((place, row) for _, place, row in json_lines_at(path, name))


def json_lines_at(path: Path, name: str) -> Iterator[tuple[int, str, Row]]:
    """The same, each with the place of its first byte in the file."""
    at = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                place = f"{name}, line {number}"
                yield at, place, json_line(line, place)
            at += len(line)


def json_line(line: bytes, place: str) -> Row:
    """The object that a line holds. Raises DataError."""
    return _row(_parsed(line.rstrip(), place), place, "every line must be an object with named columns")


def json_array(path: Path, name: str) -> Numbered:
    """An array of objects, or an object that holds one list of them."""
    data = _parsed(path.read_bytes(), name)
    if isinstance(data, dict):
        lists = {key: value for key, value in data.items() if isinstance(value, list)}
        if len(lists) != 1:
            raise DataError(
                f"{name} must hold an array of rows, or an object with one list; it is an object with "
                f"{len(lists)} lists (its keys: {', '.join(map(str, data)) or 'none'}); give the rows as a .jsonl file"
            )
        data = next(iter(lists.values()))
    if not isinstance(data, list):
        raise DataError(f"{name} must hold an array of rows, and holds a {type(data).__name__}")
    for number, row in enumerate(data, 1):
        place = f"row {number} of {name}"
        yield place, _row(row, place, "every row must be an object with named columns")


def csv_rows(path: Path, name: str, columns: Columns) -> Numbered:
    """Comma-separated rows under a header; a byte-order mark is left out.

    Every cell is the text that is written, never a number made of it: 007 stays 007. CSV has no null, so an empty cell
    in the reference's or the completion's column says that there is none; elsewhere it is the empty text.
    """
    csv.field_size_limit(sys.maxsize)  # of the process; the default refuses a cell of 128 KiB
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        records = _records(reader, path, name)
        header = next(records, None)
        if header is None:
            return
        for separator in (";", "\t") if len(header) == 1 else ():
            if separator in header[0]:
                raise DataError(
                    f"{name}: its columns look separated by {separator!r}; save it with commas: {header[0]!r}"
                )
        for number, title in enumerate(header, 1):
            if not title.strip() or title in header[: number - 1]:
                wrong = f"{title!r} twice" if title.strip() else f"no name for column {number}"
                raise DataError(f"{name}: its first line must name every column once, and has {wrong}: {header}")
        for cells in records:
            place = f"{name}, line {reader.line_num}"
            if len(cells) != len(header):
                raise DataError(
                    f"{place} has {len(cells)} cells, and the first line names {len(header)} columns; put text that "
                    'holds commas or line breaks in double quotes (and a quote in it twice: "")'
                )
            row: dict[str, str | None] = dict(zip(header, cells, strict=True))
            for optional in (columns.reference, columns.completion):
                if optional is not None and row.get(optional) == "":
                    row[optional] = None
            yield place, row


def _records(reader: Any, path: Path, name: str) -> Iterator[list[str]]:
    """The lines that are not blank."""
    try:
        yield from (cells for cells in reader if cells)
    except csv.Error as error:
        raise DataError(f"{name}, line {reader.line_num} is not CSV: {error}") from None
    except UnicodeDecodeError as error:
        # Text is decoded in blocks, far ahead of the line that is read.
        with path.open("rb") as lines:
            number = next((number for number, line in enumerate(lines, 1) if not _is_utf_8(line)), reader.line_num)
        raise DataError(f"{name}, line {number} is not UTF-8 text; save the file as UTF-8: {error}") from None


def _is_utf_8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _parsed(data: bytes, place: str) -> Any:
    try:
        return json.loads(data, object_pairs_hook=lambda pairs: _object(pairs, place))
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8 text: {error}") from None
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}" if b"\n" in data.strip() else f"column {error.colno}"
        raise DataError(f"{place} is not JSON: {error.msg} ({at})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON: {error}") from None


def _object(pairs: list[tuple[str, Any]], place: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise DataError(f"{place} names {twice!r} twice in one object; take one of them out")
    return found


def _row(row: Any, place: str, advice: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{place} holds a {type(row).__name__}; {advice}")
    return finite(row)
