"""Rows of a set, from a JSON-lines file or a function of the recipe, and what their columns hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from selftrain import plugins
from selftrain.config import SourceConfig
from selftrain.errors import ConfigError, DataError

Row = Mapping[str, Any]


def read(source: SourceConfig, base: Path, where: str) -> list[tuple[str, Row]]:
    """The rows that `limit` lets through, each with its place in words. DataError: none, or one that is no row."""
    found = list(islice(_rows(source, base, where), source.limit))
    if not found:
        raise DataError(f"{where}: {source.path} gave no rows; it is empty")
    return found


def column(row: Row, name: str, place: str, advice: str) -> Any:
    """The value in that column. DataError, with the advice and the columns there are, if there is none."""
    if name not in row:
        raise DataError(f"{place} has no column {name!r} ({advice}); it has: {', '.join(map(str, row))}")
    return row[name]


def as_text(value: Any, what: str) -> str:
    """Text as it is, a number in digits; DataError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{what} must be text or a number, not {type(value).__name__}: {value!r:.80}")


def _rows(source: SourceConfig, base: Path, where: str) -> Iterator[tuple[str, Row]]:
    if plugins.is_reference(source.path):
        yield from _rows_of_function(source, base, where)
        return
    path = base / source.path
    if path.suffix != ".jsonl":
        raise ConfigError(f"{where}: cannot read {source.path!r}; give a .jsonl file, or path/to/file.py:function")
    if not path.is_file():
        raise ConfigError(f"{where}: there is no file {path.resolve()} (relative paths start at the recipe's folder)")
    if source.params:
        raise ConfigError(f"{where}: params are for functions; {source.path} is a file")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{source.path}, line {number}", _json_row(line, f"{source.path}, line {number}")


def _json_row(line: bytes, place: str) -> Row:
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8 text: {error}") from None
    except ValueError as error:
        raise DataError(f"{place} is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise DataError(f"{place} holds a {type(row).__name__}; every line must be an object with named columns")
    return row


def _rows_of_function(source: SourceConfig, base: Path, where: str) -> Iterator[tuple[str, Row]]:
    function = plugins.load_function(source.path, base)
    try:
        rows: Iterable[Any] = function(**source.params)
        for number, row in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                raise DataError(
                    f"{where}: row {number} of {source.path} is a {type(row).__name__}; yield dicts with named columns"
                )
            yield f"row {number} of {source.path}", dict(row)  # a function may go on filling the same one
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{where}: {source.path} raised {type(error).__name__}: {error}") from error
