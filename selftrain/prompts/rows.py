"""Rows of a set: where they are read from, and what their columns hold.

Readers that import something heavy (`parquet`, `hub`, `gym`) are loaded when a set asks for them.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from selftrain import plugins
from selftrain.config import Columns, PromptsConfig, SourceConfig
from selftrain.errors import ConfigError, DataError
from selftrain.prompts.cells import READ, Unusable, finite

Row = Mapping[str, Any]
Numbered = Iterator[tuple[str, Row]]
"""Rows, each with its place in words."""

GYM = "reasoning_gym:"
FILES = (".jsonl", ".json", ".csv", ".parquet")
KINDS = f"a file ({', '.join(FILES)}), a folder or hub id that datasets loads, {GYM}TASK, or path/to/file.py:function"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*|[\w-]+")
MISSING = object()

_DATASETS = "a hub data set or folder"
# The knobs that only some kinds of source have, and what those are.
_KNOBS = {
    "params": {"function": "a function", "reasoning_gym": "reasoning_gym"},
    "subset": {"hub": _DATASETS, "folder": _DATASETS},
    "split": {"hub": _DATASETS, "folder": _DATASETS},
    "stream": {"hub": _DATASETS, "folder": _DATASETS},
    "revision": {"hub": "a hub data set"},
}


def read(source: SourceConfig, base: Path, where: str) -> list[tuple[str, Row]]:
    """As `stream`, all of them."""
    return list(stream(source, base, where))


def stream(source: SourceConfig, base: Path, where: str) -> Numbered:
    """The rows that `skip` and `limit` let through, one by one, each with its place in words.

    `where` is the knob that the source is set by. Raises ConfigError: a source that is not there, or has a knob without
    effect; DependencyError: a library or the hub is missing; DataError: no rows, or one that is none.
    """
    kind = kind_of(source, base, where)
    is_empty = True
    for found in islice(_rows(kind, source, base, where), source.limit):
        is_empty = False
        yield found
    if is_empty:
        raise empty(source, where)


def kind_of(source: SourceConfig, base: Path, where: str) -> str:
    """`reasoning_gym`, `function`, `folder`, `hub`, or the suffix of a file that is there. Raises ConfigError."""
    assert source.path is not None
    kind = _kind(source.path, base, where)
    defaults = SourceConfig(path=source.path)
    for knob, kinds in _KNOBS.items():
        if kind not in kinds and getattr(source, knob) != getattr(defaults, knob):
            what = " or ".join(dict.fromkeys(kinds.values()))
            raise ConfigError(f"{where}: {knob} is for {what}, and {source.path} is {_article(kind)}; take it out")
    return kind


def empty(source: SourceConfig, where: str) -> DataError:
    """For a source that gave no rows."""
    if source.skip:
        return DataError(f"{where}: {source.path} gave no rows after the first {source.skip:,} (skip); it has no more")
    return DataError(f"{where}: {source.path} gave no rows; it is empty")


def splits(source: SourceConfig, base: Path) -> dict[str, list[str]]:
    """The splits that a hub data set or folder has, each with its files, if it is a folder; empty for other sources."""
    assert source.path is not None
    kind = _kind(source.path, base, "path")
    if kind not in ("folder", "hub"):
        return {}
    from selftrain.prompts import hub

    return hub.splits(source, base, is_local=kind == "folder")


def columns_of(source: SourceConfig) -> Columns:
    """Which column of the source's rows holds what: those of reasoning_gym are known where they are not set."""
    columns, defaults = source.columns, Columns()
    if not is_gym(source):
        return columns
    known = {"prompt": "question", "reference": "answer"}
    unset = {name: value for name, value in known.items() if getattr(columns, name) == getattr(defaults, name)}
    return columns.model_copy(update=unset)


def names_of(config: PromptsConfig) -> dict[str, str]:
    """The columns of any set that hold the `prompt` or the `reference`, by their names in the data; without a name that
    means the one here and the other there."""
    sets = (config.train, config.validate_, config.test, config.seed_data, config.retention)
    found: dict[str, set[str]] = {}
    for columns in (columns_of(one) for of_set in sets if of_set is not None for one in of_set.sources.values()):
        found.setdefault(columns.prompt, set()).add("prompt")
        if columns.reference is not None:
            found.setdefault(columns.reference, set()).add("reference")
    return {name: what.pop() for name, what in found.items() if len(what) == 1}


