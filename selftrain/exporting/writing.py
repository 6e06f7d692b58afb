"""Rows into files: each format as one Parquet and one JSONL file, written together, some rows at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from selftrain.exporting.columns import Kind
from selftrain.exporting.rows import Format
from selftrain.store import fault

ROWS_AT_A_TIME = 2000
"""Of a Parquet row group: what is in memory, and what a reader that streams fetches at once."""
CHARACTERS_AT_A_TIME = 1 << 26
"""At most about so many, where rows are long."""

# What JSON allows in a text, and many a reader of lines takes for the end of one.
_LINE_ENDS = {one: f"\\u{one:04x}" for one in (0x85, 0x2028, 0x2029)}
_TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_OF_CANDIDATE = [("candidate_id", pa.string()), ("value", pa.float64()), ("generator", pa.string())]
_BESIDE = [("prompt_id", pa.string()), ("task", pa.string()), *_OF_CANDIDATE, ("why", pa.string())]


def schema(
    kind: Format, *, chat: bool, tasks: bool, generators: bool = True, own: Mapping[str, Kind] | None = None
) -> pa.Schema:
    """The columns of a format. `tasks` and `generators`: whether any are known; else there is no column for them. `own`
    are those of a candidate file."""
    of_file = [(name, pa.type_for_alias(one)) for name, one in (own or {}).items()]
    beside, of_candidate = [*_BESIDE, *of_file], [*_OF_CANDIDATE, *of_file]
    said = _TURNS if chat else pa.string()
    columns: dict[str, list[tuple[str, pa.DataType]]] = {
        "prompt_completion": [("prompt", said), ("completion", said), *beside],
        "messages": [("messages", _TURNS), *beside],
        "text": [("text", pa.string()), *beside],
        "preference": [
            *((name, said) for name in ("prompt", "chosen", "rejected")),
            *_BESIDE[:2],
            *((f"{side}_{name}", kind) for side in ("chosen", "rejected") for name, kind in of_candidate),
        ],
    }
    unknown = {"task"} if not tasks else set()
    unknown |= {"generator", "chosen_generator", "rejected_generator"} if not generators else set()
    return pa.schema([(name, kind) for name, kind in columns[kind] if name not in unknown])


class Table:
    """Two files of one format, open for as long as the `with` block lasts. `count` is how many rows they have."""

    def __init__(
        self,
        folder: Path,
        kind: Format,
        *,
        chat: bool,
        tasks: bool,
        generators: bool = True,
        own: Mapping[str, Kind] | None = None,
    ) -> None:
        self.kind = kind
        self.count = 0
        self._schema = schema(kind, chat=chat, tasks=tasks, generators=generators, own=own)
        self._paths = folder / f"{kind}.parquet", folder / f"{kind}.jsonl"
        self._rows: list[dict[str, Any]] = []
        self._waiting: list[str] = []
        self._characters = 0

    def __enter__(self) -> Table:
        self._parquet = pq.ParquetWriter(self._paths[0], self._schema, compression="zstd")
        self._lines = open(self._paths[1], "w", encoding="utf-8", newline="\n")
        return self

    def add(self, row: dict[str, Any]) -> None:
        """One more row."""
        self._rows.append({name: row.get(name) for name in self._schema.names})
        line = json.dumps(self._rows[-1], ensure_ascii=False, allow_nan=False)
        self._waiting.append(line.translate(_LINE_ENDS) + "\n")
        self._characters += len(self._waiting[-1])
        self.count += 1
        if len(self._rows) == ROWS_AT_A_TIME or self._characters >= CHARACTERS_AT_A_TIME:
            self._flush()

    def _flush(self) -> None:
        fault("before rows")
        self._parquet.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._lines.writelines(self._waiting)
        self._rows, self._waiting, self._characters = [], [], 0
        fault("after rows")

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None and self._rows:
            self._flush()
        self._parquet.close()
        self._lines.close()
        if kind is None and not self.count:  # `datasets` refuses a table without rows
            for path in self._paths:
                path.unlink()