def is_gym(source: SourceConfig) -> bool:
    """Whether the rows are made by reasoning_gym."""
    return source.path is not None and source.path.startswith(GYM)


def find(row: Row, name: str) -> Any:
    """The value of the column of that name; else, with dots, what lies inside one (`answer.text`, `answers.0`); else
    MISSING."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list | tuple) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return value if isinstance(value, Unusable) else MISSING
    return value


def column(row: Row, name: str, place: str, advice: str) -> Any:
    """The value that `find` gives. DataError, with the advice and the columns there are, if there is none; and for one
    that is no text or JSON."""
    value = find(row, name)
    if value is MISSING:
        inside = [f"{key}.{part}" for key, inner in row.items() if isinstance(inner, Mapping) for part in inner]
        close = difflib.get_close_matches(name, [*map(str, row), *inside], n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise DataError(f"{place} has no column {name!r} ({advice}); it has: {', '.join(map(str, row))}{meant}")
    if isinstance(value, Unusable):
        raise DataError(
            f"{place}: the column {name!r} holds {value.what}, which is not read ({READ} are); write it as one of "
            "those, or name another column"
        )
    return value


def as_text(value: Any, what: str) -> str:
    """Text as it is, a number in digits, a boolean as `True` or `False`; DataError for anything else.

    A number has the digits of its type: 3 is "3", 3.0 is "3.0".
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    raise DataError(f"{what} must be text or a number, not {type(value).__name__}: {value!r:.80}")


def _kind(path: str, base: Path, where: str) -> str:
    """`reasoning_gym`, `function`, `folder`, `hub`, or the suffix of a file that is there."""
    if path.startswith(GYM):
        return "reasoning_gym"
    if plugins.is_reference(path):
        return "function"
    place = base / Path(path).expanduser()
    if place.suffix in FILES and not place.is_dir():
        if not place.is_file():
            raise ConfigError(
                f"{where}: there is no file {place.resolve()} (relative paths start at the recipe's folder)"
            )
        return place.suffix
    if place.is_dir():
        return "folder"
    if place.is_file() or not HUB_ID.fullmatch(path):
        raise ConfigError(f"{where}: cannot read {path!r} (looked for {place.resolve()}); give {KINDS}")
    return "hub"


def _article(kind: str) -> str:
    return {"function": "a function", "folder": "a folder", "hub": "a hub data set"}.get(kind, f"a {kind} file")


def _rows(kind: str, source: SourceConfig, base: Path, where: str) -> Numbered:
    """The rows after the first `skip`."""
    if kind in ("folder", "hub"):
        from selftrain.prompts import hub

        return hub.rows(source, base, where, is_local=kind == "folder")
    if kind == "reasoning_gym":
        from selftrain.prompts import gym

        return gym.rows(source, where)
    if kind == "function":
        return islice(_rows_of_function(source, base, where), source.skip, None)
    return islice(_rows_of_file(source, base), source.skip, None)


def _rows_of_file(source: SourceConfig, base: Path) -> Numbered:
    from selftrain.prompts import files

    assert source.path is not None
    path = base / Path(source.path).expanduser()
    if path.suffix == ".jsonl":
        return files.json_lines(path, source.path)
    if path.suffix == ".json":
        return files.json_array(path, source.path)
    if path.suffix == ".csv":
        return files.csv_rows(path, source.path, source.columns)
    from selftrain.prompts import parquet

    return parquet.rows(path, source.path)


def _rows_of_function(source: SourceConfig, base: Path, where: str) -> Numbered:
    assert source.path is not None
    function = plugins.load_function(source.path, base)
    try:
        rows: Iterable[Any] = function(**source.params)
        for number, row in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                raise DataError(
                    f"{where}: row {number} of {source.path} is a {type(row).__name__}; yield dicts with named columns"
                )
            yield f"row {number} of {source.path}", finite(row)  # a copy: a function may go on filling the same one
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{where}: {source.path} raised {type(error).__name__}: {error}") from error
